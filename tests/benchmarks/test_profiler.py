"""Where a step's time goes: that nothing of it is lost, that the work is counted rightly, and that no trace is left."""

import itertools
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cli_helpers import gpunn, own_folder
from support.outside import Lion, Narrow, Scale, SmoothL1, Standardize, Swish
from support.paths import ROOT

import gpunn as gn
from gpunn.backend.base import Backend
from gpunn.errors import OutputError
from gpunn.experiments.experiment import read_experiment, recipes
from gpunn.nn.layers import Layer
from gpunn.train.arguments import TrainOptions
from gpunn.train.trainer import Trainer

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(ROOT / "benchmarks"))
    import profiler
    from profile_report import plot_profile, profile_table
    from profiler import (
        BACKWARD,
        BETWEEN,
        FORWARD,
        GATHER,
        LOSS,
        PASSES,
        UPDATE,
        Part,
        Profile,
        Rates,
        profile,
    )

folder = pytest.fixture(autouse=True)(own_folder)

N, ITEM = 32, 4


class FixedRates(Rates):
    """A machine of 10⁹ FLOP/s, and 10⁹ bytes/s for copies of any size."""

    def __init__(self) -> None:
        self.flops = self.copy = 1e9
        self.size, self.copy_bytes = 64, 2**20

    def copy_seconds(self, nbytes: int) -> float:
        return nbytes / self.copy

    def head_start(self, seconds: float) -> None:
        pass


def images(count: int = 3 * N + 5, size: int = 28) -> gn.Data:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (count, size, size, 1)).astype(np.uint8)
    return gn.Data.from_arrays(pictures, np.arange(count) % 10, validation=0)


def trainer(layers: list[Layer], device: str | Backend = "cpu", **options: Any) -> Trainer:
    options = {"optimizer": gn.SGD(0.1, momentum=0.9), "batch_size": N, "progress": False} | options
    data = options.pop("data", None) or images()
    return Trainer(gn.Sequential(layers), TrainOptions(device=device, **options), data)


def dense() -> list[Layer]:
    return [gn.Dense(30), gn.Sigmoid(), gn.Dense(10)]


def part(found: Profile, name: str, stage: str = "") -> Part:
    (one,) = (each for each in found.parts if (each.part, each.stage) == (name, stage))
    return one


def test_layers_in_array_code_from_outside_have_rows_of_their_own() -> None:
    training = trainer(
        [gn.Dense(12), Swish(), Standardize(), Scale(), gn.Dense(10)], loss=Narrow(), optimizer=Lion(0.01),
        regularizer=SmoothL1(0.5),
    )  # fmt: skip
    found = profile(training, seconds=0, rates=FixedRates())
    for name in ("swish1", "standardize1", "scale1"):
        assert part(found, FORWARD, name).seconds > 0
        assert part(found, BACKWARD, name).seconds > 0
        assert name in profile_table(found)
    assert part(found, LOSS).seconds > 0
    assert part(found, UPDATE).seconds > 0


# Times


def test_the_parts_add_up_to_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    training = trainer(dense())
    ticks = itertools.count()
    monkeypatch.setattr(profiler, "mark", lambda _: next(ticks))
    found = profile(training, rates=FixedRates())
    # A part lasts from its mark to the next, one tick; so does all that comes between two parts, or at either end.
    parts = [each for each in found.parts if each.part not in (UPDATE, BETWEEN)]
    assert [(each.part, each.stage) for each in parts] == [
        (GATHER, ""),
        (FORWARD, "dense1"), (FORWARD, "dense1 bias, sigmoid"), (FORWARD, "dense2"),
        (LOSS, ""),
        (BACKWARD, "dense2"), (BACKWARD, "dense1 bias, sigmoid"), (BACKWARD, "dense1"),
    ]  # fmt: skip
    assert [each.seconds for each in parts] == [2] + [1] * 7  # batches are also told what was taken of them
    assert part(found, UPDATE).seconds == 2  # what comes before backward, and the update itself
    assert part(found, BETWEEN).seconds == 12
    assert found.seconds == 23


def test_what_runs_within_a_layer_has_rows_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = [gn.Dense(30), gn.Chain([gn.Tanh()]), gn.Residual([gn.Dense(30)])]
    training = trainer([gn.Dense(30), gn.Residual(inner), gn.Dense(10)])
    ticks = itertools.count()
    monkeypatch.setattr(profiler, "mark", lambda _: next(ticks))
    found = profile(training, rates=FixedRates())
    names = [
        "residual1.dense1", "residual1.dense1 bias, tanh", "residual1.residual1.dense1",
        "residual1.residual1.dense1 bias", "residual1.residual1", "residual1",
    ]  # fmt: skip
    for name in names:
        # Each that has others within lasts a tick before each of them and one after the last.
        within = {"residual1": 3, "residual1.residual1": 2}.get(name, 0)
        assert (part(found, FORWARD, name).seconds, part(found, BACKWARD, name).seconds) == (1 + within, 1 + within)
    assert part(found, FORWARD, "residual1.dense1").flops == 2 * N * 30 * 30
    assert part(found, FORWARD, "residual1").nbytes == 3 * 4 * N * 30


def test_the_steps_that_something_disturbed_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    training = trainer(dense())
    clock = {"now": 0.0, "marks": 0}

    def mark(_: Backend) -> float:
        clock["marks"] += 1
        # A step has 24 marks. The second half of them all happens on a busy machine.
        clock["now"] += 1 if clock["marks"] <= 12 + 24 * 3 else 100
        return clock["now"]

    monkeypatch.setattr(profiler, "mark", mark)
    found = profile(training, seconds=0, rates=FixedRates())
    assert found.steps == 6
    assert found.seconds == 23


def test_on_the_clock_no_part_is_negative(backend: Backend) -> None:
    found = profile(trainer(dense(), backend), seconds=0, rates=Rates(backend, "float32", 64, 2**16))
    assert all(each.seconds >= 0 for each in found.parts)
    assert found.seconds > 0
    assert found.step_seconds > 0
    assert found.product_flops > 0
    assert found.copy_rate > 0


# Work


def test_flops_and_bytes_of_a_dense_network_are_those_of_its_products() -> None:
    found = profile(trainer(dense()), rates=FixedRates())
    first, second = 784 * 30, 30 * 10
    assert part(found, FORWARD, "dense1").flops == 2 * N * first
    assert part(found, BACKWARD, "dense1").flops == 2 * N * first  # nothing before it learns: ∂C/∂w only
    assert part(found, FORWARD, "dense2").flops == 2 * N * second
    assert part(found, BACKWARD, "dense2").flops == 2 * (2 * N * second)  # ∂C/∂w and ∂C/∂a
    assert sum(each.flops for each in found.parts) == 2 * N * (2 * first + 3 * second)
    assert part(found, GATHER).nbytes == N * 784 * (1 + ITEM)  # bytes are read, floats written
    assert part(found, FORWARD, "dense1").nbytes == ITEM * (N * 784 + first + N * 30)
    assert part(found, BACKWARD, "dense2").nbytes == ITEM * (2 * N * 30 + N * 10 + 2 * second)
    assert part(found, FORWARD, "dense1 bias, sigmoid").nbytes == ITEM * 2 * N * 30
    assert part(found, BACKWARD, "dense1 bias, sigmoid").nbytes == ITEM * 3 * N * 30
    assert part(found, LOSS).nbytes == ITEM * 2 * N * 10
    assert part(found, UPDATE).nbytes == ITEM * 5 * (first + second + 40)  # gradient, value and velocity


@pytest.mark.parametrize(
    ("optimizer", "memories"), [(gn.SGD(0.1, momentum=0.9), 1), (gn.Adam(), 2)], ids=["momentum", "Adam"]
)
def test_an_update_moves_what_is_remembered_too(optimizer: gn.Optimizer, memories: int) -> None:
    found = profile(trainer([gn.Dense(10)], optimizer=optimizer), rates=FixedRates())
    assert part(found, UPDATE).nbytes == ITEM * (3 + 2 * memories) * (784 * 10 + 10)


def test_an_update_that_is_folded_into_the_product_is_counted_there() -> None:
    folded = profile(trainer([gn.Dense(10)], optimizer=gn.SGD(0.1)), rates=FixedRates())
    kept = profile(trainer([gn.Dense(10)]), rates=FixedRates())
    assert part(folded, UPDATE).nbytes == ITEM * 3 * 10  # the biases
    difference = part(folded, BACKWARD, "dense1").nbytes - part(kept, BACKWARD, "dense1").nbytes
    assert difference == ITEM * 784 * 10  # w is read to be updated


def test_flops_and_bytes_of_a_convolution_are_those_of_its_sum() -> None:
    layers = [gn.Conv2D(4, 5), gn.ReLU(), gn.MaxPool2D(), gn.Conv2D(6, 3, padding="same"), gn.BatchNorm()]
    found = profile(trainer([*layers, gn.Flatten(), gn.Dense(10)]), rates=FixedRates())
    pixels, seen = 24 * 24 * 4, 12 * 12 * 4
    assert part(found, FORWARD, "conv1").flops == 2 * N * 24 * 24 * (4 * 1 * 5 * 5)
    assert part(found, BACKWARD, "conv1").flops == 2 * N * 24 * 24 * (4 * 1 * 5 * 5)
    assert part(found, FORWARD, "conv2").flops == 2 * N * 12 * 12 * (6 * 4 * 3 * 3)
    assert part(found, BACKWARD, "conv2").flops == 2 * (2 * N * 12 * 12 * (6 * 4 * 3 * 3))
    assert part(found, FORWARD, "maxpool1").nbytes == ITEM * N * (pixels + seen)
    # The pooling comes before bias and activation: they are done on a quarter of the elements.
    assert part(found, FORWARD, "conv1 bias, relu").nbytes == ITEM * N * 2 * seen
    assert part(found, BACKWARD, "batchnorm1").nbytes == ITEM * N * 3 * 12 * 12 * 6
    assert part(found, FORWARD, "flatten1").nbytes == 0


def test_flops_of_groups_and_of_a_transposed_convolution_are_those_of_their_sums() -> None:
    layers = [gn.Conv2D(4, 3, stride=2), gn.Conv2D(8, 3, groups="depthwise"), gn.ConvTranspose2D(6, 2, 2)]
    found = profile(trainer([*layers, gn.Flatten(), gn.Dense(10)]), rates=FixedRates())
    assert part(found, FORWARD, "conv2").flops == 2 * N * 11 * 11 * (8 * 1 * 3 * 3)
    assert part(found, FORWARD, "convtranspose1").flops == 2 * N * 11 * 11 * (8 * 6 * 2 * 2)  # not of 22 × 22 places


def test_the_limit_is_the_longer_of_products_and_copies() -> None:
    found = profile(trainer(dense()), rates=FixedRates())
    for each in found.parts:
        assert each.least_seconds == max(each.flops, each.nbytes) / 1e9


def test_rates_are_of_the_best_time(monkeypatch: pytest.MonkeyPatch, backend: Backend) -> None:
    times = itertools.cycle([0.0, 4.0, 10.0, 12.0, 20.0, 27.0, 30.0, 33.0, 40.0, 49.0])
    monkeypatch.setattr(profiler, "mark", lambda _: next(times))
    monkeypatch.setattr(profiler, "elapsed", lambda _, begin, end: end - begin)
    rates = Rates(backend, "float32", 8, 2**25)
    assert rates.flops == 2 * 8**3 / 2
    assert rates.copy == 2**25 / 2
    assert rates.least_seconds(0, 0) == 0


# Everywhere, and without a trace


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_can_be_profiled(name: str, backend: Backend) -> None:
    experiment = read_experiment(name).with_options(batch_size=4, device=backend.device)
    data = images(14, 8 if experiment.data.source == "digits" else 28)
    training = experiment.trainer(data, progress=False)
    found = profile(training, seconds=0, rates=FixedRates())
    assert [name for name, _ in itertools.groupby(each.part for each in found.parts)] == [*PASSES, BETWEEN]
    learning = {layer.name for layer, _ in training.model.every_layer if getattr(layer, "w", None) is not None}
    for name in (FORWARD, BACKWARD):
        assert {each.stage for each in found.parts if each.part == name and each.flops} == learning
    assert found.is_replayed == (backend.device != "cpu")


def test_samples_that_are_streamed_can_be_profiled(backend: Backend, tmp_path: Path) -> None:
    data = images()
    np.save(tmp_path / "x.npy", data.train.inputs)
    mapped = gn.Samples(np.load(tmp_path / "x.npy", mmap_mode="r"), data.train.targets, data.train.scale)
    training = trainer([gn.Dense(10)], backend, data=gn.Data("mapped", mapped, None, ()), data_on="host")
    found = profile(training, seconds=0, rates=FixedRates())
    assert part(found, GATHER).nbytes == N * 784 * (1 + ITEM)
    training.run()


def remembered(training: Trainer) -> dict[str, Any]:
    model, to_host = training.model, training.step.backend.to_host
    state = {name: to_host(array) for name, array in training.optimizer.state.items()}
    return model.arrays() | state | {"clock": to_host(model.clock), "totals": to_host(training.step.totals)}


def network_that_remembers() -> list[Layer]:
    return [gn.Flatten(), gn.Dense(12), gn.BatchNorm(), gn.ReLU(), gn.Dropout(0.3), gn.Dense(10)]


@pytest.mark.parametrize("skips", [False, True])
def test_a_profile_leaves_no_trace(backend: Backend, skips: bool) -> None:
    training = trainer(network_that_remembers(), backend, epochs=2, skip_bad_batches=skips)
    training.run()
    before = remembered(training)
    profile(training, seconds=0, rates=FixedRates())
    after = remembered(training)
    assert set(before) == set(after)
    for name, values in before.items():
        np.testing.assert_array_equal(after[name], values, name)


def test_a_training_after_a_profile_goes_as_it_would_have_gone(backend: Backend) -> None:
    plain, watched = (trainer(network_that_remembers(), backend, epochs=2, optimizer=gn.Adam()) for _ in range(2))
    profile(watched, seconds=0, rates=FixedRates())
    plain.run(), watched.run()
    for one, other in zip(plain.history, watched.history, strict=True):
        assert (one.train_loss, one.train_accuracy) == (other.train_loss, other.train_accuracy)
    np.testing.assert_array_equal(
        *(each.step.backend.to_host(each.model.parameters.values) for each in (plain, watched))
    )


def test_who_takes_no_profile_pays_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    training = trainer(dense())
    profile(training, rates=FixedRates())
    for owner in (*training.step.stages, training.step.batches, training.step.loss, training.step.optimizer):
        watched = {"forward", "backward", "take", "advance", "evaluate", "before_backward", "update"}
        assert not watched & set(vars(owner))

    def mark(_: Backend) -> None:
        raise AssertionError("a training without a profile takes times of its parts")

    monkeypatch.setattr(profiler, "mark", mark)
    training.run()


def test_a_failure_while_watching_takes_the_watch_away(monkeypatch: pytest.MonkeyPatch) -> None:
    training = trainer(dense())
    weights = training.model.arrays()
    calls = itertools.count()

    class Interrupting(FixedRates):
        def head_start(self, seconds: float) -> None:
            if next(calls) == 9:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        profile(training, seconds=0, rates=Interrupting())
    assert "forward" not in vars(training.step.stages[0])
    for name, values in training.model.arrays().items():
        np.testing.assert_array_equal(values, weights[name])


# Shown


def test_train_with_profile_shows_where_the_time_goes(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr("profiler.Rates", lambda *_: FixedRates())
    done = gpunn("train", "--recipe", "tiny.toml", "--profile", "--out", "run")
    assert done.code == 0, done.err
    found = Profile.from_dict(json.loads((folder / "run" / "profile.json").read_text("utf-8")))
    assert profile_table(found) in done.out
    assert (folder / "run" / "profile.png").read_bytes().startswith(b"\x89PNG")
    for words in ("pass", "GFLOP/s", "GB/s", "of the limit", "forward", "dense1", "update", "between"):
        assert words in done.out
    assert done.out.index("test accuracy") < done.out.index("of the limit")


def test_train_without_profile_writes_none(folder: Path) -> None:
    done = gpunn("train", "--recipe", "tiny.toml", "--out", "run")
    assert "of the limit" not in done.out
    assert not list((folder / "run").glob("profile*"))


def example(**changes: Any) -> Profile:
    parts = (
        Part(GATHER, "", 1e-3, 0, 2_000_000, 0.5e-3),
        Part(FORWARD, "dense1", 2e-3, 400_000_000, 1_000_000, 1e-3),
        Part(BETWEEN, "", 1e-3),
    )
    values = {
        "batch_size": 8, "device": "a machine", "dtype": "float32", "precision": "tf32", "is_replayed": False,
        "steps": 10, "step_seconds": 3.5e-3, "parts": parts, "product_size": 2048, "product_flops": 3e11,
        "copy_bytes": 2**28, "copy_rate": 2e10,
    }  # fmt: skip
    return Profile(**values | changes)


def test_the_table_gives_rates_shares_and_limits() -> None:
    rows = [line.split() for line in profile_table(example()).splitlines()]
    assert rows[2] == ["gather", "1", "ms", "25.0%", "2", "50%"]
    assert rows[3] == ["forward", "dense1", "2", "ms", "50.0%", "200", "0.5", "50%"]
    assert rows[4] == ["between", "1", "ms", "25.0%"]
    assert rows[5] == ["all", "4", "ms", "100.0%", "100", "0.75", "38%"]
    text = profile_table(example())
    assert "A step of 8 samples in 3.5 ms as training runs it, 4 ms with its parts timed" in text
    assert "300 GFLOP/s in tf32 for a product of 2,048², 20.0 GB/s, read and written, for a copy of 128.0 MiB" in text


def test_a_graph_is_said_not_to_be_timed_inside() -> None:
    assert "inside which nothing can be timed" in profile_table(example(is_replayed=True))
    assert "inside which nothing can be timed" not in profile_table(example())


def test_a_profile_comes_back_from_json() -> None:
    assert Profile.from_dict(json.loads(json.dumps(asdict(example())))) == example()


def test_a_picture_that_cannot_be_written_says_so(folder: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        plot_profile(example(), folder / "missing" / "profile.png")


@pytest.mark.parametrize("command", ["train --profile --out run", "bench --quick"])
def test_an_installed_package_says_where_profiler_and_benchmarks_are(
    monkeypatch: pytest.MonkeyPatch, folder: Path, command: str
) -> None:
    monkeypatch.setattr("gpunn.cli.checkout.__file__", str(folder / "site-packages" / "gpunn" / "cli" / "checkout.py"))
    done = gpunn(*command.split())
    assert done.code == 1
    assert "with the source, not with the package: clone the repository, pip install -e . in it" in done.err
    assert done.err.count("\n") == 1
    assert not (folder / "run").exists()
