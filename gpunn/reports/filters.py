"""The filters of a network as pictures: their weights, and the maps that they answer an image with."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpunn.backend.base import Shape
from gpunn.data import Data
from gpunn.display.style import FAINT, LEAST_SIDE, draw_sample, first_of, limits_of, picture, shortened
from gpunn.errors import ShapeError
from gpunn.files import StrPath
from gpunn.nn.arguments import as_batch
from gpunn.nn.layers import Layer
from gpunn.nn.layers.base import unchained
from gpunn.nn.network import Network
from gpunn.scalars import positive_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure

FILTERS, ACTIVATIONS = "filters.png", "activations.png"
_BESIDE, _ABOVE = 0.12, 0.26  # between tiles, as shares of a tile's width: room for its number above it


def first_filters(model: Network, shape: Shape) -> tuple[str, NDArray[Any]] | None:
    """Return the name of the first layer with weights, and these as images (units, channels, height, width).

    None where they are not images: of a Dense layer fed with features, or with what pooling has left of an image.
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
    """Return the shape of the images that a built network was made for; its input shape where there are none."""
    trained = model.trained_on
    if trained is None or trained.columns is not None:
        return model.input_shape
    side = math.isqrt(trained.shape[0])
    is_square = len(trained.shape) == 1 and side >= LEAST_SIDE and side * side == trained.shape[0]
    return (side, side, 1) if is_square else trained.shape


def most_filters(weights: NDArray[Any]) -> int:
    """Return how many filters are drawn: fewer units that see the whole image, which need the room."""
    return 64 if max(weights.shape[2:]) <= 12 else 36


def plot_filters(
    weights: ArrayLike, path: StrPath | None, *, name: str = "filters", count: int = 64, title: str = ""
) -> "Figure":
    """Draw weights (units, channels, height, width) as images, all on one scale.

    One channel: red above 0, blue below. Three channels: as red, green and blue, grey being 0. Other numbers of
    channels: the norm √(Σ_c w²) at each place.
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
    across, down = extent(*grid(len(shown), height, width), height, width)
    inches = min(0.85, 7.0 / across, 7.0 / down)
    with picture(path, max(4.6, inches * across + 1.2), inches * down + 1.2, title) as figure:
        axes = figure.add_subplot()
        _draw_tiles(axes, np.asarray(norm(tiles)) if channels == 3 else tiles, cmap, norm)
        axes.set_title(f"{name}: {first_of(len(shown), units)}, {height} × {width}", fontsize=10.5)
        figure.supxlabel(words, fontsize=9.0, color=FAINT)
        if channels != 3:
            figure.colorbar(axes.images[0], ax=axes, shrink=0.8, aspect=25, pad=0.02)
    return figure


@dataclass(frozen=True, eq=False)
class Answers:
    """The maps (filters, height, width) of a convolution, and the layers that they have passed: "conv1, relu1"."""

    name: str
    maps: NDArray[Any]


def answers_to(model: Network, image: ArrayLike, scale: float = 1.0) -> list[Answers]:
    """Compute the maps of each convolution for an image (height, width, channels), after its activation and pooling.

    The network sees `image * scale`.
    """
    names = _names_of_answers(model)
    if not names or model.backend is None:
        return []
    with model.lock:
        model._forward(as_batch(np.asarray(image)[None], model.input_shape, model.trained_on), scale=scale)
        x = model.input.views(1)[1]  # which that forward has filled, and no stage overwrites
        current, maps = "", {}
        for stage in model.stages:
            x = model.propagate(x, False, [stage])
            if x.ndim != 4:
                break
            current = names.get(stage.name, current)
            if current and stage.is_pictured:
                maps[current] = model.backend.to_host(x)[..., 0]  # a copy: a later stage may overwrite x
        return [Answers(name, values) for name, values in maps.items()]


def _names_of_answers(model: Network) -> dict[str, str]:
    """For each convolution: its name and those of the layers after it, up to the last that is in its answer."""
    if model.tokens:  # which are no image to stand beside the maps
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
    answers: Sequence[Answers],
    path: StrPath | None,
    *,
    name: str = "input",
    count: int = 16,
    title: str = "",
) -> "Figure":
    """Draw an image (height, width, channels), and beside it the answers, each convolution on a scale of its own."""
    pixels, found = np.asarray(image, np.float64), len(answers)
    if pixels.ndim != 3 or not pixels.size or not found:
        raise ShapeError(f"expected an image (height, width, channels) and answers, got {pixels.shape} and {found}")
    count = positive_whole(count, "count of maps")
    rows, across = math.ceil(found / 3), min(found, 3)  # three beside each other
    height, width, channels = pixels.shape
    with picture(path, 2.0 + 3.3 * across, 3.5 * rows + 0.6, title) as figure:
        places = figure.add_gridspec(rows, 1 + across, width_ratios=[1.6] + [3.3] * across)
        axes = figure.add_subplot(places[0, 0])
        mean = f"\nmean of {channels} channels" if channels not in (1, 3) else ""
        shown = pixels if channels == 3 else pixels.mean(axis=2)
        draw_sample(axes, shown, limits_of(pixels), f"{name}\n{height} × {width}{mean}", fontsize=9.5)
        for number, answer in enumerate(answers):
            axes = figure.add_subplot(places[number // across, 1 + number % across])
            filters, height, width = answer.maps.shape
            shown = answer.maps[:count]
            _draw_tiles(axes, shown, *colours(shown))
            names = "\n".join(textwrap.wrap(answer.name, 38))
            axes.set_title(f"{names}\n{first_of(len(shown), filters)} maps, {height} × {width}", fontsize=9.5)
            figure.colorbar(axes.images[0], ax=axes, shrink=0.75, aspect=25, pad=0.02)
    return figure


def colours(values: NDArray[Any], *, diverging: bool = False) -> "tuple[Colormap, Normalize]":
    """Choose one scale for all finite values, around 0 if asked or some are negative, else from 0 on.

    Weights and answers have the same colours: white is 0, red above, blue below.
    """
    import matplotlib
    from matplotlib.colors import ListedColormap, Normalize

    finite = values[np.isfinite(values)]
    largest = float(np.abs(finite).max(initial=0.0)) or 1.0
    both = matplotlib.colormaps["RdBu_r"]  # told apart under every common colour blindness
    if diverging or (finite < 0).any():
        return both, Normalize(-largest, largest)
    return ListedColormap(both(np.linspace(0.5, 1.0, 256)), "above 0"), Normalize(0.0, largest)


def grid(count: int, height: int, width: int) -> tuple[int, int]:
    """Return rows and columns for tiles of height × width pixels, about as high as wide together."""
    rows = max(1, round(math.sqrt(count * (1 + _BESIDE) / (height / width + _ABOVE))))
    columns = math.ceil(count / rows)
    return math.ceil(count / columns), columns


def extent(rows: int, columns: int, height: int, width: int) -> tuple[float, float]:
    """Return width and height of all tiles together, the width of one being 1."""
    return columns * (1 + _BESIDE), rows * (height / width + _ABOVE)


def _draw_tiles(axes: "Axes", tiles: NDArray[Any], cmap: "Colormap", norm: "Normalize") -> None:
    """Draw images (count, height, width) or (…, 3) in a grid, each under its number from 0."""
    from matplotlib.patches import Rectangle

    count, height, width = tiles.shape[:3]
    rows, columns = grid(count, height, width)
    high = height / width
    for number, tile in enumerate(tiles):
        left, top = number % columns * (1 + _BESIDE), number // columns * (high + _ABOVE)
        place = (left, left + 1, top + high, top)
        axes.imshow(tile, cmap=cmap, norm=norm, extent=place, interpolation="nearest", aspect="equal")
        axes.add_patch(Rectangle((left, top), 1, high, fill=False, edgecolor="#BBBBBB", linewidth=0.6))
        axes.text(left, top - 0.02, f"{number}", fontsize=6.5, color=FAINT, va="bottom", ha="left")
    across, down = extent(rows, columns, height, width)
    axes.set(xlim=(-0.01, across - _BESIDE + 0.01), ylim=(down - _ABOVE + 0.01, -_ABOVE))
    axes.set_axis_off()


def draw_network(folder: Path, model: Network, data: Data, title: str) -> list[str]:
    """Write filters.png and activations.png, each where there is something to draw, and return their names.

    The image comes from the validation set, else from the training set: never from a test set that was not watched.
    """
    written = []
    if first := first_filters(model, data.train.shape):
        name, weights = first
        plot_filters(weights, folder / FILTERS, name=name, count=most_filters(weights), title=title)
        written.append(FILTERS)
    samples = data.validation or data.train
    at = int(np.argmax(samples.targets)) if samples.classes else 0  # of digits a 9, which has a curve and a line
    image = samples.inputs[at] * np.float32(samples.scale)
    if answers := answers_to(model, image):
        name = "input"
        if samples.classes and data.class_names:
            predicted = model.predict_names(samples.inputs[at][None])[0]
            name = f"true {shortened(data.class_names[samples.targets[at]])}\npredicted {shortened(predicted)}"
        plot_activations(image, answers, folder / ACTIVATIONS, name=name, title=title)
        written.append(ACTIVATIONS)
    return written
