"""Turn layers into stages: order them, fuse them, build them and run them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from gpunn.backend.base import Shape
from gpunn.kernels.record import Array
from gpunn.nn.layers.activation import Activation
from gpunn.nn.layers.base import BuildContext, Layer, every_layer, unchained


class Stages:
    """Run the layers of a network, or of a branch within a layer, stage by stage.

    Attributes:
        stages: Stages in running order.
        first_learning: Number of the first stage with a trainable parameter, where back-propagation ends.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._layers = list(unchained(layers))
        stages = []
        for layer in self._layers:
            for stage in layer.stages():
                stage.name = layer.name
                stages.append(stage)
        self.stages = arrange_stages(stages)
        self.first_learning = 0

    def build(self, outer: BuildContext, shape: Shape, numbers: Iterator[int], is_last: bool) -> Shape:
        """Build every stage for samples of this shape, and return the output shape of a sample.

        Args:
            outer: Context of the surrounding layer or network.
            shape: Shape of an input sample; the input is not overwritten.
            numbers: Source of stage numbers, unique in the network.
            is_last: Whether `backpropagate` must leave its input gradient unchanged.
        """
        context, before = replace(outer), len(outer.parameters)
        places = {layer.name: place for place, layer in enumerate(self._layers)}
        for number, stage in enumerate(self.stages):
            place = places[stage.name]
            context.name, context.number = stage.name, next(numbers)
            context.needs_input_gradient = outer.needs_input_gradient or _any_learns(context, before)
            context.is_frozen = outer.frozen.get(stage.name, outer.is_frozen)
            context.may_overwrite_input = number > 0 and self.stages[number - 1].output_is_free
            context.is_last = is_last and all(later.aliases_gradient for later in self.stages[number + 1 :])
            context.activation = _activation_after(self._layers[place + 1 :], outer.activation)
            stage.remember_settings()
            shape = stage.build(context, shape)
            if not outer.needs_input_gradient and not _any_learns(context, before):
                self.first_learning = number + 1
        for first, second in pairwise(self.stages):
            second.comes_after(first)
        return shape

    def propagate(self, x: Array, training: bool) -> Array:
        """Run a batch, samples last, through the stages."""
        for stage in self.stages:
            x = stage.forward(x, training)
        return x

    def backpropagate(self, dy: Array) -> Array | None:
        """Back-propagate through the stages; stop below the first trainable one where no gradient is needed before."""
        for stage in reversed(self.stages[self.first_learning :]):
            dy = stage.backward(dy)
        return dy

    def idle(self, forward: bool) -> None:
        """Take part in `propagate` or `backpropagate` without a sample of the batch; see `Layer.idle`."""
        for stage in self.stages if forward else reversed(self.stages[self.first_learning :]):
            stage.idle(forward)

    @property
    def aliases_gradient(self) -> bool:
        """True if `backpropagate` may return its input array."""
        return all(stage.aliases_gradient for stage in self.stages)


def _any_learns(context: BuildContext, before: int) -> bool:
    """Return whether any parameter after the first `before` ones is trainable."""
    return not all(p.is_frozen for p in context.parameters[before:])


def _activation_after(layers: Iterable[Layer], outer: Layer | None) -> Layer | None:
    """Return the next activation before further weights; None where there is none."""
    leaves = (layer for layer, _ in every_layer(layers) if not layer.branches)
    following = next((leaf for leaf in leaves if isinstance(leaf, Activation) or leaf.has_weights), outer)
    return following if isinstance(following, Activation) else None


def arrange_stages(stages: Sequence[Layer]) -> list[Layer]:
    """Return stages in running order: max pooling before a bias and increasing activation, and these two fused."""
    ordered: list[Layer] = []
    for stage in stages:
        at = len(ordered)
        while stage.picks_largest and at and ordered[at - 1].increases:  # max f(z) = f(max z), on fewer elements
            at -= 1
        ordered.insert(at, stage)
    fused: list[Layer] = []
    for stage in ordered:
        both = fused[-1].fused_with(stage) if fused else None
        fused[len(fused) - (both is not None) :] = [both or stage]
    return fused
