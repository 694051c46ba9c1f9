"""A training on its device: its memory counted before it is taken, everything built, its steps done and undone."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import copy
from math import prod
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from gpunn.backend.base import Backend
from gpunn.backend.ranks import world
from gpunn.data import Data
from gpunn.data.class_weights import with_class_weight
from gpunn.data.loader import DataLoader, bytes_on_device, bytes_on_host, place, sizes_of
from gpunn.data.training_inputs import TrainingInputs, check_seen
from gpunn.errors import GpunnError, OptionError
from gpunn.kernels import numba_loops
from gpunn.kernels.gather import NEXT_COUNT
from gpunn.nn.footprint import UNCOUNTED, Footprint, count_network, require, shortage
from gpunn.nn.layers.base import unchained
from gpunn.nn.layout import fed_shape
from gpunn.nn.network import Network
from gpunn.nn.parameter import Arrays, Memory
from gpunn.train.arguments import TrainOptions, check_samples, fitting_batch_size, loss_for
from gpunn.train.average import RAW, WeightAverage
from gpunn.train.distributed import check_batch_size, check_same_weights
from gpunn.train.evaluator import Evaluator, Measure
from gpunn.train.freezing import held_at_first
from gpunn.train.monitor import FiniteCheck
from gpunn.train.orders import Orders
from gpunn.train.record import Trained, Weights
from gpunn.train.step import Skip, Step

_AVERAGED = "averaged weights"


class Training:
    """A network, its optimizer, its data and the step, built on one device for a training."""

    average: WeightAverage | None = None  # None: the weights are measured and kept as they are
    _averages_from: int | None = None  # step of the network after which the average begins

    def __init__(self, model: Network, data: Data, options: TrainOptions, backend: Backend) -> None:
        self.model, self.data, self.options = model, data, options
        # Apart from the data, which are fingerprinted as they were given: weights of classes are an option.
        self.samples = with_class_weight(data.train, options.class_weight, data.class_names)
        self.batch_size = fitting_batch_size(options.batch_size, len(data.train), model.layers)
        self.ranks = world()
        check_batch_size(self.batch_size, self.ranks)
        self.loss = loss_for(data.train, options.loss, model.layers)
        if self.ranks.size > 1:
            self.loss.check_takes_shares()
        # Copies of optimizer and loss work in it, so that other trainings may have the same ones meanwhile.
        self.optimizer = options.optimizer.unbuilt()
        self.done = self._samples = self._own_samples = 0  # steps so far; samples of the sums, and of these this rank's
        self.kept = 0  # step whose weights were put back where training was cut off
        self.is_cut = False  # whether they were
        self._epoch: int | None = None  # whose order and rates the step has
        self.orders = Orders(len(data.train), options.seed)
        self.held = held_at_first(model) if options.freeze else frozenset[int]()
        self.thaws_at = options.freeze * -(-len(data.train) // self.batch_size)  # step from which all layers learn
        try:
            self.prepare(backend)
        except BaseException:
            model.held = frozenset()
            raise

    def prepare(self, backend: Backend) -> None:
        """Make everything on a device, or raise MemoryShortageError."""
        model, options, train, validation = self.model, self.options, self.samples, self.data.validation
        self.backend, self._is_host = backend, backend.device == "cpu"
        backend.connect()  # what that takes is no longer free
        self._free = backend.free_bytes()
        with self.enough_memory():
            # What the network has taken it keeps, or gives back before it is built again.
            taken = model.bytes_for(model.batch_size) if model.backend is backend else 0
            largest = self._count(self.batch_size).largest if self._is_host else 0
            require(self._bytes_for, self.batch_size, backend, self._bytes_of_data(), taken, largest)
            model.held = self._held_at(self.done)
            self._build_network()
            model.loss, model.class_names, model.input_scale = self.loss, self.data.class_names, train.scale
            self._measure = Measure(self.loss, train)
            model.task = self._measure.task
            model.trained_on = TrainingInputs.of(train)
            if validation is not None:
                model.trained_on.check_samples(validation)
            self._count_from = model.epochs_trained, model.steps_trained
            memory = self._memory()
            self._first = memory.first
            self._build_optimizer(memory)
            raw = self._raw_of(memory) if options.average is not None else None
            if self._averages_from is None:
                self._averages_from = model.steps_trained if raw is None else -1
            later = 0 if self._is_host else self._bytes_for(self.batch_size) - model.bytes_for(self._own_batch)
            batches = place(backend, train, options.dtype, options.augmentation, options.seed, options.data_on, later)
            self.placement, watched = batches.placement, None  # where the data lie, in words
            if validation is not None:
                watched = place(backend, validation, options.dtype, data_on=options.data_on, later=later)
                self.placement += f"; for validation {watched.placement}" if watched.placement else ""
            self._assemble(batches, watched)
            self.steps = options.epochs * self.step.steps_per_epoch  # of the whole training
            if self.average is not None and raw is not None:
                self.average.restore(raw)
            self._back = Weights(0, self._arrays(), self._count_from), self._remembered()

    def _assemble(self, batches: DataLoader, watched: DataLoader | None) -> None:
        """Make step, evaluator and checks for the network as it is built now."""
        model, options = self.model, self.options
        self.step = Step(model, batches, copy(self.loss), self.optimizer, self.batch_size, options.capture)
        self._validation = None if watched is None else Evaluator(model, watched, self.ranks)
        if options.average is not None:
            self.average = self.step.average = WeightAverage(model, options.average, cast(int, self._averages_from))
        self.backend.assign(model.clock[NEXT_COUNT : NEXT_COUNT + 1], model.steps_trained)
        values, totals = model.parameters.values, self.step.totals
        self._finite = FiniteCheck(self.backend, values, totals)
        seen = totals, values, *model.statistics.values(), *self.optimizer.state.values()
        self._copies = self.backend.mirror(*seen)
        self._copied_bytes = sum(array.nbytes for array in seen)
        if options.skip_bad_batches:
            changed = [values, *self.optimizer.state.values(), *model.statistics.values(), totals]
            changed += [] if self.average is None else [self.average.values]
            self.step.skip = Skip(self.backend, changed)

    @property
    def trained_before(self) -> Trained:
        """Epochs and steps of the network before this training."""
        return self._count_from

    def begin_anew(self) -> None:
        """Let the network count from 0 and remember no optimizer, as if it had never been trained; weights stay."""
        if self._count_from != (0, 0):
            self.model.count_on(0, 0)
            self.model.optimizer_memory = self._averages_from = None
            self.prepare(self.backend)

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches of an epoch."""
        return self.step.steps_per_epoch

    def _held_at(self, step: int) -> frozenset[int]:
        """Return the places of the layers that are held before a step is done."""
        return self.held if step < self.thaws_at else frozenset()

    def move_to(self, step: int) -> None:
        """Build network and optimizer for the layers that learn from a step on; values and sums stay, no momentum."""
        if (held := self._held_at(step)) == self.model.held:
            return
        model, before = self.model, [self.backend.to_host(array) for array in self.step.sums]
        averaged = {} if self.average is None else self.average.to_host()
        model.held, self._epoch = held, None
        with self.enough_memory():
            model.rebuild(self._own_batch, self.backend, model.dtype)
            first = self._first if held else self._count_from[1] + self.thaws_at
            self._build_optimizer(Memory(self.options.optimizer.identity, first, {}))
            self._assemble(self.step.batches, None if self._validation is None else self._validation.batches)
        if self.average is not None:
            self.average.load(averaged)
        for array, value in zip(self.step.sums, before, strict=True):
            self.backend.assign(array, value)

    @contextmanager
    def enough_memory(self) -> Iterator[None]:
        """Say what was needed and what would fit, where memory runs out inside."""
        try:
            yield
        except MemoryError as error:
            if not self._is_own(error):
                raise
            needed = self._bytes_for, self.batch_size, self.backend, self._bytes_of_data()
            raise shortage(error, *needed, self._free) from None

    def _is_own(self, error: Exception) -> bool:
        """Whether an error is of the training, and not of what it has called."""
        return True

    @property
    def _own_batch(self) -> int:
        """Samples that a rank has at most of a batch, for which it makes memory."""
        return -(-self.batch_size // self.ranks.size)

    def _count(self, batch_size: int) -> Footprint:
        """Count the bytes of this training beside its data, for a batch size, on one rank."""
        layers, options, share = self.model.layers, self.options, -(-batch_size // self.ranks.size)
        network = layers, fed_shape(layers, self.data.train.shape), share, self.backend, options.dtype
        return count_network(*network, None, self.optimizer, options.skip_bad_batches, options.average is not None)

    def _bytes_for(self, batch_size: int) -> int:
        return self._count(batch_size).nbytes + (UNCOUNTED if self._is_host else 0)

    def _bytes_of_data(self) -> int:
        """Count the bytes of the data: on a device all of them, on the host where they are converted."""
        data_on, dtype, is_host = self.options.data_on, self.options.dtype, self._is_host
        if data_on == "host" or (data_on == "auto" and not is_host):
            return 0
        samples = [s for s in (self.samples, self.data.validation) if s is not None]
        return sum((bytes_on_host if is_host else bytes_on_device)(s, dtype) for s in samples)

    def _build_network(self) -> None:
        """Build the network, or build it again where it was made for something else."""
        model, train, dtype = self.model, self.samples, self.options.dtype
        is_new, backend, size = model.backend is None, self.backend, self._own_batch
        if is_new:
            model.build(fed_shape(model.layers, train.shape), size, backend, dtype, self.options.seed)
        elif (model.backend, model.dtype) != (backend, dtype) or model.capacity < size or model.freezing_changed:
            model.rebuild(size, backend, dtype)
        try:
            check_samples(model, train, self.loss)
            if model.trained_on is None and not next(unchained(model.layers)).normalizes_batch:
                check_seen(train)
        except GpunnError:
            if is_new:
                model.unbuild()  # the next data may be of another shape
            raise
        if len(model.parameters) and not model.parameters.gradients.size:
            raise OptionError("every layer with weights is frozen: set trainable = True on one of network.layers")

    def _memory(self) -> Memory:
        """Return what the network keeps of the same optimizer and of all that learns now; else an empty memory."""
        model, memory, identity = self.model, self.model.optimizer_memory, self.options.optimizer.identity
        learning = {p.name for p in model.parameters if not p.is_frozen}
        # Adam counts the steps of all parameters as one: those released since then have no means of gradients yet.
        if memory is None or memory.of != identity or any(learning - part.keys() for part in memory.arrays.values()):
            return Memory(identity, model.steps_trained, {})
        return memory

    def _build_optimizer(self, memory: Memory) -> None:
        """Build the optimizer, with what is remembered of the last training."""
        model = self.model
        self.optimizer.build(model.parameters, self.options.regularizer, self.samples.total_weight, memory.first)
        for name, array in self.optimizer.state.items():
            if name in memory.arrays:
                model.parameters.unpack(model.parameters.join(memory.arrays[name]), array)
        model.optimizer_memory = None  # until this training has ended

    def _keep_optimizer(self, remembered: Arrays) -> None:
        """Let the network keep the optimizer's state for the next training with the same one."""
        p = self.model.parameters
        arrays = {name: p.split(array) for name, array in remembered.items()}
        if RAW in remembered:  # beside the averaged ones that they belong to, which the network has
            arrays[_AVERAGED] = p.split(p.packed(self.backend.to_host(p.learned)))
        self.model.optimizer_memory = Memory(self.options.optimizer.identity, self.optimizer.first, arrays)

    def _remembered(self) -> Arrays:
        """Copy the optimizer's state to the host, packed, and the weights where it is not they that are kept."""
        packed = self.model.parameters.packed
        held = {name: packed(self.backend.to_host(array)) for name, array in self.optimizer.state.items()}
        return held if self.average is None else {**held, RAW: self.average.raw()}

    def _raw_of(self, memory: Memory) -> NDArray[Any] | None:
        """Return the weights of the last training behind the averaged ones that the network has; None if it has not."""
        p = self.model.parameters
        if RAW not in memory.arrays or _AVERAGED not in memory.arrays:
            return None
        raw, averaged = (p.join(memory.arrays[name]) for name in (RAW, _AVERAGED))
        return raw if np.array_equal(averaged, p.packed(self.backend.to_host(p.learned))) else None

    def _arrays(self) -> Arrays:
        """Copy all that the network has learned and remembers to the host, with averaged weights where they are."""
        arrays = self.model.arrays()
        return arrays if self.average is None else arrays | self.average.to_host()

    def averaged(self) -> AbstractContextManager[None]:
        """Within, the network has the averaged weights, where there are any."""
        return nullcontext() if self.average is None else self.average.shown()

    def _trained_at(self, step: int) -> Trained:
        """Epochs and steps of the network after so many steps of this training."""
        epochs, steps = self._count_from
        return epochs - (-step // self.step.steps_per_epoch), steps + step

    def loops(self) -> AbstractContextManager[None]:
        """Within, kernels on the host run as this training runs them: NumPy's passes or Numba's loops."""
        features = max(map(prod, (self.model.input_shape, *self.model.shapes)))
        return numba_loops.for_training(self.steps, features * self._own_batch * np.dtype(self.model.dtype).itemsize)

    def do_steps(self, count: int = 1, compute: Callable[[int], None] | None = None) -> int:
        """Do the next steps of an epoch, by `compute` or the step itself, and return the number of their samples."""
        epoch, number = divmod(self.done, self.step.steps_per_epoch)
        if epoch != self._epoch:
            self._begin_epoch(epoch, number)
        step, size = self.step, self.batch_size
        n = min(count * size, len(self.data.train) - number * size)
        if compute is None:
            step(n)
        else:
            compute(n)
            step.given(n)
        self.done += count
        self.model.epochs_trained, self.model.steps_trained = self._trained_at(self.done)
        self._samples += n
        self._own_samples += step.share_of(n)
        return n

    def _begin_epoch(self, epoch: int, number: int) -> None:
        """Give the step the order and the learning rates of an epoch; `number` is its first step that is done."""
        self._epoch, options, steps = epoch, self.options, self.step.steps_per_epoch
        order = self.orders.of(self._count_from[0] + epoch)
        schedule = self.optimizer.schedule.for_epochs_of(steps)
        self._rates = schedule.rates(epoch + np.arange(steps) / steps, options.epochs)
        self.step.start_epoch(order, self._rates, number)
        if not self._is_host and epoch + 1 < options.epochs:  # a CPU has no core to spare
            self.orders.draw_ahead(self._count_from[0] + epoch + 1)

    @property
    def learning_rate(self) -> float:
        """Learning rate of the last step; before the first, that of the first."""
        epoch, number = divmod(max(self.done - 1, 0), self.step.steps_per_epoch)
        schedule = self.optimizer.schedule.for_epochs_of(self.step.steps_per_epoch)
        at = np.array([epoch + number / self.step.steps_per_epoch])
        return float(schedule.rates(at, self.options.epochs)[0])

    def _rate(self) -> float:
        """Learning rate of the last step, of the epoch that has begun."""
        return float(self._rates[(self.done - 1) % self.step.steps_per_epoch])

    def _rehearse(self) -> None:
        """Compute everything that steps and records are made of; see `Backend.compile_ahead`."""
        for n in sizes_of(len(self.data.train), self.batch_size):
            self.step.compute(n)
        if self._validation is not None:
            self._validation.batches.start(self.model.capacity)
            self._validation.rehearse(self.model.capacity)

    def _reset_totals(self) -> None:
        """Begin the sums and counts of the next record."""
        self._samples = self._own_samples = 0
        self.backend.assign(self.step.totals, 0.0)
        if self.step.skip is not None:
            self.backend.assign(self.step.skip.counts, 0)

    def check_same_weights(self) -> None:
        """Raise GpunnError, on all ranks, unless they have the same weights and statistics; all are to call it."""
        check_same_weights(self.model, f"after step {self.done}")

    def _weights(self) -> Weights:
        return Weights(self.done, self._arrays(), self._trained_at(self.done))

    def rewind(self) -> None:
        """Return to the last record or restore point; the monitor is not rewound."""
        (weights, remembered), assign = self._back, self.backend.assign
        self.move_to(weights.step)
        self.model.load_arrays(weights.arrays)
        for name, array in self.optimizer.state.items():
            self.model.parameters.unpack(remembered[name], array)
        if self.average is not None:
            self.average.restore(remembered[RAW])
        self._reset_totals()
        self.done, self._epoch = weights.step, None
        self.model.epochs_trained, self.model.steps_trained = weights.trained
        # The place in the epoch is set when the epoch begins.
        assign(self.model.clock[NEXT_COUNT : NEXT_COUNT + 1], self.model.steps_trained)

    def put_back(self, weights: Weights) -> None:
        """Load the weights after a cut; where their device fails, the network is built again on the CPU."""
        model = self.model
        try:
            model.load_arrays(weights.arrays)
        except (RuntimeError, MemoryError):  # DeviceError too: the fault of the device has been reported, or will be
            if self._is_host:
                raise
            model.build_with(weights.arrays, model.input_shape, model.batch_size, "cpu", model.dtype, model.seed)
        model.count_on(*weights.trained)
        self.kept, self.is_cut = weights.step, True
        model.optimizer_memory = None
        if weights is self._back[0] and self._held_at(weights.step) == model.held:
            self._keep_optimizer(self._back[1])
