"""One look for all pictures, the drawing that several share, and their way to the disk.

Matplotlib's object interface only: no pyplot, so no global figures, no display, and no setting of the user's changed.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpunn.files import StrPath, write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart under every common colour blindness.
TRAINING, VALIDATION, BEST = "#0072B2", "#D55E00", "#009E73"
OVERFITTING, RATE, INK, FAINT = "#A8447F", "#5B5B5B", "#222222", "#8A8A8A"

_STYLE = {
    "axes.axisbelow": True,
    "axes.titlesize": 11.0,
    "figure.dpi": 150,
    "figure.titlesize": 13.0,
    "figure.titleweight": "bold",
    "grid.color": "#E4E4E4",  # to read values by, lighter than any data
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "text.parse_math": False,  # names of classes and files may hold a dollar sign
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), FAINT),
    **dict.fromkeys(("axes.labelcolor", "text.color", "xtick.labelcolor", "ytick.labelcolor"), INK),
    **dict.fromkeys(("legend.fontsize", "xtick.labelsize", "ytick.labelsize"), 9.0),
    **dict.fromkeys(("xtick.major.size", "ytick.major.size"), 3.0),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right"), False),
    **dict.fromkeys(("figure.constrained_layout.w_pad", "figure.constrained_layout.h_pad"), 0.1),
}


@contextmanager
def picture(path: StrPath, width: float, height: float, title: str = "") -> "Iterator[Figure]":
    """Open a figure of width × height inches, and write it to `path` as PNG when the block ends without an error.

    The same drawing gives the same bytes: the file names neither a program nor a time.
    """
    import matplotlib.style
    from matplotlib.figure import Figure

    # From matplotlib's own defaults: a matplotlibrc of the user's must not change a report's bytes.
    with matplotlib.style.context(["default", _STYLE]):
        figure = Figure(figsize=(width, height), layout="constrained")
        if title:
            figure.suptitle(title)
        yield figure
        content = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that the font lacks letters for, or that leave little room
            figure.savefig(content, format="png", metadata={"Software": None})
    write_atomically(path, content.getvalue())


def write_alone(figure: "Figure", words: str) -> None:
    """Write words in place of a drawing for which there is nothing to draw."""
    figure.add_subplot(frame_on=False, xticks=[], yticks=[]).text(0.5, 0.5, words, ha="center", va="center", size=14)


def draw_sample(axes: "Axes", sample: NDArray[Any], limits: tuple[float, float], title: str, **look: Any) -> None:
    """Frame (height, width) dark on light, (height, width, 3) in colour, or features as bars, under a title."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color="#BBBBBB")
    axes.set_title(title, **look)
    low, high = limits
    if sample.ndim == 1:
        axes.stairs(sample, np.arange(len(sample) + 1), fill=True, color=TRAINING)  # a patch a bar would take seconds
        axes.axhline(0.0, color=FAINT, linewidth=0.6)
        axes.set(ylim=(1.05 * low - 0.05 * high, 1.05 * high - 0.05 * low), box_aspect=1)
    else:
        pixels = np.clip((sample - low) / (high - low), 0.0, 1.0) if sample.ndim == 3 else sample
        axes.imshow(pixels, cmap="gray_r", vmin=low, vmax=high, interpolation="nearest")


def limits_of(values: NDArray[Any]) -> tuple[float, float]:
    """Return the range of the finite values and 0; one range for several samples lets faint ones look faint."""
    finite = values[np.isfinite(values)]
    low, high = float(finite.min(initial=0.0)), float(finite.max(initial=0.0))
    return low, high if high > low else low + 1.0


def first_of(shown: int, count: int) -> str:
    """Say how many of `count` are shown."""
    return f"first {shown} of {count}" if shown < count else f"all {count}"


def shortened(name: str, length: int = 16) -> str:
    """Cut the name of a class to one line of at most `length` characters."""
    name = " ".join(str(name).split())
    return name if len(name) <= length else name[: length - 1] + "…"


def percent(share: float) -> str:
    """Write a probability to be read; one that is only nearly 1 is not called 100 %."""
    if 0.995 <= share < 1.0:
        return ">99 %"
    if 0.0 < share < 0.005:
        return "<1 %"
    return "nan" if share != share else f"{100 * share:.0f} %"
