"""Draw the numbers that a regression network predicts over the true ones, and its largest errors."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpunn.config.scalars import positive_whole
from gpunn.data import Samples
from gpunn.display.style import FAINT, TRAINING, checked_title, picture, plain_ticks, title_room
from gpunn.display.text import short_names, wrapped
from gpunn.files import StrPath
from gpunn.reports.predictions import draw_worst
from gpunn.train.metrics import errors_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANELS, _ACROSS = 6, 3
_POINTS = 5000  # in a panel; of more samples, every second or third is drawn


def draw_largest_errors(
    samples: Samples,
    targets: NDArray[Any],
    outputs: NDArray[Any],
    names: Sequence[str],
    path: StrPath | None,
    count: int,
    title: str,
) -> "Figure":
    """Draw the samples of largest error Σ ((a − y) / s)², with the standard deviations s of the targets."""
    count = positive_whole(count, "count of errors")
    deviations = targets.std(axis=0, dtype=np.float64)
    errors = np.abs(outputs - targets) / np.where(deviations > 0, deviations, 1.0)
    sizes = np.nan_to_num(np.square(errors).sum(axis=1), nan=math.inf)
    worst = np.argsort(-sizes, kind="stable")[:count]
    named = short_names([names[k] if names else f"output {k + 1}" for k in range(targets.shape[1])], 14)
    words = []
    for sample in worst:
        of = int(np.argmax(errors[sample]))  # the output of largest error
        name = "" if targets.shape[1] == 1 else f"{named[of]}: "
        words.append((f"{name}predicted {outputs[sample, of]:.4g}", f"true {targets[sample, of]:.4g}"))
    title = checked_title(title) or "Largest errors"
    which = "all" if len(worst) == len(targets) else f"the {len(worst)} furthest off among"
    heading = f"{which} {len(targets):,} samples" if len(targets) > 1 else "1 sample"
    return draw_worst(samples.inputs, worst, words, heading, path, title, samples.scale)


def draw_predictions(
    targets: NDArray[Any], outputs: NDArray[Any], names: Sequence[str], path: StrPath | None, title: str
) -> "Figure":
    """Draw predicted numbers over true ones, a panel per output; of many outputs, those of lowest R²."""
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
