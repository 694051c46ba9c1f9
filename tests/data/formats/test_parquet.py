"""Tables in Parquet files: every type that a table has, and sizes that are checked before anything is read."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import gpunn as gn
from gpunn.backend.limits import resident_bytes
from gpunn.data.formats import arrow as arrow_module
from gpunn.data.formats.parquet import read_parquet
from gpunn.errors import DataError, MemoryShortageError

COLUMNS = {
    "int": pa.array([1, None, 3], pa.int16()),
    "bytes": pa.array([0, 255, 3], pa.uint8()),
    "large": pa.array([2**40, 1, 2], pa.int64()),
    "float": pa.array([1.5, None, float("nan")], pa.float32()),
    "half": pa.array(np.array([1, 2, 3], np.float16)),
    "decimal": pa.array([1, 2, 3]).cast(pa.decimal128(25, 2)),
    "truth": pa.array([True, None, False]),
    "text": pa.array(["b", "a", None]),
    "large text": pa.array(["b", "a", None], pa.large_string()),
    "category": pa.array(["b", "a", None]).dictionary_encode(),
    "day": pa.array([0, 1, None], pa.date32()),
    "nothing": pa.nulls(3),
}


def written(folder: Path, columns: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(columns), folder / "t.parquet", **options)
    return folder / "t.parquet"


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd", "gzip"])
def test_every_type_is_numbers_or_texts(tmp_path: Path, compression: str) -> None:
    read = read_parquet(written(tmp_path, COLUMNS, compression=compression, row_group_size=2))
    numbers = {name: column.values.tolist() for name, column in read.columns.items() if column.texts is None}
    np.testing.assert_equal(
        numbers,
        {
            "int": [1, np.nan, 3], "bytes": [0, 255, 3], "large": [2**40, 1, 2], "float": [1.5, np.nan, np.nan],
            "half": [1, 2, 3], "decimal": [1, 2, 3], "nothing": [np.nan] * 3,
        },
    )  # fmt: skip
    texts = {name: (column.values.tolist(), column.texts) for name, column in read.columns.items() if column.texts}
    two = ([1, 0, -1], ("a", "b"))
    assert texts == {
        "truth": ([1, -1, 0], ("False", "True")), "text": two, "large text": two, "category": two,
        "day": ([0, 1, -1], ("1970-01-01", "1970-01-02")),
    }  # fmt: skip


def test_only_named_columns_are_read_and_the_order_is_free(tmp_path: Path) -> None:
    read = read_parquet(written(tmp_path, COLUMNS), {"text": True, "int": False, "bytes": True})
    assert {name: column.texts for name, column in read.columns.items()} == {
        "text": ("a", "b"), "int": None, "bytes": ("0", "255", "3"),
    }  # fmt: skip
    with pytest.raises(DataError, match=r"row 1, column 'text': expected a number, got 'b'"):
        read_parquet(tmp_path / "t.parquet", {"text": False})


def test_a_table_larger_than_the_memory_limit_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, {"a": np.random.default_rng(0).random(1_000_000), "b": np.arange(1_000_000)})
    read_parquet(path, {"b": False})

    def fail(*_: object) -> None:
        raise AssertionError("a column was read")

    monkeypatch.setattr("gpunn.data.formats.parquet._add", fail)
    gn.set_memory_limit(resident_bytes() + (4 << 20))
    try:
        with pytest.raises(MemoryShortageError, match=r"t\.parquet: a table of 1,000,000 rows and 2 columns.*are free"):
            read_parquet(path)
    finally:
        gn.set_memory_limit(None)


@pytest.mark.parametrize("cut", [4, 50, 200, -1, -8, -9])
def test_a_file_that_is_cut_short_is_one_line(tmp_path: Path, cut: int) -> None:
    path = written(tmp_path, COLUMNS)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"t\.parquet: cannot be read as a table \(.*\): get or save the file again"):
        read_parquet(path)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"a": pa.array([[1], [2]])}, "column 'a': expected numbers or texts, got list"),
        ({"a": pa.array([b"x", b"y"])}, "column 'a': expected numbers or texts, got binary"),
        ({"a": pa.array([], pa.int8())}, "has no rows"),
        ({"a": pa.array([1.0, float("-inf")])}, "row 2, column 'a': expected a number, got an infinite number"),
    ],
)
def test_what_is_no_table_of_numbers_and_texts_is_refused(tmp_path: Path, columns: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_parquet(written(tmp_path, columns))


def test_a_table_that_promises_more_than_its_bytes_can_hold_is_refused(tmp_path: Path) -> None:
    zeros = pa.array(np.zeros(3_000_000, np.float32))
    path = written(tmp_path, {str(k): zeros for k in range(4)}, compression="zstd")
    with pytest.raises(DataError, match="promises 96,000,000 bytes, more than the"):
        read_parquet(path)


def test_without_pyarrow_the_way_to_install_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, COLUMNS)

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(arrow_module, "import_module", missing)
    with pytest.raises(DataError, match=r"pip install 'gpunn\[tables\]'"):
        read_parquet(path)
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"pip install 'gpunn\[tables\]'"):
        gn.load_data(tmp_path / "t.csv")
