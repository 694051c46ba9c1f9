"""Hold a table as it was read: columns of numbers and of texts, each cell with its place for messages."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpunn.config import nearest
from gpunn.errors import DataError

MOST_COLUMNS = 65_536
MOST_TEXTS = 65_536  # different texts of a column; one with more is no column of categories
MISSING = frozenset(("", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "-nan", "NULL", "null", "None", "<NA>", "NaT", "?"))
_FEW_TEXTS = 3  # among numbers that do not make a column of categories
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_TRUTH = {"true": "True", "false": "False"}

Kinds = Mapping[str, bool]  # the wanted columns, and whether each holds texts


class Column(NamedTuple):
    """Cells of a column: numbers, NaN for a missing one, or places among the texts, -1 for a missing one."""

    values: NDArray[Any]
    texts: tuple[str, ...] | None = None  # sorted
    has_too_many: bool = False  # different texts, which then are not kept

    @property
    def is_missing(self) -> NDArray[np.bool_]:
        """Return which cells are missing."""
        return np.asarray(np.isnan(self.values) if self.texts is None else self.values < 0)


@dataclass(frozen=True)
class Table:
    """Columns of one length by their names.

    Attributes:
        name: Name of the file or of another source; errors begin with it.
        columns: Columns by name, in order.
        length: Number of rows.
        place: Function that names the place of a row, "line 7".
    """

    name: str
    columns: Mapping[str, Column]
    length: int
    place: Callable[[int], str]

    def at(self, name: str, row: int) -> str:
        """Name a cell in an error."""
        return f"{self.name}: {self.place(row)}, column {name!r:.60}"


class Cells:
    """Collect the cells of a column piece by piece, as numbers or as texts, by their kind if `is_text` is None.

    Attributes:
        is_text: Whether the cells are kept as texts; None as long as all are numbers or missing.
        has_numbers: Whether numbers were added.
        count: Number of cells.
    """

    def __init__(self, is_text: bool | None = None, decimal: str = ".", *, is_wanted: bool = False) -> None:
        self.is_text, self.count, self.has_numbers = is_text, 0, False
        self._is_wanted, self._decimal = is_wanted, decimal
        self._pieces: list[NDArray[Any]] = []
        self._places: dict[str, int] = {}
        self._has_too_many = False
        self._numbers = self._others = 0  # counts of cells that are numbers, and of others
        self._bad: dict[str, int] = {}  # the first texts of the others, each with its row

    @property
    def nbytes(self) -> int:
        """Number of bytes that are kept."""
        return sum(piece.nbytes for piece in self._pieces)

    def add_numbers(self, values: NDArray[Any]) -> None:
        """Add numbers, NaN where one is missing."""
        if self.is_text:
            found, places = np.unique(values, return_inverse=True)
            self.add_texts(places, ["" if value != value else written(value) for value in found.tolist()])
            return
        self.count += len(values)
        there = len(values) - int(np.count_nonzero(np.isnan(values)))
        self._numbers += there
        self.has_numbers = self.has_numbers or there > 0
        self._pieces.append(_smallest(values))

    def count_texts(self, places: NDArray[Any], texts: list[str]) -> None:
        """Count texts, given by their places among `texts`, without keeping them."""
        counts = np.bincount(places[places >= 0], minlength=len(texts)).tolist()
        for number, text in enumerate(texts):
            text = text.strip()
            if text in MISSING:
                continue
            if as_number(text, self._decimal) is not None:
                self._numbers += counts[number]
            else:
                self._others += counts[number]
                if len(self._bad) <= _FEW_TEXTS and text not in self._bad:
                    self._bad[text] = self.count + int(np.argmax(places == number))
        self.count += len(places)

    def add_texts(self, places: NDArray[Any], texts: list[str]) -> None:
        """Add texts, given by their places among `texts`; those in `MISSING` become missing."""
        if not self.is_text:  # up to here all cells were missing
            self.is_text, self._pieces = True, [np.full(self.count, -1, np.int32)]
        self.count_texts(places, texts)
        own, known = np.empty(len(texts) + 1, np.int32), self._places
        own[-1] = -1  # for the place -1
        for number, text in enumerate(texts):
            text = text.strip()
            own[number] = -1 if text in MISSING else known.setdefault(text, len(known))
        if len(known) > MOST_TEXTS:
            self._has_too_many = True
            known.clear()
        self._pieces.append(own[places] if not self._has_too_many else np.zeros(len(places), np.int32))

    def check(self, bad: Callable[[int, str], DataError]) -> None:
        """Raise the error of `bad` for the first text, if a column of numbers has a few."""
        is_few = len(self._bad) <= _FEW_TEXTS or self._others < self._numbers / 10
        if not self._is_wanted and self._others and self._numbers > self._others and is_few:
            text, row = min(self._bad.items(), key=lambda each: each[1])
            raise bad(row, f"{text!r:.60}")

    def column(self, bad: Callable[[int, str], DataError]) -> Column:
        """Return the column; `bad` makes the error of a row without a number."""
        self.check(bad)
        values = np.concatenate(self._pieces) if self._pieces else np.zeros(0)
        self._pieces = []
        if not self.is_text:
            if values.dtype.kind == "f" and (endless := np.flatnonzero(np.isinf(values))).size:
                raise bad(int(endless[0]), "an infinite number")
            return Column(values)
        if self._has_too_many:
            return Column(values, (), has_too_many=True)
        names = list(self._places)
        if names and all(name.lower() in _TRUTH for name in names):  # programs spell them differently
            names = [_TRUTH[name.lower()] for name in names]
        texts = sorted(set(names))
        order = {text: place for place, text in enumerate(texts)}
        sorted_places = np.array([*(order[name] for name in names), -1], np.int32)
        return Column(sorted_places[values], tuple(texts))


def as_number(text: str, decimal: str = ".") -> float | None:
    """Parse a text as a number; return None if it is none."""
    text = text.replace(decimal, ".") if decimal != "." else text
    return float(text) if _NUMBER.fullmatch(text) else None


def written(value: float) -> str:
    """Write a number as the text of a category: a whole one without a point."""
    return str(int(value)) if float(value).is_integer() else repr(value)


def _smallest(values: NDArray[Any]) -> NDArray[Any]:
    """Return whole numbers from 0 to 255 as bytes, since tables of pixels have millions; others unchanged."""
    if values.dtype == np.uint8 or not len(values) or not (values.min() >= 0 and values.max() <= 255):  # or NaN
        return values
    small = values.astype(np.uint8)
    return small if bool((small == values).all()) else values


def checked_columns(name: str, names: list[str]) -> list[str]:
    """Check the names of all columns; raise DataError if there are too many or two are equal."""
    if len(names) > MOST_COLUMNS:
        raise DataError(f"{name}: has {len(names):,} columns, at most {MOST_COLUMNS:,} are read: leave some out")
    seen: set[str] = set()
    for place, column in enumerate(names, 1):
        if column in seen:
            first = names.index(column) + 1
            raise DataError(f"{name}: columns {first} and {place} are both named {column!r:.60}: rename one of them")
        seen.add(column)
    return names


def wanted_columns(
    name: str, names: list[str], kinds: Kinds | None, ignore: Collection[str] = ()
) -> dict[str, bool | None]:
    """Return the columns to read, those of `kinds` or all that are not ignored, and whether each holds texts."""
    if missing := [column for column in (ignore if kinds is None else kinds) if column not in names]:
        got = ", ".join(map(repr, names[:8])) + (", ..." if len(names) > 8 else "")
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(f"{name}: has no column {missing[0]!r:.60}{more}: it has {got}{nearest(missing[0], names)}")
    return dict.fromkeys(column for column in names if column not in ignore) if kinds is None else dict(kinds)


def bad_cell(place: str, column: str, got: str) -> DataError:
    """Return the error of a cell without a number, in a row at `place`."""
    mend = "mend it, leave the value out, or ignore the column"
    return DataError(f"{place}, column {column!r:.60}: expected a number, got {got}: {mend}")
