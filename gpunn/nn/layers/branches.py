"""Join branches of one input: add them (residual connection) or concatenate them."""

from collections.abc import Iterable
from itertools import accumulate, pairwise
from typing import Any, cast

from gpunn.backend.base import Shape
from gpunn.config import as_part, register
from gpunn.errors import OptionError, ShapeError
from gpunn.kernels import sums as kernels
from gpunn.kernels.record import Array
from gpunn.nn.layers.base import BuildContext, Layer, name_layers
from gpunn.nn.layers.chain import Branched, Chain, as_layers
from gpunn.nn.layers.convolution import Conv2D
from gpunn.nn.layers.dense import Dense


@register
class Residual(Chain):
    """y = x + f(x) with a chain of layers f, which learns a correction to x (K. He et al., 2015).

    ∂C/∂x = ∂C/∂y + (∂f/∂x)ᵀ ∂C/∂y. Where f changes the shape, y = P x + f(x) with a learned `projection` P: by default
    a 1×1 convolution with the stride of f, for features a `Dense`, both without a bias. Write activations after the
    sum as the next layer: `Residual([Conv2D(16, padding="same"), BatchNorm()]), ReLU()`.

    Args:
        layers: Layers of f, from input to output.
        projection: Layer P, or a list of layers; None for the default P where shapes differ, and for the identity
            where they agree.

    Raises:
        OptionError: Not a list of layers, or layers nested too deeply.
        ShapeError: P and f have different output shapes, or no default P fits.

    Shapes: input and output of f; for the default projection the output has ⌈height/stride⌉ rows and
    ⌈width/stride⌉ columns.
    """

    name_prefix = "residual"
    is_chain = False
    tokens = 0  # the sum needs inputs that are numbers, not tokens

    def __init__(self, layers: Iterable[Layer], projection: Layer | Iterable[Layer] | None = None) -> None:
        self.layers = as_layers(layers, owner="Residual")
        self._projection: list[Layer] = []
        if projection is not None:
            is_list = isinstance(projection, list | tuple)
            self._projection = [Chain(cast(Any, projection)) if is_list else as_part("layer", projection)]
        self.check_depth()

    @property
    def projection(self) -> Layer | None:
        """The given layer P, or None."""
        return self._projection[0] if self._projection else None

    @property
    def branches(self) -> tuple[list[Layer], ...]:  # type: ignore[override]
        shortcut = self._projection or vars(self).get("_made", [])
        return (self.layers, shortcut) if shortcut else (self.layers,)

    @property
    def main_branches(self) -> tuple[list[Layer], ...]:  # type: ignore[override]
        return (self.layers,)

    @property
    def made_here(self) -> tuple[str, ...]:  # type: ignore[override]
        return () if self._projection else ("projection.",)

    def name_inner_layers(self) -> None:
        name_layers(self.layers, f"{self.name}.")
        for projection in (layer for shortcut in self.branches[1:] for layer in shortcut):
            projection.name = f"{self.name}.projection"
            projection.name_inner_layers()

    def output_shape(self, input_shape: Shape) -> Shape:
        shape = super().output_shape(input_shape)
        for projection in self._projection or self._fitting(input_shape, shape):
            if (other := projection.output_shape(input_shape)) != shape:
                raise ShapeError(f"{self.name}: the layers make {shape} of {input_shape}, and the projection {other}")
        return shape

    def _fitting(self, given: Shape, wanted: Shape) -> list[Layer]:
        """Return a new projection from one shape to another, in a list that is empty for equal shapes."""
        if given == wanted:
            return []
        if len(given) == len(wanted) == 1:
            return [Dense(wanted[0], bias=False)]
        if len(given) == len(wanted) == 3 and wanted[0] <= given[0] and wanted[1] <= given[1]:
            stride = -(-given[0] // wanted[0]), -(-given[1] // wanted[1])
            projection = Conv2D(wanted[2], 1, stride=stride, bias=False)
            if projection.output_shape(given) == wanted:
                return [projection]
        mend = "write padding='same' in them, or give a projection of your own"
        raise ShapeError(f"{self.name}: the layers make {wanted} of {given}, as no convolution 1×1 does: {mend}")

    def build(self, context: BuildContext, input_shape: Shape) -> Shape:
        shape = self.output_shape(input_shape)
        if not self._projection:
            before, self._made = vars(self).get("_made", []), self._fitting(input_shape, shape)
            for made, other in zip(self._made, before, strict=False):  # a rebuilt network keeps its frozen projection
                made.trainable = other.trainable
            self.name_inner_layers()
        super().build(context, input_shape)  # builds f, which must not overwrite ∂C/∂y: the shortcut reads it too
        is_last = context.is_last or self._chain.aliases_gradient
        shortcuts = [self.build_branch(branch, context, input_shape, is_last) for branch in self.branches[1:]]
        self._shortcut = shortcuts[0] if shortcuts else None
        self._run = context.backend.run
        self._y = None if self._chain.stages[-1].output_is_free else context.buffer(shape)
        self._needs_dx = context.needs_input_gradient
        own = self._needs_dx and self._chain.aliases_gradient
        self._dx = context.buffer(input_shape) if own else None
        return shape

    def forward(self, x: Array, training: bool) -> Array:
        f = super().forward(x, training)
        shortcut = x if self._shortcut is None else self._shortcut.propagate(x, training)
        y = f if self._y is None else self._y[x.shape[-1]]
        self._run(kernels.add, f, shortcut, y)
        return y

    def backward(self, dy: Array) -> Array | None:
        df = super().backward(dy)
        shortcut = dy if self._shortcut is None else self._shortcut.backpropagate(dy)
        if not self._needs_dx:
            return None
        dx = df if self._dx is None else self._dx[dy.shape[-1]]
        self._run(kernels.add, df, shortcut, dx)
        return dx


@register
class Concatenate(Branched):
    """y = (f₁(x), f₂(x), …): concatenate branches along the features, or channels of images (C. Szegedy et al., 2015).

    ∂C/∂x = Σ (∂fᵢ/∂x)ᵀ ∂C/∂yᵢ. An empty branch, [], is the identity (G. Huang et al., 2017): `Concatenate([],
    [Conv2D(16, padding="same"), ReLU()])` appends 16 channels to those of x.

    Args:
        branches: At least two lists of layers, from input to output; at most one is empty.

    Raises:
        OptionError: Not two or more lists of layers, or layers nested too deeply.
        ShapeError: Branches whose outputs differ in height, width or number of dimensions.

    Shapes: images of one height and width → (height, width, all channels); features → (all features,).
    """

    def __init__(self, *branches: Iterable[Layer]) -> None:
        if any(isinstance(branch, Layer | type) for branch in branches):
            shown = ", ".join(f"[{branch!r}]" if isinstance(branch, Layer) else "[...]" for branch in branches)
            raise OptionError(f"each branch of Concatenate is a list of layers: write Concatenate({shown:.80})")
        if len(branches) < 2 or sum(_is_empty(branch) for branch in branches) > 1:
            shown = ", ".join(map(repr, branches)) or "none"
            mend = "write Concatenate([Conv2D(8)], [MaxPool2D(3)]); one of them may be empty, []"
            raise OptionError(f"Concatenate needs at least two lists of layers, got {shown:.80}: {mend}")
        self.branches = [[] if _is_empty(branch) else as_layers(branch, owner="Concatenate") for branch in branches]
        self.check_depth()

    @property
    def outputs(self) -> int | None:  # type: ignore[override]
        last = [Chain(branch).outputs if branch else None for branch in self.branches]
        return sum(filter(None, last)) if all(last) else None

    def output_shape(self, input_shape: Shape) -> Shape:
        shapes = [_shape_after(branch, input_shape) for branch in self.branches]
        if len({(len(shape), *shape[:-1]) for shape in shapes}) > 1:
            made = ", ".join(map(str, shapes))
            mend = "give them one height and width, by padding='same' and equal strides"
            raise ShapeError(f"{self.name}: branches side by side must be alike but for channels, got {made}: {mend}")
        return *shapes[0][:-1], sum(shape[-1] for shape in shapes)

    def build(self, context: BuildContext, input_shape: Shape) -> Shape:
        shape = self.output_shape(input_shape)
        self._run, self.running = context.backend.run, ()
        self._branches = [self.build_branch(branch, context, input_shape, context.is_last) for branch in self.branches]
        ends = accumulate(_shape_after(branch, input_shape)[-1] for branch in self.branches)
        self._places = [slice(start, end) for start, end in pairwise((0, *ends))]
        self._y = context.buffer(shape)
        self._dx = context.buffer(input_shape) if context.needs_input_gradient else None
        self._kept: dict[str, tuple[Array, list[Array]]] = {}
        return shape

    def forward(self, x: Array, training: bool) -> Array:
        y = self._y[x.shape[-1]]
        for branch, part in zip(self._branches, self._parts_of("y", y), strict=True):
            self._run(kernels.copy, branch.propagate(x, training), part)
        return y

    def backward(self, dy: Array) -> Array | None:
        parts = self._parts_of("dy", dy)
        first, second, *more = (branch.backpropagate(part) for branch, part in zip(self._branches, parts, strict=True))
        if self._dx is None:
            return None
        dx = self._dx[dy.shape[-1]]
        self._run(kernels.add, first, second, dx)
        for part in more:
            self._run(kernels.add, part, dx, dx)
        return dx

    def _parts_of(self, name: str, whole: Array) -> list[Array]:
        """Return each branch's part of an array, the same views each time: products are planned for their memory."""
        of, parts = self._kept.get(name, (None, []))
        if of is not whole:
            parts = [whole[part] for part in self._places]
            self._kept[name] = whole, parts
        return parts


def _is_empty(branch: Any) -> bool:
    return isinstance(branch, list | tuple) and not branch


def _shape_after(branch: list[Layer], shape: Shape) -> Shape:
    for layer in branch:
        shape = layer.output_shape(shape)
    return shape
