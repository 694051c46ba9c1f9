"""From layers to stages: what each layer leaves to run, in which order and grouping, built one after another."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from gpunn.backend.base import Shape
from gpunn.kernels.record import Array
from gpunn.nn.layers.activation import Activation
from gpunn.nn.layers.base import BuildContext, Layer, every_layer, unchained


class Stages:
    """Layers as they run, one stage after another; of a whole network, or of a branch within a layer.

    Attributes:
        stages: What runs, in its order.
        first_learning: Number of the first stage that back-propagation comes to.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._layers = list(unchained(layers))
        stages = []
        for layer in self._layers:
            for stage in layer.stages():
                stage.name = layer.name
                stages.append(stage)
        self.stages = arranged(stages)
        self.first_learning = 0

    def build(self, outer: BuildContext, shape: Shape, numbers: Iterator[int], is_last: bool) -> Shape:
        """Build every stage for samples of this shape, and return the shape of what comes out.

        Args:
            outer: Context of the layer that the stages lie in, or of the network.
            shape: Shape of a sample that comes in; it is not overwritten.
            numbers: Numbers of the stages in the network.
            is_last: Whether the gradient that is given to `backpropagate` must stay as it is.
        """
        context, before = replace(outer), len(outer.parameters)
        places = {layer.name: place for place, layer in enumerate(self._layers)}
        for number, stage in enumerate(self.stages):
            place = places[stage.name]
            context.name, context.number = stage.name, next(numbers)
            context.needs_input_gradient = outer.needs_input_gradient or _learn(context, before)
            context.is_frozen = outer.frozen.get(stage.name, outer.is_frozen)
            context.may_overwrite_input = number > 0 and self.stages[number - 1].output_is_free
            context.is_last = is_last and all(later.aliases_gradient for later in self.stages[number + 1 :])
            context.activation = _activation_after(self._layers[place + 1 :], outer.activation)
            stage.remember_settings()
            shape = stage.build(context, shape)
            if not outer.needs_input_gradient and not _learn(context, before):
                self.first_learning = number + 1
        for first, second in pairwise(self.stages):
            second.comes_after(first)
        return shape

    def propagate(self, x: Array, training: bool) -> Array:
        """Run a batch, samples last, forward through the stages."""
        for stage in self.stages:
            x = stage.forward(x, training)
        return x

    def backpropagate(self, dy: Array) -> Array | None:
        """Back-propagate through the stages; stop below the first that learns, if nothing before them does."""
        for stage in reversed(self.stages[self.first_learning :]):
            dy = stage.backward(dy)
        return dy

    def idle(self, forward: bool) -> None:
        """Do what `propagate` or `backpropagate` does of a batch in which this rank has no sample; see `Layer.idle`."""
        for stage in self.stages if forward else reversed(self.stages[self.first_learning :]):
            stage.idle(forward)

    @property
    def hands_gradient_on(self) -> bool:
        """Whether `backpropagate` may return the array that it was given."""
        return all(stage.aliases_gradient for stage in self.stages)


def _learn(context: BuildContext, before: int) -> bool:
    """Whether any of the parameters that were made since there were so many learns."""
    return not all(p.is_frozen for p in context.parameters[before:])


def _activation_after(layers: Iterable[Layer], outer: Layer | None) -> Layer | None:
    """Return the activation that comes next, before other weights; None where there is none."""
    leaves = (layer for layer, _ in every_layer(layers) if not layer.branches)
    following = next((leaf for leaf in leaves if isinstance(leaf, Activation) or leaf.has_weights), outer)
    return following if isinstance(following, Activation) else None


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
