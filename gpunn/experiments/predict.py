"""Evaluate the network of a run on a data set, and predict from files."""

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gpunn.data import NAMES, Samples, load_data
from gpunn.data.formats.image import image_shape
from gpunn.data.formats.inputs import kind_of_file, read_inputs
from gpunn.data.load import is_image_folder, read_samples
from gpunn.data.tables import RECONSTRUCTION
from gpunn.data.training_inputs import TrainingInputs
from gpunn.errors import DataError, GpunnError, OptionError, in_one_line
from gpunn.experiments.experiment import Experiment, read_experiment
from gpunn.experiments.folder import EXPERIMENT, MODEL, model_file
from gpunn.nn.tasks import Task, by_class
from gpunn.reports.input_image import write_input_image
from gpunn.saving.checkpointer import Say
from gpunn.sequential import Sequential, load_model
from gpunn.train.arguments import renumbered

SURE = 0.6  # probability below which a prediction counts as not sure


@dataclass(frozen=True)
class Answer:
    """Prediction for one sample of a file, counted from 0: label and probability, 0 or 1 per output, or outputs."""

    file: str
    sample: int
    label: str  # "" for a network without classes
    probability: float  # NaN without classes
    outputs: list[float]
    answers: tuple[int, ...] = ()
    second_label: str = ""  # the second most probable
    second_probability: float = math.nan
    sure: bool | None = None  # whether the probability reaches the limit; None without classes


def load_run(run: str, device: str = "auto") -> tuple[Sequential, Experiment | None]:
    """Load the network of a run folder or a model file, and the experiment beside it, if any."""
    path = model_file(run)
    model = load_model(path, device)
    written = path.with_name(EXPERIMENT)
    return model, read_experiment(str(written)) if path.name == MODEL and written.is_file() else None


def evaluate_run(run: str, source: str | None = None, device: str = "auto", width: int = 80) -> str:
    """Evaluate a run's network on a source of data, by default that of its training.

    Return a line of loss and accuracy, then the table of all metrics in at most `width` columns.
    """
    model, experiment = load_run(run, device)
    columns = None if model.trained_on is None else model.trained_on.columns
    if source is not None and columns is not None and source not in NAMES:
        samples = read_samples(source, columns, model.class_names)
        return _evaluated(model, samples, f"{Path(source).stem}, all samples", width)
    if source is not None:
        task = RECONSTRUCTION if experiment and experiment.data.task == RECONSTRUCTION else None
        options: dict[str, Any] = {"task": task, "tokens": model.tokens or None, **_of_images(model, source)}
        data = load_data(source, validation=0, **options)
        samples, part = data.train, "all samples"
    elif experiment is None:
        raise GpunnError(f"{run} does not say what it was trained on: name the data, gpunn evaluate {run} DATA")
    else:
        data = experiment.load_data(model.tokens)
        samples, part = data.validation or data.train, "validation set"
    if data.test is not None:
        samples, part = data.test, "test set"
    samples = renumbered(samples, data.class_names, model.class_names)
    return _evaluated(model, samples, f"{data.name}, {part}", width)


def _evaluated(model: Sequential, samples: Samples, name: str, width: int) -> str:
    return f"{name} ({len(samples):,}): {model.evaluate(samples)}\n\n{model.report(samples).table(width)}"


def _of_images(model: Sequential, source: str) -> dict[str, Any]:
    """Return the options of `load_data` that fit a folder of images to the inputs of a network."""
    if not is_image_folder(source):
        return {}
    height, width, channels = image_shape(
        Path(source), model.trained_on.shape if model.trained_on else model.input_shape
    )
    return {"image_size": (height, width), "colours": "grey" if channels == 1 else "rgb"}


def predict_files(
    run: str,
    files: Iterable[str],
    device: str = "auto",
    invert: str = "auto",
    note: Say = print,
    refused: Say | None = None,
    *,
    prepare: bool = True,
    show: bool = False,
    sure: float = SURE,
) -> Iterator[Answer]:
    """Predict every sample of some files with a run's network; see `read_inputs` for `invert`, `note`, `prepare`.

    `refused` takes a line for each file that cannot be read; without it, the error is raised. `show` writes the input
    of the network beside each image. Predictions with a probability below `sure` are marked as not sure.
    """
    if not 0 <= sure <= 1:
        raise OptionError(f"sure must be a probability from 0 to 1, got {sure!r}")
    model, experiment = load_run(run, device)
    trained_on = model.trained_on
    shape = trained_on.shape if trained_on else (experiment and experiment.data.shape) or model.input_shape
    if math.prod(shape) != math.prod(model.input_shape):
        raise DataError(f"{run}: its {EXPERIMENT} is of samples {shape}, its network of {model.input_shape}")
    for file in files:
        try:
            if Path(file).is_dir():
                raise DataError(f"{file} is a folder: name the files in it, such as {Path(file) / '*'}")
            samples = read_inputs(Path(file), shape, invert=invert, note=note, trained_on=trained_on, prepare=prepare)
            if show:
                _show(Path(file), samples, shape, trained_on, note)
            answers = list(_answers(model, file, samples, sure))
        except (GpunnError, OSError) as error:
            if refused is None:
                raise
            # Name the file, unless the error does.
            refused(str(error) if in_one_line(file) in str(error) else f"{file}: {error}")
        else:
            yield from answers


def _show(path: Path, samples: Any, shape: tuple[int, ...], trained_on: TrainingInputs | None, note: Say) -> None:
    """Write the network's input beside an image."""
    if kind_of_file(path, "give images").image:
        written = write_input_image(path, samples, image_shape(path, shape), trained_on)
        note(f"{path}: what the network saw is in {written}")
    else:
        note(f"{path}: it is no image, so there is nothing to show")


def _answers(model: Sequential, file: str, samples: Any, sure: float) -> Iterator[Answer]:
    rows = model.predict_proba(samples)
    if model.class_names:
        shares, names = by_class(rows, model.classes), model.names_of_outputs
        for number, best in enumerate(Task.CLASSES.answers(rows, model.classes)):
            share = float(shares[number, best])
            others = [(float(shares[number, other]), names[other]) for other in range(shares.shape[1]) if other != best]
            second, name = max(others, key=lambda each: each[0], default=(math.nan, ""))
            outputs = rows[number].tolist()
            yield Answer(file, number, names[best], share, outputs, (), name, second, share >= sure)
        return
    answers = Task.BINARY.answers(rows).tolist() if model.task is Task.BINARY else [()] * len(rows)
    for number, row in enumerate(rows):
        yield Answer(file, number, "", math.nan, row.tolist(), tuple(answers[number]))


_EMPTY = ("", (), None)


def format_answers(answers: Iterable[Answer], form: str, encoding: str = "utf-8") -> str:
    """Format answers as "text" (one line a sample), "csv" or "json", which escapes characters outside `encoding`."""
    found = list(answers)
    if form == "json":
        there = (asdict(answer).items() for answer in found)
        table = [{key: value for key, value in items if value == value and value not in _EMPTY} for items in there]
        text = json.dumps(table, indent=2, ensure_ascii=False)
        return text if text.encode(encoding, "replace").decode(encoding) == text else json.dumps(table, indent=2)
    if form == "csv":
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("file", "sample", *_cells(found[0] if found else Answer("", 0, "none", 1.0, []))))
        writer.writerows((answer.file, answer.sample, *_cells(answer).values()) for answer in found)
        return stream.getvalue().rstrip("\n")
    several = {answer.file for answer in found if answer.sample}
    names = [in_one_line(f"{a.file}[{a.sample}]" if a.file in several else a.file) for a in found]
    width = max(map(len, names), default=0)
    wide = max((len(answer.label) for answer in found), default=0)
    return "\n".join(f"{name:{width}}  {_text(answer, wide)}" for name, answer in zip(names, found, strict=True))


def _cells(answer: Answer) -> dict[str, Any]:
    """Return the cells of an answer by column of the CSV; several outputs are counted from 1."""
    if answer.label:
        cells = {"label": answer.label, "probability": f"{answer.probability:.6f}"}
        second = f"{answer.second_probability:.6f}" if answer.second_label else ""
        sure = "" if answer.sure is None else str(answer.sure).lower()
        return {**cells, "sure": sure, "second_label": answer.second_label, "second_probability": second}
    columns: dict[str, Iterable[Any]] = {"output": [f"{value:.9g}" for value in answer.outputs]}
    if answer.answers:
        columns = {"answer": answer.answers, "probability": [f"{value:.6f}" for value in answer.outputs]}
    return {
        name if len(answer.outputs) == 1 else f"{name}_{number}": value
        for name, values in columns.items()
        for number, value in enumerate(values, start=1)
    }


def _text(answer: Answer, wide: int) -> str:
    if answer.label:
        likeliest = f"{answer.label:{wide}}  {_percent(answer.probability)}"
        if answer.sure is not False:
            return likeliest
        second = f", or {answer.second_label}  {_percent(answer.second_probability)}" if answer.second_label else ""
        return f"{likeliest}{second}  (not sure)"
    if answer.answers:
        shares = ", ".join(map(_percent, answer.outputs))
        return f"{' '.join(map(str, answer.answers))}  (probability of 1: {shares})"
    return "  ".join(f"{output:.6g}" for output in answer.outputs)


def _percent(share: float) -> str:
    """Format a probability; only 1 is shown as 100 %."""
    return ">99.99%" if 0.99995 <= share < 1 else f"{share:.2%}"
