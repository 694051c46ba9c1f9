"""The figures of a task over the epochs of a run, with its best record and the start of overfitting."""

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from gpunn.display.style import BEST, OVERFITTING, RATE, TRAINING, VALIDATION, picture, write_alone
from gpunn.errors import OptionError, ShapeError
from gpunn.files import StrPath
from gpunn.nn.tasks import FIGURES
from gpunn.train.record import COLUMNS, Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVES = "curves.png"
_PARTS = {"train": ("training", TRAINING), "validation": ("validation", VALIDATION)}
_REFERENCE_KEYS = sorted(("name", "epoch", *(f"{part}_{name}" for part in _PARTS for name in ("loss", "accuracy"))))
_AXES = {
    "loss": "mean loss per sample",
    "accuracy": "right answers (%)",
    "rmse": "root mean squared error",
    "r2": "explained share of the variance",
}
_MOST_OWN = 3  # metrics from outside that are drawn
_SCALES = {"accuracy": 100.0}  # in per cent


class Recorded(Protocol):
    """The part of a `History` that is drawn; a history draws itself, so that this file cannot import it."""

    best: Record | None
    overfitting_since: Record | None

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Record]: ...
    def __getitem__(self, index: int, /) -> Record: ...


def plot_curves(
    history: Recorded, path: StrPath | None, *, title: str = "", reference: Mapping[str, Any] | None = None
) -> "Figure":
    """Draw loss and accuracy (for regression RMSE and R²) over the epochs, and a learning rate that changes.

    A `reference` is drawn dashed beside these: lists under `train_loss`, `train_accuracy`, `validation_loss` and
    `validation_accuracy`, each optional, at the epochs under `epoch` (1, 2, … where missing); `name` says whose.
    """
    own = list(dict.fromkeys(name for record in history for name in record.metrics))
    ours = {key: np.array([record.number(key) for record in history], float) for key in COLUMNS}
    ours |= {f"validation_{name}": np.array([record.number(name) for record in history], float) for name in own}
    theirs = _checked({} if reference is None else reference)
    has_schedule = np.unique(ours["learning_rate"][np.isfinite(ours["learning_rate"])]).size > 1
    known = {key for curves in (ours, theirs) for key in curves if _is_known(curves, key)}
    measures = [name for name in FIGURES if name == "loss" or known.intersection(f"{part}_{name}" for part in _PARTS)]
    measures += [name for name in own if f"validation_{name}" in known][:_MOST_OWN]
    width, height = 5.4 * len(measures) if len(measures) > 1 else 7.0, 5.6 if has_schedule else 4.5
    if not len(history) and not theirs:
        with picture(path, 5.0, 1.6, title) as figure:
            write_alone(figure, "No records yet")
        return figure
    with picture(path, width, height, title) as figure:
        grid = figure.add_gridspec(1 + has_schedule, len(measures), height_ratios=[4.2, 1][: 1 + has_schedule])
        panels = [figure.add_subplot(grid[0, place]) for place in range(len(measures))]
        for axes, measure in zip(panels, measures, strict=True):
            _draw_measure(axes, measure, ours, theirs)
            axes.set_xlabel("epoch")
        if has_schedule:  # one for all the panels, below them
            axes = figure.add_subplot(grid[1, :])
            axes.plot(ours["epoch"], ours["learning_rate"], color=RATE, lw=1.4)
            axes.set(ylim=(0.0, None), xlim=(0.0, None), xmargin=0.02, ylabel="learning\nrate η", xlabel="epoch")
            axes.grid()
        figure.draw_without_rendering()  # values are written where there is room, so the panels must have their places
        for axes, measure in zip(panels, measures, strict=True):
            _mark(axes, history, measure)
        # One legend for all the panels, below them, where it hides nothing.
        handles, labels = figure.axes[0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside lower center", ncols=min(2, len(handles)))
    return figure


def _checked(reference: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a reference's lists into arrays, and check its keys and lengths."""
    if not isinstance(reference, Mapping):
        raise OptionError(f"a reference is a table of lists such as validation_loss, got {type(reference).__name__}")
    if unknown := sorted(set(map(str, reference)).difference(_REFERENCE_KEYS)):
        raise OptionError(f"expected a reference of {', '.join(_REFERENCE_KEYS)}, got {unknown[0]!r}")
    try:
        lists = {key: np.asarray(value, dtype=np.float64) for key, value in reference.items() if key != "name"}
    except (TypeError, ValueError, OverflowError):
        raise OptionError("a reference has lists of numbers, got something else among them") from None
    if any(values.ndim != 1 for values in lists.values()):
        raise ShapeError("a reference has lists of numbers, one an epoch, got arrays of another shape")
    if not lists:
        return {}
    epochs = lists.setdefault("epoch", np.arange(1.0, 1 + max(map(len, lists.values()))))
    for key, values in lists.items():
        if values.shape != epochs.shape:
            raise ShapeError(f"expected reference {key!r} of shape {epochs.shape} as its epochs, got {values.shape}")
    return {**lists, "name": str(reference.get("name", "published"))}


def _is_known(curves: Mapping[str, Any], key: str) -> bool:
    return key != "name" and bool(np.isfinite(curves.get(key, math.nan)).any())


def _draw_measure(axes: "Axes", measure: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    # Of few records each is shown; one alone would not be seen as a line.
    look: dict[str, Any] = {"lw": 1.7, "marker": "o" if len(ours["epoch"]) <= 15 else "", "ms": 4, "zorder": 3}
    dashed: dict[str, Any] = {"lw": 1.2, "ls": (0, (4, 2)), "alpha": 0.65, "zorder": 2}
    for part, (word, color) in _PARTS.items():
        for curves, style in ((ours, look), (theirs, dashed)):
            if _is_known(curves, key := f"{part}_{measure}"):
                label = word if curves is ours else f"{word}, {theirs['name']}"
                axes.plot(curves["epoch"], _SCALES.get(measure, 1) * curves[key], color=color, label=label, **style)
    axes.grid()
    axes.set(title=FIGURES.get(measure, measure), ylabel=_AXES.get(measure, measure), xmargin=0.02, xlim=(0.0, None))
    values = np.concatenate([np.asarray(line.get_ydata(), float) for line in axes.lines] or [np.empty(0)])
    values = values[np.isfinite(values)]
    if measure == "r2" and (values < -1.0).any() and (values > -1.0).any():
        axes.set_ylim(bottom=-1.0)  # first records far below would press the rest together
    elif measure in ("loss", "rmse") and values.size and 0 < 100 * values.min() < values.max():
        axes.set(yscale="log", ylabel=f"{_AXES[measure]} (log scale)")
        axes.yaxis.set_major_formatter("{x:g}")  # 0.01, not a power of ten: mathematical text is off, see the style


def _mark(axes: "Axes", history: Recorded, measure: str) -> None:
    """Mark the best record by a ring, and the time of overfitting by a tinted field."""
    best, since = history.best, history.overfitting_since
    if best is not None:
        part = "validation" if math.isfinite(best.validation_loss) else "train"
        value = _SCALES.get(measure, 1) * best.number(f"{part}_{measure}" if measure in FIGURES else measure)
        if math.isfinite(value):
            axes.plot(
                best.epoch, value, ls="", marker="o", ms=9, mfc="white", mec=BEST, mew=2.2, zorder=5, clip_on=False,
                label=f"lowest {_PARTS[part][0]} loss: step {best.step}, epoch {best.epoch:.4g}",
            )  # fmt: skip
            _write_value(axes, best.epoch, value, f"{value:.2f} %" if measure == "accuracy" else f"{value:.4g}")
    if since is not None:
        axes.axvspan(since.epoch, history[-1].epoch, color=OVERFITTING, alpha=0.07, lw=0, zorder=0)
        axes.axvline(
            since.epoch, color=OVERFITTING, lw=1.3, ls=(0, (1, 1)), zorder=1,
            label=f"overfitting (high variance) since step {since.step}, epoch {since.epoch:.4g}",
        )  # fmt: skip


def _write_value(axes: "Axes", epoch: float, value: float, words: str) -> None:
    """Write a value beside its point, where the words cross neither a curve nor the axis; just below, if they can."""
    axes.get_ylim()  # which brings the limits up to date
    points = 72 / axes.get_figure(root=True).dpi  # type: ignore[union-attr]
    x, y = axes.transData.transform((epoch, value)) * points
    (left, bottom), (right, top) = axes.get_window_extent().get_points() * points
    curves = [axes.transData.transform(line.get_xydata()) * points for line in axes.lines]
    first = -1 if x > left + 0.75 * (right - left) else 1
    places = [(side, distance) for side in (first, -first) for distance in (-12.0, 14.0, -24.0, 26.0, -38.0, 38.0)]

    def crossings(place: tuple[int, float]) -> tuple[bool, int]:
        """Whether the words would leave the axes, and how much of a curve they would cover."""
        side, distance = place
        beside, is_outside = x + side * np.linspace(9, 52, 12), not bottom + 9 < y + distance < top - 7
        heights = [np.interp(beside, curve[:, 0], curve[:, 1], math.nan, math.nan) for curve in curves]
        covered = sum(int(np.count_nonzero(np.abs(height - y - distance) < 9)) for height in heights)
        return is_outside or not left < beside[-1] < right, covered

    side, distance = min(places, key=crossings)  # the first of equals
    axes.annotate(
        words, (epoch, value), xytext=(9 * side, distance),
        textcoords="offset points", va="center", ha="right" if side < 0 else "left", color=BEST, fontsize=9.5,
        fontweight="bold", zorder=6,
        bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
    )  # fmt: skip
