"""Training: epochs of freshly shuffled batches, and what is watched on the way."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from gpunn.augmentation import Augmentation
from gpunn.backend import Backend, select
from gpunn.batches import Batches
from gpunn.data import Data, Samples
from gpunn.errors import DataError, DivergenceError, GpunnError, OptionError
from gpunn.evaluation import Evaluator
from gpunn.history import History, Record
from gpunn.kernels.random import epoch_order
from gpunn.layers import BatchNorm
from gpunn.layers.base import checked_seed, positive_whole
from gpunn.losses import Loss, MeanSquaredError, SoftmaxCrossEntropy
from gpunn.memory import shortage
from gpunn.model import fed_shape
from gpunn.optimizers import SGD, Optimizer
from gpunn.progress import Progress
from gpunn.regularizers import Regularizer
from gpunn.step import Step

if TYPE_CHECKING:
    from gpunn.model import Sequential

EXPLOSION = 100.0
"""How many times the cost of the untrained network, or 1 if that is more, counts as diverged."""


LOOKS_PER_EPOCH = 4
"""How often the validation set is looked at where nothing else is asked for."""


class Trainer:
    """A training from its first to its last epoch; see `Sequential.fit` for the arguments.

    Attributes:
        kept: the step whose weights were put back where training was cut off, 0 for those of the start.
    """

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
        self._memory = (batch_size, backend, dtype, backend.free_bytes())
        with self._enough_memory():
            self._build(backend, batch_size, dtype)
            model.loss, model.class_names, model.input_scale = self.loss, self.data.class_names, train.scale
            self.optimizer.build(model.parameters, regularizer, len(train))
            batches = Batches(backend, train, dtype, augmentation, seed)
            self.step = Step(model, batches, self.loss, self.optimizer, batch_size, capture)
            # Adam counts from its own first step, not from that of an earlier training.
            backend.assign(model.clock, 0)
            validation = self.data.validation
            self._validation = None if validation is None else Evaluator(model, Batches(backend, validation, dtype))
        steps = self.step.steps_per_epoch
        self.history = History()
        self.progress = Progress(self.epochs, steps, len(train), progress)
        self.epoch = 0
        self._seconds_before = 0.0

    @contextmanager
    def _enough_memory(self) -> Iterator[None]:
        """Say what was needed and what would fit, where memory runs out inside."""
        try:
            yield
        except MemoryError as error:
            batch_size, backend, dtype, free = self._memory
            samples = [s for s in (self.data.train, self.data.validation) if s is not None]
            data = sum(s.inputs.nbytes + s.targets.nbytes + 4 * len(s) for s in samples)
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

    def run(self) -> History:
        """Train to the end, or until patience runs out."""
        self._began = time.perf_counter()
        self._good = self._last = self._weights()
        self._good_step = self._last_step = self.kept = 0
        self._best: tuple[Record, Any] | None = None
        self._samples = 0
        self.step.reset_totals()
        try:
            # What leaves the finite numbers is said in one line by the checks below, not by warnings on the way.
            with np.errstate(over="ignore", divide="ignore", invalid="ignore"), self._enough_memory():
                while self.epoch < self.epochs and not self.history.stopped:
                    self._run_epoch()
                    self.epoch += 1
        finally:
            self.progress.close()
            self.model.parameters.keep_gradients()  # for a `backward` by hand, which must not change the weights
        if self.patience is not None and self._best is not None:
            record, weights = self._best
            if record is not self.history[-1]:
                self._put_back(weights)
                self.progress.say(f"the weights of step {record.step} are put back: validation cost was lowest there")
        if self.recompute_statistics:
            self.model.recompute_statistics(self.data.train)
        return self.history

    def _run_epoch(self) -> None:
        step, train = self.step, self.data.train
        steps, size = step.steps_per_epoch, step.batch_size
        begun = self.epoch + np.arange(steps) / steps
        self._rates = self.optimizer.schedule.rates(begun, self.epochs)
        step.start_epoch(epoch_order(len(train), seed=self.seed, epoch=self.epoch), self._rates)
        self.progress.start_epoch(self.epoch)
        is_host = step.backend.device == "cpu"
        for number in range(steps):
            n = min(size, len(train) - number * size)
            step(n)
            self._samples += n
            if number == self.epoch == 0:
                self._untrained_cost = self._figures()[0]
                if step.trouble:
                    self.progress.say(f"training kernel by kernel, not by graph: {step.trouble}")
            # On the CPU the cost is at hand; on a device to look at it would stop the device, so it is looked at
            # with every record.
            if is_host and not math.isfinite(step.totals[0]):
                self._diverged(number, "the cost is no longer a finite number")
            self.progress.step(n, self._figures)
            done = self.epoch * steps + number + 1
            if self._is_time_to_look(number, done):
                self._look(number, done)
                if self.history.stopped:
                    break
        self.progress.end_epoch(self.history[-1] if self.history else None)

    def _is_time_to_look(self, number: int, done: int) -> bool:
        """Whether a record is due after step `number` of the epoch, the `done`-th in all."""
        steps = self.step.steps_per_epoch
        if self.validate_every is not None:
            return done % self.validate_every == 0 or done == steps * self.epochs
        return LOOKS_PER_EPOCH * (number + 1) // steps > LOOKS_PER_EPOCH * number // steps

    def _figures(self) -> tuple[float, float]:
        """Mean cost and accuracy since the last record."""
        cost, right = self.step.read_totals()
        accuracy = right / self._samples if self.step.batches.has_labels else float("nan")
        return cost / self._samples, accuracy

    def _look(self, number: int, done: int) -> None:
        """Look at the network: record, judge, remember its weights where they are good or best."""
        cost, accuracy = self._figures()
        cost += self._penalty()
        validation = self._validation.run() if self._validation else None
        watched = validation.loss if validation else cost
        record = Record(
            step=done,
            epoch=done / self.step.steps_per_epoch,
            train_loss=cost,
            train_accuracy=accuracy,
            validation_loss=validation.loss if validation else float("nan"),
            validation_accuracy=validation.accuracy if validation else float("nan"),
            learning_rate=float(self._rates[number]),
            seconds=self._seconds_before + time.perf_counter() - self._began,
        )
        if not math.isfinite(cost) or not math.isfinite(watched):
            self._diverged(number, "the cost is no longer a finite number")
        if watched > EXPLOSION * max(1.0, self._untrained_cost):
            self._diverged(number, f"the cost has grown to {watched:.3g}")
        weights = self._weights()
        if validation is None and not np.isfinite(weights[0]).all():
            self._diverged(number, "the weights are no longer finite numbers")
        since = self.history.append(record)
        if since is not None:
            self.progress.say(
                f"overfitting (high variance) since step {since.step}, epoch {since.epoch:.1f}: the training cost "
                "still falls, the validation cost no longer does"
            )
        # A validation cost judges the weights as they are; the training cost is from before the last update.
        good = (weights, done) if validation else (self._last, self._last_step)
        (self._good, self._good_step), self._last, self._last_step = good, weights, done
        if self._best is None or watched < self._watched(self._best[0]):
            self._best = record, weights
        elif self.patience is not None and record.epoch - self._best[0].epoch >= self.patience:
            self.history.stopped = f"no better validation cost for {self.patience:g} epochs"
            self.progress.say(f"stopped: {self.history.stopped}")
        self._samples = 0
        self.step.reset_totals()

    @staticmethod
    def _watched(record: Record) -> float:
        return record.train_loss if math.isnan(record.validation_loss) else record.validation_loss

    def _penalty(self) -> float:
        """λR of (17), with the weights as they are."""
        if self.regularizer is None:
            return 0.0
        p = self.model.parameters
        return self.regularizer.cost(p.backend.to_host(p.values[: p.decayed]), len(self.data.train))

    def _weights(self) -> tuple[Any, dict[str, Any]]:
        """Copies of the parameters and of what BatchNorm remembers."""
        model, to_host = self.model, self.step.backend.to_host
        return to_host(model.parameters.values), {name: to_host(a) for name, a in model.statistics.items()}

    def _put_back(self, weights: tuple[Any, dict[str, Any]]) -> None:
        model, assign = self.model, self.step.backend.assign
        values, statistics = weights
        assign(model.parameters.values, values)
        for name, remembered in statistics.items():
            assign(model.statistics[name], remembered)

    def put_back_good(self) -> None:
        """Put back the weights of the last record: those of a training that is cut off in the middle of a step."""
        self._put_back(self._last)
        self.kept = self._last_step

    def _diverged(self, number: int, what: str) -> None:
        self.progress.close()
        self._put_back(self._good)
        self.kept = self._good_step
        kept = f"step {self.kept}" if self.kept else "the start"
        rate = self._rates[number]
        self.history.stopped = what
        raise DivergenceError(
            f"training diverged in epoch {self.epoch + 1}, step {self.epoch * self.step.steps_per_epoch + number + 1}: "
            f"{what}; the weights of {kept} are kept. Try a learning rate below {rate:g}, such as {rate / 10:g}"
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
