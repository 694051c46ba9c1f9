"""Build a training on its device within its memory, do its steps, and rewind them."""

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
from gpunn.nn.footprint import UNCOUNTED, Footprint, count_network, require_memory, shortage_error
from gpunn.nn.layers.base import unchained
from gpunn.nn.layout import fed_shape
from gpunn.nn.network import Network
from gpunn.nn.parameter import Arrays, Memory
from gpunn.train.arguments import TrainOptions, check_samples, fitting_batch_size, loss_for
from gpunn.train.average import RAW, WeightAverage
from gpunn.train.distributed import check_batch_size, check_same_weights
from gpunn.train.evaluator import Evaluator, Measure
from gpunn.train.freezing import frozen_at_first
from gpunn.train.monitor import FiniteCheck
from gpunn.train.orders import Orders
from gpunn.train.record import Trained, Weights
from gpunn.train.step import Skip, Step

_AVERAGED = "averaged weights"


class Training:
    """Build network, optimizer, data and step on one device, and do the steps of a training."""

    average: WeightAverage | None = None
    _averages_from: int | None = None  # step of the network after which the average begins

    def __init__(self, model: Network, data: Data, options: TrainOptions, backend: Backend) -> None:
        self.model, self.data, self.options = model, data, options
        # Apart from `data`, whose fingerprint must not depend on class weights, an option.
        self.samples = with_class_weight(data.train, options.class_weight, data.class_names)
        self.batch_size = fitting_batch_size(options.batch_size, len(data.train), model.layers)
        self.ranks = world()
        check_batch_size(self.batch_size, self.ranks)
        self.loss = loss_for(data.train, options.loss, model.layers)
        if self.ranks.size > 1:
            self.loss.check_takes_shares()
        # Copies of optimizer and loss, so that other trainings may use the same objects meanwhile.
        self.optimizer = options.optimizer.unbuilt()
        self.done = self._samples = self._own_samples = 0  # steps so far; samples in the sums, and this rank's of them
        self.kept = 0  # step of the weights that were restored after a cut
        self.is_cut = False  # whether weights were restored
        self._epoch: int | None = None  # epoch whose order and rates the step has
        self.orders = Orders(len(data.train), options.seed)
        self.held = frozen_at_first(model) if options.freeze else frozenset[int]()
        self.unfreeze_step = options.freeze * -(-len(data.train) // self.batch_size)  # step from which all layers learn
        try:
            self.prepare(backend)
        except BaseException:
            model.held = frozenset()
            raise

    def prepare(self, backend: Backend) -> None:
        """Allocate everything on a device, or raise MemoryShortageError."""
        model, options, train, validation = self.model, self.options, self.samples, self.data.validation
        self.backend, self._is_host = backend, backend.device == "cpu"
        backend.connect()  # before free memory is counted, since it takes some
        self._free = backend.free_bytes()
        with self.enough_memory():
            # A network built on this device keeps its memory, or frees it before it is rebuilt.
            taken = model.bytes_for(model.batch_size) if model.backend is backend else 0
            largest = self._count(self.batch_size).largest if self._is_host else 0
            require_memory(self._bytes_for, self.batch_size, backend, self._bytes_of_data(), taken, largest)
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
            self.placement, held_out = batches.placement, None  # place of the data, in words
            if validation is not None:
                held_out = place(backend, validation, options.dtype, data_on=options.data_on, later=later)
                self.placement += f"; for validation {held_out.placement}" if held_out.placement else ""
            self._assemble(batches, held_out)
            self.steps = options.epochs * self.steps_per_epoch  # of the whole training
            if self.average is not None and raw is not None:
                self.average.restore(raw)
            self._rewind_point = Weights(0, self._arrays(), self._count_from), self._optimizer_state()

    def _assemble(self, batches: DataLoader, validation: DataLoader | None) -> None:
        """Make step, evaluator and checks for the network in its current build."""
        model, options = self.model, self.options
        self.step = Step(model, batches, copy(self.loss), self.optimizer, self.batch_size, options.capture)
        self._validation = None if validation is None else Evaluator(model, validation, self.ranks)
        if options.average is not None:
            self.average = self.step.average = WeightAverage(model, options.average, cast(int, self._averages_from))
        self.backend.assign(model.clock[NEXT_COUNT : NEXT_COUNT + 1], model.steps_trained)
        values, totals = model.parameters.values, self.step.totals
        self._finite = FiniteCheck(self.backend, values, totals)
        copied = totals, values, *model.statistics.values(), *self.optimizer.state.values()
        self._copies = self.backend.mirror(*copied)
        self._copied_bytes = sum(array.nbytes for array in copied)
        if options.skip_bad_batches:
            changed = [values, *self.optimizer.state.values(), *model.statistics.values(), totals]
            changed += [] if self.average is None else [self.average.values]
            self.step.skip = Skip(self.backend, changed)

    @property
    def trained_before(self) -> Trained:
        """Epochs and steps of the network before this training."""
        return self._count_from

    def reset_counts(self) -> None:
        """Reset the network's counts of epochs and steps and its optimizer's state, but not its weights."""
        if self._count_from != (0, 0):
            self.model.count_on(0, 0)
            self.model.optimizer_memory = self._averages_from = None
            self.prepare(self.backend)

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches of an epoch."""
        return self.step.steps_per_epoch

    def _held_at(self, step: int) -> frozenset[int]:
        """Return the indices of the frozen layers at a step."""
        return self.held if step < self.unfreeze_step else frozenset()

    def move_to(self, step: int) -> None:
        """Rebuild network and optimizer for the trainable layers of a step; weights and sums stay, momentum is lost."""
        if (held := self._held_at(step)) == self.model.held:
            return
        model, before = self.model, [self.backend.to_host(array) for array in self.step.sums]
        averaged = {} if self.average is None else self.average.to_host()
        model.held, self._epoch = held, None
        with self.enough_memory():
            model.rebuild(self._own_batch, self.backend, model.dtype)
            first = self._first if held else self._count_from[1] + self.unfreeze_step
            self._build_optimizer(Memory(self.options.optimizer.identity, first, {}))
            self._assemble(self.step.batches, None if self._validation is None else self._validation.batches)
        if self.average is not None:
            self.average.load(averaged)
        for array, value in zip(self.step.sums, before, strict=True):
            self.backend.assign(array, value)

    @contextmanager
    def enough_memory(self) -> Iterator[None]:
        """Turn a MemoryError into one with the bytes that were needed and the batch size that would fit."""
        try:
            yield
        except MemoryError as error:
            if not self._is_own(error):
                raise
            needed = self._bytes_for, self.batch_size, self.backend, self._bytes_of_data()
            raise shortage_error(error, *needed, self._free) from None

    def _is_own(self, error: Exception) -> bool:
        """Return whether an error comes from the training itself, not from code that it called."""
        return True

    @property
    def _own_batch(self) -> int:
        """Largest share of a batch on one rank, for which it allocates memory."""
        return -(-self.batch_size // self.ranks.size)

    def _count(self, batch_size: int) -> Footprint:
        """Count the bytes of this training without its data, for a batch size, on one rank."""
        layers, options, share = self.model.layers, self.options, -(-batch_size // self.ranks.size)
        network = layers, fed_shape(layers, self.data.train.shape), share, self.backend, options.dtype
        return count_network(*network, None, self.optimizer, options.skip_bad_batches, options.average is not None)

    def _bytes_for(self, batch_size: int) -> int:
        return self._count(batch_size).nbytes + (UNCOUNTED if self._is_host else 0)

    def _bytes_of_data(self) -> int:
        """Count the bytes of the data: all on a device, on the host only converted ones."""
        data_on, dtype, is_host = self.options.data_on, self.options.dtype, self._is_host
        if data_on == "host" or (data_on == "auto" and not is_host):
            return 0
        samples = [s for s in (self.samples, self.data.validation) if s is not None]
        return sum((bytes_on_host if is_host else bytes_on_device)(s, dtype) for s in samples)

    def _build_network(self) -> None:
        """Build the network, or rebuild it if it was built for another device, dtype or batch size."""
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
                model.unbuild()  # the next data may have another shape
            raise
        if len(model.parameters) and not model.parameters.gradients.size:
            raise OptionError("every layer with weights is frozen: set trainable = True on one of network.layers")

    def _memory(self) -> Memory:
        """Return the state that the network keeps of this optimizer, if it has all trainable parameters; else none."""
        model, memory, identity = self.model, self.model.optimizer_memory, self.options.optimizer.identity
        learning = {p.name for p in model.parameters if not p.is_frozen}
        # Adam has one step count for all parameters, and parameters unfrozen since have no means of gradients yet.
        if memory is None or memory.of != identity or any(learning - part.keys() for part in memory.arrays.values()):
            return Memory(identity, model.steps_trained, {})
        return memory

    def _build_optimizer(self, memory: Memory) -> None:
        """Build the optimizer, with its state from the last training."""
        model = self.model
        self.optimizer.build(model.parameters, self.options.regularizer, self.samples.total_weight, memory.first)
        for name, array in self.optimizer.state.items():
            if name in memory.arrays:
                model.parameters.unpack(model.parameters.join(memory.arrays[name]), array)
        model.optimizer_memory = None  # until this training has ended

    def _keep_optimizer(self, optimizer_state: Arrays) -> None:
        """Keep the optimizer's state in the network, for its next training with the same optimizer."""
        p = self.model.parameters
        arrays = {name: p.split(array) for name, array in optimizer_state.items()}
        if RAW in optimizer_state:  # together with the averaged weights that they belong to
            arrays[_AVERAGED] = p.split(p.packed(self.backend.to_host(p.learned)))
        self.model.optimizer_memory = Memory(self.options.optimizer.identity, self.optimizer.first, arrays)

    def _optimizer_state(self) -> Arrays:
        """Copy the optimizer's state to the host, packed; with averaged weights, the raw ones too."""
        packed = self.model.parameters.packed
        held = {name: packed(self.backend.to_host(array)) for name, array in self.optimizer.state.items()}
        return held if self.average is None else {**held, RAW: self.average.raw()}

    def _raw_of(self, memory: Memory) -> NDArray[Any] | None:
        """Return the raw weights that belong to the network's averaged ones; None if its weights have changed since."""
        p = self.model.parameters
        if RAW not in memory.arrays or _AVERAGED not in memory.arrays:
            return None
        raw, averaged = (p.join(memory.arrays[name]) for name in (RAW, _AVERAGED))
        return raw if np.array_equal(averaged, p.packed(self.backend.to_host(p.learned))) else None

    def _arrays(self) -> Arrays:
        """Copy parameters and statistics to the host, with the averaged weights if there are any."""
        arrays = self.model.arrays()
        return arrays if self.average is None else arrays | self.average.to_host()

    def averaged(self) -> AbstractContextManager[None]:
        """Lend the network the averaged weights, if there are any."""
        return nullcontext() if self.average is None else self.average.applied()

    def _trained_at(self, step: int) -> Trained:
        """Count the network's epochs and steps of all trainings after a step of this one."""
        epochs, steps = self._count_from
        return epochs - (-step // self.steps_per_epoch), steps + step

    def loops(self) -> AbstractContextManager[None]:
        """Choose NumPy or Numba for the kernels on the host by the size of this training."""
        features = max(map(prod, (self.model.input_shape, *self.model.shapes)))
        return numba_loops.for_training(self.steps, features * self._own_batch * np.dtype(self.model.dtype).itemsize)

    def do_steps(self, count: int = 1, compute: Callable[[int], None] | None = None) -> int:
        """Do the next steps of an epoch, by `compute` or the step itself, and return the number of their samples."""
        epoch, number = divmod(self.done, self.steps_per_epoch)
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
        """Give the step the order and learning rates of an epoch, from its step `number` on."""
        self._epoch, options, steps = epoch, self.options, self.steps_per_epoch
        order = self.orders.of(self._count_from[0] + epoch)
        schedule = self.optimizer.schedule.for_epochs_of(steps)
        self._rates = schedule.rates(epoch + np.arange(steps) / steps, options.epochs)
        self.step.start_epoch(order, self._rates, number)
        if not self._is_host and epoch + 1 < options.epochs:  # a CPU has no core to spare
            self.orders.draw_ahead(self._count_from[0] + epoch + 1)

    @property
    def learning_rate(self) -> float:
        """Learning rate of the last step; before the first step, of the first."""
        steps = self.steps_per_epoch
        epoch, number = divmod(max(self.done - 1, 0), steps)
        schedule = self.optimizer.schedule.for_epochs_of(steps)
        at = np.array([epoch + number / steps])
        return float(schedule.rates(at, self.options.epochs)[0])

    def _rate(self) -> float:
        """Return the learning rate of the last step, within the current epoch."""
        return float(self._rates[(self.done - 1) % self.steps_per_epoch])

    def _warm_up(self) -> None:
        """Launch every kernel of steps and records once; see `Backend.compile_ahead`."""
        for n in sizes_of(len(self.data.train), self.batch_size):
            self.step.compute(n)
        if self._validation is not None:
            self._validation.batches.start(self.model.capacity)
            self._validation.warm_up(self.model.capacity)

    def _reset_totals(self) -> None:
        """Reset the sums and counts for the next record."""
        self._samples = self._own_samples = 0
        self.backend.assign(self.step.totals, 0.0)
        if self.step.skip is not None:
            self.backend.assign(self.step.skip.counts, 0)

    def check_same_weights(self) -> None:
        """Raise GpunnError, on all ranks, if their weights or statistics differ; all ranks must call it."""
        check_same_weights(self.model, f"after step {self.done}")

    def _weights(self) -> Weights:
        return Weights(self.done, self._arrays(), self._trained_at(self.done))

    def rewind(self) -> None:
        """Return to the last record or restore point; the monitor is not rewound."""
        (weights, optimizer_state), assign = self._rewind_point, self.backend.assign
        self.move_to(weights.step)
        self.model.load_arrays(weights.arrays)
        for name, array in self.optimizer.state.items():
            self.model.parameters.unpack(optimizer_state[name], array)
        if self.average is not None:
            self.average.restore(optimizer_state[RAW])
        self._reset_totals()
        self.done, self._epoch = weights.step, None
        self.model.epochs_trained, self.model.steps_trained = weights.trained
        # `_begin_epoch` sets the step within the epoch.
        assign(self.model.clock[NEXT_COUNT : NEXT_COUNT + 1], self.model.steps_trained)

    def restore_weights(self, weights: Weights) -> None:
        """Restore weights after a cut; if the device fails, rebuild the network on the CPU."""
        model = self.model
        try:
            model.load_arrays(weights.arrays)
        except (RuntimeError, MemoryError):  # DeviceError too; the device's fault is reported elsewhere
            if self._is_host:
                raise
            model.build_with(weights.arrays, model.input_shape, model.batch_size, "cpu", model.dtype, model.seed)
        model.count_on(*weights.trained)
        self.kept, self.is_cut = weights.step, True
        model.optimizer_memory = None
        if weights is self._rewind_point[0] and self._held_at(weights.step) == model.held:
            self._keep_optimizer(self._rewind_point[1])
