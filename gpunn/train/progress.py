"""What a person sees while a network learns: one line that is kept up to date on a terminal, else one an epoch."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TextIO

from gpunn.nn.tasks import in_words
from gpunn.train.evaluator import Evaluation
from gpunn.train.record import Record

_EVERY = 0.1
"""Seconds from one change of the line to the next: to read the figures is to wait for the device."""
_LEAST_BAR, _MOST_BAR = 8, 40
_USUAL_WIDTH = 80


class Progress:
    """Shows how far a training is: epoch, figures of training and validation, speed, time left for all epochs.

    On a terminal this is one line, no wider than the terminal: words become shorter and numbers rounder where there is
    less room. A line stays for each epoch. Elsewhere one line is written at the end of each epoch.

    Args:
        epochs: of the whole training.
        steps: of an epoch.
        samples: of an epoch.
        shown: whether anything is shown.
        stream: where to; left out, standard error.
    """

    def __init__(self, epochs: int, steps: int, samples: int, shown: bool = True, stream: TextIO | None = None) -> None:
        self.epochs, self.steps, self.samples = epochs, steps, samples
        stream = stream or sys.stderr
        self.shown = shown and stream is not None  # a program without a console has no streams
        self.stream: TextIO = stream
        self.is_terminal = self.shown and self.stream.isatty()
        self._began: float | None = None
        self._done = 0  # samples since then
        self._validation: dict[str, float] = {}
        self._line = ""  # what stands in the last line of the terminal, and is to be written over
        self._written = 0.0

    def start_epoch(self, epoch: int, before: int = 0) -> None:
        """An epoch begins, counted from 0, or what is left of it after the first `before` samples."""
        self._epoch, self._epoch_began = epoch, time.perf_counter()
        self._began = self._epoch_began if self._began is None else self._began
        self._at = self._before = before

    def step(self, n: int, figures: Callable[[], Evaluation]) -> None:
        """n more samples are done.

        Args:
            n: samples of the step.
            figures: gives the training figures so far; called only when they are shown.
        """
        self._at += n
        self._done += n
        if self.shown and self.is_terminal and time.perf_counter() - self._written >= _EVERY:
            self._write(figures().figures)

    def look(self, record: Record) -> None:
        """The network was looked at: these are the validation figures from now on."""
        self._validation = record.figures("validation")

    def end_epoch(self, record: Record | None) -> None:
        """The epoch is over; `record` is the last look at the network."""
        if not self.shown:
            return
        training = {} if record is None else record.figures("train")
        if self.is_terminal:
            self._write(training)
            self._leave_line()
        else:
            print(next(self._texts(training)), file=self.stream, flush=True)

    def say(self, text: str) -> None:
        """One line that stays."""
        if not self.shown:
            return
        self.stream.write(f"{_over(self._line, text)}\n{self._line}")
        self.stream.flush()

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._leave_line()

    def _write(self, training: Mapping[str, float]) -> None:
        line = fitting(self._texts(training), self._width() - 1, self._at / self.samples)
        self.stream.write(_over(self._line, line))
        self.stream.flush()
        self._line, self._written = line, time.perf_counter()

    def _leave_line(self) -> None:
        if self._line:
            self.stream.write("\n")
            self.stream.flush()
            self._line = ""

    def _width(self) -> int:
        """Columns of the terminal, which may change while it learns."""
        try:
            return os.get_terminal_size(self.stream.fileno()).columns or _USUAL_WIDTH
        except (OSError, ValueError):  # no terminal with a size, such as a stream in memory
            return _USUAL_WIDTH

    def _texts(self, training: Mapping[str, float]) -> Iterator[str]:
        """The line, from the widest to the shortest."""
        now = time.perf_counter()
        speed = (self._at - self._before) / max(now - self._epoch_began, 1e-9)
        to_do = self.samples * (self.epochs - self._epoch) - self._at
        left = _duration((now - (self._began or now)) / max(self._done, 1) * to_do)
        place, validation = f"{self._epoch + 1}/{self.epochs}", self._validation
        words = [in_words(training)] if training else []
        words += [f"validation {in_words(validation)}"] if validation else []
        yield ", ".join([f"epoch {place}: {words[0]}" if words else f"epoch {place}", *words[1:]]) + (
            f", {speed:,.0f} samples/s, {left} left"
        )
        rate = f"{_short(speed)}/s {left} left"
        for head, accuracy, name, digits in (
            ("epoch ", "accuracy ", "validation", 4),
            ("epoch ", "accuracy ", "val", 4),
            ("epoch ", "", "val", 4),
            ("", "", "val", 4),
            ("", "", "val", 3),
            ("", "", "val", 2),
        ):
            parts = [f"{head}{place}"]
            parts += [_compact(training, digits, "loss ", accuracy)] if training else []
            parts += [f"{name} {_compact(validation, digits)}"] if validation else []
            yield " ".join([*parts, rate])


def _over(before: str, text: str) -> str:
    """What writes a text over the line that stands there."""
    return f"\r{text:{len(before)}}" if before else text


def fitting(texts: Iterator[str], width: int, share: float) -> str:
    """The first text that fits a width, and after it a bar of the rest, where there is enough.

    Args:
        texts: from the widest to the shortest.
        width: columns.
        share: of the bar that is full, 0 to 1.
    """
    text = ""
    for text in texts:
        if len(text) <= width:
            break
    bar = min(width - len(text) - 3, _MOST_BAR)
    if bar >= _LEAST_BAR:
        text += f" [{'#' * round(bar * share):{bar}}]"
    return text[:width]


def _compact(figures: Mapping[str, float], digits: int, loss: str = "", accuracy: str = "") -> str:
    """Figures in few columns, "loss 0.0421 98.71%"; without the root mean squared error, which the loss implies."""
    parts = []
    for name, value in figures.items():
        if name == "loss":
            parts.append(f"{loss}{_number(value, digits)}")
        elif name == "accuracy":
            parts.append(f"{accuracy}{value:.{max(digits - 2, 0)}%}")
        elif name == "r2":
            parts.append(f"R² {_number(value, max(digits - 1, 1))}")
    return " ".join(parts)


def _number(value: float, digits: int) -> str:
    """A number of so many digits after the point at most, fewer where there are some before it."""
    if value and not 10.0**-digits <= abs(value) < 1e5:
        return f"{value:.{max(digits - 3, 0)}e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:.{max(0, digits + 1 - len(str(int(abs(value)))))}f}"


def _short(number: float) -> str:
    """A number of three digits: 12.3k."""
    for unit in ("", "k", "M"):
        if number < 999.5:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g}G"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
