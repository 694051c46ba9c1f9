"""Define the base of every layer: `build` allocates once, `forward` and `backward` reuse its buffers.

Inside, samples are the last axis: (features, batch) and (channels, height, width, batch). `build`, error messages and
the summary give the shape of one sample: (features,) or (height, width, channels).
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


@dataclass
class Share:
    """Place of a rank's samples in the batch of all ranks, set before each step.

    Attributes:
        first: Number of its first sample in the whole batch.
        of: Number of samples in the whole batch; 0 where this network computes all of it.
    """

    first: int = 0
    of: int = 0


@dataclass
class BuildContext:
    """Settings and memory that a layer receives in `build`."""

    backend: Backend
    dtype: DTypeLike
    capacity: int  # number of samples in the largest batch
    name: str = ""  # layer name, such as "dense1", for parameters and errors
    needs_input_gradient: bool = False  # true where an earlier layer learns
    may_overwrite_input: bool = False  # whether the output may take the input's memory
    is_last: bool = False  # the gradient given to `backward` then belongs to the caller and must not change
    activation: "Layer | None" = None  # next activation after the layer
    batch_size: int = 1  # training batch size
    seed: int = 0
    number: int = 0  # stage number in the network: gives each stage random numbers of its own
    count: Array = None  # number of steps in the whole run, one element on the device
    share: Share = field(default_factory=Share)  # this rank's share of the batch
    is_frozen: bool = False  # see `Layer.trainable`
    frozen: Mapping[str, bool] = field(default_factory=dict)  # whether each layer is frozen, by name, nested ones too
    inner_numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1 << 16))  # of stages within layers
    parameters: list[Parameter] = field(default_factory=list)
    statistics: dict[str, Array] = field(default_factory=dict)
    buffer_bytes: Counter[str] = field(default_factory=Counter)

    @property
    def xp(self) -> Any:
        """NumPy or CuPy: the module of the network's arrays."""
        return self.backend.xp

    def buffer(self, shape: Shape, dtype: DTypeLike | None = None) -> Buffer:
        """Allocate a batch of samples of this shape, by default in the network's dtype."""
        buffer = Buffer(self.backend, channels_first(shape), self.capacity, self.dtype if dtype is None else dtype)
        self.buffer_bytes[self.name] += buffer.nbytes
        return buffer

    def scratch(self, shape: Shape) -> Array:
        """Allocate an array of exactly this shape for intermediate results."""
        array = self.backend.empty(shape, self.dtype)
        self.buffer_bytes[self.name] += array.nbytes
        return array

    def shared_rows(self, rows: int, size: int, numbers: int = 1) -> tuple[Array, Array]:
        """Allocate partial sums, and a zeroed ticket a row, for `numbers` sums over rows that several GPU blocks share.

        `size` is the length of a row in the largest batch; short rows need no scratch, nor does the CPU.
        """
        shared = 0 if self.backend.device == "cpu" else parts_of_row(rows, size)
        if shared < 2:
            rows = 0
        tickets = self.backend.zeros((rows,), np.uint32)
        self.buffer_bytes[self.name] += tickets.nbytes
        return self.scratch((rows * shared * numbers,)), tickets

    def statistic(self, word: str, shape: Shape, value: float) -> Array:
        """Allocate an array that is saved with the network but not learned, such as a running mean."""
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
        decays: bool = False,
    ) -> Parameter:
        """Register a parameter of this layer; it gets its memory when all layers are built.

        Args:
            letter: Name within the layer: "w" of dense1 is the parameter "dense1.w".
            shape: Shape of the values.
            initializer: Initial distribution, or one number for all elements.
            fan_in: Number of inputs to a unit.
            fan_out: Number of units that an input feeds.
            weight_decay: Whether regularizers act on it.
            decays: Old name of `weight_decay`.
        """
        if not isinstance(initializer, Initializer):
            initializer = Constant(initializer)
        name, decayed = f"{self.name}.{letter}", weight_decay or decays
        self.parameters.append(Parameter(name, shape, initializer, (fan_in, fan_out), decayed, self.is_frozen))
        return self.parameters[-1]


class Layer(Buildable, Part, ABC, kind="layer", example="Dense(10)"):
    """Base of all layers: a layer maps a batch to a batch, and its gradient back.

    A layer belongs to one network. Given to another network, copied or pickled, it becomes a new layer that begins with
    this one's weights and statistics.

    Attributes:
        trainable: False freezes the layer: its parameters stay, without weight decay, BatchNorm keeps its statistics
            and Dropout is the identity. Set it at any time; the next `fit` or `forward` uses it.
        name_prefix: Beginning of the layer's name; by default the class name in lower case.
        output_is_free: Whether `backward` does not read the output of `forward`, so the next layer may overwrite it.
        aliases_gradient: Whether `backward` may return its input array.
        increases: Whether z₁ ≤ z₂ implies f(z₁) ≤ f(z₂), element by element, so the largest z has the largest a.
        only_reshapes: Whether the output has the input's numbers in another shape; the page shows no units of it.
        role: "activation", "normalization", "pooling" or "other": the colour of the layer's card on the page.
    """

    name_prefix: ClassVar[str] = ""
    output_is_free: bool = True
    aliases_gradient: ClassVar[bool] = False
    increases: ClassVar[bool | property] = False
    has_weights: ClassVar[bool] = False  # whether it multiplies its inputs by a parameter `w`, (units, …)
    outputs: int | None = None  # number of outputs of a sample; None where it depends on the input
    tokens: int = 0  # number of tokens it looks up; such a layer takes whole numbers, unscaled, and comes first
    takes_rows: ClassVar[bool] = False  # whether it takes (features,) only: as the first layer it gets images flat
    normalizes_batch: ClassVar[bool] = False  # whether samples share statistics: see `start_gathering`
    picks_largest: ClassVar[bool] = False  # whether outputs are maxima, so that it may run before an increasing stage
    gives_probability: ClassVar[bool] = False  # whether each output is a probability by itself
    may_repeat: ClassVar[bool] = False  # whether one layer may stand in several places: each then gets a copy
    is_pictured: ClassVar[bool] = True  # whether a picture of the network may end with its output
    is_chain: ClassVar[bool] = False  # whether its layers run as if they stood in its place
    drops_units: ClassVar[bool] = False  # whether it drops random units in training
    only_reshapes: ClassVar[bool] = False
    role: ClassVar[str] = "other"
    running: tuple[Any, ...] = ()  # `Stages` of its branches, once built
    branches: tuple[list["Layer"], ...] | list[list["Layer"]] = ()  # inner layers; each branch starts at the input
    main_branches: tuple[list["Layer"], ...] | list[list["Layer"]] = ()  # branches without shortcuts
    fused: "Layer | None" = None  # activation computed within this stage
    w: Parameter | None = None
    bias_for_loss: Parameter | None = None  # bias of a stage that only adds it: the loss kernel can do that instead
    name: str = ""
    trainable: bool = True
    begins_with: Mapping[str, NDArray[Any]] = MappingProxyType({})  # values to build with, by the last word of names
    is_placed: bool = False  # whether it belongs to a network
    # Lock and backend of the built network, and the layer's parameters and statistics by the last word of their names.
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
        """Name the inner layers after this one."""
        name_layers((layer for branch in self.branches for layer in branch), f"{self.name}.")

    def stages(self) -> list["Layer"]:
        """Return the stages that run for the layer: itself, perhaps followed by a separate one, such as its bias."""
        return [self]

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of an output sample; raise ShapeError where the input does not fit the layer."""
        return input_shape

    @abstractmethod
    def build(self, context: BuildContext, input_shape: Shape) -> Shape:
        """Allocate parameters and buffers for samples of this shape, and return `output_shape`."""

    @abstractmethod
    def forward(self, x: Array, training: bool) -> Array:
        """Compute the output of a batch, samples last, in a buffer of the layer."""

    @abstractmethod
    def backward(self, dy: Array) -> Array | None:
        """Return ∂C/∂input (8) from δ = ∂C/∂output (5), or None if no earlier layer learns; compute the gradients."""

    def resized(self, outputs: int) -> "Layer":
        """Return a new layer of the same kind with another number of outputs; see `Sequential.replace_last`."""
        mend = f"write Sequential([*network.layers[:-1], Dense({outputs})]), with those layers that are to stay"
        raise OptionError(f"{self!r} cannot be made again with {outputs} outputs: {mend}")

    def filters_of(self, w: NDArray[Any], input_shape: Shape) -> NDArray[Any] | None:
        """Return weights as one image a unit, (units, channels, height, width); None where they form no images."""
        if w.ndim == 2 and len(input_shape) == 3 and w.shape[1] == prod(input_shape):
            return w.reshape(len(w), *channels_first(input_shape))
        return w if w.ndim == 4 else None

    def fused_with(self, following: "Layer") -> "Layer | None":
        """Return one stage that computes this one and the next; None where none can."""
        return None

    def comes_after(self, before: "Layer") -> None:
        """Learn about the stage before, once both are built: this one may take over its work."""

    def without(self, link: type["Layer"]) -> list["Layer"]:
        """Return the stages left of this last one where the loss computes the activation `link` itself."""
        return [] if isinstance(self, link) else [self]

    def idle(self, forward: bool) -> None:
        """Take part in the messages of the ranks, in `forward` or in `backward`, without a sample of the batch."""
        for stages in self.running:
            stages.idle(forward)

    def forget_batch(self) -> None:
        """Release the inputs of the last `forward`; no `backward` follows it."""

    def start_gathering(self) -> None:
        """Start to gather statistics over all following batches, if the layer `normalizes_batch`."""

    def stop_gathering(self, keep: bool) -> None:
        """Stop gathering; `keep` the new statistics, or drop them where the pass was incomplete."""

    def settings(self) -> dict[str, Any]:
        kept = super().settings()
        for name in ("name", "begins_with", "is_placed", "built_values", "_settings"):
            kept.pop(name, None)
        return kept if self.trainable else {**kept, "trainable": self.trainable}

    @property
    def has_learned(self) -> bool:
        """True if the layer belongs to a built network or begins with the weights of one."""
        return self.built_values is not None or bool(self.begins_with)

    def __getstate__(self) -> dict[str, Any]:
        begins_with = dict(self.begins_with)
        if self.built_values is not None:
            lock, backend, arrays = self.built_values
            with lock:
                begins_with = {word: backend.to_host(array) for word, array in arrays.items()}
        return {**self.settings(), "begins_with": begins_with}


def every_layer(layers: Iterable[Layer], frozen: bool = False) -> Iterator[tuple[Layer, bool]]:
    """Give each layer, nested ones too, and whether it is frozen, by itself or by a layer around it."""
    for layer in layers:
        is_frozen = frozen or not layer.trainable
        yield layer, is_frozen
        for branch in layer.branches:
            yield from every_layer(branch, is_frozen)


def unchained(layers: Iterable[Layer]) -> Iterator[Layer]:
    """Give the layers in running order, with each chain replaced by its layers."""
    for layer in layers:
        if layer.is_chain:
            yield from unchained(layer.branches[0])
        else:
            yield layer


def name_layers(layers: Iterable[Layer], before: str = "") -> None:
    """Name layers dense1, relu1, dense2 and so on, nested ones residual1.dense1."""
    counts = Counter[str]()
    for layer in layers:
        counts[layer.name_prefix] += 1
        layer.name = f"{before}{layer.name_prefix}{counts[layer.name_prefix]}"
        layer.name_inner_layers()


def placed(layers: list[Layer]) -> list[Layer]:
    """Return the layers for a new network; those of another network are copied, all in one moment."""
    locks = {id(values[0]): values[0] for layer, _ in every_layer(layers) if (values := layer.built_values)}
    with ExitStack() as held:
        for key in sorted(locks):  # always in one order: two threads then never wait for each other
            held.enter_context(locks[key])
        return _placed(layers)


def _placed(layers: list[Layer]) -> list[Layer]:
    layers = [copy(layer) if layer.is_placed else layer for layer in layers]
    for layer in layers:
        layer.is_placed = True
        for branch in layer.branches:
            branch[:] = _placed(branch)
    return layers
