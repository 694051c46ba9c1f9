"""Read tables from Parquet files piece by piece, once the sizes that they promise fit into memory."""

from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gpunn.backend.limits import require
from gpunn.data.formats.arrow import add_texts, arrow, arrow_errors, as_floats
from gpunn.data.formats.bounded import MAX_RATIO
from gpunn.data.formats.table import Cells, Kinds, Table, bad_cell, checked_columns, wanted_columns
from gpunn.errors import DataError
from gpunn.files import open_regular

_ROWS, _CELLS = 1 << 16, 1 << 20  # of a piece
_COLUMN = 16 << 10  # bytes that PyArrow takes for a column, whatever it holds
_FREE_BYTES = 16 << 20  # that a file of any size may promise
_MOST_THRIFT = 64 << 20  # bytes and members of the description of a file


def read_parquet(path: Path, kinds: Kinds | None = None, ignore: Collection[str] = ()) -> Table:
    """Read a Parquet file, all columns or those of `kinds`, after a check of the sizes that it promises."""
    pa = arrow()
    with arrow_errors(path, "get or save the file again"), open_regular(path) as file:
        file.seek(0, 2)
        size = file.tell()
        file.seek(0)
        source = _opened(file)
        metadata, schema = source.metadata, source.schema_arrow
        columns = wanted_columns(str(path), checked_columns(str(path), list(schema.names)), kinds, ignore)
        fields = {name: schema.field(name).type for name in columns}
        rows, largest = metadata.num_rows, 0
        if rows <= 0 or not columns:
            raise DataError(f"{path}: has no rows: give a table with rows")
        for name, of_type in fields.items():
            _check_type(pa, path, name, of_type)
        width = sum(4 if _is_text(pa, each) else 8 for each in fields.values())
        promised = rows * width
        if promised > (most := _FREE_BYTES + MAX_RATIO * size):
            raise DataError(
                f"{path}: promises {promised:,} bytes, more than the {most:,} that {size:,} bytes can hold: "
                "get or save the file again"
            )
        for group in range(metadata.num_row_groups):
            # A reader holds a page of each column at once, which may be the whole of it. The sizes of the columns are
            # not asked for one by one: of a damaged file PyArrow ends the process then.
            largest = max(largest, metadata.row_group(group).total_byte_size)
        if largest > _FREE_BYTES + MAX_RATIO * size:
            raise DataError(f"{path}: promises more than {size:,} bytes can hold: get or save the file again")
        needed = promised + largest + _COLUMN * len(columns)
        require(needed, f"{path}: a table of {rows:,} rows and {len(columns):,} columns")
        cells = {name: Cells(is_text, is_wanted=True) for name, is_text in columns.items()}
        step = max(1, min(_ROWS, _CELLS // len(columns)))
        count = 0
        for batch in source.iter_batches(step, columns=list(columns), use_threads=False):
            count += batch.num_rows
            if count > rows:
                raise DataError(f"{path}: holds more rows than the {rows:,} it promises: get or save the file again")
            for name, array in zip(batch.schema.names, batch.columns, strict=True):
                _add(pa, path, name, cells[name], array)
        if count != rows or any(each.count != rows for each in cells.values()):
            raise DataError(f"{path}: holds {count:,} rows, not the {rows:,} it promises: get or save the file again")

    def bad(name: str, row: int, got: str) -> DataError:
        return bad_cell(f"{path}: row {row + 1}", name, got)

    made = {name: cells.pop(name).column(partial(bad, name)) for name in list(cells)}
    return Table(str(path), made, rows, lambda row: f"row {row + 1}")


def parquet_names(path: Path) -> list[str]:
    """Return the names of the columns of a Parquet file."""
    with arrow_errors(path, "get or save the file again"), open_regular(path) as file:
        return list(_opened(file).schema_arrow.names)


def _opened(file: Any) -> Any:
    """Open a Parquet file, reading only its description."""
    limits = {"thrift_string_size_limit": _MOST_THRIFT, "thrift_container_size_limit": _MOST_THRIFT}
    return arrow("pyarrow.parquet").ParquetFile(file, memory_map=False, pre_buffer=False, **limits)


def _is_text(pa: Any, of_type: Any) -> bool:
    types = pa.types
    of_type = of_type.value_type if types.is_dictionary(of_type) else of_type
    is_string = types.is_string(of_type) or types.is_large_string(of_type) or types.is_string_view(of_type)
    return bool(is_string or types.is_boolean(of_type) or types.is_temporal(of_type))


def _check_type(pa: Any, path: Path, name: str, of_type: Any) -> None:
    """Raise DataError if a column holds neither numbers nor texts."""
    types = pa.types
    inner = of_type.value_type if types.is_dictionary(of_type) else of_type
    is_number = types.is_integer(inner) or types.is_floating(inner) or types.is_decimal(inner) or types.is_null(inner)
    if not (is_number or _is_text(pa, of_type)):
        got = f"expected numbers or texts, got {of_type!s:.60}"
        raise DataError(f"{path}: column {name!r:.60}: {got}: write it as columns of numbers, or leave it out")


def _add(pa: Any, path: Path, name: str, cells: Cells, array: Any) -> None:
    """Add a piece to the cells of a column, of its own kind, or as texts if these are wanted."""
    types = pa.types
    if types.is_dictionary(array.type) and not _is_text(pa, array.type):
        array = array.dictionary_decode()
    if not _is_text(pa, array.type):
        if not types.is_integer(array.type) or array.null_count:
            array = array.cast(pa.float64(), safe=False)
        cells.add_numbers(as_floats(array))
        return
    if cells.is_text is False:
        at = int(np.argmax(array.is_valid().to_numpy(zero_copy_only=False)))
        raise bad_cell(f"{path}: row {cells.count + at + 1}", name, f"{str(array[at].as_py())!r:.60}")
    if not types.is_dictionary(array.type) and not types.is_string(array.type):
        array = array.cast(pa.string())
    add_texts(cells, array)
