"""From layers to stages: their order and grouping, their buffers on one backend, and the passes through them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.backend.base import Backend, Buffer, Shape, inside
from gpunn.data.loader import InputBuffer
from gpunn.errors import ShapeError
from gpunn.kernels.gather import COUNT
from gpunn.kernels.record import Array
from gpunn.nn.layers import Activation, Layer
from gpunn.nn.layers.base import BuildContext
from gpunn.nn.losses import Loss
from gpunn.nn.parameter import Parameter

EVALUATION_BATCH = 256  # samples that go through a network at once in use, where the training batch is smaller


class Layout:
    """Layers laid out on one backend: their stages, buffers and shapes, the parameters still without memory."""

    held: frozenset[int] = frozenset()  # places of layers that are frozen for now, beside those not trainable

    def __init__(self, layers: list[Layer]) -> None:
        self.layers = layers

    @property
    def frozen(self) -> list[bool]:
        """Whether each layer is frozen, by what it is set to or for now."""
        return [number in self.held or not layer.trainable for number, layer in enumerate(self.layers)]

    def lay_out(self, input_shape: Shape, batch_size: int, backend: Backend, dtype: str, seed: int = 0) -> BuildContext:
        """Make every buffer, and return the parameters there are; see `Network.build`."""
        self.dtype, self.seed, self.batch_size = dtype, seed, batch_size
        self.capacity = max(batch_size, EVALUATION_BATCH)
        self.input_shape = shape = tuple(input_shape)
        counts, stages = Counter[str](), list[Layer]()
        for layer in self.layers:  # dense1, relu1, dense2, and so on
            counts[layer.name_prefix] += 1
            layer.name = f"{layer.name_prefix}{counts[layer.name_prefix]}"
            for stage in layer.stages():
                stage.name = layer.name
                stages.append(stage)
        self.shapes = [shape := layer.output_shape(shape) for layer in self.layers]
        self.output_shape = shape
        self._takes_rows = self.layers[0].takes_rows
        self.input = InputBuffer(backend, self.input_shape, self.capacity, dtype, as_rows=self._takes_rows)
        self._given = Buffer(backend, inside(self.output_shape), self.capacity, dtype)
        self._output_of: tuple[int, Shape] | None = None  # thread and shape, where `backward` may follow
        self._built_of, self._built_frozen = list(self.layers), self.frozen
        self._compiled: set[tuple[Any, ...]] = set()
        self.clock = backend.zeros((4,), np.int32)
        count = self.clock[COUNT : COUNT + 1]
        context = BuildContext(backend, dtype, self.capacity, batch_size=batch_size, seed=seed, count=count)
        owners = {layer.name: number for number, layer in enumerate(self.layers)}
        self.stages = arranged(stages)
        shape, self._first_learning = self.input_shape, 0
        for number, stage in enumerate(self.stages):
            owner = owners[stage.name]
            context.name, context.number = stage.name, number
            context.needs_input_gradient = not all(p.is_frozen for p in context.parameters)
            context.is_frozen = self._built_frozen[owner]
            context.may_overwrite_input = number > 0 and self.stages[number - 1].output_is_free
            context.is_last = all(later.aliases_gradient for later in self.stages[number + 1 :])
            after = (layer for layer in self.layers[owner + 1 :] if isinstance(layer, Activation) or layer.has_weights)
            context.activation = following if isinstance(following := next(after, None), Activation) else None
            stage.remember_settings()
            shape = stage.build(context, shape)
            if all(p.is_frozen for p in context.parameters):
                self._first_learning = number + 1
        self.statistics, self.buffer_bytes = context.statistics, context.buffer_bytes
        return context

    def propagate(self, x: Array, training: bool, stages: Sequence[Layer]) -> Array:
        """Run a batch, samples last, forward through some stages."""
        self._output_of = None
        for stage in stages:
            x = stage.forward(x, training)
        return x

    def backpropagate(self, dy: Array, stages: Sequence[Layer]) -> None:
        """Back-propagate through some stages, samples last; stop below the first that learns."""
        for stage in reversed(stages[self._first_learning :]):
            dy = stage.backward(dy)

    def stages_under(self, loss: Loss | None) -> tuple[list[Layer], Parameter | None]:
        """Return the stages that run before a loss, without its link and the last bias, and this bias or None."""
        stages = self.stages
        if loss is not None and loss.link is not None:
            stages = [*stages[:-1], *stages[-1].without(loss.link)]
        bias = stages[-1].bias_for_loss if stages else None
        return (stages if bias is None else stages[:-1]), bias


def arranged(stages: Sequence[Layer]) -> list[Layer]:
    """Arrange stages as they run: max pooling before the bias and activation that it follows, and these two as one."""
    ordered: list[Layer] = []
    for stage in stages:
        at = len(ordered)
        while stage.picks_largest and at and ordered[at - 1].increases:  # which leaves the largest the largest
            at -= 1
        ordered.insert(at, stage)
    fused: list[Layer] = []
    for stage in ordered:
        both = fused[-1].fused_with(stage) if fused else None
        fused[len(fused) - (both is not None) :] = [both or stage]
    return fused


def fed_shape(layers: Sequence[Layer], shape: Shape) -> Shape:
    """Return the shape of a sample as a network gets it: images go flat into a first layer that takes features."""
    return (prod(shape),) if layers[0].takes_rows else tuple(shape)


def shapes_in(context: BuildContext) -> dict[str, Shape]:
    """Return the shapes of all parameters and statistics, by name."""
    shapes = {p.name: p.shape for p in context.parameters}
    return shapes | {name: tuple(array.shape) for name, array in context.statistics.items()}


def check_arrays(arrays: Mapping[str, NDArray[Any]], context: BuildContext) -> Mapping[str, NDArray[Any]]:
    """Return the arrays of the network that is being built; raise ShapeError where they are those of another."""
    wanted = shapes_in(context)
    if arrays.keys() != wanted.keys():
        missing = ", ".join(sorted(wanted.keys() - arrays.keys())[:5]) or "none"
        extra = ", ".join(map(repr, sorted(arrays.keys() - wanted.keys())[:5])) or "none"
        raise ShapeError(f"the arrays do not fit the network: missing {missing}; not expected {extra}")
    for name, shape in wanted.items():
        if arrays[name].shape != shape:
            raise ShapeError(f"{name} must be of shape {shape}, got {arrays[name].shape}")
    return arrays


def begun(layers: Sequence[Layer], context: BuildContext) -> dict[str, NDArray[Any]]:
    """Return the values that layers bring with them from another network, by name, and check their shapes."""
    shapes, values = shapes_in(context), dict[str, NDArray[Any]]()
    for layer in layers:
        for word, value in layer.begins_with.items():
            if (name := f"{layer.name}.{word}") in shapes:
                values[name] = value
                if value.shape != shapes[name]:
                    change = f"was learned in the shape {value.shape}, and here it must be {shapes[name]}"
                    raise ShapeError(f"{name} {change}: give the layer inputs as there, or take a new {layer!r}")
    return values


def turned(batch: Array) -> Array:
    """Return a view with samples last of an array with samples first, and the other way round."""
    return batch.T if batch.ndim == 2 else batch.transpose(3, 1, 2, 0) if batch.ndim == 4 else batch
