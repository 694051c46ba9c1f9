"""The folder of a run: what is in it, and that one run at a time is."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

from gpunn.backend.limits import size
from gpunn.errors import OutputError
from gpunn.reports.pictures import ACTIVATIONS, CONFUSION, CURVES, FILTERS, MISTAKES
from gpunn.train.trainer import Trainer

EXPERIMENT, HISTORY, METRICS, MODEL = "experiment.toml", "history.csv", "metrics.json", "model.safetensors"
FILES = (EXPERIMENT, HISTORY, METRICS, MODEL, CURVES, CONFUSION, MISTAKES, FILTERS, ACTIVATIONS)
PROFILE, PROFILE_PICTURE = "profile.json", "profile.png"  # only where they are asked for
CHECKPOINTS, LOCK = "checkpoints", ".lock"

# What a run writes besides its network: five pictures and some text.
_ROOM = 2 << 20


@contextlib.contextmanager
def new_folder(out: str | os.PathLike[str] | None, stem: str, note: Callable[[str], None]) -> Iterator[Path]:
    """A folder for a new run, locked; where nothing is written to it, nothing stays.

    Args:
        out: where; what is there must be a folder, and empty. None for the next free runs/<stem>-<n>.
        stem: of the name.
        note: see `locked`.

    Raises:
        OutputError: it holds a run or anything else, is in use, or cannot be made.
    """
    folder = _made(out, stem)
    if not holds_run(folder):
        _check_empty(folder)  # before a lock is made in a folder that is somebody else's
    with locked(folder, note):
        try:
            if holds_run(folder):
                raise OutputError(
                    f"{folder} already holds a run: go on with it by --resume {folder}, give another folder by --out, "
                    "or remove this one"
                )
            _check_empty(folder)
            yield folder
        except BaseException:
            _remove_empty(folder)
            raise


def holds_run(folder: Path) -> bool:
    """Whether a folder is that of a run: what a run writes first is there."""
    with contextlib.suppress(OSError):
        return (folder / EXPERIMENT).is_file() or (folder / CHECKPOINTS).is_dir()
    return False


def _check_empty(folder: Path) -> None:
    """Raise OutputError where a folder holds what no run has left."""
    try:
        there = sorted(path.name for path in folder.iterdir() if path.name != LOCK)
    except OSError as error:
        raise OutputError(f"cannot read {folder}: {error.strerror or error}: give another folder by --out") from None
    if there:
        more = f" and {len(there) - 1:,} more" if len(there) > 1 else ""
        raise OutputError(
            f"{folder} is no run and not empty: it holds {there[0]}{more}: give a new or an empty folder by --out, "
            f"such as {folder / 'run'}"
        )


def _made(out: str | os.PathLike[str] | None, stem: str) -> Path:
    stem = re.sub(r"[^\w.-]+", "_", stem)
    folder = Path("runs" if out is None else out)
    try:
        if out is not None:
            folder.mkdir(parents=True, exist_ok=True)
            return folder
        folder.mkdir(exist_ok=True)
        for number in count(1):
            with contextlib.suppress(FileExistsError):
                numbered = folder / f"{stem}-{number}"
                numbered.mkdir()
                return numbered
    except OSError as error:
        reason: object = error.strerror or error
        if isinstance(error, FileExistsError | NotADirectoryError):
            is_link = any(path.is_symlink() and not path.exists() for path in (folder, *folder.parents))
            reason = "there is a link of that name that leads nowhere" if is_link else "there is a file of that name"
        raise OutputError(f"cannot make the run folder {folder}: {reason}: give another folder by --out") from None
    raise AssertionError("there is always a next number")


@contextlib.contextmanager
def locked(folder: Path, note: Callable[[str], None]) -> Iterator[None]:
    """Keep other runs out of a folder; the system forgets the lock when the process ends, however it ends.

    Args:
        folder: of the run.
        note: is told where the file system knows no locks.

    Raises:
        OutputError: another run has it.
    """
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise OutputError(
            f"cannot write to {folder}: {error.strerror or error}: give another folder by --out"
        ) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(
                f"another gpunn train is at work in {folder}: wait for it, or give another folder by --out"
            ) from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
                raise OutputError(f"cannot lock {folder}: {error.strerror or error}") from None
            note(f"the file system of {folder} knows no locks: nothing keeps a second run out of it")
        yield
    finally:
        os.close(descriptor)


def check_room(folder: Path, trainer: Trainer, checkpoints: int) -> None:
    """A disk that is too full for the results is better found now than after the training.

    Args:
        folder: of the run.
        trainer: whose network will be written.
        checkpoints: how many are kept; while one is written there is one more.

    Raises:
        OutputError: there is no room.
    """
    network = trainer.model.parameters.values.nbytes
    checkpoint = network * (3 + len(trainer.optimizer.state))
    needed = network + (checkpoints + 1) * checkpoint + _ROOM
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(f"{folder} has {size(free)} free, the results take about {size(needed)}")


def _remove_empty(folder: Path) -> None:
    """Leave nothing behind of a run that did not begin; folders that hold anything stay."""
    with contextlib.suppress(OSError):
        if [path.name for path in folder.iterdir()] == [LOCK]:
            (folder / LOCK).unlink()
        folder.rmdir()
        if folder.parent == Path("runs"):
            folder.parent.rmdir()
