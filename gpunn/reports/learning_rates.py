"""Suggest a learning rate from the losses at rising rates, and draw them."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gpunn.display.style import BEST, FAINT, TRAINING, picture
from gpunn.display.text import wrapped
from gpunn.files import StrPath, as_path
from gpunn.train.lr_finder import Losses, suggest_rate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVE = "learning-rate.png"


@dataclass(frozen=True, repr=False)
class LearningRateCurve:
    """Losses of a network's copy at rising learning rates, and the suggested rate.

    Attributes:
        rates: Learning rate of each step, (steps,).
        losses: Mean loss of each step's batch, before the update at its rate.
        smoothed: Means of the losses of neighbouring steps, from which the suggestion is made.
        suggestion: Learning rate to train with, or the highest of a schedule; None if the loss did not fall.
        why: Reason of a missing suggestion, or "".
        end: Reason of an end before the highest rate, or "".
    """

    rates: NDArray[np.float64]
    losses: NDArray[np.float64]
    smoothed: NDArray[np.float64]
    suggestion: float | None
    why: str
    end: str

    @classmethod
    def of(cls, seen: Losses) -> "LearningRateCurve":
        """Suggest a rate from losses."""
        smoothed, suggestion, why = suggest_rate(seen)
        return cls(seen.rates, seen.losses, smoothed, suggestion, why, seen.end)

    def __str__(self) -> str:
        if self.suggestion is None:
            return f"no suggestion: {self.why}"
        return f"suggested learning rate {self.suggestion:g}"

    def __repr__(self) -> str:
        tried = f"{len(self.rates)} steps from {self.rates[0]:.2g} to {self.rates[-1]:.2g}"
        return f"LearningRateCurve({self}, {tried}{', ' + self.end if self.end else ''})"

    def _repr_png_(self) -> "tuple[bytes, dict[str, int]]":
        return plot_learning_rates(self, None)._repr_png_()  # type: ignore[no-any-return, attr-defined]

    def plot(self, path: StrPath = CURVE, *, title: str = "") -> Path:
        """Draw the losses over the learning rate into a PNG, mark the suggestion, and return the path.

        Raises:
            OutputError: The file cannot be written.
        """
        plot_learning_rates(self, path, title=title)
        return as_path(path)


def plot_learning_rates(curve: LearningRateCurve, path: StrPath | None, *, title: str = "") -> "Figure":
    """Draw the losses of single batches, their means, and the suggested rate, over a logarithmic axis of rates."""
    rates, losses, means, chosen = curve.rates, curve.losses, curve.smoothed, curve.suggestion
    with picture(path, 7.0, 4.5, title) as figure:
        axes: Axes = figure.add_subplot()
        axes.plot(rates, losses, ls="", marker=".", ms=4, color=FAINT, alpha=0.6, label="one batch", zorder=2)
        axes.plot(rates, means, lw=1.9, color=TRAINING, label="mean of neighbouring steps", zorder=3)
        axes.set(xscale="log", xlabel="learning rate η (log scale)", ylabel="loss before the step")
        axes.set_title(wrapped(str(curve), 5.8, 11.0, bold=False))
        axes.xaxis.set_major_formatter("{x:g}")  # 0.01, not a power of ten: mathematical text is off, see the style
        axes.xaxis.set_minor_formatter("")
        axes.grid()
        # An exploded loss would flatten the rest of the curve.
        low, high = float(losses.min()), float(max(means[0], np.median(losses)))
        room = high - low if high > low else 1.0
        axes.set_ylim(low - 0.08 * room, high + 0.3 * room)
        if chosen is not None:
            axes.axvline(chosen, color=BEST, lw=1.4, ls=(0, (4, 2)), zorder=1)
            axes.plot(
                chosen, np.interp(chosen, rates, means), ls="", marker="o", ms=9, mfc="white", mec=BEST, mew=2.2,
                label=f"suggested: {chosen:g}", zorder=5,
            )  # fmt: skip
        figure.legend(loc="outside lower center", ncols=3)
    return figure
