"""Whole networks of convolutions: their gradients, their training, their files, and inputs that do not fit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.harness import central_differences, one_line, relative_error
from support.layer_helpers import ERROR, assert_close_along

from gpunn import (
    L2,
    SGD,
    Adam,
    Augmentation,
    AveragePool2D,
    BatchNorm,
    Conv2D,
    ConvTranspose2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool2D,
    LayerNorm,
    MaxPool2D,
    MeanSquaredError,
    ReLU,
    Samples,
    Sequential,
    Sigmoid,
    SoftmaxCrossEntropy,
    Softplus,
    Tanh,
    load_data,
    load_model,
)
from gpunn.backend.base import Backend
from gpunn.config import to_built_config
from gpunn.errors import ModelFileError, ShapeError
from gpunn.kernels import cores as threads
from gpunn.nn.layers import Layer

H = 1e-5


def lenet(*, norm: bool = False, drop: float = 0.0) -> list[Layer]:
    """The architecture of LeNet, small enough for the digits of 8×8."""
    between: list[Layer] = [BatchNorm()] if norm else []
    return [
        Conv2D(8, 3, padding=1),
        *between,
        ReLU(),
        MaxPool2D(2),
        Conv2D(16, 3, padding="same"),
        *([BatchNorm()] if norm else []),
        ReLU(),
        MaxPool2D(2),
        Flatten(),
        Dense(32),
        ReLU(),
        *([Dropout(drop)] if drop else []),
        Dense(10),
    ]


# Gradients


def check(
    model: Sequential, loss: Any, x: NDArray[Any], t: NDArray[Any], training: bool = True, directions: int | None = None
) -> None:
    """The gradient of every parameter is the central difference of the cost, with the same units dropped out."""
    backend = model.backend
    assert backend is not None

    def cost() -> float:
        return float(loss.forward(model.forward(x, training), t))

    cost()
    # As `model.backward` does, but in the same step: the next would drop out others.
    model.backpropagate(loss.gradient, model.stages)
    gradients = {p.name: backend.to_host(p.grad) for p in model.parameters}
    for p in model.parameters:
        values = backend.to_host(p.value)

        def cost_by_parameter(p: Any = p, values: NDArray[Any] = values) -> float:
            backend.assign(p.value, values)
            return cost()

        if directions is not None:
            for _ in range(directions):
                assert_close_along(gradients[p.name], cost_by_parameter, values, np.random.default_rng(1), p.name, H)
            backend.assign(p.value, values)
            continue
        numeric = central_differences(cost_by_parameter, values, H)
        backend.assign(p.value, values)
        if max(np.abs(numeric).max(), np.abs(gradients[p.name]).max()) > 1e-7:
            assert relative_error(gradients[p.name], numeric) <= ERROR, p.name
        else:  # such as a bias before BatchNorm: no more than rounding of the cost
            np.testing.assert_allclose(gradients[p.name], numeric, atol=1e-7)


def has_ties(model: Sequential, x: NDArray[Any], training: bool) -> bool:
    """Whether a small change of a parameter may change which input of a maximum, or which side of a kink, counts."""
    backend = model.backend
    assert backend is not None
    for number, stage in enumerate(model.stages):
        inner = backend.asarray(x.transpose(3, 1, 2, 0))
        z = backend.to_host(model.propagate(inner, training, model.stages[:number])) if number else None
        if z is None:
            continue
        if type(stage).__name__ in ("ReLU", "BiasActivation") and _is_kinked(stage):
            bias = backend.to_host(stage.bias.b.column) if hasattr(stage, "bias") else np.zeros((1, 1))
            z = z.reshape(-1, z.size) if len(bias) == 1 else z.reshape(len(bias), -1) + bias
            if np.abs(z).min() < 200 * H:
                return True
        if isinstance(stage, MaxPool2D):
            channels, height, width, _ = z.shape
            padded = np.pad(z, ((0, 0), *stage.pads((height, width, channels)), (0, 0)), constant_values=-np.inf)
            down, across = stage.stride
            seen = np.lib.stride_tricks.sliding_window_view(padded, stage.size, (1, 2))[:, ::down, ::across]
            two = np.sort(seen.reshape(*seen.shape[:4], -1), axis=-1)[..., -2:]
            if two.shape[-1] == 2 and (two[..., 1] - two[..., 0]).min() < 200 * H:
                return True
    return False


def _is_kinked(stage: Any) -> bool:
    return isinstance(getattr(stage, "activation", stage), ReLU)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "layers",
    [
        [Conv2D(3, 3), Sigmoid(), MaxPool2D(2), Conv2D(2, 2), Tanh(), Flatten(), Dense(3)],
        [Conv2D(3, (3, 2), 2, "same"), Tanh(), AveragePool2D(2, 1), Flatten(), Dense(4), Softplus(), Dense(3)],
        [Conv2D(3, 3, padding=1), BatchNorm(0.1), Tanh(), MaxPool2D(3, 2), Conv2D(2, 2), Flatten(), Dense(3)],
        [Conv2D(2, 1), Tanh(), Dropout(0.4), Conv2D(3, 3), Sigmoid(), MaxPool2D(2), Dropout(0.3), Flatten(), Dense(3)],
        [BatchNorm(0.1), Conv2D(2, 3, bias=False), BatchNorm(0.1), Softplus(), Flatten(), Dense(4), BatchNorm(0.1),
         Tanh(), Dense(3)],
        [AveragePool2D(2), Dropout(0.2), Conv2D(3, 2), Sigmoid(), Flatten(), Dense(3)],
        [MaxPool2D(2, 1), Conv2D(3, 3), MaxPool2D(2), Flatten(), Dense(3)],
        [Conv2D(3, 3), Tanh(), Conv2D(4, 2), GlobalAveragePool2D(), Tanh(), Dense(3)],
        [GlobalAveragePool2D(), Dense(4), Tanh(), Dense(3)],
        [Conv2D(3, 3), Sigmoid(), MaxPool2D(2), GlobalAveragePool2D()],
        [LayerNorm(0.1), Conv2D(3, 3), LayerNorm(0.1), Tanh(), Flatten(), LayerNorm(0.1), Dense(3)],
        [Conv2D(3, 3), Tanh(), LayerNorm(0.1), Dropout(0.3), Conv2D(4, 2), GlobalAveragePool2D(), LayerNorm(0.1)],
        [Conv2D(4, 3, padding=1), Tanh(), Conv2D(8, 3, groups="depthwise"), Sigmoid(), Conv2D(4, 1),
         Conv2D(6, 2, groups=2), Flatten(), Dense(3)],
        [Conv2D(3, 3, 2), Tanh(), ConvTranspose2D(2, 3, 2, 1, 1), BatchNorm(0.1), Sigmoid(), Flatten(), Dense(3)],
        [Conv2D(3, 3, bias=-1.0), Tanh(), MaxPool2D(3, 2, 1), AveragePool2D(2, 1, "same"), Conv2D(3, 2), Flatten(),
         Dense(3)],
        [ConvTranspose2D(2, 2, (2, 1)), Tanh(), MaxPool2D(2), ConvTranspose2D(3, 2), GlobalAveragePool2D()],
    ],
    ids=range(16),
)  # fmt: skip
def test_back_propagation_through_whole_networks(backend: Backend, layers: list[Layer], training: bool) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        model = Sequential(layers).build((6, 7, 2), 4, backend, "float64", seed)
        for name, array in model.statistics.items():
            drawn = rng.normal(size=array.shape) if name.endswith("mean") else rng.uniform(0.5, 2, array.shape)
            backend.assign(array, drawn)
        x = rng.normal(size=(4, 6, 7, 2))
        if not has_ties(model, x, training):
            check(model, SoftmaxCrossEntropy(), x, rng.integers(0, 3, 4), training)
            return
    pytest.fail("every draw lies near a tie")


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_back_propagation_through_networks_of_any_kind(backend: Backend, data: st.DataObject) -> None:
    smooth = st.sampled_from([Sigmoid, Tanh, Softplus])
    shape = (data.draw(st.integers(4, 7)), data.draw(st.integers(4, 7)), data.draw(st.integers(1, 2)))
    layers: list[Layer] = []
    for _ in range(data.draw(st.integers(1, 2), label="depth")):
        size = data.draw(st.sampled_from([1, 2, 3, (2, 3)]))
        layers.append(Conv2D(data.draw(st.integers(1, 3)), size, data.draw(st.integers(1, 2)), "same"))
        if data.draw(st.booleans()):
            layers.append(BatchNorm(0.1))
        if data.draw(st.booleans()):
            layers.append(data.draw(smooth)())
        if data.draw(st.booleans()):
            pool = data.draw(st.sampled_from([MaxPool2D, AveragePool2D]))
            layers.append(pool(data.draw(st.sampled_from([1, 2])), data.draw(st.sampled_from([1, 2]))))
        if data.draw(st.booleans()):
            layers.append(Dropout(0.3))
    layers += [Flatten(), Dense(2)]
    if data.draw(st.booleans()):
        layers += [BatchNorm(0.1), data.draw(smooth)(), Dense(2)]
    seed, training = data.draw(st.integers(0, 999)), data.draw(st.booleans())
    try:
        model = Sequential(layers).build(shape, 4, backend, "float64", seed)
    except ShapeError:
        assume(False)
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(3, *shape))
    assume(not has_ties(model, x, training))
    check(model, MeanSquaredError(), x, rng.normal(size=(3, 2)), training, directions=1)


# Training


def trained(backend: Backend, layers: list[Layer], seed: int = 0, **options: Any) -> tuple[Sequential, Any]:
    data = load_data("digits", limit=options.pop("limit", 600))
    model = Sequential(layers)
    settings: dict[str, Any] = {"epochs": 2, "batch_size": 32, "device": backend, "progress": False, "seed": seed}
    return model, model.fit(data, **{**settings, **options})


@pytest.mark.parametrize(
    ("layers", "options"),
    [
        (lenet(), {"optimizer": SGD(0.03, momentum=0.9)}),
        (lenet(norm=True, drop=0.3), {"optimizer": Adam(0.01), "augmentation": Augmentation(shift=0.5, rotation=5.0)}),
        (lenet(), {"optimizer": SGD(0.2)}),  # whose updates of dense layers are folded into their products
        (lenet(norm=True), {"optimizer": Adam(0.01), "regularizer": L2(0.1), "recompute_statistics": True}),
    ],
    ids=["plain", "norm-dropout-augmentation", "sgd", "norm-adam"],
)
def test_networks_of_convolutions_learn_the_digits(backend: Backend, layers: list[Layer], options: Any) -> None:
    model, history = trained(backend, layers, epochs=5, **options)
    losses = [record.train_loss for record in history]
    assert losses[-1] < 0.4 * losses[0]
    assert history[-1].validation_accuracy > 0.8
    assert all(np.isfinite(array).all() for array in model.arrays().values())


@pytest.mark.parametrize("augmentation", [None, Augmentation(shift=1.0, rotation=10.0)], ids=["plain", "augmented"])
def test_the_same_seed_gives_the_same_bytes(backend: Backend, augmentation: Augmentation | None) -> None:
    runs = []
    for seed in (0, 0, 1):
        model, history = trained(backend, lenet(norm=True, drop=0.3), seed, limit=100, augmentation=augmentation)
        arrays = b"".join(array.tobytes() for array in model.arrays().values())
        runs.append((arrays, [record.train_loss for record in history]))
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


@pytest.mark.parametrize("cores", [2, 3])
def test_threads_give_the_same_bytes_as_one(monkeypatch: pytest.MonkeyPatch, cores: int) -> None:
    """What is shared out is whole channels, so no sum is added in another order."""
    from gpunn.backend.devices import select

    runs = []
    for count in (1, cores):
        monkeypatch.setattr(threads, "cores", lambda count=count: count)
        monkeypatch.setattr(threads, "WORTHWHILE", 1)
        parallel = {"calls": 0}
        monkeypatch.setattr(threads, "_threads", counting(threads._threads, parallel))
        model, _ = trained(select("cpu"), lenet(norm=True, drop=0.3), limit=150)
        runs.append(b"".join(array.tobytes() for array in model.arrays().values()))
        assert (parallel["calls"] > 0) == (count > 1)
        monkeypatch.undo()
    assert runs[0] == runs[1]


def counting(function: Any, calls: dict[str, int]) -> Any:
    def counted(*arguments: Any) -> Any:
        calls["calls"] += 1
        return function(*arguments)

    return counted


def test_single_and_double_precision_learn_alike(backend: Backend) -> None:
    """Trajectories agree to rounding: every draw is the same in both."""
    layers = lambda: lenet(norm=True, drop=0.3)  # noqa: E731
    options: dict[str, Any] = {"limit": 100, "epochs": 1, "optimizer": SGD(0.02)}
    single, double = (trained(backend, layers(), dtype=dtype, **options) for dtype in ("float32", "float64"))
    for name, array in double[0].parameters.to_host().items():
        np.testing.assert_allclose(single[0].parameters.to_host()[name], array, rtol=0, atol=1e-5, err_msg=name)


def test_a_last_batch_that_is_shorter_trains_as_well(backend: Backend) -> None:
    """By hand, the gradient of a short batch is the mean over that batch."""
    rng = np.random.default_rng(0)
    model = Sequential(lenet()).build((8, 8, 1), 32, backend, "float64")
    loss, x, t = SoftmaxCrossEntropy(), rng.normal(size=(5, 8, 8, 1)), rng.integers(0, 10, 5)
    loss.forward(model.forward(rng.normal(size=(32, 8, 8, 1)), training=True), rng.integers(0, 10, 32))
    model.backward(loss.backward())
    loss.forward(model.forward(x, training=True), t)
    model.backward(loss.backward())
    once = {p.name: backend.to_host(p.grad) for p in model.parameters}
    total = {name: np.zeros(gradient.shape) for name, gradient in once.items()}
    for one in range(5):
        loss.forward(model.forward(x[one : one + 1], training=True), t[one : one + 1])
        model.backward(loss.backward())
        for p in model.parameters:
            total[p.name] += backend.to_host(p.grad) / 5
    for name, gradient in once.items():
        np.testing.assert_allclose(gradient, total[name], rtol=1e-9, atol=1e-12)


# Using


def test_predictions_do_not_depend_on_how_many_are_asked_for(backend: Backend) -> None:
    model, _ = trained(backend, lenet(norm=True, drop=0.3), limit=200, epochs=1)
    x = load_data("digits", limit=300, validation=0).train.inputs
    whole = model.predict_proba(x)
    assert len(whole) == 300 > model.capacity
    for few in (1, 7, 256):
        np.testing.assert_allclose(model.predict_proba(x[:few]), whole[:few], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(whole.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(model.predict(x), whole.argmax(axis=1))


def test_a_network_is_saved_and_loaded_with_all_its_layers(backend: Backend, tmp_path: Path) -> None:
    layers = [
        Conv2D(4, (3, 2), (1, 2), "same", bias=False), BatchNorm(1e-3, 0.2), ReLU(), MaxPool2D((2, 1), 2),
        Conv2D(8, 3, padding=1, groups="depthwise"), Conv2D(6, 1, groups=2),
        Conv2D(5, 2, padding=(1, 0)), ConvTranspose2D(3, (2, 3), (2, 1), "same"), Sigmoid(),
        MaxPool2D(2, 1, "same"), AveragePool2D((2, 1), 1, (1, 0), True), Dropout(0.25), Flatten(), Dense(10),
    ]  # fmt: skip
    model, _ = trained(backend, layers, limit=150)
    path = tmp_path / "network.safetensors"
    model.save(path)
    loaded = load_model(path, device=backend.device)
    assert [to_built_config(layer) for layer in loaded.layers] == [to_built_config(layer) for layer in model.layers]
    data = load_data("digits", limit=150)
    np.testing.assert_array_equal(loaded.predict_proba(data.train.inputs), model.predict_proba(data.train.inputs))
    assert data.validation is not None
    assert loaded.evaluate(data.validation) == model.evaluate(data.validation)
    loaded.fit(data, epochs=1, batch_size=32, device=backend, progress=False)  # and goes on


def test_a_file_without_its_statistics_is_refused(backend: Backend, tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.numpy import save_file

    model, _ = trained(backend, lenet(norm=True), limit=150, epochs=1)
    path = tmp_path / "network.safetensors"
    model.save(path)
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
        arrays = {name: file.get_tensor(name) for name in file.keys() if not name.endswith("variance")}  # noqa: SIM118
    save_file(arrays, path, metadata)
    with pytest.raises(ModelFileError, match=r"missing .*batchnorm1\.variance") as caught:
        load_model(path)
    one_line(caught.value)


@pytest.mark.parametrize("key", ["padding", "stride", "size", "filters"])
def test_a_file_that_asks_for_a_huge_convolution_is_refused(backend: Backend, tmp_path: Path, key: str) -> None:
    """Never more memory than the file's real content."""
    import json

    from safetensors import safe_open
    from safetensors.numpy import save_file

    model = Sequential([Conv2D(2, 3, padding=1), Flatten(), Dense(2)]).build((4, 4, 1), 4, backend)
    path = tmp_path / "network.safetensors"
    model.save(path)
    with safe_open(path, framework="numpy") as file:
        description = json.loads(file.metadata()["gpunn"])
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert key in description["layers"][0]
    description["layers"][0][key] = 10**7
    save_file(arrays, path, {"gpunn": json.dumps(description)})
    with pytest.raises(ModelFileError) as caught:
        load_model(path)
    one_line(caught.value)


# Inputs that do not fit


@pytest.fixture(scope="module")
def network(backend: Backend) -> Sequential:
    return Sequential(lenet()).build((8, 8, 1), 32, backend)


@pytest.mark.parametrize(
    "shape",
    [(3, 9, 8, 1), (3, 8, 7, 1), (3, 8, 8, 3), (3, 64), (3, 28, 28), (8, 8, 1), (8, 8), (3, 1, 8, 8, 1)],
    ids=str,
)
@pytest.mark.parametrize("way", ["forward", "predict", "predict_proba"])
def test_images_of_another_shape_are_refused(network: Sequential, way: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError) as caught:
        getattr(network, way)(np.zeros(shape))
    text = one_line(caught.value)
    assert "(batch, 8, 8, 1)" in text
    assert str(shape) in text


@pytest.mark.parametrize("shape", [(9, 8, 1), (8, 8, 3), (64,)], ids=str)
def test_samples_of_another_shape_are_not_evaluated(network: Sequential, shape: tuple[int, ...]) -> None:
    samples = Samples(np.zeros((40, *shape)), np.arange(40) % 4)
    with pytest.raises(ShapeError) as caught:
        network.evaluate(samples)
    text = one_line(caught.value)
    assert "(8, 8, 1)" in text
    assert str(shape) in text
    with pytest.raises(ShapeError):
        network.fit(samples, device=network.backend or "cpu", batch_size=2, progress=False)


def test_images_without_a_channel_are_of_one(network: Sequential) -> None:
    x = np.random.default_rng(0).normal(size=(3, 8, 8)).astype(np.float32)
    np.testing.assert_array_equal(network.predict_proba(x), network.predict_proba(x[..., None]))


def test_dense_after_images_without_flatten_is_refused(backend: Backend) -> None:
    with pytest.raises(
        ShapeError, match=r"^dense1: Dense expects \(features,\), got \(6, 6, 2\): put Flatten\(\) before it"
    ):
        Sequential([Conv2D(2, 3), Dense(10)]).build((8, 8, 1), 4, backend)


def test_an_image_that_shrinks_to_nothing_names_the_layer_that_no_longer_fits(backend: Backend) -> None:
    layers = [Conv2D(2, 3), MaxPool2D(2), Conv2D(2, 3), MaxPool2D(2)]
    with pytest.raises(ShapeError, match=r"^maxpool2: .*\(1, 1, 2\)") as caught:
        Sequential(layers).build((8, 8, 1), 4, backend)
    one_line(caught.value)
    with pytest.raises(ShapeError, match=r"^conv2: .*3×3.*\(2, 2, 2\)"):
        Sequential([Conv2D(2, 3), MaxPool2D(3), Conv2D(2, 3)]).build((8, 8, 1), 4, backend)


def test_weights_for_other_channels_are_refused(backend: Backend) -> None:
    grey, colour = (Sequential([Conv2D(2, 3)]).build((8, 8, c), 4, backend) for c in (1, 3))
    with pytest.raises((ShapeError, ValueError)):
        colour.load_arrays(grey.arrays())
