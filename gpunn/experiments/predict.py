"""What is done with the network of a run: measuring it on data, and asking it about files."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gpunn.data import load_data
from gpunn.data.formats.inputs import read_inputs
from gpunn.errors import DataError, GpunnError, ModelFileError, in_one_line
from gpunn.experiments.experiment import Experiment
from gpunn.experiments.folder import CHECKPOINTS, EXPERIMENT, MODEL
from gpunn.experiments.recipes import read_experiment
from gpunn.experiments.streams import can_encode
from gpunn.nn.tasks import Task, by_class
from gpunn.saving.checkpoint import BEST
from gpunn.saving.checkpointer import listed
from gpunn.sequential import Sequential, load_model
from gpunn.train.arguments import renumbered


@dataclass(frozen=True)
class Answer:
    """What a network says of one sample.

    Attributes:
        file: where the sample is.
        sample: its number in the file, from 0.
        label: the name of the class; "" where the network was not trained on classes.
        probability: of that class; nan where there are none.
        outputs: all outputs.
        answers: 0 or 1 for each output, where each is a question by itself.
    """

    file: str
    sample: int
    label: str
    probability: float
    outputs: list[float]
    answers: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """All that applies, by name."""
        applies = {"label": bool(self.label), "probability": bool(self.label), "answers": bool(self.answers)}
        return {name: value for name, value in asdict(self).items() if applies.get(name, True)}


def load_run(run: str, device: str = "auto") -> tuple[Sequential, Experiment | None]:
    """The network of a run folder or a model file, and the experiment that lies beside it, if one does.

    Raises:
        ModelFileError: there is no network, or it is damaged.
    """
    path = Path(run)
    if path.is_dir():
        if not (path / MODEL).is_file():
            raise ModelFileError(f"{path} holds no {MODEL}: {_mend(path)}")
        path /= MODEL
    elif not path.exists():
        raise ModelFileError(f"there is no run {path}: give a folder that gpunn train has made, or a model file")
    model = load_model(path, device)
    written = path.with_name(EXPERIMENT)
    return model, read_experiment(str(written)) if path.name == MODEL and written.is_file() else None


def _mend(path: Path) -> str:
    """What to do about a folder that has no network."""
    if there := listed(path / CHECKPOINTS):
        return f"its training has not ended: gpunn train --resume {path}, or take {there[0][1] / BEST}"
    return "give a folder that gpunn train has made"


def evaluate_run(run: str, source: str | None = None, device: str = "auto") -> str:
    """The figures of a run's network, as one line.

    Args:
        run: run folder or model file.
        source: the data; None for those it was trained on.
        device: to compute on.

    Raises:
        GpunnError: the run or the data cannot be read, or do not fit together.
    """
    model, experiment = load_run(run, device)
    if source is None and experiment is None:
        raise GpunnError(f"{run} does not say what it was trained on: name the data, gpunn evaluate {run} DATA")
    if source is None and experiment is not None:
        data = experiment.load_data()
        samples, part = (data.validation or data.train, "validation set") if not data.has_test else (None, "test set")
    else:
        data = load_data(source or "", validation=0)
        samples, part = (data.train, "all samples") if not data.has_test else (None, "test set")
    samples = samples or data.test
    assert samples is not None
    samples = renumbered(samples, data.class_names, model.class_names)
    result = model.evaluate(samples)
    return f"{data.name}, {part} ({len(samples):,}): {result}"


def predict_files(
    run: str,
    files: Iterable[str],
    device: str = "auto",
    invert: str = "auto",
    note: Callable[[str], None] = print,
    refused: Callable[[str], None] | None = None,
) -> Iterator[Answer]:
    """What a run's network says of every sample in some files.

    Args:
        run: run folder or model file.
        files: images, .npy, .npz or IDX files.
        device: to compute on.
        invert: see `read_inputs`.
        note: see `read_inputs`.
        refused: is given a line for each file that cannot be answered; the others are. Left out, it is raised.

    Raises:
        GpunnError: the run or a file cannot be read, or do not fit together.
    """
    model, experiment = load_run(run, device)
    trained_on = model.trained_on
    shape = experiment.data.shape if experiment is not None and experiment.data.shape else model.input_shape
    shape = shape if trained_on is None else trained_on.shape
    if math.prod(shape) != math.prod(model.input_shape):
        raise DataError(f"{run}: its {EXPERIMENT} is of samples {shape}, its network of {model.input_shape}")

    def answered() -> Iterator[Answer]:
        for file in files:
            try:
                if Path(file).is_dir():
                    raise DataError(f"{file} is a folder: name the files in it, such as {Path(file) / '*'}")
                samples = read_inputs(Path(file), shape, invert=invert, note=note, trained_on=trained_on)
                answers = list(_answers(model, [(file, samples)]))
            except (GpunnError, OSError) as error:
                if refused is None:
                    raise
                # Which of many files it is must be said, by whomever the error is raised.
                refused(str(error) if in_one_line(file) in str(error) else f"{file}: {error}")
            else:
                yield from answers

    return answered()


def _answers(model: Sequential, inputs: Iterable[tuple[str, object]]) -> Iterator[Answer]:
    for file, samples in inputs:
        rows = model.predict_proba(samples)  # type: ignore[arg-type]
        if model.class_names:
            shares, names = by_class(rows), model.names_of_outputs
            for number, best in enumerate(Task.CLASSES.answers(rows)):
                yield Answer(file, number, names[best], float(shares[number, best]), rows[number].tolist())
            continue
        answers = Task.BINARY.answers(rows).tolist() if model.task is Task.BINARY else [()] * len(rows)
        for number, row in enumerate(rows):
            yield Answer(file, number, "", math.nan, row.tolist(), tuple(answers[number]))


def format_answers(answers: Iterable[Answer], form: str, encoding: str = "utf-8") -> str:
    """Answers as text, CSV or JSON.

    Args:
        answers: of one or more files.
        form: "text" (one line a sample), "csv" or "json" (with all outputs).
        encoding: of where they go; JSON escapes what that has not.
    """
    found = list(answers)
    if form == "json":
        table = [answer.to_dict() for answer in found]
        text = json.dumps(table, indent=2, ensure_ascii=False)
        return text if can_encode(text, encoding) else json.dumps(table, indent=2)
    if form == "csv":
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        first = found[0] if found else Answer("", 0, "none", 1.0, [])
        writer.writerow(("file", "sample", *_columns(first)))
        writer.writerows((a.file, a.sample, *_cells(a)) for a in found)
        return stream.getvalue().rstrip("\n")
    several = {answer.file for answer in found if answer.sample}
    names = [in_one_line(f"{a.file}[{a.sample}]" if a.file in several else a.file) for a in found]
    width = max(map(len, names), default=0)
    wide = max((len(answer.label) for answer in found), default=0)
    lines = []
    for name, a in zip(names, found, strict=True):
        if a.label:
            said = f"{a.label:{wide}}  {_percent(a.probability)}"
        elif a.answers:
            shares = ", ".join(map(_percent, a.outputs))
            said = f"{' '.join(map(str, a.answers))}  (probability of 1: {shares})"
        else:
            said = "  ".join(f"{x:.6g}" for x in a.outputs)
        lines.append(f"{name:{width}}  {said}")
    return "\n".join(lines)


def _columns(answer: Answer) -> list[str]:
    """Heads of the cells of an answer; several outputs are counted from 1."""
    if answer.label:
        return ["label", "probability"]
    names = ["answer", "probability"] if answer.answers else ["output"]
    count = len(answer.outputs)
    return [name if count == 1 else f"{name}_{number}" for name in names for number in range(1, count + 1)]


def _cells(answer: Answer) -> list[Any]:
    if answer.label:
        return [answer.label, f"{answer.probability:.6f}"]
    if answer.answers:
        return [*answer.answers, *(f"{value:.6f}" for value in answer.outputs)]
    return [f"{value:.9g}" for value in answer.outputs]


def _percent(share: float) -> str:
    """What is only nearly sure is not called 100 %."""
    return ">99.99%" if 0.99995 <= share < 1 else f"{share:.2%}"
