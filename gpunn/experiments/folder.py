"""Make, lock and search a run folder, which one process uses at a time."""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from itertools import count
from pathlib import Path

from gpunn.backend.limits import size
from gpunn.config.outside import allowing
from gpunn.errors import ModelFileError, OutputError
from gpunn.files import LOCK
from gpunn.files import locked as locked_for
from gpunn.saving.checkpoint import BEST
from gpunn.saving.checkpointer import CHECKPOINTS, Say, list_checkpoints
from gpunn.train.trainer import Trainer

EXPERIMENT, HISTORY, METRICS, MODEL = "experiment.toml", "history.csv", "metrics.json", "model.safetensors"
_ROOM = 2 << 20  # bytes written beside the network: five pictures and some text


@contextlib.contextmanager
def new_folder(out: str | os.PathLike[str] | None, stem: str, say: Say) -> Iterator[Path]:
    """Make and lock a folder for a new run, by default the next free runs/<stem>-<n>; remove it if it stays empty."""
    folder = _made(out, stem)
    try:  # before a lock file appears in a folder of something else
        there = [] if holds_run(folder) else sorted(path.name for path in folder.iterdir() if path.name != LOCK)
    except OSError as error:
        raise _unusable("read", folder, error) from None
    if there:
        holds = f"it holds {there[0]}{f' and {len(there) - 1:,} more' if len(there) > 1 else ''}"
        mend = f"give a new or an empty folder by --out, such as {folder / 'run'}"
        raise OutputError(f"{folder} is no run and not empty: {holds}: {mend}")
    with locked(folder, say):
        try:
            if holds_run(folder):
                mend = (
                    f"go on with it by --resume {folder}{allowing()}, give another folder by --out, or remove this one"
                )
                raise OutputError(f"{folder} already holds a run: {mend}")
            yield folder
        except BaseException:
            with contextlib.suppress(OSError):  # the folder is not empty
                if [path.name for path in folder.iterdir()] == [LOCK]:
                    (folder / LOCK).unlink()
                folder.rmdir()
                if folder.parent == Path("runs"):
                    folder.parent.rmdir()
            raise


def holds_run(folder: Path) -> bool:
    """Return whether a folder holds a run, by the files that it writes first."""
    with contextlib.suppress(OSError):
        return (folder / EXPERIMENT).is_file() or (folder / CHECKPOINTS).is_dir()
    return False


def _made(out: str | os.PathLike[str] | None, stem: str) -> Path:
    folder, stem = Path("runs" if out is None else out), re.sub(r"[^\w.-]+", "_", stem)
    try:
        if out is not None:
            folder.mkdir(parents=True, exist_ok=True)
            return folder
        folder.mkdir(exist_ok=True)
        for number in count(1):
            with contextlib.suppress(FileExistsError):
                (numbered := folder / f"{stem}-{number}").mkdir()
                return numbered
    except OSError as error:
        reason = ""
        if isinstance(error, FileExistsError | NotADirectoryError):
            is_link = any(path.is_symlink() and not path.exists() for path in (folder, *folder.parents))
            reason = "there is a link of that name that leads nowhere" if is_link else "there is a file of that name"
        raise _unusable("make the run folder", folder, error, reason) from None
    raise AssertionError("there is always a next number")


def _unusable(verb: str, folder: Path, error: OSError, reason: str = "") -> OutputError:
    return OutputError(f"cannot {verb} {folder}: {reason or error.strerror or error}: give another folder by --out")


def locked(folder: Path, say: Say) -> AbstractContextManager[None]:
    """Lock a folder against other runs; see `files.locked`."""
    return locked_for(folder, say, who="gpunn train", mend="give another folder by --out")


def check_room(folder: Path, trainer: Trainer, checkpoints: int) -> None:
    """Raise OutputError if the disk has no room for the results and the given number of checkpoints."""
    network = trainer.model.parameters.values.nbytes
    checkpoint = network * (3 + len(trainer.optimizer.state))
    needed = network + (checkpoints + 1) * checkpoint + _ROOM  # and one being written
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(f"{folder} has {size(free)} free, the results take about {size(needed)}")


def model_file(run: str) -> Path:
    """Return the path of a run's network, or of a model file; raise ModelFileError if there is none."""
    path = Path(run)
    try:
        if path.is_dir():
            if not (path / MODEL).is_file():
                mend = "give a folder that gpunn train has made"
                if there := list_checkpoints(path / CHECKPOINTS):
                    newest = there[0][1]
                    best = newest / (BEST if (newest / BEST).is_file() or not (newest / MODEL).is_file() else MODEL)
                    mend = f"its training has not ended: gpunn train --resume {path}{allowing()}, or take {best}"
                raise ModelFileError(f"{path} holds no {MODEL}: {mend}")
            return path / MODEL
        if path.exists():
            return path
    except OSError as error:
        raise ModelFileError(f"{path} cannot be looked for ({error.strerror or error}): check the path") from None
    raise ModelFileError(f"there is no run {path}: give a folder that gpunn train has made, or a model file")


def experiment_file(path: Path) -> Path | None:
    """Return the experiment file of the run that a model file belongs to, directly or in a checkpoint, if any.

    A file of any other name may have nothing to do with the experiment beside it.
    """
    folder = path.absolute().parent
    if folder.parent.name == CHECKPOINTS:
        folder = folder.parent.parent
    elif path.name != MODEL:
        return None
    written = folder / EXPERIMENT
    return written if written.is_file() else None
