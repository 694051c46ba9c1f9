"""Keep the study of Optuna in a folder shared by several workers, any of which may be killed."""

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
_SIGN = ".worker-{}"  # file that a worker keeps locked
_STARTUP = 5  # trials never pruned: the median of fewer says little
_PATIENCE = 60.0  # seconds to wait for another worker to open the folder


def require_optuna() -> Any:
    """Import Optuna, quietly; raise OptionError if it is missing."""
    try:
        import optuna
    except ImportError:
        mend = "pip install 'gpunn[search]'"
        raise OptionError(f"a search needs Optuna, which is not installed: {mend}") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


class Study:
    """Start, end and count the trials of a search, shared by workers; use it within `open_study`.

    A trial has a unique number. Its choices depend on the seed, its number and the trials finished before, so a single
    worker is reproducible.
    """

    def __init__(self, study: Any, space: Space, seed: int, folder: Path, worker: str) -> None:
        self._study, self._space, self._seed, self._folder, self._worker = study, space, seed, folder, worker
        self._states = require_optuna().trial.TrialState

    def ask(self) -> tuple[Any, dict[str, Any]]:
        """Start a trial, and return it with its values."""
        optuna = require_optuna()
        trial = self._study.ask()
        trial.set_user_attr(_WORKER, self._worker)
        words = f"{self._seed} {trial.number}".encode()
        self._study.sampler = optuna.samplers.TPESampler(seed=int.from_bytes(sha256(words).digest()[:4], "big"))
        return trial, self._space.suggest(trial)

    def complete(self, trial: Any, value: float) -> None:
        """End a trial with its metric."""
        self._study.tell(trial, value)

    def prune(self, trial: Any) -> None:
        """End a trial early; its last reported metric counts as its result."""
        self._study.tell(trial, state=self._states.PRUNED)

    def fail(self, trial: Any, error: str) -> None:
        """End a trial with the error of its training."""
        trial.set_user_attr(ERROR, error)
        self._study.tell(trial, state=self._states.FAIL)

    def give_back(self, trial: Any) -> None:
        """Queue an interrupted trial again."""
        self._requeue(self._study.trials[trial.number])

    def trials(self) -> list[Any]:
        """Return all trials but the interrupted ones, by number."""
        return [each for each in self._study.trials if each.state != self._states.FAIL or ERROR in each.user_attrs]

    def count(self) -> int:
        """Count the finished and the running trials."""
        return sum(each.state != self._states.WAITING for each in self.trials())

    def best(self) -> Any:
        """Return the best complete trial, or None."""
        try:
            return self._study.best_trial
        except ValueError:
            return None

    def importances(self) -> dict[str, float]:
        """Estimate the importance of each value for the metric; empty for too few trials."""
        optuna = require_optuna()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found: dict[str, float] = optuna.importance.get_param_importances(self._study)
            except (RuntimeError, ValueError, ImportError):
                return {}
        return found

    def _requeue(self, trial: Any) -> None:
        self._study.tell(trial.number, state=self._states.FAIL)
        self._study.enqueue_trial(trial.params, user_attrs={_AGAIN: trial.number})

    def begin(self) -> None:
        """Queue the first trial given in the file, and again the trials of killed workers."""
        if not self._study.trials and (first := self._space.first()):
            self._study.enqueue_trial(first)
        for trial in self._study.get_trials(states=(self._states.RUNNING,)):
            if self._is_lost(trial):
                self._requeue(trial)

    def _is_lost(self, trial: Any) -> bool:
        worker = trial.user_attrs.get(_WORKER)
        if worker is None:  # not signed yet: lost only if no other worker is alive
            signs = (path for path in self._folder.glob(_SIGN.format("*")) if path != _sign(self._folder, self._worker))
            return all(_has_ended(path) for path in signs)
        if worker.split(":")[0] != socket.gethostname():
            return False  # a worker on another machine cannot be checked here
        return _has_ended(_sign(self._folder, worker))


def _has_ended(sign: Path) -> bool:
    """Return whether a worker has ended, and remove its file if so."""
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
    """Open or create the study of a folder, as one of its workers.

    Args:
        folder: Existing folder of the search.
        url: Database such as postgresql+psycopg://user@host/name; None for a journal file in the folder.
        space: Search space.
        part: Settings of the search.
        what: Identity of the search; a study with another one is refused.
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
        # Optuna locks it by a link, also on network file systems; that of a killed worker expires after 30 seconds.
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
def _alone(folder: Path) -> Iterator[None]:
    """Lock the folder against other workers that open it; wait while one does."""
    until = time.monotonic() + _PATIENCE
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
