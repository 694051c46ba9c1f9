"""Read image files as bytes of one size, alike for training on a folder and for later predictions."""

import struct
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpunn.data.drawings import borders
from gpunn.data.formats.bounded import reading
from gpunn.data.formats.image import (
    EXIF,
    Decoded,
    Planes,
    centred,
    content_of,
    decode,
    fitted,
    fitted_size,
    gif_size,
    needed_parts,
    on_ground,
    opened_image,
    orientation_of,
    planes_of,
    upright,
)
from gpunn.files import open_regular

_SPARE = 2  # times the shape that a JPEG keeps at least when it is shrunk during decoding
_MOST_WHOLE = 1 << 22  # pixels of an image that is converted in one piece
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # JPEG markers with the size
_WITHOUT_LENGTH = frozenset((0x01, *range(0xD0, 0xDB), 0xFF))  # markers before nothing, or before pixels
_START = 1 << 16  # bytes that hold the header of most images


class ImageHeader(NamedTuple):
    """Upright size of an image, and whether its pixel format is grey."""

    height: int
    width: int
    is_grey: bool


def read_header(path: Path, form: str) -> ImageHeader:
    """Read size and colours of an image, mostly from its first bytes; Pillow may warn meanwhile."""
    with reading(path), open_regular(path) as file:
        start = file.read(_START)
    if form == "JPEG" and (found := _header_of_jpeg(start)) is not None:
        return found
    if form in ("JPEG", "PNG", "BMP", "PPM"):
        with suppress(Exception):  # the header is longer, or damaged
            return _header(form, start)
    content = content_of(path, form)
    with reading(path, "the image is damaged", "get it again, or remove it", (Exception,)):
        content = needed_parts(form, content)
        if form == "GIF":
            gif_size(content)
        return _header(form, content)


def _header_of_jpeg(start: bytes) -> ImageHeader | None:
    """Read the header from the first segments of a JPEG; return None if it takes Pillow."""
    place = 2
    while place + 10 <= len(start) and start[place] == 0xFF and start[place + 1] not in _WITHOUT_LENGTH:
        if start[place + 1] in _FRAMES:
            height, width, components = struct.unpack_from(">HHB", start, place + 5)
            turned = orientation_of(start.partition(EXIF)[2]) > 4
            sizes = (width, height) if turned else (height, width)
            return ImageHeader(*sizes, components == 1) if height and width else None
        place += 2 + int.from_bytes(start[place + 2 : place + 4])
    return None


def _header(form: str, content: bytes) -> ImageHeader:
    with opened_image(form, content) as image:
        (width, height), mode = image.size, image.mode
        is_grey = mode in ("1", "L", "LA", "La", "F") or mode.startswith("I")
        if mode == "P" and image.palette is not None:
            colours = np.frombuffer(bytes(image.palette.palette), np.uint8)
            step = len(image.palette.mode)
            colours = colours[: len(colours) // step * step].reshape(-1, step)
            is_grey = bool((colours[:, :3] == colours[:, :1]).all())
    exif = content.partition(EXIF)[2] if form == "JPEG" else b""
    return ImageHeader(height, width, is_grey) if orientation_of(exif) <= 4 else ImageHeader(width, height, is_grey)


def read_pixels(path: Path, form: str, shape: tuple[int, int, int]) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Read an image as bytes (height, width, channels), resized to fit, with its upright size.

    It is turned as EXIF says, laid on white if it is transparent (on black if only that shows it), and shrunk by area
    means or enlarged linearly, proportions kept; the rest is filled by the median colour of its border. Pillow may warn
    meanwhile.
    """
    height, width, channels = shape

    def take(decoded: Decoded) -> NDArray[np.uint8] | Planes:
        image, mode = decoded.images[0], "L" if channels == 1 else "RGB"
        is_large = image.mode != mode and image.width * image.height > _MOST_WHOLE
        if decoded.is_deep or image.has_transparency_data or image.mode[0] in "IF" or is_large:
            return planes_of(decoded)
        return _small(decoded, mode)

    taken, size = decode(path, form, shape, take, _SPARE)
    if isinstance(taken, tuple):
        pixels = on_ground(taken, None)
        border = np.median(borders(pixels[None])[0], axis=0)
        pixels = pixels if size == (height, width) else fitted(pixels, size, height, width, border)
        return np.asarray(np.rint(255 * pixels), np.uint8), size
    if taken.shape != shape:
        taken = centred(taken, height, width, np.rint(np.median(borders(taken[None])[0], axis=0)))
    return taken, size


def _small(decoded: Decoded, mode: str) -> NDArray[np.uint8]:
    """Return opaque pixels of 8 bits, resized by Pillow, which lets other threads work meanwhile."""
    from PIL import Image

    given = decoded.images[0]
    image: Any = given if given.mode == mode else given.convert(mode)
    rows, columns = fitted_size(decoded.size, *decoded.wanted[:2])
    if image.size != (columns, rows):
        is_smaller = rows < image.height or columns < image.width
        image = image.resize((columns, rows), Image.Resampling.BOX if is_smaller else Image.Resampling.BILINEAR)
    return upright(np.asarray(image).reshape(rows, columns, len(mode)), decoded.orientation)
