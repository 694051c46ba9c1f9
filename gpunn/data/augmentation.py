"""Synthetic data: more examples than there are, from small changes to those that there are."""

from math import radians, tan

from gpunn.config import Part
from gpunn.errors import OptionError
from gpunn.kernels.augmentation import Limits
from gpunn.scalars import real


class Augmentation(Part, kind="augmentation", example="Augmentation(shift=1)"):
    """Moves every training image a little, another way each time it is seen, inside the gather of the batch.

    All numbers are limits: what is done to an image is drawn evenly between minus and plus each. Places outside the
    image are 0; between pixels it is interpolated linearly.

    Args:
        shift: Number of pixels, down and across.
        rotation: Angle in degrees, below 90.
        scale: Share by which an image grows or shrinks, 0.1 for 90 to 110 %.
        shear: Number of pixels by which a row is moved for each row from the middle.
    """

    def __init__(self, shift: float = 0.0, rotation: float = 0.0, scale: float = 0.0, shear: float = 0.0) -> None:
        ends = {"shift": (shift, 1e6), "rotation": (rotation, 90), "scale": (scale, 1), "shear": (shear, 10)}
        for name, (value, end) in ends.items():
            if not 0 <= real(value, f"{name} of Augmentation") < end:
                raise OptionError(f"{name} of Augmentation must lie from 0 to below {end:g}, got {value!r}")
        self.shift, self.rotation, self.scale, self.shear = float(shift), float(rotation), float(scale), float(shear)

    @property
    def limits(self) -> Limits:
        """Limits for the kernel: shift, tangent of half the rotation, scale, shear."""
        return self.shift, tan(radians(self.rotation) / 2), self.scale, self.shear
