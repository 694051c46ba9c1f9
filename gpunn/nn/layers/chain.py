"""Nest layers within a layer: run a chain in sequence, and build the branches of others."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from typing import Any

from gpunn.backend.base import Shape
from gpunn.config import as_part, register
from gpunn.errors import OptionError
from gpunn.kernels.record import Array
from gpunn.nn.layers.base import BuildContext, Layer
from gpunn.nn.layers.stages import Stages

DEEPEST = 16  # greatest nesting depth of layers, since each level is a nested call
MOST_LAYERS = 1000  # largest number of layers in a file, where a few bytes ask for one


class Branched(Layer):
    """Nest layers in branches that all start at the layer's input."""

    name_prefix = ""  # each subclass is named after its class
    made_here: tuple[str, ...] = ()  # name prefixes of layers that `build` makes in addition to the given ones

    def check_depth(self) -> None:
        """Raise OptionError where layers are nested too deeply."""
        if _depth(self) > DEEPEST:
            raise OptionError(f"layers may lie within layers at most {DEEPEST} deep: make a longer chain of them")

    @property
    def main_branches(self) -> tuple[list[Layer], ...] | list[list[Layer]]:  # type: ignore[override]
        return self.branches

    @property
    def has_weights(self) -> bool:  # type: ignore[override]
        return any(layer.has_weights for branch in self.branches for layer in branch)

    @property
    def takes_rows(self) -> bool:  # type: ignore[override]
        return any(branch[0].takes_rows for branch in self.branches if branch)

    @property
    def tokens(self) -> int:  # type: ignore[override]
        counts = [branch[0].tokens if branch else 0 for branch in self.branches]
        return min(counts) if all(counts) else 0

    @property
    def has_learned(self) -> bool:
        return super().has_learned or any(layer.has_learned for branch in self.branches for layer in branch)

    def forget_batch(self) -> None:
        for branch in self.branches:
            if branch:
                branch[0].forget_batch()

    def build_branch(self, branch: list[Layer], context: BuildContext, shape: Shape, is_last: bool) -> Stages:
        """Build the layers of a branch; with `is_last` it must leave its input gradient unchanged."""
        made = Stages(branch)
        self.running = (*self.running, made)
        made.build(context, shape, context.inner_numbers, is_last)
        return made

    def __getstate__(self) -> dict[str, Any]:
        held: AbstractContextManager[Any] = nullcontext() if self.built_values is None else self.built_values[0]
        with held:  # inner layers carry their own weights
            state = super().__getstate__()
            learned = {word: value for word, value in state["begins_with"].items() if word.startswith(self.made_here)}
            layers = {name: _copied(value) for name, value in vars(self).items() if name in state and _is_layers(value)}
            return {**state, **layers, "begins_with": learned if self.made_here else {}}


def _depth(layer: Layer) -> int:
    return 1 + max((_depth(inner) for branch in layer.branches for inner in branch), default=0) if layer.branches else 0


def _is_layers(value: Any) -> bool:
    return isinstance(value, Layer) or (isinstance(value, list) and all(map(_is_layers, value)))


def _copied(layers: Any) -> Any:
    return list(map(_copied, layers)) if isinstance(layers, list) else copy(layers)


@register
class Chain(Branched):
    """Run layers in sequence as one layer, exactly as without the chain; they are named chain1.dense1.

    Args:
        layers: Layers from input to output, or a network with them.

    Raises:
        OptionError: Not a list of layers, or layers nested too deeply.

    Shapes: input of the first layer → output of the last.
    """

    is_chain = True

    def __init__(self, layers: Iterable[Layer]) -> None:
        self.layers = as_layers(layers, owner="Chain")
        self.check_depth()

    @property
    def branches(self) -> tuple[list[Layer], ...]:  # type: ignore[override]
        return (self.layers,)

    @property
    def outputs(self) -> int | None:  # type: ignore[override]
        return next((layer.outputs for layer in reversed(self.layers) if layer.outputs), None)

    def resized(self, outputs: int) -> Layer:
        places = [place for place, layer in enumerate(self.layers) if layer.has_weights]
        if not self.is_chain or not places:
            return super().resized(outputs)
        *_, last = places
        rest = [layer.unbuilt() for layer in self.layers[last + 1 :]]
        return Chain([*self.layers[:last], self.layers[last].resized(outputs), *rest])

    def output_shape(self, input_shape: Shape) -> Shape:
        for layer in self.layers:
            input_shape = layer.output_shape(input_shape)
        return input_shape

    def build(self, context: BuildContext, input_shape: Shape) -> Shape:
        self.running = ()
        self._chain = self.build_branch(self.layers, context, input_shape, is_last=True)
        return self.output_shape(input_shape)

    def forward(self, x: Array, training: bool) -> Array:
        return self._chain.propagate(x, training)

    def backward(self, dy: Array) -> Array | None:
        return self._chain.backpropagate(dy)


def as_layers(layers: Any, more: tuple[Any, ...] = (), owner: str = "Sequential") -> list[Layer]:
    """Return the layers of a network or chain; a class or name stands for a layer without arguments."""
    what = "a network" if owner == "Sequential" else owner
    if isinstance(layers, Layer | type) or more:
        inside = ", ".join(map(repr, (layers, *more)))
        raise OptionError(f"{what} is a list of layers: write {owner}([{inside}])")
    if owner != "Sequential" and isinstance(own := getattr(layers, "layers", None), list):
        layers = own  # of a network: they keep their weights
    is_list = isinstance(layers, Iterable) and not isinstance(layers, str | dict) and getattr(layers, "ndim", 1) > 0
    made = [_as_layer(layer) for layer in layers] if is_list else []
    if not made:
        raise OptionError(f"{what} is a list of layers such as [Dense(10)], got {layers!r}")
    return made


def _as_layer(given: Any) -> Layer:
    if isinstance(layers := getattr(given, "layers", None), list) and not isinstance(given, Layer):
        return Chain(layers)  # of a network: they keep their weights
    return as_part("layer", given)  # type: ignore[no-any-return]


def check_tables(layers: list[Any]) -> None:
    """Raise OptionError for tables with too many or too deeply nested layers, before any layer is made."""
    count, depth, some = 0, 0, layers
    while some:
        count, depth = count + len(some), depth + 1
        if count > MOST_LAYERS:
            raise OptionError(f"layers must be at most {MOST_LAYERS:,}, those within layers and branches too")
        if depth > 3 * DEEPEST:  # counts tables and lists; each layer checks its exact depth later
            raise OptionError(f"layers may lie within layers at most {DEEPEST} deep")
        some = [inner for each in some for inner in _listed_in(each)]


def _listed_in(value: Any) -> list[Any]:
    """Return the elements of a list, or the layers and branches in the table of a layer."""
    if not isinstance(value, dict):
        return value if isinstance(value, list) else []
    held = [value.get(key) for key in ("layers", "branches", "projection")]
    return [inner for each in held for inner in (each if isinstance(each, list) else [each] if each else [])]


def check_places(layers: list[Layer]) -> None:
    """Copy a layer that may stand in several places; raise OptionError for any other that does."""
    places: dict[int, str] = {}

    def check(some: list[Layer], before: str) -> None:
        for number, layer in enumerate(some):
            place = f"{before}{number + 1}"
            if (first := places.setdefault(id(layer), place)) != place:
                if layer.may_repeat:
                    some[number] = copy(layer)
                    continue
                mend = f"write {layer!r} again in place {place}, so that each place has a layer of its own"
                raise OptionError(
                    f"a layer stands in the network twice, {layer!r} in places {first} and {place}: {mend}"
                )
            for branch in layer.branches:
                check(branch, f"{place}.")

    check(layers, "")
