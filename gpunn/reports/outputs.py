"""Answers that are several zeros and ones, or numbers, beside the true ones."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpunn.config.scalars import positive_whole
from gpunn.data import Samples
from gpunn.display.style import FAINT, INK, TRAINING, checked_title, picture, place, plain_ticks, title_room
from gpunn.display.text import short_names, shortened, width_of, wrapped
from gpunn.errors import OptionError
from gpunn.files import StrPath
from gpunn.reports.predictions import Cells, counted_mistakes, draw_worst, numbers_in
from gpunn.train.metrics import errors_of
from gpunn.train.outputs_report import MultilabelReport
from gpunn.train.table import MOST_ROWS, decimal

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
    told = f"{100 * report.accuracy:.2f} % of the answers right, {100 * report.exact:.2f} % of the samples wholly"
    if rows < len(report.f1):
        told += f"; the {rows} outputs of lowest F1 of {len(report.f1):,}"
    left, across, high = 0.35 + max(width_of(name, 9.0) for name in names), 0.95 * 4, 0.36 * rows
    beside = 0.7 + (1.25 if cells.has_errors else 0.0)
    width = left + across + beside
    told = wrapped(told, width - 0.3, 9.0, bold=False)
    above, below = title_room(title, width) + 0.5, 0.3 + 0.16 * (told.count("\n") + 1)
    height = above + max(high, 1.3) + below
    texts, size = numbers_in(counts, 0.95)
    with picture(path, width, height, title, by_hand=True) as figure:
        axes = place(figure, left, above, across, high)
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
            axes.text(column, row, texts[row][column], size=size, color=color, ha="center", va="center")
        axes.text(3.9, -0.62, "F1", ha="center", va="bottom", size=9.0, color=FAINT)
        for row, value in enumerate(report.f1[shown]):
            axes.text(3.9, row, decimal(value)[:5], ha="center", va="center", size=9.0)
        figure.supxlabel(told, y=0.1 / height, fontsize=9.0, color=FAINT)
        cells.draw_scale(figure, left + across + 0.7, above, max(high, 1.3))
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
    named = short_names([names[k] if names else str(k + 1) for k in range(targets.shape[1])], 14)

    def ones(of: NDArray[Any]) -> str:
        return shortened(", ".join(named[k] for k in np.flatnonzero(of)) or "none", _WORDS)

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
    named = short_names([names[k] if names else f"output {k + 1}" for k in range(targets.shape[1])], 14)
    words = []
    for sample in worst:
        of = int(np.argmax(errors[sample]))  # of several outputs the one that is furthest off
        name = "" if targets.shape[1] == 1 else f"{named[of]}: "
        words.append((f"{name}predicted {outputs[sample, of]:.4g}", f"true {targets[sample, of]:.4g}"))
    title = checked_title(title) or "Largest errors"
    which = "all" if len(worst) == len(targets) else f"the {len(worst)} furthest off among"
    heading = f"{which} {len(targets):,} samples" if len(targets) > 1 else "1 sample"
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
    named = short_names([names[k] if names else f"output {k + 1}" for k in shown], 24)
    width = max(3.4 * across, 4.6)
    with picture(path, width, title_room(title, width) + 3.5 * rows + 0.3, title) as figure:
        for at, output in enumerate(shown):
            axes = figure.add_subplot(rows, across, at + 1)
            _draw_panel(axes, targets[::every, output], outputs[::every, output])
            error = each[output]
            r2 = "–" if math.isnan(error.r2) else f"{error.r2:.4f}"
            told = f"RMSE {error.rmse:.4g}, R² {r2}"
            axes.set_title(f"{named[at]}\n{told}" if len(each) > 1 or names else told, fontsize=10.5)
        notes = [f"{'each second' if every == 2 else f'one in {every}'} of {len(targets):,} samples"] * (every > 1)
        notes += [f"the {len(shown)} outputs of lowest R² of {len(each):,}"] * (len(shown) < len(each))
        if notes:
            figure.supxlabel(wrapped("; ".join(notes), width - 0.3, 9.0, bold=False), fontsize=9.0, color=FAINT)
    return figure


def _draw_panel(axes: "Axes", true: NDArray[Any], predicted: NDArray[Any]) -> None:
    is_finite = np.isfinite(true) & np.isfinite(predicted)
    true, predicted = true[is_finite].astype(np.float64), predicted[is_finite].astype(np.float64)
    if not len(true):
        axes.set(xticks=[], yticks=[], frame_on=False)
        axes.text(0.5, 0.5, "no finite predictions", ha="center", va="center", transform=axes.transAxes)
        return
    low, high = min(true.min(), predicted.min()), max(true.max(), predicted.max())
    room = 0.04 * (high - low) or 0.5 * (abs(high) or 1.0)
    limits = (low - room, high + room)
    axes.plot(limits, limits, color=FAINT, lw=1.0, ls=(0, (4, 2)), zorder=1)
    alpha = min(0.8, max(0.12, 60 / math.sqrt(len(true)) / 10))
    axes.plot(true, predicted, ls="", marker="o", ms=3.5, mew=0, color=TRAINING, alpha=alpha, zorder=2)
    axes.set(xlim=limits, ylim=limits, xlabel="true", ylabel="predicted", box_aspect=1)
    plain_ticks(axes.xaxis, limits, most=6)
    plain_ticks(axes.yaxis, limits)
    axes.grid()
