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

    Inputs are images (n, height, width, 1 or 3) or (n, height, width), or features (n, features): drawn as a square
    image where they are one of at least 8 × 8, else as bars. `scale` is their factor in the picture.
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
    which = "all" if len(worst) == len(mistakes) else f"the {len(worst)} of highest loss among"
    share = f"{100 * len(mistakes) / max(1, len(true)):.2f} % of {len(true):,} samples"
    heading = f"{which} {len(mistakes):,} mistake{'s' if len(mistakes) != 1 else ''} ({share})"
    with picture(path, max(wide * columns, 5.0), 1.78 * rows + 0.8, title or "Worst mistakes") as figure:
        if not len(worst):
            write_alone(figure, f"No mistakes among {len(true):,} samples")
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
