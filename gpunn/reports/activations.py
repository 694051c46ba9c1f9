"""What the filters of a network answer to one image, convolution by convolution."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpunn.errors import OptionError, ShapeError
from gpunn.nn.layers import Layer
from gpunn.nn.network import Network
from gpunn.reports.style import FAINT, picture
from gpunn.reports.tiles import colours, draw_tiles, grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Panels beside each other.
_ACROSS = 3


@dataclass(frozen=True, eq=False)
class Answers:
    """What the filters of one convolution answer to an image.

    Attributes:
        name: of the convolution and of the layers after it that are in the answer, "conv1, relu1, maxpool1".
        maps: (filters, height, width).
    """

    name: str
    maps: NDArray[Any]


def answers_to(model: Network, image: ArrayLike) -> list[Answers]:
    """What each convolution of a network, with activation and pooling after it, answers to an image.

    Args:
        model: a built network.
        image: (height, width, channels), as the network sees it.

    Returns:
        One element a convolution; the BatchNorm or Dropout that comes last before the next one is left out.

    Raises:
        ShapeError: an image of another shape than the network was built for.
    """
    with model.lock:
        return _answers_to(model, image)


def _answers_to(model: Network, image: ArrayLike) -> list[Answers]:
    names = _names(model.layers)
    if not names or model.backend is None:
        return []
    model._forward(model._samples(np.asarray(image)[None]))
    x = model.input.views(1)[1]  # which that forward has filled, and no stage overwrites
    answers: list[Answers] = []
    for stage in model.stages:
        x = model.propagate(x, False, [stage])
        if x.ndim != 4:
            break
        if _is_convolution(stage):
            answers.append(Answers(names[stage.name], np.empty(0)))
        if answers and stage.is_pictured:
            # A stage may overwrite what the one before it returned, so this is copied here and not later.
            answers[-1] = Answers(answers[-1].name, model.backend.to_host(x)[..., 0])
    return answers


def _names(layers: Sequence[Layer]) -> dict[str, str]:
    """For each convolution: its name and those of the layers after it, up to the last that is in its answer."""
    groups: dict[str, list[str]] = {}
    waiting: list[str] = []
    for layer in layers:
        if _is_convolution(layer):
            groups[layer.name], waiting = [layer.name], []
        elif layer.name_prefix in ("flatten", "dense"):
            break
        elif groups:
            waiting.append(layer.name)
            if layer.is_pictured:
                groups[next(reversed(groups))] += waiting
                waiting = []
    return {name: ", ".join(group) for name, group in groups.items()}


def _is_convolution(layer: Layer) -> bool:
    return layer.has_weights and not layer.takes_rows


def plot_activations(
    image: ArrayLike,
    answers: Sequence[Answers],
    path: str | os.PathLike[str],
    *,
    name: str = "input",
    count: int = 16,
    title: str = "",
) -> None:
    """Draw an image, and beside it what the filters answer to it; each convolution has one scale of its own.

    Args:
        image: (height, width, channels); other than 1 or 3 channels are drawn as their mean.
        answers: of `answers_to`.
        path: the PNG to write.
        name: what the image is.
        count: maps that are drawn at most of one convolution, the first ones.
        title: what the picture is of.

    Raises:
        ShapeError: if the image is none, or there are no answers.
        OptionError: if `count` is not positive.
        OutputError: if the file cannot be written.
    """
    pixels = np.asarray(image, np.float64)
    if pixels.ndim != 3 or not pixels.size or not answers:
        raise ShapeError(
            f"expected an image (height, width, channels) and the answers of a convolution at least, got "
            f"{pixels.shape} and {len(answers)} answers"
        )
    if count < 1:
        raise OptionError(f"expected a count of maps of at least 1, got {count}")
    rows, across = math.ceil(len(answers) / _ACROSS), min(len(answers), _ACROSS)
    with picture(path, 2.0 + 3.3 * across, 3.5 * rows + 0.6, title) as figure:
        places = figure.add_gridspec(rows, 1 + across, width_ratios=[1.6] + [3.3] * across)
        _draw_image(figure.add_subplot(places[0, 0]), pixels, name)
        for number, answer in enumerate(answers):
            axes = figure.add_subplot(places[number // across, 1 + number % across])
            _draw_answers(figure, axes, answer, count)


def _draw_image(axes: Axes, pixels: NDArray[Any], name: str) -> None:
    channels = pixels.shape[2]
    finite = pixels[np.isfinite(pixels)]
    low, high = min(float(finite.min(initial=0.0)), 0.0), float(finite.max(initial=0.0))
    high = high if high > low else low + 1.0
    if channels == 3:
        axes.imshow(np.clip((pixels - low) / (high - low), 0.0, 1.0), interpolation="nearest")
    else:
        axes.imshow(pixels.mean(axis=2), cmap="gray_r", vmin=low, vmax=high, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color("#BBBBBB")
    mean = f"\nmean of {channels} channels" if channels not in (1, 3) else ""
    axes.set_title(f"{name}\n{pixels.shape[0]} × {pixels.shape[1]}{mean}", fontsize=9.5)


def _draw_answers(figure: Figure, axes: Axes, answer: Answers, count: int) -> None:
    filters, height, width = answer.maps.shape
    shown = answer.maps[:count]
    cmap, norm = colours(shown)
    _, columns = grid(len(shown), height, width)
    scale = draw_tiles(axes, shown, columns, cmap, norm)
    of = f"first {len(shown)} of {filters} maps" if len(shown) < filters else f"all {filters} maps"
    axes.set_title(f"{answer.name}\n{of}, {height} × {width}", fontsize=9.5)
    bar = figure.colorbar(scale, ax=axes, shrink=0.75, aspect=25, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=3.0, color=FAINT, labelsize=7.5)
