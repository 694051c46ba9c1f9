"""Predicted classes beside true ones: as counts, and as a picture that shows the errors."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpunn.errors import DataError, ShapeError
from gpunn.reports.style import FAINT, INK, colour_bar, percent, picture, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Numbers in the cells of more classes could not be read.
_MOST_WRITTEN = 20
# An error share of this much is fully coloured at least: one slip in a good matrix must not look like a disaster.
_LEAST_FULL = 0.02
# Below 1 it lifts rare errors off the white.
_POWER = 0.7


def confusion_matrix(labels: ArrayLike, predicted: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Count how often class i was taken for class j: n_ij = #{k : labels_k = i, predicted_k = j}, for classes (n,)."""
    given = {"labels": np.asarray(labels), "predictions": np.asarray(predicted)}
    true, answers = given.values()
    if true.ndim != 1 or true.shape != answers.shape:
        raise ShapeError(f"expected labels and predictions of one shape (n,), got {true.shape} and {answers.shape}")
    for name, values in given.items():
        if values.size and values.dtype.kind not in "iu":
            raise DataError(f"expected whole numbers as {name}, got {values.dtype}: use argmax for the classes")
        if values.size and not 0 <= values.min() <= values.max() < classes:
            raise DataError(f"expected {name} from 0 to {classes - 1}, got {values.min()} to {values.max()}")
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (true.astype(np.int64), answers.astype(np.int64)), 1)
    return counts


def plot_confusion(
    matrix: ArrayLike, class_names: Sequence[str], path: str | os.PathLike[str], title: str = ""
) -> None:
    """Draw a confusion matrix; right answers in blue, errors in an orange scale of their own.

    Colours are shares of a row. Were both on one scale, the diagonal would leave all errors white. Up to 20
    classes the counts stand in the cells, and the size and recall n_ii / Σ_j n_ij of each class beside its row.
    """
    import matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, PowerNorm

    counts, classes = np.asarray(matrix), len(class_names)
    if counts.shape != (classes, classes) or classes == 0:
        raise ShapeError(f"expected a matrix of ({classes}, {classes}) for {classes} names, got {counts.shape}")
    is_diagonal = np.eye(classes, dtype=bool)
    shares = counts / np.maximum(counts.sum(axis=1), 1)[:, None]
    errors = np.where(is_diagonal, 0.0, shares)
    full = max(float(errors.max()), _LEAST_FULL)
    oranges = ListedColormap(matplotlib.colormaps["Oranges"](np.linspace(0, 0.85, 256)))
    scale = ScalarMappable(PowerNorm(_POWER, vmin=0.0, vmax=full), oranges)
    colours = np.where(errors[..., None] > 0, scale.to_rgba(errors), (0.965, 0.965, 0.965, 1.0))
    colours[is_diagonal] = matplotlib.colormaps["Blues"](0.1 + 0.6 * np.diagonal(shares) ** 2)
    is_dark = np.where(is_diagonal, shares > 0.9, (errors / full) ** _POWER > 0.75)

    is_written = classes <= _MOST_WRITTEN
    names = [shortened(name) for name in class_names]
    longest = max(map(len, names))
    # In inches, as nothing else keeps the cells square and the columns beside them in line.
    side = max(2.2, 0.52 * classes) if is_written else 7.5
    left, below = 0.75 + 0.075 * longest, 0.75 + (0.055 * longest if longest > 3 else 0.0)
    beside = left + side + (1.9 if is_written else 0.3)
    width, height = max(beside + 1.25, 5.2), below + side + (0.9 if title else 0.6)
    with picture(path, width, height, title) as figure:
        figure.set_layout_engine("none")
        axes: Axes = figure.add_axes((left / width, below / height, side / width, side / height))
        axes.imshow(colours, interpolation="nearest")
        axes.spines[:].set_visible(False)
        _name_classes(axes, names)
        axes.set(xlabel="predicted class", ylabel="true class")
        total, right = int(counts.sum()), int(np.trace(counts))
        heading = f"{right:,} of {total:,} right ({100 * right / total:.2f} %)" if total else "no samples"
        axes.set_title(heading, fontsize=10.5, pad=10)
        if is_written:
            places = np.arange(classes - 1) + 0.5
            axes.set_xticks(places, minor=True)
            axes.set_yticks(places, minor=True)
            axes.grid(which="minor", color="white", linewidth=1.5)
            axes.tick_params(which="both", length=0)
            _write_counts(axes, counts, is_dark)
            _write_recalls(axes, counts, side)
        long = min(side, 4.0)
        place = (beside / width, (below + (side - long) / 2) / height, 0.16 / width, long / height)
        bar = colour_bar(figure, scale, 9.0, cax=figure.add_axes(place))
        ticks = (0.0, full / 4, full / 2, full)
        words = [f"{100 * tick:.1f} %" if 0 < tick < 0.0995 else percent(tick) for tick in ticks]
        bar.set_ticks(ticks, labels=words)
        bar.set_label("errors, as a share of the true class", fontsize=9.0)


def _name_classes(axes: "Axes", names: Sequence[str]) -> None:
    step = -(-len(names) // 34)
    places, shown = np.arange(0, len(names), step), names[::step]
    size = 9.0 if len(names) <= _MOST_WRITTEN else 7.5
    axes.set_xticks(places, shown, fontsize=size)
    axes.set_yticks(places, shown, fontsize=size)
    if max(map(len, shown)) > 3:
        for label in axes.get_xticklabels():
            label.set(rotation=45, ha="right", rotation_mode="anchor")


def _write_counts(axes: "Axes", counts: NDArray[Any], is_dark: NDArray[Any]) -> None:
    """Write the counts into their cells."""
    size = 9.0 if len(str(counts.max())) <= 4 else 7.0
    for row, column in np.argwhere(counts > 0):
        weight = "bold" if row == column else "normal"
        color = "white" if is_dark[row, column] else INK
        look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": size, "fontweight": weight, "color": color}
        axes.text(column, row, f"{counts[row, column]}", **look)


def _write_recalls(axes: "Axes", counts: NDArray[Any], side: float) -> None:
    """Write two columns beside the matrix, at the same distance in inches whatever the size of a cell."""
    cells, edge = len(counts) / side, len(counts) - 0.5
    samples, recall = edge + 0.45 * cells, edge + 1.15 * cells
    for place, heading in ((samples, "samples"), (recall, "recall")):
        axes.text(place, -0.5 - 0.12 * cells, heading, ha="center", va="bottom", fontsize=8.5, color=FAINT)
    for row, total in enumerate(counts.sum(axis=1)):
        axes.text(samples, row, f"{total:,}", ha="center", va="center", fontsize=8.5, color=FAINT)
        share = f"{100 * counts[row, row] / total:.1f} %" if total else "–"
        axes.text(recall, row, share, ha="center", va="center", fontsize=9.0)
