"""Images, as `gpunn predict` takes them."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

from fuzz.harness import Target, each
from gpunn.data.formats.inputs import read_inputs

AS_IT_IS, MENDED = b"\0", b"\1"


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    """An image as a file."""
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG with its checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def mended(content: bytes) -> bytes:
    """A PNG with right checksums of its chunks, wherever their lengths say they are."""
    parts, place = [content[:8]], 8
    while place + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        parts.append(chunk(kind, content[place + 8 : place + 8 + min(length, len(content))]))
        place += 12 + length
    return b"".join(parts)


def _pixels(*shape: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8))


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[274] = 6
    return exif


def _seeds() -> dict[str, bytes]:
    grey, colour = _pixels(9, 7), _pixels(9, 7, 3)
    files = {
        "png": encoded(grey, "PNG", exif=_exif()),
        "palette png": encoded(colour.quantize(5), "PNG", transparency=1),
        "deep png": encoded(Image.fromarray(np.arange(63, dtype=np.uint16).reshape(9, 7) * 999), "PNG"),
        "clear png": encoded(_pixels(4, 3, 4), "PNG"),
        "jpeg": encoded(colour, "JPEG", exif=_exif(), quality=30),
        "progressive jpeg": encoded(grey, "JPEG", progressive=True, quality=30),
        "cmyk jpeg": encoded(colour.convert("CMYK"), "JPEG", quality=30),
        "gif": encoded(grey, "GIF", transparency=0),
        "animated gif": encoded(grey, "GIF", save_all=True, append_images=[_pixels(9, 7).rotate(90)]),
        "bmp": encoded(colour, "BMP"),
        "ppm": encoded(colour, "PPM"),
        "pbm": encoded(grey.convert("1"), "PPM"),
        "deep pgm": encoded(grey.convert("I"), "PPM"),
        "webp": encoded(colour, "WEBP", lossless=True),
        "lossy webp": encoded(colour, "WEBP", exif=_exif()),
    }
    mended_too = {f"{name}, mended": MENDED + content for name, content in files.items() if name.endswith("png")}
    return {name: AS_IT_IS + content for name, content in files.items()} | mended_too


def _png_of(width: int, height: int, depth: int = 8, colour: int = 0, more: bytes = b"") -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + more + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def _scans(count: int) -> bytes:
    content = encoded(Image.new("L", (1800, 1800)), "JPEG", progressive=True)
    last = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + last * count + content[-2:]


def _tables(count: int) -> bytes:
    """An EXIF directory that names the same bytes over and over."""
    rows = b"".join(struct.pack("<HHII", 1000 + number, 1, 12 * count, 8) for number in range(count))
    return b"II*\0" + struct.pack("<IH", 8, count) + rows + bytes(4)


TARGET = Target(
    name="images",
    read=lambda path: each(path, *(lambda p, s=s: read_inputs(p, s) for s in ((28, 28, 1), (5, 6, 3), (1,)))),
    seeds=_seeds,
    hostile={
        "four thousand million squared": lambda: _png_of(2**32 - 1, 2**32 - 1),
        "thirty thousand squared": lambda: _png_of(30_000, 30_000),
        "a long line": lambda: _png_of(2**31 - 1, 1),
        "a high column": lambda: _png_of(1, 2**31 - 1),
        "no pixels": lambda: _png_of(0, 0),
        "a depth of 3": lambda: _png_of(9, 9, 3),
        "a palette that is missing": lambda: _png_of(9, 9, 8, 3),
        "texts that unpack": lambda: _png_of(9, 9, more=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(50 << 20)))),
        "a profile that unpacks": lambda: _png_of(9, 9, more=chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(50 << 20)))),
        "tables without end": lambda: _png_of(9, 9, more=chunk(b"eXIf", _tables(40_000))),
        "a million chunks": lambda: _png_of(9, 9, more=chunk(b"tEXt", b"") * 1_000_000),
        "the largest png": lambda: encoded(Image.new("RGBA", (3200, 3200)), "PNG"),
        "a large png of a row": lambda: encoded(Image.new("L", (65_535, 100)), "PNG"),
        "a large photograph": lambda: encoded(Image.new("RGB", (7_000, 7_000)), "JPEG"),
        "the largest progressive jpeg": lambda: encoded(Image.new("CMYK", (1870, 1870)), "JPEG", progressive=True),
        "sixty scans": lambda: _scans(50),
        "a thousand scans": lambda: _scans(1000),
        "empty segments": lambda: encoded(_pixels(9, 7), "JPEG")[:2] + b"\xff\xe1\0\2" * 1_000_000,
        "filling bytes": lambda: b"\xff\xd8" + b"\xff" * 5_000_000,
        "the largest gif": lambda: encoded(Image.new("P", (2890, 2890)), "GIF"),
        "comments in a gif": lambda: encoded(_pixels(9, 7), "GIF")[:781] + b"!\xfe\1a\0" * 200_000 + b";",
        "the largest webp": lambda: encoded(Image.new("RGBA", (1440, 1440)), "WEBP", lossless=True),
        "a huge webp": lambda: encoded(Image.new("RGB", (4_000, 4_000)), "WEBP", lossless=True),
        "a written ppm": lambda: b"P3\n3000 3000 255\n" + b"0 " * 1_000_000,
        "a comment in a ppm": lambda: b"P5\n#" + b"a" * 5_000_000,
        "a tiff": lambda: encoded(_pixels(9, 7), "TIFF"),
        "postscript": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
    },
    wraps=(bytes, mended),
    words=(b"IHDR", b"IDAT", b"PLTE", b"tRNS", b"eXIf", b"fcTL", b"acTL", b"\xff\xc0", b"\xff\xc2", b"\xff\xda",
           b"\xff\xd9", b"\xff\xe1\0\x08Exif\0\0", b"GIF89a", b"!\xf9\4", b"P6\n", b"WEBPVP8L", b"VP8X", b"ANMF"),
)  # fmt: skip
