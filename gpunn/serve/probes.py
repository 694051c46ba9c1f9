"""Compute the output of every layer of a network, by a copy with a probe after each layer."""

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
from gpunn.nn.layout import swap_batch_axis
from gpunn.reports.filters import shape_of_images
from gpunn.sequential import Sequential


class Probe(Layer):
    """y = x; while it is on, x is copied to the host.

    A probe between two layers keeps them from being fused, so each layer keeps its own output.
    """

    name_prefix = "probe"

    def __init__(self) -> None:
        self.is_on = False
        self.seen: NDArray[Any] | None = None

    def build(self, context: BuildContext, input_shape: Shape) -> Shape:
        self._to_host = context.backend.to_host
        return input_shape

    def forward(self, x: Array, training: bool) -> Array:
        if self.is_on:
            self.seen = swap_batch_axis(self._to_host(x))
        return x

    def backward(self, dy: Array) -> Array | None:
        return dy


@dataclass(frozen=True)
class ProbedLayer:
    """A layer of the copy and the probe after it.

    Attributes:
        layer: Layer of the copy.
        probe: Probe after it.
        depth: Number of layers that it lies within.
        shape: Shape of its output for one sample.
        input_shape: Shape of its input; if that was flattened from an image, the image's.
        weighted: Index of the probed layer whose weights its units have, itself or an earlier one; None without.
    """

    layer: Layer
    probe: Probe
    depth: int
    shape: Shape
    input_shape: Shape
    weighted: int | None

    @property
    def units(self) -> int:
        """Number of outputs, or of feature maps."""
        return self.shape[-1]


class ProbedNetwork:
    """Copy a built network with a probe after each layer, and return the outputs of all layers or of some.

    `layers` has those within a `Residual` and the branches of a `Concatenate` before the whole, and those of a `Chain`
    in its place. Projections, and layers within layers of your own, have no probe.
    """

    def __init__(self, model: Sequential) -> None:
        self.layers: list[ProbedLayer] = []
        image = shape_of_images(model)
        with model.lock:
            layers = [copy(layer) for layer in model.layers]
            for layer, _ in every_layer(layers):
                layer.begins_with, layer.is_placed, layer.trainable = {}, False, True
            shape = tuple(model.input_shape)
            made = self._with_probes(layers, shape, image if prod(image) == prod(shape) else shape, 0)
            for layer in made:  # the copy does not train, so it needs no memory for gradients
                layer.trainable = False
            self.network = Sequential(made)
            backend = model._built()
            arrays = model.arrays()
            self.network.build_with(arrays, model.input_shape, model.batch_size, backend, model.dtype, model.seed)
        assert self.network.layers[0] is made[0]  # no other network has these layers, so they were not copied again

    def _with_probes(self, layers: Iterable[Layer], shape: Shape, image: Shape, depth: int) -> list[Layer]:
        """Return layers with a probe after each, and list them; `image` is the shape before it was flattened."""
        made: list[Layer] = []
        weighted: int | None = None
        for layer in layers:
            after = layer.output_shape(shape)
            if layer.is_chain:
                inner = layer.branches[0]
                inner[:] = self._with_probes(list(inner), shape, image, depth)
                made.append(layer)
                shape, image, weighted = after, after, None
                continue
            for branch in layer.main_branches:
                branch[:] = self._with_probes(list(branch), shape, image, depth + 1)
            if layer.has_weights and not layer.branches:
                weighted = len(self.layers)
            elif layer.branches or after[-1] != shape[-1] or len(after) != len(shape):
                weighted = None
            probe = Probe()
            self.layers.append(ProbedLayer(layer, probe, depth, after, image, weighted))
            made += [layer, probe]
            image = image if layer.only_reshapes or (after == shape and len(after) == 1) else after
            shape = after
        return made

    def outputs(self, batch: Any, scale: float, indices: Sequence[int] | None = None) -> list[NDArray[Any]]:
        """Return the outputs (n, ...) of the layers at `indices`, or of all, for a batch as the network takes it."""
        chosen = list(range(len(self.layers))) if indices is None else list(indices)
        probes, network = [self.layers[index].probe for index in chosen], self.network
        with network.lock:
            whole = network.stages
            try:
                network.stages = whole[: self._stages_up_to(max(chosen, default=0))]
                for probe in probes:
                    probe.is_on = True
                network._forward(batch, scale=scale)
                return [probe.seen for probe in probes if probe.seen is not None]
            finally:
                network.stages = whole
                for probe in probes:
                    probe.is_on, probe.seen = False, None

    def _stages_up_to(self, index: int) -> int:
        """Count the stages up to a layer; one within another layer needs all of that."""
        outer = next(each for each in self.layers[index:] if not each.depth)
        return self.network.stages.index(outer.probe) + 1

    def weights_of(self, index: int, unit: int) -> tuple[NDArray[Any] | None, float | None]:
        """Return a unit's weights, (height, width, channels) if they are an image, and its bias."""
        at = self.layers[index].weighted
        if at is None:
            return None, None
        w, b = self.weights_in(at)
        weights = w[unit].transpose(1, 2, 0) if w.ndim == 4 else w[unit]
        return np.asarray(weights), None if b is None else float(b[unit])

    def weights_in(self, index: int) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Return a layer's weights, (units, channels, height, width) if they are images, and its biases."""
        network, layer = self.network, self.layers[index].layer
        with network.lock:
            values = {p.name: p for p in network.parameters}
            to_host = network._built().to_host
            w = to_host(values[f"{layer.name}.w"].value)
            b = to_host(values[f"{layer.name}.b"].value) if f"{layer.name}.b" in values else None
        filters = layer.filters_of(w, self.layers[index].input_shape)
        return (w if filters is None else filters), b
