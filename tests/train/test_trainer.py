"""Training: what a run does, records, refuses, and leaves behind."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.harness import one_line

import gpunn as gn
from gpunn.backend.base import Backend
from gpunn.errors import DataError, DivergenceError, GpunnError, OptionError, ShapeError
from gpunn.kernels.random import epoch_order
from gpunn.nn.layers import Layer
from gpunn.train.history import Record


def classes(n: int = 90, *, validation: float = 0.2, seed: int = 0, spread: float = 0.5) -> gn.Data:
    """Three clouds of points in four dimensions."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    x = rng.normal(0, spread, (n, 4)) + np.eye(3, 4)[labels] * 2
    return gn.Data.from_arrays(x.astype(np.float32), labels, validation=validation)


def network(*after: Layer, outputs: int = 3) -> gn.Sequential:
    return gn.Sequential([gn.Dense(8), gn.Tanh(), gn.Dense(outputs), *after])


def fitted(backend: Backend, data: Any = None, model: gn.Sequential | None = None, **options: Any) -> Any:
    """A trained network and its history."""
    model = model or network()
    usual = {
        "epochs": 3,
        "batch_size": 16,
        "device": backend,
        "progress": False,
        "optimizer": gn.SGD(0.1, momentum=0.9),
    }
    return model, model.fit(classes() if data is None else data, **usual | options)


def without_time(history: gn.History) -> list[Any]:
    return [(r.step, r.epoch, r.train_loss, r.train_accuracy, r.validation_loss, r.learning_rate) for r in history]


# Learning


def test_a_network_learns_the_bundled_digits(backend: Backend) -> None:
    data = gn.load_data("digits")
    model = gn.Sequential([gn.Dense(64), gn.ReLU(), gn.Dense(10)])
    history = model.fit(data, epochs=8, batch_size=32, device=backend, progress=False)
    assert history[-1].validation_accuracy > 0.93
    assert not data.test_is_open
    assert model.evaluate(data.test).accuracy > 0.93


def test_a_network_learns_a_regression(backend: Backend) -> None:
    x = np.linspace(-2, 2, 200).reshape(-1, 1)
    data = gn.Data.from_arrays(x, np.sin(2 * x))
    model, history = fitted(
        backend,
        data,
        network(outputs=1),
        epochs=150,
        dtype="float64",
        optimizer=gn.Adam(0.03),
        loss=gn.MeanSquaredError(),
    )
    assert history[-1].validation_loss < 0.01
    assert np.isnan(history[-1].train_accuracy)
    np.testing.assert_allclose(model.predict_proba(x), np.sin(2 * x), atol=0.4)


@pytest.mark.parametrize(
    "optimizer",
    [gn.SGD(0.05), gn.SGD(0.02, 0.9), gn.SGD(0.02, 0.9, nesterov=True), gn.Adam(0.02), gn.Adam(gn.Cosine(0.02))],
    ids=["plain", "momentum", "nesterov", "adam", "cosine"],
)
@pytest.mark.parametrize("loss", [gn.SoftmaxCrossEntropy, gn.BinaryCrossEntropy, gn.MeanSquaredError])
def test_every_optimizer_lowers_every_cost(backend: Backend, optimizer: Any, loss: Any) -> None:
    _, history = fitted(backend, loss=loss(), optimizer=optimizer, epochs=10)
    assert history[-1].train_loss < 0.7 * history[0].train_loss
    assert history[-1].train_accuracy > 0.9


def test_labels_and_float_targets_choose_the_cost(backend: Backend) -> None:
    model, _ = fitted(backend)
    assert isinstance(model.loss, gn.SoftmaxCrossEntropy)
    x = np.random.default_rng(0).normal(size=(40, 4))
    model, _ = fitted(backend, gn.Data.from_arrays(x, x[:, :2]), network(outputs=2))
    assert isinstance(model.loss, gn.MeanSquaredError)


# The same seed


def test_the_same_seed_gives_the_same_bytes(backend: Backend) -> None:
    first, history = fitted(backend, seed=5)
    second, again = fitted(backend, seed=5)
    assert backend.to_host(first.parameters.values).tobytes() == backend.to_host(second.parameters.values).tobytes()
    assert without_time(history) == without_time(again)


def test_another_seed_gives_another_run(backend: Backend) -> None:
    assert without_time(fitted(backend, seed=5)[1]) != without_time(fitted(backend, seed=6)[1])


def test_the_seed_orders_the_batches_of_a_network_that_is_built_already(backend: Backend) -> None:
    runs = []
    for seed in (1, 1, 2):
        model = network().build((4,), 16, backend, seed=0)
        runs.append(without_time(fitted(backend, model=model, seed=seed)[1]))
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize("is_built", [False, True])
@pytest.mark.parametrize("seed", [-1, 2**32, 0.5, "x"])
def test_a_seed_that_cannot_be_is_refused(backend: Backend, seed: Any, is_built: bool) -> None:
    model = network().build((4,), 16, backend) if is_built else network()
    with pytest.raises(OptionError, match="seed must be a whole number") as caught:
        fitted(backend, model=model, seed=seed)
    one_line(caught.value)


# Steps, by hand


def by_hand(
    backend: Backend, data: gn.Data, *, steps: int, batch_size: int, seed: int, strength: float, dtype: str = "float64"
) -> tuple[gn.Sequential, list[float], list[int]]:
    """Gradient descent from forward, backward and (21), (22); the costs and right answers of every step."""
    model, loss = network(), gn.SoftmaxCrossEntropy()
    model.build((4,), batch_size, backend, dtype, seed)
    x, labels = data.train.inputs.astype(dtype), data.train.targets
    n = len(x)
    costs, right = [], []
    per_epoch = -(-n // batch_size)
    for number in range(steps):
        epoch, at = divmod(number, per_epoch)
        rows = epoch_order(n, seed=seed, epoch=epoch)[at * batch_size : (at + 1) * batch_size]
        y = model.forward(x[rows], training=True)
        costs.append(float(loss.forward(y, labels[rows])) * len(rows))
        right.append(int((backend.to_host(y).argmax(axis=1) == labels[rows]).sum()))
        model.backward(loss.backward())
        for p in model.parameters:
            decay = 1 - 0.25 * strength / n if p.weight_decay else 1.0
            backend.assign(p.value, decay * p.value - 0.25 * p.grad)
    return model, costs, right


@pytest.mark.parametrize("strength", [0.0, 3.0])
def test_fit_is_gradient_descent_on_shuffled_batches_the_last_one_shorter(backend: Backend, strength: float) -> None:
    data = classes(61, validation=0)
    regularizer = gn.L2(strength) if strength else None
    model, history = fitted(
        backend, data, batch_size=16, epochs=2, dtype="float64", seed=4, optimizer=gn.SGD(0.25), regularizer=regularizer
    )
    expected, costs, right = by_hand(backend, data, steps=8, batch_size=16, seed=4, strength=strength)
    for name, value in expected.parameters.to_host().items():
        np.testing.assert_allclose(model.parameters.to_host()[name], value, rtol=1e-12, err_msg=name)
    assert [r.step for r in history] == list(range(1, 9))  # four steps an epoch, four looks
    sizes = [16, 16, 16, 13] * 2
    penalties = []
    for steps in range(1, 9):
        after, _, _ = by_hand(backend, data, steps=steps, batch_size=16, seed=4, strength=strength)
        weights = [value for name, value in after.parameters.to_host().items() if name.endswith(".w")]
        penalties.append(strength / (2 * 61) * sum(float(np.square(w).sum()) for w in weights))
    for record, cost, hits, size, penalty in zip(history, costs, right, sizes, penalties, strict=True):
        assert record.train_loss == pytest.approx(cost / size, rel=1e-12)
        assert record.penalty == pytest.approx(penalty if strength else np.nan, rel=1e-12, nan_ok=True)
        assert record.train_accuracy == pytest.approx(hits / size)


@pytest.mark.parametrize("every", [1, 3, 5, 7])
def test_a_record_is_the_mean_of_all_steps_since_the_one_before(backend: Backend, every: int) -> None:
    """Also of those on the other side of the end of an epoch."""
    data = classes(61, validation=0)
    options = {"batch_size": 16, "epochs": 3, "dtype": "float64", "seed": 4, "optimizer": gn.SGD(0.25)}
    _, history = fitted(backend, data, validate_every=every, **options)
    _, costs, right = by_hand(backend, data, steps=12, batch_size=16, seed=4, strength=0.0)
    sizes = [16, 16, 16, 13] * 3
    ends = sorted({*range(every, 13, every), 12})
    assert [r.step for r in history] == ends
    for record, begin, end in zip(history, [0, *ends], ends, strict=False):
        assert record.train_loss == pytest.approx(sum(costs[begin:end]) / sum(sizes[begin:end]), rel=1e-12)
        assert record.train_accuracy == pytest.approx(sum(right[begin:end]) / sum(sizes[begin:end]))
        assert record.epoch == end / 4


def test_one_batch_may_be_the_whole_training_set(backend: Backend) -> None:
    data = classes(30, validation=0)
    _, history = fitted(backend, data, batch_size=30, epochs=2)
    assert [r.step for r in history] == [1, 2]


def test_the_penalty_of_l1_is_recorded_beside_the_loss_and_not_in_it(backend: Backend) -> None:
    data = classes(30, validation=0)
    plain = fitted(backend, data, batch_size=30, epochs=1, optimizer=gn.SGD(1e-9), dtype="float64")
    shown = fitted(
        backend, data, batch_size=30, epochs=1, optimizer=gn.SGD(1e-9), dtype="float64", regularizer=gn.L1(6.0)
    )
    weights = [value for name, value in plain[0].parameters.to_host().items() if name.endswith(".w")]
    penalty = 6.0 / 30 * sum(float(np.abs(w).sum()) for w in weights)
    assert shown[1][0].penalty == pytest.approx(penalty, rel=1e-6)
    assert shown[1][0].train_loss == plain[1][0].train_loss


def test_a_penalty_far_above_the_loss_is_no_divergence_and_no_flat_curve(backend: Backend) -> None:
    data = classes()
    _, history = fitted(backend, data, regularizer=gn.L2(1e-4), optimizer=gn.SGD(0.1), epochs=8)
    _, strong = fitted(backend, data, regularizer=gn.L1(1e4), optimizer=gn.SGD(1e-9), epochs=2)
    assert strong[-1].penalty > 100 * strong[-1].train_loss
    assert history[-1].train_loss < 0.5 * history[0].train_loss
    assert "nan" not in repr(history[-1])


def test_validation_is_the_cost_without_the_penalty(backend: Backend) -> None:
    data = classes()
    model, history = fitted(backend, data, regularizer=gn.L2(20.0))
    result = model.evaluate(data.validation)
    assert history[-1].validation_loss == pytest.approx(result.loss, rel=1e-12)
    assert history[-1].validation_accuracy == result.accuracy


def test_the_rates_of_a_schedule_are_recorded_and_used(backend: Backend) -> None:
    _, history = fitted(backend, optimizer=gn.SGD(gn.Cosine(0.5, 0.1)), epochs=4, validate_every=1)
    steps = history[-1].step
    epochs = np.arange(steps) / (steps / 4)
    np.testing.assert_allclose([r.learning_rate for r in history], gn.Cosine(0.5, 0.1).rates(epochs, 4), rtol=1e-12)


def test_a_network_that_ends_in_the_link_of_its_cost_is_trained_the_same(backend: Backend) -> None:
    for loss, last in ((gn.SoftmaxCrossEntropy, gn.Softmax), (gn.BinaryCrossEntropy, gn.Sigmoid)):
        runs = []
        for after in ([], [last()]):
            model, history = fitted(backend, model=network(*after), loss=loss(), dtype="float64", seed=2)
            runs.append((model, history))
        assert without_time(runs[0][1]) == without_time(runs[1][1])
        x = classes().train.inputs
        np.testing.assert_allclose(runs[0][0].predict_proba(x), runs[1][0].predict_proba(x), rtol=1e-14)


def test_float64_and_float32_agree_to_rounding(backend: Backend) -> None:
    single, double = (fitted(backend, dtype=dtype)[1] for dtype in ("float32", "float64"))
    assert single[-1].train_loss == pytest.approx(double[-1].train_loss, rel=1e-4)
    assert single[-1].train_loss != double[-1].train_loss


def test_bytes_are_trained_on_as_the_numbers_that_they_stand_for(backend: Backend) -> None:
    rng = np.random.default_rng(0)
    x, labels = rng.integers(0, 256, (60, 4)).astype(np.uint8), np.arange(60) % 3
    as_bytes = gn.Data.from_arrays(x, labels, validation=0)
    as_floats = gn.Data.from_arrays(x / 255, labels, validation=0)
    runs = [fitted(backend, data, dtype="float64")[1] for data in (as_bytes, as_floats)]
    assert runs[0][-1].train_loss == pytest.approx(runs[1][-1].train_loss, rel=1e-10)


# The test set


def test_the_test_set_is_never_opened_by_a_training(backend: Backend) -> None:
    def open_test() -> gn.Samples:
        raise AssertionError("the test set was opened")

    train = classes(60).train
    data = gn.Data.from_samples(train, test=open_test, validation=0.2)
    fitted(backend, data, patience=1, epochs=4, regularizer=gn.L2(1.0))
    assert not data.test_is_open


# Again


def test_a_second_training_goes_on_from_the_weights(backend: Backend) -> None:
    model, first = fitted(backend, epochs=6)
    _, second = fitted(backend, model=model, epochs=1, optimizer=gn.SGD(1e-6))
    assert second[0].train_loss < 0.5 * first[0].train_loss


@pytest.mark.parametrize("make", [lambda: gn.SGD(0.1), lambda: gn.SGD(0.1, momentum=0.9), lambda: gn.Adam(0.05)])
def test_another_optimizer_begins_afresh_from_the_weights_and_the_count(backend: Backend, make: Any) -> None:
    """Nothing else is left of the first training: no momentum, and the steps of Adam count from its own first."""
    model, _ = fitted(backend, optimizer=make())
    fresh = network().build((4,), 16, backend)
    fresh.parameters.load(model.parameters.to_host())
    fresh.count_on(model.epochs_trained, model.steps_trained)
    runs = [fitted(backend, model=one, optimizer=make(), seed=3) for one in (model, fresh)]
    assert without_time(runs[0][1]) == without_time(runs[1][1])


def test_an_optimizer_may_serve_twice(backend: Backend) -> None:
    optimizer = gn.SGD(0.1, momentum=0.9)
    assert without_time(fitted(backend, optimizer=optimizer)[1]) == without_time(
        fitted(backend, optimizer=optimizer)[1]
    )


def test_a_second_training_may_have_larger_batches_or_another_dtype(backend: Backend) -> None:
    model, first = fitted(backend, epochs=6)
    _, larger = fitted(backend, classes(400), model=model, batch_size=300, epochs=1, optimizer=gn.SGD(1e-6))
    _, double = fitted(backend, model=model, dtype="float64", epochs=1, optimizer=gn.SGD(1e-6))
    assert max(larger[0].train_loss, double[0].train_loss) < 0.5 * first[0].train_loss
    assert model.parameters.values.dtype == np.float64


@pytest.mark.parametrize("optimizer", [gn.SGD(0.1), gn.SGD(0.1, momentum=0.9)], ids=["folded", "momentum"])
def test_gradients_by_hand_are_there_after_a_training(backend: Backend, optimizer: gn.SGD) -> None:
    """A step whose update is folded into the product must not go on to change weights in a `backward` by hand."""
    model, _ = fitted(backend, optimizer=optimizer)
    before, loss = model.parameters.to_host(), gn.SoftmaxCrossEntropy()
    loss.forward(model.forward(classes().train.inputs[:8], training=True), np.arange(8) % 3)
    model.backward(loss.backward())
    for p in model.parameters:
        assert p.grad is not None
        np.testing.assert_array_equal(backend.to_host(p.value), before[p.name])


# Overfitting and patience


def test_overfitting_is_said_with_the_step_since_when(
    backend: Backend, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    since = Record(7, 1.75, 0.1, 1.0, 0.5, 0.8, 0.1, 0.0)
    monkeypatch.setattr("gpunn.train.history.OverfittingCriterion.observe", lambda self, record: since)
    fitted(backend, progress=True, epochs=1, validate_every=100)
    assert "overfitting (high variance) since step 7, epoch 1.8" in capsys.readouterr().err


def test_noise_is_overfitted_and_found_out(backend: Backend) -> None:
    rng = np.random.default_rng(0)
    data = gn.Data.from_arrays(rng.normal(size=(160, 20)), rng.integers(0, 2, 160), validation=80)
    model = gn.Sequential([gn.Dense(50), gn.ReLU(), gn.Dense(2)])
    _, history = fitted(backend, data, model, epochs=60, optimizer=gn.SGD(0.2))
    assert history.overfitting_since is not None
    assert history[-1].train_accuracy == 1.0


def test_patience_stops_and_puts_back_the_best_weights(backend: Backend) -> None:
    rng = np.random.default_rng(1)
    data = gn.Data.from_arrays(rng.normal(size=(160, 20)), rng.integers(0, 2, 160), validation=80)
    model = gn.Sequential([gn.Dense(50), gn.ReLU(), gn.Dense(2)])
    _, history = fitted(backend, data, model, epochs=100, patience=3, optimizer=gn.SGD(0.2))
    assert history.stopped == "no better validation loss for 3 epochs"
    best = history.best
    assert best is not None
    assert 3 <= history[-1].epoch - best.epoch < 4
    assert best.validation_loss < history[-1].validation_loss
    assert model.evaluate(data.validation).loss == pytest.approx(best.validation_loss, rel=1e-12)


def test_what_batchnorm_remembers_is_put_back_with_the_weights(backend: Backend) -> None:
    rng = np.random.default_rng(1)
    data = gn.Data.from_arrays(rng.normal(size=(160, 20)), rng.integers(0, 2, 160), validation=80)
    model = gn.Sequential([gn.Dense(50), gn.BatchNorm(), gn.ReLU(), gn.Dense(2)])
    _, history = fitted(backend, data, model, epochs=100, patience=3, optimizer=gn.SGD(0.2))
    assert history.stopped
    assert history.best is not history[-1]
    assert model.evaluate(data.validation).loss == pytest.approx(history.best.validation_loss, rel=1e-12)


def test_without_patience_the_last_weights_stay(backend: Backend) -> None:
    data = classes(spread=3.0)
    model, history = fitted(backend, data, epochs=20, optimizer=gn.SGD(0.5))
    assert history.stopped == ""
    assert model.evaluate(data.validation).loss == pytest.approx(history[-1].validation_loss, rel=1e-12)


# Divergence


@pytest.mark.parametrize("validation", [0, 0.2])
@pytest.mark.parametrize("rate", [1e3, 1e12, 1e30, 1e300])
@pytest.mark.parametrize("every", [1, None])
def test_a_rate_that_is_far_too_high_ends_with_advice_and_finite_weights(
    backend: Backend, rate: float, validation: float, every: int | None
) -> None:
    data = classes(validation=validation)
    model = gn.Sequential([gn.Dense(8), gn.ReLU(), gn.Dense(8), gn.ReLU(), gn.Dense(3)])
    with pytest.raises(DivergenceError) as caught:
        fitted(
            backend, data, model, optimizer=gn.SGD(rate), loss=gn.MeanSquaredError(), epochs=20, validate_every=every
        )
    message = one_line(caught.value)
    assert "training diverged in epoch" in message
    assert f"Try a learning rate below {rate:g}" in message
    assert np.isfinite(backend.to_host(model.parameters.values)).all()
    assert np.isfinite(model.evaluate(data.train).loss)


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("validation", [0, 0.2])
def test_weights_that_were_good_are_kept_when_a_later_rate_is_too_high(
    backend: Backend, validation: float, every: int
) -> None:
    """Not those of a record whose training cost was fine and whose last update was not."""

    class Spike(gn.Cosine):
        def rates(self, epochs: NDArray[Any], total: int) -> NDArray[Any]:
            return np.where(epochs < 5, 0.1, 1e15)

    data = classes(validation=validation)
    model = network()
    options = {"optimizer": gn.SGD(Spike(1.0)), "loss": gn.MeanSquaredError(), "epochs": 9, "validate_every": every}
    with pytest.raises(DivergenceError, match="the weights of step") as caught:
        fitted(backend, data, model, **options)
    one_line(caught.value)
    assert model.evaluate(data.train).accuracy > 0.9


def test_what_batchnorm_remembers_stays_finite_when_a_training_diverges(backend: Backend) -> None:
    data = classes()
    model = gn.Sequential([gn.Dense(8), gn.BatchNorm(), gn.ReLU(), gn.Dense(3)])
    with pytest.raises(DivergenceError):
        fitted(backend, data, model, optimizer=gn.SGD(1e30), loss=gn.MeanSquaredError(), epochs=20)
    assert np.isfinite(model.evaluate(data.train).loss)


def test_a_nan_on_the_way_is_a_divergence_and_no_warning(backend: Backend) -> None:
    model = network().build((4,), 16, backend)
    backend.assign(model.parameters["dense2.b"].value, np.nan)
    with pytest.raises(DivergenceError, match=r"step [12]: the loss is NaN or Inf"):
        fitted(backend, model=model)


# Arguments that cannot be


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": 0}, OptionError, "batch size must be a whole number"),
        ({"batch_size": 2.5}, OptionError, "batch size must be a whole number"),
        ({"epochs": 0}, OptionError, "epochs must be a whole number"),
        ({"validate_every": 0}, OptionError, "validate_every must be a whole number"),
        ({"patience": 0}, OptionError, "patience must be above 0"),
        ({"patience": float("nan")}, OptionError, "patience must be above 0"),
        ({"dtype": "float16"}, OptionError, "unknown dtype"),
        ({"device": "gpu"}, OptionError, "unknown device"),
        ({"data": classes(validation=0), "patience": 2}, OptionError, "patience needs a validation set"),
        ({"data": "digits"}, DataError, "fit takes a data set"),
        ({"data": (np.ones((4, 4)), np.ones(4, int), 1)}, DataError, "fit takes a data set"),
    ],
    ids=str,
)
def test_a_training_that_cannot_be_says_why_in_one_line(
    backend: Backend, options: dict[str, Any], error: type[GpunnError], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        fitted(backend, **options)
    one_line(caught.value)


def test_more_classes_than_outputs_are_refused_with_the_layer_that_mends_it(backend: Backend) -> None:
    with pytest.raises(ShapeError, match=r"the data have 3 classes, the network 2 outputs: end it with Dense\(3\)"):
        fitted(backend, model=network(outputs=2))


def test_float_targets_need_as_many_outputs(backend: Backend) -> None:
    x = np.random.default_rng(0).normal(size=(40, 4))
    with pytest.raises(ShapeError, match=r"the data have 2 targets, the network 3 outputs: end it with Dense\(2\)"):
        fitted(backend, gn.Data.from_arrays(x, x[:, :2]))
    with pytest.raises(DataError, match="SoftmaxCrossEntropy needs labels"):
        fitted(backend, gn.Data.from_arrays(x, x[:, :3]), loss=gn.SoftmaxCrossEntropy())


def test_data_that_were_refused_leave_the_network_free_for_others(backend: Backend) -> None:
    model = network()
    wide = gn.Data.from_arrays(np.ones((40, 9)), np.arange(40) % 5)
    with pytest.raises(ShapeError, match="5 classes"):
        fitted(backend, wide, model)
    fitted(backend, classes(), model)
    assert model.input_shape == (4,)


def test_data_of_another_shape_than_the_network_was_trained_on_are_refused(backend: Backend) -> None:
    model, _ = fitted(backend)
    with pytest.raises(ShapeError, match=r"built for inputs \(4,\), these samples are \(9,\)"):
        fitted(backend, gn.Data.from_arrays(np.ones((40, 9)), np.arange(40) % 3), model)


def test_samples_and_pairs_of_arrays_are_data_too(backend: Backend) -> None:
    data = classes(60)
    x, labels = data.train.inputs, data.train.targets
    for given in (data.train, (x, labels), [x, labels]):
        _, history = fitted(backend, given)
        assert np.isfinite(history[-1].validation_loss)
