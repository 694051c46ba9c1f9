"""Tables written as text, as data to train on, as inputs, and by the columns of a training."""

import gzip
import shutil
from pathlib import Path

from fuzz import bombs
from fuzz.harness import Target, each
from gpunn.data import load_data
from gpunn.data.columns import Columns
from gpunn.data.formats.inputs import read_inputs
from gpunn.data.load import read_samples

COLUMNS = Columns(("a", "c"), (1.0, 0.0), (2.0, 1.0), {"c": ("x", "y")}, "mean", {"c": "x"}, ("b",), (), (0.5,), (1.5,))
"""Of a training on tables such as the seeds."""

_GOOD = b"a,b,c\n1,2.5,x\n,7,y\n3,-1e3,x\n4,0,y\n"
_PIXELS = ",".join(["label", *(f"pixel{k}" for k in range(16))]).encode()


def read_all(path: Path) -> None:
    """Read a table in every way."""
    each(
        path,
        lambda path: load_data(path, target="b", missing="mean"),
        load_data,
        lambda path: read_inputs(path, (3,)),
        lambda path: read_samples(path, COLUMNS),
    )


def _read(path: Path) -> None:
    named = path.with_name("table.csv")
    shutil.copyfile(path, named)
    read_all(named)


def _rows(count: int, row: bytes) -> bytes:
    return b"a,b,c\n" + row * count


TARGET = Target(
    name="csv",
    read=_read,
    seeds=lambda: {
        "commas": b"\0" + _GOOD,
        "semicolons": b"\0" + _GOOD.replace(b",", b";").replace(b".", b","),
        "tabs and a mark": b"\0\xef\xbb\xbf" + _GOOD.replace(b",", b"\t"),
        "quotes": b'\0"a","b","c"\r\n1,2,"x ""q""\r\ny"\r\n2,3,"z,z"\r\n3,1,z\r\n',
        "no header": b"\0" + b"1,2.5\n2,7\n3,1\n4,0.5\n",
        "packed": b"\1" + _GOOD,
        "pixels": b"\0" + _PIXELS + b"\n" + b"\n".join(b"%d" % k + b",%d" % (k * 80) * 16 for k in (0, 1, 2, 1, 0)),
    },
    hostile={
        "a bomb": lambda: bombs.zeros(_rows(1, b"1,2,3\n"), 200),
        "a bomb of digits": lambda: gzip.compress(_rows(1, b"1" * (64 << 20)), 1),
        "many rows": lambda: gzip.compress(_rows(400_000, b"1,2,3\n"), 1),
        "a field without an end": lambda: b'a,b\n1,"' + b"x" * (4 << 20),
        "a row without an end": lambda: b"a,b\n1," + b"1," * (2 << 20),
        "a header without an end": lambda: b"a," * (2 << 20),
        "a header of a million": lambda: b",".join(b"%d" % k for k in range(100_000)) + b"\n1\n",
        "names of a terminal": lambda: b"\x1b[31ma,b\n1,2\n2,3\n",
        "texts that all differ": lambda: b"a,b\n" + b"".join(b"k%d,1\nl,2\n" % k for k in range(60_000)),
        "quotes alone": lambda: b'a,b\n"' + b'""' * 100_000,
        "empty lines": lambda: b"\n" * 1_000_000 + b"a,b\n1,2\n" + b"\n" * 1_000_000 + b"3\n",
        "a row that lacks a field, late": lambda: _rows(30_000, b"1,2,x\n") + b"1\n",
        "a text among numbers, late": lambda: _rows(30_000, b"1,2,3\n") + b"1,x,3\n",
        "a byte of another encoding, late": lambda: _rows(30_000, b"1,2,3\n") + b"1,\xe9,3\n",
        "numbers beyond all": lambda: _rows(4, b"1e999,-1e999,%d\n" % 10**400),
        "bytes of zero": lambda: bytes(100),
        "half of a character": lambda: b"a,b\n1,\xc3",
    },
    wraps=(bytes, lambda data: gzip.compress(data, 1, mtime=0)),
    words=(
        b",",
        b";",
        b"\t",
        b"|",
        b'"',
        b'""',
        b"\r\n",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"NaN",
        b"inf",
        b"1e308",
        b"NA",
    ),
)
