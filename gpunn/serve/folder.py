"""Read a run folder while it may be training: its state, its history, and its newest network."""

import contextlib
import fcntl
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpunn.errors import DataError, ModelFileError
from gpunn.experiments.experiment import Experiment, read_experiment
from gpunn.experiments.folder import EXPERIMENT, HISTORY, METRICS, MODEL, experiment_file, holds_run, model_file
from gpunn.files import LOCK, open_regular, read_regular
from gpunn.saving.checkpointer import CHECKPOINTS, list_checkpoints
from gpunn.sequential import Sequential, load_model, load_onnx
from gpunn.train.history import History

TRAINING, FINISHED, STOPPED = "training", "finished", "stopped"
_MOST_METRICS = 16 << 20
_ATTEMPTS = 3  # to load a network

Stamp = tuple[int, int, int] | None  # of a file: time of its last change, size, and inode


@dataclass(frozen=True)
class NetworkFile:
    """Path of a network file, and its stamp, which tells it from a newer one."""

    path: Path
    stamp: Stamp


class RunFolder:
    """Read a run folder, or a model file alone.

    The training is another process, known by its files and its lock.
    """

    def __init__(self, run: str) -> None:
        path = Path(run)
        self.folder = path if path.is_dir() else None
        if self.folder is None:
            self.file = model_file(run)
            written = experiment_file(self.file)
        else:
            self.file = path / MODEL
            written = path / EXPERIMENT if (path / EXPERIMENT).is_file() else None
            if not self.file.is_file() and not (holds_run(path) and list_checkpoints(path / CHECKPOINTS)):
                mend = "give a folder that gpunn train has made, or a model file"
                raise ModelFileError(f"{path} holds no network, neither {MODEL} nor checkpoints: {mend}")
        self._written = written

    @property
    def name(self) -> str:
        """Name of the run folder or of the file."""
        return (self.folder or self.file).absolute().name

    def experiment(self) -> Experiment | None:
        """Read the experiment of the run; None if there is none."""
        return None if self._written is None else read_experiment(str(self._written))

    def state(self) -> str:
        """Return TRAINING, FINISHED or STOPPED; a file alone is finished."""
        if self.folder is None:
            return FINISHED
        metrics = self.metrics()
        if metrics.get("finished") is True:
            return FINISHED
        if self._is_locked():
            return TRAINING
        is_run = (self.folder / EXPERIMENT).is_file() or list_checkpoints(self.folder / CHECKPOINTS)
        return STOPPED if is_run else FINISHED

    def _is_locked(self) -> bool:
        """Return whether a training holds the lock of the folder."""
        assert self.folder is not None
        with contextlib.suppress(OSError), open_regular(self.folder / LOCK) as file:
            # Ask the system first: trying the lock would hold it for a moment.
            with contextlib.suppress(OSError):
                number = str(os.fstat(file.fileno()).st_ino)
                rows = [line.split() for line in Path("/proc/locks").read_text("ascii").splitlines()]
                return any(len(row) > 5 and row[1] == "FLOCK" and row[5].split(":")[-1] == number for row in rows)
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def metrics(self) -> dict[str, Any]:
        """Read metrics.json; {} if there is none yet."""
        if self.folder is not None:
            with contextlib.suppress(OSError, ValueError, RecursionError):
                found = json.loads(read_regular(self.folder / METRICS, _MOST_METRICS))
                return found if isinstance(found, dict) else {}
        return {}

    def network(self, state: str) -> NetworkFile:
        """Find the network to serve: the newest checkpoint's during training, else the run's own."""
        if self.folder is None:
            return NetworkFile(self.file, stamp_of(self.file))
        if state == TRAINING or not self.file.is_file():
            for _, path in list_checkpoints(self.folder / CHECKPOINTS):
                if (stamp := stamp_of(path / MODEL)) is not None:
                    return NetworkFile(path / MODEL, stamp)
        return NetworkFile(self.file, stamp_of(self.file))

    def load(self, device: str) -> tuple[NetworkFile, Sequential]:
        """Load the network to serve; if its checkpoint is removed meanwhile, load the next."""
        for attempt in range(1, _ATTEMPTS + 1):
            found = self.network(self.state())
            read = load_onnx if found.path.suffix.lower() == ".onnx" else load_model
            try:
                return found, read(found.path, device)
            except ModelFileError:
                if attempt == _ATTEMPTS or stamp_of(found.path) == found.stamp:
                    raise
        raise AssertionError("unreachable")

    def history_stamp(self) -> Stamp:
        """Return the stamp of history.csv."""
        return None if self.folder is None else stamp_of(self.folder / HISTORY)

    def history(self) -> History:
        """Read the history; an empty one if there is none yet, or if it is damaged."""
        if self.folder is not None and (self.folder / HISTORY).is_file():
            with contextlib.suppress(DataError):
                return History.read_csv(self.folder / HISTORY)
        return History()


def stamp_of(path: Path) -> Stamp:
    """Return the stamp of a file, which differs after every change; None if there is no file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
