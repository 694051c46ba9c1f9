"""Going on with a run: its newest whole checkpoint, compared with what is there now, and the training restored."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from gpunn.data import Data, Samples
from gpunn.errors import CheckpointError, OptionError
from gpunn.experiments.experiment import Experiment
from gpunn.experiments.folder import CHECKPOINTS, EXPERIMENT, METRICS, holds_run
from gpunn.experiments.recipes import parse_experiment, read_experiment
from gpunn.files import open_regular, remove_folder, remove_leftovers
from gpunn.saving.checkpoint import Checkpoint, Origin, open_checkpoint
from gpunn.saving.checkpointer import listed, newest
from gpunn.train.trainer import Trainer
from gpunn.version import __version__

# What may differ between a run and what goes on with it. Of the data it is their fingerprint that is compared.
_FREE = {"version", "description", "checkpoints", "data.source", "data.shape", "data.sha256"}
_FREE |= {f"training.{name}" for name in ("epochs", "device", "data_on", "skip_bad_batches")}
_MOST_METRICS = 1 << 20


def located(run: str) -> tuple[Path, Path | None]:
    """The folder of a run, and the checkpoint in it that was named, if one was.

    Raises:
        CheckpointError: there is no such folder.
    """
    path = Path(run)
    named: Path | None
    if not path.is_dir():
        raise CheckpointError(f"there is no run folder {path}: give one that gpunn train has made")
    if path.absolute().parent.name == CHECKPOINTS:
        path, named = path.parent.parent, path
    else:
        named = None
    if not holds_run(path):  # before anything is written there or removed: it is somebody else's
        raise CheckpointError(f"{path} holds no run to go on with: neither checkpoints nor {EXPERIMENT}")
    return path, named


def restored(
    folder: Path, named: Path | None, changes: Mapping[str, Any], note: Callable[[str], None], *, progress: bool
) -> tuple[Experiment, Trainer]:
    """The training of a run as it was at a checkpoint, ready to go on, and its experiment.

    Args:
        folder: of the run, locked.
        named: a checkpoint of it; None for the newest that is whole.
        changes: for `Experiment.with_options`: epochs, device, data, and what else may be changed.
        note: is told what a person should know.
        progress: whether the training shows how far it is.

    Raises:
        CheckpointError: nothing to go on from, or another experiment or other data, with the difference.
        GpunnError: what the experiment needs is not there.
    """
    if (folder / CHECKPOINTS).is_symlink():
        raise CheckpointError(f"{folder / CHECKPOINTS} is a link: what is removed and written there must be of the run")
    remove_leftovers(folder)
    if (folder / CHECKPOINTS).is_dir():
        remove_leftovers(folder / CHECKPOINTS)
    others = {name: value for name, value in changes.items() if name != "learning_rate"}
    rate = changes.get("learning_rate")
    most = None if rate is None else diverged_from(str(folder))
    checkpoint = newest(folder / CHECKPOINTS, note, most) if named is None else open_checkpoint(named)
    written = folder / EXPERIMENT
    if checkpoint is None and not written.is_file():
        raise CheckpointError(f"{folder} holds no checkpoint and no {EXPERIMENT}: there is nothing to go on with")
    made = None if checkpoint is None else _experiment(checkpoint)
    asked = (read_experiment(str(written)) if made is None or written.is_file() else made).with_options(**others)
    if rate is not None:
        asked = asked.with_changed_rate(rate, 0.0 if made is None else _epoch(checkpoint, made))
    _check_unfinished(folder, made, asked)
    if checkpoint is None or made is None:
        # What a run does is a function of its experiment: from the start it is the same.
        trainer = asked.trainer(asked.load_data(), progress=progress)
        note(f"{folder} has no checkpoint yet: it begins again")
        return asked.resolved(trainer), trainer
    if difference := _first(_experiments_differ(_with_later_rate(made, asked, checkpoint), asked)):
        raise CheckpointError(f"{checkpoint.path} is of another experiment than {written}: {difference}")
    # Compared here, with a difference that can be shown, and not by the loader.
    data = replace(asked, data=replace(asked.data, sha256="")).load_data()
    if difference := _first(_data_differ(checkpoint.origin.data, fingerprint(data))):
        raise CheckpointError(f"{asked.data.source} does not hold the data of {checkpoint.path}: {difference}")
    trainer = asked.trainer(data, progress=progress)
    state = checkpoint.state(trainer.state())
    total = trainer.steps
    if state.now.step > total:
        raise OptionError(f"{checkpoint.path} is past {trainer.epochs} epochs ({total} steps): give more epochs")
    trainer.restore(state)
    if trainer.regularizer and (before := [record.step for record in state.records if math.isnan(record.penalty)]):
        note(
            f"an earlier version recorded the training loss with λR in it, up to step {before[-1]}; from here on apart"
        )
    for line in _other_versions(checkpoint.origin.versions, versions(trainer)):
        note(f"not the same to the last bit: {line}")
    _forget_what_came_after(folder, checkpoint, note)
    return asked.resolved(trainer), trainer


def origin_of(experiment: Experiment, trainer: Trainer) -> Origin:
    """What a run is made of, to be written beside its states."""
    return Origin(experiment.to_toml(), fingerprint(trainer.data, experiment.data.sha256), versions(trainer))


def fingerprint(data: Data, sha256: str = "") -> dict[str, Any]:
    """Number, shape and SHA-256 of what a training sees; that of the training samples where it is not known yet."""

    def of(samples: Samples | None, known: str = "") -> dict[str, Any] | None:
        if samples is None:
            return None
        return {"samples": len(samples), "shape": list(samples.shape), "sha256": known or samples.sha256()}

    return {"train": of(data.train, sha256), "validation": of(data.validation)}


def versions(trainer: Trainer) -> dict[str, str]:
    """What the last bits of a training depend on."""
    backend = trainer.model.backend
    assert backend is not None
    return {
        "gpunn": __version__,
        "python": ".".join(map(str, sys.version_info[:3])),
        "numpy": np.__version__,
        "device": backend.description,
    }


def _experiment(checkpoint: Checkpoint) -> Experiment:
    try:
        return parse_experiment(checkpoint.origin.experiment, f"the experiment of {checkpoint.path}")
    except OptionError as error:
        raise CheckpointError(str(error)) from None


def diverged_from(run: str) -> int | None:
    """The last good step of a run that has diverged; None of any other."""
    path = Path(run)
    metrics = _metrics(path.parent.parent if path.absolute().parent.name == CHECKPOINTS else path)
    if not str(metrics.get("stopped")).startswith("training diverged"):
        return None
    good = metrics.get("kept_step", metrics.get("steps"))
    return good if type(good) is int else 0


def _epoch(checkpoint: Checkpoint | None, made: Experiment) -> float:
    """The epoch at which a checkpoint was written, to the bits that a schedule is given for its next step."""
    if checkpoint is None:
        return 0.0
    steps = -(-checkpoint.origin.data["train"]["samples"] // made.training.batch_size)
    epoch, number = divmod(checkpoint.step, steps)
    return float(epoch + number / steps)


def _with_later_rate(made: Experiment, asked: Experiment, checkpoint: Checkpoint) -> Experiment:
    """The experiment of a checkpoint, its learning rate changed as it is asked for, if only after the checkpoint."""
    rate, now = made.optimizer.get("learning_rate"), asked.optimizer.get("learning_rate")
    while isinstance(now, dict) and now.get("type") == "Changed" and now != rate:
        if now["before"] == rate and _epoch(checkpoint, made) <= now["at"]:
            return replace(made, optimizer={**made.optimizer, "learning_rate": asked.optimizer["learning_rate"]})
        now = now["before"]
    return made


def _metrics(folder: Path) -> dict[str, Any]:
    """What a run has written of itself, {} where it has not."""
    try:
        with open_regular(folder / METRICS, follow_links=False) as file:
            metrics = json.loads(file.read(_MOST_METRICS))
    except (OSError, ValueError, RecursionError):
        return {}
    return metrics if isinstance(metrics, dict) else {}


def _check_unfinished(folder: Path, made: Experiment | None, asked: Experiment) -> None:
    """Raise CheckpointError where the results of the run are there and no more epochs are asked for."""
    metrics = _metrics(folder)
    if metrics.get("finished") is not True:
        return
    if metrics.get("stopped"):
        raise CheckpointError(f"{folder} is finished, it stopped early: there is nothing to go on with")
    if made is not None and asked.training.epochs <= made.training.epochs:
        raise CheckpointError(f"{folder} is finished: give more epochs than {made.training.epochs} by --epochs")


def _experiments_differ(made: Experiment, asked: Experiment) -> Iterator[str]:
    for key, was, now in _differences(asdict(made), asdict(asked)):
        if not any(key == free or key.startswith(f"{free}.") for free in _FREE):
            yield f"{key} was {_shown(was)}, is {_shown(now)}"


def _data_differ(was: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    for key, before, after in _differences(was, now):
        yield f"{key} was {_shown(before)}, is {_shown(after)}"


def _other_versions(was: dict[str, str], now: dict[str, str]) -> Iterator[str]:
    for key, before, after in _differences(was, now):
        yield f"{key} was {_shown(before)}, is {_shown(after)}"


def _differences(was: Any, now: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Where two trees of tables and lists differ, and what stands there in each."""
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*was, *now]):
            yield from _differences(was.get(key), now.get(key), f"{where}.{key}" if where else key)
    elif isinstance(was, list | tuple) and isinstance(now, list | tuple) and len(was) == len(now):
        for number, (before, after) in enumerate(zip(was, now, strict=True), start=1):
            yield from _differences(before, after, f"{where}[{number}]")
    elif was != now:
        yield where, was, now


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
        return f"{len(value)} of {', '.join(str(item.get('type')) for item in value)}"[:80]
    text = "none" if value is None else repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def _first(differences: Iterator[str], most: int = 3) -> str:
    """The first few of some differences, as one text."""
    there = list(differences)
    return "; ".join(there[:most]) + (f"; and {len(there) - most} more" if len(there) > most else "")


def _forget_what_came_after(folder: Path, checkpoint: Checkpoint, note: Callable[[str], None]) -> None:
    """Remove newer checkpoints, which were passed over, and what says that the folder is complete."""
    for step, path in listed(folder / CHECKPOINTS):
        if step > checkpoint.step:
            remove_folder(path)
            note(f"{path} is removed: the run goes on from step {checkpoint.step}")
    (folder / METRICS).unlink(missing_ok=True)
