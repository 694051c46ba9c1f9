"""Build a network on one device, compute its outputs and gradients, and predict with it."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from math import prod
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpunn.backend.base import Backend
from gpunn.backend.compiling import CompileProgress
from gpunn.backend.devices import on_host, select
from gpunn.config.scalars import checked_seed, flag, positive_whole
from gpunn.data import Samples
from gpunn.data.checks import check_finite
from gpunn.data.device_inputs import DeviceInputs
from gpunn.data.training_inputs import TrainingInputs
from gpunn.errors import GpunnError, ShapeError
from gpunn.kernels.gather import COUNT
from gpunn.kernels.record import Array
from gpunn.nn.arguments import as_batch, as_shape, checked_dtype
from gpunn.nn.footprint import count_network, require_memory
from gpunn.nn.layers.base import Layer, every_layer, placed
from gpunn.nn.layers.chain import as_layers, check_places
from gpunn.nn.layout import Layout, check_arrays, inherited_arrays, swap_batch_axis
from gpunn.nn.locking import explains_shortage, locked
from gpunn.nn.losses import Loss
from gpunn.nn.parameter import Memory, Parameters
from gpunn.nn.tasks import Task

FEW = 8  # largest batch that `forward` always copies: its products are then planned for one place in memory
# Attributes that a copy of a network makes anew.
_OF_A_DEVICE = {"lock", "backend", "parameters", "input", "clock", "stages", "statistics", "buffer_bytes"}
_OF_A_DEVICE |= {"_given", "_output_of", "_built_of", "_built_frozen", "_compiled", "share"}


class Network(Layout):
    """Run layers in sequence, with their parameters in flat arrays on one device; see `Sequential`."""

    def __init__(self, layers: Iterable[Layer | type[Layer] | str], *more: Layer) -> None:
        given = as_layers(layers, more)
        check_places(given)
        self.inherited = frozenset(number for number, layer in enumerate(given) if layer.has_learned)
        super().__init__(placed(given))
        self.loss: Loss | None = None
        self.task: Task | None = None
        self.class_names: tuple[str, ...] = ()
        self.input_scale = 1.0
        self.epochs_trained = self.steps_trained = 0
        self.optimizer_memory: Memory | None = None
        self.trained_on: TrainingInputs | None = None
        self.backend: Backend | None = None
        self.lock = threading.RLock()

    @property
    def trainable(self) -> bool:
        """True if any layer is trainable; setting it sets every layer."""
        return not all(is_frozen for _, is_frozen in every_layer(self.layers))

    @trainable.setter
    def trainable(self, value: bool) -> None:
        for layer, _ in every_layer(self.layers):
            layer.trainable = value

    def __repr__(self) -> str:
        return f"{type(self).__name__}([{', '.join(map(repr, self.layers))}])"

    @locked
    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in vars(self).items() if name not in _OF_A_DEVICE}
        if self.backend is None:
            return {**state, "layers": [copy(layer) for layer in self.layers]}
        return {**state, "layers": [layer.unbuilt() for layer in self.layers], "_built": (self._built(), self.arrays())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        built = state.pop("_built", None)
        vars(self).update(state, lock=threading.RLock(), backend=None)
        self.layers = placed(self.layers)
        if built is not None:
            backend, arrays = built
            self.build_with(arrays, self.input_shape, self.batch_size, backend, self.dtype, self.seed)

    def build(
        self,
        input_shape: Sequence[int],
        batch_size: int = 32,
        device: str | Backend = "auto",
        dtype: str = "float32",
        seed: int = 0,
    ) -> Self:
        """Initialize the parameters, and allocate every buffer for a batch; return the network itself.

        Args:
            input_shape: Shape of one sample: (features,) or (height, width, channels).
            batch_size: Number of samples in the largest training batch.
            device: "auto", "cpu", "cuda", "cuda:N", or a backend.
            dtype: "float32", or "float64" for checks.
            seed: Seed of the initial weights, 0 to 2³² − 1.

        Raises:
            ShapeError: Layers that do not fit together, or an impossible input shape.
            OptionError, DeviceError: Any other argument out of its range, or a device that is not there.
            MemoryShortageError: The network needs more memory than is free on the host; nothing is allocated.
        """
        return self.build_with(None, input_shape, batch_size, device, dtype, seed)

    @locked
    def build_with(
        self,
        arrays: Mapping[str, NDArray[Any]] | None,
        input_shape: Sequence[int],
        batch_size: int,
        device: str | Backend,
        dtype: str,
        seed: int = 0,
        taken: int = 0,
    ) -> Self:
        """Build with values from `arrays` instead of initial ones; check them before memory is allocated.

        `taken` is the number of bytes that the network frees while it is built again.
        """
        backend = device if isinstance(device, Backend) else select(device)
        shape, batch_size = as_shape(input_shape), positive_whole(batch_size, "batch size")
        dtype, seed = checked_dtype(dtype), checked_seed(seed)
        self.unbuild()  # so that a failure leaves no half-built network
        require_memory(
            lambda n: count_network(self.layers, shape, n, backend, dtype, arrays).nbytes, batch_size, backend, 0, taken
        )
        context = self.lay_out(shape, batch_size, backend, dtype, seed)
        brought = inherited_arrays(self.layers, context) if arrays is None else check_arrays(arrays, context)
        self.parameters = Parameters(context.parameters, backend, dtype)
        self.backend = backend
        if arrays is None:
            self.parameters.initialize(seed)
            self.epochs_trained, self.steps_trained, self.optimizer_memory = 0, 0, None
        if brought:
            self.load_arrays(brought if arrays is not None else {**self.arrays(), **brought})
        self.count_on(self.epochs_trained, self.steps_trained)
        held = {p.name: p.value for p in self.parameters} | self.statistics
        for layer, _ in self.every_layer:
            begin = f"{layer.name}."
            own = {name.removeprefix(begin): array for name, array in held.items() if name.startswith(begin)}
            layer.built_values = self.lock, backend, own
        return self

    def unbuild(self) -> None:
        """Forget the backend, so that the next data set determines the input shape."""
        self.backend = None
        for layer, _ in self.every_layer:
            layer.built_values = None

    @locked
    def rebuild(self, batch_size: int, device: str | Backend, dtype: str) -> None:
        """Build again for another batch size, device or dtype with the same weights; undo it where that fails."""
        arrays, before = self.arrays(), (self.batch_size, self._built(), self.dtype, self.seed)
        taken = self.bytes_for(self.batch_size)
        try:
            self.build_with(arrays, self.input_shape, batch_size, device, dtype, self.seed, taken)
        except BaseException:
            self.build_with(arrays, self.input_shape, *before)
            raise

    @property
    def freezing_changed(self) -> bool:
        """True if layers were frozen or unfrozen since the network was built, so that it must be built again."""
        return self._built_frozen != self.frozen

    def count_on(self, epochs: int, steps: int) -> None:
        """Set the counts of epochs and steps, which determine shuffles and dropout masks."""
        self.epochs_trained, self.steps_trained = epochs, steps
        self._built().assign(self.clock[COUNT : COUNT + 1], steps)

    @locked
    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return copies of all parameters and statistics, by name."""
        backend = self._built()
        statistics = {name: backend.to_host(array) for name, array in self.statistics.items()}
        return self.parameters.to_host() | statistics

    @locked
    def load_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Set all parameters and statistics from the result of `arrays`."""
        backend = self._built()
        self.parameters.load(arrays)
        for name, array in self.statistics.items():
            backend.assign(array, np.asarray(arrays[name], array.dtype))

    def bytes_for(self, batch_size: int) -> int:
        """Count the bytes of the network if it were built for batches of this size."""
        return count_network(self.layers, self.input_shape, batch_size, self._built(), self.dtype).nbytes

    def _built(self) -> Backend:
        if self.backend is None:
            raise GpunnError("the network is not built yet: call build(input_shape) or fit(data) first")
        if self.layers != self._built_of:
            mend = "make another, Sequential(network.layers), which begins with the weights of those that were built"
            raise GpunnError(f"the list of layers is no longer that of the built network: {mend}")
        return self.backend

    def compile_ahead(self, what: tuple[Any, ...], work: Callable[[], Any]) -> None:
        """Compile the kernels of `work` without running it, once for each `what`; see `Backend.compile_ahead`."""
        if what not in self._compiled:
            self._compiled.add(what)
            with CompileProgress() as show:
                self._built().compile_ahead(work, show)

    @locked
    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        """Compute the output of the last layer for a batch (3): an array on the device, (batch, *output_shape).

        Args:
            x: Inputs (batch, *input_shape).
            training: Whether Dropout and BatchNorm behave as in training.

        Raises:
            ShapeError: Inputs of another shape, or a larger batch than the network was built for.
            DataError: Inputs that are not finite.
        """
        backend, training = self._built(), flag(training, "training")
        if training and self.freezing_changed:
            self.rebuild(self.batch_size, backend, self.dtype)
        batch = self._batch(x, backend)
        if not len(batch):
            return backend.zeros((0, *self.output_shape), self.dtype)
        factor = self.factor_of(batch)
        y = self._forward(batch, training, 1.0 if self.trained_on is None else factor, keeps=True)
        result = backend.empty(y.shape, y.dtype)  # a copy, since another thread may overwrite y next
        backend.assign(result, y)
        self._output_of = threading.get_ident(), y.shape
        return swap_batch_axis(result)

    def _forward(self, batch: Any, training: bool = False, scale: float = 1.0, *, keeps: bool = False) -> Array:
        """Compute outputs, samples last, of a batch times `scale`; `backward` needs one that `keeps` its inputs."""
        backend = self._built()
        if len(batch) > self.capacity:
            mend = f"build with batch_size={len(batch)}, or call predict_proba, which takes any number"
            raise ShapeError(f"built for batches of up to {self.capacity} samples, got {len(batch)}: {mend}")
        rows, own = self.input.views(len(batch))
        x = own
        if not self._takes_rows:
            backend.assign(own, swap_batch_axis(backend.asarray(batch)), scale)
        elif keeps or len(batch) <= FEW or scale != 1 or batch.dtype != self.dtype:
            backend.assign(rows, batch, scale)  # to copy a few samples takes less than to plan a product
        else:
            x = backend.asarray(batch).T
        try:
            self.compile_ahead(("forward", training, len(batch) == 1), lambda: self.propagate(x, training, self.stages))
            return self.propagate(x, training, self.stages)
        finally:
            if x is not own:
                self.layers[0].forget_batch()

    @locked
    def backward(self, dy: Array) -> None:
        """Back-propagate dy = ∂C/∂output (8), (12), (13): set every `grad`, and end the step.

        Args:
            dy: ∂C/∂output (batch, *output_shape).

        Raises:
            GpunnError: The network's last computation was not a `forward` of this thread.
            ShapeError: dy and the outputs differ in shape.
        """
        backend = self._built()
        thread, shape = self._output_of or (None, ())
        if thread != threading.get_ident():
            mend = "call forward again, and hold network.lock around both where threads share the network"
            raise GpunnError(f"backward follows forward, and the network has computed something else since: {mend}")
        delta = swap_batch_axis(dy)
        if tuple(delta.shape) != shape:
            wanted = (shape[-1], *self.output_shape)
            raise ShapeError(f"backward expects ∂C/∂output of shape {wanted}, got {tuple(dy.shape)}")
        gradient = self._given[shape[-1]]
        backend.assign(gradient, delta)
        self.backpropagate(gradient, self.stages)
        self.count_on(self.epochs_trained, self.steps_trained + 1)  # so that the next step drops other units

    def _batch(self, x: Any, backend: Backend) -> Any:
        """Return inputs as a batch; arrays on a CUDA device stay there unless the network is on the CPU."""
        x = on_host(x) if backend.device == "cpu" else x
        return as_batch(x, self.input_shape, self.trained_on, self.tokens)

    def factor_of(self, batch: Any) -> float:
        """Return the input scale for a batch; raise DataError for inputs not finite or out of the training's range."""
        if self.tokens:  # already checked, and never scaled
            return 1.0
        if self.trained_on is not None:
            return self.trained_on.factor(batch)
        if isinstance(batch, np.ndarray) and batch.dtype.kind == "f" and batch.size:
            check_finite(batch, "inputs")
        return self.input_scale if batch.dtype == np.uint8 else 1.0

    def arranged(self, samples: Samples) -> Samples:
        """Return the samples in the shape of the training set: flat rows as images, or images as rows."""
        if not isinstance(samples, Samples):
            return samples
        samples = samples.as_tokens(self.tokens) if self.tokens else samples
        return samples if self.trained_on is None else self.trained_on.arranged_samples(samples)

    @explains_shortage
    def predict_proba(self, x: ArrayLike) -> NDArray[Any]:
        """Return outputs (n, outputs): probabilities where the loss or the last layer gives them.

        Args:
            x: Inputs (n, *input_shape), or images flattened in NumPy's order. Bytes and other whole numbers are scaled
                as in the training set, and floats too if that had floats. After a training on a table, also a data
                frame, whose columns are found by name; an array must then be standardised as the samples are.

        Raises:
            ShapeError, DataError: Inputs of another shape, or outside the training's range.
        """
        backend = self._built()
        batch = self._batch(x, backend)
        scale = self.factor_of(batch if isinstance(batch, np.ndarray) else DeviceInputs(batch).extremes())
        starts = range(0, len(batch), self.capacity)
        batches = (batch[start : start + self.capacity] for start in starts)
        parts = [backend.to_host(swap_batch_axis(self._forward(each, scale=scale))) for each in batches]
        none = np.empty((0, *self.output_shape), self.dtype)
        return self.linked(parts[0] if len(parts) == 1 else np.concatenate([*parts, none]))

    def linked(self, outputs: NDArray[Any]) -> NDArray[Any]:
        """Apply the loss's link to outputs (n, outputs) on the host, and return regressions in the targets' units."""
        link = None if self.loss is None else self.loss.made_link()
        if link is not None and not isinstance(self.last_layer, type(link)):
            columns = outputs.T  # activations take samples last
            if link.is_array_code:
                columns[...] = link.function(np, columns)
            else:
                link.kernel.host(columns, *link._constants(), columns)
        if self.trained_on is not None and self.trained_on.columns is not None:
            outputs = self.trained_on.columns.answers(outputs)
        return np.ascontiguousarray(outputs)

    def predict(self, x: ArrayLike) -> NDArray[Any]:
        """Return the predicted class, or number, for each input, according to the training's targets.

        Args:
            x: Inputs (n, *input_shape), as for `predict_proba`.

        Returns:
            Predictions of the targets' shape. Trained on labels: class numbers (n,), argmax_k P(k | x), or for a single
            output 1 where it is at least ½. Trained on float targets: with `BinaryCrossEntropy` 0 or 1 for each output,
            (n, outputs), with `MeanSquaredError` the outputs.

        Raises:
            ShapeError, DataError: Inputs of another shape, or outside the training's range.
        """
        outputs, task = self.predict_proba(x), self.task
        if task is None:  # not trained by `fit`
            last = (self.loss and self.loss.link) or self.last_layer
            of_one = Task.BINARY if last.gives_probability else Task.REGRESSION
            task = Task.CLASSES if prod(self.output_shape) > 1 else of_one
        return task.answers(outputs, self.classes)

    def predict_names(self, x: ArrayLike) -> NDArray[Any]:
        """Return the predicted class name of each input, strings (n,); raise GpunnError if not trained on labels."""
        if not self.class_names:
            raise GpunnError("the network has no class names, since it was not trained on labels: use predict")
        return np.asarray(np.array(self.names_of_outputs)[self.predict(x)])

    @property
    def names_of_outputs(self) -> list[str]:
        """Names of all classes; the number of each class that the training data lack."""
        return [*self.class_names, *map(str, range(len(self.class_names), self.classes))]

    @property
    def classes(self) -> int:
        """Number of classes."""
        outputs = prod(self.output_shape)
        return max(2, outputs) if self.loss is None else self.loss.classes_of(outputs)
