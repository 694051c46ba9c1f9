"""Answers that are several zeros and ones, or numbers, beside the true ones."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpunn.data import Samples
from gpunn.display.style import FAINT, INK, TRAINING, checked_title, picture, short_names, shortened, wrapped
from gpunn.errors import OptionError
from gpunn.files import StrPath
from gpunn.reports.predictions import Cells, counted_mistakes, draw_worst
from gpunn.scalars import positive_whole
from gpunn.train.metrics import errors_of
from gpunn.train.outputs_report import MultilabelReport
from gpunn.train.table import MOST_ROWS, amount, decimal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANELS, _ACROSS = 6, 3
_POINTS = 5000  # in a panel: of more, each second or third sample is drawn
_WORDS = 26  # characters of what an answer says beside a sample
_COLUMNS = ("true 1\nanswered 1", "true 1\nanswered 0", "true 0\nanswered 1", "true 0\nanswered 0")


def draw_outputs(report: MultilabelReport, path: StrPath | None, title: str) -> "Figure":
    """Draw the right and wrong answers of each output of 0 or 1, a row an output: those of lowest F1 of many."""
    if report.answered is None:
        raise OptionError("this report was made by an older version, without counts: make it again by model.report")
    title = checked_title(title)
    shown = np.sort(np.argsort(report.f1, kind="stable")[:MOST_ROWS])
    ones, answered = report.support[shown], report.answered[shown]
    right = report.recall[shown] * ones
    if ones.dtype.kind != "f":
        right = np.rint(right)
    zeros = report.weight - ones
    counts = np.stack([right, ones - right, answered - right, zeros - (answered - right)], axis=1)
    totals = np.stack([ones, ones, zeros, zeros], axis=1)
    shares = counts / np.where(totals > 0, totals, 1)
    rows = len(shown)
    cells = Cells.of(shares, np.tile([True, False, False, True], (rows, 1)))
    names = short_names([report.names[k] if report.names else f"output {k + 1}" for k in shown], 20)
    left, across, high = 0.45 + 0.075 * max(map(len, names)), 0.95 * 4, max(0.36 * rows, 0.36)
    long = max(high, 1.6)
    width, height = left + across + 0.75 + 1.25, long + 1.0
    height += 0.2 + 0.22 * len(wrapped(title, width).splitlines()) if title else 0.0
    bottom = 0.4 + long - high
    with picture(path, width, height, title) as figure:
        figure.set_layout_engine("none")
        axes: Axes = figure.add_axes((left / width, bottom / height, across / width, high / height))
        axes.imshow(cells.colours, interpolation="nearest", aspect="auto")
        axes.spines[:].set_visible(False)
        axes.set_xticks(range(4), _COLUMNS)
        axes.set_yticks(range(rows), names)
        axes.xaxis.tick_top()
        axes.set_xticks([0.5, 1.5, 2.5], minor=True)
        axes.set_yticks(np.arange(rows - 1) + 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=1.5)
        axes.tick_params(which="both", length=0)
        for row, column in np.argwhere(counts > 0):
            color = "white" if cells.is_dark[row, column] else INK
            axes.text(column, row, amount(counts[row, column]), size=9, color=color, ha="center", va="center")
        axes.text(3.9, -0.62, "F1", ha="center", va="bottom", size=9.0, color=FAINT)
        for row, value in enumerate(report.f1[shown]):
            axes.text(3.9, row, decimal(value)[:5], ha="center", va="center", size=9.0)
        told = f"{100 * report.accuracy:.2f} % of the answers right, {100 * report.exact:.2f} % of the samples wholly"
        if rows < len(report.f1):
            told += f"; the {rows} outputs of lowest F1 of {len(report.f1):,}"
        figure.text(0.5, 0.08 / height, told, ha="center", va="bottom", size=9.0, color=FAINT)
        bar = min(long, 4.0)
        place = ((left + across + 0.65) / width, (0.4 + long - bar) / height, 0.16 / width, bar / height)
        cells.draw_scale(figure, place)
    return figure


def draw_wrong_outputs(
    samples: Samples,
    targets: NDArray[Any],
    outputs: NDArray[Any],
    names: Sequence[str],
    path: StrPath | None,
    count: int,
    title: str,
) -> "Figure":
    """Draw the samples of which some output is wrong, those of the highest binary cross-entropy first."""
    count = positive_whole(count, "count of mistakes")
    true, answers = targets >= 0.5, outputs >= 0.5
    mistakes = np.flatnonzero((true != answers).any(axis=1))
    with np.errstate(divide="ignore", invalid="ignore"):
        losses = -np.log(np.where(true, outputs, 1.0 - outputs)[mistakes]).sum(axis=1)
    worst = mistakes[np.argsort(-np.nan_to_num(losses, nan=math.inf), kind="stable")][:count]
    named = [names[k] if names else str(k + 1) for k in range(targets.shape[1])]

    def ones(of: NDArray[Any]) -> str:
        return shortened(", ".join(shortened(named[k], 14) for k in np.flatnonzero(of)) or "none", _WORDS)

    words = [(f"predicted {ones(answers[k])}", f"true {ones(true[k])}") for k in worst]
    heading, title = counted_mistakes(len(worst), len(mistakes), len(true)), checked_title(title)
    return draw_worst(samples.inputs, worst, words, heading, path, title or "Worst mistakes", samples.scale)


def draw_largest_errors(
    samples: Samples,
    targets: NDArray[Any],
    outputs: NDArray[Any],
    names: Sequence[str],
    path: StrPath | None,
    count: int,
    title: str,
) -> "Figure":
    """Draw the samples whose numbers are furthest off, by Σ ((a − y) / s)² with the deviations s of the targets."""
    count = positive_whole(count, "count of errors")
    deviations = targets.std(axis=0, dtype=np.float64)
    errors = np.abs(outputs - targets) / np.where(deviations > 0, deviations, 1.0)
    sizes = np.nan_to_num(np.square(errors).sum(axis=1), nan=math.inf)
    worst = np.argsort(-sizes, kind="stable")[:count]
    words = []
    for sample in worst:
        of = int(np.argmax(errors[sample]))  # of several outputs the one that is furthest off
        name = "" if targets.shape[1] == 1 else f"{shortened(names[of] if names else f'output {of + 1}', 14)}: "
        words.append((f"{name}predicted {outputs[sample, of]:.4g}", f"true {targets[sample, of]:.4g}"))
    title = checked_title(title) or "Largest errors"
    which = "all" if len(worst) == len(targets) else f"the {len(worst)} furthest off among"
    heading = f"{which} {len(targets):,} sample{'s' if len(targets) != 1 else ''}"
    return draw_worst(samples.inputs, worst, words, heading, path, title, samples.scale)


def draw_predictions(
    targets: NDArray[Any], outputs: NDArray[Any], names: Sequence[str], path: StrPath | None, title: str
) -> "Figure":
    """Draw predicted numbers over true ones, a panel an output; of many outputs those of lowest R²."""
    each, _ = errors_of(targets, outputs)
    order = np.argsort([error.r2 for error in each], kind="stable")
    shown = np.sort(order[:_PANELS])
    across, every = min(len(shown), _ACROSS), -(-len(targets) // _POINTS)
    rows = math.ceil(len(shown) / across)
    with picture(path, max(3.4 * across, 4.6), 3.5 * rows + 0.4, title) as figure:
        for place, output in enumerate(shown):
            axes = figure.add_subplot(rows, across, place + 1)
            _draw_panel(axes, targets[::every, output], outputs[::every, output])
            name, error = names[output] if names else f"output {output + 1}", each[output]
            r2 = "–" if math.isnan(error.r2) else f"{error.r2:.4f}"
            told = f"RMSE {error.rmse:.4g}, R² {r2}"
            axes.set_title(f"{shortened(name, 24)}\n{told}" if len(each) > 1 or names else told, fontsize=10.5)
        notes = [f"{'each second' if every == 2 else f'one in {every}'} of {len(targets):,} samples"] * (every > 1)
        notes += [f"the {len(shown)} outputs of lowest R² of {len(each):,}"] * (len(shown) < len(each))
        if notes:
            figure.supxlabel("; ".join(notes), fontsize=9.0, color=FAINT)
    return figure


def _draw_panel(axes: "Axes", true: NDArray[Any], predicted: NDArray[Any]) -> None:
    is_finite = np.isfinite(true) & np.isfinite(predicted)
    true, predicted = true[is_finite].astype(np.float64), predicted[is_finite].astype(np.float64)
    if not len(true):
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "no finite predictions", ha="center", va="center", transform=axes.transAxes)
        return
    low, high = min(true.min(), predicted.min()), max(true.max(), predicted.max())
    room = 0.04 * (high - low) or 0.5 * (abs(high) or 1.0)
    limits = (low - room, high + room)
    axes.plot(limits, limits, color=FAINT, lw=1.0, ls=(0, (4, 2)), zorder=1)
    alpha = min(0.8, max(0.12, 60 / math.sqrt(len(true)) / 10))
    axes.plot(true, predicted, ls="", marker="o", ms=3.5, mew=0, color=TRAINING, alpha=alpha, zorder=2)
    axes.set(xlim=limits, ylim=limits, xlabel="true", ylabel="predicted", box_aspect=1)
    axes.grid()
