"""Augment training images by small random changes."""

from math import radians, tan
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpunn.config import Part
from gpunn.config.scalars import checked_seed, positive_whole, real
from gpunn.data.checks import as_array, check_finite
from gpunn.errors import OptionError, ShapeError
from gpunn.kernels.augmentation import Limits, augment


class Augmentation(Part, kind="augmentation", example="Augmentation(shift=1)"):
    """Change every training image a little, differently each time, inside the gather of the batch.

    The first four numbers are limits: each change is drawn uniformly from minus to plus its limit. Pixels from outside
    the image are 0; values between pixels are interpolated linearly.

    Args:
        shift: Shift in pixels, down and across.
        rotation: Angle in degrees, below 90.
        scale: Zoom as a share of the size, 0.1 for 90 to 110 %.
        shear: Shift of a row in pixels for each row from the middle.
        flip: Probability of a horizontal flip: 0.5 suits photographs, 0 digits and letters.
        cutout: Side in pixels of a square that is set to 0 around a uniformly drawn pixel, so that a part may lie
            outside (T. DeVries, G. W. Taylor, 2017); 0 for none.
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

    def apply(self, images: ArrayLike, *, seed: int = 0, step: int = 0) -> NDArray[Any]:
        """Augment images like one batch of `fit`, to look at or to make samples from.

        Image k gets the changes of the k-th image in the batch of this step, in a training with this seed.

        Args:
            images: Images (n, height, width, channels), or (n, height, width) of one channel.
            seed: Seed of the training.
            step: Number of the step, from 0; each step draws other changes.

        Returns:
            Augmented images, float32, in the shape of `images`.

        Raises:
            ShapeError, DataError: No images, or pixels that are NaN or Inf.
            OptionError: An invalid seed or step.
        """
        given = as_array(images, "images")
        if given.ndim not in (3, 4) or not given.size:
            mend = "image[None] makes a batch of one image" if given.ndim == 2 else "give an array of images"
            raise ShapeError(f"expected images (n, height, width, channels), got shape {given.shape}: {mend}")
        if given.dtype.kind == "f":
            check_finite(given, "images")
        inside = given[..., None] if given.ndim == 3 else given
        pictures = np.empty((len(inside), inside.shape[3], *inside.shape[1:3]), np.float32)
        drawn = checked_seed(seed), positive_whole(step, "step of Augmentation.apply", least=0)
        if drawn[1] >= 2**31:
            raise OptionError(f"step of Augmentation.apply must be below {2**31:,}, got {step!r}")
        augment(inside.transpose(0, 3, 1, 2), *drawn, self.limits, 1.0, pictures)
        return np.ascontiguousarray(pictures.transpose(0, 2, 3, 1)).reshape(given.shape)
