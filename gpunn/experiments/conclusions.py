"""Summarize a finished run in a few lines: the metrics of its network, and the course of its training."""

import math
from collections.abc import Iterator

import numpy as np

from gpunn.data import Data
from gpunn.experiments.report import FinalEvaluation, imbalance
from gpunn.nn.tasks import in_words, shown
from gpunn.train.outputs_report import MultilabelReport, RegressionReport
from gpunn.train.report import ClassificationReport
from gpunn.train.table import amount, some
from gpunn.train.trainer import Trainer


def conclude(trainer: Trainer, measured: FinalEvaluation | None) -> Iterator[tuple[str, str]]:
    """Yield the lines of the summary, each as label and text."""
    history, data = trainer.history, trainer.data
    if measured is None:
        yield "metrics", "none: there is neither a test set nor a validation set"
    else:
        yield from _figures(data, measured)
    best, since, last = history.best, history.overfitting_since, history[-1]
    if best is not None:
        watched, part = ("training", "train") if math.isnan(best.validation_loss) else ("validation", "validation")
        yield "best epoch", f"{best.epoch:.4g} (step {best.step}): lowest {watched} {in_words(best.figures(part))}"
    if trainer.options.regularizer is not None:
        penalty = shown("penalty", last.penalty)
        yield "regularizer", f"{trainer.options.regularizer!r}: λR {penalty} at the end, contained in no loss above"
    if since is not None:
        when = f"(high variance) since step {since.step}, epoch {since.epoch:.4g}"
        seen = "the training loss still fell, the validation loss rose"
        yield "overfitting", f"{when}: {seen}; more data, a regularizer or fewer epochs help"
    elif data.validation is not None:
        yield "overfitting", "none was seen"
    if line := trainer.verdict():
        yield "", line
    if history.skipped:
        yield "skipped", f"{history.skipped} batches that led to NaN or Inf"
    if history.stopped:
        yield "stopped early", history.stopped
    speed = last.epoch * len(data.train) / last.seconds if last.seconds else 0.0
    yield "time", f"{last.seconds:.1f} s for {last.epoch:.4g} epochs, {speed:,.0f} samples/s"


def _figures(data: Data, measured: FinalEvaluation) -> Iterator[tuple[str, str]]:
    """Yield the metrics of the network: those of its task, then others worth a look."""
    result, report = measured.evaluation, measured.report
    note = "" if measured.part == "test set" else " (there is no test set)"
    note = " (watched while training: no measure of unseen data)" if data.validation_is_test else note
    if math.isnan(result.accuracy):
        yield measured.part, f"{result}, {result.total:,} sample{'s' if result.total != 1 else ''}{note}"
    else:
        label = "test accuracy" if measured.part == "test set" else measured.part
        yield label, f"{result.accuracy:.2%}: {result.counted}, {in_words({'loss': result.loss})}{note}"
    if isinstance(report, ClassificationReport):
        if not math.isnan(report.auc):
            yield "AUC", f"{report.auc:.4f}"
        if imbalance(data) or report.is_imbalanced:
            worst = report.worst
            of = f"recall {worst.recall:.4f} of {amount(worst.support)} samples"
            yield "macro F1", f"{report.macro.f1:.4f}; lowest for class {some([worst.name])}: {worst.f1:.4f}, {of}"
        if never := report.never_predicted:
            yield "not predicted", f"{some(never)}: no sample was taken for {'it' if len(never) == 1 else 'them'}"
    elif isinstance(report, MultilabelReport):
        worst_output = int(np.argmin(report.f1))
        several = (
            f"; lowest for {_output(report, worst_output)}: {report.f1[worst_output]:.4f}" if len(report.f1) > 1 else ""
        )
        yield "macro F1", f"{report.macro.f1:.4f}{several}"
        if not math.isnan(area := float(report.auc.mean())):
            yield "AUC", f"{area:.4f}" + (", mean of the outputs" if several else "")
    elif isinstance(report, RegressionReport):
        yield "MAE", shown("mae", report.mae) + (", mean of the outputs" if len(report.outputs) > 1 else "")
        if len(report.outputs) > 1 and not math.isnan(report.r2):
            least = int(np.argmin([each.r2 for each in report.outputs]))
            yield "lowest R²", f"{shown('r2', report.outputs[least].r2)} of {_output(report, least)}"


def _output(report: MultilabelReport | RegressionReport, number: int) -> str:
    return some([report.names[number]]) if report.names else f"output {number + 1}"
