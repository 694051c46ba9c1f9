"""Draw the reconstructions of an autoencoder below its inputs."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpunn.config.scalars import positive_whole
from gpunn.data import Samples
from gpunn.display.style import FAINT, draw_sample, limits_of, picture, title_room
from gpunn.display.text import wrapped
from gpunn.errors import ShapeError
from gpunn.files import StrPath
from gpunn.nn.network import Network

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RECONSTRUCTIONS = "reconstructions.png"
MOST_SHOWN = 10


def draw_reconstructions(
    model: Network, samples: Samples, path: StrPath | None, *, count: int = MOST_SHOWN, title: str = ""
) -> "Figure":
    """Draw samples above their reconstructions, all on one scale, with the mean squared errors."""
    shown = samples.first(positive_whole(count, "count of samples"))
    inputs: NDArray[Any] = np.asarray(shown.inputs, np.float32) * np.float32(shown.scale)
    outputs = model.predict_proba(shown.inputs)
    if outputs[0].size != inputs[0].size:
        sizes = f"{outputs[0].size:,} outputs for inputs {shown.shape}"
        raise ShapeError(f"a reconstruction has as many numbers as its input, got {sizes}: end the network in as many")
    if inputs.ndim == 4:
        _, height, width, channels = inputs.shape
        made: NDArray[Any] = outputs.reshape(-1, channels, height, width).transpose(0, 2, 3, 1)
        tiles = [each if channels == 3 else each.mean(axis=3) for each in (inputs, made)]
    else:
        made = outputs.reshape(inputs.shape)
        tiles = [inputs, made]
    errors = np.square(inputs - made).reshape(len(inputs), -1).mean(axis=1)
    limits, columns = limits_of(inputs), len(inputs)
    width = 0.4 + 0.95 * max(columns, 4)
    words = wrapped("inputs above, reconstructions and their mean squared errors below", width - 0.3, 9.0, bold=False)
    with picture(path, width, 2.4 + title_room(title, width), title) as figure:
        places = figure.add_gridspec(2, columns)
        for column, error in enumerate(errors):
            draw_sample(figure.add_subplot(places[0, column]), tiles[0][column], limits, "", fontsize=8.5)
            axes = figure.add_subplot(places[1, column])
            draw_sample(axes, tiles[1][column], limits, "", fontsize=8.5)
            axes.set_xlabel(f"{error:.2g}", fontsize=8.0, color=FAINT)
        figure.supxlabel(words, fontsize=9.0, color=FAINT)
    return figure
