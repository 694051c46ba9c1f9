"""A study of Optuna in a folder, which several workers share, and which goes on after any of them was killed."""

import fcntl
import socket
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from gpunn.errors import OptionError, OutputError
from gpunn.experiments.search.space import SearchPart, Space
from gpunn.files import LOCK

JOURNAL = "study.journal"
_SEARCHED, _WORKER, ERROR, _AGAIN = "gpunn_searched", "worker", "error", "again_after"
_SIGN = ".worker-{}"  # a file that its worker holds locked
_STARTUP = 5  # trials that are never ended early: of fewer the median says little


def require_optuna() -> Any:
    """Import Optuna, quietly; raise OptionError where it is missing."""
    try:
        import optuna
    except ImportError:
        mend = "pip install 'gpunn[search]'"
        raise OptionError(f"a search needs Optuna, which is not installed: {mend}") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


class Study:
    """The trials of a search, shared by workers; use it within `open_study`.

    A trial is named by its number, which no other has. What it chooses depends on the seed, its number and the trials
    that have ended before it, so one worker finds the same trials each time.
    """

    def __init__(self, study: Any, space: Space, seed: int, folder: Path, worker: str) -> None:
        self._study, self._space, self._seed, self._folder, self._worker = study, space, seed, folder, worker

    def ask(self) -> tuple[Any, dict[str, Any]]:
        """Begin a trial, and return it with the values that it has chosen."""
        optuna = require_optuna()
        trial = self._study.ask()
        trial.set_user_attr(_WORKER, self._worker)
        words = f"{self._seed} {trial.number}".encode()
        self._study.sampler = optuna.samplers.TPESampler(seed=int.from_bytes(sha256(words).digest()[:4], "big"))
        return trial, self._space.suggest(trial)

    def complete(self, trial: Any, value: float) -> None:
        """End a trial with its figure."""
        self._study.tell(trial, value)

    def prune(self, trial: Any) -> None:
        """End a trial that is not worth going on with: its last figure counts as its result."""
        self._study.tell(trial, state=require_optuna().trial.TrialState.PRUNED)

    def fail(self, trial: Any, error: str) -> None:
        """End a trial whose training is impossible, with the reason."""
        trial.set_user_attr(ERROR, error)
        self._study.tell(trial, state=require_optuna().trial.TrialState.FAIL)

    def give_back(self, trial: Any) -> None:
        """Let a trial that was cut off be done again."""
        self._again(self._study.trials[trial.number])

    def trials(self) -> list[Any]:
        """Return the trials that count, by number: all but those that were cut off."""
        state = require_optuna().trial.TrialState
        return [each for each in self._study.trials if each.state != state.FAIL or ERROR in each.user_attrs]

    def count(self) -> int:
        """Count the trials that have ended or are at work."""
        waiting = require_optuna().trial.TrialState.WAITING
        return sum(each.state != waiting for each in self.trials())

    def best(self) -> Any:
        """Return the best trial that went to its end, or None."""
        try:
            return self._study.best_trial
        except ValueError:
            return None

    def importances(self) -> dict[str, float]:
        """Estimate the share of each value in how different the figures are; empty for too few trials."""
        optuna = require_optuna()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found: dict[str, float] = optuna.importance.get_param_importances(self._study)
            except (RuntimeError, ValueError, ImportError):
                return {}
        return found

    def _again(self, trial: Any) -> None:
        self._study.tell(trial.number, state=require_optuna().trial.TrialState.FAIL)
        self._study.enqueue_trial(trial.params, user_attrs={_AGAIN: trial.number})

    def begin(self) -> None:
        """Let the first trial be the one that the file asks for, and do again those of workers that were killed."""
        state = require_optuna().trial.TrialState
        if not self._study.trials and (first := self._space.first()):
            self._study.enqueue_trial(first)
        for trial in self._study.get_trials(states=(state.RUNNING,)):
            if self._is_lost(trial):
                self._again(trial)

    def _is_lost(self, trial: Any) -> bool:
        worker = trial.user_attrs.get(_WORKER)
        if worker is None:  # cut off before it was signed, or about to be: whoever may be about to has a sign
            signs = (path for path in self._folder.glob(_SIGN.format("*")) if path != _sign(self._folder, self._worker))
            return all(_is_free(path) for path in signs)
        if worker.split(":")[0] != socket.gethostname():
            return False  # of whom nothing can be known here
        return _is_free(_sign(self._folder, worker))


def _is_free(sign: Path) -> bool:
    """Whether a worker is there no more; its sign is then taken away."""
    try:
        with sign.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    sign.unlink(missing_ok=True)
    return True


def _sign(folder: Path, worker: str) -> Path:
    return folder / _SIGN.format(worker.split(":")[-1])


@contextmanager
def open_study(folder: Path, url: str | None, space: Space, part: SearchPart, what: str) -> Iterator[Study]:
    """Open the study of a folder, or begin it, as one of its workers.

    Args:
        folder: Folder of the search, which is there.
        url: A database such as postgresql+psycopg://user@host/name; None for a journal file in the folder.
        space: What is searched.
        part: How it is searched.
        what: Describes the search: another one must not go on in this folder.
    """
    optuna = require_optuna()
    worker = f"{socket.gethostname()}:{uuid.uuid4().hex[:12]}"
    sign = _sign(folder, worker)
    with sign.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            with _alone(folder):
                study = optuna.create_study(
                    storage=_storage(folder, url),
                    study_name=folder.name,
                    direction="minimize" if part.is_low_better else "maximize",
                    pruner=optuna.pruners.MedianPruner(_STARTUP, part.warmup)
                    if part.pruning
                    else optuna.pruners.NopPruner(),
                    load_if_exists=True,
                )
                before = study.user_attrs.get(_SEARCHED)
                if before is None and not study.trials:
                    study.set_user_attr(_SEARCHED, what)
                elif before != what:
                    mend = "give another folder by --out, or go on with the file, the data and the options that it had"
                    raise OptionError(f"{folder} is of another search: {mend}")
                made = Study(study, space, part.seed, folder, worker)
                made.begin()
            yield made
        finally:
            sign.unlink(missing_ok=True)


def _storage(folder: Path, url: str | None) -> Any:
    optuna = require_optuna()
    if url is None:
        # Optuna locks it by a link, also on a network's file system; that of a killed worker goes after 30 seconds.
        return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL)))
    try:
        return optuna.storages.RDBStorage(url)
    except ImportError as error:
        mend = "pip install 'psycopg[binary]' and write postgresql+psycopg://user@host/name"
        raise OptionError(f"--storage {url} needs a package that is not installed ({error}): {mend}") from None
    except Exception as error:  # noqa: BLE001 - of SQLAlchemy and each of its drivers
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        mend = "check address, user and database, or leave --storage out for a journal in the folder"
        raise OptionError(f"--storage {url} cannot be used ({reason:.200}): {mend}") from None


@contextmanager
def _alone(folder: Path, seconds: float = 60.0) -> Iterator[None]:
    """Wait until no other worker begins or ends here, and keep others waiting."""
    until = time.monotonic() + seconds
    with (folder / LOCK).open("wb") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise OutputError(f"another process keeps {folder} locked: end it, or give --out") from None
                time.sleep(0.05)
            except OSError:
                break  # a file system without locks
        yield
