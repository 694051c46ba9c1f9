"""Write the results of a run; `metrics.json` comes last."""

import json
import re
from pathlib import Path
from typing import Any

from gpunn.data import Samples
from gpunn.data.class_weights import class_weights
from gpunn.data.tables import RECONSTRUCTION
from gpunn.errors import DataError, DivergenceError, OptionError, ShapeError, in_one_line
from gpunn.experiments.conclusions import conclude
from gpunn.experiments.experiment import Experiment
from gpunn.experiments.fine_tuning import describe_start
from gpunn.experiments.folder import HISTORY, METRICS, MODEL
from gpunn.experiments.report import REPORT, FinalEvaluation, data_in_words, write_report
from gpunn.files import write_atomically
from gpunn.nn.summary import summary
from gpunn.reports.filters import draw_network
from gpunn.reports.predictions import draw_answers
from gpunn.reports.reconstructions import RECONSTRUCTIONS, draw_reconstructions
from gpunn.saving.checkpointer import Say
from gpunn.saving.model_file import save_model
from gpunn.saving.origin import LIBRARIES
from gpunn.train.curves import CURVES, plot_curves
from gpunn.train.evaluator import evaluate
from gpunn.train.report import ClassificationReport, Report, report_on
from gpunn.train.trainer import Trainer

_SHOWN = 12  # classes whose weights are shown


def introduce(experiment: Experiment, trainer: Trainer, folder: Path, say: Say) -> None:
    """Show device, data, network and run folder before the training."""
    backend = trainer.backend
    say(f"device      {backend.description} ({backend.reason})")
    say(f"data        {data_in_words(trainer.data)}")
    if trainer.data.source_note:
        say(f"images      {trainer.data.source_note}")
    if line := _weights(trainer):
        say(f"weights     {line}")
    for line in describe_start(experiment):
        say(line)
    if trainer.placement:
        say(f"data on     {trainer.placement}")
    say(f"run folder  {folder}\n\n{summary(trainer.model)}\n")
    if trainer.done:
        say(f"resumed     from step {trainer.done}, epoch {trainer.done / trainer.step.steps_per_epoch:.4g}")


def _weights(trainer: Trainer) -> str:
    """Describe the weights of samples and classes; "" if there are none."""
    given, train, names = trainer.options.class_weight, trainer.data.train, trainer.data.class_names
    said = [] if train.weights is None else ["samples by their weights"]
    if given is not None:
        weights = class_weights(given, train, names)
        counted = ", ".join(f"{name} {weight:.4g}" for name, weight in zip(names[:_SHOWN], weights, strict=False))
        said.append(f"classes {counted}{', …' if len(names) > _SHOWN else ''}")
    return "; ".join(said)


def _write_training(folder: Path, experiment: Experiment, trainer: Trainer) -> None:
    """Write network, history and curves of a training, finished or not; the network first, since it costs most."""
    save_model(trainer.model, folder / MODEL)
    trainer.history.write_csv(folder / HISTORY)
    plot_curves(trainer.history, folder / CURVES, title=f"{experiment.name} on {trainer.data.name}")


def write_stopped(folder: Path, experiment: Experiment, trainer: Trainer, error: BaseException, say: Say) -> None:
    """Write the results so far of a training that an error has ended."""
    if isinstance(error, DivergenceError):
        stopped = str(error)
    elif isinstance(error, KeyboardInterrupt):
        stopped, trainer.kept = "interrupted", trainer.done
    else:
        stopped = f"{type(error).__name__}: {error}"
        trainer.restore_weights(trainer.monitor.last)
    _write_training(folder, experiment, trainer)
    _write_metrics(folder, experiment, trainer, None, stopped, kept_step=trainer.kept)
    kept = f"step {trainer.kept}" if trainer.kept else "the start"
    say(f"stopped: the weights of {kept}, history.csv and curves.png are in {folder}")


def write_results(folder: Path, experiment: Experiment, trainer: Trainer, say: Say) -> list[Path]:
    """Write the results, and open the test set, for the only time; return the pictures."""
    _write_training(folder, experiment, trainer)
    data, pictures, title = trainer.data, [CURVES], f"{experiment.name} on {trainer.data.name}"
    try:
        measured = _evaluate(trainer, say)
    except (DataError, ShapeError) as error:
        _write_metrics(folder, experiment, trainer, None, str(error))
        raise type(error)(f"{error}; the trained network is kept in {folder}") from None
    report = measured.report if measured else None
    if measured:
        samples, named = measured.samples, f"{title}, {measured.part}"
        if isinstance(report, ClassificationReport):
            pictures += draw_answers(folder, samples, report, data.class_names, named)
        if experiment.data.task == RECONSTRUCTION:
            draw_reconstructions(trainer.model, samples, folder / RECONSTRUCTIONS, title=named)
            pictures.append(RECONSTRUCTIONS)
    pictures += draw_network(folder, trainer.model, data, title)
    conclusions = list(conclude(trainer, measured))
    write_report(folder, experiment, trainer, measured, conclusions, pictures)
    _write_metrics(folder, experiment, trainer, measured, trainer.history.stopped, finished=True)
    for label, text in conclusions:
        say(f"{label:<14} {text}" if label else text)
    say(f"report         {folder / REPORT}")
    say(f"pictures       {', '.join(str(folder / name) for name in pictures)}")
    return [folder / name for name in pictures]


def _evaluate(trainer: Trainer, say: Say) -> FinalEvaluation | None:
    """Evaluate the network on the test set, or on the validation set if there is no test set."""
    data, model = trainer.data, trainer.model
    tested = data.test
    samples, part = (data.validation, "validation set") if tested is None else (tested, "test set")
    if samples is None:
        return None
    evaluation = evaluate(model, samples)
    try:
        return FinalEvaluation(part, samples, evaluation, _report(trainer, samples, say))
    except MemoryError as error:  # network and accuracy are worth more than the metrics that do not fit
        say(f"no metrics beside those of the loss: {error}")
        return FinalEvaluation(part, samples, evaluation, None)


def _report(trainer: Trainer, samples: Samples, say: Say) -> Report:
    """Compute the report of all metrics, with the run's own ones unless they fail."""
    if metrics := trainer.options.metrics:
        try:
            return report_on(trainer.model, samples, metrics=metrics)
        except (OptionError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            # An error in your own code must not cost the other results.
            say(f"metrics of the run could not be measured: {type(error).__name__}: {in_one_line(str(error))}")
    return report_on(trainer.model, samples)


def _write_metrics(
    folder: Path, experiment: Experiment, trainer: Trainer, measured: FinalEvaluation | None, stopped: str, **more: Any
) -> None:
    history, data = trainer.history, trainer.data
    is_tested = measured is not None and measured.part == "test set"
    result = measured.evaluation if measured and is_tested else None
    report = measured.report.to_dict() if measured and measured.report else None
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
        "parameters": trainer.model.parameters.size,
        **{name: getattr(last, name) if last else None for name in seen},
        **({"metrics": last.metrics} if last and last.metrics else {}),
        **{key: record and {name: getattr(record, name) for name in columns} for key, record in marks.items()},
        "skipped_batches": history.skipped,
        "stopped": stopped,
        "finished": False,
        **more,
        "test": report if is_tested else None,
        "validation": None if is_tested else report,
    }
    finite = json.loads(json.dumps(metrics), parse_constant=lambda _: None)  # JSON knows no NaN
    text = json.dumps(finite, indent=2, allow_nan=False, ensure_ascii=False)
    # A list of numbers, such as a row of the confusion matrix, on one line; texts have no line breaks.
    text = re.sub(
        r"\[\n[^\[\]{}\"]*\]", lambda found: " ".join(found[0].split()).replace("[ ", "[").replace(" ]", "]"), text
    )
    write_atomically(folder / METRICS, (text + "\n").encode())
