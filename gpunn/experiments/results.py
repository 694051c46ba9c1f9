"""The results of a run: files, of which `metrics.json` comes last, and the lines that it says."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpunn.errors import DataError, DivergenceError, ShapeError
from gpunn.experiments.experiment import LIBRARIES, Experiment
from gpunn.experiments.folder import HISTORY, METRICS, MODEL
from gpunn.files import write_atomically
from gpunn.nn.summary import summary
from gpunn.nn.tasks import in_words, shown
from gpunn.reports.curves import CURVES, plot_curves
from gpunn.reports.filters import draw_network
from gpunn.reports.predictions import CONFUSION, MISTAKES, draw_answers
from gpunn.saving.checkpointer import Say
from gpunn.saving.model_file import save_model
from gpunn.train.evaluator import Evaluation, evaluate
from gpunn.train.trainer import Trainer


def introduce(trainer: Trainer, folder: Path, say: Say) -> None:
    """Say what is trained on what, where, and into which folder."""
    data, train, backend = trainer.data, trainer.data.train, trainer.backend
    shape = " × ".join(map(str, train.shape))
    kind = f"{train.classes} classes" if train.classes else f"{train.targets.shape[1]} float targets"
    count = f"{len(data.validation):,}" if data.validation else "none"
    watched = f"{count} for validation; {'test set closed until the end' if data.has_test else 'no test set'}"
    if data.validation_is_test:
        watched = f"the published test set ({count}) is watched as validation set"
        watched += ", so its accuracy is no measure of unseen data"
    say(f"device      {backend.description} ({backend.reason})")
    say(f"data        {data.name}: {len(train):,} training samples of {shape}, {kind}; {watched}")
    if trainer.placement:
        say(f"data on     {trainer.placement}")
    say(f"run folder  {folder}\n\n{summary(trainer.model)}\n")
    if trainer.done:
        say(f"resumed     from step {trainer.done}, epoch {trainer.done / trainer.step.steps_per_epoch:.4g}")


def _write_training(folder: Path, experiment: Experiment, trainer: Trainer) -> None:
    """Write network, history and curves of a training, whole or not; the network first: it is the dearest."""
    save_model(trainer.model, folder / MODEL)
    trainer.history.write_csv(folder / HISTORY)
    plot_curves(trainer.history, folder / CURVES, title=f"{experiment.name} on {trainer.data.name}")


def write_stopped(folder: Path, experiment: Experiment, trainer: Trainer, error: BaseException, say: Say) -> None:
    """Write what there is of a training that an error has cut off."""
    if isinstance(error, DivergenceError):
        stopped = str(error)
    elif isinstance(error, KeyboardInterrupt):
        stopped, trainer.kept = "interrupted", trainer.done
    else:
        stopped = f"{type(error).__name__}: {error}"
        trainer.put_back(trainer.monitor.last)
    _write_training(folder, experiment, trainer)
    _write_metrics(folder, experiment, trainer, None, stopped, kept_step=trainer.kept)
    kept = f"step {trainer.kept}" if trainer.kept else "the start"
    say(f"stopped: the weights of {kept}, history.csv and curves.png are in {folder}")


def write_results(folder: Path, experiment: Experiment, trainer: Trainer, say: Say) -> None:
    """Write the results, and open the test set: here, once, and nowhere else."""
    _write_training(folder, experiment, trainer)
    data, model = trainer.data, trainer.model
    try:
        tested = data.test
        result = None if tested is None else evaluate(model, tested)
    except (DataError, ShapeError) as error:
        _write_metrics(folder, experiment, trainer, None, str(error))
        raise type(error)(f"{error}; the trained network is kept in {folder}") from None
    pictures = [CURVES]
    drawn, part = (data.validation, "validation set") if tested is None else (tested, "test set")
    if drawn is not None and drawn.classes:
        draw_answers(folder, model, drawn, data.class_names, f"{experiment.name} on {data.name}, {part}")
        pictures += [CONFUSION, MISTAKES]
    pictures += draw_network(folder, model, data, f"{experiment.name} on {data.name}")
    _write_metrics(folder, experiment, trainer, result, trainer.history.stopped, finished=True)
    for line in _conclusions(trainer, result):
        say(line)
    say(f"pictures       {', '.join(str(folder / name) for name in pictures)}")


def _write_metrics(
    folder: Path, experiment: Experiment, trainer: Trainer, result: Evaluation | None, stopped: str, **more: Any
) -> None:
    history, data = trainer.history, trainer.data
    last = history[-1] if len(history) else None
    epochs, seconds = (last.epoch, last.seconds) if last else (0.0, 0.0)
    task = trainer.loss.task(bool(data.train.classes))
    tested = {f"test_{name}": getattr(result, name) if result else None for name in task.figures}
    seen = [f"{part}_{name}" for part in ("train", "validation") for name in task.figures]
    seen += ["penalty"] if trainer.options.regularizer else []
    marks = {"best": history.best, "overfitting_since": history.overfitting_since}
    columns = ("step", "epoch", *(f"validation_{name}" for name in task.figures))
    metrics = {
        **tested,
        "task": task.value,
        "test_was_watched": data.validation_is_test,
        "epochs": int(epochs) if epochs == int(epochs) else epochs,
        "steps": last.step if last else 0,
        "seconds": seconds,
        "samples_per_second": epochs * len(data.train) / seconds if seconds else None,
        "device": trainer.backend.device,
        "device_description": trainer.backend.description,
        "dtype": experiment.training.dtype,
        "seed": experiment.training.seed,
        "version": experiment.version,
        "versions": LIBRARIES,
        "recipe": experiment.name,
        "data": data.name,
        "training_samples": len(data.train),
        "validation_samples": len(data.validation) if data.validation else 0,
        "parameters": int(trainer.model.parameters.values.size),
        **{name: getattr(last, name) if last else None for name in seen},
        **{key: record and {name: getattr(record, name) for name in columns} for key, record in marks.items()},
        "skipped_batches": history.skipped,
        "stopped": stopped,
        "finished": False,
        **more,
    }
    finite = json.loads(json.dumps(metrics), parse_constant=lambda _: None)  # JSON knows no NaN
    text = json.dumps(finite, indent=2, allow_nan=False, ensure_ascii=False)
    write_atomically(folder / METRICS, (text + "\n").encode())


def _conclusions(trainer: Trainer, result: Evaluation | None) -> Iterator[str]:
    """Say what the run has shown, line by line."""
    history, data = trainer.history, trainer.data
    if result is not None:
        note = " (watched while training: no measure of unseen data)" if data.validation_is_test else ""
        if math.isnan(result.accuracy):
            yield f"test set       {result}, {result.total:,} samples{note}"
        else:
            right = f"{result.right:,} of {result.total:,} right"
            yield f"test accuracy  {result.accuracy:.2%}: {right}, {in_words({'loss': result.loss})}{note}"
    best, since, last = history.best, history.overfitting_since, history[-1]
    if best is not None:
        watched, part = ("training", "train") if math.isnan(best.validation_loss) else ("validation", "validation")
        yield f"best epoch     {best.epoch:.4g} (step {best.step}): lowest {watched} {in_words(best.figures(part))}"
    if trainer.options.regularizer is not None:
        penalty = shown("penalty", last.penalty)
        yield f"regularizer    {trainer.options.regularizer!r}: λR {penalty} at the end, contained in no loss above"
    if since is not None:
        yield (
            f"overfitting    (high variance) since step {since.step}, epoch {since.epoch:.4g}: the training loss still "
            "fell, the validation loss rose; more data, a regularizer or fewer epochs help"
        )
    elif data.validation is not None:
        yield "overfitting    none was seen"
    if line := trainer.verdict():
        yield line
    if history.skipped:
        yield f"skipped        {history.skipped} batches that led to NaN or Inf"
    if history.stopped:
        yield f"stopped early  {history.stopped}"
    speed = last.epoch * len(data.train) / last.seconds if last.seconds else 0.0
    yield f"time           {last.seconds:.1f} s for {last.epoch:.4g} epochs, {speed:,.0f} samples/s"
