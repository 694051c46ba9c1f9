"""A network: layers one after another, their parameters in flat arrays, built on one device."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from copy import copy
from functools import wraps
from math import prod
from typing import Any, Self, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpunn.backend.base import Backend, Buffer, Shape, inside
from gpunn.backend.compiling import Compiling
from gpunn.backend.devices import select
from gpunn.backend.foreign import on_host
from gpunn.data import Samples
from gpunn.data.checks import check_finite
from gpunn.data.loader import InputBuffer, rows_of
from gpunn.data.training_inputs import TrainingInputs
from gpunn.errors import GpunnError, OptionError, ShapeError
from gpunn.kernels.gather import COUNT
from gpunn.kernels.record import Array
from gpunn.nn.arguments import as_batch, as_layers, as_shape, checked_dtype
from gpunn.nn.footprint import Remembering, count_bytes, explained, require
from gpunn.nn.fusion import activation_after, arranged
from gpunn.nn.layers.base import BuildContext, Layer, LayerValues
from gpunn.nn.losses import Loss
from gpunn.nn.parameter import Memory, Parameter, Parameters
from gpunn.nn.tasks import Task
from gpunn.scalars import checked_seed, flag, positive_whole

EVALUATION_BATCH = 256
"""Samples that go through the network at once when nothing is learned, where the training batch is smaller."""

FEW = 8
"""Samples up to which `forward` copies its batch, so that its products are planned for the same memory each time."""

_OF_A_DEVICE = {"lock", "backend", "parameters", "input", "clock", "stages", "statistics", "buffer_bytes"}
_OF_A_DEVICE |= {"_given", "_output_of", "_built_of", "_built_frozen", "_compiled"}
"""Attributes that a copy of a network makes anew."""


Method = TypeVar("Method", bound=Callable[..., Any])


def alone(method: Method) -> Method:
    """A method of a network that holds its lock: the calls of threads come one after another."""

    @wraps(method)
    def holding(network: Network, *arguments: Any, **options: Any) -> Any:
        with network.lock:
            return method(network, *arguments, **options)

    return cast(Method, holding)


class Network:
    """Layers one after another with their parameters, built on one device; see `Sequential`."""

    def __init__(self, layers: Iterable[Layer | type[Layer] | str], *more: Layer) -> None:
        self.layers = as_layers(layers, more)
        for at, layer in enumerate(self.layers):
            first = next(number for number, other in enumerate(self.layers) if other is layer)
            if first < at:
                raise OptionError(
                    f"a layer stands in the network twice, {layer!r} in places {first + 1} and {at + 1}: write "
                    f"{layer!r} again in place {at + 1}, so that each place has a layer of its own"
                )
        self._place_layers()
        self.loss: Loss | None = None
        self.task: Task | None = None
        self.class_names: tuple[str, ...] = ()
        self.input_scale = 1.0
        self.epochs_trained = self.steps_trained = 0
        self.optimizer_memory: Memory | None = None
        self.trained_on: TrainingInputs | None = None
        self.backend: Backend | None = None
        self.lock = threading.RLock()

    def _place_layers(self) -> None:
        """Take layers that are part of no network as they are, and of others copies."""
        locks = {
            id(layer.built_values.lock): layer.built_values.lock
            for layer in self.layers
            if layer.built_values is not None
        }
        with ExitStack() as held:  # all values of one moment; in one order, so that no two threads wait for each other
            for key in sorted(locks):
                held.enter_context(locks[key])
            self.layers = [copy(layer) if layer.is_placed else layer for layer in self.layers]
        for layer in self.layers:
            layer.is_placed = True

    @property
    def trainable(self) -> bool:
        """Whether any layer is trainable; to set it is to set it for every layer."""
        return any(layer.trainable for layer in self.layers)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        for layer in self.layers:
            layer.trainable = value

    # Copying

    @alone
    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in vars(self).items() if name not in _OF_A_DEVICE}
        if self.backend is None:
            return {**state, "layers": [copy(layer) for layer in self.layers]}
        return {**state, "layers": [layer.unbuilt() for layer in self.layers], "_built": (self._built(), self.arrays())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        built = state.pop("_built", None)
        vars(self).update(state, lock=threading.RLock(), backend=None)
        self._place_layers()
        if built is not None:
            backend, arrays = built
            self.build_with(arrays, self.input_shape, self.batch_size, backend, self.dtype, self.seed)

    # Building

    def build(
        self,
        input_shape: Sequence[int],
        batch_size: int = 32,
        device: str | Backend = "auto",
        dtype: str = "float32",
        seed: int = 0,
    ) -> Self:
        """Make parameters with initial values, and every buffer that a batch needs.

        Args:
            input_shape: of one sample: (features,) or (height, width, channels).
            batch_size: samples of the largest training batch.
            device: "auto", "cpu", "cuda", "cuda:N", or a backend.
            dtype: "float32", or "float64" for checks.
            seed: of the initial weights, 0 to 2³² − 1.

        Returns:
            The network itself.

        Raises:
            ShapeError: layers that do not fit together.
            OptionError, DeviceError: an argument that cannot be.
            MemoryShortageError: the host has less memory than the network needs; none is taken.
        """
        return self.build_with(None, input_shape, batch_size, device, dtype, seed)

    @alone
    def build_with(
        self,
        arrays: Mapping[str, NDArray[Any]] | None,
        input_shape: Sequence[int],
        batch_size: int,
        device: str | Backend,
        dtype: str,
        seed: int = 0,
    ) -> Self:
        """Build with the values that `arrays` gave in place of initial ones; see `build`.

        Raises:
            ShapeError: arrays of another network, which is found out before memory is taken for its parameters.
            MemoryShortageError: the host has less memory than the network needs.
        """
        backend = device if isinstance(device, Backend) else select(device)
        input_shape, batch_size = as_shape(input_shape), positive_whole(batch_size, "batch size")
        dtype, seed = checked_dtype(dtype), checked_seed(seed)
        self.unbuild()  # until the last layer is built: one that fails leaves no half-built network
        require(
            lambda count: bytes_of_network(self.layers, input_shape, count, backend, dtype, arrays), batch_size, backend
        )
        context = self.lay_out(input_shape, batch_size, backend, dtype, seed)
        begun = {} if arrays is not None else _begun(self.layers, context)
        if arrays is not None:
            check_arrays(arrays, context)
        self.parameters = Parameters(context.parameters, backend, dtype)
        self.backend = backend
        if arrays is None:
            self.parameters.initialize(self.seed)
            self.epochs_trained, self.steps_trained, self.optimizer_memory = 0, 0, None
        if arrays is not None or begun:
            self.load_arrays(self.arrays() | begun if arrays is None else arrays)
        self.count_on(self.epochs_trained, self.steps_trained)
        held = {p.name: p.value for p in self.parameters} | self.statistics
        for layer in self.layers:
            begin = f"{layer.name}."
            own = {name.removeprefix(begin): array for name, array in held.items() if name.startswith(begin)}
            layer.built_values = LayerValues(self.lock, backend, own)
        return self

    def unbuild(self) -> None:
        """Be as if the network had not been built, so that the next data decide on its shape."""
        self.backend = None
        for layer in self.layers:
            layer.built_values = None

    def count_on(self, epochs: int, steps: int) -> None:
        """Let what comes next be the training after so many epochs and steps: its orders and masks are others."""
        self.epochs_trained, self.steps_trained = epochs, steps
        self._built().assign(self.clock[COUNT : COUNT + 1], steps)

    def lay_out(
        self, input_shape: Sequence[int], batch_size: int, backend: Backend, dtype: str, seed: int = 0
    ) -> BuildContext:
        """Make every buffer, and say which parameters there are; they have no memory yet. See `build`."""
        seed, batch_size = checked_seed(seed), positive_whole(batch_size, "batch size")
        self.dtype = checked_dtype(dtype)
        self.seed = seed
        self.batch_size = batch_size
        self.capacity = max(self.batch_size, EVALUATION_BATCH)
        self.input_shape = shape = as_shape(input_shape)
        self._name_layers()
        self.shapes = [shape := layer.output_shape(shape) for layer in self.layers]
        self.output_shape = shape
        self._takes_rows = self.layers[0].takes_rows
        self.input = InputBuffer(backend, self.input_shape, self.capacity, dtype, as_rows=self._takes_rows)
        self._given = Buffer(backend, inside(self.output_shape), self.capacity, dtype)
        self._output_of: tuple[int, tuple[int, ...]] | None = None  # thread and shape, where `backward` may follow
        self._built_of, self._built_frozen = list(self.layers), [not layer.trainable for layer in self.layers]
        self._compiled: set[tuple[Any, ...]] = set()
        self.clock = backend.zeros((4,), np.int32)
        context = BuildContext(
            backend, dtype, self.capacity, batch_size=self.batch_size, seed=seed, count=self.clock[COUNT : COUNT + 1]
        )
        self._build_stages(context)
        self.statistics = context.statistics
        self.buffer_bytes = context.buffer_bytes
        return context

    def _name_layers(self) -> None:
        """Name the layers dense1, relu1, dense2, and so on."""
        counts: dict[str, int] = {}
        for layer in self.layers:
            counts[layer.name_prefix] = counts.get(layer.name_prefix, 0) + 1
            layer.name = f"{layer.name_prefix}{counts[layer.name_prefix]}"

    def _build_stages(self, context: BuildContext) -> None:
        """Put the stages of all layers in the order in which they run, and build them."""
        stages = [(stage, layer) for layer in self.layers for stage in layer.stages()]
        for stage, layer in stages:
            stage.name = layer.name
        self.stages = arranged([stage for stage, _ in stages])
        activations = {layer.name: activation_after(self.layers[at + 1 :]) for at, layer in enumerate(self.layers)}
        frozen = {layer.name for layer in self.layers if not layer.trainable}
        shape = self.input_shape
        for number, stage in enumerate(self.stages):
            context.name, context.number = stage.name, number
            context.needs_input_gradient = not all(p.is_frozen for p in context.parameters)
            context.is_frozen = stage.name in frozen
            context.may_overwrite_input = number > 0 and self.stages[number - 1].output_is_free
            context.is_last = all(later.aliases_gradient for later in self.stages[number + 1 :])
            context.activation = activations[stage.name]
            stage.remember_settings()
            shape = stage.build(context, shape)

    @alone
    def rebuild(self, batch_size: int, device: str | Backend, dtype: str) -> None:
        """Build again for another batch, device or dtype, with the weights as they are; it stays where that fails."""
        arrays, before = self.arrays(), (self.batch_size, self._built(), self.dtype, self.seed)
        try:
            self.build_with(arrays, self.input_shape, batch_size, device, dtype, self.seed)
        except BaseException:
            self.build_with(arrays, self.input_shape, *before)
            raise

    @property
    def is_frozen_anew(self) -> bool:
        """Whether layers were frozen or released since the network was built: it is to be built again."""
        return self._built_frozen != [not layer.trainable for layer in self.layers]

    @alone
    def arrays(self) -> dict[str, NDArray[Any]]:
        """Copies of everything the network has learned and remembers, by name."""
        backend = self._built()
        statistics = {name: backend.to_host(array) for name, array in self.statistics.items()}
        return self.parameters.to_host() | statistics

    @alone
    def load_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take what `arrays` gave."""
        backend = self._built()
        self.parameters.load(arrays)
        for name, array in self.statistics.items():
            backend.assign(array, np.asarray(arrays[name], array.dtype))

    def bytes_for(self, batch_size: int) -> int:
        """Count the bytes that the network would take, built for batches of this size."""
        return bytes_of_network(self.layers, self.input_shape, batch_size, self._built(), self.dtype)

    def _built(self) -> Backend:
        if self.backend is None:
            raise GpunnError("the network is not built yet: call build(input_shape) or fit(data) first")
        if self.layers != self._built_of:
            raise GpunnError(
                "the list of layers is no longer that of the built network: make another, Sequential(network.layers), "
                "which begins with the weights of those that were built"
            )
        return self.backend

    # Forward and backward

    @alone
    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        """The output of the last layer for a batch (3).

        Args:
            x: (batch, *input_shape).
            training: whether layers behave as in training.

        Returns:
            (batch, *output_shape), an array of the device.

        Raises:
            ShapeError: inputs of another shape, or more than the network was built for.
        """
        backend, training = self._built(), flag(training, "training")
        if training and self.is_frozen_anew:
            self.rebuild(self.batch_size, backend, self.dtype)
        batch = self._samples(x)
        if not len(batch):
            return backend.zeros((0, *self.output_shape), self.dtype)
        factor = self.factor_of(batch)
        scale = 1.0 if self.trained_on is None else factor
        view = self._forward(batch, training, scale, keeps=True)
        y = view.T if view.ndim == 2 else view.transpose(3, 1, 2, 0)
        result = backend.empty(y.shape, y.dtype)  # of its own: another thread may be next
        backend.assign(result, y)
        self._output_of = threading.get_ident(), y.shape
        return result.T if y.ndim == 2 else result.transpose(3, 1, 2, 0)

    def _forward(self, batch: Any, training: bool = False, scale: float = 1.0, *, keeps: bool = False) -> Array:
        """`forward` of a batch whose samples have the network's input shape, its numbers times scale.

        Only where it `keeps` the batch may `backward` follow: then it is copied, and else let go of in the end.
        """
        backend = self._built()
        if len(batch) > self.capacity:
            raise ShapeError(
                f"built for batches of up to {self.capacity} samples, got {len(batch)}: build with "
                f"batch_size={len(batch)}, or call predict_proba, which takes any number"
            )
        rows, own = self.input.views(len(batch))
        inner = own
        if not self._takes_rows:
            values = backend.asarray(batch)
            backend.assign(inner, values.T if values.ndim == 2 else values.transpose(3, 1, 2, 0), scale)
        elif keeps or len(batch) <= FEW or scale != 1 or batch.dtype != self.dtype:
            backend.assign(rows, batch, scale)  # a copy of few takes less than a product planned anew
        else:
            inner = backend.asarray(batch).T
        try:
            self.compile_ahead(
                ("forward", training, len(batch) == 1), lambda: self.propagate(inner, training, self.stages)
            )
            y = self.propagate(inner, training, self.stages)
        finally:
            if inner is not own:
                self.layers[0].forget_batch()
        return y.T if y.ndim == 2 else y.transpose(3, 1, 2, 0)

    @alone
    def backward(self, dy: Array) -> None:
        """Back-propagate ∂C/∂output (8), (12), (13): sets `grad` of every parameter, and ends the step.

        Args:
            dy: (batch, *output_shape), such as `loss.backward()` gives.

        Raises:
            GpunnError: the last that the network computed is no `forward` of this thread.
            ShapeError: dy is not of the shape of the outputs.
        """
        backend = self._built()
        thread, shape = self._output_of or (None, ())
        if thread != threading.get_ident():
            raise GpunnError(
                "backward follows forward, and the network has computed something else since: call forward again, "
                "and hold network.lock around both where threads share the network"
            )
        turned = dy.T if dy.ndim == 2 else dy.transpose(3, 1, 2, 0) if dy.ndim == 4 else dy
        if tuple(turned.shape) != shape:
            wanted = (shape[-1], *(shape[i] for i in ((1, 2, 0) if len(shape) == 4 else (0,))))
            raise ShapeError(f"backward expects ∂C/∂output of shape {wanted}, got {tuple(dy.shape)}")
        gradient = self._given[shape[-1]]
        backend.assign(gradient, turned)
        self.backpropagate(gradient, self.stages)
        # The next step drops out other units.
        self.count_on(self.epochs_trained, self.steps_trained + 1)

    def propagate(self, x: Array, training: bool, stages: Sequence[Layer]) -> Array:
        """Forward through some stages, samples last."""
        self._output_of = None
        for stage in stages:
            x = stage.forward(x, training)
        return x

    def compile_ahead(self, what: tuple[Any, ...], work: Callable[[], Any], shown: bool = True) -> None:
        """Compile what some work of this network will run, and show how far that is; see `Backend.compile_ahead`.

        Args:
            what: stands for the work: nothing is done where the same was asked for since the network was built.
            work: is not done.
            shown: whether anything is shown.
        """
        if what in self._compiled:
            return
        self._compiled.add(what)
        with Compiling(shown) as show:
            self._built().compile_ahead(work, show)

    def backpropagate(self, dy: Array, stages: Sequence[Layer]) -> None:
        """Backward through some stages, samples last, until nothing before learns."""
        gradient: Array | None = dy
        for stage in reversed(stages):
            if gradient is None:
                return
            gradient = stage.backward(gradient)

    def stages_under(self, loss: Loss | None) -> tuple[list[Layer], Parameter | None]:
        """What runs before a cost: not a last activation that the cost contains (its link), nor the last bias.

        Returns:
            The stages, and the bias that is left to the cost, or None.
        """
        *before, last = self.stages
        stages = self.stages
        if loss is not None and loss.link is not None:
            stages = [*before, *last.without(loss.link)]
        bias = stages[-1].bias_for_loss if stages else None
        return (stages if bias is None else stages[:-1]), bias

    def factor_of(self, batch: Any) -> float:
        """What the numbers of a batch are multiplied with.

        Raises:
            DataError: NaN or infinity among them, or numbers of another range than those of the training.
        """
        if self.trained_on is None:
            if isinstance(batch, np.ndarray) and batch.dtype.kind == "f" and batch.size:
                check_finite(batch, "inputs")
            return self.input_scale if batch.dtype == np.uint8 else 1.0
        return self.trained_on.factor(batch)

    def _samples(self, x: Any) -> Any:
        """A batch whose samples have the network's input shape."""
        x = as_batch(x, self.input_shape)
        if self.trained_on is not None:
            x = self.trained_on.arranged(x)
        shape = tuple(x.shape[1:])
        if shape == self.input_shape:
            return x
        if len(self.input_shape) == 1 and prod(shape) == self.input_shape[0] and x.ndim > 1:
            return rows_of(x)
        if shape == self.input_shape[:2] and self.input_shape[2] == 1:
            return x.reshape(*x.shape, 1)
        is_one = x.size == prod(self.input_shape) and x.shape[:1] != (1,)
        mend = ": x[None] makes a batch of one sample" if is_one else ""
        wanted = ", ".join(map(str, self.input_shape))
        raise ShapeError(f"expected inputs (batch, {wanted}), got {tuple(x.shape)}{mend}")

    # Using

    @alone
    @explained
    def predict_proba(self, x: ArrayLike) -> NDArray[Any]:
        """Outputs for inputs, as probabilities where the loss or the last layer makes them such.

        Args:
            x: (n, *input_shape), or images flat in NumPy's order. Bytes and other whole numbers are scaled as those of
                the training set were, and so are floats where it had floats.

        Returns:
            (n, outputs).

        Raises:
            ShapeError: inputs of another shape.
            DataError: numbers of another range than those of the training.
        """
        backend = self._built()
        x = np.asarray(self._samples(on_host(x)))
        scale = self.factor_of(x)
        parts = []
        for start in range(0, len(x), self.capacity):
            parts.append(backend.to_host(self._forward(x[start : start + self.capacity], scale=scale)))
        outputs = (
            parts[0] if len(parts) == 1 else np.concatenate([*parts, np.empty((0, *self.output_shape), self.dtype)])
        )
        link = None if self.loss is None else self.loss.link
        if link is not None and not isinstance(self.layers[-1], link):
            # The kernel of a link works on samples as columns.
            columns = outputs.T
            link.kernel.host(columns, columns)  # type: ignore[attr-defined]  # links are activations
        return np.ascontiguousarray(outputs)

    def predict(self, x: ArrayLike) -> NDArray[Any]:
        """The answer for each input, of the kind that the network was trained on.

        Args:
            x: (n, *input_shape).

        Returns:
            Trained on labels: class numbers (n,), the best guess argmax_k P(k | x); of one output alone 1 where it is
            at least ½. Trained by `BinaryCrossEntropy` on float targets: 0 or 1 for each output, (n, outputs). Trained
            by `MeanSquaredError` on float targets: the outputs, (n, outputs). So answers have the shape of the targets.
        """
        outputs = self.predict_proba(x)
        return (self.task or self._likely_task()).answers(outputs)

    def predict_names(self, x: ArrayLike) -> NDArray[Any]:
        """The name of the class of each input: texts (n,); see `predict`.

        Raises:
            GpunnError: the network was not trained on labels, so that its answers have no names.
        """
        if not self.class_names:
            raise GpunnError("the network knows no names of classes, since it was not trained on labels: use predict")
        names = np.array(self.names_of_outputs)
        named: NDArray[Any] = names[self.predict(x)]
        return named

    @property
    def names_of_outputs(self) -> list[str]:
        """A name for each class that can be answered; the number, where the training data had fewer classes."""
        count = max(2, prod(self.output_shape))
        return [*self.class_names, *map(str, range(len(self.class_names), count))]

    def _likely_task(self) -> Task:
        """What a network is for that was not trained by `fit`."""
        if prod(self.output_shape) > 1:
            return Task.CLASSES
        last = self.loss.link if self.loss is not None and self.loss.link is not None else self.layers[-1]
        return Task.BINARY if last.gives_probability else Task.REGRESSION

    def arranged(self, samples: Samples) -> Samples:
        """The samples in the shape of those that the network was trained on: images for flat rows of these, or rows.

        Raises:
            ShapeError: images of another shape.
        """
        if self.trained_on is None or not isinstance(samples, Samples):
            return samples
        return self.trained_on.arranged_samples(samples)

    def __repr__(self) -> str:
        return f"{type(self).__name__}([{', '.join(map(repr, self.layers))}])"


def count_network(
    layers: Sequence[Layer],
    shape: Sequence[int],
    batch_size: int,
    like: Backend,
    dtype: str,
    arrays: Mapping[str, NDArray[Any]] | None = None,
    optimizer: Remembering | None = None,
    skips: bool = False,
) -> tuple[int, int]:
    """Count the bytes of a network of these layers, or of its training, and of its largest array.

    Raises:
        ShapeError: the arrays are not those of the network.
    """
    network = Network(layer.unbuilt() for layer in layers)  # copies: the layers keep what they were built with

    def lay_out(counting: Backend) -> tuple[BuildContext, Shape]:
        context = network.lay_out(shape, batch_size, counting, dtype)
        if arrays is not None:
            check_arrays(arrays, context)
        return context, network.output_shape

    return count_bytes(lay_out, like, dtype, optimizer, skips)


def bytes_of_network(
    layers: Sequence[Layer],
    shape: Sequence[int],
    batch_size: int,
    like: Backend,
    dtype: str,
    arrays: Mapping[str, NDArray[Any]] | None = None,
    optimizer: Remembering | None = None,
    skips: bool = False,
) -> int:
    """Count the bytes of a network of these layers, or of its training; see `count_network`."""
    return count_network(layers, shape, batch_size, like, dtype, arrays, optimizer, skips)[0]


def check_arrays(arrays: Mapping[str, NDArray[Any]], context: BuildContext) -> None:
    """Raise ShapeError unless these are the arrays of the network that is being built."""
    wanted = {p.name: p.shape for p in context.parameters}
    wanted |= {name: tuple(array.shape) for name, array in context.statistics.items()}
    if set(arrays) != set(wanted):
        missing = ", ".join(sorted(set(wanted) - set(arrays))[:5]) or "none"
        extra = ", ".join(map(repr, sorted(set(arrays) - set(wanted))[:5])) or "none"
        raise ShapeError(f"the arrays do not fit the network: missing {missing}; not expected {extra}")
    for name, shape in wanted.items():
        if arrays[name].shape != shape:
            raise ShapeError(f"{name} must be of shape {shape}, got {arrays[name].shape}")


def _begun(layers: Sequence[Layer], context: BuildContext) -> dict[str, NDArray[Any]]:
    """Values that layers bring with them from another network, by name.

    Raises:
        ShapeError: values of another shape than this network needs.
    """
    shapes = {p.name: p.shape for p in context.parameters}
    shapes |= {name: tuple(array.shape) for name, array in context.statistics.items()}
    begun = {}
    for layer in layers:
        for word, value in layer.begins_with.items():
            name = f"{layer.name}.{word}"
            if name in shapes and value.shape != shapes[name]:
                raise ShapeError(
                    f"{name} was learned in the shape {value.shape}, and here it must be {shapes[name]}: give the "
                    f"layer inputs as there, or take a new {layer!r}"
                )
            if name in shapes:
                begun[name] = value
    return begun


def fed_shape(layers: Sequence[Layer], shape: Shape) -> Shape:
    """The shape of a sample as a network gets it: images go flat into a first layer that takes features."""
    return (prod(shape),) if layers[0].takes_rows else tuple(shape)
