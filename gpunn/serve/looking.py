"""What every layer of a network answers: a copy of it with a look after each layer, also within branches."""

from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.backend.base import Shape
from gpunn.kernels.record import Array
from gpunn.nn.layers import Layer
from gpunn.nn.layers.base import BuildContext, every_layer
from gpunn.nn.layout import turned
from gpunn.reports.filters import shape_of_images
from gpunn.sequential import Sequential


class Look(Layer):
    """y = x, which is copied to the host where it is asked for.

    It stands between two layers, so that none is computed together with the next, and each keeps its own output.
    """

    name_prefix = "look"

    def __init__(self) -> None:
        self.is_open = False
        self.seen: NDArray[Any] | None = None

    def build(self, context: BuildContext, input_shape: Shape) -> Shape:
        self._to_host = context.backend.to_host
        return input_shape

    def forward(self, x: Array, training: bool) -> Array:
        if self.is_open:
            self.seen = turned(self._to_host(x))
        return x

    def backward(self, dy: Array) -> Array | None:
        return dy


@dataclass(frozen=True)
class Place:
    """A layer and the place after it: what it makes of what comes in.

    Attributes:
        layer: The layer, of the copy.
        look: What lies after it.
        depth: How many layers it lies within.
        shape: Shape of its output for one sample.
        given: Shape of its input, as an image where it is one that was flattened.
        weighted: Number of the place whose weights its units are of, itself or an earlier one; None without.
    """

    layer: Layer
    look: Look
    depth: int
    shape: Shape
    given: Shape
    weighted: int | None

    @property
    def units(self) -> int:
        """Number of its units: outputs, or maps of an image."""
        return self.shape[-1]


class View:
    """A copy of a built network, layer by layer, that gives the outputs of all layers or of one.

    Layers within a `Residual` and the branches of a `Concatenate` have places of their own, before that of the whole;
    those of a `Chain` stand in its place. Projections, and layers within layers of your own, are part of the whole.
    """

    def __init__(self, model: Sequential) -> None:
        self.places: list[Place] = []
        image = shape_of_images(model)
        with model.lock:
            layers = [copy(layer) for layer in model.layers]
            for layer, _ in every_layer(layers):
                layer.begins_with, layer.is_placed, layer.trainable = {}, False, True
            shape = tuple(model.input_shape)
            made = self._looked(layers, shape, image if prod(image) == prod(shape) else shape, 0)
            for layer in made:  # nothing is learned, so no memory is made for gradients
                layer.trainable = False
            self.network = Sequential(made)
            backend = model._built()
            arrays = model.arrays()
            self.network.build_with(arrays, model.input_shape, model.batch_size, backend, model.dtype, model.seed)
        assert self.network.layers[0] is made[0]  # they are nobody else's, so they were not copied again

    def _looked(self, layers: Iterable[Layer], shape: Shape, image: Shape, depth: int) -> list[Layer]:
        """Return layers with a look after each, and list the places; `image` is the shape before it was flattened."""
        made: list[Layer] = []
        weighted: int | None = None
        for layer in layers:
            after = layer.output_shape(shape)
            if layer.is_chain:
                inner = layer.branches[0]
                inner[:] = self._looked(list(inner), shape, image, depth)
                made.append(layer)
                shape, image, weighted = after, after, None
                continue
            for branch in layer.main_branches:
                branch[:] = self._looked(list(branch), shape, image, depth + 1)
            if layer.has_weights and not layer.branches:
                weighted = len(self.places)
            elif layer.branches or after[-1] != shape[-1] or len(after) != len(shape):
                weighted = None
            look = Look()
            self.places.append(Place(layer, look, depth, after, image, weighted))
            made += [layer, look]
            image = image if layer.only_reshapes or (after == shape and len(after) == 1) else after
            shape = after
        return made

    def load(self, model: Sequential) -> None:
        """Take the weights that a network of the same layers has now."""
        self.network.load_arrays(model.arrays())

    def outputs(self, batch: Any, scale: float, places: Sequence[int] | None = None) -> list[NDArray[Any]]:
        """Return the outputs (n, ...) of some places, or of all, for a batch in the shape that the network takes."""
        chosen = list(range(len(self.places))) if places is None else list(places)
        looks, network = [self.places[number].look for number in chosen], self.network
        with network.lock:
            whole = network.stages
            try:
                network.stages = whole[: self._needed(max(chosen, default=0))]
                for look in looks:
                    look.is_open = True
                network._forward(batch, scale=scale)
                return [look.seen for look in looks if look.seen is not None]
            finally:
                network.stages = whole
                for look in looks:
                    look.is_open, look.seen = False, None

    def _needed(self, place: int) -> int:
        """Return how many stages of the network run up to a place; those within another layer end with that."""
        outer = next(each for each in self.places[place:] if not each.depth)
        return self.network.stages.index(outer.look) + 1

    def weights_of(self, place: int, unit: int) -> tuple[NDArray[Any] | None, float | None]:
        """Return the weights of a unit, as an image (height, width, channels) where they are one, and its bias."""
        at = self.places[place].weighted
        if at is None:
            return None, None
        w, b = self.weights_in(at)
        weights = w[unit].transpose(1, 2, 0) if w.ndim == 4 else w[unit]
        return np.asarray(weights), None if b is None else float(b[unit])

    def weights_in(self, place: int) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Return weights and biases of a place, as images (units, channels, height, width) where they are some."""
        layer, given, network = self.places[place].layer, self.places[place].given, self.network
        with network.lock:
            values = {p.name: p for p in network.parameters}
            to_host = network._built().to_host
            w = to_host(values[f"{layer.name}.w"].value)
            b = to_host(values[f"{layer.name}.b"].value) if f"{layer.name}.b" in values else None
        filters = layer.filters_of(w, given)
        return (w if filters is None else filters), b
