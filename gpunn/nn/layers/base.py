"""The base of every layer: built once, then forward and backward over buffers made at build.

Inside, samples are the last axis: (features, batch) and (channels, height, width, batch). Shapes in `build`, errors and
the summary are those of one sample: (features,) and (height, width, channels).
"""

import itertools
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from copy import copy
from dataclasses import dataclass, field
from math import prod
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpunn.backend.array_code import run_on_device
from gpunn.backend.base import Backend, Buffer, Buildable, Shape, channels_first
from gpunn.config import Part
from gpunn.errors import OptionError
from gpunn.kernels.device_code import parts_of_row
from gpunn.kernels.record import Array
from gpunn.nn.initializers import Constant, Initializer
from gpunn.nn.parameter import Parameter
from gpunn.nn.share import Share


@dataclass
class BuildContext:
    """Everything a layer is told when it is built, and the source of its memory."""

    backend: Backend
    dtype: DTypeLike
    capacity: int  # samples of the largest batch
    name: str = ""  # of the layer, such as "dense1", for its parameters and errors
    needs_input_gradient: bool = False  # since something before the layer learns
    may_overwrite_input: bool = False  # by the layer's output
    is_last: bool = False  # so the gradient given to `backward` belongs to the caller and must stay as it is
    activation: "Layer | None" = None  # that comes next
    batch_size: int = 1  # of a training
    seed: int = 0
    number: int = 0  # of the stage in the network, to tell its random numbers from another's
    count: Array = None  # of the steps done in the whole run, one element on the device
    share: Share = field(default_factory=Share)  # of this rank, of the network's batches
    is_frozen: bool = False  # see `Layer.trainable`
    frozen: Mapping[str, bool] = field(default_factory=dict)  # whether a layer is, by its name, also within another
    inner_numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1 << 16))  # of stages within layers
    parameters: list[Parameter] = field(default_factory=list)
    statistics: dict[str, Array] = field(default_factory=dict)
    buffer_bytes: Counter[str] = field(default_factory=Counter)

    @property
    def xp(self) -> Any:
        """NumPy or CuPy, whichever the arrays of the network are of."""
        return self.backend.xp

    def buffer(self, shape: Shape, dtype: DTypeLike | None = None) -> Buffer:
        """Make memory for a batch of samples of this shape, of the network's dtype where none is given."""
        buffer = Buffer(self.backend, channels_first(shape), self.capacity, self.dtype if dtype is None else dtype)
        self.buffer_bytes[self.name] += buffer.nbytes
        return buffer

    def scratch(self, shape: Shape) -> Array:
        """Make memory of this very shape, for intermediate results."""
        array = self.backend.empty(shape, self.dtype)
        self.buffer_bytes[self.name] += array.nbytes
        return array

    def shared_rows(self, rows: int, size: int, numbers: int = 1) -> tuple[Array, Array]:
        """Make the scratch for sums of rows that blocks of a device share: parts, and a ticket a row that is 0.

        `size` is that of a row in the largest batch, `numbers` how many a block finds. Short rows need none, nor does
        the host.
        """
        shared = 0 if self.backend.device == "cpu" else parts_of_row(rows, size)
        if shared < 2:
            rows = 0
        tickets = self.backend.zeros((rows,), np.uint32)
        self.buffer_bytes[self.name] += tickets.nbytes
        return self.scratch((rows * shared * numbers,)), tickets

    def statistic(self, word: str, shape: Shape, value: float) -> Array:
        """Make an array that the layer remembers but does not learn, saved with the network."""
        array = self.backend.zeros(shape, self.dtype)
        self.backend.assign(array, value)
        self.statistics[f"{self.name}.{word}"] = array
        return array

    def parameter(
        self,
        letter: str,
        shape: Shape,
        initializer: Initializer | float,
        *,
        fan_in: int = 1,
        fan_out: int = 1,
        weight_decay: bool = False,
        decays: bool = False,  # its old name
    ) -> Parameter:
        """Make a parameter of this layer, which begins with a number or by an initializer.

        Its memory comes once all layers are built.
        """
        if not isinstance(initializer, Initializer):
            initializer = Constant(initializer)
        name, decayed = f"{self.name}.{letter}", weight_decay or decays
        self.parameters.append(Parameter(name, shape, initializer, (fan_in, fan_out), decayed, self.is_frozen))
        return self.parameters[-1]


class Layer(Buildable, Part, ABC, kind="layer", example="Dense(10)"):
    """One step of the network.

    A layer belongs to one network. Given to another, copied or pickled, it becomes a layer of its own that begins with
    the weights and statistics which this one has.

    Attributes:
        trainable: False freezes the layer: nothing of it is learned or decayed, BatchNorm keeps its statistics and
            Dropout switches nothing off. Set it at any time; `fit` and `forward` go by what it is then.
        name_prefix: Beginning of the layer's name; left out, the name of its class in small letters.
        output_is_free: Whether `backward` does without what `forward` returned, so the next layer may overwrite it.
        aliases_gradient: Whether `backward` may return the array that it was given.
        increases: Whether z₁ ≤ z₂ means f(z₁) ≤ f(z₂), element by element, so that the largest z has the largest a.
    """

    name_prefix: ClassVar[str] = ""
    output_is_free: bool = True
    aliases_gradient: ClassVar[bool] = False
    increases: ClassVar[bool | property] = False
    has_weights: ClassVar[bool] = False  # which multiply its inputs: the parameter `w` of (units, …)
    outputs: int | None = None  # of a sample, where their number is the same whatever comes in
    tokens: int = 0  # that it looks up, where it takes whole numbers as they are, and so comes first
    takes_rows: ClassVar[bool] = False  # of features alone, so that images go flat into it where it comes first
    normalizes_batch: ClassVar[bool] = False  # by the samples of a batch together: see `start_gathering`
    picks_largest: ClassVar[bool] = False  # of several elements, and so may come before a stage that `increases`
    gives_probability: ClassVar[bool] = False  # in each output by itself
    may_repeat: ClassVar[bool] = False  # in a network, where each place is given a layer of its own
    is_pictured: ClassVar[bool] = True  # as the end of a picture of the network's answers
    is_chain: ClassVar[bool] = False  # whose layers run as if they stood in its place
    drops_units: ClassVar[bool] = False  # by random masks, in training
    only_reshapes: ClassVar[bool] = False  # its inputs
    role: ClassVar[str] = "other"  # in a picture of a network: "activation", "normalization", "pooling"
    running: tuple[Any, ...] = ()  # the `Stages` of its branches, once it is built
    branches: tuple[list["Layer"], ...] | list[list["Layer"]] = ()  # of layers within it, each from its inputs on
    main_branches: tuple[list["Layer"], ...] | list[list["Layer"]] = ()  # without shortcuts
    fused: "Layer | None" = None  # the activation that is computed within this stage
    w: Parameter | None = None
    bias_for_loss: Parameter | None = None  # all that the stage does is to add it, and so the loss can, in its pass
    name: str = ""
    trainable: bool = True
    begins_with: Mapping[str, NDArray[Any]] = MappingProxyType({})  # values to build with, by the last word of names
    is_placed: bool = False  # in a network
    # Of a built network: its lock, its backend, and the layer's parameters and statistics by the last word of names.
    built_values: tuple[AbstractContextManager[Any], Backend, dict[str, Array]] | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        run_on_device(cls, "build", "forward", "backward")
        for old, new in (("family", "name_prefix"), ("hands_gradient_on", "aliases_gradient")):
            if old in vars(cls):
                warnings.warn(f"{old} of {cls.__name__} is now {new}", DeprecationWarning, stacklevel=2)
                setattr(cls, new, vars(cls)[old])
        if not cls.name_prefix and "name_prefix" not in vars(cls):
            cls.name_prefix = cls.__name__.lower().removesuffix("2d")

    def name_inner_layers(self) -> None:
        """Name the layers within this one, after its own name."""
        name_layers((layer for branch in self.branches for layer in branch), f"{self.name}.")

    def stages(self) -> list["Layer"]:
        """Return what runs for the layer in turn: itself, or itself and what it leaves to a stage of its own."""
        return [self]

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of a sample that comes out; raise ShapeError where the input does not fit the layer."""
        return input_shape

    @abstractmethod
    def build(self, context: BuildContext, input_shape: Shape) -> Shape:
        """Make parameters and buffers for samples of this shape, and return `output_shape`."""

    @abstractmethod
    def forward(self, x: Array, training: bool) -> Array:
        """Compute the layer's output for a batch, samples last, in a buffer that the layer owns."""

    @abstractmethod
    def backward(self, dy: Array) -> Array | None:
        """From δ = ∂C/∂output (5) to ∂C/∂input (8), or None where nothing before learns, and collect the gradients."""

    def resized(self, outputs: int) -> "Layer":
        """Return a new layer like this one, but for the number of its outputs; see `Sequential.replace_last`."""
        mend = f"write Sequential([*network.layers[:-1], Dense({outputs})]), with those layers that are to stay"
        raise OptionError(f"{self!r} cannot be made again with {outputs} outputs: {mend}")

    def filters_of(self, w: NDArray[Any], input_shape: Shape) -> NDArray[Any] | None:
        """Return weights as images (units, channels, height, width) of what each unit sees; None where it sees none."""
        if w.ndim == 2 and len(input_shape) == 3 and w.shape[1] == prod(input_shape):
            return w.reshape(len(w), *channels_first(input_shape))
        return w if w.ndim == 4 else None

    def fused_with(self, following: "Layer") -> "Layer | None":
        """Return one stage that does what this one and the next do; None where there is none."""
        return None

    def comes_after(self, before: "Layer") -> None:
        """Take note of the stage before this one, both built, in whose pass it may take part."""

    def without(self, link: type["Layer"]) -> list["Layer"]:
        """Return what is left of this stage, the last, where the loss computes the activation `link` itself."""
        return [] if isinstance(self, link) else [self]

    def idle(self, forward: bool) -> None:
        """Take part in what ranks compute together, in `forward` or else in `backward`, with no sample of the batch."""
        for stages in self.running:
            stages.idle(forward)

    def forget_batch(self) -> None:
        """Let go of the inputs of the last `forward`; no `backward` follows it."""

    def start_gathering(self) -> None:
        """From now on gather the statistics of all that comes through, if the layer `normalizes_batch`."""

    def stop_gathering(self, keep: bool) -> None:
        """Remember what was gathered, or, where that is only a part, what was remembered before."""

    def settings(self) -> dict[str, Any]:
        kept = super().settings()
        for name in ("name", "begins_with", "is_placed", "built_values", "_settings"):
            kept.pop(name, None)
        return kept if self.trainable else {**kept, "trainable": self.trainable}

    @property
    def has_learned(self) -> bool:
        """Whether the layer is part of a built network, or begins with the weights of one."""
        return self.built_values is not None or bool(self.begins_with)

    def __getstate__(self) -> dict[str, Any]:
        begins_with = dict(self.begins_with)
        if self.built_values is not None:
            lock, backend, arrays = self.built_values
            with lock:
                begins_with = {word: backend.to_host(array) for word, array in arrays.items()}
        return {**self.settings(), "begins_with": begins_with}


def every_layer(layers: Iterable[Layer], frozen: bool = False) -> Iterator[tuple[Layer, bool]]:
    """Give each layer, also those within others, and whether it is frozen: what lies in a frozen one is."""
    for layer in layers:
        is_frozen = frozen or not layer.trainable
        yield layer, is_frozen
        for branch in layer.branches:
            yield from every_layer(branch, is_frozen)


def unchained(layers: Iterable[Layer]) -> Iterator[Layer]:
    """Give the layers that run one after another: those of a chain in its place."""
    for layer in layers:
        if layer.is_chain:
            yield from unchained(layer.branches[0])
        else:
            yield layer


def name_layers(layers: Iterable[Layer], before: str = "") -> None:
    """Name layers dense1, relu1, dense2 and so on, and those within them residual1.dense1."""
    counts = Counter[str]()
    for layer in layers:
        counts[layer.name_prefix] += 1
        layer.name = f"{before}{layer.name_prefix}{counts[layer.name_prefix]}"
        layer.name_inner_layers()


def placed(layers: list[Layer]) -> list[Layer]:
    """Return layers that are part of no network as they are, and copies of others, all of one moment."""
    locks = {id(values[0]): values[0] for layer, _ in every_layer(layers) if (values := layer.built_values)}
    with ExitStack() as held:
        for key in sorted(locks):  # in one order, so that no two threads wait for each other
            held.enter_context(locks[key])
        return _placed(layers)


def _placed(layers: list[Layer]) -> list[Layer]:
    layers = [copy(layer) if layer.is_placed else layer for layer in layers]
    for layer in layers:
        layer.is_placed = True
        for branch in layer.branches:
            branch[:] = _placed(branch)
    return layers
