"""Files of any kind as inputs of a network: images, NumPy arrays and IDX files."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpunn.data import read_idx
from gpunn.data.checks import checked_inputs
from gpunn.data.npz import NpzFile
from gpunn.data.reading import GZIP_MAGIC
from gpunn.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

# Not every format that Pillow knows: some of them start other programs.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_MOST_PIXELS = 100_000_000
INVERSIONS = ("auto", "always", "never")


def read_inputs(
    path: Path, shape: tuple[int, ...], *, invert: str = "auto", note: Callable[[str], None] = lambda _: None
) -> NDArray[Any]:
    """The samples in a file, as a network of this sample shape takes them.

    Args:
        path: an image, a .npy or .npz file, or an IDX file; its first bytes decide, not its name.
        shape: of one sample, (features,) or (height, width, channels).
        invert: whether an image is turned dark for light: "auto" where its border is light, as MNIST and its like are
            light on dark.
        note: is given a line for what was done to an image and may surprise.

    Returns:
        (n, *shape); bytes where the file held bytes, floats from 0 to 1 for an image.

    Raises:
        DataError: the file is missing, damaged, of an unknown kind, or its samples have another shape.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no file"
        raise DataError(f"{path} is {found}: give images, .npy, .npz or IDX files")
    try:
        with path.open("rb") as file:
            start = file.read(6)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}): check its permissions") from None
    if start == b"\x93NUMPY":
        array = _read_npy(path)
    elif start[:4] == b"PK\x03\x04":
        array = _AnyArrays(path).only()
    elif start[:2] in (GZIP_MAGIC, b"\0\0"):
        array = read_idx(path)
    else:
        return _read_image(path, image_shape(path, shape), invert, note).reshape(1, *shape)
    return _as_samples(path, array, shape)


def image_shape(path: Path, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(height, width, channels) of the images that a network takes; features that make a square are one.

    Raises:
        DataError: the network takes no images.
    """
    if len(shape) == 3 and shape[2] in (1, 3):
        return shape[0], shape[1], shape[2]
    side = math.isqrt(shape[0])
    if len(shape) == 1 and side * side == shape[0]:
        return side, side, 1
    raise DataError(f"{path} is an image, the network takes arrays of {shape}: give .npy, .npz or IDX files")


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
    try:
        # As a map of the file, so that a header cannot promise more than the file holds.
        return np.array(np.load(path, mmap_mode="r", allow_pickle=False))
    except (ValueError, OSError, EOFError) as error:
        reason = (str(error).splitlines() or [""])[0][:200]
        raise DataError(f"{path} is no array of numbers that can be read ({reason}): save it with np.save") from None


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
    if len(shape) == 3 and len(one) != 3:
        array = array.reshape(len(array), *shape)
    try:
        return checked_inputs(array)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _read_image(path: Path, shape: tuple[int, int, int], invert: str, note: Callable[[str], None]) -> NDArray[Any]:
    """An image as (height, width, channels), 0 to 1: fitted in whole, its border's colour around it."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    height, width, channels = shape
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as opened:
                if opened.width * opened.height > _MOST_PIXELS:
                    raise DataError(f"{path}: {opened.width} × {opened.height} pixels are more than {_MOST_PIXELS:,}")
                pixels = _grey_or_rgb(ImageOps.exif_transpose(opened), channels)
    except UnidentifiedImageError:
        kinds = ", ".join(FORMATS)
        raise DataError(f"{path} is no file that can be read: give an image ({kinds}), .npy, .npz or IDX") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: the image is damaged ({reason}): get it again") from None
    border = np.median(np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]), axis=0)
    light = float(np.mean(border)) > 0.5
    if pixels.shape[:2] != (height, width):
        note(f"{path}: {pixels.shape[1]} × {pixels.shape[0]} pixels, fitted into {width} × {height}")
        pixels = _fitted(pixels, height, width, border)
    if invert == "always" or (invert == "auto" and light):
        if invert == "auto":
            note(f"{path}: light background, so dark and light are exchanged (--invert never leaves them)")
        pixels = 1 - pixels
    return pixels.astype(np.float32)


def _grey_or_rgb(image: Image, channels: int) -> NDArray[Any]:
    """(height, width, channels) from 0 to 1; what is transparent is white."""
    from PIL import Image

    if image.mode.startswith(("I", "F")):
        # 16 and 32 bits: Pillow would cut off what is above 255.
        deep = np.asarray(image, dtype=np.float64)
        most = 1.0 if image.mode == "F" and deep.max() <= 1 else 65535.0 if deep.max() > 255 else 255.0
        return np.repeat(np.clip(deep / most, 0, 1)[..., None], channels, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"), dtype=np.float64) / 255
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _fitted(pixels: NDArray[Any], height: int, width: int, border: NDArray[Any]) -> NDArray[Any]:
    """The image scaled to fit, proportions kept, in the middle of a field of its border's colour."""
    from PIL import Image

    scale = min(height / pixels.shape[0], width / pixels.shape[1])
    rows, columns = (max(1, round(length * scale)) for length in pixels.shape[:2])
    field = np.broadcast_to(border, (height, width, pixels.shape[2])).copy()
    top, left = (height - rows) // 2, (width - columns) // 2
    for channel in range(pixels.shape[2]):
        plane = Image.fromarray(pixels[..., channel].astype(np.float32))
        # Means over areas where it shrinks: thin strokes fade but do not vanish.
        small = plane.resize((columns, rows), Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR)
        field[top : top + rows, left : left + columns, channel] = np.asarray(small)
    fitted: NDArray[Any] = np.clip(field, 0, 1)
    return fitted
