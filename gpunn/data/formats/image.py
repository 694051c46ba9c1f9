"""Make images inputs of a network: grey or RGB, fitted into its size, dark and light as it learned them."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpunn.backend.limits import require
from gpunn.data.formats.image_files import ImageFile, read_image_file
from gpunn.data.ranges import bit_depth
from gpunn.data.training_inputs import TrainingInputs, borders
from gpunn.errors import DataError, GpunnError, MemoryShortageError

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile as PillowFile

# Memory that decoding may take: at any rate, for each byte of the file, and in all. A small file that promises much is
# refused. Photographs are smooth where they are large. A PNG may take all that its header promises, since a large page
# may be nearly blank: deflate packs 1032 bytes into one, and of RGB Pillow makes four bytes of three.
_MOST_BYTES, _MOST_OF_ANY = 40 << 20, 1 << 30
_MOST_PER_BYTE = {"JPEG": 512, "PNG": 1376}
_MOST_PER_BYTE_OF_OTHERS = 128
# Memory that a pixel takes, if not four bytes; of a decoder that keeps whole images beside Pillow's, more.
_OF_PIXEL, _OF_PIXEL_OF_PNG = {"GIF": 5, "WEBP": 20}, {"1": 1, "L": 1, "P": 1, "I;16": 2}
_MOST_PIXELS, _LONGEST_SIDE = 220_000_000, 65_535
# Pixels as floats at a time, and pixels of the image that are left for one of the network in the first shrinking.
_BAND, _SPARE = 1 << 18, 4


def image_shape(path: Path, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Give (height, width, channels) of the images that a network takes; features that make a square are an image.

    Raises:
        DataError: the network takes no images.
    """
    if len(shape) == 3 and shape[2] in (1, 3):
        return shape[0], shape[1], shape[2]
    side = math.isqrt(shape[0])
    if len(shape) == 1 and side * side == shape[0]:
        return side, side, 1
    raise DataError(f"{path} is an image, the network takes arrays of {shape}: give .npy, .npz or IDX files")


def read_image(
    path: Path,
    form: str,
    shape: tuple[int, int, int],
    invert: str,
    note: Callable[[str], None],
    trained_on: TrainingInputs | None = None,
) -> NDArray[Any]:
    """Read an image as (height, width, channels), 0 to 1: fitted in whole, its border's colour around it.

    Args:
        path: The file; see `read_inputs` for the rest.
        form: Format of the file, one of `gpunn.data.formats.kinds.IMAGE_FORMATS`.
        shape: Shape that the image gets.
        invert: Whether dark and light are exchanged.
        note: Function that is given a line for whatever may surprise.
        trained_on: Description of the training images; left out, they were light on dark.

    Raises:
        DataError: it cannot be read, is damaged, or would take too much memory.
        MemoryShortageError: less than that is free.
    """
    height, width, channels = shape
    ground = "dark" if trained_on is None else trained_on.ground
    is_grey = channels == 1 or (trained_on is not None and trained_on.is_grey)
    picture = _decoded(path, read_image_file(path, form), (height, width, 1 if is_grey else channels))
    pixels, size = _on_ground(picture, None if trained_on is None or is_grey else ground), picture.size
    border = np.median(borders(pixels[None])[0], axis=0)
    light = float(np.mean(border)) > 0.5
    if size != (height, width):
        note(f"{path}: {size[1]} × {size[0]} pixels, fitted into {width} × {height}")
        pixels = _fitted(pixels, size, height, width, border)
    is_other = light if ground == "dark" else not light if ground == "light" else False
    if invert == "always" or (invert == "auto" and is_other):
        if invert == "auto":
            background = "light background" if light else "dark background, in training it was light"
            note(f"{path}: {background}, so dark and light are exchanged (--invert never leaves them)")
        pixels = 1 - pixels
    return np.repeat(pixels.astype(np.float32), channels // pixels.shape[2], axis=2)


class _Picture(NamedTuple):
    """An image, upright and perhaps shrunk, from 0 to 1.

    Attributes:
        pixels: (height, width, channels), as if nothing were transparent.
        drawn: the pixels times how opaque they are, (height, width, channels), or None where nothing is transparent.
        alpha: how opaque they are, (height, width, 1), or None.
        size: (height, width) of the whole image.
    """

    pixels: NDArray[Any]
    drawn: NDArray[Any] | None
    alpha: NDArray[Any] | None
    size: tuple[int, int]


# Of the whole range: below that, what is drawn is not seen on its ground.
_SEEN = 0.1


def _on_ground(picture: _Picture, ground: str | None) -> NDArray[Any]:
    """Lay an image on white or black.

    The ground is white, or of RGB that of the training images, unless the drawing would vanish there. Of grey, it is
    whichever of both shows more of the drawing. Where all is equally transparent, the colours alone are the drawing.
    """
    if picture.alpha is None or picture.drawn is None or np.ptp(picture.alpha) < 1 / 512:
        return picture.pixels
    on_white, on_black = picture.drawn + (1 - picture.alpha), picture.drawn
    contrasts = [float(np.ptp(pixels.mean(axis=2))) for pixels in (on_white, on_black)]
    if ground is None:
        is_black = contrasts[1] > contrasts[0] + _SEEN
    elif ground == "dark":
        is_black = contrasts[1] >= _SEEN
    else:
        is_black = contrasts[0] < _SEEN <= contrasts[1]
    return (on_black if is_black else on_white).astype(np.float32)


def _decoded(path: Path, file: ImageFile, shape: tuple[int, int, int]) -> _Picture:
    """Decode an image to upright pixels; a large one is shrunk to some multiple of the shape."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if file.size is not None:
                _check(path, file, *file.size)
            with _opened(file) as image:
                width, height = image.size
                shrinking = _shrinking(width, height) if file.format == "JPEG" else 1
                of_png = _OF_PIXEL_OF_PNG if file.format == "PNG" else {}
                _check(path, file, width, height, of_png.get(image.mode, 4) / shrinking**2 + _held(file, image))
                image.draft(image.mode, (width // shrinking, height // shrinking))
                in_bands = _deep_bands(file) if _is_deep(file) else lambda rows: _crops(image, rows)
                planes = _shrunk(*image.size, in_bands, file.orientation, shape)
    except GpunnError:
        raise
    except MemoryError:
        raise MemoryShortageError(f"{path}: the image does not fit into memory: make it smaller") from None
    except Image.DecompressionBombError:
        raise DataError(f"{path}: pixels are too many of this {file.format} image: make it smaller") from None
    except Exception as error:  # noqa: BLE001 - on damaged files Pillow raises nearly everything that there is
        raise DataError(f"{path}: the image is damaged ({error or type(error).__name__}): get it again") from None
    upright = [None if plane is None else _upright(plane, file.orientation) for plane in planes]
    size = (height, width) if file.orientation <= 4 else (width, height)
    assert upright[0] is not None
    return _Picture(upright[0], upright[1], upright[2], size)


def _opened(file: ImageFile) -> PillowFile:
    """Open an image, of which only the header is read."""
    from PIL import Image
    from PIL.JpegImagePlugin import JpegImageFile
    from PIL.PngImagePlugin import PngImageFile

    stream = io.BytesIO(file.content)
    # Beyond 179 million pixels `open` takes an image for a bomb, and a photograph or a scan is none.
    of_any_size = {"JPEG": JpegImageFile, "PNG": PngImageFile}.get(file.format)
    return of_any_size(stream) if of_any_size else Image.open(stream, formats=(file.format,))


def _shrinking(width: int, height: int) -> int:
    """Choose by what a photograph is shrunk while it is decoded, so that it takes few bytes."""
    return next((by for by in (1, 2, 4) if width * height * 4 <= _MOST_BYTES * by * by), 8)


def _check(path: Path, file: ImageFile, width: int, height: int, of_pixel: float = 4) -> None:
    """Refuse too many pixels, and what would take too much memory or more than is free."""
    if max(width, height) > _LONGEST_SIDE or width * height > _MOST_PIXELS:
        raise DataError(
            f"{path}: {width} × {height} pixels are too many: the image exceeds limits of {_LONGEST_SIDE:,} a side and "
            f"{_MOST_PIXELS:,} in all: make it smaller"
        )
    of_pixel = _OF_PIXEL.get(file.format, of_pixel) * (2 if _is_deep(file) else 1)
    nbytes = math.ceil(width * height * of_pixel)
    per_byte = _MOST_PER_BYTE.get(file.format, _MOST_PER_BYTE_OF_OTHERS)
    if file.format == "PNG":
        per_byte *= max(1, 8 // file.content[24])  # pixels of a few bits take a byte each
    most = min(_MOST_OF_ANY, _MOST_BYTES + per_byte * len(file.content))
    if nbytes > most:
        raise DataError(
            f"{path}: {width} × {height} pixels are too many: of this {file.format} image {int(most / of_pixel):,} "
            "could be read, make it smaller, or a PNG or a plain JPEG of it"
        )
    require(nbytes, str(path))


def _held(file: ImageFile, image: Image) -> float:
    """Count bytes that each pixel takes until the end, however much a photograph is shrunk.

    One that is stored in a single scan is decoded row by row. Of one in several scans, such as a progressive one, every
    coefficient is held, two bytes each.
    """
    layers = getattr(image, "layer", ())  # of each component: name, samples across, samples down, table
    if file.format != "JPEG" or (file.scan == len(layers) and not image.info.get("progressive")):
        return 0
    sampled = [across * down for _, across, down, _ in layers]
    return float(2 * max(1, sum(sampled) / max(1, *sampled, 0)))


def _is_deep(file: ImageFile) -> bool:
    """Tell whether a PNG has 16 bits and is not grey, of which Pillow keeps the upper byte of each sample."""
    depth, kind = file.content[24:26] if file.format == "PNG" else b"\0\0"
    return depth == 16 and kind != 0


def _deep_bands(file: ImageFile) -> Callable[[int], Iterator[NDArray[Any]]]:
    """Read a PNG of 16 bits as arrays (rows, width, samples), by having Pillow take its bytes for other ones.

    Two samples of 16 bits are four of 8; where there are more, the lower bytes are the upper ones of an image that is
    read as if it were little-endian.
    """

    def taken_for(raw: str) -> PillowFile:
        image = _opened(file)
        image.tile = [(*tile[:3], raw) for tile in image.tile]  # type: ignore[misc]
        return image

    mode = {2: "RGB", 4: "LA", 6: "RGBA"}[file.content[25]]
    images = [taken_for("RGBA")] if mode == "LA" else [taken_for(f"{mode};16{order}") for order in "BL"]

    def bands(rows: int) -> Iterator[NDArray[Any]]:
        for crops in zip(*(_crops(image, rows) for image in images), strict=True):
            halves = np.stack([np.asarray(crop) for crop in crops], axis=-1)
            yield halves.reshape(*halves.shape[:2], -1).view(">u2")

    return bands


def _crops(image: Image, rows: int) -> Iterator[Image]:
    for top in range(0, image.height, rows):
        yield image.crop((0, top, image.width, min(top + rows, image.height)))


def _shrunk(
    width: int,
    height: int,
    in_bands: Callable[[int], Iterable[Image | NDArray[Any]]],
    orientation: int,
    shape: tuple[int, int, int],
) -> tuple[NDArray[Any], NDArray[Any] | None, NDArray[Any] | None]:
    """Shrink an image to means over squares of pixels, each as large as leaves `_SPARE` of them for one of the network.

    A band of rows at a time: floats of the whole image would take many times its memory.

    Args:
        width: Width of the image.
        height: Height of the image.
        in_bands: Function that gives the image from top to bottom, so many rows at a time.
        orientation: EXIF's number of how it is turned.
        shape: Shape that it will get.

    Returns:
        Pixels, pixels times alpha, and alpha; see `_Picture`.
    """
    wanted = shape[:2] if orientation <= 4 else shape[1::-1]
    most_rows = max(1, _BAND // width)
    # It is fitted in whole, so the longer side says how much it shrinks.
    side = max(1, min(max(height // wanted[0], width // wanted[1]) // _SPARE, most_rows))
    rows, depth, shrunk = most_rows // side * side, 0.0, []
    for band in in_bands(rows):
        values, alpha, most = _values(band, shape[2])
        depth = max(depth, most)
        if alpha is None:
            shrunk.append(_squares(values, side))
        elif alpha.size == 1:
            small = _squares(values, side)
            shrunk.append(np.concatenate([small, small * alpha, np.full_like(small[..., :1], alpha)], axis=2))
        else:
            shrunk.append(_squares(np.concatenate([values, values * alpha, alpha], axis=2), side))
    planes = np.concatenate(shrunk)
    channels = shape[2]
    # Of 16 bits it is not said whether all of them are used.
    white = bit_depth(depth)
    if planes.shape[2] == channels:
        return (planes / white).astype(np.float32), None, None
    pixels, drawn, alpha = np.split(planes, (channels, 2 * channels), axis=2)
    return pixels / white, drawn / white, alpha


def _squares(values: NDArray[Any], side: int) -> NDArray[Any]:
    return _means(_means(values, side, 0), side, 1)


def _means(values: NDArray[Any], count: int, axis: int) -> NDArray[Any]:
    """Take means over `count` neighbours along an axis, over fewer at its end."""
    if count == 1:
        return values
    starts = np.arange(0, values.shape[axis], count)
    counts = np.diff(starts, append=values.shape[axis])
    sums: NDArray[Any] = np.add.reduceat(values, starts, axis)
    return sums / counts.reshape([-1 if other == axis else 1 for other in range(values.ndim)])


def _upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn and mirror pixels as EXIF says."""
    if orientation > 4:
        pixels = pixels.swapaxes(0, 1)
    mirrored = (orientation - 1) % 4
    if mirrored in (1, 2):
        pixels = pixels[:, ::-1]
    return pixels[::-1] if mirrored in (2, 3) else pixels


def _values(band: Image | NDArray[Any], channels: int) -> tuple[NDArray[Any], NDArray[Any] | None, float]:
    """Take from a band its pixels, how opaque each of them is or all are, 0 to 1, or None, and the largest value."""
    alpha = None
    if isinstance(band, np.ndarray) or band.mode.startswith("I"):
        # 16 bits: Pillow would cut off what is above 255.
        deep = np.asarray(band, dtype=np.float64)
        deep = deep[..., None] if deep.ndim == 2 else deep
        if deep.shape[2] in (2, 4):
            deep, alpha = deep[..., :-1], deep[..., -1:] / 65_535
        elif not isinstance(band, np.ndarray) and isinstance(clear := band.info.get("transparency"), int):
            alpha = (deep != clear).astype(np.float64)
        if channels == 1 and deep.shape[2] == 3:
            deep = (deep * (0.299, 0.587, 0.114)).sum(axis=2, keepdims=True)
        return np.broadcast_to(deep, (*deep.shape[:2], channels)), alpha, float(deep.max())
    if band.has_transparency_data:
        band = band.convert("RGBA")
        alpha = np.asarray(band.getchannel("A"), dtype=np.float64)[..., None] / 255
        if alpha.min() == alpha.max():
            alpha = alpha[:1, :1]
        band = band.convert("RGB")
    pixels = np.asarray(band.convert("L" if channels == 1 else "RGB"), dtype=np.float64)
    return pixels[..., None] if pixels.ndim == 2 else pixels, alpha, 255.0


def _fitted(pixels: NDArray[Any], size: tuple[int, int], height: int, width: int, border: NDArray[Any]) -> NDArray[Any]:
    """Scale an image of a size to fit, proportions kept, in the middle of a field of its border's colour."""
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
