"""Against PyTorch in float64: convolution, pooling, BatchNorm in both modes, and whole networks of them in training."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.image_strategies import Convolution, Pooling, Transposed, convolutions, poolings, transposed
from support.layer_helpers import Alone, blocks_of
from test_pytorch import assert_agree

from gpunn import (
    L2,
    SGD,
    AdamW,
    AveragePool2D,
    BatchNorm,
    Conv2D,
    ConvTranspose2D,
    Data,
    Dense,
    Embedding,
    Flatten,
    GlobalAveragePool2D,
    LayerNorm,
    MaxPool2D,
    ReLU,
    Samples,
    Sequential,
    Sigmoid,
    SoftmaxCrossEntropy,
    Tanh,
    load_data,
)
from gpunn.backend.devices import select
from gpunn.kernels.random import epoch_order
from gpunn.nn.layers import Layer


def theirs_from(torch: Any, x: NDArray[Any]) -> Any:
    """(batch, height, width, channels) as their (batch, channels, height, width); features as they are."""
    tensor = torch.tensor(np.ascontiguousarray(x.transpose(0, 3, 1, 2) if x.ndim == 4 else x))
    return tensor.requires_grad_()


def as_theirs(x: NDArray[Any] | None) -> NDArray[Any]:
    assert x is not None
    return x.transpose(0, 3, 1, 2) if x.ndim == 4 else x


# Layers


@settings(deadline=None, max_examples=200)
@given(made=convolutions(grouped=True), block=st.sampled_from([1, 200, None]))
def test_a_convolution_and_its_gradients_are_pytorchs(torch: Any, made: Convolution, block: int | None) -> None:
    rng = np.random.default_rng(made.seed)
    backend = select("cpu")
    layer = Conv2D(made.filters, made.size, made.stride, made.padding, groups=made.groups)
    with blocks_of(backend, block):
        alone = Alone(layer, made.shape, backend).draw(rng)
    x = made.inputs(rng)
    y = alone.forward(x)
    v = rng.normal(size=y.shape)
    dx = alone.backward(v)

    x_, w, b = theirs_from(torch, x), *(torch.tensor(alone.value(word)).requires_grad_() for word in "wb")
    (top, bottom), (left, right) = made.pads
    padded = torch.nn.functional.pad(x_, (left, right, top, bottom))
    y_ = torch.nn.functional.conv2d(padded, w, b, stride=made.stride, groups=layer.groups_of(made.shape[2]))
    y_.backward(torch.tensor(as_theirs(v)))
    assert_agree(as_theirs(y), y_, "outputs")
    assert_agree(as_theirs(dx), x_.grad, "inputs")
    assert_agree(alone.grad("w"), w.grad, "w")
    assert_agree(alone.grad("b"), b.grad, "b")


@settings(deadline=None, max_examples=200)
@given(made=transposed(), block=st.sampled_from([1, 200, None]))
def test_a_transposed_convolution_and_its_gradients_are_pytorchs(
    torch: Any, made: Transposed, block: int | None
) -> None:
    assume(made.padding != "same")  # which PyTorch has not
    rng, backend = np.random.default_rng(made.seed), select("cpu")
    layer = ConvTranspose2D(made.filters, made.size, made.stride, made.padding, made.output_padding)
    with blocks_of(backend, block):
        alone = Alone(layer, made.shape, backend).draw(rng)
    x = made.inputs(rng)
    y = alone.forward(x)
    v = rng.normal(size=y.shape)
    dx = alone.backward(v)

    x_, w, b = theirs_from(torch, x), *(torch.tensor(alone.value(word)).requires_grad_() for word in "wb")
    padding = 0 if made.padding == "valid" else made.padding
    y_ = torch.nn.functional.conv_transpose2d(
        x_, w, b, stride=made.stride, padding=padding, output_padding=made.output_padding
    )
    y_.backward(torch.tensor(as_theirs(v)))
    assert_agree(as_theirs(y), y_, "outputs")
    assert_agree(as_theirs(dx), x_.grad, "inputs")
    assert_agree(alone.grad("w"), w.grad, "w")
    assert_agree(alone.grad("b"), b.grad, "b")


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, (2, 3), (4, 1)])
def test_padding_same_is_pytorchs_where_pytorch_has_it(torch: Any, size: Any) -> None:
    """At stride 1: an odd zero comes after the image in both."""
    rng = np.random.default_rng(0)
    alone = Alone(Conv2D(3, size, padding="same"), (6, 5, 2), select("cpu")).draw(rng)
    x = rng.normal(size=(2, 6, 5, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that an odd zero costs a copy
        y = torch.nn.functional.conv2d(
            theirs_from(torch, x), *(torch.tensor(alone.value(word)) for word in "wb"), padding="same"
        )
    assert_agree(as_theirs(alone.forward(x)), y)


@settings(deadline=None, max_examples=150)
@given(made=poolings(longest=9, padded=True), ties=st.booleans(), counts=st.booleans())
@pytest.mark.parametrize("kind", [MaxPool2D, AveragePool2D])
def test_pooling_and_its_gradient_are_pytorchs(torch: Any, kind: Any, made: Pooling, ties: bool, counts: bool) -> None:
    """Where maxima are tied both hand the gradient to the first."""
    padding = (0, 0) if made.padding == "valid" else made.padding
    assume(padding != "same" and all(2 * pad <= size for pad, size in zip(padding, made.size, strict=True)))
    rng = np.random.default_rng(made.seed)
    x = rng.integers(-1, 2, (made.n, *made.shape)).astype(np.float64) if ties else made.inputs(rng)
    options = {} if kind is MaxPool2D else {"count_include_pad": counts}
    alone = Alone(kind(made.size, made.stride, made.padding, **options), made.shape, select("cpu"))
    y = alone.forward(x)
    v = rng.normal(size=y.shape)
    dx = alone.backward(v)
    x_ = theirs_from(torch, x)
    functional = torch.nn.functional
    pool = functional.max_pool2d if kind is MaxPool2D else functional.avg_pool2d
    y_ = pool(x_, made.size, made.stride, padding, **options)
    y_.backward(torch.tensor(as_theirs(v)))
    assert_agree(as_theirs(y), y_, "outputs")
    assert_agree(as_theirs(dx), x_.grad, "inputs")


@settings(deadline=None, max_examples=60)
@given(made=poolings(longest=9))
def test_the_mean_of_all_pixels_and_its_gradient_are_pytorchs(torch: Any, made: Pooling) -> None:
    rng = np.random.default_rng(made.seed)
    x = made.inputs(rng)
    alone = Alone(GlobalAveragePool2D(), made.shape, select("cpu"))
    y = alone.forward(x)
    v = rng.normal(size=y.shape)
    dx = alone.backward(v)
    x_ = theirs_from(torch, x)
    y_ = torch.nn.functional.adaptive_avg_pool2d(x_, 1).flatten(1)
    y_.backward(torch.tensor(v))
    assert_agree(y, y_, "outputs")
    assert_agree(as_theirs(dx), x_.grad, "inputs")


def test_a_nan_in_a_window_is_as_visible_as_pytorchs(torch: Any) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 8, 8, 2))
    x[rng.uniform(size=x.shape) < 0.05] = np.nan
    x[rng.uniform(size=x.shape) < 0.05] = -np.inf
    y = Alone(MaxPool2D(3, 2), (8, 8, 2), select("cpu")).forward(x)
    y_ = torch.nn.functional.max_pool2d(theirs_from(torch, x), 3, 2).detach().numpy()
    np.testing.assert_array_equal(as_theirs(y), y_)


@settings(deadline=None, max_examples=80)
@given(
    shape=st.one_of(st.tuples(st.integers(1, 5)), st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))),
    sizes=st.lists(st.integers(2, 8), min_size=1, max_size=4),
    momentum=st.sampled_from([0.1, 0.37, 1.0]),
    epsilon=st.sampled_from([1e-5, 1e-3]),
    seed=st.integers(0, 999),
)
def test_batchnorm_in_both_modes_is_pytorchs(
    torch: Any, shape: tuple[int, ...], sizes: list[int], momentum: float, epsilon: float, seed: int
) -> None:
    """Outputs, gradients and running averages after several batches; then by what is remembered."""
    rng = np.random.default_rng(seed)
    channels = shape[-1]
    alone = Alone(BatchNorm(epsilon, momentum), shape, select("cpu")).draw(rng)
    kind = torch.nn.BatchNorm2d if len(shape) == 3 else torch.nn.BatchNorm1d
    theirs = kind(channels, eps=epsilon, momentum=momentum, dtype=torch.float64)
    with torch.no_grad():
        theirs.weight.copy_(torch.tensor(alone.value("gamma")))
        theirs.bias.copy_(torch.tensor(alone.value("beta")))
    for training in (True, False, True):
        theirs.train(training)
        for n in sizes:
            x = rng.normal(2, 3, (n, *shape))
            v = rng.normal(size=x.shape)
            y = alone.forward(x, training)
            dx = alone.backward(v)
            x_ = theirs_from(torch, x)
            theirs.zero_grad()
            y_ = theirs(x_)
            y_.backward(torch.tensor(as_theirs(v)))
            assert_agree(as_theirs(y), y_, f"outputs, training {training}")
            assert_agree(alone.grad("gamma"), theirs.weight.grad, "gamma")
            assert_agree(alone.grad("beta"), theirs.bias.grad, "beta")
            # Terms of the size of γ/√(σ² + ε) v cancel; where nearly nothing is left, so are its digits.
            size = float(np.abs(v).max() * np.abs(alone.value("gamma")).max() / np.sqrt(epsilon))
            np.testing.assert_allclose(as_theirs(dx), x_.grad.numpy(), rtol=1e-10, atol=1e-13 * size)
            assert_agree(alone.value("mean"), theirs.running_mean, "running mean")
            assert_agree(alone.value("variance"), theirs.running_var, "running variance")


@settings(deadline=None, max_examples=80)
@given(
    shape=st.one_of(st.tuples(st.integers(2, 40)), st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(2, 9))),
    n=st.integers(1, 8),
    epsilon=st.sampled_from([1e-5, 1e-3]),
    seed=st.integers(0, 999),
)
def test_layernorm_is_pytorchs(torch: Any, shape: tuple[int, ...], n: int, epsilon: float, seed: int) -> None:
    """With their channels last, images are normalised over their last axis as theirs are."""
    rng = np.random.default_rng(seed)
    alone = Alone(LayerNorm(epsilon), shape, select("cpu")).draw(rng)
    theirs = torch.nn.LayerNorm(shape[-1], eps=epsilon, dtype=torch.float64)
    with torch.no_grad():
        theirs.weight.copy_(torch.tensor(alone.value("gamma")))
        theirs.bias.copy_(torch.tensor(alone.value("beta")))
    x = rng.normal(2, 3, (n, *shape))
    v = rng.normal(size=x.shape)
    y, dx = alone.forward(x), alone.backward(v)
    x_ = torch.tensor(x).requires_grad_()
    y_ = theirs(x_)
    y_.backward(torch.tensor(v))
    assert_agree(y, y_, "outputs")
    assert_agree(alone.grad("gamma"), theirs.weight.grad, "gamma")
    assert_agree(alone.grad("beta"), theirs.bias.grad, "beta")
    # Two features nearly alike have terms of the size of γ/√ε that cancel.
    size = float(np.abs(v).max() * np.abs(alone.value("gamma")).max() / np.sqrt(epsilon))
    np.testing.assert_allclose(dx, x_.grad.numpy(), rtol=1e-10, atol=1e-13 * size)


@settings(deadline=None, max_examples=60)
@given(
    tokens=st.integers(1, 60), features=st.integers(1, 20), length=st.integers(1, 9), n=st.integers(1, 8),
    seed=st.integers(0, 999),
)  # fmt: skip
def test_embedding_is_pytorchs(torch: Any, tokens: int, features: int, length: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = Sequential([Embedding(tokens, features)]).build((length,), 8, "cpu", "float64", seed)
    theirs = torch.nn.Embedding(tokens, features, dtype=torch.float64)
    with torch.no_grad():
        theirs.weight.copy_(torch.tensor(model.arrays()["embedding1.w"]))
    x, v = rng.integers(0, tokens, (n, length)), rng.normal(size=(n, 1, length, features))
    y = model.forward(x, training=True)
    model.backward(v)
    y_ = theirs(torch.tensor(x))
    y_.backward(torch.tensor(v[:, 0]))
    np.testing.assert_array_equal(y[:, 0], y_.detach().numpy())
    assert_agree(model.parameters[0].grad, theirs.weight.grad, "w")


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_a_training_with_an_embedding_is_pytorchs(torch: Any, optimizer: str) -> None:
    rng = np.random.default_rng(0)
    x, t = rng.integers(0, 9, (40, 6)), rng.integers(0, 3, 40)
    layers = [Embedding(9, 4), Conv2D(5, (1, 3)), Tanh(), Flatten(), Dense(3)]
    model = Sequential(layers).build((6,), 8, "cpu", "float64", 1)
    nn = torch.nn
    table, *rest = (
        nn.Embedding(9, 4, dtype=torch.float64),
        nn.Conv2d(4, 5, (1, 3), dtype=torch.float64),
        nn.Linear(20, 3, dtype=torch.float64),
    )
    pairs = {"embedding1.w": table.weight, "conv1.w": rest[0].weight, "conv1.b": rest[0].bias}
    pairs |= {"dense1.w": rest[1].weight, "dense1.b": rest[1].bias}
    with torch.no_grad():
        for name, array in model.arrays().items():
            pairs[name].copy_(torch.tensor(array))
    weights = [value for name, value in pairs.items() if name.endswith("w")]
    biases = [value for name, value in pairs.items() if name.endswith("b")]
    groups = [{"params": weights, "weight_decay": 0.1}, {"params": biases, "weight_decay": 0.0}]
    theirs = torch.optim.SGD(groups, 0.1, momentum=0.9) if optimizer == "SGD" else torch.optim.AdamW(groups, 0.01)
    ours: Any = SGD(0.1, momentum=0.9) if optimizer == "SGD" else AdamW(0.01, 0.1)
    regularizer = L2(0.1 * 40) if optimizer == "SGD" else None
    options: dict[str, Any] = {"batch_size": 8, "dtype": "float64", "progress": False, "device": "cpu"}
    data = Data.from_arrays(x, t, validation=0)
    model.fit(data, epochs=2, optimizer=ours, regularizer=regularizer, **options)
    for epoch in range(2):
        order = epoch_order(40, seed=0, epoch=epoch)
        for start in range(0, 40, 8):
            rows = order[start : start + 8]
            h = rest[0](table(torch.tensor(x[rows])).permute(0, 2, 1)[:, :, None])
            theirs.zero_grad()
            torch.nn.functional.cross_entropy(rest[1](torch.tanh(h).flatten(1)), torch.tensor(t[rows])).backward()
            theirs.step()
    for name, array in model.arrays().items():
        assert_agree(array, pairs[name], name)


# Whole networks


def theirs_of(torch: Any, layers: Sequence[Layer], model: Sequential) -> Any:
    """Their network with our weights, which move over unchanged."""
    nn, made = torch.nn, []
    weights = model.parameters.to_host()
    for layer, shape_in in zip(layers, [model.input_shape, *model.shapes], strict=False):
        channels = shape_in[-1]
        if isinstance(layer, Conv2D):
            twin = nn.Conv2d(
                channels, layer.filters, layer.size, layer.stride, layer.padding, groups=layer.groups_of(channels),
                bias=layer.bias is not False, dtype=torch.float64,
            )  # fmt: skip
        elif isinstance(layer, ConvTranspose2D):
            (top, _), (left, _) = layer.pads(shape_in)
            twin = nn.ConvTranspose2d(
                channels, layer.filters, layer.size, layer.stride, (top, left), layer.output_padding,
                bias=layer.bias is not False, dtype=torch.float64,
            )  # fmt: skip
        elif isinstance(layer, Dense):
            twin = nn.Linear(channels, layer.units, dtype=torch.float64)
        elif isinstance(layer, BatchNorm):
            kind = nn.BatchNorm2d if len(shape_in) == 3 else nn.BatchNorm1d
            twin = kind(channels, eps=layer.epsilon, momentum=layer.momentum, dtype=torch.float64)
        elif isinstance(layer, MaxPool2D):
            (top, _), (left, _) = layer.pads(shape_in)
            twin = nn.MaxPool2d(layer.size, layer.stride, (top, left))
        elif isinstance(layer, AveragePool2D):
            (top, _), (left, _) = layer.pads(shape_in)
            twin = nn.AvgPool2d(layer.size, layer.stride, (top, left), count_include_pad=layer.count_include_pad)
        else:
            twin = {"ReLU": nn.ReLU, "Tanh": nn.Tanh, "Sigmoid": nn.Sigmoid, "Flatten": nn.Flatten}[
                type(layer).__name__
            ]()
        with torch.no_grad():
            for ours, word in (("w", "weight"), ("b", "bias"), ("gamma", "weight"), ("beta", "bias")):
                if f"{layer.name}.{ours}" in weights:
                    getattr(twin, word).copy_(torch.tensor(weights[f"{layer.name}.{ours}"]))
        made.append(twin)
    return nn.Sequential(*made)


def pairs_of(torch: Any, theirs: Any, layers: Sequence[Layer]) -> dict[str, Any]:
    """Their parameters and running averages under our names."""
    named = {}
    for twin, layer in zip(theirs, layers, strict=True):
        norm = isinstance(layer, BatchNorm)
        for word, ours in (("weight", "gamma" if norm else "w"), ("bias", "beta" if norm else "b")):
            if getattr(twin, word, None) is not None:
                named[f"{layer.name}.{ours}"] = getattr(twin, word)
        if norm:
            named[f"{layer.name}.mean"], named[f"{layer.name}.variance"] = twin.running_mean, twin.running_var
    return named


def networks() -> list[list[Layer]]:
    return [
        [
            Conv2D(4, 3), ReLU(), MaxPool2D(2), Conv2D(6, 2), ReLU(), MaxPool2D(2), Flatten(), Dense(12), ReLU(),
            Dense(10),
        ],
        [
            Conv2D(4, (3, 2), (1, 2), (1, 0), bias=False), BatchNorm(), Tanh(), MaxPool2D((3, 2), (2, 1)), Conv2D(5, 2),
            Sigmoid(), BatchNorm(1e-3, 0.3), AveragePool2D((2, 1)), Flatten(),
            Dense(12), BatchNorm(), ReLU(), Dense(10),
        ],
        [Conv2D(6, 1), Tanh(), AveragePool2D(2), Conv2D(5, 4), MaxPool2D(1), Flatten(), Dense(10)],
        [
            Conv2D(6, 3, groups=2, bias=-0.5), ReLU(), MaxPool2D(3, 2, 1), Conv2D(12, 2, groups="depthwise"), Tanh(),
            ConvTranspose2D(4, 3, 2, 1, 1), BatchNorm(), AveragePool2D(3, 2, 1), Flatten(), Dense(10),
        ],
    ]  # fmt: skip


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("which", range(4))
def test_whole_networks_and_their_gradients_are_pytorchs(torch: Any, which: int, training: bool) -> None:
    rng, layers, loss = np.random.default_rng(which), networks()[which], SoftmaxCrossEntropy()
    model = Sequential(layers).build((8, 8, 2), 16, "cpu", "float64", which)
    theirs = theirs_of(torch, layers, model).train(training)
    for n in (16, 5):  # a short batch after a full one
        x, t = rng.normal(size=(n, 8, 8, 2)), rng.integers(0, 10, n)
        y = model.forward(x, training)
        cost = loss.forward(y, t)
        model.backward(loss.backward())
        theirs.zero_grad()
        y_ = theirs(theirs_from(torch, x))
        cost_ = torch.nn.functional.cross_entropy(y_, torch.tensor(t))
        cost_.backward()
        assert_agree(np.array(y), y_, "outputs")
        assert_agree(cost, cost_, "cost")
        named = pairs_of(torch, theirs, layers)
        for p in model.parameters:
            gradient = named[p.name].grad
            if float(gradient.abs().max()) > 1e-12:  # a bias before BatchNorm has none but rounding
                assert_agree(p.grad, gradient, p.name)
        for name, array in model.statistics.items():
            assert_agree(array, named[name], name)


@pytest.mark.parametrize("which", range(4))
def test_a_training_of_networks_of_convolutions_is_pytorchs_step_by_step(torch: Any, which: int) -> None:
    """Weights and running averages after two epochs of momentum, the last batch of an epoch shorter."""
    samples = load_data("digits", limit=90, validation=0).train
    inputs = np.repeat(samples.inputs, 2, axis=3) * samples.scale
    data = Data("digits", Samples(inputs, samples.targets, classes=10), None, tuple("0123456789"))
    layers = networks()[which]
    model = Sequential(layers).build((8, 8, 2), 20, "cpu", "float64", 5)
    theirs = theirs_of(torch, layers, model).train()
    eta, mu, batch = 0.05, 0.9, 20
    options: dict[str, Any] = {"epochs": 2, "batch_size": batch, "dtype": "float64", "seed": 5, "progress": False}
    model.fit(data, optimizer=SGD(eta, momentum=mu), device="cpu", **options)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=eta, momentum=mu)
    for epoch in range(2):
        order = epoch_order(90, seed=5, epoch=epoch)
        for start in range(0, 90, batch):
            picked = order[start : start + batch]
            optimizer.zero_grad()
            y = theirs(theirs_from(torch, inputs[picked]))
            torch.nn.functional.cross_entropy(y, torch.tensor(samples.targets[picked].astype(np.int64))).backward()
            optimizer.step()
    named, arrays = pairs_of(torch, theirs, layers), model.arrays()
    assert set(named) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_allclose(array, named[name].detach().numpy(), rtol=1e-8, atol=1e-9, err_msg=name)
    theirs.eval()
    with torch.no_grad():
        expected = torch.softmax(theirs(theirs_from(torch, inputs)), dim=1).numpy()
    np.testing.assert_allclose(model.predict_proba(inputs), expected, rtol=1e-7, atol=1e-9)
