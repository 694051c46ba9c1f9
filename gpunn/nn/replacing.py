"""Replace the last layer with weights, to train a network on other data."""

from math import prod

from gpunn.config.scalars import positive_whole
from gpunn.errors import OptionError
from gpunn.nn.layers import Layer
from gpunn.nn.network import Network


def place_of_last(network: Network) -> int:
    """Return the place of the last layer with weights; raise OptionError where no layer has weights."""
    places = [number for number, layer in enumerate(network.layers) if layer.has_weights]
    if not places:
        raise OptionError(f"no layer of the network has weights, so none can be replaced: {network!r}")
    return places[-1]


def with_last(network: Network, outputs: int) -> list[Layer]:
    """Return the layers with the last one with weights, and those after it, made anew for this number of outputs."""
    network._built()
    at, outputs = place_of_last(network), positive_whole(outputs, "number of outputs")
    last, rest = network.layers[at], network.layers[at + 1 :]
    if (own := network.shapes[at][-1]) != (total := prod(network.output_shape)):
        mend = "write Sequential([*network.layers[:-1], ...]) with a Dense layer at the end"
        raise OptionError(f"{last!r} makes {own} of the {total} outputs, and so cannot be replaced by itself: {mend}")
    made = [last.resized(outputs), *(layer.unbuilt() for layer in rest)]
    for layer in made:
        layer.trainable = True
    return [*network.layers[:at], *made]
