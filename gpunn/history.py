"""What a training run recorded: its cost and accuracy on training and validation data, in memory and as CSV."""

import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import overload

from gpunn.errors import DataError
from gpunn.limits import require
from gpunn.overfitting import OverfittingDetector
from gpunn.storage import open_regular, write_atomically


@dataclass(frozen=True)
class Record:
    """One look at the model in training.

    Args:
        step: minibatches done since the start of the run.
        epoch: step / (steps per epoch), so 1.0 is the end of the first epoch.
        train_loss: mean training cost since the previous record, λR of equation (17) contained.
        train_accuracy: share of right answers on the training samples since the previous record, 0 to 1;
            nan for regression.
        validation_loss: cost on the whole validation set; nan where there is none.
        validation_accuracy: share of right answers on it, 0 to 1; nan where there is none.
        learning_rate: η at this step.
        seconds: since the start of the run.
    """

    step: int
    epoch: float
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    learning_rate: float
    seconds: float


COLUMNS = tuple(field.name for field in fields(Record))

_LONGEST_LINE = 1000
_RECORD_BYTES = 30  # that a record takes in memory for each byte of the shortest line that is one

_INTEGER = re.compile(r"[0-9]{1,18}")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?|nan|-?inf")


class History(Sequence[Record]):
    """The records of a run in the order of their steps.

    Args:
        records: what was recorded so far; appended one by one.

    Attributes:
        records: the list of `Record`.
        overfitting_since: the record since which the model overfits, or None; see `OverfittingDetector`.
        stopped: "", or why training ended before its last epoch.
        skipped: batches that were skipped because they led to numbers that are not finite.
    """

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self.records: list[Record] = []
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
        since = self._detector.observe(record)
        if since is not None:
            self.overfitting_since = since
        return since

    @property
    def best(self) -> Record | None:
        """The first record of the lowest finite validation cost, of training cost if none was validated."""
        validated = [record for record in self.records if math.isfinite(record.validation_loss)]
        if validated:
            return min(validated, key=lambda record: record.validation_loss)
        trained = [record for record in self.records if math.isfinite(record.train_loss)]
        return min(trained, key=lambda record: record.train_loss, default=None)

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
        heads = ("", "step", "epoch", "cost", "accuracy", "validation cost", "validation accuracy", "time")
        rows: list[tuple[str, ...]] = [heads]
        for name, record in (("best", self.best), ("last", self.records[-1])):
            if record is not None:
                rows.append((name, *_readable(record)))
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
            lines.append(f"skipped: {self.skipped} batches that led to numbers that are not finite")
        if self.stopped:
            lines.append(f"stopped: {self.stopped}")
        return "\n".join(lines)

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write all records, one a line under a header; numbers read back to the same bits.

        Raises:
            OutputError: if the file cannot be written; an older file of that name is then untouched.
        """
        lines = [",".join(COLUMNS)]
        for record in self.records:
            step, *numbers = astuple(record)
            lines.append(",".join([str(int(step)), *(repr(float(number)) for number in numbers)]))
        write_atomically(path, ("\n".join(lines) + "\n").encode("ascii"))

    @classmethod
    def read_csv(cls, path: str | os.PathLike[str]) -> "History":
        """Read what `write_csv` wrote. What the detector of overfitting said is found again; `stopped` is "".

        Raises:
            DataError: if the file is missing or damaged, with the line and what is wrong in it.
        """
        history = cls()
        try:
            with open_regular(Path(path)) as file:
                require(_RECORD_BYTES * os.fstat(file.fileno()).st_size, str(path))
                head = file.readline(_LONGEST_LINE).decode("latin-1")
                if head != ",".join(COLUMNS) + "\n":
                    raise DataError(f"{path}: expected the header of a gpunn history, got {_shown(head)}")
                for number, line in enumerate(iter(lambda: file.readline(_LONGEST_LINE), b""), start=2):
                    if not line.endswith(b"\n"):
                        raise DataError(f"{path}: line {number} is cut off: delete that line to go on without it")
                    try:
                        history.append(_parse(line[:-1].decode("latin-1")))
                    except ValueError as error:
                        raise DataError(f"{path}: line {number}: {error}") from None
        except OSError as error:
            raise DataError(f"{path}: cannot be read as a history: {error.strerror or error}") from None
        return history


def _parse(line: str) -> Record:
    """One line of the CSV; a ValueError says what is wrong with it."""
    cells = line.split(",")
    if len(cells) != len(COLUMNS):
        raise ValueError(f"expected {len(COLUMNS)} numbers, got {len(cells)}")
    if not _INTEGER.fullmatch(cells[0]):
        raise ValueError(f"expected a whole number as step, got {_shown(cells[0])}")
    for name, cell in zip(COLUMNS[1:], cells[1:], strict=True):
        if not _NUMBER.fullmatch(cell):
            raise ValueError(f"expected a number as {name}, got {_shown(cell)}")
    numbers = dict(zip(COLUMNS[1:], map(float, cells[1:]), strict=True))
    for name in ("epoch", "seconds"):
        if not (math.isfinite(numbers[name]) and numbers[name] >= 0):
            raise ValueError(f"expected {name} to be finite and not negative, got {numbers[name]}")
    for name in ("train_accuracy", "validation_accuracy"):
        if not (math.isnan(numbers[name]) or 0 <= numbers[name] <= 1):
            raise ValueError(f"expected {name} between 0 and 1, got {numbers[name]}")
    return Record(int(cells[0]), **numbers)


def _readable(record: Record) -> tuple[str, ...]:
    def share(value: float) -> str:
        return "-" if math.isnan(value) else f"{value:.2%}"

    def cost(value: float) -> str:
        return "-" if math.isnan(value) else f"{value:.4g}"

    return (
        str(record.step),
        f"{record.epoch:.4g}",
        cost(record.train_loss),
        share(record.train_accuracy),
        cost(record.validation_loss),
        share(record.validation_accuracy),
        f"{record.seconds:.1f} s",
    )


def _shown(text: str) -> str:
    """Foreign text for an error message: quoted, on one line, short."""
    return repr(text if len(text) <= 40 else text[:40] + "…")
