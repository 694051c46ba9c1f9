"""Draw the metrics of a run over its epochs, with the best record and the start of overfitting."""

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpunn.display.style import (
    BEST,
    FAINT,
    OVERFITTING,
    RATE,
    TRAINING,
    VALIDATION,
    picture,
    plain_ticks,
    title_room,
    write_alone,
)
from gpunn.display.text import drawable, fitted, width_of
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
_MOST_OWN = 3  # number of the user's own metrics that are drawn
_SCALES = {"accuracy": 100.0}  # in per cent


class Recorded(Protocol):
    """Attributes of a `History` that are drawn; `history.py` imports this file, which cannot import it back."""

    best: Record | None
    overfitting_since: Record | None

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Record]: ...
    def __getitem__(self, index: int, /) -> Record: ...


def plot_curves(
    history: Recorded, path: StrPath | None, *, title: str = "", reference: Mapping[str, Any] | None = None
) -> "Figure":
    """Draw loss and accuracy (for regression RMSE and R²) over the epochs, and a learning rate that changes.

    A `reference` is drawn dashed: lists under `train_loss`, `train_accuracy`, `validation_loss` and
    `validation_accuracy`, each optional, at the epochs under `epoch`, by default 1, 2, …; `name` is its label.
    """
    own = list(dict.fromkeys(name for record in history for name in record.metrics))
    ours = {key: np.array([record.number(key) for record in history], float) for key in COLUMNS}
    ours |= {f"validation_{name}": np.array([record.number(name) for record in history], float) for name in own}
    theirs = _checked({} if reference is None else reference)
    has_schedule = np.unique(ours["learning_rate"][np.isfinite(ours["learning_rate"])]).size > 1
    known = {key for curves in (ours, theirs) for key in curves if _is_known(curves, key)}
    measures = [name for name in FIGURES if name == "loss" or known.intersection(f"{part}_{name}" for part in _PARTS)]
    measures += [name for name in own if f"validation_{name}" in known][:_MOST_OWN]
    width, height = 5.4 * len(measures) if len(measures) > 1 else 7.0, 5.1 if has_schedule else 4.0
    if not len(history) and not theirs:
        with picture(path, 5.0, 1.6, title) as figure:
            write_alone(figure, "No records yet")
        return figure
    if not known.intersection(f"{part}_{name}" for part in _PARTS for name in measures):
        with picture(path, 5.0, 1.6, title) as figure:
            write_alone(figure, f"No finite figure in {len(history):,} record{'s' if len(history) > 1 else ''}")
        return figure
    with picture(path, width, height + title_room(title, width), title) as figure:
        grid = figure.add_gridspec(1 + has_schedule, len(measures), height_ratios=[4.2, 1][: 1 + has_schedule])
        panels = [figure.add_subplot(grid[0, place]) for place in range(len(measures))]
        for axes, measure in zip(panels, measures, strict=True):
            _draw_measure(axes, measure, ours, theirs)
            _mark(axes, history, measure)
            axes.set_xlabel("epoch")
        if has_schedule:  # one for all panels, below them
            _draw_rate(figure.add_subplot(grid[1, :]), ours)
        # One legend for all panels, below them, where it hides nothing.
        legends = (axes.get_legend_handles_labels() for axes in panels)
        named = {label: handle for legend in legends for handle, label in zip(*legend, strict=True)}
        labels = {fitted(drawable(label), width - 1.0, 9.0): handle for label, handle in named.items()}
        columns = 2 if 2 * max(width_of(label, 9.0) for label in labels) + 1.6 < width else 1
        figure.legend(labels.values(), labels, loc="outside lower center", ncols=min(columns, len(labels)))
    return figure


def _draw_rate(axes: "Axes", ours: Mapping[str, Any]) -> None:
    rates = ours["learning_rate"]
    highest = float(np.max(rates[np.isfinite(rates)]))
    axes.plot(ours["epoch"], rates, color=RATE, lw=1.4)
    axes.set(ylim=(0.0, 1.15 * highest), xlim=(0.0, None), xmargin=0.02, ylabel="learning\nrate η", xlabel="epoch")
    axes.set_yticks([0.0, highest], ["0", f"{highest:.3g}"])
    axes.grid()


def _checked(reference: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the lists of a reference to arrays, and check its keys and lengths."""
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
    # The training line is broader, so that it shows behind an equal validation line.
    broad: dict[str, Any] = {"train": 2.6, "validation": 1.5}
    dashed: dict[str, Any] = {"lw": 1.2, "ls": (0, (4, 2)), "alpha": 0.65, "zorder": 2}
    for part, (word, color) in _PARTS.items():
        if _is_known(ours, key := f"{part}_{measure}"):
            values = _SCALES.get(measure, 1) * ours[key]
            dots = _alone(values)
            axes.plot(ours["epoch"], values, color=color, label=word, lw=broad[part], zorder=3)
            axes.plot(ours["epoch"][dots], values[dots], ls="", marker="o", ms=4, color=color, zorder=3)
        if _is_known(theirs, key):
            label = f"{word}, {theirs['name']}"
            axes.plot(theirs["epoch"], _SCALES.get(measure, 1) * theirs[key], color=color, label=label, **dashed)
    axes.grid()
    name = fitted(drawable(measure), 2.0, 11.0)
    axes.set(title=FIGURES.get(measure, name), ylabel=_AXES.get(measure, name), xmargin=0.02, xlim=(0.0, None))
    values = np.concatenate([np.asarray(line.get_ydata(), float) for line in axes.lines] or [np.empty(0)])
    values = values[np.isfinite(values)]
    if measure == "r2" and (values < -1.0).any() and (values > -1.0).any():
        axes.set_ylim(bottom=-1.0)  # first records far below would squeeze the rest
    elif measure in ("loss", "rmse") and values.size and 0 < 100 * values.min() < values.max():
        axes.set(yscale="log", ylabel=f"{_AXES[measure]} (log scale)")
        axes.yaxis.set_major_formatter("{x:g}")  # 0.01, not a power of ten: mathematical text is off, see the style
    elif values.size:
        plain_ticks(axes.yaxis, (float(values.min()), float(values.max())))
    else:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "not finite", ha="center", va="center", color=FAINT, transform=axes.transAxes)


def _alone(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which records get a dot: all of a few, else those without a finite neighbour, which no line shows."""
    is_known: NDArray[np.bool_] = np.isfinite(values)
    if len(values) > 15:
        before, after = np.append(False, is_known[:-1]), np.append(is_known[1:], False)
        is_known &= ~(before | after)
    return is_known


def _mark(axes: "Axes", history: Recorded, measure: str) -> None:
    """Mark the best record by a ring with its value above the panel, and overfitting by a tinted area."""
    best, since = history.best, history.overfitting_since
    if best is not None:
        part = "validation" if math.isfinite(best.validation_loss) else "train"
        value = _SCALES.get(measure, 1) * best.number(f"{part}_{measure}" if measure in FIGURES else measure)
        if math.isfinite(value):
            axes.plot(
                best.epoch, value, ls="", marker="o", ms=9, mfc="white", mec=BEST, mew=2.2, zorder=5, clip_on=False,
                label=f"lowest {_PARTS[part][0]} loss: step {best.step}, epoch {best.epoch:.4g}",
            )  # fmt: skip
            # Above the panel, where it covers no curve.
            axes.set_title(f"○ {_told(measure, value, axes)}", loc="right", color=BEST, fontsize=10.0, weight="bold")
    if since is not None:
        axes.axvspan(since.epoch, history[-1].epoch, color=OVERFITTING, alpha=0.07, lw=0, zorder=0)
        axes.axvline(
            since.epoch, color=OVERFITTING, lw=1.3, ls=(0, (1, 1)), zorder=1,
            label=f"overfitting (high variance) since step {since.step}, epoch {since.epoch:.4g}",
        )  # fmt: skip


def _told(measure: str, value: float, axes: "Axes") -> str:
    """Write a value with at least four digits, more where the panel shows a narrow range."""
    if measure == "accuracy":
        return f"{value:.2f} %"
    low, high = axes.get_ylim()
    further = math.log10(max(abs(value) / abs(high - low), 1.0)) if high != low else 0.0
    return f"{value:.{min(10, 4 + math.floor(further))}g}"
