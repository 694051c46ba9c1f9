"""Synthetic data: more examples than there are, from small changes to those that there are."""

from math import radians, tan

from gpunn.config import Part
from gpunn.errors import OptionError
from gpunn.kernels.augmentation import Limits
from gpunn.scalars import positive_whole, real


class Augmentation(Part, kind="augmentation", example="Augmentation(shift=1)"):
    """Changes every training image a little, another way each time it is seen, inside the gather of the batch.

    The first four numbers are limits: what is done to an image is drawn evenly between minus and plus each. Places
    outside the image are 0; between pixels it is interpolated linearly.

    Args:
        shift: Number of pixels, down and across.
        rotation: Angle in degrees, below 90.
        scale: Share by which an image grows or shrinks, 0.1 for 90 to 110 %.
        shear: Number of pixels by which a row is moved for each row from the middle.
        flip: Probability with which an image is mirrored, left to right: 0.5 where both ways are as likely, as in
            photographs; 0 for digits and letters.
        cutout: Side in pixels of a square that becomes 0, around a pixel drawn evenly from all, so that a part of it
            may lie outside (T. DeVries, G. W. Taylor, 2017); 0 for none.
    """

    def __init__(
        self,
        shift: float = 0.0,
        rotation: float = 0.0,
        scale: float = 0.0,
        shear: float = 0.0,
        flip: float = 0.0,
        cutout: int = 0,
    ) -> None:
        ends = {"shift": (shift, 1e6), "rotation": (rotation, 90), "scale": (scale, 1), "shear": (shear, 10)}
        for name, (value, end) in ends.items():
            if not 0 <= real(value, f"{name} of Augmentation") < end:
                raise OptionError(f"{name} of Augmentation must lie from 0 to below {end:g}, got {value!r}")
        self.shift, self.rotation, self.scale, self.shear = float(shift), float(rotation), float(scale), float(shear)
        self.flip = real(flip, "flip of Augmentation", ("lie from 0 to 1", lambda p: 0 <= p <= 1))
        self.cutout = positive_whole(cutout, "cutout of Augmentation", least=0)

    @property
    def limits(self) -> Limits:
        """Limits for the kernel: shift, tangent of half the rotation, scale, shear, and those of flip and cutout."""
        tangent = tan(radians(self.rotation) / 2)
        return self.shift, tangent, self.scale, self.shear, 2 * self.flip - 1, min(self.cutout, 2**30)
