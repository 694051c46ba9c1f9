"""The host beside the device: orders drawn ahead, looks judged later, few replays; and all numbers as they were."""

import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.checkpoint_helpers import outcome
from support.harness import one_line

import gpunn as gn
from gpunn.backend.devices import select
from gpunn.errors import DivergenceError
from gpunn.kernels import registry
from gpunn.kernels.random import epoch_order
from gpunn.train import orders
from gpunn.train import trainer as module
from gpunn.train.arguments import TrainOptions
from gpunn.train.callbacks import LambdaCallback
from gpunn.train.monitor import Monitor
from gpunn.train.record import State
from gpunn.train.trainer import Trainer
from simulated_cuda.core import AT_ONCE, LATE, Core
from simulated_cuda.test_reliability import with_overflow

EVERY_ORDER = pytest.mark.parametrize("order", [AT_ONCE, LATE, 7])


class Quiet(LambdaCallback):
    """A callback that is called before looks are judged, as those of gpunn that only write or say."""

    _waits = False


def data(samples: int = 120, validation: float = 0) -> gn.Data:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 3, samples)
    x = rng.normal(size=(samples, 5)) + labels[:, None]
    return gn.Data.from_arrays(x.astype(np.float32), labels, validation=validation)


def trainer(device: str = "cuda", source: gn.Data | None = None, **options: Any) -> Trainer:
    usual: dict[str, Any] = {
        "batch_size": 8, "epochs": 3, "progress": False, "optimizer": gn.SGD(gn.Cosine(0.1), momentum=0.9), "seed": 3,
        "regularizer": gn.L2(0.5),
    }  # fmt: skip
    layers = [gn.Dense(6), gn.BatchNorm(), gn.ReLU(), gn.Dropout(0.2), gn.Dense(3)]
    return Trainer(gn.Sequential(layers), TrainOptions(device=device, **usual | options), source or data())


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """What lets all looks be judged at once from then on."""

    def change() -> None:
        monkeypatch.setattr(Trainer, "_is_judged_later", lambda self: False)
        monkeypatch.setattr(Trainer, "_check_numbers_soon", Trainer.check_numbers)

    return change


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("gpunn order")]


# Copies on their way


@EVERY_ORDER
def test_numbers_are_fetched_as_they_were_when_that_was_asked_for(cuda: Core, order: int) -> None:
    backend = select("cuda")
    cuda.set_order(order)
    x, y = backend.asarray(np.array([-1.0, 2], np.float32)), backend.zeros((3,), np.int32)
    mirror = backend.mirror(x, y)
    mirror.fetch()
    backend.run(registry["relu"], x, x)
    backend.assign(y, 0)
    first = mirror.fetched()
    mirror.fetch()
    backend.assign(x, 0)
    assert [each.tolist() for each in first] == [[-1, 2], [0, 0, 0]]
    assert [each.tolist() for each in mirror.fetched()] == [[0, 2], [0, 0, 0]]
    assert first[0].tolist() == [-1, 2]  # which is the caller's


@EVERY_ORDER
def test_numbers_are_sent_after_the_work_before_and_are_free_at_once(cuda: Core, order: int) -> None:
    backend = select("cuda")
    cuda.set_order(order)
    x, y = backend.zeros((3,), np.float32), backend.zeros((3,), np.float32)
    mirror, values = backend.mirror(x), np.array([1.0, -2, 3])
    mirror.send(values)
    backend.run(registry["relu"], x, y)
    values[:] = 9
    mirror.send(values[:2])
    assert backend.to_host(y).tolist() == [1, 0, 3]
    assert backend.to_host(x).tolist() == [9, 9, 3]


def test_a_training_whose_host_has_no_pinned_memory_has_the_same_numbers(
    cuda: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, other = trainer(), trainer()
    whole.run()

    def refuse(cupy: Any, like: Any) -> Any:
        raise MemoryError("no pinned memory")

    monkeypatch.setattr("gpunn.backend.pinned._pinned", refuse)
    other.run()
    assert outcome(other) == outcome(whole)


# The same numbers


@EVERY_ORDER
@pytest.mark.parametrize("every", [None, 1, 7])
def test_looks_that_are_judged_later_leave_every_bit_as_it_is(
    cuda: Core, at_once: Callable[[], None], monkeypatch: pytest.MonkeyPatch, order: int, every: int | None
) -> None:
    """Records, weights and what the optimizer remembers; also kernel by kernel."""
    monkeypatch.setattr(module, "CHECK_EVERY", 4)
    cuda.set_order(order)
    late, by_kernel = trainer(validate_every=every), trainer(validate_every=every, capture=False)
    for training in (late, by_kernel):
        training.run()
    at_once()
    waiting = trainer(validate_every=every)
    waiting.run()
    assert outcome(late) == outcome(waiting) == outcome(by_kernel)
    assert len(late.history) == {None: 12, 1: 45, 7: 7}[every]
    expected = epoch_order(120, seed=3, epoch=2)  # as it is on the CPU
    np.testing.assert_array_equal(late.backend.to_host(late.step.batches.order), expected)


def test_a_record_is_judged_when_the_next_is_due_but_the_last_at_once(
    cuda: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, judged = [0], list[tuple[int, int]]()
    do_steps, judge = Trainer.do_steps, Trainer._judge

    def counting(self: Trainer, *arguments: Any) -> int:
        n = do_steps(self, *arguments)
        given[0] = self.done
        return n

    def watching(self: Trainer, *arguments: Any) -> None:
        judged.append((self.done, given[0]))
        judge(self, *arguments)

    monkeypatch.setattr(Trainer, "do_steps", counting)
    monkeypatch.setattr(Trainer, "_judge", watching)
    trainer(epochs=1).run()
    assert judged == [(4, 8), (8, 12), (12, 15), (15, 15)]
    judged.clear()
    trainer(epochs=1, source=data(150, 0.2)).run()  # whose validation is a wait anyway
    assert judged == [(4, 4), (8, 8), (12, 12), (15, 15)]


def test_a_training_is_the_same_when_it_resumes_from_the_midst_of_an_epoch_and_of_a_look(cuda: Core) -> None:
    for step in (1, 5, 17, 32):
        whole, states = trainer(), list[State]()
        look = Quiet(lambda view, step=step: states.append(whole.state()) if view.step == step else None)  # noqa: B023
        look.every_steps = step
        whole.callbacks.add(look)
        whole.run()
        second = trainer()
        second.restore(states[0])
        second.run()
        assert outcome(second) == outcome(whole), step


def test_a_checkpoint_in_the_midst_of_a_look_resumes_to_the_same_bits(cuda: Core, tmp_path: Path) -> None:
    whole = trainer()
    whole.run()

    class EnoughError(Exception):
        pass

    def end(view: gn.TrainingView) -> None:
        if view.step == 20:
            raise EnoughError

    first = trainer(callbacks=[gn.Checkpointer(tmp_path, every=10)])
    ending = Quiet(end)
    ending.every_steps = 20
    first.callbacks.add(ending)
    with pytest.raises(EnoughError):
        first.run()
    second = trainer(callbacks=[gn.Checkpointer(tmp_path, resume=True)])
    second.run()
    assert second.resumed_from == 12  # where the third record was under way
    assert outcome(second) == outcome(whole)


# What goes by a look


@EVERY_ORDER
@pytest.mark.parametrize(("every", "check"), [(7, 4), (1000, 4), (4, 1000), (5, 5)])
def test_a_divergence_is_told_as_if_nothing_were_judged_later(
    cuda: Core, at_once: Callable[[], None], monkeypatch: pytest.MonkeyPatch, order: int, every: int, check: int
) -> None:
    monkeypatch.setattr(module, "CHECK_EVERY", check)
    cuda.set_order(order)
    found = []
    for change in (lambda: None, at_once):
        change()
        training = trainer(source=with_overflow(), validate_every=every)
        with pytest.raises(DivergenceError) as caught, np.errstate(all="ignore"):
            training.run()
        kept = {name: array.tobytes() for name, array in training.model.arrays().items()}
        steps = [(record.step, record.train_loss) for record in training.history]
        found.append((one_line(caught.value), training.kept, training.history.stopped, kept, steps))
    assert found[0] == found[1]


def test_who_is_suspected_and_forgiven_learns_on_from_where_it_is(cuda: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    """To compare a network with the untrained one is to load both: then it has its own weights again."""
    whole = trainer()
    whole.run()
    trouble = Monitor.trouble

    def suspecting(self: Monitor, record: gn.Record, weights: Any, loss_of: Callable[..., float]) -> str:
        assert np.isfinite(loss_of(self.start.arrays))
        return trouble(self, record, weights, loss_of)

    monkeypatch.setattr(Monitor, "trouble", suspecting)
    other = trainer()
    other.run()
    assert outcome(other) == outcome(whole)


def test_patience_ends_a_training_where_it_did(cuda: Core, at_once: Callable[[], None]) -> None:
    ended = []
    for change in (lambda: None, at_once):
        change()
        training = trainer(epochs=40, callbacks=[gn.EarlyStopping(0.5, monitor="train_loss")])
        training.run()
        assert training.history.stopped.startswith("no better train loss")
        ended.append(outcome(training))
    assert ended[0] == ended[1]
    assert ended[0][0] < 600


def test_a_callback_of_yours_finds_all_records_and_the_network_of_its_step(
    cuda: Core, at_once: Callable[[], None]
) -> None:
    class Looking(gn.Callback):
        every_steps = 6

        def __init__(self) -> None:
            self.seen = list[Any]()

        def on_steps(self, training: gn.TrainingView) -> None:
            self.seen.append((training.step, len(training.history), training.weights()["dense1.w"].tobytes()))

    class Told(Looking):
        def on_record(self, training: gn.TrainingView, record: gn.Record) -> None:
            assert training.step == record.step
            self.seen.append((record.train_loss, training.weights()["dense1.w"].tobytes()))

    for make in (Looking, Told):
        seen = [make(), make()]
        trainer(callbacks=[seen[0]]).run()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Trainer, "_is_judged_later", lambda self: False)
            trainer(callbacks=[seen[1]]).run()
        assert seen[0].seen == seen[1].seen
        assert len(seen[0].seen) == 7 + (12 if make is Told else 0)


def test_a_subclass_of_what_may_be_late_is_yours(cuda: Core) -> None:
    class Mine(gn.ProgressBar):
        def on_steps(self, training: gn.TrainingView) -> None:
            super().on_steps(training)
            seen.append((training.step, training.record and training.record.step))

    seen: list[Any] = []
    trainer(epochs=1, callbacks=[Mine(io.StringIO())]).run()
    assert (4, 4) in seen
    assert (12, 12) in seen


def test_the_line_of_an_epoch_has_its_last_record(cuda: Core) -> None:
    stream = io.StringIO()
    training = trainer(callbacks=[gn.ProgressBar(stream)])
    training.run()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    for line, record in zip(lines, training.history[3::4], strict=True):
        assert f"loss {record.train_loss:.4f}" in line


def test_figures_at_the_step_of_a_look_are_those_of_its_record(cuda: Core) -> None:
    training, seen = trainer(epochs=1), dict[int, Any]()
    look = Quiet(lambda view: seen.update({view.step: training.figures()}))
    training.callbacks.add(look)
    training.run()
    assert {step: seen[step] for step in (4, 8, 12)} == {r.step: r.figures("train") for r in training.history[:3]}
    assert seen[1].keys() == seen[4].keys()


def test_a_learning_rate_that_a_callback_changes_is_that_of_the_next_epoch(cuda: Core) -> None:
    def change(view: gn.TrainingView) -> None:
        if view.step == 15:
            training.optimizer.learning_rate = 0.25

    training = trainer(callbacks=[])
    training.callbacks.add(LambdaCallback(change))
    training.run()
    assert [record.learning_rate == 0.25 for record in training.history] == [False] * 4 + [True] * 8


# The thread that draws


@pytest.mark.parametrize("error", [MemoryError("no room"), ValueError("no such order")])
def test_an_error_of_the_thread_ends_the_training_in_one_line(
    cuda: Core, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def draw(size: int, *, seed: int, epoch: int) -> orders.Order:
        if epoch == 2:
            raise error
        return epoch_order(size, seed=seed, epoch=epoch)

    monkeypatch.setattr(orders, "epoch_order", draw)
    training = trainer()
    with pytest.raises(type(error)) as caught:
        training.run()
    assert one_line(caught.value)
    assert training.done == 30
    assert threads() == []


@pytest.mark.parametrize("end", [None, gn.StopTraining(), ValueError("a callback"), KeyboardInterrupt()])
@EVERY_ORDER
def test_nothing_is_left_running_when_a_training_has_ended(cuda: Core, end: BaseException | None, order: int) -> None:
    def raising(view: gn.TrainingView) -> None:
        running.append((threads(), training._pending is not None))
        if view.step == 22 and end is not None:
            raise end

    cuda.set_order(order)
    running: list[Any] = []
    training = trainer()
    callback = Quiet(raising)
    callback.every_steps = 22
    training.callbacks.add(callback)
    if isinstance(end, ValueError | KeyboardInterrupt):
        with pytest.raises(type(end)):
            training.run()
    else:
        training.run()
    assert running[0] == (["gpunn order_0"], True)
    assert threads() == []
    assert training._pending is None
    # What waits for nobody, as only gpunn's own may, is cut off without the record of step 19, which is under way.
    is_cut = isinstance(end, ValueError | KeyboardInterrupt)
    assert training.history[-1].step == (15 if is_cut else 45 if end is None else 19)
    assert training.kept == (15 if is_cut else 0)


# Replays


def test_an_epoch_of_468_steps_takes_at_most_70_replays(cuda: Core) -> None:
    launches: list[int] = []
    counting = Quiet(lambda view: launches.append(cuda.count("cudaGraphLaunch")) if view.step % 468 == 0 else None)
    counting.every_steps = 468
    options = TrainOptions(batch_size=2, epochs=4, device="cuda", progress=False)
    training = Trainer(gn.Sequential([gn.Dense(3)]), options, data(936))
    training.callbacks.add(counting)
    cuda.reset()
    training.run()
    taken = np.diff(launches)
    assert len(taken) == 3
    assert taken.max() <= 70
    assert taken.min() >= 468 / 8
