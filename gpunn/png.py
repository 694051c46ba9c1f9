"""PNG images a band of rows at a time, so that one of 200 million pixels takes no more memory than its file.

Pillow decodes a whole image or none. But a band of its rows, with the row above as a first one, is a PNG in its own
right: of bytes, whatever its pixels are, since filters work on bytes. So each band is handed to Pillow twice, once to
undo its filters, and once, as rows without filters, to make pixels of the bytes by palette and depth.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# The kind of pixels that is as many bytes wide: grey, grey with alpha, RGB, RGBA.
_KIND_OF_WIDTH = {1: 0, 2: 4, 3: 2, 4: 6}
_MOST_RATIO = 1032  # of deflate
_PIECE = 1 << 16


@dataclass(frozen=True)
class Header:
    """The first chunk of a PNG.

    Attributes:
        width, height: in pixels.
        depth: bits of a sample.
        kind: 0 grey, 2 RGB, 3 palette, 4 grey with alpha, 6 RGBA.
        is_interlaced: whether rows come in seven passes.
    """

    width: int
    height: int
    depth: int
    kind: int
    is_interlaced: bool

    @classmethod
    def of(cls, content: bytes) -> Header:
        """Of a file; struct.error where it is too short."""
        width, height, depth, kind, interlaced = struct.unpack_from(">IIBB2xB", content, 16)
        return cls(width, height, depth, kind, interlaced != 0)

    @property
    def samples(self) -> int:
        """Of a pixel."""
        return _SAMPLES.get(self.kind, 1)

    @property
    def row_bytes(self) -> int:
        """Of a row without its filter."""
        return (self.width * self.depth * self.samples + 7) // 8

    def has_room_in(self, packed: int) -> bool:
        """Whether so many bytes can hold the image."""
        return self.height * (1 + self.row_bytes) <= packed * _MOST_RATIO


def bands(content: bytes, rows: int) -> Iterator[Image | NDArray[Any]]:
    """The image from top to bottom, `rows` rows at a time: images, or of 16 bits arrays (rows, width, samples).

    Args:
        content: of chunks that draw, not interlaced.
        rows: of a band; the last may have fewer.

    Raises:
        ValueError, zlib.error, OSError: it is damaged.
    """
    header = Header.of(content)
    if not header.has_room_in(len(content)):
        raise ValueError(f"{header.width} × {header.height} pixels are too many for its {len(content):,} bytes")
    stream = _Unpacked(content)
    above = np.zeros(header.row_bytes, np.uint8)
    for top in range(0, header.height, rows):
        count = min(rows, header.height - top)
        filtered = stream.read(count * (1 + header.row_bytes)).reshape(count, -1)
        plain = _unfiltered(filtered, above, max(1, header.depth * header.samples // 8))
        above = plain[-1].copy()
        if header.depth == 16:
            yield plain.view(">u2").reshape(count, header.width, header.samples)
        else:
            kept = [_chunk(kind, body) for kind, body in _chunks(content) if kind in (b"PLTE", b"tRNS")]
            yield _image(header.width, count, header.depth, header.kind, np.pad(plain, ((0, 0), (1, 0))), kept)


def _unfiltered(filtered: NDArray[np.uint8], above: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """Rows without their filters, of pixels `width` bytes wide."""
    parts = 2 if width > 4 else 1  # Pillow keeps the upper half of samples of 16 bits: each half is an image of bytes
    size = width // parts
    first = np.concatenate([[np.uint8(0)], above])[None]
    every = np.concatenate([first, filtered])
    out = np.empty((len(filtered), above.size // width, parts, size), np.uint8)
    for part in range(parts):
        pixels = every[:, 1:].reshape(len(every), -1, parts, size)[:, :, part].reshape(len(every), -1)
        rows = np.concatenate([every[:, :1], pixels], axis=1)
        image = _image(pixels.shape[1] // size, len(every), 8, _KIND_OF_WIDTH[size], rows)
        out[:, :, part] = np.asarray(image).reshape(len(every), -1, size)[1:]
    return out.reshape(len(filtered), -1)


def _image(width: int, height: int, depth: int, kind: int, rows: NDArray[np.uint8], more: Any = ()) -> Image:
    """Rows, each with its filter before it, as an image of Pillow's."""
    from PIL import Image

    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    data = _chunk(b"IDAT", zlib.compress(np.ascontiguousarray(rows).data, 0))
    image = Image.open(io.BytesIO(b"".join((SIGNATURE, head, *more, data, _chunk(b"IEND", b"")))), formats=("PNG",))
    image.load()
    return image


def _chunk(kind: bytes, body: bytes | memoryview) -> bytes:
    return b"".join((struct.pack(">I", len(body)), kind, body, struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))))


def _chunks(content: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Kind and body of every chunk, which are known to lie within the file."""
    place = 8
    while place < len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        yield kind, memoryview(content)[place + 8 : place + 8 + length]
        place += 12 + length


class _Unpacked:
    """What the chunks of data unpack to, piece by piece."""

    def __init__(self, content: bytes) -> None:
        self._pieces = (
            body[at : at + _PIECE]
            for kind, body in _chunks(content)
            if kind == b"IDAT"
            for at in range(0, len(body), _PIECE)
        )
        self._inflate = zlib.decompressobj()

    def read(self, count: int) -> NDArray[np.uint8]:
        """The next bytes.

        Raises:
            ValueError: there are fewer.
        """
        out, place = np.empty(count, np.uint8), 0
        while place < count:
            packed = self._inflate.unconsumed_tail or next(self._pieces, None)
            if packed is None or self._inflate.eof:
                raise ValueError("it ends too early")
            part = self._inflate.decompress(packed, count - place)
            out[place : place + len(part)] = np.frombuffer(part, np.uint8)
            place += len(part)
        return out
