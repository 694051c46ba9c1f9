"""Style all pictures, draw the elements that several share, and write pictures to disk.

It uses Matplotlib's object interface and not pyplot, so it makes no global figures, needs no display, and changes no
setting of the user's.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpunn.display.text import drawable, families, wrapped
from gpunn.errors import OptionError
from gpunn.files import StrPath, as_path, write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Palette by Okabe and Ito, readable with every common colour blindness.
TRAINING, VALIDATION, BEST = "#0072B2", "#D55E00", "#009E73"
OVERFITTING, RATE, INK, FAINT = "#A8447F", "#5B5B5B", "#222222", "#767676"
NOT_FINITE = "#B8A2D9"  # NaN and Inf in images, maps and filters: violet, which is on no colour scale

# Least side of an image: smaller flat samples are measurements, even if their number of features is a square.
LEAST_SIDE = 8

_STYLE = {
    "axes.axisbelow": True,
    "axes.titlesize": 11.0,
    "figure.dpi": 150,
    "figure.titlesize": 13.0,
    "figure.titleweight": "bold",
    "grid.color": "#E4E4E4",  # lighter than any data
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
def picture(
    path: StrPath | None, width: float, height: float, title: str = "", *, by_hand: bool = False
) -> "Iterator[Figure]":
    """Open a figure of width × height inches; with a path, write it as PNG when the block ends without an error.

    Matplotlib lays out its panels, or you do `by_hand`, with `place`, below a title of height `title_room`. The same
    drawing gives the same bytes. After the block you may show or change the figure.
    """
    from gpunn.display.figure import Picture, styled

    target = None if path is None else as_path(path)
    title = wrapped(checked_title(title), width - 0.3)
    look = {**_STYLE, "font.family": list(families())}
    with styled(look):
        figure = Picture(figsize=(width, height), layout=None if by_hand else "constrained")
        figure.gpunn_style = look
        if title:
            figure.suptitle(title, **({"y": 1 - 0.1 / height} if by_hand else {}))
        yield figure
        content = None if target is None else figure.png()
        if content is None:
            figure.settle()
        figure.set_layout_engine("none")  # a second layout would move panels by some pixels
    if target is not None and content is not None:
        write_atomically(target, content)


def checked_title(title: str) -> str:
    """Return a title without letters that cannot be drawn; raise OptionError if it is no text."""
    if not isinstance(title, str):
        raise OptionError(f"the title of a picture is a text, got {type(title).__name__}")
    return drawable(title)


def title_room(title: str, width: float) -> float:
    """Return the height in inches of a title at the top of a picture of `width` inches."""
    lines = wrapped(checked_title(title), width - 0.3).count("\n") + 1
    return 0.13 + 0.22 * lines if title else 0.0


def place(figure: "Figure", left: float, top: float, width: float, height: float) -> "Axes":
    """Add a panel at a position in inches from the left and the top of a figure that is laid out by hand."""
    across, down = figure.get_size_inches()
    return figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))


def write_alone(figure: "Figure", words: str) -> None:
    """Write words in place of a drawing without data."""
    words = wrapped(words, figure.get_figwidth() - 0.4, 14.0, bold=False)
    figure.add_subplot(frame_on=False, xticks=[], yticks=[]).text(0.5, 0.5, words, ha="center", va="center", size=14)


def draw_sample(axes: "Axes", sample: NDArray[Any], limits: tuple[float, float], title: str, **look: Any) -> None:
    """Draw (height, width) dark on light, (height, width, 3) in colour, or features as bars, under a title."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color="#BBBBBB")
    axes.set_title(title, **look)
    low, high = limits
    if sample.ndim == 1:
        # One patch per bar would take seconds.
        axes.stairs(sample, np.arange(len(sample) + 1), fill=True, color=TRAINING)
        axes.axhline(0.0, color=FAINT, linewidth=0.6)
        axes.set(ylim=(1.05 * low - 0.05 * high, 1.05 * high - 0.05 * low), box_aspect=1)
    else:
        pixels = np.clip((sample - low) / (high - low), 0.0, 1.0) if sample.ndim == 3 else sample
        import matplotlib

        grey = matplotlib.colormaps["gray_r"].with_extremes(bad=NOT_FINITE)
        axes.imshow(pixels, cmap=grey, vmin=low, vmax=high, interpolation="nearest")


def plain_ticks(axis: "Axis", limits: tuple[float, float], most: int = 0) -> None:
    """Label the ticks of an axis with full numbers, as a factor or offset in the corner may collide with a title.

    With `most`, limit the number of intervals, and halve it for long numbers.
    """
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    longest = max(len(f"{limit:.4g}") for limit in limits)
    if most:
        axis.set_major_locator(MaxNLocator(most if longest < 5 else most // 2))
    if 1e-3 <= max(map(abs, limits)) < 1e7:
        plain = ScalarFormatter(useOffset=False)
        plain.set_scientific(False)
        axis.set_major_formatter(plain)
    else:
        axis.set_major_formatter("{x:.4g}")


def limits_of(values: NDArray[Any]) -> tuple[float, float]:
    """Return the range of the finite values and 0; a range shared by several samples keeps faint ones faint."""
    finite = values[np.isfinite(values)]
    low, high = float(finite.min(initial=0.0)), float(finite.max(initial=0.0))
    return low, high if high > low else low + 1.0


def first_of(shown: int, count: int, word: str) -> str:
    """Say how many of `count` are shown, for example "first 16 of 20 maps", "all 4 maps" or "1 map"."""
    if count == 1:
        return f"1 {word}"
    return f"first {shown} of {count} {word}s" if shown < count else f"all {count} {word}s"


def percent(share: float) -> str:
    """Format a probability in per cent; never round up to 100 % or down to 0 %."""
    if 0.995 <= share < 1.0:
        return ">99 %"
    if 0.0 < share < 0.005:
        return "<1 %"
    return "nan" if share != share else f"{100 * share:.0f} %"
