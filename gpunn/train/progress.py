"""Show the progress of a training: one updated line on a terminal, else a line an epoch."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TextIO

from gpunn.backend.compiling import columns_of
from gpunn.errors import OptionError
from gpunn.nn.tasks import FIGURES
from gpunn.train.callbacks import Display, TrainingView
from gpunn.train.notebook import NotebookProgress, has_widgets, words_of
from gpunn.train.record import Record

_EVERY = 0.1  # least seconds between updates of the line, since the metrics wait for the device
_LEAST_BAR, _MOST_BAR = 8, 40
_SHORTER = (  # words for epoch, accuracy and validation, and digits of the metrics, the widest first
    ("epoch ", "accuracy ", "validation", 4),
    ("epoch ", "accuracy ", "val", 4),
    ("epoch ", "", "val", 4),
    ("", "", "val", 4),
    ("", "", "val", 3),
    ("", "", "val", 2),
)
_WIDE = 4  # digits of a line with room for the user's metrics


class Progress:
    """Show epoch, metrics, speed and time left in one line within the terminal's width; each epoch leaves a line."""

    def __init__(self, epochs: int, samples: int, stream: TextIO | None = None) -> None:
        self.epochs, self.samples = epochs, samples
        stream = stream or sys.stderr
        self.shown = stream is not None  # a program without a console has no streams
        self.stream: TextIO = stream
        self.is_terminal = self.shown and stream.isatty()
        self._width: Callable[[], int] = lambda: columns_of(stream)
        self._began = self._written = 0.0
        self._done = 0  # samples since it began
        self._validation: dict[str, float] = {}
        self._line = ""  # last line of the terminal, to overwrite

    def start_epoch(self, epoch: int, before: int = 0) -> None:
        """Begin an epoch, counted from 0, or the rest of it after the first `before` samples."""
        self._epoch, self._epoch_began = epoch, time.perf_counter()
        self._began = self._began or self._epoch_began
        self._at = self._before = before

    def step(self, n: int, figures: Callable[[], Mapping[str, float]]) -> None:
        """Add n samples to the line; `figures` returns the training metrics, and is called only to show them."""
        self._at += n
        self._done += n
        if self.is_terminal and time.perf_counter() - self._written >= _EVERY:
            self._write(figures())

    def look(self, record: Record) -> None:
        """Show the validation metrics of a record from now on."""
        self._validation = record.figures("validation") | record.metrics

    def end_epoch(self, record: Record | None) -> None:
        """End the epoch, with its last record."""
        training = {} if record is None else record.figures("train")
        if self.is_terminal:
            self._write(training)
            self.close()
        elif self.shown:
            print(next(self._texts(training)), file=self.stream, flush=True)

    def say(self, text: str) -> None:
        """Write a message above the updated line."""
        if self.shown:
            print(f"{_over(self._line, text)}\n{self._line}", end="", file=self.stream, flush=True)

    def close(self) -> None:
        """Leave the line on the terminal."""
        if self._line:
            print(file=self.stream, flush=True)
            self._line = ""

    def _write(self, training: Mapping[str, float]) -> None:
        """Overwrite the line with the widest text that fits, and a bar if there is room."""
        width = self._width() - 1
        *wider, narrowest = self._texts(training)
        line = next((text for text in wider if len(text) <= width), narrowest)[:width]
        bar = min(width - len(line) - 3, _MOST_BAR)
        if bar >= _LEAST_BAR:
            line += f" [{'#' * round(bar * self._at / self.samples):{bar}}]"
        print(_over(self._line, line), end="", file=self.stream, flush=True)
        self._line, self._written = line, time.perf_counter()

    def _texts(self, training: Mapping[str, float]) -> Iterator[str]:
        """Yield the line, from the widest to the shortest."""
        now, validation = time.perf_counter(), self._validation
        speed = (self._at - self._before) / max(now - self._epoch_began, 1e-9)
        power = next((power for power in range(3) if speed < 999.5 * 1000**power), 3)
        short = f"{speed / 1000**power:.3g}{('', 'k', 'M', 'G')[power]}"
        to_do = self.samples * (self.epochs - self._epoch) - self._at
        left = _duration((now - self._began) / max(self._done, 1) * to_do)
        place = f"{self._epoch + 1}/{self.epochs}"
        words = words_of(training, validation)
        said = ", ".join([*words, f"{speed:,.0f} samples/s", f"{left} left"])
        yield f"epoch {place}{':' if words else ','} {said}"
        for head, accuracy, name, digits in _SHORTER:
            parts = [f"{head}{place}"]
            parts += [_compact(training, digits, "loss ", accuracy)] if training else []
            parts += [f"{name} {_compact(validation, digits)}"] if validation else []
            yield " ".join([*parts, f"{short}/s {left} left"])


class ProgressBar(Display):
    """Show the progress of a training; `fit(progress=True)` makes one.

    A terminal shows one updated line of epoch, metrics, speed and time left; a notebook with ipywidgets, a bar of tqdm;
    anything else, a line an epoch. Lines and messages of the training go to standard error.

    Args:
        stream: Text stream in place of standard error, in notebooks too.

    Raises:
        OptionError: `stream` is no open text stream.
    """

    _waits = False

    def __init__(self, stream: TextIO | None = None) -> None:
        missing = [name for name in ("write", "flush", "isatty") if not callable(getattr(stream, name, None))]
        if stream is not None and (missing or isinstance(stream, type)):
            raise OptionError(f"stream must be an open text stream such as sys.stdout, got {stream!r}")
        self._stream = stream
        self._display: Progress | NotebookProgress = Progress(1, 1, stream)

    def __getstate__(self) -> dict[str, Any]:
        return {"stream": self._stream}  # a copy shows its own training, and a pickle cannot hold standard error

    def __setstate__(self, state: dict[str, Any]) -> None:
        ProgressBar.__init__(self, state["stream"])

    @property
    def is_shown(self) -> bool:
        return self._display.shown

    def say(self, text: str) -> None:
        self._display.say(text)

    def close(self) -> None:
        self._display.close()

    def on_train_begin(self, training: TrainingView) -> None:
        self._display = self._made(training.epochs, len(training.data.train))
        if training.record is not None:
            self._display.look(training.record)
        self._start_epoch(training)

    def on_steps(self, training: TrainingView) -> None:
        epoch, at = _place(training)
        is_end = epoch > self._epoch
        if is_end or training.history.stopped:
            training.trainer.settle()  # the last line of an epoch has its last record
        record, display = training.record, self._display
        is_recorded = record is not None and record.step == training.step  # the sums of the metrics are empty
        if record is not None and is_recorded:
            display.look(record)
        n = (len(training.data.train) if is_end else at) - self._at
        display.step(n, lambda: record.figures("train") if record and is_recorded else training.trainer.figures())
        self._at += n
        if is_end or training.history.stopped:
            display.end_epoch(record)
        if is_end and training.step < training.steps and not training.history.stopped:
            self._start_epoch(training)

    def _start_epoch(self, training: TrainingView) -> None:
        self._epoch, self._at = _place(training)
        self._display.start_epoch(self._epoch, self._at)

    def _made(self, epochs: int, samples: int) -> Progress | NotebookProgress:
        if self._stream is None and has_widgets():
            with contextlib.suppress(ImportError):
                return NotebookProgress(epochs, samples)
        return Progress(epochs, samples, self._stream)


def _place(training: TrainingView) -> tuple[int, int]:
    """Return the epoch of the next step, from 0, and the number of its samples that are done."""
    epoch, number = divmod(training.step, training.steps_per_epoch)
    return epoch, number * training.batch_size


def _over(before: str, text: str) -> str:
    """Return the text that overwrites a line."""
    return f"\r{text:{len(before)}}" if before else text


def _compact(figures: Mapping[str, float], digits: int, loss: str = "", accuracy: str = "") -> str:
    """Write metrics in few columns, "loss 0.0421 98.71%", without the RMSE, which follows from the loss."""
    forms: dict[str, Callable[[float], str]] = {
        "loss": lambda value: f"{loss}{_number(value, digits)}",
        "accuracy": lambda value: f"{accuracy}{value:.{max(digits - 2, 0)}%}",
        "r2": lambda value: f"R² {_number(value, max(digits - 1, 1))}",
    }
    known = [forms[name](value) for name, value in figures.items() if name in forms]
    own = [f"{name} {_number(value, 4)}" for name, value in figures.items() if name not in FIGURES]
    return " ".join([*known, *(own if digits >= _WIDE else [])])


def _number(value: float, digits: int) -> str:
    """Write a number with at most `digits` decimals, fewer with more digits before the point."""
    if value and not 10.0**-digits <= abs(value) < 1e5:
        return f"{value:.{max(digits - 3, 0)}e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:.{max(0, digits + 1 - len(str(int(abs(value)))))}f}"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
