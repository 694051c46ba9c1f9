"""One look for all pictures, and how they reach the disk.

Matplotlib's object interface only: no pyplot, so no global figures, no display, nothing of the user's changed.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from gpunn.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
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
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 9.0,
    "ytick.labelsize": 9.0,
    "legend.fontsize": 9.0,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.dpi": DPI,
    "savefig.dpi": DPI,
    "text.usetex": False,
    # Names of classes and files may hold a dollar sign.
    "text.parse_math": False,
}


@contextmanager
def picture(path: str | os.PathLike[str], width: float, height: float, title: str = "") -> "Iterator[Figure]":
    """A figure of width × height inches to draw on; written to `path` as PNG when the block ends well.

    The same drawing gives the same bytes: the file names neither a program nor a time.

    Raises:
        OutputError: if the file cannot be written.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with matplotlib.rc_context():
        # From matplotlib's own defaults: a matplotlibrc of the user's must not change a report's bytes.
        matplotlib.rcParams.update(cast(Any, {**_defaults(), **_STYLE}))
        figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08))
        FigureCanvasAgg(figure)
        if title:
            figure.suptitle(title, fontsize=13.0, fontweight="bold")
        yield figure
        content = io.BytesIO()
        figure.savefig(content, format="png", metadata={"Software": None})
    write_atomically(path, content.getvalue())


def light_grid(axes: "Axes") -> None:
    """Lines to read values by, lighter than any data."""
    axes.grid(True, color="#E4E4E4", linewidth=0.7)
    axes.tick_params(length=3.0, color=FAINT)


def shortened(name: str, length: int = 16) -> str:
    """A class's name on one line of at most `length` characters."""
    name = " ".join(str(name).split())
    return name if len(name) <= length else name[: length - 1] + "…"


def percent(share: float) -> str:
    """A probability for reading; what is only nearly sure is not called 100 %."""
    if share != share:
        return "nan"
    if 0.995 <= share < 1.0:
        return ">99 %"
    if 0.0 < share < 0.005:
        return "<1 %"
    return f"{100 * share:.0f} %"


def _defaults() -> dict[str, Any]:
    import matplotlib

    # The backend is none of a picture's business: setting it may start a toolkit.
    untouched = ("backend", "backend_fallback", "interactive", "toolbar", "webagg", "date.epoch")
    return {key: value for key, value in matplotlib.rcParamsDefault.items() if not key.startswith(untouched)}
