"""What a person sees while a network learns: a bar where output is a terminal, else one line an epoch."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from gpunn.history import Record


class Progress:
    """Shows how far a training is.

    Args:
        epochs: of the whole training.
        steps: of an epoch.
        samples: of an epoch.
        shown: whether anything is shown.
        stream: where to; left out, standard error.
    """

    def __init__(self, epochs: int, steps: int, samples: int, shown: bool = True, stream: TextIO | None = None) -> None:
        self.epochs, self.steps, self.samples = epochs, steps, samples
        self.stream = stream or sys.stderr
        self.shown = shown and self.stream is not None  # a program without a console may have none
        self.is_terminal = self.shown and self.stream.isatty()
        self._bar: Any = None
        self._began = time.perf_counter()
        self._done = 0

    def start_epoch(self, epoch: int, before: int = 0) -> None:
        """An epoch begins, counted from 0, or what is left of it after the first `before` samples."""
        self._epoch, self._epoch_began, self._before = epoch, time.perf_counter(), before
        if self.shown and self.is_terminal:
            from tqdm import tqdm

            # Seen no more than ten times a second: reading the cost waits for the device.
            self._bar = tqdm(
                total=self.samples,
                initial=before,
                desc=f"epoch {epoch + 1}/{self.epochs}",
                unit=" samples",
                unit_scale=True,
                mininterval=0.1,
                file=self.stream,
                leave=True,
                dynamic_ncols=True,
            )

    def step(self, n: int, figures: Callable[[], tuple[float, float]]) -> None:
        """n more samples are done.

        Args:
            n: samples of the step.
            figures: gives mean cost and accuracy so far; called only when they are shown.
        """
        if self._bar is not None and self._bar.update(n):
            cost, accuracy = figures()
            self._bar.set_postfix_str(_figures("cost", cost, accuracy), refresh=False)

    def end_epoch(self, record: Record | None) -> None:
        """The epoch is over; `record` is the last look at the network."""
        self._done += self.samples - self._before
        if not self.shown:
            return
        text = ""
        if record is not None:
            text = _figures("cost", record.train_loss, record.train_accuracy)
            if record.validation_loss == record.validation_loss:
                text += ", " + _figures("validation", record.validation_loss, record.validation_accuracy)
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=True)
            self._bar.close()
            self._bar = None
            return
        now = time.perf_counter()
        speed = (self.samples - self._before) / max(now - self._epoch_began, 1e-9)
        left = (now - self._began) / self._done * self.samples * (self.epochs - self._epoch - 1)
        self.say(f"epoch {self._epoch + 1}/{self.epochs}: {text}, {speed:,.0f} samples/s, {_duration(left)} left")

    def say(self, text: str) -> None:
        """One line that stays."""
        if not self.shown:
            return
        if self._bar is not None:
            self._bar.write(text, file=self.stream)
        else:
            print(text, file=self.stream, flush=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _figures(name: str, cost: float, accuracy: float) -> str:
    right = "" if accuracy != accuracy else f" ({accuracy:.2%})"
    return f"{name} {cost:.4f}{right}"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
