"""The figures of a task over the epochs of a run, with its best record and where overfitting began."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpunn.errors import OptionError, ShapeError
from gpunn.nn.tasks import FIGURES
from gpunn.reports.style import BEST, OVERFITTING, RATE, TRAINING, VALIDATION, light_grid, picture
from gpunn.train.history import History
from gpunn.train.record import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SERIES = {"train": ("training", TRAINING), "validation": ("validation", VALIDATION)}
_REFERENCE_KEYS = {
    "name", "epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy"
}  # fmt: skip


def plot_curves(
    history: History,
    path: str | os.PathLike[str],
    *,
    title: str = "",
    reference: Mapping[str, Any] | None = None,
) -> None:
    """Draw loss and accuracy (for regression RMSE and R²) over the epochs; the learning rate where that changed.

    Loss and RMSE are on a logarithmic axis where they span more than two decades.

    Args:
        history: what was recorded.
        path: the PNG to write.
        title: what the picture is of.
        reference: curves of somebody else's run, drawn dashed over ours: lists under `train_loss`,
            `train_accuracy`, `validation_loss`, `validation_accuracy`, each optional, at the epochs
            under `epoch` (1, 2, … where missing); `name` says whose.

    Raises:
        OptionError: if `reference` has a key that is none of these.
        ShapeError: if a list of it is not as long as its epochs.
        OutputError: if the file cannot be written.
    """
    curves = {name: _column(history, name) for name in Record.__dataclass_fields__}
    published = _reference(reference or {})
    rates = curves["learning_rate"]
    schedule = bool(np.unique(rates[np.isfinite(rates)]).size > 1)
    there = (curves, published)
    measures = [
        name
        for name in FIGURES
        if name == "loss" or any(_drawable(both.get(f"{part}_{name}")) for part in _SERIES for both in there)
    ]
    with picture(path, 5.4 * len(measures) if len(measures) > 1 else 7.0, 5.6 if schedule else 4.5, title) as figure:
        if not len(history) and not published:
            axes = figure.add_subplot()
            axes.set_axis_off()
            axes.text(0.5, 0.5, "No records yet", ha="center", va="center", fontsize=14)
            return
        grid = figure.add_gridspec(2 if schedule else 1, len(measures), height_ratios=[4.2, 1] if schedule else [1])
        panels = [figure.add_subplot(grid[0, place]) for place in range(len(measures))]
        for axes, measure in zip(panels, measures, strict=True):
            _draw_measure(axes, measure, curves, published)
            _mark(axes, history, measure)
            if not schedule:
                axes.set_xlabel("epoch")
        if schedule:
            for place in range(len(measures)):
                _draw_rate(figure.add_subplot(grid[1, place], sharex=panels[place]), curves, words=place == 0)
        _legend(figure, panels[0])


def _column(history: History, name: str) -> NDArray[np.float64]:
    return np.array([float(getattr(record, name)) for record in history], dtype=np.float64)


def _reference(given: Mapping[str, Any]) -> dict[str, Any]:
    unknown = sorted(set(given) - _REFERENCE_KEYS)
    if unknown:
        raise OptionError(f"expected a reference of {', '.join(sorted(_REFERENCE_KEYS))}, got {unknown[0]!r}")
    lists = {key: np.asarray(value, dtype=np.float64) for key, value in given.items() if key != "name"}
    if not lists:
        return {}
    longest = max(len(values) for values in lists.values())
    lists.setdefault("epoch", np.arange(1.0, longest + 1))
    for key, values in lists.items():
        if values.shape != lists["epoch"].shape:
            raise ShapeError(
                f"expected reference {key!r} of shape {lists['epoch'].shape} as its epochs, got {values.shape}"
            )
    return {**lists, "name": str(given.get("name", "published"))}


def _drawable(values: NDArray[np.float64] | None) -> bool:
    return values is not None and bool(np.isfinite(values).any())


def _draw_measure(axes: "Axes", measure: str, curves: Mapping[str, Any], published: Mapping[str, Any]) -> None:
    scale = 100.0 if measure == "accuracy" else 1.0
    drawn: list[NDArray[np.float64]] = []
    for part, (word, color) in _SERIES.items():
        key = f"{part}_{measure}"
        if _drawable(curves[key]):
            # Of few records each is shown; one alone would not be seen as a line.
            few = "o" if len(curves[key]) <= 15 else ""
            axes.plot(
                curves["epoch"],
                scale * curves[key],
                color=color,
                lw=1.7,
                marker=few,
                ms=4,
                label=word,
                zorder=3,
            )
            drawn.append(scale * curves[key])
        if _drawable(published.get(key)):
            axes.plot(
                published["epoch"], scale * published[key], color=color, lw=1.2, ls=(0, (4, 2)), alpha=0.65,
                label=f"{word}, {published['name']}", zorder=2,
            )  # fmt: skip
            drawn.append(scale * published[key])
    light_grid(axes)
    axes.set_title(FIGURES[measure])
    if measure == "accuracy":
        axes.set_ylabel("right answers (%)")
    elif measure == "r2":
        axes.set_ylabel("share of the variance that is explained")
        _leave_out_below(axes, -1.0, drawn)
    else:
        _scale_cost(axes, drawn, "mean loss per sample" if measure == "loss" else "root mean squared error")
    axes.margins(x=0.02)
    axes.set_xlim(left=0.0)


def _leave_out_below(axes: "Axes", bottom: float, drawn: Sequence[NDArray[np.float64]]) -> None:
    """Do not let the first records, far below, press the rest together."""
    values = np.concatenate(drawn) if drawn else np.empty(0)
    if (values < bottom).any() and (values > bottom).any():
        axes.set_ylim(bottom=bottom)


def _scale_cost(axes: "Axes", drawn: Sequence[NDArray[np.float64]], words: str) -> None:
    values = np.concatenate(drawn) if drawn else np.empty(0)
    values = values[np.isfinite(values)]
    if values.size and values.min() > 0 and values.max() / values.min() > 100:
        axes.set_yscale("log")
        # 0.01 rather than a power of ten: mathematical text is off, see the style.
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_ylabel(f"{words} (log scale)")
    else:
        axes.set_ylabel(words)


def _mark(axes: "Axes", history: History, measure: str) -> None:
    """The best record as a ring, and the time since which the model overfits as a tinted field."""
    best, since = history.best, history.overfitting_since
    validated = best is not None and math.isfinite(best.validation_loss)
    if best is not None:
        part = "validation" if validated else "train"
        value = getattr(best, f"{part}_{measure}") * (100.0 if measure == "accuracy" else 1.0)
        if math.isfinite(value):
            shown = f"{value:.2f} %" if measure == "accuracy" else f"{value:.4g}"
            axes.plot(
                best.epoch, value, ls="", marker="o", ms=9, mfc="white", mec=BEST, mew=2.2, zorder=5, clip_on=False,
                label=f"lowest {_SERIES[part][0]} loss: step {best.step}, epoch {best.epoch:.4g}",
            )  # fmt: skip
            _say_value(axes, best.epoch, value, shown)
    if since is not None:
        axes.axvspan(since.epoch, history[-1].epoch, color=OVERFITTING, alpha=0.07, lw=0, zorder=0)
        axes.axvline(
            since.epoch, color=OVERFITTING, lw=1.3, ls=(0, (1, 1)), zorder=1,
            label=f"overfitting (high variance) since step {since.step}, epoch {since.epoch:.4g}",
        )  # fmt: skip


def _say_value(axes: "Axes", epoch: float, value: float, shown: str) -> None:
    axes.get_ylim()  # which brings the limits up to date
    across = axes.transAxes.inverted().transform(axes.transData.transform((epoch, value)))[0]
    right = across > 0.75
    axes.annotate(
        shown, (epoch, value), xytext=(-9 if right else 9, _free_place(axes, epoch, value, right)),
        textcoords="offset points", va="center", ha="right" if right else "left", color=BEST, fontsize=9.5,
        fontweight="bold", zorder=6,
        bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.75},
    )  # fmt: skip


def _free_place(axes: "Axes", epoch: float, value: float, right: bool) -> float:
    """How far above a point, in points, words beside it cross neither a curve nor the axis; just below, if they can."""
    scale = 72 / axes.get_figure(root=True).dpi  # type: ignore[union-attr]
    x, y = axes.transData.transform((epoch, value)) * scale
    bottom, top = (axes.transAxes.transform((0.0, up))[1] * scale for up in (0.0, 1.0))
    beside = x + np.linspace(9, 52, 12) * (-1 if right else 1)
    curves = [axes.transData.transform(line.get_xydata()) * scale for line in axes.lines]
    heights = [
        np.interp(beside, curve[:, 0], curve[:, 1], left=np.nan, right=np.nan) for curve in curves if len(curve) > 1
    ]
    for distance in (-12.0, 14.0, -24.0, 26.0, 38.0):
        at = y + distance
        if bottom + 9 < at < top - 7 and not any((np.abs(height - at) < 9).any() for height in heights):
            return distance
    return -12.0 if y - 12 > bottom + 9 else 14.0


def _draw_rate(axes: "Axes", curves: Mapping[str, Any], *, words: bool) -> None:
    axes.plot(curves["epoch"], curves["learning_rate"], color=RATE, lw=1.4)
    light_grid(axes)
    axes.set_ylim(bottom=0.0)
    if words:
        axes.set_ylabel("learning\nrate η")
    axes.set_xlabel("epoch")


def _legend(figure: "Figure", axes: "Axes") -> None:
    """One legend for all the panels, below them, where it hides nothing."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=min(2, len(handles)))
