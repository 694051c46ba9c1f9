"""Turn images into inputs of a network: grey or RGB, resized, dark and light as in training."""

import io
import math
import os
import re
import struct
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from gpunn.backend.limits import require
from gpunn.data.checks import white_level
from gpunn.data.drawings import borders
from gpunn.data.formats.bounded import reading
from gpunn.data.training_inputs import TrainingInputs
from gpunn.errors import DataError
from gpunn.files import open_regular

if TYPE_CHECKING:
    from PIL.Image import Image, Resampling
    from PIL.ImageFile import ImageFile

# Pixels from 0 to 1, pixels times alpha, and alpha, (height, width, ...); two are empty where nothing is transparent.
Planes = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]
Taken = TypeVar("Taken")

# Bytes of a file: the comments of a GIF take 35 times their size.
_MOST_READ, _MOST_READ_OF = 256 << 20, {"PNG": 1 << 30, "GIF": 1 << 20, "WebP": 32 << 20}
# Memory that decoding may take: a base, more for each byte of the file, and a limit. A small file that promises much
# is refused. Large photographs are smooth. A PNG may take all that its header promises, since a large page may be
# nearly blank: deflate packs 1032 bytes into one, of up to 8 pixels; of RGB Pillow makes four bytes of three.
_MOST_BYTES, _MOST_OF_ANY, _MOST_PER_BYTE = 40 << 20, 1 << 30, {"JPEG": 512, "PNG": 8 * 1376}
# Memory that a pixel takes, if not four bytes; the decoder of WebP keeps three whole images, and Pillow two.
_OF_PIXEL, _OF_PIXEL_OF_PNG = {"GIF": 5, "WebP": 20}, {"1": 1, "L": 1, "P": 1, "I;16": 2}
_MOST_PIXELS, _LONGEST_SIDE, _MOST_SCANS, _MOST_TAGS = 220_000_000, 65_535, 64, 200
_MOST_CHUNKS, _MOST_MARKERS = 1 << 16, 1 << 19
_BAND, _SPARE = 1 << 18, 4  # pixels converted to floats at a time, and times the shape that the first shrinking keeps
_SEEN = 0.1  # share of the whole range below which a drawing is not seen on its ground


def image_shape(path: Path, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return (height, width, channels) of a network's images; a square number of features is an image too."""
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
    """Read an image as (height, width, channels), 0 to 1, fitted in whole; see `read_inputs` for the arguments."""
    height, width, channels = shape
    ground = "dark" if trained_on is None else trained_on.ground
    is_grey = channels == 1 or (trained_on is not None and trained_on.is_grey)
    planes, size = decoded_planes(path, form, (height, width, 1 if is_grey else channels))
    pixels = on_ground(planes, None if trained_on is None or is_grey else ground)
    border = np.median(borders(pixels[None])[0], axis=0)
    light = float(np.mean(border)) > 0.5
    if size != (height, width):
        note(f"{path}: {size[1]} × {size[0]} pixels, fitted into {width} × {height}")
        pixels = fitted(pixels, size, height, width, border)
    is_other = light if ground == "dark" else not light and ground == "light"
    if invert == "auto" and is_other:
        background = "light background" if light else "dark background, in training it was light"
        note(f"{path}: {background}, so dark and light are exchanged (--invert never leaves them)")
    if invert == "always" or (invert == "auto" and is_other):
        pixels = 1 - pixels
    return np.repeat(pixels.astype(np.float32), channels // pixels.shape[2], axis=2)


def on_ground(planes: Planes, ground: str | None) -> NDArray[np.float32]:
    """Composite an image over white, or the usual ground, unless the drawing would vanish there."""
    pixels, on_black, alpha = planes
    if not alpha.size or np.ptp(alpha) < 1 / 512:  # where all is equally transparent, colours are the drawing
        return pixels.astype(np.float32)
    on_white = on_black + (1 - alpha)
    of_white, of_black = (float(np.ptp(laid.mean(axis=2))) for laid in (on_white, on_black))
    is_seen = of_black >= _SEEN and (ground == "dark" or of_white < _SEEN)
    is_black = of_black > of_white + _SEEN if ground is None else is_seen
    return (on_black if is_black else on_white).astype(np.float32)


def decoded_planes(path: Path, form: str, shape: tuple[int, ...]) -> tuple[Planes, tuple[int, int]]:
    """Decode an image to upright pixels, a large one shrunk to a multiple of the shape; return its full size too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return decode(path, form, shape, planes_of)


class Decoded(NamedTuple):
    """Image as its file stores it, not yet upright: opened twice if it has 16 bits; its size and the wanted shape."""

    images: "list[ImageFile]"
    size: tuple[int, int]
    wanted: tuple[int, ...]
    is_deep: bool
    orientation: int


def planes_of(decoded: Decoded) -> Planes:
    """Return the upright pixels of an image, shrunk to a multiple of the wanted shape."""
    planes = shrunk(decoded.images, decoded.wanted, is_deep=decoded.is_deep)
    pixels, drawn, alpha = (upright(plane, decoded.orientation) for plane in planes)
    return pixels, drawn, alpha


def decode(
    path: Path, form: str, shape: tuple[int, ...], take: Callable[[Decoded], Taken], spare: int = 0
) -> tuple[Taken, tuple[int, int]]:
    """Decode an image; return the result of `take` and the upright size. Pillow may warn meanwhile.

    A JPEG is decoded at a half, a quarter or an eighth if it is large, or if that is still `spare` times the shape.
    """
    content = content_of(path, form)
    with reading(path, "the image is damaged", "get it again", (Exception,)):
        content = needed_parts(form, content)
        if form == "GIF":
            _check(path, form, len(content), gif_size(content))
        with opened_image(form, content) as image:
            width, height = image.size
            shrinking, of_pixel, held, raws = 1, 4, 0.0, tuple[str, ...]()
            if form == "JPEG":  # shrunk while it is decoded, a photograph takes few bytes
                fewest = width * height * 4 / _MOST_BYTES
                shrinking = next((by for by in (1, 2, 4) if fewest <= by * by), 8)
                if spare:  # by the longer side, however the image is turned
                    times = max(image.size) / (spare * max(shape[:2]))
                    shrinking = max(shrinking, next((by for by in (8, 4, 2) if by <= times), 1))
                held = _held(content, image)
            if form == "PNG":
                of_pixel, raws = _OF_PIXEL_OF_PNG.get(image.mode, 4), _DEEP.get(str(image.tile[0][3]), ())
            _check(path, form, len(content), image.size, of_pixel * (2 if raws else 1) / shrinking**2 + held)
            image.draft(image.mode, (width // shrinking, height // shrinking))
            images = [opened_image(form, content) for _ in raws] or [image]
            for deep, raw in zip(images, raws, strict=False):
                deep.tile = [(*tile[:3], raw) for tile in deep.tile]  # type: ignore[misc]
            images[0].load()  # a PNG may say at its end how it is turned
            exif = content[: 1 << 20].partition(EXIF)[2] if form == "JPEG" else images[0].info.get("exif", b"")
            orientation = orientation_of(exif.removeprefix(EXIF))
            wanted = (*(shape[:2] if orientation <= 4 else shape[1::-1]), *shape[2:])
            taken = take(Decoded(images, (height, width), wanted, bool(raws), orientation))
    return taken, (height, width) if orientation <= 4 else (width, height)


def content_of(path: Path, form: str) -> bytes:
    """Read the file of an image."""
    with reading(path), open_regular(path) as file:
        size, most = os.fstat(file.fileno()).st_size, _MOST_READ_OF.get(form, _MOST_READ)
        if size > most:
            limit = f"the {most:,} that are read of a {form} image: make it smaller"
            raise DataError(f"{path}: {size:,} bytes are more than {limit}")
        require(2 * size, str(path))
        return file.read(size)  # `most` would be allocated


EXIF, _SCAN, _END = b"Exif\0\0", b"\xff\xda", b"\xff\xd9"
# Raw modes for PNGs of 16 bits that are not grey, by Pillow's own, which keeps only the upper byte of a sample. Two
# samples of 16 bits are read as four of 8; of more, the lower bytes are the upper ones in a little-endian reading.
_DEEP = {"RGB;16B": ("RGB;16B", "RGB;16L"), "LA;16B": ("RGBA",), "RGBA;16B": ("RGBA;16B", "RGBA;16L")}


def opened_image(form: str, content: bytes) -> "ImageFile":
    """Read the header of an image; `Image.open` takes photographs of 179 million pixels for bombs."""
    from PIL import Image, JpegImagePlugin

    if form == "JPEG":  # without EXIF, of which Pillow keeps all values, and without the other images of a camera
        return JpegImagePlugin.JpegImageFile(io.BytesIO(content.replace(EXIF, bytes(6))))
    Image.preinit()
    if form.upper() not in Image.OPEN:
        Image.init()
    image = Image.OPEN[form.upper()][0](io.BytesIO(content), "")
    if form == "BMP" and image.tile[0][0] != "raw":
        raise ValueError("it is compressed, and only plain ones are read")
    return image


def needed_parts(form: str, content: bytes) -> bytes:
    """Drop a PNG's texts and profiles, since Pillow refuses large ones; refuse too many parts of any image."""
    if form == "PPM":
        number = rb"\s+(?:#.*\s+)?\d{1,5}"
        if re.match(rb"P(?:4(?:%b){2}|[56](?:%b){3})\s" % (number, number), content[:1000]) is None:
            raise ValueError("its header is none of a binary PBM, PGM or PPM")
    if form == "JPEG" and content.count(b"\xff") - content.count(b"\xff\0") > _MOST_MARKERS:
        raise ValueError(f"it has more than {_MOST_MARKERS:,} markers")
    if form != "PNG":
        return content
    place, kept = 8, [memoryview(content)[:8]]
    for _ in range(_MOST_CHUNKS):
        length = 12 + int.from_bytes(content[place : place + 4])
        chunk = memoryview(content)[place : place + length]
        if len(chunk) < length:
            raise ValueError("it ends too early")
        kind = chunk[4:8].tobytes()
        if kind[:1].isupper() or kind in (b"tRNS", b"eXIf"):
            kept.append(chunk)
        if kind == b"IEND":
            return b"".join(kept)
        place += length
    raise ValueError(f"it has more than {_MOST_CHUNKS:,} chunks")


def gif_size(content: bytes) -> tuple[int, int]:
    """Return the size of a GIF; its first frame, which Pillow allocates on opening, must fit into it."""
    width, height, flags = struct.unpack_from("<HHB", content, 6)
    place = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    while content[place] == 0x21:  # an extension, in blocks
        place += 2
        while content[place]:
            place += 1 + content[place]
        place += 1
    left, top, columns, rows = struct.unpack_from("<4H", content, place + 1)
    if left + columns > width or top + rows > height:
        raise ValueError(f"it has no frame within its {width} × {height} pixels")
    return width, height


def _check(path: Path, form: str, given: int, size: tuple[int, int], of_pixel: float = 4) -> None:
    """Refuse too many pixels, or more memory than is allowed or free."""
    width, height = size
    wrong = f"{path}: {width} × {height} pixels are too many"
    if max(size) > _LONGEST_SIDE or width * height > _MOST_PIXELS:
        limits = f"{_LONGEST_SIDE:,} a side and {_MOST_PIXELS:,} in all"
        raise DataError(f"{wrong}: the image exceeds limits of {limits}: make it smaller")
    of_pixel = _OF_PIXEL.get(form, of_pixel)
    nbytes = math.ceil(width * height * of_pixel)
    most = min(_MOST_OF_ANY, _MOST_BYTES + _MOST_PER_BYTE.get(form, 128) * given)
    if nbytes > most:
        mend = f"{int(most / of_pixel):,} could be read, make it smaller, or a PNG or a plain JPEG of it"
        raise DataError(f"{wrong}: of this {form.upper()} image {mend}")
    require(nbytes, str(path))


def _held(content: bytes, image: "ImageFile") -> float:
    """Return the bytes of coefficients per pixel that a JPEG in several scans holds to the end."""
    # Within a scan a byte 0xff is followed by 0, so these are markers. After the end may come another image.
    start = image.fp.tell() if image.fp else 0
    end = content.find(_END, start)
    scans = 1 + content.count(_SCAN, start, None if end < 0 else end)
    if scans > _MOST_SCANS:
        raise ValueError(f"it has {scans:,} scans, {_MOST_SCANS} are read")
    layers = getattr(image, "layer", ())  # of each component: name, samples across, samples down, table
    is_whole = content[content.rfind(_SCAN, 0, start) + 4] == len(layers)
    if scans == 1 and is_whole and not image.info.get("progressive"):
        return 0
    sampled = [across * down for _, across, down, _ in layers]
    return float(2 * max(1, sum(sampled) / max(1, *sampled, 0)))


def orientation_of(exif: bytes) -> int:
    """Find EXIF's tag 274 in its first directory, 1 to 8, or return 1, upright."""
    with suppress(KeyError, struct.error):
        order = {b"II": "<", b"MM": ">"}[exif[:2]]
        (place,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, place)
        for number in range(min(count, _MOST_TAGS)):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", exif, place + 2 + 12 * number)
            if (tag, kind) == (274, 3) and 1 <= value <= 8:
                return int(value)
    return 1


def shrunk(images: "list[ImageFile]", shape: tuple[int, ...], *, is_deep: bool) -> Planes:
    """Shrink an image to means over squares of pixels, a band of rows at a time, since floats take more memory."""
    (width, height), channels = images[0].size, shape[2]
    most_rows = max(1, _BAND // width)
    # The whole image must fit, so the longer side says how much it shrinks.
    side = max(1, min(max(height // shape[0], width // shape[1]) // _SPARE, most_rows))
    depth, shrunk, rows = 0.0, [], most_rows // side * side
    for top in range(0, height, rows):
        crops = [image.crop((0, top, width, min(top + rows, height))) for image in images]
        band: Image | NDArray[Any] = crops[0]
        if is_deep:  # samples of 16 bits from their bytes
            halves = np.stack([np.asarray(crop) for crop in crops], axis=-1)
            band = halves.reshape(*halves.shape[:2], -1).view(">u2")
        values, alpha, most = _values(band, channels)
        depth = max(depth, most)
        if alpha is not None:
            values = np.concatenate([values, values * alpha, alpha], axis=2)
        shrunk.append(_means(_means(values, side, 0), side, 1))
    pixels, drawn, alpha = np.split(np.concatenate(shrunk), (channels, 2 * channels), axis=2)
    white = white_level(depth)  # a file does not say how many of 16 bits are used
    return pixels / white, drawn / white, alpha


def _means(values: NDArray[Any], count: int, axis: int) -> NDArray[Any]:
    """Average `count` neighbours along an axis, fewer at its end."""
    if count == 1:
        return values
    starts = np.arange(0, values.shape[axis], count)
    counts = np.diff(starts, append=values.shape[axis])
    return np.asarray(np.add.reduceat(values, starts, axis) / counts.reshape((-1, 1, 1) if axis == 0 else (-1, 1)))


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn and mirror pixels as EXIF says."""
    across, down = ((1, 1), (-1, 1), (-1, -1), (1, -1))[(orientation - 1) % 4]
    return (pixels.swapaxes(0, 1) if orientation > 4 else pixels)[::down, ::across]


def _values(band: "Image | NDArray[Any]", channels: int) -> tuple[NDArray[Any], NDArray[Any] | None, float]:
    """Return the pixels of a band, their alpha (0 to 1, or None), and the largest value."""
    alpha = None
    if isinstance(band, np.ndarray) or band.mode.startswith("I"):  # 16 bits: Pillow would clip values above 255
        deep = np.atleast_3d(np.asarray(band, dtype=np.float64))
        if deep.shape[2] in (2, 4):
            deep, alpha = deep[..., :-1], deep[..., -1:] / 65_535
        elif not isinstance(band, np.ndarray) and isinstance(clear := band.info.get("transparency"), int):
            alpha = (deep != clear).astype(np.float64)
        if channels == 1 and deep.shape[2] == 3:
            deep = (deep * (0.299, 0.587, 0.114)).sum(axis=2, keepdims=True)
        return np.broadcast_to(deep, (*deep.shape[:2], channels)), alpha, float(deep.max())
    grey_or_rgb = "L" if channels == 1 else "RGB"
    if not band.has_transparency_data:
        return np.atleast_3d(np.asarray(band.convert(grey_or_rgb), dtype=np.float64)), None, 255.0
    values = np.asarray(band.convert("RGBA").convert(f"{grey_or_rgb}A"), dtype=np.float64)
    return values[..., :-1], values[..., -1:] / 255, 255.0


def fitted_size(size: tuple[int, int], height: int, width: int) -> tuple[int, int]:
    """Return rows and columns of an image scaled to fit, proportions kept."""
    scale = min(height / size[0], width / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def fitted(pixels: NDArray[Any], size: tuple[int, int], height: int, width: int, border: NDArray[Any]) -> NDArray[Any]:
    """Resize an image to fit, proportions kept, in the middle of a field of its border's colour (letterbox)."""
    from PIL.Image import Resampling

    rows, columns = fitted_size(size, height, width)
    # Means over areas where it shrinks: thin strokes fade but do not vanish.
    method = Resampling.BOX if rows < size[0] or columns < size[1] else Resampling.BILINEAR
    return centred(resized(pixels, rows, columns, method), height, width, border).clip(0, 1)


def resized(pixels: NDArray[Any], rows: int, columns: int, method: "Resampling") -> NDArray[np.float32]:
    """Resize pixels (height, width, channels) to (rows, columns, channels)."""
    from PIL import Image

    planes = (Image.fromarray(np.ascontiguousarray(pixels[..., c], np.float32)) for c in range(pixels.shape[2]))
    return np.stack([np.asarray(plane.resize((columns, rows), method)) for plane in planes], axis=2)


def centred(pixels: NDArray[Any], height: int, width: int, border: NDArray[Any]) -> NDArray[Any]:
    """Put pixels (rows, columns, channels) into the middle of a field of the border's colour."""
    rows, columns, channels = pixels.shape
    field = np.empty((height, width, channels), pixels.dtype)
    field[:] = border
    top, left = (height - rows) // 2, (width - columns) // 2
    field[top : top + rows, left : left + columns] = pixels
    return field
