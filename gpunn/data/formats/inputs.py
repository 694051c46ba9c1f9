"""Read files of any kind as inputs of a network: images, NumPy arrays and IDX files."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.data import read_idx
from gpunn.data.checks import checked_inputs
from gpunn.data.formats.image import image_shape, read_image
from gpunn.data.formats.kinds import IDX, IMAGE_FORMATS, NPY, NPZ, kind_of_file
from gpunn.data.formats.npy import read_npy
from gpunn.data.formats.npz import NpzFile
from gpunn.data.training_inputs import TrainingInputs, are_drawn
from gpunn.errors import DataError

_READERS: dict[str, Callable[[Path], NDArray[Any]]] = {
    NPY: read_npy,
    NPZ: lambda path: NpzFile(path).inputs(),
    IDX: read_idx,
}


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
        path: an image, a .npy or .npz file, or an IDX file; its first bytes decide, not its name.
        shape: of one sample, (features,) or (height, width, channels).
        invert: whether an image is turned dark for light: "auto" where its border is light and those of the training
            were dark, or the other way round.
        note: is given a line for what was done to an image and may surprise.
        trained_on: what the inputs of the training were like; left out, images light on dark as MNIST and its like are.

    Returns:
        (n, *shape); bytes where the file held whole numbers that are such, floats for an image: of the range of the
        training images, or 0 to 1.

    Raises:
        DataError: the file is missing, damaged, of an unknown kind, or its samples have another shape.
    """
    kind = kind_of_file(path, "give images, .npy, .npz or IDX files")
    if kind.reader in _READERS:
        return _as_samples(path, _READERS[kind.reader](path), shape)
    if kind.reader not in IMAGE_FORMATS:
        found = f"this is {kind.name}: {kind.mend}" if kind.mend else f"got {kind.name}"
        known = ", ".join(IMAGE_FORMATS)
        raise DataError(f"{path} is no file that can be read: give an image ({known}), .npy, .npz or IDX, {found}")
    size = image_shape(path, shape)
    pixels = read_image(path, kind.reader, size, invert, note, trained_on)
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
