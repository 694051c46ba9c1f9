"""IDX files, gzipped or not."""

import gzip

import numpy as np
from support.data_helpers import idx_bytes

from fuzz import bombs
from fuzz.harness import Target, each
from gpunn.data.formats.idx import idx_header, read_idx, read_images, read_labels

PLAIN, PACKED = b"\0", b"\1"


def _seeds() -> dict[str, bytes]:
    arrays = {
        "images": np.arange(24).reshape(2, 3, 4).astype(np.uint8),
        "colours": np.arange(24).reshape(1, 2, 4, 3).astype(np.uint8),
        "labels": np.arange(5).astype(np.uint8),
        "doubles": np.arange(4).reshape(2, 2).astype(np.float64),
        "shorts": np.arange(3).astype(np.int16),
    }
    return {f"{name}, {how}": mode + idx_bytes(a) for name, a in arrays.items() for how, mode in _MODES.items()}


_MODES = {"plain": PLAIN, "packed": PACKED}
_IMAGES = idx_bytes(np.zeros((2, 3, 4), np.uint8))


def _named(nbytes: int) -> bytes:
    """A gzip file with a name that long in its header."""
    packed = gzip.compress(_IMAGES, mtime=0)
    return packed[:3] + b"\x08" + packed[4:10] + b"a" * nbytes + b"\0" + packed[10:]


TARGET = Target(
    name="idx",
    read=lambda path: each(path, read_idx, read_images, read_labels),
    seeds=_seeds,
    hostile={
        "sizes whose product is beyond a word": lambda: idx_header(np.uint8, (2**32 - 1,) * 3) + bytes(100),
        "eight sizes of four thousand million": lambda: b"\0\0\x0e\x08" + b"\xff" * 32,
        "a packed promise beyond gzip": lambda: gzip.compress(idx_header(np.float64, (2**32 - 1,)) + bytes(100)),
        "a promise that gzip could keep": lambda: gzip.compress(idx_header(np.uint8, (1 << 30,))) + bytes(1 << 20),
        "a bomb behind the end": lambda: bombs.zeros(_IMAGES, 100),
        "empty members": lambda: gzip.compress(b"") * 70_000 + gzip.compress(_IMAGES),
        "members of a byte": lambda: b"".join(gzip.compress(bytes([byte]), 1) for byte in _IMAGES),
        "a name of megabytes": lambda: _named(4 << 20),
        "zeros behind the end": lambda: gzip.compress(_IMAGES) + bytes(8 << 20),
        "more behind the end": lambda: gzip.compress(_IMAGES) + b"x",
        "no sizes": lambda: b"\0\0\x08\0",
        "a size of 0": lambda: idx_header(np.uint8, (0, 28, 28)),
        "a byte too many": lambda: _IMAGES + b"\0",
        "a byte too few": lambda: _IMAGES[:-1],
        "another magic": lambda: b"\x01" + _IMAGES[1:],
    },
    wraps=(bytes, lambda data: gzip.compress(data, 1, mtime=0)),
    words=(b"\0\0\x08\x03", b"\0\0\x08\x01", b"\0\0\x0e\x02", b"\x1f\x8b\x08\0"),
)
