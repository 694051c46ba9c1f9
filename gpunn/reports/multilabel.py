"""Draw the right and wrong answers of a multilabel network, and its worst mistakes."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpunn.config.scalars import positive_whole
from gpunn.data import Samples
from gpunn.display.style import FAINT, INK, checked_title, picture, place, title_room
from gpunn.display.text import short_names, shortened, width_of, wrapped
from gpunn.errors import OptionError
from gpunn.files import StrPath
from gpunn.reports.predictions import Cells, counted_mistakes, draw_worst, numbers_in, separate_cells
from gpunn.train.outputs_report import MultilabelReport
from gpunn.train.table import MOST_ROWS, decimal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WORDS = 26  # characters of the labels beside a sample
_COLUMNS = ("true 1\nanswered 1", "true 1\nanswered 0", "true 0\nanswered 1", "true 0\nanswered 0")


def draw_multilabel(report: MultilabelReport, path: StrPath | None, title: str) -> "Figure":
    """Draw true and false positives and negatives of each output, a row per output; of many, those of lowest F1."""
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
        separate_cells(axes, rows, len(_COLUMNS))
        for row, column in np.argwhere(counts > 0):
            color = "white" if cells.is_dark[row, column] else INK
            axes.text(column, row, texts[row][column], size=size, color=color, ha="center", va="center")
        axes.text(3.9, -0.62, "F1", ha="center", va="bottom", size=9.0, color=FAINT)
        for row, value in enumerate(report.f1[shown]):
            axes.text(3.9, row, decimal(value)[:5], ha="center", va="center", size=9.0)
        figure.supxlabel(told, y=0.1 / height, fontsize=9.0, color=FAINT)
        cells.draw_scale(figure, left + across + 0.7, above, max(high, 1.3))
    return figure


def draw_multilabel_mistakes(
    samples: Samples,
    targets: NDArray[Any],
    outputs: NDArray[Any],
    names: Sequence[str],
    path: StrPath | None,
    count: int,
    title: str,
) -> "Figure":
    """Draw the samples with a wrong output, those of highest binary cross-entropy first."""
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
