"""Arrays in .npz files, as data to train on and as inputs."""

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping

import numpy as np

from fuzz.harness import Target, each
from fuzz.targets.npy import HEADERS, header, npy_bytes, with_header
from gpunn.data import load_data
from gpunn.data.formats.inputs import read_inputs

WHOLE, STORED, DEFLATED = b"\0", b"\1", b"\2"
_NAMES = ("x", "y", "x_train", "y_train", "x_test", "y_test")


def zipped(members: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip file, written by Python's own library."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content, method)
    return out.getvalue()


def _joined(*members: bytes) -> bytes:
    """Members with their lengths, as `_packed` takes them."""
    return bytes([len(members)]) + b"".join(len(m).to_bytes(2, "little") + m for m in members)


def _packed(method: int) -> object:
    """Bytes as members of a zip file whose checksums are right: x and y, or the four names of Keras."""

    def wrap(data: bytes) -> bytes:
        count, place, members = data[0] if data else 0, 1, {}
        for name in _NAMES[2:] if count > 2 else _NAMES[:count]:
            length = int.from_bytes(data[place : place + 2], "little")
            members[name] = data[place + 2 : place + 2 + length]
            place += 2 + length
        return zipped(members, method)

    return wrap


_X, _Y = np.arange(36, dtype=np.float32).reshape(12, 3), np.arange(12) % 2


def _seeds() -> dict[str, bytes]:
    x, y, bytes_ = npy_bytes(_X), npy_bytes(_Y), npy_bytes(_X.astype(np.uint8))
    return {
        "whole": WHOLE + zipped({"x": bytes_, "y": y}),
        "whole, stored": WHOLE + zipped({"x": x, "y": y}, zipfile.ZIP_STORED),
        "x and y": DEFLATED + _joined(x, y),
        "x and y, stored": STORED + _joined(bytes_, npy_bytes(_Y.astype(np.float64).reshape(-1, 1))),
        "four": DEFLATED + _joined(x, y, x, y),
        "one": DEFLATED + _joined(x),
    }


_LITTLE = npy_bytes(_Y)
_ZEROS = with_header(header("'|u1'", shape="(12, 1000000)"), b"")


def _directory_of(count: int) -> bytes:
    return zipped({f"{number:x}": b"" for number in range(count)}, zipfile.ZIP_STORED)


def _end_of(**fields: int) -> bytes:
    """A good file whose end says something else."""
    names = ("disk", "start_disk", "here", "total", "size", "offset")
    content = zipped({"x": npy_bytes(_X), "y": _LITTLE})
    values = dict(zip(names, struct.unpack_from("<4H2I", content, len(content) - 18), strict=True))
    return content[:-18] + struct.pack("<4H2IH", *{**values, **fields}.values(), 0)


def _stretched() -> bytes:
    """A directory that says of a member of 100 bytes that it holds three gigabytes."""
    size = 3 << 30
    member = with_header(header("'|u1'", shape=f"({size},)"), bytes(100))
    content, true = zipped({"x": member, "y": member}), len(member).to_bytes(4, "little")
    return content.replace(true, (size + len(member) - 100).to_bytes(4, "little"))


def _shared() -> bytes:
    """A directory whose entries all name the first member."""
    content = bytearray(zipped({"x": _LITTLE, "y": _LITTLE}, zipfile.ZIP_STORED))
    place = -1
    while (place := content.find(b"PK\x01\x02", place + 1)) >= 0:
        content[place + 42 : place + 46] = bytes(4)
    return bytes(content)


TARGET = Target(
    name="npz",
    read=lambda path: each(path, load_data, lambda path: read_inputs(path, (3,))),
    seeds=_seeds,
    hostile={
        **{
            f"header: {name}": lambda text=text: zipped({"x": with_header(text), "y": _LITTLE})
            for name, text in HEADERS.items()
        },
        "sixty thousand members": lambda: _directory_of(60_000),
        "a bomb": lambda: zipped({"x": _ZEROS + bytes(12_000_000), "y": _LITTLE}),
        "a bomb that promises nothing": lambda: zipped({"x": with_header(header(), bytes(50 << 20)), "y": _LITTLE}),
        "a directory that lies": _stretched,
        "members that overlap": _shared,
        "names that lead out": lambda: zipped({"../x": _LITTLE, "/y": _LITTLE, "x\0y": _LITTLE}),
        "a name for a terminal": lambda: zipped({"\x1b[31m\n" + "n" * 60_000: _LITTLE}),
        "packed by bzip2": lambda: zipped({"x": _LITTLE, "y": _LITTLE}, zipfile.ZIP_BZIP2),
        "packed by lzma": lambda: zipped({"x": _LITTLE, "y": _LITTLE}, zipfile.ZIP_LZMA),
        "a directory beyond the file": lambda: _end_of(size=2**32 - 1),
        "a directory before the file": lambda: _end_of(offset=2**32 - 1),
        "no members": lambda: _end_of(here=0, total=0, size=0),
        "many disks": lambda: _end_of(disk=7, start_disk=9),
        "zip64 without its end": lambda: _end_of(here=2**16 - 1, total=2**16 - 1, size=2**32 - 1, offset=2**32 - 1),
        "a stream of deflate": lambda: zlib.compress(bytes(100)),
        "only its magic": lambda: b"PK\x03\x04",
    },
    wraps=(bytes, _packed(zipfile.ZIP_STORED), _packed(zipfile.ZIP_DEFLATED)),  # type: ignore[arg-type]
    words=(b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", b"x.npy", b"y.npy", b"'shape': "),
)
