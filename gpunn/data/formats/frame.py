"""Read data frames of pandas, polars and PyArrow, and dictionaries of columns, without importing any of these."""

from collections.abc import Collection, Mapping
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np

from gpunn.data.formats.table import Cells, Column, Kinds, Table, bad_cell, checked_columns, wanted_columns
from gpunn.errors import DataError

_MISSING_TYPES = {"NAType", "NaTType", "NoneType"}


def is_frame(value: Any) -> bool:
    """Return whether a value has named columns: a data frame, or a dictionary of columns."""
    kind = type(value)  # so that no property is computed
    return isinstance(value, Mapping) or (
        hasattr(kind, "__getitem__") and (hasattr(kind, "column_names") or hasattr(kind, "columns"))
    )


def read_frame(frame: Any, kinds: Kinds | None = None, ignore: Collection[str] = (), name: str = "") -> Table:
    """Read a data frame, all columns or those of `kinds`; errors call it `name`."""
    if hasattr(frame, "collect") and not hasattr(frame, "to_numpy"):
        raise DataError(f"a {type(frame).__name__} has not been computed: give frame.collect()")
    name = name or "the dictionary" if isinstance(frame, Mapping) else f"the {type(frame).__name__}"
    keys = list(frame if isinstance(frame, Mapping) else getattr(frame, "column_names", frame.columns))
    given = dict(zip(checked_columns(name, [str(key) for key in keys]), keys, strict=True))
    made: dict[str, Column] = {}
    for column, is_text in wanted_columns(name, list(given), kinds, ignore).items():
        values = _values(frame[given[column]], f"{name}: column {column!r:.60}")
        cells = Cells(is_text, is_wanted=is_text is not None)

        def bad(row: int, got: str, column: str = column) -> DataError:
            return bad_cell(f"{name}: row {row}", column, got)

        if values.dtype.kind in "iuf":
            cells.add_numbers(values)
        elif (numbers := _numbers(values)) is not None and not is_text:
            cells.add_numbers(numbers)
        else:
            texts = [_text(value) for value in values.tolist()]
            if is_text is False:
                at = next(row for row, value in enumerate(values.tolist()) if not _is_number(value))
                raise bad(at, f"{texts[at]!r:.60}")
            places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
            cells.add_texts(np.array([places[text] for text in texts], np.int32), list(places))
        made[column] = cells.column(bad)
    lengths = {len(column.values) for column in made.values()}
    if not lengths or lengths == {0}:
        raise DataError(f"{name}: has no rows: give a table with rows")
    if len(lengths) > 1:
        raise DataError(
            f"{name}: its columns have {', '.join(map(str, sorted(lengths)))} values: make them equally long"
        )
    return Table(name, made, lengths.pop(), lambda row: f"row {row}")


def _values(column: Any, what: str) -> np.ndarray[Any, Any]:
    """Return the values of a column as an array (n,)."""
    try:
        array = np.asarray(column.to_numpy() if hasattr(column, "to_numpy") else column)
    except (ValueError, TypeError) as error:
        raise DataError(f"{what}: is no list of values ({str(error).splitlines()[0]:.80})") from None
    if array.ndim != 1:
        raise DataError(f"{what}: expected a value in each row, got an array of shape {array.shape}")
    if array.dtype.kind not in "biufMmOSUT":
        raise DataError(f"{what}: expected numbers or texts, got {array.dtype}: leave it out")
    return array.astype(str) if array.dtype.kind in "MmS" else array


def _is_number(value: Any) -> bool:
    """Return whether a value is a number, or a missing one."""
    is_number = isinstance(value, Real | Decimal | np.number) and not isinstance(value, bool | np.bool_)
    return is_number or type(value).__name__ in _MISSING_TYPES


def _numbers(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any] | None:
    """Return objects as floats, NaN for missing ones; None if some are no numbers."""
    listed = values.tolist()
    if values.dtype.kind != "O" or not all(map(_is_number, listed)):
        return None
    if not any(type(value).__name__ not in _MISSING_TYPES for value in listed):
        return np.full(len(listed), np.nan)
    return np.array([np.nan if type(v).__name__ in _MISSING_TYPES else float(v) for v in listed], np.float64)


def _text(value: Any) -> str:
    """Return a value as a text, "" for a missing one."""
    if type(value).__name__ in _MISSING_TYPES or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value)
