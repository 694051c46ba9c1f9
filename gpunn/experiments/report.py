"""Write `report.md`, the page of a run: warnings, results, pictures, data, network and options."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from gpunn.config.outside import allowing
from gpunn.data import Data, Samples
from gpunn.experiments.experiment import Experiment
from gpunn.experiments.folder import EXPERIMENT, HISTORY, METRICS, MODEL
from gpunn.experiments.markdown import block, cell, code, escaped, table
from gpunn.files import write_atomically
from gpunn.nn.summary import summary
from gpunn.saving.origin import versions
from gpunn.train.evaluator import Evaluation
from gpunn.train.metrics import Average
from gpunn.train.outputs_report import MultilabelReport
from gpunn.train.report import ClassificationReport, Report, are_imbalanced
from gpunn.train.table import HEADS, MOST_ROWS, amount, decimal, in_line, some
from gpunn.train.trainer import Trainer

REPORT = "report.md"
_MOST_MATRIX = 20  # classes of a confusion matrix that can be read


@dataclass(frozen=True, eq=False)
class FinalEvaluation:
    """Evaluation of a run's network at its end, on the "test set" or the "validation set"."""

    part: str
    samples: Samples
    evaluation: Evaluation
    report: Report | None  # None if there was no memory for it


def write_report(
    folder: Path,
    experiment: Experiment,
    trainer: Trainer,
    measured: FinalEvaluation | None,
    conclusions: Sequence[tuple[str, str]],
    pictures: Sequence[str],
) -> None:
    """Write the page of a finished run."""
    data = trainer.data
    parts = {
        "": [f"# {escaped(experiment.name)} on {escaped(data.name)}"],
        "Warnings": [f"- {escaped(line)}" for line in _warnings(trainer, measured)],
        "Result": _result(measured, conclusions),
        "Pictures": "\n\n".join(f"![{Path(name).stem}]({name})" for name in pictures).splitlines(),
        "Data": [f"{escaped(data_in_words(data, 'test set opened at the end'))}.", "", *_counts(data, measured)],
        "Network": block(summary(trainer.model)),
        "Options": [*table(("option", "value"), _options(experiment, trainer), "---"), "", _files()],
        "Versions": table(("of", "version"), ((name, code(text)) for name, text in versions(trainer).items()), "---"),
    }
    if experiment.description:
        parts[""] += ["", f"{escaped(experiment.description)}."]
    lines = list[str]()
    for title, part in parts.items():
        if part:
            lines += [*([f"## {title}", ""] if title else []), *part, ""]
    text = "\n".join(line.rstrip() for line in lines)
    write_atomically(folder / REPORT, (text.rstrip() + "\n").encode("utf-8", "backslashreplace"))


def _files() -> str:
    """Describe the files of the run."""
    again = code(f"gpunn train --recipe {EXPERIMENT}{allowing()}")
    return (
        f"All options are in [{EXPERIMENT}]({EXPERIMENT}): {again} does the run again. Records are in "
        f"[{HISTORY}]({HISTORY}), figures in [{METRICS}]({METRICS}), the network in [{MODEL}]({MODEL})."
    )


def data_in_words(data: Data, test: str = "test set closed until the end") -> str:
    """Describe the samples, and how many serve for training, validation and test."""
    train, validation = data.train, data.validation
    shape = " × ".join(map(str, train.shape))
    kind = f"{train.classes} classes" if train.classes else f"{train.targets.shape[1]} float targets"
    count = f"{len(validation):,}" if validation else "none"
    watched = f"{count} for validation; {test if data.has_test else 'no test set'}"
    if data.validation_is_test:
        watched = f"the published test set ({count}) is watched as validation set"
        watched += ", so its accuracy is no measure of unseen data"
    return f"{data.name}: {len(train):,} training samples of {shape}, {kind}; {watched}"


def _warnings(trainer: Trainer, measured: FinalEvaluation | None) -> Iterator[str]:
    history, data = trainer.history, trainer.data
    if line := trainer.verdict():
        yield line
    if (since := history.overfitting_since) is not None:
        yield (
            f"the network overfits since epoch {since.epoch:.4g}: the training loss still fell, the validation loss "
            "rose; more data, a regularizer or fewer epochs help"
        )
    counts, names = data.train.class_counts(), data.class_names
    if missing := [names[k] for k in np.flatnonzero(counts == 0) if k < len(names)]:
        yield f"without a training sample, so not learned: {some(missing)}"
    if line := imbalance(data):
        mend = "" if trainer.options.class_weight else "; trained with --class-weight balanced, all count alike"
        yield f"{line}: accuracy says little about the small ones, the macro average of F1 counts all alike{mend}"
    report = measured.report if measured else None
    if isinstance(report, ClassificationReport) and (never := report.never_predicted):
        yield f"never predicted, though there are samples: {some(never)}"
    if data.validation_is_test:
        yield "the test set was watched while training: its figures are no measure of unseen data"
    if history.skipped:
        yield f"{history.skipped} batches that led to NaN or Inf were skipped"
    if measured is None:
        yield "there is neither a test set nor a validation set: nothing shows how the network answers unseen samples"
    elif measured.part != "test set":
        yield "there is no test set: the figures are of the validation set, which was watched while training"


def imbalance(data: Data) -> str:
    """Name the largest and the smallest class if the training samples are imbalanced, else return ""."""
    counts = data.train.class_counts()
    if not len(counts) or not are_imbalanced(counts):
        return ""
    there = np.flatnonzero(counts)
    least, most = there[np.argmin(counts[there])], int(np.argmax(counts))
    names = [data.class_names[k] if k < len(data.class_names) else str(k) for k in (most, least)]
    large, small = (f"{counts[k]:,} of {some([name])}" for k, name in zip((most, least), names, strict=True))
    return f"classes differ in size, {large} to {small}"


def _result(measured: FinalEvaluation | None, conclusions: Sequence[tuple[str, str]]) -> list[str]:
    lines = [*(f"- {escaped(label or 'verdict')}: {escaped(text)}" for label, text in conclusions), ""]
    report = measured.report if measured else None
    if measured is None or report is None:
        return lines
    lines += [f"On the {measured.part}, {len(measured.samples):,} samples:", ""]
    if isinstance(report, ClassificationReport):
        lines += _classes(report)
    elif isinstance(report, MultilabelReport):
        heads = ("output", *HEADS[:3], "AUC", HEADS[3])
        rows = [*_cells(report.rows()), *_averages(report.averages, ("", ""))]
        lines += [*table(heads, rows), "", f"{in_line(report.figures())}."]
    else:
        lines += table(("output", "RMSE", "MAE", "R²"), [*_cells(report.rows()), *report.averages])
    notes = [f"- {escaped(note)}." for note in report.notes()]
    return [*lines, *([""] if notes else []), *notes]


def _classes(report: ClassificationReport) -> list[str]:
    chosen, _ = report.shown_classes()
    names, numbers = report.class_names, (report.precision, report.recall, report.f1)
    rows = [(cell(names[k]), *(decimal(v[k]) for v in numbers), amount(report.support[k])) for k in chosen]
    averages = _averages(report.averages, (amount(report.support.sum()),))
    lines = [*table(("class", *HEADS), [*rows, *averages]), "", f"{in_line(report.figures())}."]
    if len(chosen) <= _MOST_MATRIX and len(chosen) + len(report.absent) == len(names):
        matrix = report.confusion_matrix[np.ix_(chosen, chosen)]
        rows = [(f"**{cell(names[k])}**", *map(amount, row)) for k, row in zip(chosen, matrix, strict=True)]
        heads = ("true ╲ predicted", *(cell(names[k]) for k in chosen))
        lines += ["", "How often each class (a row) was taken for which (a column):", "", *table(heads, rows)]
    return lines


def _cells(rows: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    return [(cell(name), *numbers) for name, *numbers in rows]


def _averages(averages: Mapping[str, Average], rest: Sequence[str]) -> list[tuple[str, ...]]:
    return [(name, *map(decimal, vars(average).values()), *rest) for name, average in averages.items()]


def _counts(data: Data, measured: FinalEvaluation | None) -> list[str]:
    """Return the table of samples by class and part."""
    parts = {"training": data.train, "validation": data.validation}
    if measured and measured.part == "test set" and not data.validation_is_test:
        parts["test"] = measured.samples
    counts = {name: samples.class_counts() for name, samples in parts.items() if samples}
    train = counts["training"]
    if not len(train):
        return table(("part", "samples"), [(name, f"{len(samples):,}") for name, samples in parts.items() if samples])
    chosen = np.sort(np.argsort(train, kind="stable")[:MOST_ROWS])
    names = [*data.class_names, *map(str, range(len(data.class_names), len(train)))]
    rows = [(cell(names[k]), *(f"{c[k] if k < len(c) else 0:,}" for c in counts.values())) for k in chosen]
    total = ("all", *(f"{c.sum():,}" for c in counts.values()))
    left_out = f"The {MOST_ROWS} classes of fewest training samples, of {len(train):,}:"
    return [*([left_out, ""] if len(train) > MOST_ROWS else []), *table(("class", *counts), [*rows, total])]


def _options(experiment: Experiment, trainer: Trainer) -> Iterator[tuple[str, str]]:
    """Yield the options of the run that are set, by their names in the experiment file."""
    yield from (("loss", code(repr(trainer.loss))), ("optimizer", code(repr(trainer.optimizer))))
    for name in ("regularizer", "augmentation"):
        if (part := getattr(trainer.options, name)) is not None:
            yield name, code(repr(part))
    if experiment.metrics:
        yield "metrics", code(", ".join(map(str, experiment.metrics)))
    for section in ("training", "data"):
        for name, value in asdict(getattr(experiment, section)).items():
            if value not in (None, "", (), [], {}) and name != "sha256":
                yield f"{section}.{name}", code(str(value))
