"""Keep the records of a training in memory and as CSV, and detect overfitting."""

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from gpunn.backend.limits import require
from gpunn.errors import DataError
from gpunn.files import as_path, open_regular, write_atomically
from gpunn.train.history_table import html_of, rows_of
from gpunn.train.record import COLUMNS, MOST_METRICS, Record, is_metric_name, record_of

# The bounds of `OverfittingCriterion`; the evidence is in `docs/design/overfitting.md`.
WINDOW, SHARE, FEWEST = 5.0, 1 / 6, 5  # least window: in epochs, as a share of the training so far, in records
PRODUCT, REGULARIZED_PRODUCT = 0.015, 0.03  # least r · f, without and with a regularizer
RISE, SIGMAS = 0.025, 4.0  # least rise of the validation loss: relative, in standard errors

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ALWAYS = ("step", "epoch", "train_loss", "learning_rate", "seconds")
_LONGEST_LINE = 4000
_RECORD_BYTES = 32  # memory of a record for each byte of the shortest line
_INTEGER = re.compile(r"[0-9]{1,18}")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?|nan|-?inf")


class History(Sequence[Record]):
    """Records of a run in the order of their steps: `history[-1]` is the last, `history["train_loss"]` a column.

    Args:
        records: Records so far.

    Attributes:
        records: List of `Record`.
        best: First record of the lowest finite validation loss, or training loss without validation; or None.
        overfitting_since: Record since which the model overfits, or None; see docs/design/overfitting.md.
        stopped: Reason for an end before the last epoch, or "".
        skipped: Number of batches skipped because they led to NaN or Inf.
    """

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self.records: list[Record] = []
        self.best: Record | None = None
        self.overfitting_since: Record | None = None
        self.stopped, self.skipped = "", 0
        self._lowest = (True, math.inf)
        self._detector = OverfittingCriterion()
        for record in records:
            self.append(record)

    def append(self, record: Record) -> Record | None:
        """Add the next record; return, once, the record since which the model overfits.

        Raises:
            ValueError: Its step is not after the last record's.
        """
        if self.records and record.step <= self.records[-1].step:
            raise ValueError(f"expected a record after step {self.records[-1].step}, got step {record.step}")
        self.records.append(record)
        is_validated = math.isfinite(record.validation_loss)
        loss = not is_validated, record.validation_loss if is_validated else record.train_loss
        if math.isfinite(loss[1]) and loss < self._lowest:
            self.best, self._lowest = record, loss
        since = self._detector.observe(record)
        self.overfitting_since = since or self.overfitting_since
        return since

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    @overload
    def __getitem__(self, index: str) -> list[float]: ...
    def __getitem__(self, index: int | slice | str) -> Record | list[Record] | list[float]:
        if not isinstance(index, str):
            return self.records[index]
        if index not in COLUMNS and index not in (columns := columns_of(self.records)):
            raise KeyError(f"a history has no column {index!r}: it has {', '.join(columns)}")
        return [record.number(index) for record in self.records]

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        if not self.records:
            return "History(no records)"
        last, since = self.records[-1], self.overfitting_since
        tail = f", overfitting since step {since.step}" if since else ""
        return f"History({len(self)} records to step {last.step}, epoch {last.epoch:g}{tail})"

    def __str__(self) -> str:
        """Return a short table: the best and the last record."""
        if not self.records:
            return "no records yet"
        there = [(name, record) for name, record in (("best", self.best), ("last", self.records[-1])) if record]
        rows = rows_of(self.records, there)
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]
        return "\n".join([*lines, *self._notes()])

    def _notes(self) -> list[str]:
        """Return remarks on the training, a line each."""
        lines = []
        if since := self.overfitting_since:
            lines.append(f"overfitting (high variance) since step {since.step}, epoch {since.epoch:.4g}")
        lines += [f"skipped: {self.skipped} batches that led to NaN or Inf"] if self.skipped else []
        return lines + ([f"stopped: {self.stopped}"] if self.stopped else [])

    def _repr_html_(self) -> str:
        return html_of(self.records, self.best, repr(self), self._notes())

    def plot(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        title: str = "",
        reference: Mapping[str, Any] | None = None,
    ) -> "Figure":
        """Draw loss and accuracy (for regression RMSE and R²) over the epochs, as in `curves.png` of a run folder.

        Args:
            path: Path of a PNG file to write, or None.
            title: Title of the figure.
            reference: Curves to draw dashed for comparison: lists under `train_loss`, `train_accuracy`,
                `validation_loss` and `validation_accuracy`, each optional, at the epochs under `epoch`; `name` is their
                label.

        Returns:
            A Matplotlib figure, which a notebook shows by itself; it is not registered with pyplot.

        Raises:
            OutputError: The file cannot be written.
            OptionError, ShapeError: A reference with other keys, or lists of different lengths.
        """
        from gpunn.train.curves import plot_curves

        return plot_curves(self, path, title=title, reference=reference)

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write all records as CSV, with a header and without empty columns; numbers read back to the same bits.

        Raises:
            OutputError: The file cannot be written; an older file of the same name is then untouched.
        """
        write_atomically(path, self.to_csv())

    def to_csv(self) -> bytes:
        """Return the bytes that `write_csv` writes."""
        columns = columns_of(self.records)
        lines = [",".join(columns)]
        for record in self.records:
            lines.append(",".join([str(int(record.step)), *(repr(float(record.number(n))) for n in columns[1:])]))
        return ("\n".join(lines) + "\n").encode("ascii")

    @classmethod
    def read_csv(cls, path: str | os.PathLike[str]) -> "History":
        """Read a file of `write_csv`. Overfitting is detected again; `stopped` is "".

        Raises:
            DataError: The file is missing or damaged; the message names the line and its fault.
        """
        history = cls()
        try:
            with open_regular(as_path(path)) as file:
                require(_RECORD_BYTES * os.fstat(file.fileno()).st_size, str(path))
                head = file.readline(_LONGEST_LINE).decode("latin-1")
                columns = head.removesuffix("\n").split(",")
                # A subset of the known columns, in their order: earlier versions wrote fewer.
                known = [n for n in COLUMNS if n in columns or n in _ALWAYS]
                own = columns[len(known) :]
                is_own = all(map(is_metric_name, own)) and len(set(own)) == len(own) <= MOST_METRICS
                if not head.endswith("\n") or columns[: len(known)] != known or not is_own:
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


def columns_of(records: Sequence[Record]) -> list[str]:
    """List the columns of a history: those that every history has, others with a number, and the user's metrics."""
    known = [n for n in COLUMNS if n in _ALWAYS or any(not math.isnan(getattr(each, n)) for each in records)]
    return known + list(dict.fromkeys(name for each in records for name, _ in each.measured))


def _parse(line: str, columns: Sequence[str]) -> Record:
    """Read one line of the CSV; a ValueError names its fault."""
    cells = line.split(",")
    if len(cells) != len(columns):
        raise ValueError(f"expected {len(columns)} numbers, got {len(cells)}")
    if not _INTEGER.fullmatch(cells[0]):
        raise ValueError(f"expected a whole number as step, got {_shown(cells[0])}")
    numbers = []
    for name, cell in zip(columns[1:], cells[1:], strict=True):
        if not _NUMBER.fullmatch(cell):
            raise ValueError(f"expected a number as {name}, got {_shown(cell)}")
        numbers.append(value := float(cell))
        if name in ("epoch", "seconds") and not (math.isfinite(value) and value >= 0):
            raise ValueError(f"expected {name} to be finite and not negative, got {value}")
        if name in COLUMNS and name.endswith("accuracy") and not (math.isnan(value) or 0 <= value <= 1):
            raise ValueError(f"expected {name} between 0 and 1, got {value}")
    return record_of(columns[1:], numbers, int(cells[0]))


def _shown(text: str) -> str:
    """Quote foreign text for an error message, on one line, short."""
    return repr(text if len(text) <= 40 else text[:40] + "…")


class _Window(NamedTuple):
    """Mean losses of a window of records."""

    validation: float
    training: float
    variance: float  # of the mean validation loss
    lowest: Record  # record of the lowest validation loss


class OverfittingCriterion:
    """Find since when the training loss still falls while the validation loss rises (high variance).

    V and T are the mean validation and training loss, without λR, of the last max(`WINDOW`, `SHARE` · epoch) epochs; Vb
    and Tb those of the window with the lowest V so far. With the relative rise r = V/Vb − 1 and fall f = 1 − T/Tb, the
    model overfits *since* the record of the lowest validation loss in the best window when

        r · f ≥ `PRODUCT`   and   r ≥ `RISE`   and   V − Vb ≥ `SIGMAS` · √(s² + sb²).

    s² = Σ(vᵢ₊₁ − vᵢ)² / 2m(m − 1) estimates the variance of a window's mean from the differences of its m neighbouring
    records. It grows with noise and not with a trend, so small or noisy validation sets must rise further.
    """

    def __init__(self) -> None:
        self._records: list[Record] = []
        self._best: _Window | None = None
        self._said = False

    def observe(self, record: Record) -> Record | None:
        """Add the next record to the windows; return, once, the record since which the model overfits."""
        if self._said or not (math.isfinite(record.validation_loss) and math.isfinite(record.train_loss)):
            return None
        self._records.append(record)
        now, best = self._last_window(), self._best
        if now is None:
            return None
        if best is None or now.validation < best.validation:
            self._best = now
            return None
        # As products, not quotients: a loss may be 0.
        rise, fall = now.validation - best.validation, best.training - now.training
        product = PRODUCT if math.isnan(record.penalty) else REGULARIZED_PRODUCT
        self._said = (
            fall > 0
            and rise >= RISE * best.validation
            and rise * fall >= product * best.validation * best.training
            and rise >= SIGMAS * math.sqrt(now.variance + best.variance)
        )
        return best.lowest if self._said else None

    def _last_window(self) -> _Window | None:
        """Return the window that ends with the last record; None until it is full."""
        records, epoch = self._records, self._records[-1].epoch
        # Epochs are quotients of steps, and rounding must not admit a record exactly one window ago.
        slack = 1e-9 * (1 + epoch)
        if len(records) < FEWEST or epoch < WINDOW - slack:
            return None
        begin, first = epoch - max(WINDOW, SHARE * epoch) + slack, len(records) - FEWEST
        while first > 0 and records[first - 1].epoch > begin:
            first -= 1
        inside = records[first:]
        losses, count = [record.validation_loss for record in inside], len(inside)
        steps = (after - before for before, after in pairwise(losses))
        variance = sum(step * step for step in steps) / (2 * count * (count - 1))  # a power raises where it overflows
        training = sum(record.train_loss for record in inside) / count
        return _Window(sum(losses) / count, training, variance, min(inside, key=lambda each: each.validation_loss))
