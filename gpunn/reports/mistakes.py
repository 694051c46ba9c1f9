"""The worst errors of a network, as the samples themselves with what was said and what is true."""

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpunn.data.memmap import Inputs, Rows
from gpunn.errors import OptionError, ShapeError
from gpunn.reports.style import FAINT, INK, TRAINING, VALIDATION, percent, picture, shortened

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
    """Draw the `count` errors of the highest loss −ln p(true class), the worst first.

    Args:
        inputs: (n, height, width, 1 or 3) or (n, height, width) images, or (n, features): drawn as a square image
            where the features are one of at least 8 × 8, else as bars.
        labels: (n,) true classes.
        probabilities: (n, classes) of `predict_proba`.
        class_names: a name for each class.
        path: the PNG to write.
        count: number of places.
        title: what the picture is of.
        scale: what inputs are multiplied with to be drawn.

    Raises:
        ShapeError: if the arrays do not fit together.
        OptionError: if `count` is not positive.
        OutputError: if the file cannot be written.
    """
    samples: Inputs = inputs if isinstance(inputs, Rows) else np.asarray(inputs)
    true, shares = np.asarray(labels), np.asarray(probabilities)
    if true.ndim != 1 or samples.ndim < 2 or len(samples) != len(true):
        raise ShapeError(f"expected inputs (n, …) and labels (n,), got {samples.shape} and {true.shape}")
    if shares.shape != (len(true), len(class_names)):
        raise ShapeError(
            f"expected probabilities of ({len(true)}, {len(class_names)}), a column a class, got {shares.shape}"
        )
    if count < 1:
        raise OptionError(f"expected a count of mistakes of at least 1, got {count}")
    worst, mistakes = _worst(true, shares, count)
    # A place is as wide as its words: "said Ankle boot (>99 %)".
    names = [shortened(name, 14) for name in class_names]
    wide = max(1.3, 0.15 + 0.066 * (13 + max(map(len, names))))
    columns = min(int(10.6 / wide), max(4, len(worst)))
    rows = max(1, math.ceil(len(worst) / columns))
    shown = samples[worst] if scale == 1 else samples[worst] * np.float32(scale)
    images = _as_images(shown)
    heading = _heading(len(worst), mistakes, len(true))
    with picture(path, max(wide * columns, 5.0), 1.78 * rows + 0.8, title or "Worst mistakes") as figure:
        if not len(worst):
            axes = figure.add_subplot()
            axes.set_axis_off()
            axes.text(0.5, 0.5, heading, ha="center", va="center", fontsize=14)
            return
        figure.supxlabel(heading, fontsize=9.5, color=FAINT)
        limits = _limits(shown)
        for place, sample in enumerate(worst):
            axes = figure.add_subplot(rows, columns, place + 1)
            _draw(axes, images[place] if images is not None else shown[place].ravel(), limits)
            said = int(np.argmax(shares[sample]))
            axes.set_title(
                f"said {names[said]} ({percent(float(shares[sample, said]))})",
                fontsize=8.5,
                color=VALIDATION,
                pad=3,
            )
            axes.set_xlabel(f"is {names[int(true[sample])]}", fontsize=8.5, color=INK, labelpad=3)


def _worst(true: NDArray[Any], shares: NDArray[Any], count: int) -> tuple[NDArray[Any], int]:
    """The indices of the worst mistakes, and how many mistakes there are. Equal losses keep their order."""
    if not len(true):
        return np.empty(0, dtype=np.int64), 0
    mistakes = np.flatnonzero(np.argmax(shares, axis=1) != true)
    # −ln falls with p: the lowest p is the highest loss, also where p is 0 and the loss infinite.
    p_true = np.nan_to_num(shares[mistakes, true[mistakes]], nan=0.0)
    return mistakes[np.argsort(p_true, kind="stable")][:count], len(mistakes)


def _heading(shown: int, mistakes: int, samples: int) -> str:
    if not mistakes:
        return f"No mistakes among {samples:,} samples"
    share = f"{100 * mistakes / samples:.2f} % of {samples:,} samples"
    if mistakes > shown:
        return f"the {shown} of highest loss among {mistakes:,} mistakes ({share})"
    if mistakes == 1:
        return f"the only mistake ({share})"
    return f"only {mistakes:,} mistakes, highest loss first ({share})"


def _as_images(samples: NDArray[Any]) -> NDArray[Any] | None:
    """(n, height, width) or (n, height, width, 3), or None where the samples are no images."""
    if samples.ndim == 4 and samples.shape[3] in (1, 3):
        return samples[..., 0] if samples.shape[3] == 1 else samples
    if samples.ndim == 3:
        return samples
    side = math.isqrt(int(np.prod(samples.shape[1:])))
    if samples.ndim == 2 and side >= _LEAST_SIDE and side * side == samples.shape[1]:
        return samples.reshape(-1, side, side)
    return None


def _limits(samples: NDArray[Any]) -> tuple[float, float]:
    """One range of values for all the places, so that faint samples look faint."""
    if samples.dtype == np.uint8 and samples.ndim != 2:
        return 0.0, 255.0
    finite = samples[np.isfinite(samples)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    return min(low, 0.0), high if high > min(low, 0.0) else min(low, 0.0) + 1.0


def _draw(axes: "Axes", sample: NDArray[Any], limits: tuple[float, float]) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color("#CCCCCC")
    low, high = limits
    if sample.ndim == 1:
        # One outline for all the bars: a patch for each would take seconds.
        axes.stairs(sample, np.arange(len(sample) + 1), fill=True, color=TRAINING)
        axes.axhline(0.0, color=FAINT, linewidth=0.6)
        axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
        axes.set_box_aspect(1)
    elif sample.ndim == 2:
        axes.imshow(sample, cmap="gray_r", vmin=low, vmax=high, interpolation="nearest")
    else:
        axes.imshow(np.clip((sample - low) / (high - low), 0.0, 1.0), interpolation="nearest")
