"""Train a network epoch by epoch, with records and callbacks, and keep good weights at the end."""

import math
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike

from gpunn.backend.base import Backend
from gpunn.backend.compiling import CompileProgress
from gpunn.backend.devices import select
from gpunn.backend.ranks import world
from gpunn.data import Data
from gpunn.errors import DeviceError, DivergenceError, OptionError
from gpunn.nn.network import Network
from gpunn.nn.parameter import Arrays
from gpunn.train.anomaly import first_not_finite
from gpunn.train.arguments import TrainOptions, data_for, note_missing_classes
from gpunn.train.callback_list import Callbacks
from gpunn.train.callbacks import Callback, TrainingView
from gpunn.train.default_callbacks import all_callbacks, early_stopping
from gpunn.train.distributed import check_same_data, check_same_devices, first_text
from gpunn.train.evaluator import evaluate, recompute_statistics
from gpunn.train.gradients import evenly_spaced
from gpunn.train.history import History
from gpunn.train.monitor import BAD_LOSS, GROWN, no_better_than_chance
from gpunn.train.record import Record, Weights
from gpunn.train.recording import MOST_COPIED, RecordingTraining

CHECK_EVERY = 256  # steps between checks of a device's loss and weights for NaN and Inf
RECORDS_PER_EPOCH = 4  # default of `validate_every`
_IN_TRAINING: set[int] = set()  # `id` of each network in training
COMPARED = 1024  # training samples on which a network with a suspicious loss is compared with the untrained one


class Trainer(RecordingTraining):
    """Run a training from its first to its last epoch; see `Sequential.fit` for the arguments."""

    def __init__(
        self,
        model: Network,
        options: TrainOptions,
        data: Any,
        y: ArrayLike | None = None,
        validation_data: Any = None,
        sample_weight: ArrayLike | None = None,
    ) -> None:
        if id(model) in _IN_TRAINING:
            raise OptionError("this network is in training: a callback may train a copy of it, copy.deepcopy(network)")
        given, options = data_for(model, options, data, y, validation_data, sample_weight)
        train, validation = given.train, given.validation
        check_same_data(given, world())
        stopping = early_stopping(options)
        if stopping.needs_validation and validation is None:
            raise OptionError("patience needs a validation set to watch: load the data with validation=0.1, say")
        backend = options.device if isinstance(options.device, Backend) else select(options.device, options.precision)
        check_same_devices(backend.device, world())
        if (precision := backend.precision) != "float32" and options.dtype != "float32":
            raise OptionError(f"precision {precision!r} rounds products of float32, and the dtype is {options.dtype}")
        self.stopping, self.restores_best = stopping, False
        self.callbacks = Callbacks(all_callbacks(options, stopping), TrainingView(self))
        self.exits = ExitStack()  # resources of callbacks, released at the end even after an error
        self.folder: Path | None = None  # folder of checkpoints and other files of the training
        self.resumed_from: int | None = None  # step of the checkpoint to resume from
        super().__init__(model, given, options, backend)
        if not (model.epochs_trained and model.class_names == given.class_names):  # a missing class was never learned
            note_missing_classes(self.data)
        if options.batch_size is not None and options.batch_size > self.batch_size:
            more = f"a batch size of {options.batch_size} is more than there are"
            self.say(f"batches of {self.batch_size} samples: {more}")
        if validation is not None and validation_data is None and not isinstance(data, Data):
            held = f"{len(validation):,} of {len(train) + len(validation):,} samples are held back for validation"
            mend = "pass others as validation_data, or none by Data.from_arrays(x, y, validation=0)"
            self.say(f"{held}: {mend}")
        if options.average is not None and self.steps * (1 - options.average) < 1:
            far = f"average {options.average:g} looks back over {1 / (1 - options.average):,.0f} steps"
            better = f"{max(0.5, 1 - 10 / self.steps):.2g}"
            self.say(f"{far}, and the training has {self.steps:,}: {better} lags less")
        self._is_compiled, self._said = False, {""}  # messages about slower paths, each shown once

    def say(self, text: str) -> None:
        """Show a message above the progress bar."""
        for display in self.callbacks.displays:
            display.say(text)

    def stop(self, why: str) -> None:
        """Stop the training after this step, unless it is stopped already."""
        if not self.history.stopped:
            self.history.stopped = why
            self.say(f"stopped: {why}")

    def run(self) -> History:
        """Train to the end, an interrupt or a lost device, and leave the network ready for use."""
        try:
            self.train()
        except KeyboardInterrupt:
            self.restore_weights(self.monitor.last)
            self.history.stopped = "interrupted"
            if not hasattr(sys, "ps1"):  # end a script, but at a prompt return the history
                raise
            self.callbacks.call(Callback.on_train_end)
            return self.history
        except SystemExit as error:  # no exception hook sees it, and the other ranks wait
            self.ranks.fail(f"SystemExit: {error}")
            raise
        except Exception as error:
            is_lost = isinstance(error, DeviceError) and error.is_sticky
            if not self.is_cut and (is_lost or not self._is_own(error)):
                self.restore_weights(self.monitor.last)
            if not self._is_own(error) and not self.history.stopped:
                self.history.stopped = f"{type(error).__name__}: {error}"
            raise
        finally:
            self.model.held = frozenset()
        self.finish()
        if line := self.verdict():
            self.say(line)
        self.callbacks.call(Callback.on_train_end)
        return self.history

    def train(self) -> None:
        """Train to the end, or until a callback stops the training."""
        self._began = time.perf_counter()
        _IN_TRAINING.add(id(self.model))
        try:
            # The checks below report NaN and Inf in one line, without NumPy's warnings.
            with np.errstate(over="ignore", divide="ignore", invalid="ignore"), self.enough_memory(), self.loops():
                self.check_same_weights()
                self.callbacks.call(Callback.on_train_begin)
                while self.done < self.steps and not self.history.stopped:
                    self._run_epoch()
                self.settle()
        finally:
            self._drop_pending()
            _IN_TRAINING.discard(id(self.model))
            self._seconds_before, self._began = self._seconds(), None
            self.orders.close()
            self._close_displays()
            if self.average is not None and not self.is_cut:
                with suppress(RuntimeError, MemoryError):  # on a lost device; `restore_weights` then has the weights
                    self.average.apply()
            self.model.parameters.keep_gradients()  # a later `backward` by hand must not change the weights
            self.exits.close()

    def _close_displays(self) -> None:
        for display in self.callbacks.displays:
            display.close()

    def finish(self) -> None:
        """Restore the best weights for `EarlyStopping`, and recompute statistics, if the options ask for it."""
        best = self.monitor.best
        self._keep_optimizer(self._optimizer_state())
        self.model.count_on(*self._trained_at(self.done))  # for later steps by hand
        # Layers frozen all the time keep their statistics.
        self.model.held = self.held if self.options.freeze >= self.options.epochs else frozenset()
        if self.restores_best and best is not None and best.step != self.history[-1].step:
            self.restore_weights(best)
            self.say(f"the weights of step {best.step} are put back: {self.stopping.was_best} there")
        if self.options.recompute_statistics:
            recompute_statistics(self.model, self.data.train)
        self.model.held = frozenset()

    def verdict(self) -> str:
        """Say why the network does no better than chance; "" if it does better."""
        history, rate, outputs = self.history, self.optimizer.schedule.given, math.prod(self.model.output_shape)
        record = self.stopping.best if self.restores_best or not history else history[-1]
        # Class weights change the training loss, but not that of the validation samples.
        validation = self.data.validation if self.options.class_weight is None else None
        return no_better_than_chance(self.samples, validation, self.loss, record, rate, outputs) if record else ""

    def _is_own(self, error: Exception) -> bool:
        return error is not self.callbacks.failure

    def _own_metrics(self) -> dict[str, float]:
        with self.callbacks.watched():  # a metric is the user's code, like a callback
            return super()._own_metrics()

    def _run_epoch(self) -> None:
        """Train for an epoch, or for the rest of one."""
        steps = self.steps_per_epoch
        epoch = self.done // steps
        if self.held and self.done == self.unfreeze_step:
            self.say(f"from epoch {epoch + 1} on all layers learn")
        while self.done < (epoch + 1) * steps and not self.history.stopped:
            self.do_steps(1 if self._is_host else self._steps_at_once())
            if self._is_host or self.done % CHECK_EVERY == 0:
                self._check_numbers_soon()
            if self.done == self.unfreeze_step and self.held:
                self._unfreeze()
            if self.monitor.untrained_loss is None:
                self._keep_first_loss()
            for trouble in sorted({self.step.trouble, self.step.batches.trouble} - self._said):
                self._said.add(trouble)
                self.say(trouble)
            if self._is_time_to_record(self.done):
                with self.averaged():
                    self._record()
            if self.done % steps == 0:
                with self.averaged():
                    self.callbacks.call(Callback.on_epoch_end)
            self.callbacks.after_steps(self.done)

    def _keep_first_loss(self) -> None:
        """Keep the loss of the first batch that has one, to compare later losses with."""
        seen = self._evaluation()
        if seen.total and math.isfinite(seen.loss):
            self.monitor.untrained_loss = seen.loss
        elif seen.total and self.step.skip is None:
            self._diverged(BAD_LOSS)

    def _unfreeze(self) -> None:
        """Unfreeze all layers from the next step on."""
        self.check_numbers()  # so that no rewind goes back before this step
        self.move_to(self.done)
        self._rewind_point, self._is_compiled = (self._weights(), self._optimizer_state()), False

    def prepare(self, backend: Backend) -> None:
        """Allocate everything on a device, or on the CPU if a compiler fails and the device is "auto"."""
        memory = self.model.optimizer_memory
        try:
            super().prepare(backend)
        except DeviceError as error:
            cpu = self._cpu_instead(error)
            self.model.optimizer_memory = memory
            super().prepare(cpu)

    def _cpu_instead(self, error: DeviceError) -> Backend:
        """Return the CPU, and say why the training moves there; raise the error if the options rule that out."""
        options = self.options
        is_left_open = options.device == "auto" and options.precision == "float32" and self.ranks.size == 1
        if self._is_host or not is_left_open or error.is_sticky:
            raise error
        self.say(f"going on with the CPU: {error}")
        cpu = select("cpu")
        cpu.reason = f"no CUDA: {error}"
        return cpu

    def _begin_epoch(self, epoch: int, number: int) -> None:
        super()._begin_epoch(epoch, number)
        if self._is_compiled:
            return
        self._is_compiled = True
        try:
            with CompileProgress(any(display.is_shown for display in self.callbacks.displays)) as show:
                self.backend.compile_ahead(self._warm_up, show)
        except DeviceError as error:
            cpu, state = self._cpu_instead(error), self.state()
            self._keep_optimizer(state.optimizer)
            self.model.epochs_trained, self.model.steps_trained = self._count_from  # where this training began
            self.prepare(cpu)
            self.restore(state)
            self._begin_epoch(epoch, number)

    def _steps_at_once(self) -> int:
        """Count the steps until the next record, check or callback, up to the steps of a graph."""
        steps = self.steps_per_epoch
        if self.monitor.untrained_loss is None:
            return 1
        last = self.done + min(self.step.steps_per_graph, steps - self.done % steps)
        is_due = self.callbacks.is_due
        stops = (
            n for n in range(self.done + 1, last) if not n % CHECK_EVERY or self._is_time_to_record(n) or is_due(n)
        )
        return next(stops, last) - self.done

    def _is_time_to_record(self, done: int) -> bool:
        """Return whether a record is due after `done` steps."""
        steps, every = self.steps_per_epoch, self.options.validate_every
        if every is not None:
            return done % every == 0 or done == self.steps
        return RECORDS_PER_EPOCH * done // steps > RECORDS_PER_EPOCH * (done - 1) // steps

    def _record(self) -> None:
        """Make a record, judge it and keep its weights; or start a pending record."""
        self.settle()
        if self._is_judged_later():
            record_of_now = self._begin_record()
            self._pending = self.done, lambda: self._judge(*record_of_now())
            return
        skipped, samples = self._skipped()
        if samples == self._samples:
            begin = self._rewind_point[0].step
            if self.done - begin >= self.steps_per_epoch:
                self._diverged(f"every batch since step {begin} had to be skipped")
            return  # there is no loss to record
        train = self._evaluation()
        if not train.total:
            return  # samples of weight 0 have no loss either
        record, weights, optimizer_state = self._measured(train), self._weights(), self._optimizer_state()
        self._reset_totals()
        self._judge(record, weights, optimizer_state, skipped)

    def _is_judged_later(self) -> bool:
        """Return whether a record may stay pending, because nothing waits for it.

        A record is judged at once on a CPU, on several ranks, with a validation set, averaged weights, skipped batches
        or weighted samples, for large networks, and after the last step. It is judged at once, too, for a callback with
        `on_record`, which may stop the training; of gpunn's callbacks, those that only write or show can wait.
        """
        has_more = self._validation or self.average or self.step.skip or self.samples.weights is not None
        is_plain = not (self._is_host or has_more) and self.ranks.size == 1 and self._copied_bytes <= MOST_COPIED
        return is_plain and self.done < self.steps and not self.callbacks.wait_for_records

    def _judge(self, record: Record, weights: Weights, optimizer_state: Arrays, skipped: int = 0) -> None:
        """End the training if a record shows divergence; else keep it, and call the callbacks."""
        if trouble := first_text(self.ranks, self.monitor.trouble(record, weights, self._loss_of)):
            self._diverged(trouble)
        self.monitor.add(record, weights)
        if skipped:
            self.history.skipped += skipped
            number = f"{skipped} batches" if skipped > 1 else "1 batch"
            self.say(f"{number} led to NaN or Inf: skipped, {self.history.skipped} in all")
        self._rewind_point = weights, optimizer_state
        self.callbacks.call(Callback.on_record, record)

    def check_numbers(self) -> None:
        """Raise DivergenceError for NaN or Inf in loss or weights, unless these are skipped; waits for the device."""
        self.settle()
        if self.step.skip is None:
            self._finite.begin()
            self._judge_numbers()

    def _check_numbers_soon(self) -> None:
        """Check the numbers: on a CPU and on several ranks, which exchange the result, at once; on a device later."""
        if self._is_host or self.ranks.size > 1:
            self.check_numbers()
        elif self.step.skip is None:
            self.settle()
            self._finite.begin()
            self._pending = self.done, self._judge_numbers

    def _judge_numbers(self) -> None:
        if trouble := self._finite.trouble():
            self._diverged(trouble)

    def _loss_of(self, arrays: Arrays) -> float:
        """Evaluate the loss of other weights on evenly spaced training samples, then restore the network's own."""
        now = self.model.arrays()
        try:
            self.model.load_arrays(arrays)
            return evaluate(self.model, evenly_spaced(self.samples, COMPARED)).loss
        finally:
            self.model.load_arrays(now)

    def _diverged(self, why: str) -> NoReturn:
        """End the training with the last good weights; raise DivergenceError with the first fault and a mend."""
        # The advice is about the rate that the user set, not about the schedule's rate at this step.
        given, epoch, done = self.optimizer.schedule.given, (self.done - 1) // self.steps_per_epoch, self.done
        rate = self._rate() if given is None else given
        self._close_displays()
        if not why.startswith(GROWN):
            self.say(f"looking for what went wrong: {done - self._rewind_point[0].step} steps are done again")
            first = first_not_finite(self)
            why += f"; first was {first}" if first else "; in no step of the training"
        self.done = done
        self.restore_weights(self.monitor.good)
        self.history.stopped = why
        kept = f"step {self.kept}" if self.kept else "the start"
        why = f"training diverged in epoch {epoch + 1}, step {done}: {why}; the weights of {kept} are kept"
        raise DivergenceError(f"{why}. Try a learning rate below {rate:g}, such as {rate / 2:g}", rate / 2)
