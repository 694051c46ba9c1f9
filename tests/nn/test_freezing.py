"""Frozen layers: what is not trainable stays to the last bit, and the rest learns as if it were a function."""

import copy
from typing import Any

import numpy as np
import pytest
from support.harness import one_line

import gpunn as gn
from gpunn.backend.base import Backend
from gpunn.config import from_config, to_config
from gpunn.errors import GpunnError, OptionError, ShapeError
from gpunn.nn.layers import Layer

KW: dict[str, Any] = {"progress": False, "epochs": 2, "batch_size": 16, "dtype": "float64"}


def images(n: int = 60) -> gn.Samples:
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 3
    return gn.Samples(rng.normal(size=(n, 6, 6, 1)) + labels[:, None, None, None], labels)


def layers() -> list[Layer]:
    return [
        gn.Conv2D(3), gn.BatchNorm(), gn.ReLU(), gn.Conv2D(3, size=2, groups=3), gn.LeakyReLU(), gn.MaxPool2D(),
        gn.Flatten(), gn.Dense(7),
        gn.Tanh(), gn.BatchNorm(), gn.Dropout(0.25), gn.Dense(5), gn.Dense(3),
    ]  # fmt: skip


def built(backend: Backend, frozen: set[int] | None = None) -> gn.Sequential:
    model = gn.Sequential(layers())
    for at in frozen or ():
        model.layers[at].trainable = False
    return model.build((6, 6, 1), 16, backend, "float64", 1)


WITH_WEIGHTS = (0, 1, 3, 7, 9, 11, 12)
OPTIMIZERS = [
    lambda: gn.SGD(0.02),
    lambda: gn.SGD(0.02, momentum=0.9),
    lambda: gn.Adam(0.01),
    lambda: gn.AdamW(0.01, 0.1),
]


@pytest.mark.parametrize("make", OPTIMIZERS, ids=["plain", "momentum", "adam", "adamw"])
@pytest.mark.parametrize("regularizer", [None, gn.L2(3.0), gn.L1(0.5)], ids=repr)
@pytest.mark.parametrize("frozen", [{0}, {12}, {0, 1, 3}, {1, 9}, {3, 7, 11}, {0, 1, 3, 7, 9, 11}], ids=str)
def test_what_is_frozen_stays_and_the_rest_learns(
    backend: Backend, frozen: set[int], regularizer: Any, make: Any
) -> None:
    model = built(backend, frozen)
    before = model.arrays()
    model.fit(images(), optimizer=make(), regularizer=regularizer, device=backend, **KW)
    names = {model.layers[at].name for at in frozen}
    for name, after in model.arrays().items():
        is_same = np.array_equal(after, before[name])
        assert is_same == (name.split(".")[0] in names), name
    for p in model.parameters:
        assert (p.grad is None) == (p.name.split(".")[0] in names)


@pytest.mark.parametrize("frozen", [{0}, {12}, {3, 7}, {0, 3, 7, 11}], ids=str)
def test_the_gradients_of_the_rest_are_those_of_a_network_with_nothing_frozen(
    backend: Backend, frozen: set[int]
) -> None:
    gradients = []
    for which in (set(), frozen):
        model, loss = built(backend, which), gn.SoftmaxCrossEntropy()
        loss.forward(model.forward(images().inputs[:16], training=True), images().targets[:16])
        model.backward(loss.backward())
        gradients.append({p.name: backend.to_host(p.grad) for p in model.parameters if p.grad is not None})
    assert set(gradients[1]) < set(gradients[0])
    for name, gradient in gradients[1].items():
        np.testing.assert_allclose(gradient, gradients[0][name], rtol=1e-12, atol=1e-15, err_msg=name)


def test_the_steps_of_the_rest_are_those_of_a_network_with_nothing_frozen(backend: Backend) -> None:
    """One step of plain SGD, which folds the update into the product."""
    after = []
    for which in (set(), {7, 12}):
        model = built(backend, which)
        model.fit(
            images(),
            optimizer=gn.SGD(0.1),
            regularizer=gn.L2(2.0),
            device=backend,
            **KW | {"epochs": 1, "batch_size": 54},
        )
        after.append(model.arrays())
    for at in (0, 3, 11):
        name = f"{model.layers[at].name}.w"
        np.testing.assert_allclose(after[1][name], after[0][name], rtol=1e-10, atol=1e-14)


def test_no_gradient_is_computed_below_what_learns(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    model, loss = built(backend, {0, 1, 3, 7, 9}), gn.SoftmaxCrossEntropy()
    loss.forward(model.forward(images().inputs[:16], training=True), images().targets[:16])
    for at in range(9):
        monkeypatch.setattr(model.layers[at], "backward", None)  # to call it is an error
    model.backward(loss.backward())
    assert backend.to_host(model.parameters["dense2.w"].grad).any()


def test_frozen_batchnorm_is_differentiated_as_the_function_that_it_is(backend: Backend) -> None:
    """∂C/∂w below it, against central differences of the cost with the statistics that it remembers."""
    model, loss = gn.Sequential([gn.Dense(4), gn.BatchNorm(), gn.Tanh(), gn.Dense(3)]), gn.SoftmaxCrossEntropy()
    model.layers[1].trainable = False
    model.build((5,), 16, backend, "float64", 1)
    rng = np.random.default_rng(0)
    model.load_arrays({name: rng.uniform(0.5, 1.5, a.shape) for name, a in model.arrays().items()})
    x, labels = rng.normal(size=(8, 5)), np.arange(8) % 3
    loss.forward(model.forward(x, training=True), labels)
    model.backward(loss.backward())
    gradient = backend.to_host(model.parameters["dense1.w"].grad)
    values = model.arrays()
    for at in np.ndindex(4, 5):
        costs = []
        for h in (1e-6, -1e-6):
            moved = copy.deepcopy(values)
            moved["dense1.w"][at] += h
            model.load_arrays(moved)
            costs.append(float(loss.forward(model.forward(x, training=True), labels)))
        assert (costs[0] - costs[1]) / 2e-6 == pytest.approx(gradient[at], rel=1e-5, abs=1e-8)


def test_a_frozen_layer_does_in_training_what_it_does_in_use(backend: Backend) -> None:
    model = gn.Sequential([gn.BatchNorm(), gn.Dropout(0.5), gn.Dense(3)]).build((4,), 8, backend, "float64", 1)
    x = np.random.default_rng(0).normal(size=(8, 4))
    used = backend.to_host(model.forward(x))
    assert not np.array_equal(backend.to_host(model.forward(x, training=True)), used)
    used = backend.to_host(model.forward(x))  # by running averages of one batch
    for layer in model.layers[:2]:
        layer.trainable = False
    np.testing.assert_array_equal(backend.to_host(model.forward(x, training=True)), used)
    np.testing.assert_array_equal(backend.to_host(model.forward(x)), used)
    model.forward(x[:1], training=True)  # one sample has no variance, and none is asked for
    model.layers[0].trainable = True
    with pytest.raises(ShapeError, match="at least two values"):
        model.forward(x[:1], training=True)


def test_frozen_statistics_are_not_computed_again(backend: Backend) -> None:
    model = built(backend, {1})
    before = model.arrays()
    model.fit(images(), recompute_statistics=True, device=backend, **KW)
    after = model.arrays()
    for word in ("mean", "variance", "gamma", "beta"):
        np.testing.assert_array_equal(after[f"batchnorm1.{word}"], before[f"batchnorm1.{word}"])
        assert not np.array_equal(after[f"batchnorm2.{word}"], before[f"batchnorm2.{word}"])


def test_layers_are_frozen_and_released_between_trainings(backend: Backend) -> None:
    model, optimizer = built(backend), gn.SGD(0.02, momentum=0.9)
    for frozen in ({0, 1}, {12}, set()):
        for at in WITH_WEIGHTS:
            model.layers[at].trainable = at not in frozen
        before = model.arrays()
        model.fit(images(), optimizer=optimizer, device=backend, **KW)
        same = {name for name, after in model.arrays().items() if np.array_equal(after, before[name])}
        assert {name.split(".")[0] for name in same} == {model.layers[at].name for at in frozen}


def test_momentum_of_what_stays_trainable_is_kept(backend: Backend) -> None:
    model, optimizer = built(backend), gn.SGD(0.02, momentum=0.9)
    model.fit(images(), optimizer=optimizer, device=backend, **KW)
    assert model.optimizer_memory is not None
    velocity = dict(model.optimizer_memory.arrays["velocity"])
    model.layers[0].trainable = False
    model.fit(images(), optimizer=optimizer, device=backend, **KW)
    assert set(model.optimizer_memory.arrays["velocity"]) == set(velocity) - {"conv1.w", "conv1.b"}


def test_a_network_all_of_which_is_frozen_cannot_be_trained(backend: Backend) -> None:
    model = built(backend)
    model.trainable = False
    assert not model.trainable
    with pytest.raises(OptionError, match="every layer with weights is frozen") as caught:
        model.fit(images(), device=backend, **KW)
    one_line(caught.value)
    model.trainable = True
    model.fit(images(), device=backend, **KW)


def test_the_setting_is_in_files_configurations_and_copies(backend: Backend, tmp_path: Any) -> None:
    model = built(backend, {0, 1})
    model.save(tmp_path / "model.safetensors")
    loaded = gn.load_model(tmp_path / "model.safetensors", backend.device)
    for one in (loaded, copy.deepcopy(model), copy.copy(model), gn.Sequential(model.layers)):
        assert [at for at, layer in enumerate(one.layers) if not layer.trainable] == [0, 1]
    before = loaded.arrays()
    loaded.fit(images(), device=backend, **KW)
    np.testing.assert_array_equal(loaded.arrays()["conv1.w"], before["conv1.w"])
    layer = gn.Dense(3)
    assert "trainable" not in to_config(layer)
    layer.trainable = False
    assert not from_config("layer", to_config(layer)).trainable
    assert from_config("layer", {"type": "Dense", "units": 3, "trainable": True}).trainable
    for kind, value in (("layer", 1), ("layer", "no"), ("loss", False)):
        with pytest.raises(GpunnError, match="trainable"):
            from_config(kind, {"type": "ReLU" if kind == "layer" else "MeanSquaredError", "trainable": value})


def test_a_summary_says_what_is_frozen(backend: Backend) -> None:
    text = built(backend, {0, 1}).summary()
    assert "Conv2D(filters=3, size=3), frozen" in text
    assert f"({3 * 9 + 3 + 6} frozen)" in text
