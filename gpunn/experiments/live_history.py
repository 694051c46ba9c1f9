"""Write the history of a run during its training, so that another process can follow it."""

import contextlib
import time
from pathlib import Path

from gpunn.errors import OutputError
from gpunn.experiments.folder import HISTORY
from gpunn.files import write_atomically
from gpunn.train.callbacks import Callback, TrainingView
from gpunn.train.record import Record

_SECONDS, _MOST_SHARE = 0.5, 0.02  # least interval of writing, and its greatest share of the training time


class LiveHistory(Callback):
    """Write history.csv soon after each record.

    Nothing depends on the file: a run resumes from checkpoints, which contain the records, and writes the file again at
    its end. So a full disk is no error here, and the training does not wait for the disk.
    """

    first_rank_only = True
    _waits = False

    def __init__(self, folder: Path) -> None:
        self._path, self._is_due, self._next = folder / HISTORY, False, 0.0

    def on_train_begin(self, training: TrainingView) -> None:
        if len(training.history):  # a resumed run: drop records after its checkpoint
            self._write(training)
        else:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)

    def on_record(self, training: TrainingView, record: Record) -> None:
        self._is_due = True

    def on_steps(self, training: TrainingView) -> None:
        if self._is_due and time.monotonic() >= self._next:
            self._write(training)

    def _write(self, training: TrainingView) -> None:
        began = time.monotonic()
        with contextlib.suppress(OutputError):
            write_atomically(self._path, training.history.to_csv(), lasts=False)
        now = time.monotonic()
        self._is_due, self._next = False, now + max(_SECONDS, (now - began) / _MOST_SHARE)
