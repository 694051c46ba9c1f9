"""Many small images in one panel: filters, and what they answer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpunn.reports.style import FAINT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

# Both are told apart under every common colour blindness; 0 is white in one and dark in the other.
DIVERGING, SEQUENTIAL = "RdBu_r", "viridis"

# Between tiles, as shares of a tile's width: room for its number above it.
_BESIDE, _ABOVE = 0.12, 0.26


def colours(values: NDArray[Any], *, diverging: bool | None = None) -> tuple[str, Normalize]:
    """A colour map and one scale for all the values.

    Args:
        values: of all the tiles; what is not finite does not count.
        diverging: whether 0 is the middle; left out, where there are negative values. Else the scale begins at 0.
    """
    from matplotlib.colors import Normalize

    finite = values[np.isfinite(values)]
    largest = float(np.abs(finite).max(initial=0.0)) or 1.0
    if diverging is None:
        diverging = bool(finite.size and finite.min() < 0)
    return (DIVERGING, Normalize(-largest, largest)) if diverging else (SEQUENTIAL, Normalize(0.0, largest))


def grid(count: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns for so many tiles of height × width pixels, about as high as wide together."""
    rows = max(1, round(math.sqrt(count * (1 + _BESIDE) / (height / width + _ABOVE))))
    columns = math.ceil(count / rows)
    return math.ceil(count / columns), columns


def extent(rows: int, columns: int, height: int, width: int) -> tuple[float, float]:
    """Width and height that the tiles take together, the width of one being 1."""
    return columns * (1 + _BESIDE), rows * (height / width + _ABOVE)


def draw_tiles(axes: Axes, tiles: NDArray[Any], columns: int, cmap: str, norm: Normalize) -> ScalarMappable:
    """Draw tiles row by row, each under its number from 0.

    Args:
        axes: where.
        tiles: (count, height, width), or (count, height, width, 3) of colours from 0 to 1.
        columns: tiles in a row.
        cmap: name of the colour map.
        norm: the scale of all tiles.

    Returns:
        What a colour bar is made of.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.patches import Rectangle

    count, height, width = tiles.shape[:3]
    high = height / width
    for number, tile in enumerate(tiles):
        left = (number % columns) * (1 + _BESIDE)
        top = (number // columns) * (high + _ABOVE)
        place = (left, left + 1, top + high, top)
        axes.imshow(tile, cmap=cmap, norm=norm, extent=place, interpolation="nearest", aspect="equal")
        axes.add_patch(Rectangle((left, top), 1, high, fill=False, edgecolor="#BBBBBB", linewidth=0.6))
        axes.text(left, top - 0.02, f"{number}", fontsize=6.5, color=FAINT, va="bottom", ha="left")
    across, down = extent(math.ceil(count / columns), columns, height, width)
    axes.set_xlim(-0.01, across - _BESIDE + 0.01)
    axes.set_ylim(down - _ABOVE + 0.01, -_ABOVE)
    axes.set_axis_off()
    # Nothing is drawn by itself, so that an axis without ticks does not hide it.
    return ScalarMappable(norm, cmap)
