"""Draw the confusion matrix of a classifier, and its worst mistakes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpunn.config.scalars import positive_whole
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
    place,
    title_room,
    write_alone,
)
from gpunn.display.text import short_names, width_of, wrapped
from gpunn.errors import ShapeError
from gpunn.files import StrPath
from gpunn.train.metrics import confusion_matrix as confusion_matrix
from gpunn.train.report import ClassificationReport
from gpunn.train.table import amount

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

CONFUSION, MISTAKES = "confusion.png", "mistakes.png"
_SMALLEST = 6.5  # points of a number in a cell
_MOST_WRITTEN = 20  # classes whose counts are written into the cells
_LEAST_FULL = 0.02  # least error share in full colour: one mistake in a good matrix must not look like a disaster
_POWER = 0.7  # below 1, so rare errors stand out from white
MOST_DRAWN = 1000  # classes of a matrix; with more, a class would be smaller than a pixel
MOST_SHOWN = 24


@dataclass(frozen=True, eq=False)
class Cells:
    """Colours of a matrix: correct cells in blue, errors on an orange scale of their own.

    Attributes:
        colours: RGBA of each cell.
        is_dark: Whether the number of each cell is white.
        scale: Colours of errors by share, from 0 to `full`.
        full: Share of errors in full colour.
        has_errors: Whether any share of errors is above 0.
    """

    colours: NDArray[Any]
    is_dark: NDArray[Any]
    scale: "ScalarMappable"
    full: float
    has_errors: bool

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
        return cls(colours, is_dark, scale, full, bool((errors > 0).any()))

    def draw_scale(self, figure: "Figure", left: float, top: float, height: float) -> None:
        """Draw the scale of errors, if there are any, at a place in inches from the figure's left and top."""
        if not self.has_errors:
            return
        long = min(max(height, 1.3), 4.0)
        ticks = (0.0, self.full / 4, self.full / 2, self.full)
        axes = place(figure, left, top + (height - long) / 2, 0.16, long)
        bar = figure.colorbar(self.scale, cax=axes, ticks=ticks)
        bar.set_ticklabels([f"{100 * tick:.1f} %" if 0 < tick < 0.0995 else percent(tick) for tick in ticks])
        words = "errors, as a share of the true class"
        bar.set_label(words if long > 2.6 else words.replace("share ", "share\n"), fontsize=9.0)


def plot_confusion(matrix: ArrayLike, class_names: Sequence[str], path: StrPath | None, title: str = "") -> "Figure":
    """Draw a confusion matrix, coloured by the share of a row: correct cells in blue, errors in orange.

    Up to 20 classes, the counts stand in the cells, and number of samples and recall n_ii / Σ_j n_ij beside each row.
    """
    counts, classes, title = np.asarray(matrix), len(class_names), checked_title(title)
    if counts.shape != (classes, classes) or classes == 0:
        raise ShapeError(f"expected a matrix of ({classes}, {classes}) for {classes} names, got {counts.shape}")
    sums = counts.sum(axis=1)
    shares = counts / np.where(sums > 0, sums, 1)[:, None]
    cells = Cells.of(shares, np.eye(classes, dtype=bool))

    is_written = classes <= _MOST_WRITTEN
    size, names = 9.0 if is_written else 7.5, short_names(class_names, 20)
    longest = max(width_of(name, size) for name in names)
    # In inches: only so are the cells square, and the columns beside them aligned.
    side = max(2.2, 0.52 * classes) if is_written else 7.5
    step = -(-classes // 34)
    is_turned = longest > 0.85 * side * step / classes
    total, right = counts.sum(), np.trace(counts)
    told = f"{amount(right)} of {amount(total)}{' by weight' if counts.dtype.kind == 'f' else ''} right"
    heading = f"{told} ({100 * right / total:.2f} %)" if total else "no samples"
    is_raised = is_written and width_of(heading, 10.5) > side  # above the headings of the columns beside the matrix
    of_samples = max(width_of(amount(count), 8.5) for count in (*sums, 1000)) if is_written else 0.0
    left, below = 0.6 + longest, 0.75 + (0.1 + 0.7 * longest if is_turned else 0.0)
    beside = (0.5 + of_samples + 0.7 if is_written else 0.3) + (1.25 if cells.has_errors else 0.0)
    width = max(left + side + beside, 5.2, width_of(heading, 10.5) + 0.4)
    left = max(left + (width - left - side - beside) / 2, (width_of(heading, 10.5) - side) / 2 + 0.1)
    width = max(width, left + side + beside)
    above = title_room(title, width) + (0.7 if is_raised else 0.45)
    with picture(path, width, above + side + below, title, by_hand=True) as figure:
        axes = place(figure, left, above, side, side)
        axes.imshow(cells.colours, interpolation="nearest")
        axes.spines[:].set_visible(False)
        axes.set(xlabel="predicted class", ylabel="true class")
        axes.set_title(heading, fontsize=10.5, pad=28 if is_raised else 10)
        turned: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if is_turned else {}
        axes.set_xticks(range(0, classes, step), names[::step], **turned)
        axes.set_yticks(range(0, classes, step), names[::step])
        axes.tick_params(labelsize=size)
        if is_written:
            separate_cells(axes, classes, classes)
            _write_numbers(axes, counts, cells.is_dark, side / classes, of_samples)
        cells.draw_scale(figure, left + side + beside - 1.25, above, side)
    return figure


def separate_cells(axes: "Axes", rows: int, columns: int) -> None:
    """Draw white lines between the cells of a matrix, and no ticks."""
    axes.set_xticks(np.arange(columns - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(rows - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0)


def _write_numbers(axes: "Axes", counts: NDArray[Any], is_dark: NDArray[Any], cell: float, wide: float) -> None:
    """Write the counts into cells of width `cell`, and samples (as wide as `wide`) and recall beside them."""
    texts, size = numbers_in(counts, cell)
    centred: dict[str, Any] = {"ha": "center", "va": "center"}
    for row, column in np.argwhere(counts > 0):
        weight, color = "bold" if row == column else "normal", "white" if is_dark[row, column] else INK
        axes.text(column, row, texts[row][column], size=size, weight=weight, color=color, **centred)
    edge = len(counts) - 0.5
    samples, recall = edge + (0.25 + wide / 2) / cell, edge + (0.5 + wide + 0.25) / cell
    for at, heading in ((samples, "samples"), (recall, "recall")):
        axes.text(at, -0.5 - 0.12 / cell, heading, ha="center", va="bottom", size=8.5, color=FAINT)
    for row, total in enumerate(counts.sum(axis=1)):
        axes.text(samples, row, amount(total), size=8.5, color=FAINT, **centred)
        axes.text(recall, row, f"{100 * counts[row, row] / total:.1f} %" if total else "–", size=9.0, **centred)


def numbers_in(counts: NDArray[Any], cell: float) -> tuple[list[list[str]], float]:
    """Format counts to fit into cells of width `cell`, smaller or with "k" or "M"; return them and their font size."""
    texts = [[amount(count) for count in row] for row in counts]
    widest = max(width_of(text, 9.0, bold=True) for row in texts for text in row)
    if (size := 9.0 * min(1.0, 0.88 * cell / widest)) < _SMALLEST:
        texts = [[_in_thousands(float(count)) for count in row] for row in counts]
        widest = max(width_of(text, 9.0, bold=True) for row in texts for text in row)
        size = 9.0 * min(1.0, 0.88 * cell / widest)
    return texts, size


def _in_thousands(count: float) -> str:
    """Format a number in three digits: 912, 39.4k, 1.15M."""
    for factor, sign in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= 0.9995 * factor:
            return f"{count / factor:.3g}{sign}"
    return f"{count:.3g}"


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
    """Draw the `count` mistakes of highest loss −ln p(true class), the worst first.

    Inputs are images (n, height, width, 1 or 3) or (n, height, width), or features (n, features), drawn as a square
    image of at least 8 × 8 if they fill one, else as bars. `scale` is their factor in the picture.
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
    """Draw the worst mistakes; `answers` are true and predicted classes and the probabilities of both, all (n,)."""
    true, predicted, of_true, of_predicted = answers
    mistakes = np.flatnonzero(predicted != true)
    # −ln p falls with p, so the lowest p has the highest loss, even an infinite one.
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
    """Return a heading with the number of mistakes, and how many of them are shown."""
    if not mistakes:
        return f"No mistakes among {samples:,} samples"
    which = f"all {mistakes:,}" if shown == mistakes else f"the {shown} of highest loss among {mistakes:,}"
    heading = f"{which} mistakes" if mistakes > 1 else "1 mistake"
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
    """Draw samples, each between its two lines of words, over a heading; the heading alone if there are none."""
    if not len(worst):
        with picture(path, 5.0, 1.6, title) as figure:
            write_alone(figure, heading)
        return figure
    shown = _as_images(samples[worst] if scale == 1 else samples[worst] * np.float32(scale))
    # A panel is as wide as its words, "predicted Ankle boot (>99 %)", and as high as its image.
    wide = max(1.3, 0.15 + max(width_of(word, 8.0) for pair in words for word in pair))
    columns = min(int(10.7 / wide), len(worst))
    rows = math.ceil(len(worst) / columns)
    high = 1.3 * min(1.0, max(0.15, shown.shape[1] / shown.shape[2])) if shown.ndim > 2 else 1.3
    width = max(wide * columns, 5.0)
    heading = wrapped(heading, width - 0.3, 9.5, bold=False)
    with picture(path, width, title_room(title, width) + (0.48 + high) * rows + 0.45, title) as figure:
        figure.supxlabel(heading, fontsize=9.5, color=FAINT)
        limits = (0.0, 255.0) if shown.dtype == np.uint8 and samples.ndim > 2 else limits_of(shown)
        for at, (above, below) in enumerate(words):
            axes = figure.add_subplot(rows, columns, at + 1)
            draw_sample(axes, shown[at], limits, above, fontsize=8.0, color=VALIDATION, pad=3)
            axes.set_xlabel(below, fontsize=8.0, color=INK, labelpad=3)
    return figure


def _as_images(samples: NDArray[Any]) -> NDArray[Any]:
    """Reshape samples to (n, height, width) or (n, height, width, 3), or to (n, features) if they are not images."""
    if samples.ndim == 4 and samples.shape[3] == 1:
        return samples[..., 0]
    if samples.ndim == 3 or (samples.ndim == 4 and samples.shape[3] == 3):
        return samples
    flat = samples.reshape(len(samples), -1)
    side = math.isqrt(flat.shape[1])
    is_square = samples.ndim == 2 and side >= LEAST_SIDE and side * side == flat.shape[1]
    return flat.reshape(-1, side, side) if is_square else flat


def classes_of(report: ClassificationReport, known: int) -> tuple[str, ...]:
    """Return the class names, without those of outputs beyond the known classes that are never predicted."""
    return report.class_names[: max(known, 1 + int(report.answers.predicted.max()))]


def draw_answers(
    folder: Path, samples: Samples, report: ClassificationReport, class_names: tuple[str, ...], title: str
) -> list[str]:
    """Write confusion.png for up to 1,000 classes, and mistakes.png if there are any; return their names."""
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
