"""Files that unpack to very much, made without packing it all."""

import gzip
import zlib

_UNIT = 1 << 20
_HEAD = gzip.compress(b"", 1, mtime=0)[:10]


def zeros(before: bytes, count: int, after: bytes = b"") -> bytes:
    """A gzip file of one member: some bytes, so many MiB of zeros, and more bytes.

    After a full flush nothing refers back, so that what one MiB is packed into may be repeated.
    """
    pack = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
    unit = bytes(_UNIT)
    head = pack.compress(before) + pack.flush(zlib.Z_FULL_FLUSH)
    middle = pack.compress(unit) + pack.flush(zlib.Z_FULL_FLUSH)
    tail = pack.compress(after) + pack.flush()
    check = zlib.crc32(before)
    for _ in range(count):
        check = zlib.crc32(unit, check)
    length = len(before) + count * _UNIT + len(after)
    ends = zlib.crc32(after, check).to_bytes(4, "little") + (length % 2**32).to_bytes(4, "little")
    return b"".join((_HEAD, head, middle * count, tail, ends))
