"""What the units of the first layer look for: their weights, as images."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpunn.backend.base import Shape
from gpunn.errors import OptionError, ShapeError
from gpunn.nn.network import Network
from gpunn.reports.style import FAINT, picture
from gpunn.reports.tiles import colours, draw_tiles, extent, grid


def first_filters(model: Network, shape: Shape) -> tuple[str, NDArray[Any]] | None:
    """The weights of the first layer that has any, as images.

    Args:
        model: a built network.
        shape: of one sample of its data, (height, width, channels) for images.

    Returns:
        The layer's name and its weights (units, channels, height, width); None where they are not images: a Dense
        layer that is fed with features, or with what pooling has left of an image.
    """
    if model.backend is None or len(shape) != 3:
        return None
    layer = next((layer for layer in model.layers if layer.has_weights), None)
    if layer is None or layer.w is None:
        return None
    with model.lock:
        w = model.backend.to_host(layer.w.value)
    if w.ndim == 2:
        if w.shape[1] != int(np.prod(shape)):
            return None
        w = w.reshape(len(w), shape[2], *shape[:2])
    return layer.name, w


def plot_filters(
    weights: ArrayLike, path: str | os.PathLike[str], *, name: str = "filters", count: int = 64, title: str = ""
) -> None:
    """Draw the weights of filters or units as images, all on one scale.

    One channel: red above 0, blue below. Three channels: as red, green and blue, grey being 0. Other numbers of
    channels: the norm √(Σ_c w²) at each place.

    Args:
        weights: (units, channels, height, width), such as `w` of a Conv2D.
        path: the PNG to write.
        name: of the layer.
        count: units that are drawn at most, the first ones.
        title: what the picture is of.

    Raises:
        ShapeError: if the weights are not of four dimensions.
        OptionError: if `count` is not positive.
        OutputError: if the file cannot be written.
    """
    w = np.asarray(weights)
    if w.ndim != 4 or not w.size:
        raise ShapeError(f"expected weights (units, channels, height, width), got {w.shape}")
    if count < 1:
        raise OptionError(f"expected a count of filters of at least 1, got {count}")
    units, channels, height, width = w.shape
    shown = w[:count]
    if channels == 3:
        cmap, norm = colours(shown, diverging=True)
        tiles = np.asarray(norm(shown.transpose(0, 2, 3, 1)))
        words = "weights for red, green and blue; grey is 0"
    elif channels == 1:
        tiles = shown[:, 0]
        cmap, norm = colours(tiles, diverging=True)
        words = "red: answers to light, blue: to dark"
    else:
        tiles = np.sqrt(np.square(shown).sum(axis=1))
        cmap, norm = colours(tiles, diverging=False)
        words = f"norm of the weights over {channels} channels"
    rows, columns = grid(len(shown), height, width)
    across, down = extent(rows, columns, height, width)
    inches = min(0.85, 7.0 / across, 7.0 / down)
    of = f"first {len(shown)} of {units}" if len(shown) < units else f"all {units}"
    with picture(path, max(4.6, inches * across + 1.2), inches * down + 1.2, title) as figure:
        axes = figure.add_subplot()
        scale = draw_tiles(axes, tiles, columns, cmap, norm)
        axes.set_title(f"{name}: {of}, {height} × {width}", fontsize=10.5)
        figure.supxlabel(words, fontsize=9.0, color=FAINT)
        if channels != 3:
            bar = figure.colorbar(scale, ax=axes, shrink=0.8, aspect=25, pad=0.02)
            bar.outline.set_visible(False)
            bar.ax.tick_params(length=3.0, color=FAINT, labelsize=8.0)
