"""Training: epochs of freshly shuffled batches, and what is watched on the way."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from gpunn.augmentation import Augmentation
from gpunn.backend import Backend, select
from gpunn.data import Data, Samples
from gpunn.errors import DataError, DivergenceError, GpunnError, OptionError
from gpunn.evaluation import Evaluator
from gpunn.history import History, Record
from gpunn.kernels.batches import NEXT_COUNT
from gpunn.kernels.random import epoch_order
from gpunn.layers import BatchNorm
from gpunn.layers.base import checked_seed, positive_whole
from gpunn.losses import Loss, MeanSquaredError, SoftmaxCrossEntropy
from gpunn.memory import shortage
from gpunn.model import fed_shape
from gpunn.optimizers import SGD, Optimizer
from gpunn.placement import bytes_on_device, place
from gpunn.progress import Progress
from gpunn.regularizers import Regularizer
from gpunn.state import State, Weights
from gpunn.step import Step
from gpunn.watch import Watch

if TYPE_CHECKING:
    from gpunn.model import Sequential

LOOKS_PER_EPOCH = 4
"""How often the validation set is looked at where nothing else is asked for."""


class Trainer:
    """A training from its first to its last epoch; see `Sequential.fit` for the arguments.

    Attributes:
        done: steps done so far.
        watch: what the records have shown.
        placement: where the data lie, in words, where that is not the host's memory.
        kept: the step whose weights were put back where training was cut off, 0 for those of the start.
    """

    _began: float | None

    def __init__(
        self,
        model: Sequential,
        data: Data | Samples | tuple[ArrayLike, ArrayLike],
        *,
        loss: Loss | None = None,
        optimizer: Optimizer | None = None,
        regularizer: Regularizer | None = None,
        epochs: int = 10,
        batch_size: int = 128,
        device: str | Backend = "auto",
        dtype: str = "float32",
        precision: str = "float32",
        seed: int = 0,
        augmentation: Augmentation | None = None,
        recompute_statistics: bool = False,
        validate_every: int | None = None,
        patience: float | None = None,
        data_on: str = "auto",
        capture: bool = True,
        progress: bool = True,
    ) -> None:
        seed = checked_seed(seed)
        self.model, self.data = model, as_data(data, seed)
        train = self.data.train
        self.epochs = positive_whole(epochs, "epochs")
        batch_size = positive_whole(batch_size, "batch size")
        if batch_size > len(train):
            raise OptionError(
                f"a batch of {batch_size} is larger than the {len(train)} training samples: "
                f"take a batch size of at most {len(train)}"
            )
        rest = len(train) % batch_size
        if rest == 1 and any(isinstance(layer, BatchNorm) for layer in model.layers):
            fitting = next(size for size in range(batch_size + 1, len(train) + 1) if len(train) % size != 1)
            raise OptionError(
                f"{len(train)} samples in batches of {batch_size} leave a batch of one, which BatchNorm cannot "
                f"normalise: take a batch size of {fitting}, say"
            )
        if patience is not None and not patience > 0:
            raise OptionError(f"patience must be above 0 epochs, got {patience!r}")
        if patience is not None and self.data.validation is None:
            raise OptionError("patience needs a validation set to watch: load the data with validation=0.1, say")
        self.seed, self.patience = seed, patience
        self.regularizer = regularizer
        self.loss = loss or (SoftmaxCrossEntropy() if train.targets.ndim == 1 else MeanSquaredError())
        if self.loss.takes_labels and train.targets.ndim != 1:
            raise DataError(
                f"{type(self.loss).__name__} needs labels, the data have float targets: take MeanSquaredError"
            )
        self.optimizer = optimizer or SGD(0.1, momentum=0.9)
        backend = device if isinstance(device, Backend) else select(device, precision)
        if backend.precision != "float32" and dtype != "float32":
            raise OptionError(f"precision {backend.precision!r} rounds products of float32, and the dtype is {dtype}")
        self.recompute_statistics, self.augmentation = recompute_statistics, augmentation
        self.validate_every = None if validate_every is None else positive_whole(validate_every, "validate_every")
        self._memory = (batch_size, backend, dtype, backend.free_bytes(), data_on)
        with self._enough_memory():
            self._build(backend, batch_size, dtype)
            model.loss, model.class_names, model.input_scale = self.loss, self.data.class_names, train.scale
            self.optimizer.build(model.parameters, regularizer, len(train))
            batches = place(backend, train, dtype, augmentation, seed, data_on)
            self.step = Step(model, batches, self.loss, self.optimizer, batch_size, capture)
            # Adam counts from its own first step, not from that of an earlier training.
            backend.assign(model.clock, 0)
            validation = self.data.validation
            watched = None if validation is None else place(backend, validation, dtype, data_on=data_on)
            self._validation = None if watched is None else Evaluator(model, watched)
            self.step.reset_totals()
            self.watch = Watch(Weights(0, model.arrays()), patience)
        self.placement = batches.placement
        if watched is not None and watched.placement:
            self.placement += f"; for validation {watched.placement}"
        self.progress = Progress(self.epochs, self.step.steps_per_epoch, len(train), progress)
        self.done = self.kept = self._samples = 0
        self._seconds_before, self._began = 0.0, None

    @property
    def history(self) -> History:
        """What was recorded."""
        return self.watch.history

    @contextmanager
    def _enough_memory(self) -> Iterator[None]:
        """Say what was needed and what would fit, where memory runs out inside."""
        try:
            yield
        except MemoryError as error:
            batch_size, backend, dtype, free, data_on = self._memory
            samples = [s for s in (self.data.train, self.data.validation) if s is not None and data_on == "device"]
            data = sum(bytes_on_device(s, dtype) for s in samples)
            shape = fed_shape(self.model.layers, self.data.train.shape)
            raise shortage(error, self.model.layers, shape, batch_size, backend, dtype, data, free) from None

    def _build(self, backend: Backend, batch_size: int, dtype: str) -> None:
        """Build the network, or build it again where it was made for something else."""
        model, train = self.model, self.data.train
        is_new = model.backend is None
        if is_new:
            model.build(fed_shape(model.layers, train.shape), batch_size, backend, dtype, self.seed)
        elif model.backend is not backend or model.dtype != dtype or model.capacity < batch_size:
            model.rebuild(batch_size, backend, dtype)
        try:
            model.check_samples(train)
        except GpunnError:
            if is_new:
                model.backend = None  # the next data may be of another shape
            raise

    def run(self, after_step: Callable[[], None] | None = None) -> History:
        """Train to the end, or until patience runs out, and leave the network as it is to be used.

        Args:
            after_step: called between steps, where `state` is whole; whatever it raises ends the training there.
        """
        self.train(after_step)
        self.finish()
        return self.history

    def train(self, after_step: Callable[[], None] | None = None) -> None:
        """Train to the end, or until patience runs out; see `run`."""
        self._began = time.perf_counter()
        try:
            # What leaves the finite numbers is said in one line by the checks below, not by warnings on the way.
            with np.errstate(over="ignore", divide="ignore", invalid="ignore"), self._enough_memory():
                while self.done < self.epochs * self.step.steps_per_epoch and not self.history.stopped:
                    self._run_epoch(after_step or (lambda: None))
        finally:
            self._seconds_before = self._seconds()
            self._began = None
            self.progress.close()
            self.model.parameters.keep_gradients()  # for a `backward` by hand, which must not change the weights

    def finish(self) -> None:
        """Put back the best weights where patience asked for them, and let BatchNorm remember what it should."""
        best = self.watch.best
        if self.patience is not None and best is not None and best.step != self.history[-1].step:
            self.model.load_arrays(best.arrays)
            self.progress.say(f"the weights of step {best.step} are put back: validation cost was lowest there")
        if self.recompute_statistics:
            self.model.recompute_statistics(self.data.train)

    def _run_epoch(self, after_step: Callable[[], None]) -> None:
        """An epoch, or what is left of it."""
        step, train = self.step, self.data.train
        steps, size = step.steps_per_epoch, step.batch_size
        epoch, first = divmod(self.done, steps)
        self._rates = self.optimizer.schedule.rates(epoch + np.arange(steps) / steps, self.epochs)
        step.start_epoch(epoch_order(len(train), seed=self.seed, epoch=epoch), self._rates, first)
        self.progress.start_epoch(epoch, first * size)
        is_host = step.backend.device == "cpu"
        for number in range(first, steps):
            n = min(size, len(train) - number * size)
            step(n)
            self._samples += n
            self.done += 1
            if self.watch.untrained_cost is None:
                self.watch.untrained_cost = self._figures()[0]
                if step.trouble:
                    self.progress.say(f"training kernel by kernel, not by graph: {step.trouble}")
            # On the CPU the cost is at hand; on a device to look at it would stop the device, so it is looked at
            # with every record.
            if is_host and not math.isfinite(step.totals[0]):
                self._diverged("the cost is no longer a finite number")
            self.progress.step(n, self._figures)
            if self._is_time_to_look(number):
                self._look()
            after_step()
            if self.history.stopped:
                break
        self.progress.end_epoch(self.history[-1] if self.history else None)

    def _is_time_to_look(self, number: int) -> bool:
        """Whether a record is due after step `number` of the epoch."""
        steps = self.step.steps_per_epoch
        if self.validate_every is not None:
            return self.done % self.validate_every == 0 or self.done == steps * self.epochs
        return LOOKS_PER_EPOCH * (number + 1) // steps > LOOKS_PER_EPOCH * number // steps

    def _figures(self) -> tuple[float, float]:
        """Mean cost and accuracy since the last record."""
        cost, right = self.step.read_totals()
        accuracy = right / self._samples if self.step.batches.has_labels else float("nan")
        return cost / self._samples, accuracy

    def _look(self) -> None:
        """Look at the network: record, judge, remember its weights where they are good or best."""
        cost, accuracy = self._figures()
        validation = self._validation.run() if self._validation else None
        record = Record(
            step=self.done,
            epoch=self.done / self.step.steps_per_epoch,
            train_loss=cost + self._penalty(),
            train_accuracy=accuracy,
            validation_loss=validation.loss if validation else float("nan"),
            validation_accuracy=validation.accuracy if validation else float("nan"),
            learning_rate=self._rate(),
            seconds=self._seconds(),
        )
        weights = self._weights()
        if trouble := self.watch.trouble(record, weights):
            self._diverged(trouble)
        for line in self.watch.add(record, weights):
            self.progress.say(line)
        self._samples = 0
        self.step.reset_totals()

    def _rate(self) -> float:
        """The learning rate of the last step."""
        return float(self._rates[(self.done - 1) % self.step.steps_per_epoch])

    def _penalty(self) -> float:
        """λR of (17), with the weights as they are."""
        if self.regularizer is None:
            return 0.0
        p = self.model.parameters
        return self.regularizer.cost(p.backend.to_host(p.values[: p.decayed]), len(self.data.train))

    def _weights(self) -> Weights:
        return Weights(self.done, self.model.arrays())

    def _seconds(self) -> float:
        return self._seconds_before + (0.0 if self._began is None else time.perf_counter() - self._began)

    def state(self) -> State:
        """Everything that the rest of the training depends on; to be asked for between two steps."""
        to_host, watch = self.step.backend.to_host, self.watch
        return State(
            now=watch.last if watch.last.step == self.done else self._weights(),
            last=watch.last,
            good=watch.good,
            best=watch.best,
            optimizer={name: to_host(array) for name, array in self.optimizer.state.items()},
            totals=to_host(self.step.totals),
            samples=self._samples,
            records=tuple(self.history),
            stopped=self.history.stopped,
            skipped=0,
            untrained_cost=watch.untrained_cost,
            seconds=self._seconds(),
        )

    def restore(self, state: State) -> None:
        """Go on from a state of the same training, whatever was done before."""
        assign = self.step.backend.assign
        self.model.load_arrays(state.now.arrays)
        for name, array in self.optimizer.state.items():
            assign(array, state.optimizer[name])
        assign(self.step.totals, state.totals)
        self.done, self._samples, self._seconds_before = state.now.step, state.samples, state.seconds
        # The place in the epoch is set when the epoch begins.
        assign(self.model.clock[NEXT_COUNT : NEXT_COUNT + 1], self.done)
        self.watch.restore(state)

    def put_back(self, weights: Weights) -> None:
        """Leave the network as it was: for a training that was cut off, perhaps in the middle of a step."""
        self.model.load_arrays(weights.arrays)
        self.kept = weights.step

    def _diverged(self, what: str) -> None:
        self.progress.close()
        self.put_back(self.watch.good)
        kept = f"step {self.kept}" if self.kept else "the start"
        rate, epoch = self._rate(), (self.done - 1) // self.step.steps_per_epoch
        self.history.stopped = what
        raise DivergenceError(
            f"training diverged in epoch {epoch + 1}, step {self.done}: {what}; the weights of {kept} are kept. "
            f"Try a learning rate below {rate:g}, such as {rate / 10:g}"
        )


def as_data(data: Data | Samples | tuple[ArrayLike, ArrayLike], seed: int) -> Data:
    """What `fit` was given, as a data set.

    Raises:
        DataError: nothing that can be trained on.
    """
    if isinstance(data, Data):
        return data
    if isinstance(data, Samples):
        return Data.from_samples(data, seed=seed)
    if isinstance(data, tuple | list) and len(data) == 2:
        return Data.from_arrays(data[0], data[1], seed=seed)
    raise DataError(f"fit takes a data set, samples or (x, y), got {type(data).__name__}: see gpunn.load_data")
