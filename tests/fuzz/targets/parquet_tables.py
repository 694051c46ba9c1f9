"""Tables in Parquet files, whose description is Thrift, which promises sizes."""

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fuzz.harness import Target
from fuzz.targets.csv_tables import read_all

_TABLE: dict[str, Any] = {"a": [1, None, 3, 4], "b": [2.5, 7.0, -1e3, 0.0], "c": ["x", "y", "x", "y"]}


def _written(columns: dict[str, Any], **options: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, **options)
    return out.getvalue()


def _read(path: Path) -> None:
    named = path.with_name("table.parquet")
    shutil.copyfile(path, named)
    read_all(named)


def _with_footer(length: int, footer: bytes = b"") -> bytes:
    return b"PAR1" + footer + length.to_bytes(4, "little") + b"PAR1"


_ZEROS = np.zeros(20_000_000, np.float32)

TARGET = Target(
    name="parquet",
    read=_read,
    seeds=lambda: {
        "plain": _written(_TABLE, compression="none", use_dictionary=False, store_schema=False),
        "dictionary": _written(_TABLE, compression="none", store_schema=False, write_statistics=False),
        "zstd": _written(_TABLE, compression="zstd", row_group_size=2),
        "snappy, version 2": _written(_TABLE, compression="snappy", data_page_version="2.0"),
    },
    hostile={
        "a bomb": lambda: _written({"a": _ZEROS, "b": _ZEROS}, compression="zstd"),
        "a bomb of one value": lambda: _written({"a": _ZEROS, "b": _ZEROS}, compression="zstd", use_dictionary=True),
        "a bomb of texts": lambda: _written({"a": ["x" * 1000] * 200_000, "b": ["y"] * 200_000}, compression="zstd"),
        "a text of megabytes": lambda: _written({"a": ["x" * (90 << 20), "y"], "b": [1, 2]}, compression="zstd"),
        "two thousand columns": lambda: _written({f"c{k}": [k] for k in range(2_000)}),
        "lists": lambda: _written({"a": [[1] * 1000] * 10, "b": [1] * 10}),
        "names for a terminal": lambda: _written({"\x1b[31m": [1, 2], "b\n": [2, 3]}),
        "a description of four gigabytes": lambda: _with_footer(2**32 - 1),
        "a description that is nothing": lambda: _with_footer(8, bytes(8)),
        "a list in it without an end": lambda: _with_footer(12, b"\x15\x04\x29\xfc" + b"\xff" * 7 + b"\x7f"),
        "no description": lambda: _with_footer(0),
        "only its magic": lambda: b"PAR1",
        "encrypted": lambda: b"PAR1" + bytes(16) + (16).to_bytes(4, "little") + b"PARE",
    },
    words=(b"PAR1", b"\x15\x04", b"\x19\x1c", b"\x15\x00\x15\x00", b"schema", b"\xff\xff\xff\xff\x0f"),
)
