"""One look for all pictures, the drawing that several share, and their way to the disk.

Matplotlib's object interface only: no pyplot, so no global figures, no display, and no setting of the user's changed.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from gpunn.errors import OptionError
from gpunn.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

DPI = 150

# Okabe and Ito's palette, told apart under every common colour blindness.
TRAINING = "#0072B2"
VALIDATION = "#D55E00"
BEST = "#009E73"
OVERFITTING = "#A8447F"
RATE = "#5B5B5B"
INK = "#222222"
FAINT = "#8A8A8A"

_STYLE = {
    "font.family": ["DejaVu Sans"],
    "font.size": 10.0,
    "axes.titlesize": 11.0,
    "axes.labelsize": 10.0,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.edgecolor": FAINT,
    "legend.frameon": False,
    "text.usetex": False,
    "text.parse_math": False,  # names of classes and files may hold a dollar sign
    **dict.fromkeys(("axes.labelcolor", "text.color", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("legend.fontsize", "xtick.labelsize", "ytick.labelsize"), 9.0),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "white"),
    **dict.fromkeys(("figure.dpi", "savefig.dpi"), DPI),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right"), False),
}
# A picture does not need matplotlib's backend: setting it may start a toolkit.
_UNTOUCHED = ("backend", "backend_fallback", "interactive", "toolbar", "webagg", "date.epoch")


@contextmanager
def picture(path: str | os.PathLike[str], width: float, height: float, title: str = "") -> "Iterator[Figure]":
    """Open a figure of width × height inches, and write it to `path` as PNG when the block ends without an error.

    The same drawing gives the same bytes: the file names neither a program nor a time.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    # From matplotlib's own defaults: a matplotlibrc of the user's must not change a report's bytes.
    defaults = {key: value for key, value in matplotlib.rcParamsDefault.items() if not key.startswith(_UNTOUCHED)}
    with matplotlib.rc_context(cast(Any, {**defaults, **_STYLE})):
        figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08))
        FigureCanvasAgg(figure)
        if title:
            figure.suptitle(title, fontsize=13.0, fontweight="bold")
        yield figure
        content = io.BytesIO()
        figure.savefig(content, format="png", metadata={"Software": None})
    write_atomically(path, content.getvalue())


def light_grid(axes: "Axes") -> None:
    """Draw lines to read values by, lighter than any data."""
    axes.grid(True, color="#E4E4E4", linewidth=0.7)
    axes.tick_params(length=3.0, color=FAINT)


def write_alone(figure: "Figure", words: str) -> None:
    """Write words in place of a drawing for which there is nothing to draw."""
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.text(0.5, 0.5, words, ha="center", va="center", fontsize=14)


def colour_bar(figure: "Figure", scale: "ScalarMappable", labelsize: float = 8.0, **place: Any) -> Any:
    """Draw the bar of a colour scale beside `ax`, or in the place `cax`."""
    bar = figure.colorbar(scale, **place)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=3.0, color=FAINT, labelsize=labelsize)
    return bar


def frame(axes: "Axes", title: str, **look: Any) -> None:
    """Turn axes into a frame around one sample, under its title."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color="#BBBBBB")
    axes.set_title(title, **look)


def draw_image(axes: "Axes", pixels: NDArray[Any], limits: tuple[float, float]) -> None:
    """Draw (height, width) dark on light, or (height, width, 3) in colour."""
    low, high = limits
    if pixels.ndim == 3:
        pixels = np.clip((pixels - low) / (high - low), 0.0, 1.0)
    axes.imshow(pixels, cmap="gray_r", vmin=low, vmax=high, interpolation="nearest")


def limits_of(values: NDArray[Any]) -> tuple[float, float]:
    """Return the range of the finite values and 0; one range for several samples lets faint ones look faint."""
    finite = values[np.isfinite(values)]
    low, high = float(finite.min(initial=0.0)), float(finite.max(initial=0.0))
    return low, high if high > low else low + 1.0


def check_count(count: int, of: str) -> None:
    """Raise an error for a picture with place for nothing."""
    if count < 1:
        raise OptionError(f"expected a count of {of} of at least 1, got {count}")


def first_of(shown: int, count: int) -> str:
    """Say how many of `count` are shown."""
    return f"first {shown} of {count}" if shown < count else f"all {count}"


def shortened(name: str, length: int = 16) -> str:
    """Cut the name of a class to one line of at most `length` characters."""
    name = " ".join(str(name).split())
    return name if len(name) <= length else name[: length - 1] + "…"


def percent(share: float) -> str:
    """Write a probability to be read; one that is only nearly 1 is not called 100 %."""
    if share != share:
        return "nan"
    if 0.995 <= share < 1.0:
        return ">99 %"
    if 0.0 < share < 0.005:
        return "<1 %"
    return f"{100 * share:.0f} %"
