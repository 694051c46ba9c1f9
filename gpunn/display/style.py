"""One look for all pictures, the drawing that several share, and their way to the disk.

Matplotlib's object interface only: no pyplot, so no global figures, no display, and no setting of the user's changed.
"""

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpunn.errors import OptionError
from gpunn.files import StrPath, as_path, write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart under every common colour blindness.
TRAINING, VALIDATION, BEST = "#0072B2", "#D55E00", "#009E73"
OVERFITTING, RATE, INK, FAINT = "#A8447F", "#5B5B5B", "#222222", "#8A8A8A"

# Flat samples of fewer features are measurements, even where their number happens to be a square.
LEAST_SIDE = 8

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
def picture(path: StrPath | None, width: float, height: float, title: str = "") -> "Iterator[Figure]":
    """Open a figure of width × height inches; where there is a path, write it as PNG when the block ends well.

    The same drawing gives the same bytes. The figure is whole after the block, and may be shown or changed.
    """
    from gpunn.display.figure import Picture, styled

    target = None if path is None else as_path(path)
    title = checked_title(title)
    with styled(_STYLE):
        figure = Picture(figsize=(width, height), layout="constrained")
        figure.gpunn_style = _STYLE
        if title:
            figure.suptitle(wrapped(title, width))
        yield figure
        content = None if target is None else figure.png()
        if content is None:
            figure.settle()
        figure.set_layout_engine("none")  # a second layout would move panels by some pixels
    if target is not None and content is not None:
        write_atomically(target, content)


def checked_title(title: str) -> str:
    """Return a title; raise OptionError for anything but a text."""
    if not isinstance(title, str):
        raise OptionError(f"the title of a picture is a text, got {type(title).__name__}")
    return title


def wrapped(title: str, width: float) -> str:
    """Break a title into the lines that a picture so many inches wide has room for, three at most."""
    return "\n".join(textwrap.wrap(title, max(12, int(9.5 * width)), max_lines=3, placeholder=" …"))


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


def short_names(names: Sequence[str], length: int = 16) -> list[str]:
    """Cut the names of classes so that they can still be told apart: in the middle where their beginnings are equal."""
    cut = [shortened(name, length) for name in names]
    alike = {name for name, count in Counter(cut).items() if count > 1}
    if not alike:
        return cut
    whole, tail = [" ".join(str(name).split()) for name in names], (length - 1) // 2
    middle = [
        f"{full[: length - 1 - tail]}…{full[-tail:]}" if name in alike and len(full) > length else name
        for full, name in zip(whole, cut, strict=True)
    ]
    return [
        shortened(f"{place}: {name}", length) if count > 1 else name
        for place, (name, count) in enumerate(zip(middle, map(middle.count, middle), strict=True))
    ]


def percent(share: float) -> str:
    """Write a probability to be read; one that is only nearly 1 is not called 100 %."""
    if 0.995 <= share < 1.0:
        return ">99 %"
    if 0.0 < share < 0.005:
        return "<1 %"
    return "nan" if share != share else f"{100 * share:.0f} %"
