"""Predicted classes beside true ones: how often each was taken for which, and the worst mistakes themselves."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpunn.data import Samples
from gpunn.data.memmap import Inputs, Rows
from gpunn.display.style import (
    FAINT,
    INK,
    LEAST_SIDE,
    VALIDATION,
    checked_title,
    draw_sample,
    limits_of,
    percent,
    picture,
    short_names,
    wrapped,
    write_alone,
)
from gpunn.errors import ShapeError
from gpunn.files import StrPath
from gpunn.scalars import positive_whole
from gpunn.train.metrics import confusion_matrix as confusion_matrix
from gpunn.train.report import ClassificationReport
from gpunn.train.table import amount

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

CONFUSION, MISTAKES = "confusion.png", "mistakes.png"
_MOST_WRITTEN = 20  # numbers in the cells of more classes could not be read
_LEAST_FULL = 0.02  # an error share fully coloured: one slip in a good matrix must not look like a disaster
_POWER = 0.7  # below 1 it lifts rare errors off the white
MOST_DRAWN = 1000  # classes of a matrix: of more, a class would be less than a pixel
MOST_SHOWN = 24


@dataclass(frozen=True, eq=False)
class Cells:
    """Colours of the cells of a matrix: right answers in blue, errors in an orange scale of their own.

    Attributes:
        colours: RGBA of each cell.
        is_dark: Whether its number is to be white.
        scale: Colours of errors by share, from 0 to `full`.
    """

    colours: NDArray[Any]
    is_dark: NDArray[Any]
    scale: "ScalarMappable"
    full: float

    @classmethod
    def of(cls, shares: NDArray[Any], is_right: NDArray[Any]) -> "Cells":
        """Colour cells by their shares of the true class."""
        import matplotlib
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import ListedColormap, PowerNorm

        errors = np.where(is_right, 0.0, shares)
        full = max(float(errors.max(initial=0.0)), _LEAST_FULL)
        oranges = ListedColormap(matplotlib.colormaps["Oranges"](np.linspace(0, 0.85, 256)))
        scale = ScalarMappable(PowerNorm(_POWER, vmin=0.0, vmax=full), oranges)
        colours = np.where(errors[..., None] > 0, scale.to_rgba(errors), (0.965, 0.965, 0.965, 1.0))
        colours[is_right] = matplotlib.colormaps["Blues"](0.1 + 0.6 * shares[is_right] ** 2)
        is_dark = np.where(is_right, shares > 0.9, (errors / full) ** _POWER > 0.75)
        return cls(colours, is_dark, scale, full)

    def draw_scale(self, figure: "Figure", place: tuple[float, float, float, float]) -> None:
        """Draw the scale of errors in a place of the figure: left, bottom, width and height, as shares of its own."""
        ticks = (0.0, self.full / 4, self.full / 2, self.full)
        bar = figure.colorbar(self.scale, cax=figure.add_axes(place), ticks=ticks)
        bar.set_ticklabels([f"{100 * tick:.1f} %" if 0 < tick < 0.0995 else percent(tick) for tick in ticks])
        words = "errors, as a share of the true class"
        if place[3] * figure.get_figheight() < 2.6:
            words = "errors, as a share\nof the true class"
        bar.set_label(words, fontsize=9.0)


def plot_confusion(matrix: ArrayLike, class_names: Sequence[str], path: StrPath | None, title: str = "") -> "Figure":
    """Draw a confusion matrix; right answers in blue, errors in an orange scale of their own, as shares of a row.

    Up to 20 classes the counts stand in the cells, and size and recall n_ii / Σ_j n_ij of each class beside its row.
    """
    counts, classes, title = np.asarray(matrix), len(class_names), checked_title(title)
    if counts.shape != (classes, classes) or classes == 0:
        raise ShapeError(f"expected a matrix of ({classes}, {classes}) for {classes} names, got {counts.shape}")
    sums = counts.sum(axis=1)
    shares = counts / np.where(sums > 0, sums, 1)[:, None]
    cells = Cells.of(shares, np.eye(classes, dtype=bool))

    is_written = classes <= _MOST_WRITTEN
    names = short_names(class_names, 20)
    longest = max(map(len, names))
    # In inches, as nothing else keeps the cells square and the columns beside them in line.
    side = max(2.2, 0.52 * classes) if is_written else 7.5
    left, below = 0.75 + 0.075 * longest, 0.75 + (0.055 * longest if longest > 3 else 0.0)
    beside = left + side + (1.9 if is_written else 0.3)
    width, height = max(beside + 1.25, 5.2), below + side + 0.6
    height += 0.1 + 0.22 * len(wrapped(title, width).splitlines()) if title else 0.0
    with picture(path, width, height, title) as figure:
        figure.set_layout_engine("none")
        axes: Axes = figure.add_axes((left / width, below / height, side / width, side / height))
        axes.imshow(cells.colours, interpolation="nearest")
        axes.spines[:].set_visible(False)
        axes.set(xlabel="predicted class", ylabel="true class")
        total, right = counts.sum(), np.trace(counts)
        told = f"{amount(right)} of {amount(total)}{' by weight' if counts.dtype.kind == 'f' else ''} right"
        heading = f"{told} ({100 * right / total:.2f} %)" if total else "no samples"
        axes.set_title(heading, fontsize=10.5, pad=10)
        step = -(-classes // 34)
        turned: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if longest > 3 else {}
        axes.set_xticks(range(0, classes, step), names[::step], **turned)
        axes.set_yticks(range(0, classes, step), names[::step])
        axes.tick_params(labelsize=9.0 if is_written else 7.5)
        if is_written:
            borders = np.arange(classes - 1) + 0.5
            axes.set_xticks(borders, minor=True)
            axes.set_yticks(borders, minor=True)
            axes.grid(which="minor", color="white", linewidth=1.5)
            axes.tick_params(which="both", length=0)
            _write_numbers(axes, counts, cells.is_dark, classes / side)
        long = min(side, 4.0)
        place = (beside / width, (below + (side - long) / 2) / height, 0.16 / width, long / height)
        cells.draw_scale(figure, place)
    return figure


def _write_numbers(axes: "Axes", counts: NDArray[Any], is_dark: NDArray[Any], cells: float) -> None:
    """Write the counts, and two columns beside them, at one distance for any number of cells an inch."""
    size = 9.0 if max(len(amount(count)) for count in counts.flat) <= 4 else 7.0
    centred: dict[str, Any] = {"ha": "center", "va": "center"}
    for row, column in np.argwhere(counts > 0):
        weight, color = "bold" if row == column else "normal", "white" if is_dark[row, column] else INK
        axes.text(column, row, amount(counts[row, column]), size=size, weight=weight, color=color, **centred)
    edge = len(counts) - 0.5
    samples, recall = edge + 0.45 * cells, edge + 1.15 * cells
    for place, heading in ((samples, "samples"), (recall, "recall")):
        axes.text(place, -0.5 - 0.12 * cells, heading, ha="center", va="bottom", size=8.5, color=FAINT)
    for row, total in enumerate(counts.sum(axis=1)):
        axes.text(samples, row, amount(total), size=8.5, color=FAINT, **centred)
        axes.text(recall, row, f"{100 * counts[row, row] / total:.1f} %" if total else "–", size=9.0, **centred)


def plot_mistakes(
    inputs: ArrayLike | Rows,
    labels: ArrayLike,
    probabilities: ArrayLike,
    class_names: Sequence[str],
    path: StrPath | None,
    count: int = MOST_SHOWN,
    title: str = "",
    scale: float = 1.0,
) -> "Figure":
    """Draw the `count` mistakes of the highest loss −ln p(true class), the worst first.

    Inputs are images (n, height, width, 1 or 3) or (n, height, width), or features (n, features): drawn as a square
    image where they are one of at least 8 × 8, else as bars. `scale` is their factor in the picture.
    """
    samples: Inputs = inputs if isinstance(inputs, Rows) else np.asarray(inputs)
    true, shares = np.asarray(labels), np.asarray(probabilities)
    if true.ndim != 1 or samples.ndim < 2 or len(samples) != len(true):
        raise ShapeError(f"expected inputs (n, …) and labels (n,), got {samples.shape} and {true.shape}")
    if shares.shape != (shape := (len(true), len(class_names))):
        raise ShapeError(f"expected probabilities of {shape}, a column a class, got {shares.shape}")
    predicted, samples_of = np.argmax(shares, axis=1), np.arange(len(true))
    of_true, of_predicted = (shares[samples_of, classes] for classes in (true.astype(np.intp), predicted))
    return draw_mistakes(samples, (true, predicted, of_true, of_predicted), class_names, path, count, title, scale)


def draw_mistakes(
    samples: Inputs,
    answers: Sequence[NDArray[Any]],
    class_names: Sequence[str],
    path: StrPath | None,
    count: int,
    title: str,
    scale: float,
) -> "Figure":
    """Draw the worst mistakes of answers: true and predicted classes, and the probabilities of both, all (n,)."""
    true, predicted, of_true, of_predicted = answers
    mistakes = np.flatnonzero(predicted != true)
    # −ln falls with p: the lowest p is the highest loss, also where p is 0 and the loss infinite.
    ordered = mistakes[np.argsort(np.nan_to_num(of_true[mistakes], nan=0.0), kind="stable")]
    worst = ordered[: positive_whole(count, "count of mistakes")]
    names = short_names(class_names, 14)
    words = [
        (f"predicted {names[predicted[k]]} ({percent(float(of_predicted[k]))})", f"true {names[true[k]]}")
        for k in worst
    ]
    heading = counted_mistakes(len(worst), len(mistakes), len(true))
    return draw_worst(samples, worst, words, heading, path, checked_title(title) or "Worst mistakes", scale)


def counted_mistakes(shown: int, mistakes: int, samples: int) -> str:
    """Say how many mistakes there are, and how many of these are shown; none where there are none."""
    if not mistakes:
        return f"No mistakes among {samples:,} samples"
    which = "all" if shown == mistakes else f"the {shown} of highest loss among"
    heading = f"{which} {mistakes:,} mistake{'s' if mistakes != 1 else ''}"
    return f"{heading} ({100 * mistakes / max(1, samples):.2f} % of {samples:,} samples)"


def draw_worst(
    samples: Inputs,
    worst: NDArray[Any],
    words: Sequence[tuple[str, str]],
    heading: str,
    path: StrPath | None,
    title: str,
    scale: float,
) -> "Figure":
    """Draw some samples, each between its two lines of words, over a heading; without any the heading alone."""
    # A place is as wide as its words: "predicted Ankle boot (>99 %)".
    longest = max((len(word) for pair in words for word in pair), default=0)
    wide = max(1.3, 0.15 + 0.062 * longest)
    columns = min(int(10.7 / wide), max(4, len(worst)))
    rows = max(1, math.ceil(len(worst) / columns))
    if not len(worst):
        with picture(path, 5.0, 1.6, title) as figure:
            write_alone(figure, heading)
        return figure
    with picture(path, max(wide * columns, 5.0), 1.78 * rows + 0.8, title) as figure:
        figure.supxlabel(heading, fontsize=9.5, color=FAINT)
        shown = _as_images(samples[worst] if scale == 1 else samples[worst] * np.float32(scale))
        limits = (0.0, 255.0) if shown.dtype == np.uint8 and samples.ndim > 2 else limits_of(shown)
        for place, (above, below) in enumerate(words):
            axes = figure.add_subplot(rows, columns, place + 1)
            draw_sample(axes, shown[place], limits, above, fontsize=8.0, color=VALIDATION, pad=3)
            axes.set_xlabel(below, fontsize=8.0, color=INK, labelpad=3)
    return figure


def _as_images(samples: NDArray[Any]) -> NDArray[Any]:
    """Reshape samples to (n, height, width) or (n, height, width, 3), or to (n, features) where they are no images."""
    if samples.ndim == 4 and samples.shape[3] == 1:
        return samples[..., 0]
    if samples.ndim == 3 or (samples.ndim == 4 and samples.shape[3] == 3):
        return samples
    flat = samples.reshape(len(samples), -1)
    side = math.isqrt(flat.shape[1])
    is_square = samples.ndim == 2 and side >= LEAST_SIDE and side * side == flat.shape[1]
    return flat.reshape(-1, side, side) if is_square else flat


def classes_of(report: ClassificationReport, known: int) -> tuple[str, ...]:
    """Return the names of the classes: outputs beyond the known ones that are never the answer are none."""
    return report.class_names[: max(known, 1 + int(report.answers.predicted.max()))]


def draw_answers(
    folder: Path, samples: Samples, report: ClassificationReport, class_names: tuple[str, ...], title: str
) -> list[str]:
    """Write confusion.png, of up to 1,000 classes, and mistakes.png where there are any; return the names."""
    answers = report.answers
    names = classes_of(report, len(class_names))
    each = answers.labels, answers.predicted, answers.of_true, answers.of_predicted
    drawn = []
    if (answers.labels != answers.predicted).any():
        draw_mistakes(samples.inputs, each, names, folder / MISTAKES, MOST_SHOWN, title, samples.scale)
        drawn = [MISTAKES]
    if len(names) > MOST_DRAWN:
        return drawn
    plot_confusion(confusion_matrix(answers.labels, answers.predicted, len(names)), names, folder / CONFUSION, title)
    return [CONFUSION, *drawn]
