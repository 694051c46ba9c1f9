"""Images as inputs of a network: grey or RGB, fitted into its size, dark and light as it learned them."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpunn.errors import DataError, GpunnError, MemoryShortageError
from gpunn.image_files import ImageFile, read_image_file
from gpunn.limits import require

if TYPE_CHECKING:
    from PIL.Image import Image

# What decoding may take: ten million pixels of a PNG, and of a photograph, which is shrunk meanwhile, up to 64 times.
_MOST_BYTES = 40 << 20
_MOST_SHRINKING = 8
_LONGEST_SIDE = 65_535
# Pixels as floats at a time, and pixels of the image that are left for one of the network in the first shrinking.
_BAND, _SPARE = 1 << 18, 4


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


def read_image(path: Path, shape: tuple[int, int, int], invert: str, note: Callable[[str], None]) -> NDArray[Any]:
    """An image as (height, width, channels), 0 to 1: fitted in whole, its border's colour around it.

    Args:
        path: of the file; see `read_inputs` for the rest.
        shape: that it gets.
        invert: whether dark and light are exchanged.
        note: is given a line for what may surprise.

    Raises:
        DataError: it cannot be read, is damaged, or would take too much memory.
        MemoryShortageError: less than that is free.
    """
    height, width, _ = shape
    pixels, size = _decoded(path, read_image_file(path), shape)
    border = np.median(np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]), axis=0)
    light = float(np.mean(border)) > 0.5
    if size != (height, width):
        note(f"{path}: {size[1]} × {size[0]} pixels, fitted into {width} × {height}")
        pixels = _fitted(pixels, size, height, width, border)
    if invert == "always" or (invert == "auto" and light):
        if invert == "auto":
            note(f"{path}: light background, so dark and light are exchanged (--invert never leaves them)")
        pixels = 1 - pixels
    return pixels.astype(np.float32)


def _decoded(path: Path, file: ImageFile, shape: tuple[int, int, int]) -> tuple[NDArray[Any], tuple[int, int]]:
    """Upright pixels, a large image already shrunk to some multiple of the shape, and the image's (height, width)."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(file.content), formats=(file.format,)) as image:
                width, height = image.size
                size = (height, width) if file.orientation <= 4 else (width, height)
                shrinking = 1
                while file.shrinks and _bytes(image, file) > _MOST_BYTES and shrinking < _MOST_SHRINKING:
                    shrinking *= 2
                    image.draft(image.mode, (width // shrinking, height // shrinking))
                if _bytes(image, file) > _MOST_BYTES or max(size) > _LONGEST_SIDE:
                    raise DataError(
                        f"{path}: {width} × {height} pixels are too many: this image could be read with "
                        f"{_MOST_BYTES // file.pixel_bytes:,} of them, make it smaller"
                    )
                require(_bytes(image, file), str(path))
                return _upright(_shrunk(image, file.orientation, shape), file.orientation), size
    except GpunnError:
        raise
    except MemoryError:
        raise MemoryShortageError(f"{path}: the image does not fit into memory: make it smaller") from None
    except Exception as error:  # noqa: BLE001 - on damaged files Pillow raises nearly everything that there is
        raise DataError(f"{path}: the image is damaged ({error or type(error).__name__}): get it again") from None


def _bytes(image: Image, file: ImageFile) -> int:
    return image.width * image.height * file.pixel_bytes


def _shrunk(image: Image, orientation: int, shape: tuple[int, int, int]) -> NDArray[Any]:
    """Means over squares of pixels, each as large as leaves `_SPARE` of them for one of the network.

    A band of rows at a time: floats of the whole image would take many times its memory.
    """
    height, width = shape[:2] if orientation <= 4 else shape[1::-1]
    most_rows = max(1, _BAND // image.width)
    # It is fitted in whole, so the longer side says how much it shrinks.
    side = max(1, min(max(image.height // height, image.width // width) // _SPARE, most_rows))
    rows = most_rows // side * side
    white = _white(image)
    bands = []
    for top in range(0, image.height, rows):
        band = _grey_or_rgb(image.crop((0, top, image.width, min(top + rows, image.height))), shape[2], white)
        bands.append(_means(_means(band, side, 0), side, 1).astype(np.float32))
    return np.concatenate(bands)


def _means(values: NDArray[Any], count: int, axis: int) -> NDArray[Any]:
    """Means over `count` neighbours along an axis, over fewer at its end."""
    if count == 1:
        return values
    starts = np.arange(0, values.shape[axis], count)
    counts = np.diff(starts, append=values.shape[axis])
    sums: NDArray[Any] = np.add.reduceat(values, starts, axis)
    return sums / counts.reshape([-1 if other == axis else 1 for other in range(values.ndim)])


def _upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Pixels turned and mirrored as EXIF says they must be."""
    if orientation > 4:
        pixels = pixels.swapaxes(0, 1)
    mirrored = (orientation - 1) % 4
    if mirrored in (1, 2):
        pixels = pixels[:, ::-1]
    return pixels[::-1] if mirrored in (2, 3) else pixels


def _white(image: Image) -> float:
    """The value that is white; of 16 bits it is not said whether all of them are used."""
    if not image.mode.startswith("I"):
        return 255.0
    most: Any = image.getextrema()[1]
    return 65535.0 if most > 255 else 255.0


def _grey_or_rgb(image: Image, channels: int, white: float) -> NDArray[Any]:
    """(height, width, channels) from 0 to 1; what is transparent is white."""
    from PIL import Image

    if image.mode.startswith("I"):
        # 16 bits: Pillow would cut off what is above 255.
        deep = np.asarray(image, dtype=np.float64)
        return np.repeat(np.clip(deep / white, 0, 1)[..., None], channels, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"), dtype=np.float64) / white
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _fitted(pixels: NDArray[Any], size: tuple[int, int], height: int, width: int, border: NDArray[Any]) -> NDArray[Any]:
    """An image of a size scaled to fit, proportions kept, in the middle of a field of its border's colour."""
    from PIL import Image

    scale = min(height / size[0], width / size[1])
    rows, columns = (max(1, round(length * scale)) for length in size)
    field = np.broadcast_to(border, (height, width, pixels.shape[2])).copy()
    top, left = (height - rows) // 2, (width - columns) // 2
    for channel in range(pixels.shape[2]):
        plane = Image.fromarray(pixels[..., channel].astype(np.float32))
        # Means over areas where it shrinks: thin strokes fade but do not vanish.
        small = plane.resize((columns, rows), Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR)
        field[top : top + rows, left : left + columns, channel] = np.asarray(small)
    fitted: NDArray[Any] = np.clip(field, 0, 1)
    return fitted
