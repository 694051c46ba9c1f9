"""Against PyTorch in float64: outputs, every gradient, costs and whole trajectories, over random shapes.

PyTorch is an oracle for the tests and never a dependency. Where it is missing these tests are skipped, unless
GPUNN_REQUIRE_ALL=1.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import gpunn as gn
from gpunn.data import Data
from gpunn.kernels.random import epoch_order
from gpunn.nn.layers import Layer
from gpunn.nn.losses import Loss
from gpunn.train.optimizers import Regularizer

ERROR = 1e-10


def assert_agree(ours: Any, theirs: Any, what: str = "") -> None:
    """Equal to 1e-10, relative to the largest element, or to 1e-3 where all are smaller.

    A saturated unit has f′ = (1 − a)(1 + a) with few digits left of 1 − a, in both libraries.
    """
    ours, theirs = np.asarray(ours), theirs.detach().numpy()
    assert ours.shape == theirs.shape, what
    size = max(1e-3, float(np.abs(theirs).max(initial=0.0)))
    assert float(np.abs(ours - theirs).max(initial=0.0)) <= ERROR * size, what


ACTIVATIONS: list[Any] = [gn.Sigmoid, gn.Tanh, gn.ReLU, gn.LeakyReLU, gn.Softplus, gn.Softmax]


def theirs_of(torch: Any, layer: Layer) -> Any:
    """The same layer of theirs; a Dense comes with its shapes once they are known."""
    nn = torch.nn
    return {
        "Sigmoid": nn.Sigmoid,
        "Tanh": nn.Tanh,
        "ReLU": nn.ReLU,
        "LeakyReLU": lambda: nn.LeakyReLU(0.01),
        "Softplus": lambda: nn.Softplus(threshold=1000),
        "Softmax": lambda: nn.Softmax(dim=1),
        "Flatten": nn.Flatten,
    }[type(layer).__name__]()


def pair(torch: Any, layers: Sequence[Layer], shape: tuple[int, ...], batch_size: int, seed: int) -> tuple[Any, Any]:
    """Our network, and theirs with its weights."""
    model = gn.Sequential(layers).build(shape, batch_size, "cpu", "float64", seed)
    rng = np.random.default_rng(seed)
    twins, inputs = [], int(np.prod(shape))
    for layer in layers:
        if isinstance(layer, gn.Dense):
            twin = torch.nn.Linear(inputs, layer.units, dtype=torch.float64)
            inputs = layer.units
            w, b = model.parameters[f"{layer.name}.w"], model.parameters[f"{layer.name}.b"]
            b.value[...] = rng.normal(size=b.shape)
            with torch.no_grad():
                twin.weight.copy_(torch.from_numpy(w.value.copy()))
                twin.bias.copy_(torch.from_numpy(b.value.copy()))
            twins.append(twin)
        else:
            twins.append(theirs_of(torch, layer))
    return model, torch.nn.Sequential(*twins)


def parameters_of(model: gn.Sequential, theirs: Any) -> list[tuple[Any, Any]]:
    return list(zip(model.parameters, theirs.parameters(), strict=True))


def cost_of(torch: Any, loss: Loss, y: Any, t: NDArray[Any]) -> Any:
    """The cost of theirs, normalised as equations.md has it: summed over outputs, averaged over samples."""
    functional = torch.nn.functional
    if isinstance(loss, gn.SoftmaxCrossEntropy):
        return functional.cross_entropy(y, torch.from_numpy(t))
    if isinstance(loss, gn.BinaryCrossEntropy):
        return functional.binary_cross_entropy_with_logits(y, torch.from_numpy(t), reduction="sum") / len(t)
    return functional.mse_loss(y, torch.from_numpy(t), reduction="sum") / len(t)


def costs_of(torch: Any, loss: Loss, y: Any, t: NDArray[Any]) -> Any:
    """The cost of each sample of theirs, (n,)."""
    functional = torch.nn.functional
    if isinstance(loss, gn.SoftmaxCrossEntropy):
        return functional.cross_entropy(y, torch.from_numpy(t), reduction="none")
    if isinstance(loss, gn.BinaryCrossEntropy):
        return functional.binary_cross_entropy_with_logits(y, torch.from_numpy(t), reduction="none").sum(dim=1)
    return functional.mse_loss(y, torch.from_numpy(t), reduction="none").sum(dim=1)


def targets_for(loss: Loss, n: int, outputs: int, rng: np.random.Generator) -> NDArray[Any]:
    if isinstance(loss, gn.SoftmaxCrossEntropy):
        return rng.integers(0, outputs, n)
    return rng.uniform(0, 1, (n, outputs))


@st.composite
def stacks(draw: st.DrawFn) -> tuple[list[Layer], tuple[int, ...]]:
    """Layers of any depth and width, for features or images."""
    is_image = draw(st.booleans())
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=3, max_size=3))) if is_image else (draw(st.integers(1, 9)),)
    layers: list[Layer] = [gn.Flatten()] if is_image else []
    for _ in range(draw(st.integers(0, 4))):
        layers.append(gn.Dense(draw(st.integers(1, 9))))
        layers.append(draw(st.sampled_from(ACTIVATIONS))())
    layers.append(gn.Dense(draw(st.integers(1, 6))))
    if draw(st.booleans()):
        layers.append(draw(st.sampled_from(ACTIVATIONS))())
    return layers, shape


@settings(deadline=None, max_examples=150)
@given(
    stacks(),
    st.sampled_from([gn.MeanSquaredError, gn.BinaryCrossEntropy, gn.SoftmaxCrossEntropy]),
    st.integers(1, 12),
    st.integers(0, 999),
    st.sampled_from([0.1, 1.0, 30.0]),
)
def test_outputs_costs_and_gradients_are_pytorchs(
    torch: Any, stack: tuple[list[Layer], tuple[int, ...]], kind: type[Loss], n: int, seed: int, size: float
) -> None:
    layers, shape = stack
    model, theirs = pair(torch, layers, shape, n, seed)
    rng, loss = np.random.default_rng(seed + 1), kind()
    x = rng.normal(0, size, (n, *shape))
    y = model.forward(x, training=True)
    given_x = torch.from_numpy(x if x.ndim == 2 else np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
    expected = theirs(given_x)
    assert_agree(y, expected, "outputs")

    t = targets_for(loss, n, y.shape[1], rng)
    expected.retain_grad()
    cost = cost_of(torch, loss, expected, t)
    cost.backward()
    assert_agree(loss.forward(y, t), cost, "cost")
    assert_agree(loss.backward(), expected.grad, "gradient of the cost")
    model.backward(loss.backward())
    for ours, twin in parameters_of(model, theirs):
        assert_agree(ours.grad, twin.grad, ours.name)


@settings(deadline=None, max_examples=100)
@given(
    st.sampled_from([gn.MeanSquaredError, gn.BinaryCrossEntropy, gn.SoftmaxCrossEntropy]),
    st.integers(1, 20),
    st.integers(1, 20),
    st.sampled_from([1e-3, 1.0, 30.0, 1000.0]),
    st.integers(0, 999),
)
def test_costs_are_pytorchs_near_and_far(
    torch: Any, kind: type[Loss], n: int, outputs: int, size: float, seed: int
) -> None:
    rng, loss = np.random.default_rng(seed), kind()
    z, t = rng.normal(0, size, (n, outputs)), targets_for(loss, n, outputs, rng)
    logits = torch.from_numpy(z.copy()).requires_grad_()
    cost = cost_of(torch, loss, logits, t)
    cost.backward()
    assert_agree(loss.forward(z, t), cost)
    assert_agree(loss.backward(), logits.grad)


@settings(deadline=None, max_examples=100)
@given(
    st.sampled_from([gn.MeanSquaredError, gn.BinaryCrossEntropy, gn.SoftmaxCrossEntropy]),
    st.integers(1, 20),
    st.integers(1, 20),
    st.sampled_from([1e-3, 1.0, 1000.0]),
    st.integers(0, 999),
)
def test_weighted_costs_are_pytorchs(
    torch: Any, kind: type[Loss], n: int, outputs: int, size: float, seed: int
) -> None:
    rng, loss = np.random.default_rng(seed), kind()
    z, t = rng.normal(size=(n, outputs)), targets_for(loss, n, outputs, rng)
    w = rng.choice([0, 1, 1], n) * rng.uniform(0, size, n)
    w[-1] = size
    logits = torch.from_numpy(z.copy()).requires_grad_()
    cost = (torch.from_numpy(w) * costs_of(torch, loss, logits, t)).sum() / w.sum()
    cost.backward()
    assert_agree(loss.forward(z, t, sample_weight=w), cost)
    assert_agree(loss.backward(), logits.grad)


@settings(deadline=None, max_examples=60)
@given(
    st.floats(0, 0.99), st.integers(1, 20), st.integers(1, 20), st.sampled_from([1e-3, 1.0, 30.0, 1000.0]),
    st.booleans(), st.integers(0, 999),
)  # fmt: skip
def test_smoothed_labels_are_pytorchs(
    torch: Any, smoothing: float, n: int, outputs: int, size: float, weighs: bool, seed: int
) -> None:
    rng, loss = np.random.default_rng(seed), gn.SoftmaxCrossEntropy(label_smoothing=smoothing)
    z, labels = rng.normal(0, size, (n, outputs)), rng.integers(0, outputs, n)
    w = rng.uniform(0.1, 3, n) if weighs else np.ones(n)
    logits, given_labels = torch.from_numpy(z.copy()).requires_grad_(), torch.from_numpy(labels)
    criterion = torch.nn.CrossEntropyLoss(reduction="none", label_smoothing=smoothing)
    cost = (torch.from_numpy(w) * criterion(logits, given_labels)).sum() / w.sum()
    cost.backward()
    assert_agree(loss.forward(z, labels, sample_weight=w if weighs else None), cost)
    assert_agree(loss.backward(), logits.grad)


def test_weights_of_classes_are_those_of_pytorchs_cross_entropy(torch: Any) -> None:
    """Its `weight`, with the default reduction: Σ w_y c / Σ w_y."""
    rng, loss, weight = np.random.default_rng(0), gn.SoftmaxCrossEntropy(), np.array([0.5, 3.0, 0.0, 1.0])
    z, labels = rng.normal(size=(30, 4)), rng.integers(0, 4, 30)
    logits = torch.from_numpy(z.copy()).requires_grad_()
    cost = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels), weight=torch.from_numpy(weight))
    cost.backward()
    assert_agree(loss.forward(z, labels, sample_weight=weight[labels]), cost)
    assert_agree(loss.backward(), logits.grad)


@pytest.mark.parametrize("kind", [gn.MeanSquaredError, gn.BinaryCrossEntropy, gn.SoftmaxCrossEntropy])
def test_a_weighted_training_is_pytorchs_step_by_step(torch: Any, kind: type[Loss]) -> None:
    """Shuffled batches of m samples, each with the cost (1/m) Σ w c, the weights divided by their mean over all."""
    rng, loss, n, batch_size, epochs = np.random.default_rng(7), kind(), 50, 16, 5
    x, w = rng.normal(size=(n, 6)), rng.uniform(0, 3, n)
    t = targets_for(loss, n, 4, rng)
    model, theirs = pair(torch, [gn.Dense(7), gn.Tanh(), gn.Dense(4)], (6,), batch_size, 3)
    weights = [p for p in theirs.parameters() if p.ndim == 2]
    biases = [p for p in theirs.parameters() if p.ndim == 1]
    groups = [{"params": weights, "weight_decay": 2.0 / w.sum()}, {"params": biases}]
    optimizer, losses = torch.optim.SGD(groups, lr=0.05, momentum=0.9), []
    for epoch in range(epochs):
        order = epoch_order(n, seed=11, epoch=epoch)
        for start in range(0, n, batch_size):
            rows = order[start : start + batch_size]
            optimizer.zero_grad()
            costs = torch.from_numpy(w[rows]) * costs_of(torch, loss, theirs(torch.from_numpy(x[rows])), t[rows])
            (costs.sum() / (len(rows) * w.mean())).backward()
            losses.append(float(costs.sum().detach()) / w[rows].sum())
            optimizer.step()
    classes = 4 if t.ndim == 1 else 0
    data = Data("toy", gn.Samples(x, t, classes=classes, weights=w), None, tuple("abcd"[:classes]))
    history = model.fit(
        data, loss=loss, optimizer=gn.SGD(0.05, 0.9), regularizer=gn.L2(2.0), epochs=epochs, batch_size=batch_size,
        seed=11,
        dtype="float64", device="cpu", validate_every=1, progress=False,
    )  # fmt: skip
    for ours, twin in parameters_of(model, theirs):
        assert_agree(ours.value, twin, ours.name)
    np.testing.assert_allclose([record.train_loss for record in history], losses, rtol=1e-9)


OPTIMIZERS = {
    "plain": (lambda: gn.SGD(0.2), lambda torch, groups: torch.optim.SGD(groups, lr=0.2)),
    "momentum": (lambda: gn.SGD(0.05, 0.9), lambda torch, groups: torch.optim.SGD(groups, lr=0.05, momentum=0.9)),
    "nesterov": (
        lambda: gn.SGD(0.05, 0.9, nesterov=True),
        lambda torch, groups: torch.optim.SGD(groups, lr=0.05, momentum=0.9, nesterov=True),
    ),
    "adam": (lambda: gn.Adam(0.01), lambda torch, groups: torch.optim.Adam(groups, lr=0.01)),
    "adam of other constants": (
        lambda: gn.Adam(0.01, 0.7, 0.95, 1e-4),
        lambda torch, groups: torch.optim.Adam(groups, lr=0.01, betas=(0.7, 0.95), eps=1e-4),
    ),
}
DECAYING = {
    "of the defaults": (gn.AdamW, {}),
    "of other constants": (
        lambda: gn.AdamW(0.02, 0.3, 0.7, 0.95, 1e-4),
        {"lr": 0.02, "weight_decay": 0.3, "betas": (0.7, 0.95), "eps": 1e-4},
    ),
    "on a schedule": (lambda: gn.AdamW(gn.StepDecay(0.02, 0.5, 2), 0.3), {"lr": 0.02, "weight_decay": 0.3}),
}


@pytest.mark.parametrize("regularizer", [None, gn.L2(5.0), gn.L1(0.5)], ids=repr)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_training_is_pytorchs_step_by_step(torch: Any, name: str, regularizer: Regularizer | None) -> None:
    """Ten epochs of shuffled batches, the last one shorter; L2 is a weight decay of λ/n on weights only."""
    make, make_theirs = OPTIMIZERS[name]
    rng, n, batch_size, epochs = np.random.default_rng(7), 50, 16, 10
    x, labels = rng.normal(size=(n, 6)), rng.integers(0, 4, n)
    model, theirs = pair(torch, [gn.Dense(7), gn.Tanh(), gn.Dense(5), gn.ReLU(), gn.Dense(4)], (6,), batch_size, 3)

    strength = regularizer.strength / n if regularizer else 0.0
    decay = strength if isinstance(regularizer, gn.L2) else 0.0
    weights = [p for p in theirs.parameters() if p.ndim == 2]
    biases = [p for p in theirs.parameters() if p.ndim == 1]
    optimizer = make_theirs(torch, [{"params": weights, "weight_decay": decay}, {"params": biases}])
    costs = []
    for epoch in range(epochs):
        order = epoch_order(n, seed=11, epoch=epoch)
        for start in range(0, n, batch_size):
            rows = order[start : start + batch_size]
            optimizer.zero_grad()
            cost = cost_of(torch, gn.SoftmaxCrossEntropy(), theirs(torch.from_numpy(x[rows])), labels[rows])
            costs.append(float(cost.detach()))
            if isinstance(regularizer, gn.L1):
                cost = cost + strength * sum(w.abs().sum() for w in weights)
            cost.backward()
            optimizer.step()

    data = Data("toy", gn.Samples(x, labels, classes=4), None, ("a", "b", "c", "d"))
    history = model.fit(
        data, optimizer=make(), regularizer=regularizer, epochs=epochs, batch_size=batch_size, seed=11,
        dtype="float64", device="cpu", validate_every=1, progress=False,
    )  # fmt: skip
    for ours, twin in parameters_of(model, theirs):
        assert_agree(ours.value, twin, ours.name)
    assert len(history) == len(costs) == 40
    if regularizer is None:
        np.testing.assert_allclose([record.train_loss for record in history], costs, rtol=1e-9)


@pytest.mark.parametrize("name", DECAYING)
def test_adamw_is_pytorchs_with_biases_in_a_group_without_decay(torch: Any, name: str) -> None:
    """Ten epochs of shuffled batches, the last one shorter."""
    make, options = DECAYING[name]
    rng, n, batch_size, epochs = np.random.default_rng(7), 50, 16, 10
    x, labels = rng.normal(size=(n, 6)), rng.integers(0, 4, n)
    model, theirs = pair(torch, [gn.Dense(7), gn.Tanh(), gn.Dense(5), gn.ReLU(), gn.Dense(4)], (6,), batch_size, 3)
    weights = [p for p in theirs.parameters() if p.ndim == 2]
    biases = [p for p in theirs.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW([{"params": weights}, {"params": biases, "weight_decay": 0.0}], **options)
    halved = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5 if "schedule" in name else 1.0)
    for epoch in range(epochs):
        order = epoch_order(n, seed=11, epoch=epoch)
        for start in range(0, n, batch_size):
            rows = order[start : start + batch_size]
            optimizer.zero_grad()
            cost_of(torch, gn.SoftmaxCrossEntropy(), theirs(torch.from_numpy(x[rows])), labels[rows]).backward()
            optimizer.step()
        halved.step()
    data = Data("toy", gn.Samples(x, labels, classes=4), None, ("a", "b", "c", "d"))
    model.fit(
        data, optimizer=make(), epochs=epochs, batch_size=batch_size, seed=11, dtype="float64", device="cpu",
        progress=False,
    )  # fmt: skip
    for ours, twin in parameters_of(model, theirs):
        assert_agree(ours.value, twin, ours.name)


@pytest.mark.parametrize("decay", [0.9, 0.999])
def test_averaged_weights_are_pytorchs(torch: Any, decay: float) -> None:
    """Twenty steps of momentum, the last batch of an epoch shorter, and the records' losses."""
    rng, n, batch_size, epochs = np.random.default_rng(7), 50, 16, 5
    x, labels = rng.normal(size=(n, 6)), rng.integers(0, 4, n)
    model, theirs = pair(torch, [gn.Dense(7), gn.Tanh(), gn.Dense(4)], (6,), batch_size, 3)
    optimizer = torch.optim.SGD(theirs.parameters(), 0.1, momentum=0.9)
    utils = torch.optim.swa_utils
    averaged, losses = utils.AveragedModel(theirs, multi_avg_fn=utils.get_ema_multi_avg_fn(decay)), []
    for epoch in range(epochs):
        order = epoch_order(n, seed=11, epoch=epoch)
        for start in range(0, n, batch_size):
            rows = order[start : start + batch_size]
            optimizer.zero_grad()
            cost_of(torch, gn.SoftmaxCrossEntropy(), theirs(torch.from_numpy(x[rows])), labels[rows]).backward()
            optimizer.step()
            averaged.update_parameters(theirs)
            losses.append(cost_of(torch, gn.SoftmaxCrossEntropy(), averaged(torch.from_numpy(x)), labels).item())
    samples = gn.Samples(x, labels, classes=4)
    history = model.fit(
        Data("toy", samples, samples, ("a", "b", "c", "d")), optimizer=gn.SGD(0.1, momentum=0.9), average=decay,
        epochs=epochs, batch_size=batch_size, seed=11, dtype="float64", device="cpu", validate_every=1, progress=False,
    )  # fmt: skip
    assert len(losses) == 20
    for ours, twin in parameters_of(model, averaged.module):
        np.testing.assert_allclose(ours.value, twin.detach().numpy(), rtol=0, atol=1e-12)
    np.testing.assert_allclose([record.validation_loss for record in history], losses, rtol=1e-12)


def test_probabilities_are_pytorchs(torch: Any) -> None:
    model, theirs = pair(torch, [gn.Dense(5), gn.ReLU(), gn.Dense(4)], (3,), 8, 1)
    x = np.random.default_rng(0).normal(0, 5, (600, 3))
    for loss, function in (
        (gn.SoftmaxCrossEntropy(), lambda z: torch.softmax(z, dim=1)),
        (gn.BinaryCrossEntropy(), torch.sigmoid),
        (gn.MeanSquaredError(), lambda z: z),
    ):
        model.loss = loss
        assert_agree(model.predict_proba(x), function(theirs(torch.from_numpy(x))))


def test_tensors_are_answered(torch: Any) -> None:
    model = gn.Sequential([gn.Dense(2)]).build((12,), device="cpu")
    x = np.random.default_rng(0).normal(size=(5, 2, 3, 2)).astype("float32")
    for wants_gradient in (False, True):
        tensor = torch.tensor(x, requires_grad=wants_gradient)
        np.testing.assert_array_equal(model.predict(tensor), model.predict(x))
