"""Image files as Pillow gets to see them: of few formats, and without all that does not draw.

Pillow knows some forty formats, one of which starts another program, and reads comments, profiles and EXIF tables
piece by piece: a few megabytes of such pieces take it seconds and hundreds of megabytes. What is passed on is what
pixels are made of. How much memory they take is known before they are decoded: `ImageFile.pixel_bytes`.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from gpunn.errors import DataError
from gpunn.limits import require
from gpunn.png import Header
from gpunn.storage import open_regular

_MOST_PARTS = 1 << 16
_MOST_SCANS = 64
_MOST_TAGS = 200
_START = 32
# Pixels of a PNG from which it is decoded in bands.
_LARGE_PNG = 10 << 20


@dataclass(frozen=True)
class ImageFile:
    """What Pillow is given.

    Attributes:
        format: Pillow's name of it.
        content: the file, or what draws in it.
        pixel_bytes: memory that each pixel takes at most while it is decoded.
        orientation: EXIF's number of how the image is turned, 1 to 8; 1 is upright.
        shrinks: whether it can be decoded at a half, a quarter or an eighth of its size in that much less memory.
        held_bytes: memory that each pixel takes until the end, however much is shrunk.
        size: (width, height) where the image may be too large for Pillow to be asked; None leaves it to Pillow.
        is_in_bands: whether it is decoded a band of rows at a time; see `gpunn.png`.
    """

    format: str
    content: bytes
    pixel_bytes: int = 4
    orientation: int = 1
    shrinks: bool = False
    held_bytes: float = 0.0
    size: tuple[int, int] | None = None
    is_in_bands: bool = False


def read_image_file(path: Path) -> ImageFile:
    """An image file by its first bytes.

    Raises:
        DataError: it cannot be read, is of no format that is known, or is damaged.
    """
    try:
        with open_regular(path) as file:
            start = file.read(_START)
            kind = next((kind for kind in _KINDS if kind.magic.match(start)), None)
            if kind is None:
                known = ", ".join(kind.name for kind in _KINDS)
                got = other_format(start) or f"got one that starts {start[:8].hex(' ') or '(empty)'}"
                raise DataError(
                    f"{path} is no file that can be read: give an image ({known}), .npy, .npz or IDX, {got}"
                )
            size = os.fstat(file.fileno()).st_size
            if size > kind.most_bytes:
                raise DataError(
                    f"{path}: {size:,} bytes are more than the {kind.most_bytes:,} that are read of a {kind.name} "
                    "image: make it smaller"
                )
            require(2 * size, str(path))
            content = start + file.read(size)  # not most_bytes: what is asked for is allocated
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}): check the path") from None
    try:
        return kind.cleaned(content)
    except (_DamageError, struct.error, IndexError) as error:
        reason = error if isinstance(error, _DamageError) else "it ends too early"
        raise DataError(f"{path}: the image is damaged ({reason}): get it again") from None


class _DamageError(Exception):
    """A file that is not as its format has it."""


_PNG_DRAWN = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")


def _png(content: bytes) -> ImageFile:
    """Only the chunks that draw, and what eXIf says of the orientation."""
    view = memoryview(content)
    kept, place, orientation = [view[:8]], 8, 1
    for _ in range(_MOST_PARTS):
        length, kind = struct.unpack_from(">I4s", content, place)
        end = place + 12 + length
        if end > len(content):
            raise _DamageError(f"it ends inside its chunk {kind!r}")
        if kind in _PNG_DRAWN:
            kept.append(view[place:end])
        elif kind == b"eXIf":
            orientation = _orientation(content[place + 8 : end - 4])
        if kind == b"IEND":
            return _png_of(b"".join(kept), orientation)
        place = end
    raise _DamageError(f"it has more than {_MOST_PARTS:,} chunks")


def _png_of(content: bytes, orientation: int) -> ImageFile:
    header = Header.of(content)
    # Pillow takes a large image whole, and of samples of 16 bits, but for grey ones, the upper half.
    is_special = header.width * header.height > _LARGE_PNG or (header.depth == 16 and header.kind != 0)
    is_in_bands = is_special and not header.is_interlaced and header.depth in (1, 2, 4, 8, 16)
    size = (header.width, header.height)
    return ImageFile("PNG", content, orientation=orientation, size=size, is_in_bands=is_in_bands)


_START_OF_SCAN, _END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"
# Frames and their tables; JFIF and Adobe say what the components are.
_JPEG_DRAWN = {*range(0xC0, 0xD0), 0xDB, 0xDD, 0xE0, 0xEE}
_BASELINE = {0xC0, 0xC1}


def _jpeg(content: bytes) -> ImageFile:
    """Only the segments that draw, and what EXIF says of the orientation.

    It is decoded at a smaller size if need be, row by row where it is stored in one scan. Of one in several scans, such
    as a progressive one, every coefficient is held until the end, two bytes each.
    """
    kept, place, orientation = [content[:2]], 2, 1
    components, is_baseline, coefficients, shape = 0, False, 0.0, None
    for _ in range(_MOST_PARTS):
        escape, marker, length = struct.unpack_from(">BBH", content, place)
        end = place + 2 + length
        if escape == marker == 0xFF:  # a filling byte
            place += 1
            continue
        if escape != 0xFF or end > len(content):
            raise _DamageError(f"there is no whole segment at byte {place:,}")
        if marker == _START_OF_SCAN[1]:
            break
        segment = content[place:end]
        if marker in _JPEG_DRAWN:
            kept.append(segment)
        if 0xC0 <= marker <= 0xC2 and len(segment) > 9:
            components, is_baseline = segment[9], marker in _BASELINE
            shape = struct.unpack_from(">HH", segment, 5)[::-1]
            sampled = [(value >> 4) * (value & 15) for value in segment[11::3][:components]]
            coefficients = sum(sampled) / max(1, *sampled, 0)
        elif marker == 0xE1 and segment[4:10] == b"Exif\0\0":
            orientation = _orientation(segment[10:])
        place = end
    else:
        raise _DamageError(f"it has more than {_MOST_PARTS:,} segments")
    # Within a scan a byte 0xff is followed by 0, so these are markers. What follows the end may be another image.
    stop = content.find(_END_OF_IMAGE, place)
    scans = memoryview(content)[place : None if stop < 0 else stop + 2]
    count = content.count(_START_OF_SCAN, place, place + len(scans))
    if count > _MOST_SCANS:
        raise _DamageError(f"it has {count:,} scans, {_MOST_SCANS} are read")
    is_one = is_baseline and count == 1 and scans[4:5] == bytes([components])
    held = 0.0 if is_one else 2 * max(coefficients, 1)
    return ImageFile("JPEG", b"".join((*kept, scans)), 4, orientation, True, held, shape)


def _bmp(content: bytes) -> ImageFile:
    size, compression = struct.unpack_from("<I12xI", content, 14)
    if size >= 40 and compression not in (0, 3):  # none, or none with masks
        raise _DamageError("it is compressed, and only plain ones are read")
    return ImageFile("BMP", content)


_PPM_NUMBER = rb"\s+(?:#.*\s+)?\d{1,5}"
_PPM_HEADER = re.compile(rb"P(?:4(?:%b){2}|[56](?:%b){3})\s" % (_PPM_NUMBER, _PPM_NUMBER))


def _ppm(content: bytes) -> ImageFile:
    if _PPM_HEADER.match(content[:1000]) is None:
        raise _DamageError("its header is none of a binary PBM, PGM or PPM")
    return ImageFile("PPM", content)


_GIF_EXTENSION, _GIF_FRAME = 0x21, 0x2C


def _gif(content: bytes) -> ImageFile:
    """As it is, if its first frame lies within it: Pillow makes room for a larger one after its size was looked at."""
    width, height, flags = struct.unpack_from("<HHB", content, 6)
    place = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    while content[place] == _GIF_EXTENSION:
        place += 2
        while content[place]:
            place += 1 + content[place]
        place += 1
    kind, left, top, columns, rows = struct.unpack_from("<B4H", content, place)
    if kind != _GIF_FRAME or left + columns > width or top + rows > height:
        raise _DamageError(f"it has no frame within its {width} × {height} pixels")
    return ImageFile("GIF", content, 5)


def _orientation(exif: bytes) -> int:
    """EXIF's tag 274 of a TIFF header and its first directory; 1 where there is none, or nonsense."""
    try:
        order = {b"II": "<", b"MM": ">"}[exif[:2]]
        (place,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, place)
        for number in range(min(count, _MOST_TAGS)):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", exif, place + 2 + 12 * number)
            if (tag, kind) == (274, 3) and 1 <= value <= 8:
                return int(value)
    except (KeyError, struct.error):
        pass
    return 1


class _Kind(NamedTuple):
    """A format: its name, how its files begin, how large they may be, and what is passed on of them."""

    name: str
    magic: re.Pattern[bytes]
    most_bytes: int
    cleaned: Callable[[bytes], ImageFile]


_KINDS = (
    _Kind("PNG", re.compile(rb"\x89PNG\r\n\x1a\n"), 1 << 30, _png),
    _Kind("JPEG", re.compile(rb"\xff\xd8\xff"), 256 << 20, _jpeg),
    _Kind("BMP", re.compile(rb"BM"), 256 << 20, _bmp),
    _Kind("PPM", re.compile(rb"P[456]\s"), 256 << 20, _ppm),
    # The comments of a GIF take 35 times their size.
    _Kind("GIF", re.compile(rb"GIF8[79]a"), 1 << 20, _gif),
    # The decoder keeps three whole images, and Pillow two.
    _Kind("WebP", re.compile(rb"RIFF.{4}WEBP", re.DOTALL), 32 << 20, lambda content: ImageFile("WEBP", content, 20)),
)


_CONVERT = "convert it to PNG or JPEG"
# How files begin that are often given and not read, and what to do about each.
_OTHERS: tuple[tuple[bytes, str, str], ...] = (
    (rb".{4}ftyp(?:hei[cxms]|hev[cxm]|mif1|msf1)", "a HEIC photograph", f"{_CONVERT}, or let the phone take JPEG"),
    (rb".{4}ftyp(?:avif|avis)", "an AVIF image", _CONVERT),
    (rb".{4}ftypcrx", "a raw photograph (CR3)", "export it as PNG or JPEG"),
    (rb".{4}ftyp|.{4}moov|\x1aE\xdf\xa3|RIFF.{4}AVI ", "a film", "save one of its images as PNG or JPEG"),
    (rb"II\*\0.{4}CR|FUJIFILMCCD|IIU\0|IIRO|MMOR", "a raw photograph", "export it as PNG or JPEG"),
    (rb"II\*\0|MM\0\*|II\+\0|MM\0\+", "a TIFF image or a raw photograph", "convert it to PNG"),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000 image", _CONVERT),
    (rb"\0\0\0\x0cJXL |\xff\x0a", "a JPEG XL image", _CONVERT),
    (rb"\0\0[\1\2]\0[\1-\x40]\0", "an icon", "convert it to PNG"),
    (rb"8BPS", "a Photoshop image", "export it as PNG or JPEG"),
    (rb"gimp xcf", "a GIMP image", "export it as PNG or JPEG"),
    (rb"%PDF", "a PDF", "export the page as PNG"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript", "export the page as PNG"),
    (rb"\s*(?:<\?xml|<svg|<!--)", "an SVG drawing or other XML", "export it as PNG"),
    (rb"(?i:\s*<(?:!doctype|html))", "a web page", "get the image itself"),
    (rb"version https://git-lfs", "a pointer of Git LFS", "get the file itself by git lfs pull"),
    (rb"P[123]\s", "a PBM, PGM or PPM written in digits", "save it in its binary form"),
    (rb"P[Ff]\s|v/1\x01|#\?RADIANCE|SDPX|XPDS", "an image of floats", "convert it to PNG"),
    (
        rb"P7\s|qoif|\x01\xda|BPG\xfb|\x0a[\0-\5]\x01[\1-\x08]|DDS |FLIF|icns|FWS|CWS",
        "an image that is not read",
        _CONVERT,
    ),
    (rb"SIMPLE  =|\x89HDF|CDF[\1\2]", "scientific data (FITS, HDF5 or NetCDF)", "save the array as .npy"),
    (rb"\x80[\2-\5]", "a pickle", "save the array with np.save"),
    (rb"7z\xbc\xaf|Rar!|\xfd7zXZ|BZh|\x28\xb5\x2f\xfd", "an archive", "unpack it"),
)
_OTHER_FORMATS = tuple((re.compile(start, re.DOTALL), name, mend) for start, name, mend in _OTHERS)


def other_format(start: bytes) -> str:
    """What a file is that is not read, and what to do, by its first 32 bytes; "" where that is not known."""
    for begins, name, mend in _OTHER_FORMATS:
        if begins.match(start):
            return f"this is {name}: {mend}"
    return ""
