"""What every layer is: built once, then forward and backward over buffers made at build.

Samples are the last axis inside the network, (features, batch) and (channels, height, width, batch), so the code reads
as the equations do and every row over the batch is contiguous. Shapes that people see, in `build`, errors and the
summary, are those of one sample: (features,) and (height, width, channels).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpunn.backend.base import Backend, Buffer, Shape, inside
from gpunn.backend.copies import Buildable
from gpunn.config import base_of_kind, written
from gpunn.errors import OptionError
from gpunn.kernels.record import Array
from gpunn.nn.initializers import Initializer
from gpunn.nn.parameter import Parameter

_MOST = 2**48  # of nothing has anybody as many, and NumPy counts no much further


@dataclass
class BuildContext:
    """What a layer is told when it is built, and where its memory comes from.

    Attributes:
        backend: where arrays live.
        dtype: of the network.
        capacity: samples of the largest batch.
        name: of the layer, such as "dense1", for its parameters and errors.
        needs_input_gradient: whether anything before the layer learns.
        may_overwrite_input: whether the layer's output may take the memory of its input.
        is_last: whether the gradient given to `backward` belongs to the caller and must stay as it is.
        activation: the activation function that comes next, if any.
        batch_size: samples of a training batch.
        seed: of the run.
        number: of the layer in the network, to tell its random numbers from another's.
        count: one element, the steps done in the whole run.
        is_frozen: whether the layer learns nothing (`Layer.trainable`).
    """

    backend: Backend
    dtype: DTypeLike
    capacity: int
    name: str = ""
    needs_input_gradient: bool = False
    may_overwrite_input: bool = False
    is_last: bool = False
    activation: Layer | None = None
    batch_size: int = 1
    seed: int = 0
    number: int = 0
    count: Array = None
    is_frozen: bool = False
    parameters: list[Parameter] = field(default_factory=list)
    statistics: dict[str, Array] = field(default_factory=dict)
    buffer_bytes: dict[str, int] = field(default_factory=dict)

    def buffer(self, shape: Shape, dtype: DTypeLike | None = None) -> Buffer:
        """Memory for a batch of samples of this shape, of the network's dtype where none is given."""
        buffer = Buffer(self.backend, inside(shape), self.capacity, self.dtype if dtype is None else dtype)
        self._count_bytes(buffer.nbytes)
        return buffer

    def scratch(self, shape: Shape) -> Array:
        """Memory of this very shape, for what is forgotten at once."""
        array = self.backend.empty(shape, self.dtype)
        self._count_bytes(array.nbytes)
        return array

    def _count_bytes(self, nbytes: int) -> None:
        self.buffer_bytes[self.name] = self.buffer_bytes.get(self.name, 0) + nbytes

    def statistic(self, word: str, shape: Shape, value: float) -> Array:
        """Numbers that the layer remembers but that are not learned, saved with the network."""
        array = self.backend.zeros(shape, self.dtype)
        self.backend.assign(array, value)
        self.statistics[f"{self.name}.{word}"] = array
        return array

    def parameter(
        self,
        letter: str,
        shape: Shape,
        initializer: Initializer,
        *,
        fan_in: int = 1,
        fan_out: int = 1,
        decays: bool = False,
    ) -> Parameter:
        """A new parameter of this layer; its memory comes once all layers are built."""
        name = f"{self.name}.{letter}"
        parameter = Parameter(name, shape, initializer, fan_in, fan_out, decays, is_frozen=self.is_frozen)
        self.parameters.append(parameter)
        return parameter


@dataclass(frozen=True)
class Memory:
    """Where the values of a built layer are.

    Attributes:
        lock: of the network.
        backend: of the network.
        arrays: parameters and statistics on the device, by the last word of their names.
    """

    lock: AbstractContextManager[Any]
    backend: Backend
    arrays: dict[str, Array]

    def to_host(self) -> dict[str, NDArray[Any]]:
        """Copies of all values."""
        with self.lock:
            return {word: self.backend.to_host(array) for word, array in self.arrays.items()}


@base_of_kind("layer", "Dense(10)")
class Layer(Buildable, ABC):
    """One step of the network.

    A layer belongs to one network. Given to another, copied or pickled, it becomes a layer of its own that begins with
    the weights and statistics which this one has.

    Attributes:
        trainable: False freezes the layer: nothing of it is learned or decayed, and in training it does what it does
            in use, so BatchNorm goes by the statistics that it remembers and Dropout switches nothing off. Set it at
            any time; `fit` and `forward` go by what it is then.
        family: what the layer's name begins with.
        output_is_free: whether `backward` does without what `forward` returned, so that the next layer may
            overwrite it.
        hands_gradient_on: whether what `backward` returns may be the very memory that it was given.
        has_weights: Whether weights multiply its inputs: the parameter `w` of (units, …) once it is built.
        outputs: Number of outputs of a sample, where it is the same whatever comes in.
        takes_rows: Whether it takes features alone, so that images go flat into it where it comes first.
        normalizes_batch: Whether it is trained on what the samples of a batch have in common: see `start_gathering`.
        increases: Whether z₁ ≤ z₂ means f(z₁) ≤ f(z₂), element by element, so that the largest z has the largest a.
        picks_largest: Whether it picks the largest of several elements, and so may come before what `increases`.
        gives_probability: Whether each output is a probability by itself.
        stride_is_size: Whether windows lie side by side where no `stride` was given.
        is_pictured: Whether a picture of what the network answers may end with it.
        traffic: How often the elements that it is given, and those that it returns, are read or written: forward, and
            backward.
        fused: The activation that is computed within this stage, if any.
    """

    family: ClassVar[str]
    output_is_free: bool = True
    hands_gradient_on: ClassVar[bool] = False
    has_weights: ClassVar[bool] = False
    outputs: int | None = None
    takes_rows: ClassVar[bool] = False
    normalizes_batch: ClassVar[bool] = False
    picks_largest: ClassVar[bool] = False
    gives_probability: ClassVar[bool] = False
    stride_is_size: ClassVar[bool] = False
    is_pictured: ClassVar[bool] = True
    traffic: ClassVar[tuple[tuple[int, int], tuple[int, int]]] = ((1, 1), (1, 1))
    fused: Layer | None = None
    w: Parameter | None = None
    name: str = ""
    trainable: bool = True
    is_placed: bool = False
    """Whether the layer is part of a network."""
    begins_with: Mapping[str, NDArray[Any]] = MappingProxyType({})
    """Values that parameters and statistics begin with when the layer is built, by the last word of their names."""
    memory: Memory | None = None
    """Where its values are, once the network is built."""

    @property
    def increases(self) -> bool:
        return False

    def stages(self) -> list[Layer]:
        """What is run for the layer, one after another: itself, or itself and what it leaves to a stage of its own."""
        return [self]

    def output_shape(self, input_shape: Shape) -> Shape:
        """The shape of a sample that comes out.

        Raises:
            ShapeError: samples of this shape do not fit the layer.
        """
        return input_shape

    @abstractmethod
    def build(self, context: BuildContext, input_shape: Shape) -> Shape:
        """Make parameters and buffers for samples of this shape, and say what shape comes out.

        Raises:
            ShapeError: samples of this shape do not fit the layer.
        """

    @abstractmethod
    def forward(self, x: Array, training: bool) -> Array:
        """The layer's output for a batch, samples last, in a buffer that the layer owns."""

    @abstractmethod
    def backward(self, dy: Array) -> Array | None:
        """From δ = ∂C/∂output (5) to ∂C/∂input (8); gradients of the layer's parameters are collected on the way.

        Returns:
            ∂C/∂input, or None where nothing before the layer learns.
        """

    def fused_with(self, following: Layer) -> Layer | None:
        """One stage that does what this one and the next do; None where there is none."""
        return None

    def without(self, link: type[Layer]) -> list[Layer]:
        """What is left of this stage, the last, where the loss computes the activation `link` itself."""
        return [] if isinstance(self, link) else [self]

    @property
    def bias_for_loss(self) -> Parameter | None:
        """The bias, where that is all this stage adds, so that the loss can add it in the same pass."""
        return None

    def forget_batch(self) -> None:
        """Let go of the inputs of the last `forward`; no `backward` follows it."""

    def start_gathering(self) -> None:
        """From now on gather the statistics of all that comes through, if the layer `normalizes_batch`."""

    def stop_gathering(self, keep: bool) -> None:
        """Remember what was gathered, or, where that is only a part, what was remembered before."""

    def settings(self) -> dict[str, Any]:
        kept = super().settings()
        for name in ("name", "is_placed", "begins_with", "memory", "_settings"):
            kept.pop(name, None)
        return kept if self.trainable else {**kept, "trainable": self.trainable}

    def __getstate__(self) -> dict[str, Any]:
        begins_with = self.begins_with if self.memory is None else self.memory.to_host()
        return {**self.settings(), "begins_with": dict(begins_with)}

    def __repr__(self) -> str:
        return written(self)


def positive_whole(value: Any, what: str, least: int = 1) -> int:
    """The value as an int.

    Raises:
        OptionError: it is not a whole number, or below `least`.
    """
    number = value.item() if isinstance(value, np.ndarray | np.generic) and not value.ndim else value
    if isinstance(number, bool) or not isinstance(number, int | float) or number % 1 or number < least:
        raise OptionError(f"{what} must be a whole number of at least {least}, got {value!r}")
    if number > _MOST:
        raise OptionError(f"{what} must be at most {_MOST:,}, got {value!r}")
    return int(number)


def checked_seed(value: Any) -> int:
    """The seed as an int, a word of Philox's key.

    Raises:
        OptionError: it is no whole number from 0 to 2³² − 1.
    """
    if positive_whole(value, "seed", least=0) >= 2**32:
        raise OptionError(f"seed must be a whole number from 0 to {2**32 - 1}, got {value!r}")
    return int(value)


def pair(value: Any, what: str, least: int = 1) -> tuple[int, int]:
    """Two whole numbers, down and across, from one or two."""
    values = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(values) != 2:
        raise OptionError(f"{what} must be one number or two, got {value!r}")
    return positive_whole(values[0], what, least), positive_whole(values[1], what, least)
