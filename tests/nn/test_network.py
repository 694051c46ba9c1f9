"""A network by hand: built, run forwards and backwards, asked for labels and probabilities, evaluated."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.harness import one_line

import gpunn as gn
from gpunn.backend.base import Backend
from gpunn.errors import DataError, DeviceError, GpunnError, OptionError, ShapeError


def network(backend: Backend, *, dtype: str = "float64", batch_size: int = 8) -> gn.Sequential:
    return gn.Sequential([gn.Dense(6), gn.Tanh(), gn.Dense(3)]).build((4,), batch_size, backend, dtype, 1)


def some(n: int, *shape: int, seed: int = 0) -> NDArray[Any]:
    return np.random.default_rng(seed).normal(size=(n, *(shape or (4,))))


def test_the_parts_by_hand_are_those_of_the_readme(backend: Backend) -> None:
    model, loss = network(backend), gn.SoftmaxCrossEntropy()
    x, labels = some(8), np.arange(8) % 3
    costs = []
    for _ in range(20):
        costs.append(float(loss.forward(model.forward(x, training=True), labels)))
        model.backward(loss.backward())
        for p in model.parameters:
            backend.assign(p.value, p.value - 0.5 * p.grad)
    assert costs[-1] < 0.5 * costs[0]


def test_parameters_are_named_shaped_views_in_the_order_of_the_layers(backend: Backend) -> None:
    parameters = network(backend).parameters
    assert [p.name for p in parameters] == ["dense1.w", "dense1.b", "dense2.w", "dense2.b"]
    assert [p.shape for p in parameters] == [(6, 4), (6,), (3, 6), (3,)]
    assert [p.weight_decay for p in parameters] == [True, False, True, False]
    assert parameters["dense2.b"] is parameters[3] is parameters[-1]
    assert [p.name for p in parameters[1:3]] == ["dense1.b", "dense2.w"]
    assert len(parameters) == 4
    assert repr(parameters[0]) == "Parameter(dense1.w, (6, 4))"
    with pytest.raises(KeyError, match=r"no parameter 'dense3.w': there are dense1.w"):
        parameters["dense3.w"]


def test_decayed_weights_lie_first_in_the_flat_arrays(backend: Backend) -> None:
    """So that an update with a regulariser is one launch, and a biased element none of its business."""
    parameters = network(backend).parameters
    assert parameters.decayed == 6 * 4 + 3 * 6
    assert parameters.values.shape == parameters.gradients.shape == (6 * 4 + 3 * 6 + 6 + 3,)
    backend.assign(parameters.values, np.arange(51.0))
    assert backend.to_host(parameters["dense1.w"].value).ravel().tolist() == list(range(24))
    assert backend.to_host(parameters["dense2.w"].value).ravel().tolist() == list(range(24, 42))
    assert backend.to_host(parameters["dense1.b"].value).tolist() == list(range(42, 48))
    assert backend.to_host(parameters["dense2.b"].value).tolist() == [48, 49, 50]


def test_parameters_go_to_the_host_and_back(backend: Backend) -> None:
    model = network(backend)
    before = model.parameters.to_host()
    backend.assign(model.parameters.values, 0.0)
    model.parameters.load(before)
    for name, value in model.parameters.to_host().items():
        np.testing.assert_array_equal(value, before[name])


def test_a_network_holds_its_backend_and_its_dtype(backend: Backend) -> None:
    for dtype in ("float32", "float64"):
        model = network(backend, dtype=dtype)
        assert model.backend is backend
        assert model.forward(some(3)).dtype == dtype
        assert model.parameters.values.dtype == dtype


def test_building_again_for_another_batch_or_dtype_keeps_the_weights(backend: Backend) -> None:
    model = network(backend)
    before, y = model.parameters.to_host(), backend.to_host(model.forward(some(5)))
    model.rebuild(1000, backend, "float64")
    np.testing.assert_array_equal(backend.to_host(model.forward(some(5))), y)
    model.rebuild(8, backend, "float32")
    for name, value in model.parameters.to_host().items():
        np.testing.assert_array_equal(value, before[name].astype(np.float32))


# Building what cannot be


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ([], "a network is a list of layers"),
        ([gn.Dense], "Dense needs units"),
        ([gn.Dense(3), "rule"], "unknown layer 'rule'"),
        ([None], "expected a layer such as"),
    ],
)
def test_a_network_is_made_of_layers(layers: list[Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        gn.Sequential(layers)


def test_one_layer_cannot_stand_in_two_places() -> None:
    layer = gn.Dense(3)
    with pytest.raises(OptionError, match="a layer stands in the network twice"):
        gn.Sequential([layer, layer])


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"input_shape": (0,)}, OptionError),
        ({"input_shape": (2.5,)}, OptionError),
        ({"input_shape": (4, 4)}, ShapeError),
        ({"input_shape": ()}, ShapeError),
        ({"dtype": "float16"}, OptionError),
        ({"seed": -1}, OptionError),
        ({"seed": 2**32}, OptionError),
        ({"seed": 0.5}, OptionError),
        ({"batch_size": 0}, OptionError),
        ({"device": "gpu"}, OptionError),
    ],
    ids=str,
)
def test_a_network_that_cannot_be_built_says_why_in_one_line(
    backend: Backend, arguments: dict[str, Any], error: type[GpunnError]
) -> None:
    model = gn.Sequential([gn.Dense(3)])
    with pytest.raises(error) as caught:
        model.build(**{"input_shape": (4,), "device": backend} | arguments)
    one_line(caught.value)
    assert model.backend is None


def test_layers_that_do_not_fit_leave_no_half_built_network(backend: Backend) -> None:
    model = gn.Sequential([gn.Tanh(), gn.Dense(3)])
    with pytest.raises(ShapeError, match=r"put Flatten\(\) before it"):
        model.build((4, 4, 1), device=backend)
    with pytest.raises(GpunnError, match="not built yet"):
        model.forward(some(2, 4, 4, 1))
    assert model.build((4,), device=backend).output_shape == (3,)
    with pytest.raises(ShapeError, match=r"put Flatten\(\) before it"):
        model.build((4, 4, 1), device=backend)
    with pytest.raises(GpunnError, match="not built yet"):
        model.forward(some(2))


def test_a_seed_from_numpy_is_that_seed(backend: Backend) -> None:
    weights = [
        gn.Sequential([gn.Dense(3)]).build((4,), device=backend, seed=seed).parameters.to_host()["dense1.w"]
        for seed in (3, np.int32(3), np.uint8(3), 4)
    ]
    np.testing.assert_array_equal(weights[0], weights[1])
    np.testing.assert_array_equal(weights[0], weights[2])
    assert not np.array_equal(weights[0], weights[3])


@pytest.mark.parametrize("what", ["forward", "predict", "predict_proba"])
def test_a_network_that_is_not_built_says_so(what: str) -> None:
    with pytest.raises(GpunnError, match="not built yet: call build"):
        getattr(gn.Sequential([gn.Dense(3)]), what)(some(2))


# What comes in


def test_inputs_of_another_shape_are_refused(backend: Backend) -> None:
    model = network(backend)
    for x in (some(3, 5), some(4, 1)[:, 0], np.float64(3), some(2, 2, 3)):
        with pytest.raises(ShapeError, match=r"expected inputs \(batch, 4\), got"):
            model.forward(x)


def test_a_batch_beyond_the_capacity_is_refused(backend: Backend) -> None:
    model = network(backend)
    refusal = rf"batches of up to {model.capacity} samples, got {model.capacity + 1}: build with batch_size="
    with pytest.raises(ShapeError, match=refusal):
        model.forward(some(model.capacity + 1))


def test_a_short_batch_does_not_see_what_a_longer_one_left(backend: Backend) -> None:
    model, loss = network(backend), gn.MeanSquaredError()
    alone = []
    for before in (None, 8):
        if before:
            loss.forward(model.forward(some(before, seed=9), training=True), some(before, 3))
            model.backward(loss.backward())
        loss.forward(model.forward(some(3), training=True), some(3, 3))
        model.backward(loss.backward())
        alone.append(backend.to_host(model.parameters.gradients))
    np.testing.assert_array_equal(alone[0], alone[1])


# What comes out


def test_any_number_of_samples_is_predicted_in_parts(backend: Backend) -> None:
    model = network(backend)
    x = some(2 * model.capacity + 3)
    proba = model.predict_proba(x)
    assert proba.shape == (len(x), 3)
    for at in (0, model.capacity - 1, model.capacity, len(x) - 1):
        np.testing.assert_allclose(proba[at : at + 1], model.predict_proba(x[at : at + 1]), rtol=1e-13)
    np.testing.assert_array_equal(model.predict(x), proba.argmax(axis=1))


def test_nothing_is_predicted_of_no_samples(backend: Backend) -> None:
    model = network(backend)
    model.loss = gn.SoftmaxCrossEntropy()
    assert model.predict_proba(np.empty((0, 4))).shape == (0, 3)
    assert model.predict(np.empty((0, 4))).shape == (0,)


@pytest.mark.parametrize(("loss", "last"), [(gn.SoftmaxCrossEntropy, gn.Softmax), (gn.BinaryCrossEntropy, gn.Sigmoid)])
def test_probabilities_are_the_same_with_the_last_activation_or_without(backend: Backend, loss: Any, last: Any) -> None:
    probabilities = []
    for after in ([], [last()]):
        model = gn.Sequential([gn.Dense(6), gn.Tanh(), gn.Dense(3), *after]).build((4,), 8, backend, "float64", 1)
        model.loss = loss()
        probabilities.append(model.predict_proba(some(5)))
    # The last activation is computed on the device, the cost's own on the host: exp may differ in its last bit.
    np.testing.assert_allclose(probabilities[0], probabilities[1], rtol=1e-15 if backend.device == "cpu" else 1e-14)
    if loss is gn.SoftmaxCrossEntropy:
        np.testing.assert_allclose(probabilities[0].sum(axis=1), 1, rtol=1e-14)


def test_a_regression_gives_its_outputs_as_they_are(backend: Backend) -> None:
    model = network(backend)
    model.loss = gn.MeanSquaredError()
    np.testing.assert_array_equal(model.predict_proba(some(5)), backend.to_host(model.forward(some(5))))


def test_bytes_are_scaled_as_those_of_the_training_set_were(backend: Backend) -> None:
    model = network(backend)
    model.input_scale = 1 / 255
    x = np.random.default_rng(0).integers(0, 256, (5, 4)).astype(np.uint8)
    np.testing.assert_allclose(model.predict_proba(x), model.predict_proba(x / 255), rtol=1e-14)
    assert not np.allclose(model.predict_proba(x), model.predict_proba(x.astype(np.float64)))


@pytest.mark.parametrize(
    ("shape", "given"),
    [((4, 4, 1), (5, 4, 4)), ((4, 4, 1), (5, 4, 4, 1)), ((16,), (5, 4, 4)), ((16,), (5, 4, 4, 1)), ((16,), (5, 16))],
    ids=str,
)
def test_images_may_come_flat_or_without_a_channel(
    backend: Backend, shape: tuple[int, ...], given: tuple[int, ...]
) -> None:
    layers = [gn.Dense(3)] if len(shape) == 1 else [gn.Flatten(), gn.Dense(3)]
    model = gn.Sequential(layers).build(shape, 8, backend, "float64", 1)
    flat = gn.Sequential([gn.Dense(3)]).build((16,), 8, backend, "float64", 1)
    x = some(5, 16)
    np.testing.assert_allclose(model.predict_proba(x.reshape(given)), flat.predict_proba(x), rtol=1e-13)


# Evaluation


def test_an_evaluation_is_the_mean_over_all_samples(backend: Backend) -> None:
    model = network(backend)
    model.loss = gn.SoftmaxCrossEntropy()
    n = model.capacity + 7
    x, labels = some(n), np.arange(n) % 3
    result = model.evaluate(gn.Samples(x, labels))
    p = model.predict_proba(x)
    right = int((p.argmax(axis=1) == labels).sum())
    assert result.loss == pytest.approx(-np.log(p[np.arange(n), labels]).mean(), rel=1e-12)
    assert (result.right, result.total, result.accuracy) == (right, n, pytest.approx(right / n))


def test_an_evaluation_scales_bytes_and_takes_regressions(backend: Backend) -> None:
    model = network(backend)
    model.loss = gn.MeanSquaredError()
    x = np.random.default_rng(0).integers(0, 256, (9, 4)).astype(np.uint8)
    targets = some(9, 3)
    result = model.evaluate(gn.Samples(x, targets, scale=1 / 255))
    y = backend.to_host(model.forward(x / 255))
    assert result.loss == pytest.approx(np.square(y - targets).sum() / 9, rel=1e-12)
    assert np.isnan(result.accuracy)


def test_a_network_without_a_cost_is_still_right_or_wrong(backend: Backend) -> None:
    result = network(backend).evaluate(gn.Samples(some(9), np.arange(9) % 3))
    assert np.isnan(result.loss)
    assert 0 <= result.accuracy <= 1


def test_an_evaluation_teaches_nothing(backend: Backend) -> None:
    model = network(backend)
    model.loss = gn.SoftmaxCrossEntropy()
    before = model.parameters.to_host()
    model.evaluate(gn.Samples(some(9), np.arange(9) % 3))
    for name, value in model.parameters.to_host().items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize(
    ("samples", "error", "message"),
    [
        (gn.Samples(some(5, 3), np.arange(5) % 3), ShapeError, r"built for inputs \(4,\), these samples are \(3,\)"),
        (gn.Samples(some(5), np.arange(5)), ShapeError, r"5 classes, the network 3 outputs: end it with Dense\(5\)"),
        (gn.Samples(some(5), some(5, 2)), DataError, "needs labels"),
        (None, DataError, "expected samples such as data.test, a data set, or x and y, got nothing"),
        ((some(5), np.arange(5)), ShapeError, r"5 classes, the network 3 outputs: end it with Dense\(5\)"),
    ],
    ids=["shape", "classes", "targets", "none", "pair"],
)
def test_samples_that_do_not_fit_are_refused(backend: Backend, samples: Any, error: Any, message: str) -> None:
    model = network(backend)
    model.loss = gn.SoftmaxCrossEntropy()
    with pytest.raises(error, match=message) as caught:
        model.evaluate(samples)
    one_line(caught.value)


def test_fewer_classes_than_outputs_are_no_error(backend: Backend) -> None:
    assert network(backend).evaluate(gn.Samples(some(4), np.array([0, 1, 0, 1]))).total == 4


def test_a_network_that_ends_in_images_cannot_be_trained(backend: Backend) -> None:
    data = gn.Data.from_arrays(some(20, 4, 4, 1), np.arange(20) % 2, validation=0)
    with pytest.raises(ShapeError, match=r"end it with Flatten\(\) and Dense\(\)"):
        gn.Sequential([gn.ReLU()]).fit(
            data, optimizer=gn.SGD(0.1), epochs=1, batch_size=5, device=backend, progress=False
        )


# Words


def test_a_summary_counts_every_parameter(backend: Backend) -> None:
    text = network(backend).summary()
    for word in ("Dense", "Tanh", str(6 * 4 + 6), str(3 * 6 + 3), str(6 * 4 + 6 + 3 * 6 + 3)):
        assert word in text


def test_a_network_shows_how_it_was_made() -> None:
    assert repr(gn.Sequential([gn.ReLU(), gn.Flatten()])) == "Sequential([ReLU(), Flatten()])"


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpunn.backend.devices.cuda_trouble", lambda index=0: "no driver")
    with pytest.raises(DeviceError, match="no driver"):
        gn.Sequential([gn.Dense(3)]).build((4,), device="cuda")
