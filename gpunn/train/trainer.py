"""Training: epochs of freshly shuffled batches, and what is watched on the way."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from copy import copy
from dataclasses import replace
from math import prod
from typing import NoReturn

import numpy as np
from numpy.typing import ArrayLike

from gpunn.backend.base import Backend
from gpunn.backend.compiling import Compiling
from gpunn.config import as_part
from gpunn.data import Data, Samples
from gpunn.data.augmentation import Augmentation
from gpunn.data.loader import bytes_on_device, checked_place, is_converted, place, sizes_of
from gpunn.data.training_inputs import TrainingInputs, check_seen
from gpunn.errors import DeviceError, DivergenceError, GpunnError, OptionError
from gpunn.kernels import loops
from gpunn.kernels.gather import NEXT_COUNT
from gpunn.kernels.random import epoch_order
from gpunn.nn.arguments import checked_dtype
from gpunn.nn.footprint import UNCOUNTED, require, shortage
from gpunn.nn.losses import Loss
from gpunn.nn.network import Network, bytes_of_network, count_network, fed_shape
from gpunn.nn.parameter import Arrays, Memory
from gpunn.scalars import checked_seed, flag, positive_whole
from gpunn.train.anomaly import first_not_finite
from gpunn.train.arguments import (
    as_data,
    backend_for,
    checked_batch_size,
    checked_patience,
    loss_for,
    note_missing_classes,
)
from gpunn.train.evaluator import (
    Evaluation,
    Evaluator,
    Measure,
    arranged_for,
    check_samples,
    evaluate,
    recompute_statistics,
)
from gpunn.train.finite import FiniteCheck, Skip
from gpunn.train.history import History
from gpunn.train.monitor import COMPARED, EXPLOSION, Monitor, watched
from gpunn.train.optimizers import SGD, Optimizer
from gpunn.train.progress import Progress
from gpunn.train.record import Record
from gpunn.train.regularizers import Regularizer
from gpunn.train.state import State, Trained, Weights
from gpunn.train.step import Step
from gpunn.train.verdict import no_better_than_chance

CHECK_EVERY = 256
"""Steps after which a device is asked whether cost and weights are still finite numbers."""

LOOKS_PER_EPOCH = 4
"""How often the validation set is looked at where nothing else is asked for."""


class Trainer:
    """A training from its first to its last epoch; see `Sequential.fit` for the arguments.

    Attributes:
        done: steps done so far.
        monitor: what the records have shown.
        placement: where the data lie, in words, where that is not the host's memory.
        kept: the step whose weights were put back where training was cut off, 0 for those of the start.
    """

    _began: float | None

    def __init__(
        self,
        model: Network,
        data: Data | Samples | tuple[ArrayLike, ArrayLike] | ArrayLike | None,
        y: ArrayLike | None = None,
        *,
        validation_data: Samples | tuple[ArrayLike, ArrayLike] | None = None,
        loss: Loss | str | None = None,
        optimizer: Optimizer | str | None = None,
        regularizer: Regularizer | None = None,
        epochs: int = 10,
        batch_size: int | None = None,
        device: str | Backend = "auto",
        dtype: str = "float32",
        precision: str = "float32",
        seed: int = 0,
        augmentation: Augmentation | None = None,
        recompute_statistics: bool = False,
        validate_every: int | None = None,
        patience: float | None = None,
        skip_bad_batches: bool = False,
        data_on: str = "auto",
        capture: bool = True,
        progress: bool = True,
    ) -> None:
        seed = checked_seed(seed)
        loss = None if loss is None else as_part("loss", loss)
        self.model, self.data = model, arranged_for(model, as_data(data, y, validation_data, seed, loss, model.layers))
        train = self.data.train
        self.epochs = positive_whole(epochs, "epochs")
        asked, batch_size = batch_size, checked_batch_size(batch_size, len(train), model.layers)
        self.seed, self.patience = seed, checked_patience(patience, self.data)
        self.regularizer: Regularizer | None = None if regularizer is None else as_part("regularizer", regularizer)
        self.loss = loss_for(train, loss, model.layers)
        # Copies of optimizer and loss work in it, so that other trainings may have the same ones meanwhile.
        self._optimizer_of = optimizer.identity if isinstance(optimizer, Optimizer) else repr(optimizer)
        chosen: Optimizer = SGD(0.1, momentum=0.9) if optimizer is None else as_part("optimizer", optimizer)
        self.optimizer = chosen.unbuilt()
        dtype = checked_dtype(dtype)
        backend = backend_for(device, precision, dtype)
        augmentation = None if augmentation is None else as_part("augmentation", augmentation)
        self.recompute_statistics, self.augmentation = flag(recompute_statistics, "recompute_statistics"), augmentation
        skip_bad_batches, capture = flag(skip_bad_batches, "skip_bad_batches"), flag(capture, "capture")
        progress = flag(progress, "progress")
        self.validate_every = None if validate_every is None else positive_whole(validate_every, "validate_every")
        data_on = checked_place(data_on)
        self._memory = (batch_size, backend, dtype, backend.free_bytes(), data_on, skip_bad_batches)
        with self._enough_memory():
            self._require_memory()
            self._build(backend, batch_size, dtype)
            model.loss, model.class_names, model.input_scale = self.loss, self.data.class_names, train.scale
            self._measure = Measure(self.loss, train)
            model.task = self._measure.task
            model.trained_on = TrainingInputs.of(train)
            if self.data.validation is not None:
                model.trained_on.check_samples(self.data.validation)
            self._count_from = model.epochs_trained, model.steps_trained
            self._build_optimizer(self.regularizer)
            later = self._bytes_to_come()
            batches = place(backend, train, dtype, augmentation, seed, data_on, later)
            self.step = Step(model, batches, copy(self.loss), self.optimizer, batch_size, capture)
            backend.assign(model.clock[NEXT_COUNT : NEXT_COUNT + 1], model.steps_trained)
            validation = self.data.validation
            watched = None if validation is None else place(backend, validation, dtype, data_on=data_on, later=later)
            self._validation = None if watched is None else Evaluator(model, watched)
            self.step.reset_totals()
            start = Weights(0, model.arrays(), self._count_from)
            self.monitor = Monitor(start, patience)
            values, totals = model.parameters.values, self.step.totals
            self._is_host = backend.device == "cpu"
            self._finite = FiniteCheck(backend, values, totals)
            if skip_bad_batches:
                changed = [values, *self.optimizer.state.values(), *model.statistics.values(), totals]
                self.step.skip = Skip(backend, changed)
            self._back = start, self._remembered()
        self.placement = batches.placement
        if watched is not None and watched.placement:
            self.placement += f"; for validation {watched.placement}"
        self.progress = Progress(self.epochs, self.step.steps_per_epoch, len(train), progress)
        note_missing_classes(self.data)
        if asked is not None and asked > batch_size:
            self.progress.say(f"batches of {batch_size} samples: a batch size of {asked} is more than there are")
        if validation is not None and validation_data is None and not isinstance(data, Data):
            self.progress.say(
                f"{len(validation):,} of {len(train) + len(validation):,} samples are held back for validation: "
                "validation_data gives others to watch, Data.from_arrays(x, y, validation=0) none"
            )
        self.done = self.kept = self._samples = 0
        self._epoch: int | None = None  # whose order and rates the step has
        self._is_compiled = False
        self._said = {""}  # of what goes more slowly than it could
        self._seconds_before, self._began = 0.0, None

    @property
    def history(self) -> History:
        """What was recorded."""
        return self.monitor.history

    @contextmanager
    def _enough_memory(self) -> Iterator[None]:
        """Say what was needed and what would fit, where memory runs out inside."""
        try:
            yield
        except MemoryError as error:
            batch_size, backend, _, free, *_ = self._memory
            raise shortage(error, self._bytes_for, batch_size, backend, self._bytes_of_data(), free) from None

    def _counted(self, batch_size: int) -> tuple[int, int]:
        """Count the bytes of this training beside its data, for a batch size, and of its largest array."""
        _, backend, dtype, _, _, skips = self._memory
        layers, shape = self.model.layers, fed_shape(self.model.layers, self.data.train.shape)
        nbytes, largest = count_network(layers, shape, batch_size, backend, dtype, None, self.optimizer, skips)
        return nbytes + (UNCOUNTED if backend.device == "cpu" else 0), largest

    def _bytes_for(self, batch_size: int) -> int:
        return self._counted(batch_size)[0]

    def _bytes_of_data(self) -> int:
        """What the data take beside the network: on a device all of them, on the host where they are converted."""
        _, backend, dtype, _, data_on, _ = self._memory
        samples = [s for s in (self.data.train, self.data.validation) if s is not None]
        if backend.device != "cpu":
            return sum(bytes_on_device(s, dtype) for s in samples) if data_on == "device" else 0
        return sum(bytes_on_device(s, dtype) for s in samples if data_on != "host" and is_converted(s, dtype))

    def _bytes_to_come(self) -> int:
        """What the training takes on the device beside the network; its optimizer may have taken its part already."""
        batch_size, backend, dtype, _, _, skips = self._memory
        if backend.device == "cpu":
            return 0
        network = self.model.layers, self.model.input_shape, batch_size, backend, dtype
        return bytes_of_network(*network, None, self.optimizer, skips) - bytes_of_network(*network)

    def _require_memory(self) -> None:
        """Refuse what the host has no memory for, before any is taken."""
        batch_size, backend, *_ = self._memory
        # What it has it keeps, or gives back before it is built again.
        taken = self.model.bytes_for(self.model.batch_size) if self.model.backend is backend else 0
        largest = self._counted(batch_size)[1] if backend.device == "cpu" else 0
        require(self._bytes_for, batch_size, backend, self._bytes_of_data(), taken, largest)

    def _build(self, backend: Backend, batch_size: int, dtype: str) -> None:
        """Build the network, or build it again where it was made for something else."""
        model, train = self.model, self.data.train
        is_new = model.backend is None
        if is_new:
            model.build(fed_shape(model.layers, train.shape), batch_size, backend, dtype, self.seed)
        elif (
            model.backend is not backend or model.dtype != dtype or model.capacity < batch_size or model.is_frozen_anew
        ):
            model.rebuild(batch_size, backend, dtype)
        try:
            check_samples(model, train, self.loss)
            if model.trained_on is None and not model.layers[0].normalizes_batch:
                check_seen(train)
        except GpunnError:
            if is_new:
                model.unbuild()  # the next data may be of another shape
            raise
        if len(model.parameters) and not model.parameters.gradients.size:
            raise OptionError("every layer with weights is frozen: set trainable = True on one of network.layers")

    def _build_optimizer(self, regularizer: Regularizer | None) -> None:
        """Build the optimizer, with what the network keeps of it from the last training."""
        model, memory = self.model, self.model.optimizer_memory
        if memory is None or memory.of != self._optimizer_of:
            memory = Memory(self._optimizer_of, model.steps_trained, {})
        self.optimizer.build(model.parameters, regularizer, len(self.data.train), memory.first)
        for name, array in self.optimizer.state.items():
            if name in memory.arrays:
                model.parameters.backend.assign(array, model.parameters.join(memory.arrays[name]))
        model.optimizer_memory = None  # until this training has ended

    def _keep_optimizer(self, remembered: Arrays) -> None:
        """Let the network keep what its optimizer remembers, for the next training with the same one."""
        split = self.model.parameters.split
        arrays = {name: split(array) for name, array in remembered.items()}
        self.model.optimizer_memory = Memory(self._optimizer_of, self.optimizer.first, arrays)

    def _trained_at(self, step: int) -> Trained:
        """Epochs and steps of the network after so many steps of this training."""
        epochs, steps = self._count_from
        return epochs - (-step // self.step.steps_per_epoch), steps + step

    @property
    def steps(self) -> int:
        """Of the whole training."""
        return self.epochs * self.step.steps_per_epoch

    def loops(self) -> AbstractContextManager[None]:
        """Within, twins are taken as this training takes them: NumPy's passes or Numba's loops."""
        model = self.model
        features = max(map(prod, (model.input_shape, *model.shapes)))
        largest = features * self.step.batch_size * np.dtype(model.dtype).itemsize
        return loops.for_training(self.steps, largest)

    def run(self, after_step: Callable[[], None] | None = None) -> History:
        """Train to the end, or until patience runs out, and leave the network as it is to be used.

        Args:
            after_step: called between steps, where `state` is whole; whatever it raises ends the training there.

        Raises:
            KeyboardInterrupt: with the weights of the last record put back. In a notebook or at a prompt the history
                so far is returned instead.
            DeviceError: the device failed; where it is lost to this process, the weights of the last record are kept
                on the CPU.
        """
        try:
            self.train(after_step)
        except KeyboardInterrupt:
            self.put_back(self.monitor.last)
            self.history.stopped = "interrupted"
            if not hasattr(sys, "ps1"):  # a script is to end; who sits before a prompt wants to see what there is
                raise
            return self.history
        except DeviceError as error:
            if error.is_sticky:
                self.put_back(self.monitor.last)
            raise
        self.finish()
        if line := self.verdict():
            self.progress.say(line)
        return self.history

    def train(self, after_step: Callable[[], None] | None = None) -> None:
        """Train to the end, or until patience runs out; see `run`."""
        self._began = time.perf_counter()
        try:
            # What leaves the finite numbers is said in one line by the checks below, not by warnings on the way.
            quiet = np.errstate(over="ignore", divide="ignore", invalid="ignore")
            with quiet, self._enough_memory(), self.loops():
                while self.done < self.steps and not self.history.stopped:
                    self._run_epoch(after_step or (lambda: None))
        finally:
            self._seconds_before = self._seconds()
            self._began = None
            self.progress.close()
            self.model.parameters.keep_gradients()  # for a `backward` by hand, which must not change the weights

    def finish(self) -> None:
        """Put back the best weights where patience asked for them, and let BatchNorm remember what it should."""
        best = self.monitor.best
        self._keep_optimizer(self._remembered())
        self.model.count_on(*self._trained_at(self.done))  # for steps by hand, too
        if self.patience is not None and best is not None and best.step != self.history[-1].step:
            self.put_back(best)
            self.progress.say(f"the weights of step {best.step} are put back: validation cost was lowest there")
        if self.recompute_statistics:
            recompute_statistics(self.model, self.data.train)

    def verdict(self) -> str:
        """Whether the network does no better than chance, and why that may be; "" where it does better."""
        record = self.history.best if self.patience is not None or not len(self.history) else self.history[-1]
        if record is None:
            return ""
        outputs = prod(self.model.output_shape)
        return no_better_than_chance(self.data, self.loss, record, self.optimizer.schedule.given, outputs)

    def _run_epoch(self, after_step: Callable[[], None]) -> None:
        """An epoch, or what is left of it."""
        steps = self.step.steps_per_epoch
        epoch, first = divmod(self.done, steps)
        self.progress.start_epoch(epoch, first * self.step.batch_size)
        while self.done < (epoch + 1) * steps and not self.history.stopped:
            n = self.do_steps(1 if self._is_host else self._steps_at_once())
            # To look at a device is to wait for it.
            if self._is_host or self.done % CHECK_EVERY == 0:
                self.check_numbers()
            if self.monitor.untrained_cost is None:
                self._see_untrained_cost()
            for trouble in sorted({self.step.trouble, self.step.batches.trouble} - self._said):
                self._said.add(trouble)
                self.progress.say(trouble)
            self.progress.step(n, self._figures)
            if self._is_time_to_look(self.done):
                self._look()
            after_step()
        self.progress.end_epoch(self.history[-1] if self.history else None)

    def do_steps(self, count: int = 1, compute: Callable[[int], None] | None = None) -> int:
        """Do the next steps of an epoch, and begin it where that has not been done.

        Args:
            count: how many; no more than the epoch has left.
            compute: what does one, for a number of samples; left out, the step itself.

        Returns:
            How many samples they were of.
        """
        step, train = self.step, self.data.train
        steps, size = step.steps_per_epoch, step.batch_size
        epoch, number = divmod(self.done, steps)
        if epoch != self._epoch:
            self._epoch = epoch
            self._rates = self.optimizer.schedule.rates(epoch + np.arange(steps) / steps, self.epochs)
            step.start_epoch(
                epoch_order(len(train), seed=self.seed, epoch=self._count_from[0] + epoch), self._rates, number
            )
            if not self._is_compiled:
                self._is_compiled = True
                with Compiling(self.progress.shown) as show:
                    step.backend.compile_ahead(self._rehearse, show)
        n = min(count * size, len(train) - number * size)
        if compute is None:
            step(n)
        else:
            compute(n)
            step.batches.given(n)
        self.done += count
        self.model.epochs_trained, self.model.steps_trained = self._trained_at(self.done)
        self._samples += n
        return n

    def _rehearse(self) -> None:
        """Compute what steps and looks at the network are made of; see `Backend.compile_ahead`."""
        for n in sizes_of(len(self.data.train), self.step.batch_size):
            self.step.compute(n)
        if self._validation is not None:
            self._validation.batches.start(self.model.capacity)
            self._validation.rehearse(self.model.capacity)

    def _steps_at_once(self) -> int:
        """How many steps from here on a device may be given without anything to be done between them."""
        step = self.step
        if self.monitor.untrained_cost is None:
            return 1
        most = min(step.steps_per_graph, step.steps_per_epoch - self.done % step.steps_per_epoch)
        return next((count for count in range(1, most) if self._is_time_to_stop(self.done + count)), most)

    def _is_time_to_stop(self, done: int) -> bool:
        """Whether the network is looked at, or its numbers, after so many steps."""
        return done % CHECK_EVERY == 0 or self._is_time_to_look(done)

    def check_numbers(self) -> None:
        """See whether cost and weights are finite; waits for the device.

        Raises:
            DivergenceError: they are not, and such steps are not to be skipped.
        """
        if self.step.skip is None:
            if not self._finite.cost():
                self._diverged("the cost is no longer a finite number")
            if not self._finite.weights():
                self._diverged("the weights are no longer finite numbers")

    def _see_untrained_cost(self) -> None:
        cost = self._figures().loss
        if math.isfinite(cost):
            self.monitor.untrained_cost = cost
        elif self.step.skip is None:
            self._diverged("the cost is no longer a finite number")

    def _is_time_to_look(self, done: int) -> bool:
        """Whether a record is due after so many steps."""
        steps = self.step.steps_per_epoch
        if self.validate_every is not None:
            return done % self.validate_every == 0 or done == steps * self.epochs
        number = (done - 1) % steps
        return LOOKS_PER_EPOCH * (number + 1) // steps > LOOKS_PER_EPOCH * number // steps

    def _figures(self) -> Evaluation:
        """The figures of the training samples since the last record, each as it was before its step."""
        return self._measure(*self.step.read_totals(), self._counted_samples())

    def _counted_samples(self) -> int:
        """Samples that the sums since the last record are of."""
        return self._samples if self.step.skip is None else self._samples - self.step.skip.read()[1]

    def _look(self) -> None:
        """Look at the network: record, judge, remember its weights where they are good or best."""
        if not self._counted_samples():
            begin = self._back[0].step
            if self.done - begin >= self.step.steps_per_epoch:
                self._diverged(f"every batch since step {begin} had to be skipped")
            return  # there is no cost to record
        seen, nothing = self._figures(), float("nan")
        validated = self._validation.run() if self._validation else Evaluation(nothing, nothing, 0, 0)
        record = Record(
            step=self.done,
            epoch=self.done / self.step.steps_per_epoch,
            train_loss=seen.loss,
            train_accuracy=seen.accuracy,
            validation_loss=validated.loss,
            validation_accuracy=validated.accuracy,
            learning_rate=self._rate(),
            seconds=self._seconds(),
            train_rmse=seen.rmse,
            train_r2=seen.r2,
            validation_rmse=validated.rmse,
            validation_r2=validated.r2,
            penalty=self._penalty(),
        )
        weights = self._weights()
        trouble = self.monitor.trouble(record, weights)
        if not trouble and self.monitor.is_suspect(record):
            if self._has_exploded(weights):
                trouble = f"the cost has grown to {watched(record):.3g}"
            else:
                self.monitor.forgiven = watched(record)
        if trouble:
            self._diverged(trouble)
        self.progress.look(record)
        for line in self.monitor.add(record, weights):
            self.progress.say(line)
        self._count_skipped()
        self._back = weights, self._remembered()
        self._samples = 0
        self.step.reset_totals()

    def _has_exploded(self, weights: Weights) -> bool:
        """Whether the network does far worse than the untrained one on the same training samples, spread over all."""
        train, model = self.data.train, self.model
        some = train.subset(np.linspace(0, len(train) - 1, min(len(train), COMPARED)).astype(np.int64))
        model.load_arrays(self.monitor.start.arrays)
        untrained = evaluate(model, some).loss
        model.load_arrays(weights.arrays)
        return not evaluate(model, some).loss <= EXPLOSION * max(1.0, untrained)

    def _count_skipped(self) -> None:
        """Say how many batches were skipped since the last record, and count them."""
        if self.step.skip is None:
            return
        batches, _ = self.step.skip.read()
        self.step.skip.reset()
        self.history.skipped += batches
        if batches:
            number = f"{batches} batches" if batches > 1 else "1 batch"
            self.progress.say(f"{number} led to numbers that are not finite: skipped, {self.history.skipped} in all")

    def _rate(self) -> float:
        """The learning rate of the last step."""
        return float(self._rates[(self.done - 1) % self.step.steps_per_epoch])

    def _penalty(self) -> float:
        """λR of (17), with the weights as they are; nan where there is no regularizer."""
        if self.regularizer is None:
            return float("nan")
        p = self.model.parameters
        return self.regularizer.cost(p.backend.to_host(p.values[: p.decayed]), len(self.data.train))

    def _weights(self) -> Weights:
        return Weights(self.done, self.model.arrays(), self._trained_at(self.done))

    def _seconds(self) -> float:
        return self._seconds_before + (0.0 if self._began is None else time.perf_counter() - self._began)

    def state(self) -> State:
        """Everything that the rest of the training depends on; to be asked for between two steps."""
        to_host, monitor = self.step.backend.to_host, self.monitor
        return State(
            now=monitor.last if monitor.last.step == self.done else self._weights(),
            last=monitor.last,
            good=monitor.good,
            best=monitor.best,
            optimizer=self._remembered(),
            totals=to_host(self.step.totals),
            samples=self._counted_samples(),
            records=tuple(self.history),
            stopped=self.history.stopped,
            skipped=self.history.skipped + (0 if self.step.skip is None else self.step.skip.read()[0]),
            untrained_cost=monitor.untrained_cost,
            seconds=self._seconds(),
        )

    def restore(self, state: State) -> None:
        """Go on from a state of the same training, whatever was done before."""
        now, last, good = (replace(w, trained=self._trained_at(w.step)) for w in (state.now, state.last, state.good))
        best = None if state.best is None else replace(state.best, trained=self._trained_at(state.best.step))
        state = replace(state, now=now, last=last, good=good, best=best)
        self._back = now, state.optimizer
        self.go_back()
        self.step.backend.assign(self.step.totals, state.totals)
        self._samples, self._seconds_before = state.samples, state.seconds
        self.monitor.restore(state)

    def go_back(self) -> None:
        """Be where the training was at its last record, or where it was restored; for the watch nothing changes."""
        (weights, remembered), assign = self._back, self.step.backend.assign
        self.model.load_arrays(weights.arrays)
        self.model.epochs_trained, self.model.steps_trained = weights.trained
        for name, array in self.optimizer.state.items():
            assign(array, remembered[name])
        self.step.reset_totals()
        if self.step.skip is not None:
            self.step.skip.reset()
        self.done, self._samples, self._epoch = weights.step, 0, None
        # The place in the epoch is set when the epoch begins.
        assign(self.model.clock[NEXT_COUNT : NEXT_COUNT + 1], self.model.steps_trained)

    def _remembered(self) -> Arrays:
        """Copies of what the optimizer remembers."""
        to_host = self.step.backend.to_host
        return {name: to_host(array) for name, array in self.optimizer.state.items()}

    def put_back(self, weights: Weights) -> None:
        """Leave the network as it was: for a training that was cut off, perhaps in the middle of a step.

        Where its device does not take them any more, it is built again on the CPU.
        """
        model = self.model
        try:
            model.load_arrays(weights.arrays)
        except (RuntimeError, MemoryError):  # DeviceError too: what is wrong with the device has been said, or will be
            if self._is_host:
                raise
            model.build_with(weights.arrays, model.input_shape, model.batch_size, "cpu", model.dtype, model.seed)
        model.count_on(*weights.trained)
        self.kept = weights.step
        self.model.optimizer_memory = None
        if weights is self._back[0]:
            self._keep_optimizer(self._back[1])

    def _diverged(self, what: str) -> NoReturn:
        """End the training with the last good weights, and say what went wrong where."""
        rate, epoch, done = self._rate(), (self.done - 1) // self.step.steps_per_epoch, self.done
        self.progress.close()
        if not what.startswith("the cost has grown"):
            self.progress.say(f"looking for what went wrong: {done - self._back[0].step} steps are done again")
            first = first_not_finite(self)
            what += f"; first was {first}" if first else "; in no step of the training"
        self.done = done
        self.put_back(self.monitor.good)
        kept = f"step {self.kept}" if self.kept else "the start"
        self.history.stopped = what
        # What was set is advised upon, and not what a schedule had made of it at that moment.
        given = self.optimizer.schedule.given
        rate = rate if given is None else given
        raise DivergenceError(
            f"training diverged in epoch {epoch + 1}, step {done}: {what}; the weights of {kept} are kept. "
            f"Try a learning rate below {rate:g}, such as {rate / 2:g}",
            learning_rate=rate / 2,
        )
