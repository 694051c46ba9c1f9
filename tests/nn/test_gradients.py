"""Every gradient against float64 central differences: (5)-(16), one layer, every cost, and stacks of any depth."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.harness import central_differences, relative_error

import gpunn as gn
from gpunn.backend.base import Backend
from gpunn.nn.layers.base import Layer
from gpunn.nn.layers.dense import BiasActivation
from gpunn.nn.losses import Loss
from gpunn.train.optimizers import Regularizer

ERROR = 1e-6
H = 1e-5
SMOOTH = [gn.Sigmoid, gn.Tanh, gn.Softplus]
KINKED = [gn.ReLU, gn.LeakyReLU]


def built(layers: Sequence[Layer], shape: tuple[int, ...], backend: Backend, seed: int = 0) -> gn.Sequential:
    return gn.Sequential(layers).build(shape, 8, backend, "float64", seed)


def targets_for(loss: Loss, n: int, outputs: int, rng: np.random.Generator) -> NDArray[Any]:
    if isinstance(loss, gn.SoftmaxCrossEntropy):
        return rng.integers(0, outputs, n)
    if isinstance(loss, gn.BinaryCrossEntropy):
        return rng.uniform(0, 1, (n, outputs))
    return rng.normal(size=(n, outputs))


def is_near_a_kink(model: gn.Sequential, x: NDArray[Any]) -> bool:
    """Whether a small change of a parameter may take an input of a ReLU from one side of 0 to the other."""
    backend, stages = model.backend, model.stages
    assert backend is not None
    for number, stage in enumerate(stages):
        fused = isinstance(stage, BiasActivation)
        if isinstance(stage.activation if fused else stage, gn.ReLU | gn.LeakyReLU):
            before = [*stages[:number], stage.bias] if fused else stages[:number]
            z = model.propagate(backend.asarray(x.T), False, before)
            if np.abs(backend.to_host(z)).min() < 100 * H:
                return True
    return False


def check(model: gn.Sequential, loss: Loss, x: NDArray[Any], t: NDArray[Any]) -> None:
    """The gradient of every parameter is that of the cost."""
    backend = model.backend
    assert backend is not None
    loss.forward(model.forward(x, training=True), t)
    model.backward(loss.backward())
    gradients = {p.name: backend.to_host(p.grad) for p in model.parameters}
    for p in model.parameters:
        values = backend.to_host(p.value)

        def cost(p: Any = p, values: NDArray[Any] = values) -> float:
            backend.assign(p.value, values)
            return float(loss.forward(model.forward(x, training=True), t))

        numeric = central_differences(cost, values, H)
        # The cost is rounded, so its differences are known to no more digits than this.
        noise = 8 * np.finfo(np.float64).eps * max(1.0, abs(cost())) / H
        if np.abs(numeric - gradients[p.name]).max() > noise:
            assert relative_error(gradients[p.name], numeric) <= ERROR, p.name


@pytest.mark.parametrize("loss", [gn.MeanSquaredError, gn.BinaryCrossEntropy, gn.SoftmaxCrossEntropy])
@pytest.mark.parametrize("activation", [*SMOOTH, gn.Softmax])
def test_back_propagation_through_an_activation(backend: Backend, activation: type[Layer], loss: type[Loss]) -> None:
    rng = np.random.default_rng(1)
    model = built([gn.Dense(5), activation(), gn.Dense(4)], (3,), backend)
    check(model, loss(), rng.normal(size=(6, 3)), targets_for(loss(), 6, 4, rng))


@pytest.mark.parametrize("activation", [*SMOOTH, gn.Softmax])
def test_back_propagation_from_a_last_activation(backend: Backend, activation: type[Layer]) -> None:
    rng = np.random.default_rng(2)
    model = built([gn.Dense(4), activation()], (3,), backend)
    check(model, gn.MeanSquaredError(), rng.normal(size=(6, 3)), rng.normal(size=(6, 4)))


@pytest.mark.parametrize("layer", [gn.ReLU(), gn.LeakyReLU(0.1), gn.LeakyReLU(-0.5), gn.LeakyReLU(1.0)], ids=repr)
@pytest.mark.parametrize("is_last", [False, True])
def test_back_propagation_through_a_kinked_activation(backend: Backend, layer: Layer, is_last: bool) -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(6, 3))
        model = built([gn.Dense(5), layer] if is_last else [gn.Dense(5), layer, gn.Dense(5)], (3,), backend, seed)
        if not is_near_a_kink(model, x):
            check(model, gn.MeanSquaredError(), x, rng.normal(size=(6, 5)))
            return
    pytest.fail("every draw lies near a kink")


def test_back_propagation_through_a_batch_of_one(backend: Backend) -> None:
    rng = np.random.default_rng(3)
    model = built([gn.Dense(4), gn.Tanh(), gn.Dense(3), gn.Sigmoid()], (5,), backend)
    check(model, gn.MeanSquaredError(), rng.normal(size=(1, 5)), rng.normal(size=(1, 3)))


def test_back_propagation_through_single_units(backend: Backend) -> None:
    rng = np.random.default_rng(4)
    model = built([gn.Dense(1), gn.Softplus(), gn.Dense(1)], (1,), backend)
    check(model, gn.MeanSquaredError(), rng.normal(size=(3, 1)), rng.normal(size=(3, 1)))


def test_back_propagation_through_activations_in_a_row(backend: Backend) -> None:
    """None overwrites the output that the derivative of the one before is written from."""
    rng = np.random.default_rng(6)
    model = built([gn.Dense(4), gn.Sigmoid(), gn.Tanh(), gn.Softplus(), gn.Sigmoid(), gn.Dense(3)], (5,), backend)
    check(model, gn.MeanSquaredError(), rng.normal(size=(6, 5)), rng.normal(size=(6, 3)))


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_back_propagation_through_stacks_of_any_depth(backend: Backend, data: st.DataObject) -> None:
    choice = st.sampled_from([*SMOOTH, *KINKED])
    flat = data.draw(st.booleans(), label="images")
    shape = (2, 2, data.draw(st.integers(1, 2))) if flat else (data.draw(st.integers(1, 5)),)
    layers: list[Layer] = [gn.Flatten()] if flat else []
    for _ in range(data.draw(st.integers(1, 4), label="depth")):
        layers.append(gn.Dense(data.draw(st.integers(1, 5))))
        layers += [data.draw(choice)() for _ in range(data.draw(st.integers(0, 3)))]
        if data.draw(st.booleans()):
            layers.append(gn.Flatten())
    outputs = data.draw(st.integers(1, 4))
    layers.append(gn.Dense(outputs))
    if data.draw(st.booleans()):
        layers.append(data.draw(st.sampled_from([gn.Sigmoid, gn.Tanh, gn.Softplus, gn.Softmax]))())
    loss = data.draw(st.sampled_from([gn.MeanSquaredError, gn.BinaryCrossEntropy, gn.SoftmaxCrossEntropy]))()
    n, seed = data.draw(st.integers(1, 8)), data.draw(st.integers(0, 999))

    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, *shape))
    model = built(layers, shape, backend, seed)
    assume(not is_near_a_kink(model, _rows(x)))
    check(model, loss, x, targets_for(loss, n, outputs, rng))


def _rows(x: NDArray[Any]) -> NDArray[Any]:
    """Samples as rows, images in the order channel, height, width."""
    return (x.transpose(0, 3, 1, 2) if x.ndim == 4 else x).reshape(len(x), -1)


@pytest.mark.parametrize(
    "loss",
    [
        gn.MeanSquaredError(),
        gn.BinaryCrossEntropy(),
        gn.SoftmaxCrossEntropy(),
        gn.SoftmaxCrossEntropy(label_smoothing=0.3),
    ],
    ids=repr,
)
@pytest.mark.parametrize("n", [1, 5])
def test_the_gradient_of_a_cost_by_the_output(backend: Backend, loss: Loss, n: int) -> None:
    rng = np.random.default_rng(n)
    y, t = rng.normal(0, 3, (n, 4)), targets_for(loss, n, 4, rng)
    loss.forward(backend.asarray(y), t)
    gradient = backend.to_host(loss.backward())
    numeric = central_differences(lambda: float(loss.forward(backend.asarray(y), t)), y)
    assert gradient.shape == (n, 4)
    assert relative_error(gradient, numeric) <= ERROR


class _KeepsGradients(gn.SGD):
    """Plain SGD that is never folded into the product: by its kernel, as on a device."""

    def _build(self) -> None:
        super()._build()
        p = self.parameters
        self._folded = []
        self._values, self._gradients, self._decayed = p.values, p.gradients, p.decayed


@pytest.mark.parametrize("optimizer", [gn.SGD, _KeepsGradients])
@pytest.mark.parametrize("regularizer", [None, gn.L2(7.0), gn.L1(0.7)], ids=repr)
def test_an_update_follows_the_gradient_of_the_regularised_cost(
    backend: Backend, regularizer: Regularizer | None, optimizer: type[gn.SGD]
) -> None:
    """(17)-(22): p := p - η ∂(C₀ + λR)/∂p, R over weights only and with n the size of the training set."""
    rng = np.random.default_rng(5)
    x, labels = rng.normal(size=(20, 3)), rng.integers(0, 4, 20)
    eta, model, loss = 0.25, gn.Sequential([gn.Dense(5), gn.Tanh(), gn.Dense(4)]), gn.SoftmaxCrossEntropy()
    model.build((3,), 20, backend, "float64", 3)
    before = model.parameters.to_host()
    for p in model.parameters:
        if not p.weight_decay:
            backend.assign(p.value, rng.normal(size=p.shape))
    before = model.parameters.to_host()

    def cost(values: dict[str, NDArray[Any]]) -> float:
        model.parameters.load(values)
        weights = np.concatenate([values[p.name].ravel() for p in model.parameters if p.weight_decay])
        penalty = 0.0
        if isinstance(regularizer, gn.L2):
            penalty = 7.0 * np.square(weights).sum() / (2 * 20)
        elif isinstance(regularizer, gn.L1):
            penalty = 0.7 * np.abs(weights).sum() / 20
        return float(loss.forward(model.forward(x), labels)) + penalty

    numeric = {name: central_differences(lambda: cost(before), values) for name, values in before.items()}
    model.parameters.load(before)
    data = gn.Data("toy", gn.Samples(x, labels, classes=4), None, ("a", "b", "c", "d"))
    options = {"optimizer": optimizer(eta), "regularizer": regularizer, "device": backend, "dtype": "float64"}
    model.fit(data, loss=loss, epochs=1, batch_size=20, progress=False, **options)
    for name, after in model.parameters.to_host().items():
        assert relative_error((before[name] - after) / eta, numeric[name]) <= ERROR, name
