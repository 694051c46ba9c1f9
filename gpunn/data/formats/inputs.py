"""Read files of any kind as inputs of a network: images, NumPy arrays and IDX files."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.data.checks import checked_inputs
from gpunn.data.formats.image import image_shape, read_image
from gpunn.data.formats.kinds import KINDS, kind_of_file
from gpunn.data.training_inputs import TrainingInputs, are_drawn
from gpunn.errors import DataError


def read_inputs(
    path: Path,
    shape: tuple[int, ...],
    *,
    invert: str = "auto",
    note: Callable[[str], None] = lambda _: None,
    trained_on: TrainingInputs | None = None,
) -> NDArray[Any]:
    """Read the samples in a file, as a network of this sample shape takes them.

    Args:
        path: An image, a .npy or .npz file, or an IDX file.
        shape: Shape of one sample, (features,) or (height, width, channels).
        invert: "always" or "never" to exchange dark and light of an image; "auto" where only one of its border and
            those of the training images is light.
        note: Function for a line about changes to an image that may surprise.
        trained_on: Description of the training inputs; left out, images are light on dark like those of MNIST.

    Returns:
        (n, *shape); bytes where the file held whole numbers that are such, floats for an image: of the range of the
        training images, or 0 to 1.

    Raises:
        DataError: The file is missing, damaged, of an unknown kind, or its samples have another shape.
    """
    kind = kind_of_file(path, "give images, .npy, .npz or IDX files")
    if kind.inputs is not None:
        return _as_samples(path, kind.inputs(path), shape)
    if not kind.image:
        found = f"this is {kind.name}: {kind.mend}" if kind.mend else f"got {kind.name}"
        known = ", ".join(known.image for known in KINDS if known.image)
        raise DataError(f"{path} is no file that can be read: give an image ({known}), .npy, .npz or IDX, {found}")
    size = image_shape(path, shape)
    pixels = read_image(path, kind.image, size, invert, note, trained_on)
    # Of two rows all is border, and networks that were trained on patches of one colour are asked about such.
    if min(size[:2]) > 2 and (trained_on is None or trained_on.is_drawn) and not are_drawn(pixels[None])[0]:
        raise DataError(f"{path}: nothing is drawn in it: give an image with a drawing")
    return (pixels if trained_on is None else trained_on.as_inputs(pixels)).reshape(1, *shape)


def _as_samples(path: Path, array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Arrange an array as samples; the values are checked as those of a data set are."""
    features = math.prod(shape)
    fitting = (shape, shape[:2], (features,)) if len(shape) == 3 else (shape,)
    if array.shape in fitting:
        array = array[None]
    one = array.shape[1:]
    if not (one in fitting or (len(shape) == 1 and len(one) in (2, 3) and math.prod(one) == features)):
        wanted = " × ".join(map(str, shape))
        raise DataError(f"{path}: expected samples of {wanted}, (n, {', '.join(map(str, shape))}), got {array.shape}")
    if array.dtype.kind in "iu" and array.size and array.min() >= 0 and array.max() <= 255:
        array = array.astype(np.uint8)  # a network scales whole numbers as those of its training were
    if len(shape) == 3 and len(one) != 3:
        array = array.reshape(len(array), *shape)
    try:
        return checked_inputs(array)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
