"""A training as a folder: the experiment, its history, its figures, the network and the pictures.

Every file is written whole or not at all. `experiment.toml` comes first, so a disk that cannot be written is found
before the training and not after it; `metrics.json` comes last, so a folder that has it is complete.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from gpunn import reports
from gpunn.data import Data
from gpunn.errors import DataError, DivergenceError, OutputError, ShapeError
from gpunn.evaluation import Evaluation
from gpunn.experiment import Experiment
from gpunn.history import Record
from gpunn.memory import size
from gpunn.reports.pictures import ACTIVATIONS, CONFUSION, CURVES, FILTERS, MISTAKES, draw_answers, draw_network
from gpunn.storage import write_atomically
from gpunn.training import Trainer

EXPERIMENT, HISTORY, METRICS, MODEL = "experiment.toml", "history.csv", "metrics.json", "model.safetensors"
FILES = (EXPERIMENT, HISTORY, METRICS, MODEL, CURVES, CONFUSION, MISTAKES, FILTERS, ACTIVATIONS)
PROFILE, PROFILE_PICTURE = "profile.json", "profile.png"  # only where they are asked for

# What a run writes besides its network: five pictures and some text.
_ROOM = 2 << 20

Say = Callable[[str], None]


def train(
    experiment: Experiment,
    out: str | os.PathLike[str] | None,
    say: Say,
    *,
    progress: bool = True,
    profiled: bool = False,
) -> Path:
    """Run an experiment and write its run folder.

    Args:
        experiment: what to run.
        out: the folder; None for the next free runs/<data>-<recipe>-<n>.
        say: is given each line that a person should read.
        progress: whether the training shows how far it is.
        profiled: whether to watch some more steps at the end, and to show where their time goes.

    Returns:
        The run folder.

    Raises:
        DivergenceError: the cost left the finite numbers; the folder has the last good weights.
        KeyboardInterrupt: likewise.
        GpunnError: anything else that cannot be; then there is no folder.
    """
    data = experiment.load_data()
    trainer = experiment.trainer(data, progress=progress)
    experiment = experiment.resolved(trainer)
    folder = make_folder(out, f"{data.name}-{experiment.name}")
    try:
        with _mended():
            _check_room(folder, trainer)
            write_atomically(folder / EXPERIMENT, experiment.to_toml().encode())
    except BaseException:
        _remove_empty(folder)
        raise
    _introduce(trainer, folder, say)
    stopped = ""
    try:
        trainer.run()
    except DivergenceError as error:
        stopped = str(error)
        raise
    except BaseException as error:
        stopped = "interrupted" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"
        trainer.put_back(trainer.watch.last)
        raise
    finally:
        if stopped:
            with _mended():
                _write_training(folder, experiment, trainer)
                _write_metrics(folder, _metrics(experiment, trainer, None, stopped))
            say(f"stopped: the weights of {_last(trainer)}, history.csv and curves.png are in {folder}")
    with _mended():
        _finish(folder, experiment, trainer, say)
        if profiled:
            _profile(folder, experiment, trainer, say)
    return folder


def make_folder(out: str | os.PathLike[str] | None, stem: str) -> Path:
    """A folder for a new run.

    Args:
        out: where; it may be there, but must not hold a run. None for the next free runs/<stem>-<n>.
        stem: of the name.

    Raises:
        OutputError: it holds a run, or cannot be made.
    """
    stem = re.sub(r"[^\w.-]+", "_", stem)
    folder = Path("runs" if out is None else out)
    try:
        if out is not None:
            folder.mkdir(parents=True, exist_ok=True)
            if there := [name for name in FILES if (folder / name).exists()]:
                raise OutputError(
                    f"{folder} already holds a run ({there[0]}): give another folder by --out, or remove this one"
                )
            return folder
        folder.mkdir(exist_ok=True)
        for number in count(1):
            with contextlib.suppress(FileExistsError):
                numbered = folder / f"{stem}-{number}"
                numbered.mkdir()
                return numbered
    except OutputError:
        raise
    except OSError as error:
        reason = "there is a file of that name" if isinstance(error, FileExistsError) else error.strerror or error
        raise OutputError(f"cannot make the run folder {folder}: {reason}: give another folder by --out") from None
    raise AssertionError("there is always a next number")


@contextlib.contextmanager
def _mended() -> Iterator[None]:
    """Errors of writing say what to do."""
    try:
        yield
    except OutputError as error:
        raise OutputError(f"{error}: free some space there, or give another folder by --out") from None


def _check_room(folder: Path, trainer: Trainer) -> None:
    """A disk that is too full for the results is better found now than after the training."""
    needed = trainer.model.parameters.values.nbytes + _ROOM
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(f"{folder} has {size(free)} free, the results take about {size(needed)}")


def _remove_empty(folder: Path) -> None:
    """Leave nothing behind of a run that did not begin; folders that hold anything stay."""
    with contextlib.suppress(OSError):
        folder.rmdir()
        if folder.parent == Path("runs"):
            folder.parent.rmdir()


def _introduce(trainer: Trainer, folder: Path, say: Say) -> None:
    data, backend = trainer.data, trainer.model.backend
    assert backend is not None
    train = data.train
    shape = " × ".join(map(str, train.shape))
    kind = f"{train.classes} classes" if train.classes else f"{train.targets.shape[1]} float targets"
    say(f"device      {backend.description} ({backend.reason})")
    say(f"data        {data.name}: {len(train):,} training samples of {shape}, {kind}{_watched(data)}")
    if trainer.placement:
        say(f"data on     {trainer.placement}")
    say(f"run folder  {folder}")
    say("")
    say(trainer.model.summary())
    say("")


def _watched(data: Data) -> str:
    if data.validation_is_test:
        assert data.validation is not None
        return (
            f"; the published test set ({len(data.validation):,}) is watched as validation set, "
            "so its accuracy is no measure of unseen data"
        )
    watched = f"; {len(data.validation):,} for validation" if data.validation else "; none for validation"
    return watched + ("; test set closed until the end" if data.has_test else "; no test set")


def _last(trainer: Trainer) -> str:
    return f"step {trainer.kept}" if trainer.kept else "the start"


def _write_training(folder: Path, experiment: Experiment, trainer: Trainer) -> None:
    """What there is of a training, whole or not. The network first: it is the dearest."""
    trainer.model.save(folder / MODEL)
    trainer.history.write_csv(folder / HISTORY)
    # With a regularizer the training cost may lie above the validation cost, and nobody should wonder why.
    note = f" (training cost with λR, {trainer.regularizer!r})" if trainer.regularizer else ""
    title = f"{experiment.name} on {trainer.data.name}{note}"
    reports.plot_curves(trainer.history, folder / CURVES, title=title)


def _finish(folder: Path, experiment: Experiment, trainer: Trainer, say: Say) -> None:
    """Write the results, and open the test set: here, once, and nowhere else."""
    _write_training(folder, experiment, trainer)
    data, model = trainer.data, trainer.model
    try:
        tested = data.test
        result = None if tested is None else model.evaluate(tested)
    except (DataError, ShapeError) as error:
        _write_metrics(folder, _metrics(experiment, trainer, None, str(error)))
        raise type(error)(f"{error}; the trained network is kept in {folder}") from None
    pictures = [CURVES]
    shown, part = (data.validation, "validation set") if tested is None else (tested, "test set")
    if shown is not None and shown.classes:
        draw_answers(folder, model, shown, data.class_names, f"{experiment.name} on {data.name}, {part}")
        pictures += [CONFUSION, MISTAKES]
    pictures += draw_network(folder, model, data, f"{experiment.name} on {data.name}")
    _write_metrics(folder, _metrics(experiment, trainer, result, trainer.history.stopped))
    for line in _conclusions(trainer, result):
        say(line)
    say(f"pictures       {', '.join(str(folder / name) for name in pictures)}")


def _profile(folder: Path, experiment: Experiment, trainer: Trainer, say: Say) -> None:
    """Write and show where the time of a step goes; after the results, which it must not change."""
    from gpunn.profiling import profile

    profiled = profile(trainer)
    write_atomically(folder / PROFILE, (json.dumps(profiled.to_dict(), indent=2) + "\n").encode())
    title = f"a step of {experiment.name} on {trainer.data.name}"
    reports.plot_profile(profiled, folder / PROFILE_PICTURE, title=title)
    say("")
    say(reports.profile_table(profiled))
    say(f"profile        {folder / PROFILE}, {folder / PROFILE_PICTURE}")


def _metrics(experiment: Experiment, trainer: Trainer, result: Evaluation | None, stopped: str) -> dict[str, Any]:
    history, data = trainer.history, trainer.data
    last = history[-1] if len(history) else None
    epochs = last.epoch if last else 0.0
    seconds = last.seconds if last else 0.0
    return {
        "test_accuracy": result.accuracy if result else None,
        "test_loss": result.loss if result else None,
        "test_was_watched": data.validation_is_test,
        "epochs": int(epochs) if epochs == int(epochs) else epochs,
        "steps": last.step if last else 0,
        "seconds": seconds,
        "samples_per_second": epochs * len(data.train) / seconds if seconds else None,
        "device": experiment.training.device,
        "device_description": trainer.model.backend.description if trainer.model.backend else "",
        "dtype": experiment.training.dtype,
        "seed": experiment.training.seed,
        "version": experiment.version,
        "versions": {"python": ".".join(map(str, sys.version_info[:3])), "numpy": np.__version__},
        "recipe": experiment.name,
        "data": data.name,
        "training_samples": len(data.train),
        "validation_samples": len(data.validation) if data.validation else 0,
        "parameters": int(trainer.model.parameters.values.size),
        "train_loss": last.train_loss if last else None,
        "train_accuracy": last.train_accuracy if last else None,
        "validation_loss": last.validation_loss if last else None,
        "validation_accuracy": last.validation_accuracy if last else None,
        "best": _figures(history.best),
        "overfitting_since": _figures(history.overfitting_since),
        "stopped": stopped,
    }


def _figures(record: Record | None) -> dict[str, Any] | None:
    if record is None:
        return None
    names = ("step", "epoch", "validation_loss", "validation_accuracy")
    return {name: getattr(record, name) for name in names}


def _write_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    text = json.dumps(_finite(metrics), indent=2, allow_nan=False, ensure_ascii=False)
    write_atomically(folder / METRICS, (text + "\n").encode())


def _finite(value: Any) -> Any:
    """JSON knows no NaN: what there is no figure for is null."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _conclusions(trainer: Trainer, result: Evaluation | None) -> Iterator[str]:
    """What the run has shown, line by line."""
    history, data = trainer.history, trainer.data
    if result is not None:
        note = " (watched while training: no measure of unseen data)" if data.validation_is_test else ""
        if math.isnan(result.accuracy):
            yield f"test cost      {result.loss:.4g}, {result.total:,} samples{note}"
        else:
            right = f"{result.right:,} of {result.total:,} right"
            yield f"test accuracy  {result.accuracy:.2%}: {right}, cost {result.loss:.4f}{note}"
    best, since, last = history.best, history.overfitting_since, history[-1]
    if best is not None:
        trained = math.isnan(best.validation_loss)
        watched, value = ("training", best.train_loss) if trained else ("validation", best.validation_loss)
        accuracy = "" if math.isnan(best.validation_accuracy) else f", accuracy {best.validation_accuracy:.2%}"
        yield f"best epoch     {best.epoch:.4g} (step {best.step}): lowest {watched} cost, {value:.4f}{accuracy}"
    if since is not None:
        yield (
            f"overfitting    (high variance) since step {since.step}, epoch {since.epoch:.4g}: the training cost still "
            "fell, the validation cost rose; more data, a regularizer or fewer epochs help"
        )
    elif data.validation is not None:
        yield "overfitting    none was seen"
    if history.stopped:
        yield f"stopped early  {history.stopped}"
    speed = last.epoch * len(data.train) / last.seconds if last.seconds else 0.0
    yield f"time           {last.seconds:.1f} s for {last.epoch:.4g} epochs, {speed:,.0f} samples/s"
