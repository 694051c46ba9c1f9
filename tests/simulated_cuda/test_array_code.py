"""Array code from outside on the simulated CUDA: recorded in the graph of a step, and replayed to the same bits."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from project.test_outside import experiment
from support.cli_helpers import gpunn, own_folder, without_pictures
from support.outside import Huber, Lion, Narrow, Scale, SmoothL1, Staircase, Standardize, Swish

import gpunn as gn
from gpunn.backend.devices import select
from simulated_cuda.core import LATE, Core


def data(labels: bool = False) -> gn.Data:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(250, 6)).astype(np.float32)
    y = (x @ rng.normal(size=(6, 3))).astype(np.float32)
    return gn.Data.from_arrays(x, y.argmax(axis=1) if labels else y)


def trained(
    device: str, capture: bool = True, labels: bool = False, **options: Any
) -> tuple[gn.Sequential, gn.History]:
    model = gn.Sequential([gn.Dense(12), Swish(1.5), Standardize(), Scale(), gn.Dense(3)])
    given: dict[str, Any] = {"loss": Narrow() if labels else Huber(), "optimizer": Lion(Staircase(0.01))}
    given |= {"regularizer": SmoothL1(0.5), "epochs": 3, "batch_size": 16, "progress": False}
    history = model.fit(data(labels), device=device, capture=capture, **given | options)
    return model, history


def distance(one: gn.Sequential, other: gn.Sequential) -> float:
    arrays = other.arrays()
    return max(float(np.abs(value - arrays[name]).max()) for name, value in one.arrays().items())


@pytest.mark.parametrize("labels", [False, True])
def test_a_graph_of_array_code_is_the_same_to_the_bit_as_its_kernels(cuda: Core, said: list[str], labels: bool) -> None:
    replayed, history = trained("cuda", labels=labels)
    assert cuda.count("cudaGraphLaunch") > 0
    assert not [text for text in said if "kernel by kernel" in text]
    single, _ = trained("cuda", capture=False, labels=labels)
    assert distance(replayed, single) == 0
    assert distance(replayed, trained("cpu", labels=labels)[0]) < 1e-3
    assert history[-1].validation_loss < history[0].validation_loss


def test_a_graph_writes_into_no_memory_that_others_were_given_meanwhile(cuda: Core) -> None:
    backend, theirs = select("cuda"), list[Any]()

    class Taking(gn.Callback):
        """Takes memory of the sizes of intermediate results between the replays."""

        every_steps = 3

        def on_steps(self, training: gn.TrainingView) -> None:
            theirs.extend(backend.asarray(np.full(size, 7, np.float32)) for size in (1, 16, 36, 192, 250))

    expected, _ = trained("cuda")
    assert distance(trained("cuda", callbacks=[Taking()])[0], expected) == 0
    assert len(theirs) > 20
    assert all((backend.to_host(array) == 7).all() for array in theirs)


@pytest.mark.parametrize("order", [LATE, 1])
def test_array_code_is_in_order_with_the_kernels_around_it(cuda: Core, order: int) -> None:
    expected, _ = trained("cuda", capture=False)
    cuda.set_order(order)
    assert distance(trained("cuda", capture=False)[0], expected) == 0
    assert distance(trained("cuda")[0], expected) == 0


def test_array_code_that_reads_a_number_trains_kernel_by_kernel_and_says_so_once(cuda: Core, said: list[str]) -> None:
    class Looking(Scale):
        def forward(self, x: Any, training: bool) -> Any:
            assert np.isfinite(float(x.sum()))
            return super().forward(x, training)

    model = gn.Sequential([gn.Dense(3), Looking()])
    model.fit(data(), loss=Huber(), optimizer=Lion(), epochs=2, batch_size=16, device="cuda", progress=False)
    assert len([text for text in said if "training kernel by kernel, not by graph: " in text]) == 1
    assert cuda.count("cudaGraphLaunch") == 0


class Running(gn.Layer):
    """Subtracts a running mean of each feature, which it binds to a new array at each step."""

    def build(self, context: Any, input_shape: Any) -> Any:
        self.mean, self.count = context.backend.zeros((input_shape[0], 1), context.dtype), 0
        return input_shape

    def forward(self, x: Any, training: bool) -> Any:
        self.centered = x - self.mean
        self.keep(x)
        return self.centered * 1

    def keep(self, x: Any) -> None:
        self.mean = 0.9 * self.mean + 0.1 * x.mean(axis=1, keepdims=True)

    def backward(self, dy: Any) -> Any:
        self.factor = self.centered[:1] * 0 + 1
        return dy * self.factor


class InPlace(Running):
    def keep(self, x: Any) -> None:
        self.mean[...] = 0.9 * self.mean + 0.1 * x.mean(axis=1, keepdims=True)


class Counting(InPlace):
    def keep(self, x: Any) -> None:
        self.count += 1
        self.mean[...] = x.mean(axis=1, keepdims=True) / self.count


@pytest.mark.parametrize(("layer", "name"), [(Running, "mean"), (Counting, "count"), (InPlace, "")])
def test_state_that_a_step_binds_anew_is_found_and_trained_kernel_by_kernel(
    cuda: Core, said: list[str], layer: type[Running], name: str
) -> None:
    trained = []
    for capture in (True, False):
        model = gn.Sequential([gn.Dense(3), layer(), gn.Dense(3)])
        given: dict[str, Any] = {"optimizer": gn.SGD(0.001), "epochs": 2, "batch_size": 16, "progress": False}
        model.fit(data(), device="cuda", capture=capture, **given)
        trained.append(model)
    assert distance(*trained) == 0
    assert (cuda.count("cudaGraphLaunch") == 0) == bool(name)
    found = [text for text in said if "kernel by kernel" in text]
    assert len(found) == bool(name)
    if name:
        assert f"{layer.__name__} binds self.{name} to something new at each step: write in place" in found[0]
        assert "\n" not in found[0]
    assert "__getattribute__" not in vars(layer)
    assert "__setattr__" not in vars(layer)


def test_an_optimizer_and_a_loss_are_watched_too(cuda: Core, said: list[str]) -> None:
    class Averaging(gn.Optimizer):
        def change(self, xp: Any, values: Any, gradients: Any, rate: Any, count: Any) -> Any:
            self.mean = 0.5 * getattr(self, "mean", 0 * gradients) + gradients
            return rate * self.mean

    class Sloping(Huber):
        slope = 1.0

        def derivative(self, xp: Any, y: Any, t: Any) -> Any:
            self.slope = self.slope * 0.99
            return super().derivative(xp, y, t) * self.slope

    for given in ({"optimizer": Averaging(0.01)}, {"loss": Sloping()}):
        said.clear()
        arguments: dict[str, Any] = {"epochs": 2, "batch_size": 16, "device": "cuda", "progress": False, **given}
        both = [gn.Sequential([gn.Dense(3)]) for _ in range(2)]
        both[0].fit(data(), **arguments)
        assert "binds self." in " ".join(said)
        if "optimizer" in given:
            arguments["optimizer"] = Averaging(0.01)
        both[1].fit(data(), **arguments, capture=False)
        assert distance(*both) == 0


def test_weighted_samples_and_bundled_optimizers_go_with_array_code(cuda: Core) -> None:
    weights = np.random.default_rng(1).uniform(0, 2, 250)
    for optimizer in (gn.SGD(0.05), gn.Adam(0.01), gn.SGD(0.05, momentum=0.9)):
        x = data().train.inputs
        given: dict[str, Any] = {"loss": Huber(), "optimizer": optimizer, "regularizer": SmoothL1(5.0), "epochs": 2}
        both = []
        for device in ("cuda", "cpu"):
            model = gn.Sequential([gn.Dense(12), Swish(), gn.Dense(1)])
            targets = x[:, :1] * x[:, 1:2]
            model.fit(x, targets, sample_weight=weights[: len(x)], device=device, progress=False, **given)
            both.append(model)
        assert distance(*both) < 1e-3


def test_kernels_before_array_code_are_compiled_ahead_and_the_weights_stay(cuda: Core) -> None:
    """A rehearsal computes nothing, array code neither."""
    model = gn.Sequential([gn.Dense(3), Scale()]).build((6,), 16, "cuda")
    backend = select("cuda")
    before, shown, x = model.arrays(), list[int](), backend.zeros((6, 4), np.float32)
    backend.compile_ahead(lambda: model.propagate(x, True, model.stages), lambda number, _: shown.append(number))
    assert all(np.array_equal(value, before[name]) for name, value in model.arrays().items())
    model.propagate(x, True, model.stages)
    assert model.arrays()["scale1.seen"] == [1]


def test_a_run_on_a_device_resumes_to_the_same_bytes(
    cuda: Core, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, allow = own_folder(tmp_path, monkeypatch), ("--allow-import", "support.outside")
    without_pictures(monkeypatch)
    (folder / "own.toml").write_text(experiment("support.outside", "digits", device="cuda", epochs=2, batch_size=100))
    done = gpunn("train", "--recipe", "own.toml", "--out", "run", *allow)
    assert done.code == 0, done.err
    assert cuda.count("cudaGraphLaunch") > 0
    whole = (folder / "run" / "model.safetensors").read_bytes()
    (folder / "run" / "metrics.json").unlink()  # as if it had been killed
    resumed = gpunn("train", "--resume", "run/checkpoints/step-20", *allow)
    assert resumed.code == 0, resumed.err
    assert (folder / "run" / "model.safetensors").read_bytes() == whole


def test_metrics_of_records_are_measured_where_the_samples_lie_and_change_nothing(cuda: Core) -> None:
    found = []
    for device, metrics in (("cuda", ["f1"]), ("cuda", []), ("cpu", ["f1"])):
        model = gn.Sequential([gn.Dense(3)])
        given: dict[str, Any] = {"epochs": 2, "batch_size": 16, "progress": False}
        found.append((model, model.fit(data(labels=True), device=device, metrics=metrics, **given)))
    (asked, history), (plain, _), (_, host) = found
    assert cuda.count("cudaGraphLaunch") > 0
    assert distance(asked, plain) == 0
    assert history["f1"] == pytest.approx(host["f1"], abs=1e-6)
