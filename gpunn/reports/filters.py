"""Draw the filters of a network, and the feature maps of an image."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpunn.backend.base import Shape
from gpunn.config.scalars import positive_whole
from gpunn.data import Data
from gpunn.display.style import (
    FAINT,
    LEAST_SIDE,
    NOT_FINITE,
    draw_sample,
    first_of,
    limits_of,
    picture,
    place,
    title_room,
)
from gpunn.display.text import drawable, fitted, shortened, wrapped
from gpunn.errors import ShapeError
from gpunn.files import StrPath
from gpunn.nn.arguments import as_batch
from gpunn.nn.layers import Layer
from gpunn.nn.layers.base import unchained
from gpunn.nn.network import Network

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure

FILTERS, ACTIVATIONS = "filters.png", "activations.png"
_BESIDE, _ABOVE = 0.12, 0.26  # between tiles, as shares of a tile's width: room for its number above it
_IMAGE, _MAPS, _SCALE = 1.6, 2.7, 0.65  # inches of an image, of a convolution's maps, and of the scale beside them
_SHORTEST = 0.55  # inches of a scale
_BAD = "violet: NaN or Inf"


def first_filters(model: Network, shape: Shape) -> tuple[str, NDArray[Any]] | None:
    """Return the name and weights (units, channels, height, width) of the first layer with weights.

    None if the weights are not images: those of a Dense layer after features or after pooling.
    """
    leaves = (layer for layer, _ in model.every_layer if not layer.branches)
    layer = next((layer for layer in leaves if layer.has_weights), None)
    if model.backend is None or len(shape) != 3 or layer is None or layer.w is None:
        return None
    with model.lock:
        w = model.backend.to_host(layer.w.value)
    images = layer.filters_of(w, shape)
    return None if images is None else (layer.name, images)


def shape_of_images(model: Network) -> Shape:
    """Return the shape of the images that a built network takes; its input shape if it takes none."""
    trained = model.trained_on
    if trained is None or trained.columns is not None:
        return model.input_shape
    side = math.isqrt(trained.shape[0])
    is_square = len(trained.shape) == 1 and side >= LEAST_SIDE and side * side == trained.shape[0]
    return (side, side, 1) if is_square else trained.shape


def most_filters(weights: NDArray[Any]) -> int:
    """Return the number of filters to draw, fewer if they are large."""
    return 64 if max(weights.shape[2:]) <= 12 else 36


def plot_filters(
    weights: ArrayLike, path: StrPath | None, *, name: str = "filters", count: int = 64, title: str = ""
) -> "Figure":
    """Draw weights (units, channels, height, width) as images, all on one scale.

    One channel: red above 0, blue below. Three channels: red, green and blue, with grey for 0. Other numbers of
    channels: the norm √(Σ_c w²) of each pixel.
    """
    w = np.asarray(weights)
    if w.ndim != 4 or not w.size:
        raise ShapeError(f"expected weights (units, channels, height, width), got {w.shape}")
    units, channels, height, width = w.shape
    shown = w[: positive_whole(count, "count of filters")]
    if channels == 3:
        tiles, words = shown.transpose(0, 2, 3, 1), "weights for red, green and blue; grey is 0"
    elif channels == 1:
        tiles, words = shown[:, 0], "red: above 0, blue: below 0, white: 0"
    else:
        tiles, words = np.sqrt(np.square(shown).sum(axis=1)), f"norm of the weights over {channels} channels"
    cmap, norm = colours(tiles, diverging=channels in (1, 3))
    if not np.isfinite(shown).all():
        words += f"; {_BAD}"
    across, down = extent(*grid(len(shown), height, width), height, width)
    unit = min(0.85, 7.0 / across, 7.0 / down)
    wide, high, bar = unit * across, unit * down, 0.0 if channels == 3 else _SCALE
    inches = max(4.2, wide + bar + 0.4)
    heading = f"{drawable(name)}: {first_of(len(shown), units, 'filter')}, {height} × {width}"
    heading = wrapped(heading, inches - 0.3, 10.5, bold=False)
    words = wrapped(words, inches - 0.3, 9.0, bold=False)
    top = title_room(title, inches) + 0.1 + 0.18 * _lines(heading)
    below = 0.2 + 0.16 * _lines(words)
    with picture(path, inches, top + high + below, title, by_hand=True) as figure:
        drawn = np.asarray(norm(tiles)) if channels == 3 else tiles
        axes = _place_tiles(figure, (inches - wide - bar) / 2, top, unit, drawn, cmap, norm)
        axes.set_title(heading, fontsize=10.5, pad=2, x=0.5 + bar / 2 / wide)
        figure.supxlabel(words, y=0.1 / (top + high + below), fontsize=9.0, color=FAINT)
    return figure


@dataclass(frozen=True, eq=False)
class FeatureMaps:
    """Feature maps (filters, height, width) of a convolution, named by its layers: "conv1, relu1"."""

    name: str
    maps: NDArray[Any]


def feature_maps(model: Network, image: ArrayLike, scale: float = 1.0) -> list[FeatureMaps]:
    """Compute the feature maps of an image (height, width, channels), after activation and pooling.

    The network sees `image * scale`.
    """
    names = _names_of_maps(model)
    if not names or model.backend is None:
        return []
    with model.lock:
        model._forward(as_batch(np.asarray(image)[None], model.input_shape, model.trained_on), scale=scale)
        x = model.input.views(1)[1]  # filled by that forward; no stage overwrites it
        current, maps = "", {}
        for stage in model.stages:
            x = model.propagate(x, False, [stage])
            if x.ndim != 4:
                break
            current = names.get(stage.name, current)
            if current and stage.is_pictured:
                maps[current] = model.backend.to_host(x)[..., 0]  # a copy: a later stage may overwrite x
        return [FeatureMaps(name, values) for name, values in maps.items()]


def _names_of_maps(model: Network) -> dict[str, str]:
    """Name the feature maps of each convolution by it and the layers after it, as far as they are drawn."""
    if model.tokens:  # not an image, which could be drawn beside the maps
        return {}
    groups, shape = list[list[Layer]](), model.input_shape
    for layer in unchained(model.layers):
        shape = layer.output_shape(shape)
        if len(shape) != 3:
            break
        if layer.has_weights and not layer.takes_rows:  # a convolution
            groups.append([])
        if groups:
            groups[-1].append(layer)
    for group in groups:
        while not group[-1].is_pictured:
            group.pop()
    return {group[0].name: ", ".join(layer.name for layer in group) for group in groups}


def plot_activations(
    image: ArrayLike,
    found: Sequence[FeatureMaps],
    path: StrPath | None,
    *,
    name: str = "input",
    count: int = 16,
    title: str = "",
) -> "Figure":
    """Draw an image (height, width, channels) beside its feature maps, each convolution on a scale of its own."""
    pixels, layers = np.asarray(image, np.float64), len(found)
    if pixels.ndim != 3 or not pixels.size or not layers:
        raise ShapeError(
            f"expected an image (height, width, channels) and feature maps, got {pixels.shape} and {layers}"
        )
    count = positive_whole(count, "count of maps")
    rows, across = math.ceil(layers / 3), min(layers, 3)  # three beside each other
    height, width, channels = pixels.shape
    mean = f"\nmean of {channels} channels" if channels not in (1, 3) else ""
    told = [fitted(drawable(line), _IMAGE + 0.2, 9.5) for line in f"{name}\n{height} × {width}{mean}".split("\n")]
    shown = [each.maps[:count] for each in found]
    headings = [_heading(each, len(maps)) for each, maps in zip(found, shown, strict=True)]
    inches = _IMAGE + 0.5 + (_MAPS + _SCALE + 0.25) * across
    above = 0.1 + 0.165 * max(len(told), *map(_lines, headings))
    top, row = title_room(title, inches), above + _MAPS + 0.15
    has_bad = not all(np.isfinite(values).all() for values in (pixels, *shown))
    below = 0.35 if has_bad else 0.1
    with picture(path, inches, top + row * rows + below, title, by_hand=True) as figure:
        longer = max(height, width)
        high, wide = _IMAGE * height / longer, _IMAGE * width / longer
        axes = place(figure, 0.3 + (_IMAGE - wide) / 2, top + above + _ABOVE * _MAPS / 4, wide, high)
        draw_sample(axes, pixels if channels == 3 else pixels.mean(axis=2), limits_of(pixels), "")
        axes.set_title("\n".join(told), fontsize=9.5)
        for number, (maps, heading) in enumerate(zip(shown, headings, strict=True)):
            together = extent(*grid(*maps.shape), *maps.shape[1:])
            unit = _MAPS / max(together)
            left = _IMAGE + 0.7 + (_MAPS + _SCALE + 0.25) * (number % across)
            start = top + above + row * (number // across)
            axes = _place_tiles(figure, left, start, unit, maps, *colours(maps))
            axes.set_title(heading, fontsize=9.5, pad=2)
        if has_bad:
            figure.supxlabel(_BAD, y=0.1 / figure.get_figheight(), fontsize=9.0, color=FAINT)
    return figure


def _heading(found: FeatureMaps, shown: int) -> str:
    filters, height, width = found.maps.shape
    names = wrapped(drawable(found.name), _MAPS + 0.1, 9.5, bold=False)
    return f"{names}\n{first_of(shown, filters, 'map')}, {height} × {width}"


def _lines(text: str) -> int:
    return text.count("\n") + 1


def colours(values: NDArray[Any], *, diverging: bool = False) -> "tuple[Colormap, Normalize]":
    """Return a colour scale for all finite values, symmetric about 0 if `diverging` or some are negative.

    Weights and feature maps have the same colours: white is 0, red above, blue below.
    """
    import matplotlib
    from matplotlib.colors import ListedColormap, Normalize

    finite = values[np.isfinite(values)]
    largest = float(np.abs(finite).max(initial=0.0)) or 1.0
    both = matplotlib.colormaps["RdBu_r"].with_extremes(bad=NOT_FINITE)  # told apart under common colour blindness
    if diverging or (finite < 0).any():
        return both, Normalize(-largest, largest)
    above = ListedColormap(both(np.linspace(0.5, 1.0, 256)), "above 0")
    return above.with_extremes(bad=NOT_FINITE), Normalize(0.0, largest)


def grid(count: int, height: int, width: int) -> tuple[int, int]:
    """Return rows and columns of a nearly square grid of tiles of height × width pixels."""
    beside, above = _gaps(height, width)
    rows = max(1, round(math.sqrt(count * (1 + beside) / (height / width + above))))
    columns = math.ceil(count / rows)
    return math.ceil(count / columns), columns


def extent(rows: int, columns: int, height: int, width: int) -> tuple[float, float]:
    """Return width and height of the grid in widths of a tile."""
    beside, above = _gaps(height, width)
    return columns * (1 + beside), rows * (height / width + above)


def _gaps(height: int, width: int) -> tuple[float, float]:
    """Return the gaps beside and above a tile in widths of a tile, larger for slim tiles."""
    slim = max(1.0, height / width / 2)
    return _BESIDE * slim, _ABOVE * slim


def _place_tiles(
    figure: "Figure", left: float, top: float, unit: float, tiles: NDArray[Any], cmap: "Colormap", norm: "Normalize"
) -> "Axes":
    """Draw images (count, height, width) or (…, 3) in a grid, each under its number from 0, beside their scale.

    `left` and `top` are the grid's place in inches from those of the figure; a tile is `unit` inches wide.
    """
    from matplotlib.patches import Rectangle
    from matplotlib.ticker import MaxNLocator

    count, height, width = tiles.shape[:3]
    rows, columns = grid(count, height, width)
    high, (beside, above) = height / width, _gaps(height, width)
    across, down = extent(rows, columns, height, width)
    axes = place(figure, left, top, unit * (across - beside), unit * down)
    for number, tile in enumerate(tiles):
        x, y = number % columns * (1 + beside), number // columns * (high + above)
        axes.imshow(tile, cmap=cmap, norm=norm, extent=(x, x + 1, y + high, y), interpolation="nearest", aspect="auto")
        edge: dict[str, Any] = {"fill": False, "edgecolor": "#BBBBBB", "linewidth": 0.6, "clip_on": False}
        axes.add_patch(Rectangle((x, y), 1, high, **edge))
        axes.text(x, y - 0.03 / unit, f"{number}", fontsize=6.5, color=FAINT, va="bottom", ha="left")
    axes.set(xlim=(0, across - beside), ylim=(down - above, -above))
    axes.set_axis_off()
    if tiles.ndim == 3:
        start, side = top + above * unit, (down - above) * unit
        long = max(side, _SHORTEST)
        scale = place(figure, left + unit * (across - beside) + 0.1, start + (side - long) / 2, 0.1, long)
        figure.colorbar(axes.images[0], cax=scale, ticks=MaxNLocator(5 if long > 1.2 else 2))
    return axes


def draw_network(folder: Path, model: Network, data: Data, title: str) -> list[str]:
    """Write filters.png and activations.png if the network has image filters and feature maps; return their names.

    The image comes from the validation set, else from the training set, never from the test set.
    """
    written = []
    if first := first_filters(model, data.train.shape):
        name, weights = first
        plot_filters(weights, folder / FILTERS, name=name, count=most_filters(weights), title=title)
        written.append(FILTERS)
    samples = data.validation or data.train
    at = int(np.argmax(samples.targets)) if samples.classes else 0  # of the digits a 9, which has a curve and a line
    image = samples.inputs[at] * np.float32(samples.scale)
    if found := feature_maps(model, image):
        name = "input"
        if samples.classes and data.class_names:
            predicted = model.predict_names(samples.inputs[at][None])[0]
            name = f"true {shortened(data.class_names[samples.targets[at]])}\npredicted {shortened(predicted)}"
        plot_activations(image, found, folder / ACTIVATIONS, name=name, title=title)
        written.append(ACTIVATIONS)
    return written
