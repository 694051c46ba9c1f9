"""Show the progress of a training in a notebook, by a tqdm bar below the cell."""

import sys
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

from gpunn.nn.tasks import in_words
from gpunn.train.record import Record

_EVERY = 0.2  # least seconds between updates of the bar, since each is a message to the browser


def words_of(training: Mapping[str, float], validation: Mapping[str, float]) -> list[str]:
    """Write training and validation metrics in words, without empty ones."""
    words = [in_words(training)] if training else []
    return words + ([f"validation {in_words(validation)}"] if validation else [])


def has_widgets() -> bool:
    """Return whether the code runs in a notebook that can show widgets."""
    shell: Any = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel") and find_spec("ipywidgets") is not None


class NotebookProgress:
    """Show epoch, metrics, speed and time left as a bar of the whole training; messages go to standard error.

    Raises:
        ImportError: The widgets of tqdm are missing.
    """

    shown = True

    def __init__(self, epochs: int, samples: int) -> None:
        from tqdm.notebook import tqdm

        self.epochs, self.samples = epochs, samples
        # As a widget the bar writes nothing to standard output.
        self._bar: Any = tqdm(total=epochs * samples, unit=" samples", unit_scale=True)
        self._validation: dict[str, float] = {}
        self._written = 0.0
        self._at: int | None = None  # samples done; None before the first epoch

    def start_epoch(self, epoch: int, before: int = 0) -> None:
        """Begin an epoch, counted from 0, or the rest of it after the first `before` samples."""
        if self._at is None:
            self._bar.initial = self._bar.n = epoch * self.samples + before
        self._at = epoch * self.samples + before
        self._bar.set_description_str(f"epoch {epoch + 1}/{self.epochs}", refresh=False)

    def step(self, n: int, figures: Callable[[], Mapping[str, float]]) -> None:
        """Add n samples to the bar; `figures` returns the training metrics, and is called only to show them."""
        self._at = (self._at or 0) + n
        if time.perf_counter() - self._written >= _EVERY:
            self._write(figures())

    def look(self, record: Record) -> None:
        """Show the validation metrics of a record from now on."""
        self._validation = record.figures("validation") | record.metrics

    def end_epoch(self, record: Record | None) -> None:
        """End the epoch, with its last record."""
        self._write({} if record is None else record.figures("train"))

    def say(self, text: str) -> None:
        """Write a message."""
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    def close(self) -> None:
        """Close the bar, and leave it in the notebook."""
        self._bar.close()

    def _write(self, training: Mapping[str, float]) -> None:
        self._bar.set_postfix_str(", ".join(words_of(training, self._validation)), refresh=False)
        self._bar.n = self._at
        self._bar.refresh()
        self._written = time.perf_counter()
