"""Lay layers out on one backend: names, stages, shapes, buffers, and the passes through them."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.backend.base import Backend, Buffer, Shape, channels_first
from gpunn.data.loader import InputBuffer
from gpunn.errors import ShapeError
from gpunn.kernels.gather import COUNT
from gpunn.kernels.record import Array
from gpunn.nn.layers import Layer
from gpunn.nn.layers.base import BuildContext, Share, every_layer, name_layers, unchained
from gpunn.nn.layers.stages import Stages
from gpunn.nn.losses import Loss
from gpunn.nn.parameter import Parameter

EVALUATION_BATCH = 256  # batch size outside of training, where the training batch is smaller


class Layout:
    """Lay layers out on one backend: stages, buffers and shapes, while parameters still lack memory."""

    held: frozenset[int] = frozenset()  # places of trainable layers that a training freezes for a while

    def __init__(self, layers: list[Layer]) -> None:
        self.layers = layers

    @property
    def every_layer(self) -> Iterator[tuple[Layer, bool]]:
        """Pairs of each layer, nested ones too, and whether it is frozen, permanently or for a while."""
        for number, layer in enumerate(self.layers):
            yield from every_layer([layer], number in self.held)

    @property
    def frozen(self) -> list[bool]:
        """Flags of the frozen layers among `every_layer`."""
        return [is_frozen for _, is_frozen in self.every_layer]

    @property
    def last_layer(self) -> Layer:
        """The layer that computes the outputs, within a chain at the end too."""
        return [*unchained(self.layers[-1:])][-1]

    @property
    def tokens(self) -> int:
        """Number of tokens where the inputs are tokens, else 0."""
        return self.layers[0].tokens

    def lay_out(self, input_shape: Shape, batch_size: int, backend: Backend, dtype: str, seed: int = 0) -> BuildContext:
        """Allocate every buffer, and return the context that collected the parameters; see `Network.build`."""
        self.dtype, self.seed, self.batch_size = dtype, seed, batch_size
        self.capacity = max(batch_size, EVALUATION_BATCH)
        self.input_shape = shape = tuple(input_shape)
        name_layers(self.layers)
        self.shapes = [shape := layer.output_shape(shape) for layer in self.layers]
        self.output_shape = shape
        _check_tokens(self.layers, given=bool(self.tokens))
        self._takes_rows, taken = self.layers[0].takes_rows, np.int32 if self.tokens else dtype
        self.input = InputBuffer(backend, self.input_shape, self.capacity, taken, as_rows=self._takes_rows)
        self._given = Buffer(backend, channels_first(self.output_shape), self.capacity, dtype)
        self._output_of: tuple[int, Shape] | None = None  # thread and output shape that `backward` expects
        self._built_of = list(self.layers)
        self._compiled: set[tuple[Any, ...]] = set()
        self.clock, self.share = backend.zeros((4,), np.int32), Share()
        context = BuildContext(backend, dtype, self.capacity, batch_size=batch_size, seed=seed, share=self.share)
        context.count = self.clock[COUNT : COUNT + 1]
        context.frozen = {layer.name: is_frozen for layer, is_frozen in self.every_layer}
        running = Stages(self.layers)
        self.stages = running.stages
        running.build(context, self.input_shape, count(), is_last=True)
        self._first_learning = running.first_learning
        self._built_frozen = self.frozen  # last, since `build` may have added layers, such as projections
        self.statistics, self.buffer_bytes = context.statistics, context.buffer_bytes
        return context

    def propagate(self, x: Array, training: bool, stages: Sequence[Layer]) -> Array:
        """Run a batch, samples last, through the given stages."""
        self._output_of = None
        for stage in stages:
            x = stage.forward(x, training)
        return x

    def backpropagate(self, dy: Array, stages: Sequence[Layer]) -> None:
        """Back-propagate through the given stages, samples last; stop below the first trainable one."""
        for stage in reversed(stages[self._first_learning :]):
            dy = stage.backward(dy)

    def idle(self, stages: Sequence[Layer]) -> None:
        """Take part in a forward and backward pass in which this rank has no sample."""
        for stage in stages:
            stage.idle(True)
        for stage in reversed(stages[self._first_learning :]):
            stage.idle(False)

    def stages_under(self, loss: Loss | None) -> tuple[list[Layer], Parameter | None]:
        """Return the stages before a loss, without its link and the last bias, and that bias or None."""
        stages = self.stages
        if loss is not None and loss.link is not None:
            stages = [*stages[:-1], *stages[-1].without(loss.link)]
        bias = stages[-1].bias_for_loss if stages else None
        return (stages if bias is None else stages[:-1]), bias


def _check_tokens(layers: Sequence[Layer], *, given: bool) -> None:
    """Raise ShapeError for a layer that takes tokens but does not receive them: only the first does, where `given`."""
    for place, layer in enumerate(layers):
        takes = given and place == 0
        for branch in layer.branches:
            _check_tokens(branch, given=takes and bool(layer.tokens))
        if layer.tokens and not layer.branches and not takes:
            raise ShapeError(f"{layer.name}: {layer!r} takes whole numbers: put it before all other layers")


def fed_shape(layers: Sequence[Layer], shape: Shape) -> Shape:
    """Return the shape of a sample as the network receives it: flat where the first layer takes features."""
    return (prod(shape),) if layers[0].takes_rows else tuple(shape)


def shapes_in(context: BuildContext) -> dict[str, Shape]:
    """Return the shapes of all parameters and statistics, by name."""
    shapes = {p.name: p.shape for p in context.parameters}
    return shapes | {name: tuple(array.shape) for name, array in context.statistics.items()}


def check_arrays(arrays: Mapping[str, NDArray[Any]], context: BuildContext) -> Mapping[str, NDArray[Any]]:
    """Return the arrays of the network under construction; raise ShapeError where names or shapes differ."""
    wanted = shapes_in(context)
    if arrays.keys() != wanted.keys():
        missing = ", ".join(sorted(wanted.keys() - arrays.keys())[:5]) or "none"
        extra = ", ".join(map(repr, sorted(arrays.keys() - wanted.keys())[:5])) or "none"
        raise ShapeError(f"the arrays do not fit the network: missing {missing}; not expected {extra}")
    for name, shape in wanted.items():
        if arrays[name].shape != shape:
            raise ShapeError(f"{name} must be of shape {shape}, got {arrays[name].shape}")
    return arrays


def inherited_arrays(layers: Sequence[Layer], context: BuildContext) -> dict[str, NDArray[Any]]:
    """Return the values that layers bring from another network, by name; raise ShapeError where one does not fit."""
    shapes, values = shapes_in(context), dict[str, NDArray[Any]]()
    for layer, _ in every_layer(layers):
        for word, value in layer.begins_with.items():
            if (name := f"{layer.name}.{word}") in shapes:
                values[name] = value
                if value.shape != shapes[name]:
                    change = f"was learned in the shape {value.shape}, and here it must be {shapes[name]}"
                    raise ShapeError(f"{name} {change}: give the layer inputs as there, or take a new {layer!r}")
    return values


def swap_batch_axis(batch: Array) -> Array:
    """Return a view with samples last of an array with samples first, and vice versa."""
    return batch.T if batch.ndim == 2 else batch.transpose(3, 1, 2, 0) if batch.ndim == 4 else batch
