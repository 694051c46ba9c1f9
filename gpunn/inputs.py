"""Files of any kind as inputs of a network: images, NumPy arrays and IDX files."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.data import read_idx
from gpunn.data.checks import checked_inputs
from gpunn.data.npy import MAGIC, read_header
from gpunn.data.npz import ZIP_MAGIC, NpzFile
from gpunn.data.reading import GZIP_MAGIC, opened, read_up_to
from gpunn.errors import DataError
from gpunn.image_files import other_format
from gpunn.images import image_shape, read_image
from gpunn.storage import open_regular
from gpunn.training_inputs import TrainingInputs, are_drawn


def read_inputs(
    path: Path,
    shape: tuple[int, ...],
    *,
    invert: str = "auto",
    note: Callable[[str], None] = lambda _: None,
    trained_on: TrainingInputs | None = None,
) -> NDArray[Any]:
    """The samples in a file, as a network of this sample shape takes them.

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
    try:
        with open_regular(path) as file:
            start = file.read(32)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror or error}): give images, .npy, .npz or IDX files"
        ) from None
    if start.startswith(MAGIC):
        array = _read_npy(path)
    elif start.startswith(ZIP_MAGIC):
        array = _AnyArrays(path).only()
    elif start[:2] in (GZIP_MAGIC, b"\0\0") and not other_format(start):
        array = read_idx(path)
    else:
        size = image_shape(path, shape)
        pixels = read_image(path, size, invert, note, trained_on)
        # Of two rows all is border, and networks that were trained on patches of one colour are asked about such.
        if min(size[:2]) > 2 and (trained_on is None or trained_on.is_drawn) and not are_drawn(pixels[None])[0]:
            raise DataError(f"{path}: nothing is drawn in it: give an image with a drawing")
        return (pixels if trained_on is None else trained_on.as_inputs(pixels)).reshape(1, *shape)
    return _as_samples(path, array, shape)


class _AnyArrays(NpzFile):
    """A .npz file in which one array is looked for: x, x_test, or the only one there is."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.names = self._names()

    def only(self) -> NDArray[Any]:
        for key in ("x", "x_test", *(sorted(self.names) if len(self.names) == 1 else ())):
            if key in self.names:
                return self.read(key)
        got = ", ".join(sorted(self.names)[:8]) or "nothing"
        raise DataError(f"{self.path}: expected the array x, got {got}: save it with np.savez(path, x=x)")


def _read_npy(path: Path) -> NDArray[Any]:
    with opened(path) as (stream, size):
        try:
            header = read_header(stream)
        except DataError as error:
            raise DataError(f"{path} {error}: save it with np.save") from None
        held = (size or 0) - header.size
        if header.nbytes != held:
            raise DataError(
                f"{path} promises {header.nbytes:,} bytes {header.shape}, got {held:,}: get or save the file again"
            )
        data = read_up_to(stream, held, str(path))
    if len(data) != held:
        raise DataError(f"{path} is cut short: get or save the file again")
    return header.array(np.frombuffer(data, header.dtype))


def _as_samples(path: Path, array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """One sample or many; the values are looked at as those of a data set are."""
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
