"""What the network said for each true class: as counts, and as a picture that shows the errors."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpunn.errors import DataError, ShapeError
from gpunn.reports.style import FAINT, INK, percent, picture, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Beyond, numbers in the cells could not be read.
_MOST_WRITTEN = 20
# An error share of this much is fully coloured at least: one slip in a good matrix must not look like a disaster.
_LEAST_FULL = 0.02
# Below 1 it lifts rare errors off the white.
_POWER = 0.7


def confusion_matrix(labels: ArrayLike, predicted: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Count how often class i was taken for class j: n_ij = #{k : labels_k = i, predicted_k = j}.

    Args:
        labels: (n,) true classes, whole numbers from 0.
        predicted: (n,) the network's answers.
        classes: number of classes.

    Returns:
        (classes, classes) counts; a row for each true class, a column for each answer.

    Raises:
        ShapeError: if the two are not one-dimensional of the same length.
        DataError: if a class is not a whole number from 0 to classes − 1.
    """
    true, said = np.asarray(labels), np.asarray(predicted)
    if true.ndim != 1 or true.shape != said.shape:
        raise ShapeError(f"expected labels and predictions of one shape (n,), got {true.shape} and {said.shape}")
    for name, values in (("labels", true), ("predictions", said)):
        if values.size == 0:
            continue
        if values.dtype.kind not in "iu":
            raise DataError(f"expected whole numbers as {name}, got {values.dtype}: use argmax for the classes")
        if values.min() < 0 or values.max() >= classes:
            raise DataError(f"expected {name} from 0 to {classes - 1}, got {values.min()} to {values.max()}")
    cells = true.astype(np.int64) * classes + said.astype(np.int64)
    return np.bincount(cells, minlength=classes * classes).astype(np.int64).reshape(classes, classes)


def plot_confusion(
    matrix: ArrayLike, class_names: Sequence[str], path: str | os.PathLike[str], title: str = ""
) -> None:
    """Draw a confusion matrix; right answers in blue, errors in an orange scale of their own.

    Colours are shares of a row. Were both on one scale, the diagonal would leave all errors white. Up to 20
    classes the counts stand in the cells, and the size and recall n_ii / Σ_j n_ij of each class beside its row.

    Args:
        matrix: (classes, classes) counts of `confusion_matrix`.
        class_names: a name for each class.
        path: the PNG to write.
        title: what the picture is of.

    Raises:
        ShapeError: if the matrix is not square, or there is not one name a class.
        OutputError: if the file cannot be written.
    """
    counts = np.asarray(matrix)
    classes = len(class_names)
    if counts.shape != (classes, classes) or classes == 0:
        raise ShapeError(f"expected a matrix of ({classes}, {classes}) for {classes} names, got {counts.shape}")
    totals = counts.sum(axis=1)
    shares = counts / np.maximum(totals, 1)[:, None]
    errors = np.where(np.eye(classes, dtype=bool), 0.0, shares)
    full = max(float(errors.max()), _LEAST_FULL)
    written = classes <= _MOST_WRITTEN
    names = [shortened(name) for name in class_names]
    longest = max(map(len, names))
    # In inches, as nothing else keeps the cells square and the columns beside them in line.
    side = max(2.2, 0.52 * classes) if written else 7.5
    left = 0.75 + 0.075 * longest
    below = 0.75 + (0.055 * longest if longest > 3 else 0.0)
    beside = 1.9 if written else 0.3
    width, height = left + side + beside + 1.25, below + side + (0.9 if title else 0.6)
    with picture(path, max(width, 5.2), height, title) as figure:
        figure.set_layout_engine("none")
        width = max(width, 5.2)
        axes: Axes = figure.add_axes((left / width, below / height, side / width, side / height))
        axes.imshow(_colours(shares, errors, full), interpolation="nearest")
        axes.spines[:].set_visible(False)
        _name_classes(axes, names)
        axes.set_xlabel("said by the network")
        axes.set_ylabel("true class")
        total = int(counts.sum())
        right = int(np.trace(counts))
        heading = f"{right:,} of {total:,} right ({100 * right / total:.2f} %)" if total else "no samples"
        axes.set_title(heading, fontsize=10.5, pad=10)
        if written:
            axes.set_xticks(np.arange(classes - 1) + 0.5, minor=True)
            axes.set_yticks(np.arange(classes - 1) + 0.5, minor=True)
            axes.grid(which="minor", color="white", linewidth=1.5)
            axes.tick_params(which="both", length=0)
            _write_counts(axes, counts, shares, errors, full)
            _write_recalls(axes, counts, totals, side)
        bar = min(side, 4.0)
        place = ((left + side + beside) / width, (below + (side - bar) / 2) / height, 0.16 / width, bar / height)
        _error_scale(figure, figure.add_axes(place), full)


def _colours(shares: NDArray[Any], errors: NDArray[Any], full: float) -> NDArray[Any]:
    """(classes, classes, 4) colours: blue by recall on the diagonal, orange by a power of the share beside it."""
    import matplotlib

    blues, oranges = matplotlib.colormaps["Blues"], matplotlib.colormaps["Oranges"]
    colours = np.asarray(oranges(0.85 * (errors / full) ** _POWER))
    colours[errors == 0] = (0.965, 0.965, 0.965, 1.0)
    diagonal = np.arange(len(shares))
    colours[diagonal, diagonal] = blues(0.1 + 0.6 * np.diagonal(shares) ** 2)
    return colours


def _name_classes(axes: "Axes", names: Sequence[str]) -> None:
    step = -(-len(names) // 34)
    places = np.arange(0, len(names), step)
    shown = [names[int(place)] for place in places]
    size = 9.0 if len(names) <= _MOST_WRITTEN else 7.5
    axes.set_xticks(places, shown, fontsize=size)
    axes.set_yticks(places, shown, fontsize=size)
    if max(map(len, shown)) > 3:
        for label in axes.get_xticklabels():
            label.set(rotation=45, ha="right", rotation_mode="anchor")


def _write_counts(axes: "Axes", counts: NDArray[Any], shares: NDArray[Any], errors: NDArray[Any], full: float) -> None:
    size = 9.0 if len(str(counts.max())) <= 4 else 7.0
    for row, column in np.argwhere(counts > 0):
        right = row == column
        dark = shares[row, column] > 0.9 if right else (errors[row, column] / full) ** _POWER > 0.75
        axes.text(
            column,
            row,
            f"{counts[row, column]}",
            ha="center",
            va="center",
            fontsize=size,
            fontweight="bold" if right else "normal",
            color="white" if dark else INK,
        )


def _write_recalls(axes: "Axes", counts: NDArray[Any], totals: NDArray[Any], side: float) -> None:
    """Two columns of text beside the matrix, at the same distance in inches whatever the size of a cell."""
    cells = len(totals) / side
    samples, recall = len(totals) - 0.5 + 0.45 * cells, len(totals) - 0.5 + 1.15 * cells
    for place, heading in ((samples, "samples"), (recall, "recall")):
        axes.text(place, -0.5 - 0.12 * cells, heading, ha="center", va="bottom", fontsize=8.5, color=FAINT)
    for row, total in enumerate(totals):
        axes.text(samples, row, f"{total:,}", ha="center", va="center", fontsize=8.5, color=FAINT)
        share = f"{100 * counts[row, row] / total:.1f} %" if total else "–"
        axes.text(recall, row, share, ha="center", va="center", fontsize=9.0)


def _error_scale(figure: "Figure", axes: "Axes", full: float) -> None:
    """A legend for the orange of the errors."""
    import matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, PowerNorm

    oranges = ListedColormap(matplotlib.colormaps["Oranges"](np.linspace(0, 0.85, 256)))
    norm = PowerNorm(_POWER, vmin=0.0, vmax=full)
    bar = figure.colorbar(ScalarMappable(norm, oranges), cax=axes)
    ticks = [0.0, full / 4, full / 2, full]
    bar.set_ticks(ticks, labels=[percent_of(tick) for tick in ticks])
    bar.set_label("errors, as a share of the true class", fontsize=9.0)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=3.0, color=FAINT)


def percent_of(share: float) -> str:
    """A share with one decimal where it is small."""
    return f"{100 * share:.1f} %" if 0 < share < 0.0995 else percent(share)
