"""What a training run recorded: the figures of its task on training and validation data, in memory and as CSV."""

import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

from gpunn.backend.limits import require
from gpunn.errors import DataError
from gpunn.files import as_path, open_regular, write_atomically
from gpunn.nn.tasks import FIGURES, shown
from gpunn.train.overfitting import OverfittingDetector
from gpunn.train.record import COLUMNS, Record

_ALWAYS = ("step", "epoch", "train_loss", "learning_rate", "seconds")
_LONGEST_LINE = 1000
_RECORD_BYTES = 32  # that a record takes in memory for each byte of the shortest line that is one

_INTEGER = re.compile(r"[0-9]{1,18}")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?|nan|-?inf")


class History(Sequence[Record]):
    """The records of a run in the order of their steps.

    Args:
        records: what was recorded so far; appended one by one.

    Attributes:
        records: the list of `Record`.
        best: The first record of the lowest finite validation loss, of training loss if none was validated.
        overfitting_since: the record since which the model overfits, or None; see `OverfittingDetector`.
        stopped: "", or why training ended before its last epoch.
        skipped: batches that were skipped because they led to NaN or Inf.
    """

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self.records: list[Record] = []
        self.best: Record | None = None
        self.overfitting_since: Record | None = None
        self.stopped = ""
        self.skipped = 0
        self._detector = OverfittingDetector()
        for record in records:
            self.append(record)

    def append(self, record: Record) -> Record | None:
        """Add the next record, and judge by it whether the model overfits.

        Returns:
            The record since which the model overfits, once: from the call that found it. Else None.

        Raises:
            ValueError: if its step is not after the last record's.
        """
        if self.records and record.step <= self.records[-1].step:
            raise ValueError(f"expected a record after step {self.records[-1].step}, got step {record.step}")
        self.records.append(record)
        if _rank(record) < (_rank(self.best) if self.best else (True, math.inf)):
            self.best = record
        since = self._detector.observe(record)
        if since is not None:
            self.overfitting_since = since
        return since

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        return self.records[index]

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def __repr__(self) -> str:
        if not self.records:
            return "History(no records)"
        last = self.records[-1]
        since = self.overfitting_since
        tail = f", overfitting since step {since.step}" if since is not None else ""
        return f"History({len(self)} records to step {last.step}, epoch {last.epoch:g}{tail})"

    def __str__(self) -> str:
        """A short table: the best and the last record."""
        if not self.records:
            return "no records yet"
        there = [(name, record) for name, record in (("best", self.best), ("last", self.records[-1])) if record]
        figures = [
            (f"{part}_{name}", f"{word}{FIGURES[name]}")
            for part, word in (("train", ""), ("validation", "validation "))
            for name in FIGURES
            if any(name in record.figures(part) for record in self.records)
        ]
        if any(not math.isnan(record.penalty) for _, record in there):
            figures.append(("penalty", "λR"))
        rows = [["", "step", "epoch", *(word for _, word in figures), "time"]]
        for name, record in there:
            cells = [_cell(column, getattr(record, column)) for column, _ in figures]
            rows.append([name, str(record.step), f"{record.epoch:.4g}", *cells, f"{record.seconds:.1f} s"])
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = [
            "  ".join(
                cell.ljust(width) if column == 0 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        if self.overfitting_since is not None:
            since = self.overfitting_since
            lines.append(f"overfitting (high variance) since step {since.step}, epoch {since.epoch:.4g}")
        if self.skipped:
            lines.append(f"skipped: {self.skipped} batches that led to NaN or Inf")
        if self.stopped:
            lines.append(f"stopped: {self.stopped}")
        return "\n".join(lines)

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write all records, one a line under a header, without columns that no record has a number for.

        Numbers read back to the same bits.

        Raises:
            OutputError: if the file cannot be written; an older file of that name is then untouched.
        """
        columns = columns_of(self.records)
        lines = [",".join(columns)]
        for record in self.records:
            numbers = [float(getattr(record, name)) for name in columns[1:]]
            lines.append(",".join([str(int(record.step)), *map(repr, numbers)]))
        write_atomically(path, ("\n".join(lines) + "\n").encode("ascii"))

    @classmethod
    def read_csv(cls, path: str | os.PathLike[str]) -> "History":
        """Read what `write_csv` wrote. What the detector of overfitting said is found again; `stopped` is "".

        Raises:
            DataError: if the file is missing or damaged, with the line and what is wrong in it.
        """
        history = cls()
        try:
            with open_regular(as_path(path)) as file:
                require(_RECORD_BYTES * os.fstat(file.fileno()).st_size, str(path))
                head = file.readline(_LONGEST_LINE).decode("latin-1")
                columns = head.removesuffix("\n").split(",")
                # Any subset of what is known, in its order: a version before this one wrote fewer.
                if not head.endswith("\n") or columns != [n for n in COLUMNS if n in columns or n in _ALWAYS]:
                    raise DataError(f"{path}: expected the header of a gpunn history, got {_shown(head)}")
                for number, line in enumerate(iter(lambda: file.readline(_LONGEST_LINE), b""), start=2):
                    if not line.endswith(b"\n"):
                        raise DataError(f"{path}: line {number} is cut off: delete that line to go on without it")
                    try:
                        history.append(_parse(line[:-1].decode("latin-1"), columns))
                    except ValueError as error:
                        raise DataError(f"{path}: line {number}: {error}") from None
        except OSError as error:
            raise DataError(f"{path}: cannot be read as a history: {error.strerror or error}") from None
        return history


def _rank(record: Record) -> tuple[bool, float]:
    """Order records, the best first: by validation loss, or by training loss where none was validated."""
    is_validated = math.isfinite(record.validation_loss)
    loss = record.validation_loss if is_validated else record.train_loss
    return not is_validated, loss if math.isfinite(loss) else math.inf


def columns_of(records: Sequence[Record]) -> list[str]:
    """The columns that some records have numbers for, and those that every history has."""
    return [name for name in COLUMNS if name in _ALWAYS or any(not math.isnan(getattr(each, name)) for each in records)]


def _parse(line: str, columns: Sequence[str]) -> Record:
    """One line of the CSV; a ValueError says what is wrong with it."""
    cells = line.split(",")
    if len(cells) != len(columns):
        raise ValueError(f"expected {len(columns)} numbers, got {len(cells)}")
    if not _INTEGER.fullmatch(cells[0]):
        raise ValueError(f"expected a whole number as step, got {_shown(cells[0])}")
    for name, cell in zip(columns[1:], cells[1:], strict=True):
        if not _NUMBER.fullmatch(cell):
            raise ValueError(f"expected a number as {name}, got {_shown(cell)}")
    numbers = dict.fromkeys(COLUMNS[1:], math.nan) | dict(zip(columns[1:], map(float, cells[1:]), strict=True))
    for name in ("epoch", "seconds"):
        if not (math.isfinite(numbers[name]) and numbers[name] >= 0):
            raise ValueError(f"expected {name} to be finite and not negative, got {numbers[name]}")
    for name in ("train_accuracy", "validation_accuracy"):
        if not (math.isnan(numbers[name]) or 0 <= numbers[name] <= 1):
            raise ValueError(f"expected {name} between 0 and 1, got {numbers[name]}")
    return Record(int(cells[0]), **numbers)


def _cell(column: str, value: float) -> str:
    return "-" if math.isnan(value) else shown(column.rpartition("_")[2], value)


def _shown(text: str) -> str:
    """Foreign text for an error message: quoted, on one line, short."""
    return repr(text if len(text) <= 40 else text[:40] + "…")
