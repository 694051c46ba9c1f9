"""The worst mistakes of a network: the samples themselves, with their predicted and their true class."""

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpunn.data.memmap import Inputs, Rows
from gpunn.errors import ShapeError
from gpunn.reports.style import (
    FAINT,
    INK,
    TRAINING,
    VALIDATION,
    check_count,
    draw_image,
    frame,
    limits_of,
    percent,
    picture,
    shortened,
    write_alone,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Flat samples of fewer features are measurements, even where their number happens to be a square.
_LEAST_SIDE = 8


def plot_mistakes(
    inputs: ArrayLike | Rows,
    labels: ArrayLike,
    probabilities: ArrayLike,
    class_names: Sequence[str],
    path: str | os.PathLike[str],
    count: int = 24,
    title: str = "",
    scale: float = 1.0,
) -> None:
    """Draw the `count` mistakes of the highest loss −ln p(true class), the worst first.

    Args:
        inputs: Images (n, height, width, 1 or 3) or (n, height, width), or features (n, features): drawn as a square
            image where they are one of at least 8 × 8, else as bars.
        labels: True classes (n,).
        probabilities: Probabilities (n, classes) of `predict_proba`.
        class_names: Name of each class.
        path: PNG file to write.
        count: Number of places.
        title: Title of the picture.
        scale: Factor of the inputs in the picture.

    Raises:
        ShapeError: the arrays do not fit together.
        OptionError: `count` is not positive.
        OutputError: the file cannot be written.
    """
    samples: Inputs = inputs if isinstance(inputs, Rows) else np.asarray(inputs)
    true, shares = np.asarray(labels), np.asarray(probabilities)
    if true.ndim != 1 or samples.ndim < 2 or len(samples) != len(true):
        raise ShapeError(f"expected inputs (n, …) and labels (n,), got {samples.shape} and {true.shape}")
    if shares.shape != (len(true), len(class_names)):
        raise ShapeError(
            f"expected probabilities of ({len(true)}, {len(class_names)}), a column a class, got {shares.shape}"
        )
    check_count(count, "mistakes")
    predicted = np.argmax(shares, axis=1)
    mistakes = np.flatnonzero(predicted != true)
    # −ln falls with p: the lowest p is the highest loss, also where p is 0 and the loss infinite.
    p_true = np.nan_to_num(shares[mistakes, true[mistakes]], nan=0.0)
    worst = mistakes[np.argsort(p_true, kind="stable")][:count]
    # A place is as wide as its words: "predicted Ankle boot (>99 %)".
    names = [shortened(name, 14) for name in class_names]
    wide = max(1.3, 0.15 + 0.062 * (18 + max(map(len, names))))
    columns = min(int(10.7 / wide), max(4, len(worst)))
    rows = max(1, math.ceil(len(worst) / columns))
    heading = _heading(len(worst), len(mistakes), len(true))
    with picture(path, max(wide * columns, 5.0), 1.78 * rows + 0.8, title or "Worst mistakes") as figure:
        if not len(worst):
            write_alone(figure, heading)
            return
        figure.supxlabel(heading, fontsize=9.5, color=FAINT)
        shown = _as_images(samples[worst] if scale == 1 else samples[worst] * np.float32(scale))
        limits = (0.0, 255.0) if shown.dtype == np.uint8 and samples.ndim > 2 else limits_of(shown)
        for place, sample in enumerate(worst):
            axes = figure.add_subplot(rows, columns, place + 1)
            answer = predicted[sample]
            words = f"predicted {names[answer]} ({percent(float(shares[sample, answer]))})"
            frame(axes, words, fontsize=8.0, color=VALIDATION, pad=3)
            axes.set_xlabel(f"true {names[true[sample]]}", fontsize=8.0, color=INK, labelpad=3)
            if shown[place].ndim == 1:
                _draw_bars(axes, shown[place], limits)
            else:
                draw_image(axes, shown[place], limits)


def _heading(shown: int, mistakes: int, samples: int) -> str:
    if not mistakes:
        return f"No mistakes among {samples:,} samples"
    share = f"{100 * mistakes / samples:.2f} % of {samples:,} samples"
    if mistakes > shown:
        return f"the {shown} of highest loss among {mistakes:,} mistakes ({share})"
    if mistakes == 1:
        return f"the only mistake ({share})"
    return f"only {mistakes:,} mistakes, highest loss first ({share})"


def _as_images(samples: NDArray[Any]) -> NDArray[Any]:
    """Reshape samples to (n, height, width) or (n, height, width, 3), or to (n, features) where they are no images."""
    if samples.ndim == 4 and samples.shape[3] == 1:
        return samples[..., 0]
    if samples.ndim == 3 or (samples.ndim == 4 and samples.shape[3] == 3):
        return samples
    flat = samples.reshape(len(samples), -1)
    side = math.isqrt(flat.shape[1])
    is_square = samples.ndim == 2 and side >= _LEAST_SIDE and side * side == flat.shape[1]
    return flat.reshape(-1, side, side) if is_square else flat


def _draw_bars(axes: "Axes", sample: NDArray[Any], limits: tuple[float, float]) -> None:
    # One outline for all the bars: a patch for each would take seconds.
    axes.stairs(sample, np.arange(len(sample) + 1), fill=True, color=TRAINING)
    axes.axhline(0.0, color=FAINT, linewidth=0.6)
    low, high = limits
    margin = 0.05 * (high - low)
    axes.set_ylim(low - margin, high + margin)
    axes.set_box_aspect(1)
