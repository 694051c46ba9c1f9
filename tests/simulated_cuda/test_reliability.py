"""Runs on a device that are cut off, or meet numbers that are not finite: as on the CPU, and no step waits for it."""

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.checkpoint_helpers import ORIGIN, adam, calling, images, momentum, outcome, stopped_after
from support.cli_helpers import without_pictures
from support.harness import one_line
from support.threads import together

import gpunn as gn
from gpunn.backend.base import Backend
from gpunn.backend.cuda import CupyBackend
from gpunn.data import loader
from gpunn.errors import DeviceError, DivergenceError
from gpunn.experiments import run
from gpunn.experiments.experiment import read_experiment
from gpunn.saving.checkpoint import open_checkpoint, write_checkpoint
from gpunn.saving.checkpointer import Checkpointer, list_checkpoints
from gpunn.train import trainer as module
from gpunn.train.arguments import TrainOptions
from gpunn.train.monitor import FiniteCheck
from gpunn.train.trainer import Trainer
from simulated_cuda.core import Core


@pytest.mark.parametrize("data_on", ["device", "host"])
@pytest.mark.parametrize("make", [momentum, adam])
def test_a_training_goes_on_from_any_step_to_the_same_bits(
    cuda: Core, make: Callable[..., Trainer], data_on: str, tmp_path: Path
) -> None:
    """From graph to eager steps and back: the first step after is run kernel by kernel."""
    options: dict[str, Any] = {"device": "cuda", "data_on": data_on}
    whole = make(**options)
    whole.run()
    for cut in (0, 2, 6, 13):
        first, second = make(**options), make(**options)
        write_checkpoint(tmp_path / str(cut), stopped_after(first, cut), ORIGIN, first.model)
        second.restore(open_checkpoint(tmp_path / str(cut)).state(second.state()))
        second.run()
        assert outcome(second) == outcome(whole)


def tuning(data_on: str = "device", **options: Any) -> Trainer:
    """New layers above those of another network, which are held for two of the four epochs."""
    source = momentum().model
    usual = {"batch_size": 16, "device": "cuda", "seed": 3, "progress": False, "epochs": 4, "freeze": 2}
    optimizer = gn.Adam(gn.OneCycle(0.01))
    made = TrainOptions(**usual | {"optimizer": optimizer, "data_on": data_on} | options)  # type: ignore[arg-type]
    return Trainer(source.replace_last(3), made, images())


@pytest.mark.parametrize("data_on", ["device", "host"])
def test_the_step_is_recorded_anew_when_held_layers_begin_to_learn_and_goes_on_to_the_same_bits(
    cuda: Core, data_on: str, tmp_path: Path
) -> None:
    whole, steps = tuning(data_on), []
    with calling(whole, lambda: steps.append(whole.step) if whole.step not in steps else None):
        whole.run()
    assert [step.is_recorded for step in steps] == [True, True]
    for cut in (5, 11, 12, 13, 19):
        first, second = tuning(data_on), tuning(data_on)
        write_checkpoint(tmp_path / str(cut), stopped_after(first, cut), ORIGIN, first.model)
        checkpoint = open_checkpoint(tmp_path / str(cut))
        second.move_to(checkpoint.step)
        second.restore(checkpoint.state(second.state()))
        second.run()
        assert outcome(second) == outcome(whole), cut


def test_held_layers_stay_on_a_device_as_on_the_cpu(cuda: Core) -> None:
    trainings = [tuning(device=device, optimizer=gn.SGD(0.02, momentum=0.9)) for device in ("cpu", "cuda")]
    for training in trainings:
        start, held = training.model.arrays(), dict[str, Any]()
        with calling(training, lambda: held.update(training.model.arrays()) if training.done == 12 else None):  # noqa: B023
            training.run()
        assert {name for name in held if not np.array_equal(held[name], start[name])} == {"dense1.w", "dense1.b"}
    ours, theirs = (training.model.arrays() for training in trainings)
    for name in ours:
        np.testing.assert_allclose(theirs[name], ours[name], rtol=1e-3, atol=1e-4, err_msg=name)


def with_overflow(samples: int = 96) -> gn.Data:
    """Sums over one sample overflow; it is in one batch of every epoch."""
    x = np.random.default_rng(0).normal(size=(samples, 5)).astype(np.float32)
    x[37] = 3e38
    return gn.Data.from_arrays(x, np.arange(samples) % 3, validation=0)


def trainer(device: str, **options: Any) -> Trainer:
    usual: dict[str, Any] = {"batch_size": 8, "epochs": 2, "progress": False, "optimizer": gn.SGD(0.1, momentum=0.9)}
    layers = [gn.Dense(6), gn.BatchNorm(), gn.ReLU(), gn.Dropout(0.2), gn.Dense(3)]
    return Trainer(gn.Sequential(layers), TrainOptions(device=device, **usual | options), with_overflow())


def test_a_bad_batch_is_skipped_inside_the_recorded_step(cuda: Core) -> None:
    """Once an epoch, as on the CPU."""
    on_cpu, on_device = trainer("cpu", skip_bad_batches=True), trainer("cuda", skip_bad_batches=True)
    on_cpu.run()
    with np.errstate(all="ignore"):
        on_device.run()
    assert on_device.step.is_recorded
    assert on_cpu.history.skipped == on_device.history.skipped == 2
    for name, ours in on_cpu.model.arrays().items():
        np.testing.assert_allclose(on_device.model.arrays()[name], ours, rtol=1e-3, atol=1e-4)


def test_a_recorded_step_that_skips_is_still_one_graph(cuda: Core) -> None:
    training = trainer("cuda", skip_bad_batches=True, optimizer=gn.SGD(0.1), validate_every=1000)
    with np.errstate(all="ignore"):
        training.train()
    training.step.start_epoch(np.arange(96), np.full(12, 0.1))
    cuda.reset()
    with cuda.refusing(), np.errstate(all="ignore"):
        training.step(8)
    assert cuda.count("cudaGraphLaunch") == 1


@pytest.mark.parametrize("data_on", ["device", "host"])
@pytest.mark.parametrize("every", [4, 1000])
def test_a_number_that_is_not_finite_is_found_within_so_many_steps_and_its_step_and_layer_named(
    cuda: Core, monkeypatch: pytest.MonkeyPatch, every: int, data_on: str
) -> None:
    monkeypatch.setattr(module, "CHECK_EVERY", every)
    monkeypatch.setattr(loader, "PIECE", 200)
    training = trainer("cuda", validate_every=7, data_on=data_on)
    with pytest.raises(DivergenceError) as caught, np.errstate(all="ignore"):
        training.run()
    message = one_line(caught.value)
    found = int(message.split("step ")[1].split(":")[0])
    bad = int(message.rpartition("in step ")[2].split(";")[0]) if "in step" in message else found
    assert found - bad < min(every, 7)
    assert found % min(every, 7) == 0
    assert "first was the output of dense1, Dense(6)" in message
    assert all(np.isfinite(array).all() for array in training.model.arrays().values())


def test_weights_that_are_not_finite_are_found_though_the_cost_is(cuda: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    """tanh makes 1 of infinity: the cost of a network that has lost a weight may look well."""
    monkeypatch.setattr(module, "CHECK_EVERY", 5)
    inputs = np.random.default_rng(0).uniform(1, 2, (30, 5)).astype(np.float32)
    data = gn.Data.from_arrays(inputs, np.arange(30) % 3, validation=0)
    layers = [gn.Dense(6), gn.Tanh(), gn.Dense(3)]
    training = Trainer(
        gn.Sequential(layers), TrainOptions(device="cuda", batch_size=3, validate_every=100, progress=False), data
    )

    training.step.steps_per_graph = 1

    def spoil() -> None:
        if training.done == 9:
            backend = training.step.backend
            backend.assign(training.model.parameters["dense1.w"].value, np.full((6, 5), np.inf))

    with (
        pytest.raises(DivergenceError, match="step 10: the weights contain NaN or Inf"),
        np.errstate(all="ignore"),
        calling(training, spoil),
    ):
        training.run()


def test_no_checkpoint_is_made_of_numbers_that_are_not_finite(cuda: Core, tmp_path: Path) -> None:
    """Though nobody has looked at the device since they became so."""
    training = trainer("cuda", validate_every=1000)
    training.callbacks.add(Checkpointer(tmp_path, every=2))
    with pytest.raises(DivergenceError, match="first was the output of dense1"), np.errstate(all="ignore"):
        training.train()
    for _, path in list_checkpoints(tmp_path / "checkpoints"):
        state = open_checkpoint(path).state(trainer("cuda").state())
        assert all(np.isfinite(array).all() for array in state.now.arrays.values())


def test_trainings_in_threads_share_a_device_and_do_not_disturb_each_other(cuda: Core) -> None:
    """Neither gets into what the other records, though both use one stream."""
    makes = [partial(momentum, device="cuda"), partial(adam, device="cuda", data_on="host"), momentum]
    alone = [make() for make in makes]
    for training in alone:
        training.run()
    trainings = [make() for make in makes]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        together([training.run for training in trainings])
    finally:
        sys.setswitchinterval(interval)
    for one, other in zip(alone, trainings, strict=True):
        assert other.step.is_recorded == (other.step.backend.device != "cpu")
        assert outcome(one) == outcome(other)


def fail(*_: object) -> None:
    raise DeviceError("the kernel gather was not compiled: nvrtc is of another version")


def test_a_compiler_that_fails_after_the_trial_leaves_auto_to_the_cpu(
    cuda: Core, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = trainer("cpu", skip_bad_batches=True)
    expected.run()
    monkeypatch.setattr(CupyBackend, "compile_ahead", fail)
    on_the_way = trainer("auto", skip_bad_batches=True, progress=True)
    assert on_the_way.backend.device == "cuda:0"
    on_the_way.run()
    assert on_the_way.backend.device == "cpu"
    np.testing.assert_equal(on_the_way.model.arrays(), expected.model.arrays())
    assert "going on with the CPU: the kernel gather was not compiled" in capsys.readouterr().err
    with pytest.raises(DeviceError, match="not compiled"):
        trainer("cuda", skip_bad_batches=True).run()


def test_a_run_that_goes_on_with_the_cpu_resumes_there(
    cuda: Core, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_pictures(monkeypatch)
    monkeypatch.setattr(CupyBackend, "compile_ahead", fail)
    experiment = read_experiment("mlp").with_options(device="auto", epochs=1)
    experiment = replace(experiment, data=replace(experiment.data, limit=400))
    said: list[str] = []
    folder = run.train(experiment, tmp_path / "run", said.append, progress=False)
    assert 'device = "cpu"' in (folder / "experiment.toml").read_text("utf-8")
    run.resume(str(folder), said.append, progress=False, epochs=2)
    assert not [line for line in said if "not the same" in line]


@pytest.fixture(params=["preparing", "compiling ahead"])
def failing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that fails on a device, which the trial did not find."""
    made = FiniteCheck.__init__

    def prepared(self: FiniteCheck, backend: Backend, *arrays: Any) -> None:
        if backend.device != "cpu":
            fail()
        made(self, backend, *arrays)

    if request.param == "preparing":
        monkeypatch.setattr(FiniteCheck, "__init__", prepared)
    else:
        monkeypatch.setattr(CupyBackend, "compile_ahead", fail)


@pytest.mark.usefixtures("failing")
def test_a_network_goes_on_with_its_optimizer_where_a_compiler_fails(
    cuda: Core, capsys: pytest.CaptureFixture[str]
) -> None:
    models = []
    for device in ("cpu", "auto"):
        model, options = gn.Sequential([gn.Dense(3), gn.Dropout(0.1), gn.Dense(3)]), {"optimizer": gn.Adam()}
        for on in ("cpu", device):
            model.fit(images().as_floats(), device=on, epochs=1, **options)
        models.append(model)
    assert capsys.readouterr().err.count("going on with the CPU: ") == 1
    np.testing.assert_equal(models[1].arrays(), models[0].arrays())
    assert models[1].backend is models[0].backend


@pytest.mark.usefixtures("failing")
@pytest.mark.parametrize("make", [momentum, adam])
def test_a_run_is_resumed_to_the_same_bits_where_a_compiler_fails(cuda: Core, make: Callable[..., Trainer]) -> None:
    whole = make()
    whole.run()
    second = make(device="auto")
    second.restore(stopped_after(make(), 7))
    second.run()
    assert second.backend.device == "cpu"
    assert outcome(second) == outcome(whole)
