"""Read image files as far as Pillow may see them: without all that does not draw.

Pillow lets its caller bound the pixels, but reads comments, profiles and EXIF tables piece by piece before that: a few
megabytes of such pieces take seconds and hundreds of megabytes. So they are left out here, unread.
"""

import os
import re
import struct
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from gpunn.backend.limits import require
from gpunn.data.formats.bounded import reading
from gpunn.errors import DataError
from gpunn.files import open_regular

_MOST_PARTS, _MOST_SCANS, _MOST_TAGS = 1 << 16, 64, 200
# The comments of a GIF take 35 times their size; the decoder of WebP keeps three whole images, and Pillow two.
_MOST_BYTES = {"PNG": 1 << 30, "GIF": 1 << 20, "WebP": 32 << 20}


class ImageFile(NamedTuple):
    """An image file for Pillow: the parts of it that draw."""

    format: str
    content: bytes
    orientation: int = 1
    """EXIF's number of how the image is turned, 1 to 8; 1 is upright."""
    scan: int = 0
    """Number of components in the only scan of a JPEG; 0 where there are several scans."""
    size: tuple[int, int] | None = None
    """(width, height) where Pillow takes memory for them as soon as it opens the file."""

    @property
    def is_deep(self) -> bool:
        """Whether this is a PNG of 16 bits that is not grey."""
        return self.format == "PNG" and self.content[24] == 16 and self.content[25] != 0


def read_image_file(path: Path, form: str) -> ImageFile:
    """Read an image file of one of the formats in `gpunn.data.formats.inputs`."""
    damage = (ValueError, struct.error, IndexError)
    with reading(path, "the image is damaged", damage=damage), open_regular(path) as file:
        size, most = os.fstat(file.fileno()).st_size, _MOST_BYTES.get(form, 256 << 20)
        if size > most:
            limit = f"the {most:,} that are read of a {form} image: make it smaller"
            raise DataError(f"{path}: {size:,} bytes are more than {limit}")
        require(2 * size, str(path))
        content = file.read(size)  # not `most`: that would be allocated
        return _READERS[form](content) if form in _READERS else ImageFile(form.upper(), content)


def _png(content: bytes) -> ImageFile:
    """Keep the chunks that draw, and take the orientation from eXIf."""
    if content[12:16] != b"IHDR":
        raise ValueError("it does not begin with its size")
    view, place, orientation = memoryview(content), 8, 1
    kept = [view[:8]]
    for _ in range(_MOST_PARTS):
        length, kind = struct.unpack_from(">I4s", content, place)
        chunk = view[place : place + 12 + length]
        if len(chunk) < 12 + length:
            raise ValueError(f"it ends inside its chunk {kind!r}")
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            kept.append(chunk)
        elif kind == b"eXIf":
            orientation = _orientation(chunk[8:-4])
        if kind == b"IEND":
            return ImageFile("PNG", b"".join(kept), orientation)
        place += len(chunk)
    raise ValueError(f"it has more than {_MOST_PARTS:,} chunks")


# Frames and their tables; JFIF and Adobe say what the components are.
_JPEG_DRAWN = {*range(0xC0, 0xD0), 0xDB, 0xDD, 0xE0, 0xEE}
_SCAN, _END, _EXIF = b"\xff\xda", b"\xff\xd9", 0xE1


def _jpeg(content: bytes) -> ImageFile:
    """Keep the segments that draw, and take the orientation from EXIF."""
    view, place, orientation = memoryview(content), 2, 1
    kept = [view[:2]]
    for _ in range(_MOST_PARTS):
        escape, marker, length = struct.unpack_from(">BBH", content, place)
        segment = view[place : place + 2 + length]
        if escape == marker == 0xFF:
            place += 1  # a filling byte
            continue
        if escape != 0xFF or len(segment) < 2 + length:
            raise ValueError(f"there is no whole segment at byte {place:,}")
        if marker == _SCAN[1]:
            break
        if marker in _JPEG_DRAWN:
            kept.append(segment)
        elif marker == _EXIF and bytes(segment[4:10]) == b"Exif\0\0":
            orientation = _orientation(segment[10:])
        place += len(segment)
    else:
        raise ValueError(f"it has more than {_MOST_PARTS:,} segments")
    # Within a scan a byte 0xff is followed by 0, so these are markers. After the end may come another image.
    stop = content.find(_END, place)
    scans = view[place : None if stop < 0 else stop + 2]
    count = content.count(_SCAN, place, place + len(scans))
    if count > _MOST_SCANS:  # each of a few bytes goes over all pixels again
        raise ValueError(f"it has {count:,} scans, {_MOST_SCANS} are read")
    return ImageFile("JPEG", b"".join((*kept, scans)), orientation, scans[4] if count == 1 else 0)


def _bmp(content: bytes) -> ImageFile:
    """Refuse a compressed one."""
    size, compression = struct.unpack_from("<I12xI", content, 14)
    if size >= 40 and compression not in (0, 3):  # none, or none with masks
        raise ValueError("it is compressed, and only plain ones are read")
    return ImageFile("BMP", content)


def _ppm(content: bytes) -> ImageFile:
    """Refuse a long header: Pillow reads it byte by byte."""
    number = rb"\s+(?:#.*\s+)?\d{1,5}"
    if re.match(rb"P(?:4(?:%b){2}|[56](?:%b){3})\s" % (number, number), content[:1000]) is None:
        raise ValueError("its header is none of a binary PBM, PGM or PPM")
    return ImageFile("PPM", content)


def _gif(content: bytes) -> ImageFile:
    """Refuse a first frame that is larger than the image: Pillow makes room for it when it opens the file."""
    width, height, flags = struct.unpack_from("<HHB", content, 6)
    place = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    while content[place] == 0x21:  # an extension, in blocks
        place += 2
        while content[place]:
            place += 1 + content[place]
        place += 1
    kind, left, top, columns, rows = struct.unpack_from("<B4H", content, place)
    if kind != 0x2C or left + columns > width or top + rows > height:
        raise ValueError(f"it has no frame within its {width} × {height} pixels")
    return ImageFile("GIF", content, size=(width, height))


_READERS = {"PNG": _png, "JPEG": _jpeg, "BMP": _bmp, "PPM": _ppm, "GIF": _gif}


def _orientation(exif: memoryview) -> int:
    """Find EXIF's tag 274 in its first directory, or return 1: Pillow would read all values that it names."""
    with suppress(KeyError, struct.error):
        order = {b"II": "<", b"MM": ">"}[bytes(exif[:2])]
        (place,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, place)
        for number in range(min(count, _MOST_TAGS)):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", exif, place + 2 + 12 * number)
            if (tag, kind) == (274, 3) and 1 <= value <= 8:
                return int(value)
    return 1
