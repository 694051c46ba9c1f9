"""Averaged weights: the equation, where they stand for the weights, and that a training goes on exactly."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.cli_helpers import gpunn
from support.harness import one_line

import gpunn as gn
from gpunn.backend.base import Backend
from gpunn.errors import DivergenceError, OptionError
from gpunn.train.arguments import TrainOptions
from gpunn.train.trainer import Trainer

DECAY = 0.75


def data(n: int = 64) -> gn.Data:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 5))
    return gn.Data.from_arrays(x, (x[:, 0] > x[:, 1]).astype(int), validation=16)


def network(*, norm: bool = False) -> gn.Sequential:
    return gn.Sequential([gn.Dense(6), *([gn.BatchNorm()] if norm else []), gn.Tanh(), gn.Dense(2)])


def trained(device: Any = "cpu", *, norm: bool = False, **options: Any) -> tuple[gn.Sequential, gn.History]:
    model = network(norm=norm)
    given = {"epochs": 3, "batch_size": 8, "average": DECAY, "optimizer": gn.SGD(0.3, momentum=0.9)}
    history = model.fit(data(), device=device, **{"progress": False, **given, **options})
    return model, history


class Steps(gn.Callback):
    """The weights that learn after each step."""

    every_steps = 1

    def __init__(self) -> None:
        self.seen: list[dict[str, NDArray[Any]]] = []

    def on_steps(self, training: gn.TrainingView) -> None:
        self.seen.append(training.model.arrays())


def averages(seen: list[dict[str, NDArray[Any]]], decay: float = DECAY) -> list[dict[str, NDArray[Any]]]:
    """By the equation, in float64."""
    made = [{name: array.astype(np.float64) for name, array in seen[0].items()}]
    for arrays in seen[1:]:
        made.append({name: decay * made[-1][name] + (1 - decay) * arrays[name] for name in arrays})
    return made


def assert_same(one: gn.Sequential, other: gn.Sequential) -> None:
    arrays = other.arrays()
    for name, array in one.arrays().items():
        np.testing.assert_array_equal(array, arrays[name], name)


def test_the_network_has_the_average_of_the_weights_of_all_steps(backend: Backend) -> None:
    steps = Steps()
    model, _ = trained(backend, dtype="float64", callbacks=[steps])
    assert len(steps.seen) == 18
    for name, expected in averages(steps.seen)[-1].items():
        np.testing.assert_allclose(model.arrays()[name], expected, rtol=1e-12, atol=1e-15)


def test_the_weights_learn_as_they_do_without(backend: Backend) -> None:
    plain, averaged = Steps(), Steps()
    trained(backend, average=None, callbacks=[plain])
    trained(backend, callbacks=[averaged])
    for one, other in zip(plain.seen, averaged.seen, strict=True):
        for name, array in one.items():
            np.testing.assert_array_equal(array, other[name])


def test_records_measure_the_average_and_their_callbacks_see_it() -> None:
    steps, seen = Steps(), []

    class Records(gn.Callback):
        def on_record(self, training: gn.TrainingView, record: gn.Record) -> None:
            seen.append((record.step, training.model.arrays(), training.model.evaluate(data().validation).loss, record))

        def on_epoch_end(self, training: gn.TrainingView) -> None:
            self.at_end = training.model.arrays()

    records = Records()
    model, history = trained(dtype="float64", callbacks=[steps, records], regularizer=gn.L2(1.0))
    made = averages(steps.seen)
    assert len(seen) == len(history) == 12
    for step, arrays, loss, record in seen:
        for name, array in arrays.items():
            np.testing.assert_allclose(array, made[step - 1][name], rtol=1e-12, atol=1e-15)
        assert record.validation_loss == pytest.approx(loss, rel=1e-12)
        weights = sum(float((array**2).sum()) for name, array in arrays.items() if name.endswith("w"))
        assert record.penalty == pytest.approx(weights / (2 * 48), rel=1e-9)
    for name, array in records.at_end.items():
        np.testing.assert_array_equal(array, model.arrays()[name])
    assert model.evaluate(data().validation).loss == pytest.approx(history[-1].validation_loss, rel=1e-12)


def test_statistics_of_batches_are_those_of_the_training_or_recomputed() -> None:
    plain, _ = trained(norm=True, average=None)
    model, _ = trained(norm=True)
    for word in ("mean", "variance"):
        np.testing.assert_array_equal(model.arrays()[f"batchnorm1.{word}"], plain.arrays()[f"batchnorm1.{word}"])
    again, _ = trained(norm=True, recompute_statistics=True)
    model.recompute_statistics(data())
    assert_same(again, model)


def test_the_best_average_is_put_back() -> None:
    steps = Steps()
    model, history = trained(dtype="float64", epochs=12, patience=12, callbacks=[steps])
    best = min(history, key=lambda record: record.validation_loss)
    for name, expected in averages(steps.seen)[best.step - 1].items():
        np.testing.assert_allclose(model.arrays()[name], expected, rtol=1e-12, atol=1e-15)


def test_it_is_off_by_default_and_the_file_has_the_average(tmp_path: Path) -> None:
    model, _ = trained()
    other, _ = trained(average=None)
    assert any(not np.array_equal(array, other.arrays()[name]) for name, array in model.arrays().items())
    assert TrainOptions().average is None
    model.save(tmp_path / "m.safetensors")
    assert_same(gn.load_model(tmp_path / "m.safetensors"), model)


@pytest.mark.parametrize(
    "optimizer", [gn.SGD(0.3), gn.SGD(0.3, momentum=0.9), gn.Adam(0.05)], ids=["SGD", "momentum", "Adam"]
)
def test_several_calls_are_one(optimizer: gn.Optimizer) -> None:
    once, _ = trained(optimizer=optimizer, epochs=3)
    model = network()
    for _ in range(3):
        model.fit(data(), device="cpu", epochs=1, batch_size=8, average=DECAY, optimizer=optimizer, progress=False)
    assert_same(model, once)


def test_weights_that_were_changed_meanwhile_are_not_gone_back_from() -> None:
    optimizer, steps = gn.SGD(0.3), Steps()
    model, _ = trained(optimizer=optimizer)
    changed = {name: np.zeros_like(array) for name, array in model.arrays().items()}
    model.load_arrays(changed)
    model.fit(data(), epochs=1, batch_size=8, average=DECAY, optimizer=optimizer, progress=False, callbacks=[steps])
    assert not steps.seen[0]["dense1.w"].any()  # nothing flows back through weights of 0


@pytest.mark.parametrize("freeze", [0, 1])
def test_a_resumed_training_is_the_same(tmp_path: Path, freeze: int, backend: Backend) -> None:
    class Stop(gn.Callback):
        every_steps = 1

        def __init__(self, at: int) -> None:
            self.at = at

        def on_steps(self, training: gn.TrainingView) -> None:
            if training.step == self.at:
                raise KeyboardInterrupt

    begun = network()
    begun.fit(data(), epochs=1, batch_size=8, progress=False, device=backend)
    whole = gn.Sequential([*begun.layers[:-1], gn.Dense(2)])
    given: dict[str, Any] = {
        "epochs": 3,
        "batch_size": 8,
        "average": DECAY,
        "optimizer": gn.Adam(0.05),
        "progress": False,
    }
    given |= {"freeze": freeze, "device": backend, "skip_bad_batches": True}
    whole.fit(data(), **given)
    for at in (1, 4, 7, 13):
        folder = tmp_path / f"{at}"
        cut = gn.Sequential([*begun.layers[:-1], gn.Dense(2)])
        with pytest.raises(KeyboardInterrupt):
            cut.fit(data(), **given, callbacks=[gn.Checkpointer(folder, every=1), Stop(at)])
        other = gn.Sequential([*begun.layers[:-1], gn.Dense(2)])
        other.fit(data(), **given, callbacks=[gn.Checkpointer(folder, every=1, resume=True)])
        assert_same(other, whole)


def test_a_run_of_an_experiment_resumes_and_its_network_is_the_average(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    layers = "[[layers]]\ntype = 'Flatten'\n[[layers]]\ntype = 'Dense'\nunits = 'outputs'\n"
    rate = "[optimizer]\ntype = 'SGD'\nlearning_rate = 0.1\n"
    text = f"name = 'a'\n[training]\nepochs = 2\naverage = 0.9\ndevice = 'cpu'\n{rate}{layers}"
    Path("a.toml").write_text(text)
    assert gpunn("train", "digits", "--recipe", "a.toml", "--out", "two").code == 0
    assert gpunn("train", "digits", "--recipe", "a.toml", "--out", "one", "--epochs", "1").code == 0
    assert gpunn("train", "--resume", "one", "--epochs", "2").code == 0
    assert_same(gn.load_model("one/model.safetensors"), gn.load_model("two/model.safetensors"))
    assert "average = 0.9" in Path("one/experiment.toml").read_text()
    Path("b.toml").write_text(text.replace("0.9", "1.0"))
    refused = gpunn("train", "digits", "--recipe", "b.toml")
    assert "average must lie between 0 and 1" in refused.err


def test_a_divergence_leaves_the_last_good_average() -> None:
    rng = np.random.default_rng(0)
    x, seen = rng.normal(size=(64, 5)), []

    class Records(gn.Callback):
        def on_record(self, training: gn.TrainingView, record: gn.Record) -> None:
            seen.append(training.model.arrays())

    model = gn.Sequential([gn.Dense(3, bias=False), gn.Dense(1, bias=False)])
    rising = {"optimizer": gn.SGD(gn.Warmup(3.0, epochs=20)), "epochs": 40, "batch_size": 16}
    with pytest.raises(DivergenceError) as caught:
        model.fit(x, x[:, :1], average=DECAY, progress=False, device="cpu", callbacks=[Records()], **rising)
    assert "the weights of step" in str(caught.value)
    kept = model.arrays()
    assert any(all(np.array_equal(arrays[name], kept[name]) for name in kept) for arrays in seen)


def test_a_skipped_batch_leaves_the_average_as_it_was(backend: Backend) -> None:
    """A sample that overflows the loss: its batch is left out each time, the others are averaged as ever."""
    x = np.random.default_rng(0).normal(size=(32, 5)).astype(np.float32)
    samples, steps, model = gn.Samples(x, x[:, :1].copy()), Steps(), gn.Sequential([gn.Dense(1)])
    samples.targets[11] = 3e38
    options: dict[str, Any] = {"average": DECAY, "skip_bad_batches": True, "batch_size": 8, "epochs": 2}
    options |= {"progress": False, "device": backend, "optimizer": gn.SGD(0.1), "callbacks": [steps]}
    history = model.fit(gn.Data("x", samples, None, ()), **options)
    assert history.skipped == 2
    taken = [arrays for arrays, before in zip(steps.seen, [None, *steps.seen[:-1]], strict=True)
             if before is None or not np.array_equal(arrays["dense1.w"], before["dense1.w"])]  # fmt: skip
    assert len(taken) == 6
    for name, expected in averages(taken)[-1].items():
        np.testing.assert_allclose(model.arrays()[name], expected, rtol=1e-5)


def test_interrupts_and_errors_leave_the_average_of_the_last_record() -> None:
    class Failing(gn.Callback):
        def on_steps(self, training: gn.TrainingView) -> None:
            if training.step == 10:
                raise ValueError("mine")

    steps, model = Steps(), network()
    with pytest.raises(ValueError, match="mine"):
        model.fit(
            data(), average=DECAY, epochs=3, batch_size=8, dtype="float64", progress=False, callbacks=[steps, Failing()]
        )
    expected = averages(steps.seen)[8]  # records are after 2, 3, 5, 6, 8, 9 steps
    for name, array in model.arrays().items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-12, atol=1e-15)


def test_an_embedding_and_frozen_layers_are_averaged_too(backend: Backend) -> None:
    rng = np.random.default_rng(0)
    x, y, steps = rng.integers(0, 6, (40, 3)), rng.integers(0, 2, 40), Steps()
    model = gn.Sequential([gn.Embedding(6, 3), gn.Flatten(), gn.Dense(4), gn.Tanh(), gn.Dense(2)])
    model.layers[2].trainable = False
    model.fit(
        x, y, average=DECAY, epochs=2, batch_size=8, dtype="float64", progress=False, callbacks=[steps], device=backend
    )
    for name, expected in averages(steps.seen)[-1].items():
        np.testing.assert_allclose(model.arrays()[name], expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("average", [0, 1, -0.5, 1.5, float("nan"), "0.9", True])
def test_a_decay_that_cannot_be_is_refused(average: Any) -> None:
    with pytest.raises(OptionError, match="average must") as caught:
        network().fit(data(), average=average, progress=False)
    one_line(caught.value)


def test_a_training_shorter_than_its_average_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    trained(average=0.999, progress=True)
    said = capsys.readouterr()
    assert "average 0.999 looks back over 1,000 steps, and the training has 18" in said.out + said.err
    trained(progress=True)
    assert "looks back" not in capsys.readouterr().err


def test_memory_is_counted() -> None:
    trainers: list[Callable[[], Trainer]] = [
        lambda average=average: Trainer(network(), TrainOptions(average=average, progress=False, device="cpu"), data())
        for average in (None, 0.9)
    ]
    plain, averaged = (make()._bytes_for(8) for make in trainers)
    assert averaged - plain == 4 * network().build((5,), device="cpu").parameters.values.nbytes
