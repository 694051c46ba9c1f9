"""BatchNorm: (23), (24), its gradients in both modes, and both kinds of remembered statistics."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.harness import one_line
from support.layer_helpers import Alone, assert_gradients

import gpunn as gn
from gpunn.backend.base import Backend
from gpunn.backend.cpu import NumpyBackend
from gpunn.errors import OptionError, ShapeError
from gpunn.kernels import Raw

SHAPES = st.one_of(st.tuples(st.integers(1, 5)), st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3)))
EPSILON = 1e-5


def of_channels(x: NDArray[Any]) -> NDArray[Any]:
    """(values, channels): what is averaged over, over the batch and, of images, over height and width."""
    return x.reshape(-1, x.shape[-1])


def normalised(x: NDArray[Any], mean: Any, variance: Any, gamma: Any, beta: Any) -> NDArray[Any]:
    return gamma * (x - mean) / np.sqrt(variance + EPSILON) + beta


# (23) and (24)


@settings(deadline=None, max_examples=60)
@given(shape=SHAPES, n=st.integers(2, 8), seed=st.integers(0, 999))
def test_a_batch_is_normalised_by_its_own_mean_and_variance(
    backend: Backend, shape: tuple[int, ...], n: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(3, 2, (n, *shape))
    alone = Alone(gn.BatchNorm(), shape, backend).draw(rng)
    values = of_channels(x)
    expected = normalised(x, values.mean(axis=0), values.var(axis=0), alone.value("gamma"), alone.value("beta"))
    np.testing.assert_allclose(alone.forward(x), expected, rtol=1e-10, atol=1e-10)


@settings(deadline=None, max_examples=60)
@given(shape=SHAPES, n=st.integers(2, 6), seed=st.integers(0, 999), training=st.booleans())
def test_back_propagation_through_a_normalised_batch(
    backend: Backend, shape: tuple[int, ...], n: int, seed: int, training: bool
) -> None:
    rng = np.random.default_rng(seed)
    channels = shape[-1]
    alone = Alone(gn.BatchNorm(epsilon=0.1), shape, backend).draw(rng)
    alone.set(mean=rng.normal(size=channels), variance=rng.uniform(0.5, 2, channels))
    x = rng.normal(0.5, 2, (n, *shape))
    # In training a step changes the running averages, but not what comes out.
    assert_gradients(alone, x, rng, training, directions=3)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(3,), (3, 2, 2)], ids=["dense", "images"])
def test_back_propagation_element_by_element(backend: Backend, shape: tuple[int, ...], training: bool) -> None:
    rng = np.random.default_rng(13)
    alone = Alone(gn.BatchNorm(), shape, backend).draw(rng)
    alone.set(mean=rng.normal(size=shape[-1]), variance=rng.uniform(0.5, 2, shape[-1]))
    assert_gradients(alone, rng.normal(1, 2, (4, *shape)), rng, training)


def test_back_propagation_follows_the_mode_of_the_last_forward(backend: Backend) -> None:
    rng = np.random.default_rng(0)
    x, v = rng.normal(size=(6, 3)), rng.normal(size=(6, 3))
    results: dict[bool, list[Any]] = {True: [], False: []}
    alone = Alone(gn.BatchNorm(momentum=1e-12), (3,), backend).set(mean=[1.0, 2.0, 3.0], variance=[4.0, 5.0, 6.0])
    for training in (True, False, True, False, False, True):
        alone.forward(x, training)
        results[training].append((alone.backward(v), alone.grad("gamma"), alone.grad("beta")))
    for of_mode in results.values():
        for again in of_mode[1:]:
            for first, second in zip(of_mode[0], again, strict=True):
                np.testing.assert_allclose(second, first, rtol=1e-9)
    assert not np.allclose(results[True][0][0], results[False][0][0])


@pytest.mark.parametrize("shape", [(4,), (3, 5, 4)], ids=["dense", "images"])
def test_with_gamma_the_deviation_and_beta_the_mean_it_is_the_identity(
    backend: Backend, shape: tuple[int, ...]
) -> None:
    """γ = √(σ² + ε), β = x̄, in training and, where the same statistics are remembered, afterwards."""
    rng = np.random.default_rng(1)
    x = rng.normal(-2, 3, (7, *shape))
    mean, variance = of_channels(x).mean(axis=0), of_channels(x).var(axis=0)
    alone = Alone(gn.BatchNorm(), shape, backend)
    alone.set(gamma=np.sqrt(variance + EPSILON), beta=mean, mean=mean, variance=variance)
    np.testing.assert_allclose(alone.forward(x, training=False), x, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(alone.forward(x, training=True), x, rtol=1e-13, atol=1e-13)


def test_what_comes_out_has_mean_beta_and_deviation_gamma(backend: Backend) -> None:
    rng = np.random.default_rng(2)
    alone = Alone(gn.BatchNorm(), (4, 4, 3), backend).set(gamma=[1.0, 2.0, 0.5], beta=[0.0, -1.0, 7.0])
    y = of_channels(alone.forward(rng.normal(50, [1, 10, 100], (8, 4, 4, 3))))
    np.testing.assert_allclose(y.mean(axis=0), [0, -1, 7], atol=1e-12)
    np.testing.assert_allclose(y.std(axis=0), [1, 2, 0.5], rtol=1e-4)


def test_it_begins_as_plain_normalisation_and_remembers_mean_0_and_variance_1(backend: Backend) -> None:
    alone = Alone(gn.BatchNorm(), (2,), backend)
    for word, value in (("gamma", 1), ("beta", 0), ("mean", 0), ("variance", 1)):
        np.testing.assert_array_equal(alone.value(word), [value, value])


@pytest.mark.parametrize("training", [True, False])
def test_a_spread_small_beside_the_mean_is_not_lost(backend: Backend, training: bool) -> None:
    """With E[x²] − E[x]² every digit of this variance is lost in float32."""
    rng = np.random.default_rng(3)
    x = rng.normal(1e4, 1e-2, (8, 12, 12, 2)).astype(np.float32)
    values = of_channels(x).astype(np.float64)
    mean, variance = values.mean(axis=0), values.var(axis=0)
    careless = np.square(of_channels(x)).mean(axis=0) - np.square(of_channels(x).mean(axis=0))
    assert (np.abs(careless / variance - 1) > 10).all()
    alone = Alone(gn.BatchNorm(momentum=1.0), (12, 12, 2), backend, dtype="float32")
    y = of_channels(alone.forward(x).astype(np.float64))
    # The mean itself can only be told to half a unit of its last place, 0.0005: a twentieth of the deviation.
    unbiased = len(values) / (len(values) - 1)
    np.testing.assert_allclose(alone.value("variance"), variance * unbiased, rtol=0.02)
    np.testing.assert_allclose(alone.value("mean"), mean, rtol=0, atol=0.001)
    if not training:
        y = of_channels(alone.forward(x, training=False).astype(np.float64))
        by_these = normalised(values, *(alone.value(word).astype(np.float64) for word in ("mean", "variance")), 1, 0)
        np.testing.assert_allclose(y, by_these, atol=1e-5)
    expected = (values - mean) / np.sqrt(variance + EPSILON)
    np.testing.assert_allclose(y, expected, atol=0.1)
    np.testing.assert_allclose(y.std(axis=0), expected.std(axis=0), rtol=0.01)


def test_a_channel_that_never_varies_stays_finite(backend: Backend) -> None:
    x = np.full((4, 3), 1e4)
    alone = Alone(gn.BatchNorm(), (3,), backend, dtype="float32")
    np.testing.assert_array_equal(alone.forward(x), np.zeros((4, 3)))
    assert np.isfinite(alone.backward(np.ones((4, 3)))).all()


def test_gradients_may_be_written_over_what_comes_back(backend: Backend) -> None:
    """In a network the memory of ∂C/∂y is reused; the caller's own is not."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(5, 3))
    results = []
    for after in ([], [gn.Dense(4, weights="normal")]):
        model = gn.Sequential([gn.Dense(3), gn.BatchNorm(), *after]).build((3,), 8, backend, "float64")
        model.forward(x, training=True)
        dy = backend.asarray(rng.normal(size=(5, 4 if after else 3)))
        before = backend.to_host(dy)
        model.backward(dy)
        np.testing.assert_array_equal(backend.to_host(dy), before)
        if after:
            w = backend.to_host(model.parameters["dense2.w"].value)
            alone = gn.Sequential([gn.Dense(3), gn.BatchNorm()]).build((3,), 8, backend, "float64")
            alone.forward(x, training=True)
            alone.backward(backend.asarray(before @ w))
            results = [backend.to_host(m.parameters["dense1.w"].grad) for m in (model, alone)]
    np.testing.assert_allclose(results[0], results[1], rtol=1e-12)


# Large batches, of which several blocks of a GPU share a channel

LARGE_SHAPES = [(8, 8, 3, 1366), (7, 9, 64, 66), (16, 16, 300, 4), (1, 1, 5, 52_429), (3, 3, 1, 29_200)]
"""Height, width, channels and samples: at least 2¹⁸ numbers, rows that do and do not begin at 16 bytes."""


class Recorded(NumpyBackend):
    """The CPU, taking the ways of a GPU, which keeps what kernels are run with."""

    device = "recorded"

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...]]] = []

    def run(self, kernel: Any, *arguments: Any) -> None:
        self.calls.append((kernel, arguments))
        super().run(kernel, *arguments)


@pytest.mark.parametrize(("height", "width", "channels", "n"), LARGE_SHAPES)
def test_blocks_that_share_a_channel_compute_the_same(
    backend: Backend, height: int, width: int, channels: int, n: int
) -> None:
    rng = np.random.default_rng(14)
    x, dy = (rng.normal(2, 3, (n, height, width, channels)) for _ in range(2))
    gamma, beta = (rng.normal(size=channels) for _ in range(2))
    values = of_channels(x)
    mean, variance = values.mean(axis=0), values.var(axis=0)
    for _ in range(2):  # the second finds the tickets as the first did
        alone = Alone(gn.BatchNorm(), x.shape[1:], backend, capacity=n).set(gamma=gamma, beta=beta)
        y = alone.forward(x)
        np.testing.assert_allclose(y, normalised(x, mean, variance, gamma, beta), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(alone.value("mean"), 0.1 * mean, rtol=1e-9)
        normal = (x - mean) / np.sqrt(variance + EPSILON)
        by_gamma, by_beta = (of_channels(each).sum(axis=0) for each in (dy * normal, dy))
        dx = gamma / np.sqrt(variance + EPSILON) * (dy - (by_beta + normal * by_gamma) / len(values))
        np.testing.assert_allclose(alone.backward(dy), dx, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(alone.grad("gamma"), by_gamma, rtol=1e-9, atol=1e-8)
        np.testing.assert_allclose(alone.grad("beta"), by_beta, rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize(("height", "width", "channels", "n"), [*LARGE_SHAPES, (1, 1, 1024, 256), (2, 2, 263, 250)])
def test_large_batches_keep_a_gpu_busy_and_are_read_twice(height: int, width: int, channels: int, n: int) -> None:
    """From 2¹⁸ numbers on: two blocks for each of 132 processors, two reads and a write, and four and a write back."""
    device = Recorded()
    shape = (n, height, width, channels)
    alone = Alone(gn.BatchNorm(), shape[1:], device, capacity=n)
    for work, passes in ((alone.forward, 3), (alone.backward, 5)):
        device.calls.clear()
        work(np.ones(shape))
        assert 1 <= len(device.calls) <= 2
        moved = 0
        for kernel, arguments in device.calls:
            moved += sum(array.nbytes for array in arguments if isinstance(array, np.ndarray))
            if len(device.calls) == 1:  # each block reads what it needs again: of a channel that fits its cache
                moved += (passes // 2) * 8 * n * height * width * channels
            if isinstance(kernel, Raw):
                blocks = kernel.launch(*arguments).blocks
                assert np.prod(blocks) >= 2 * 132
        assert moved <= 1.1 * passes * 8 * n * height * width * channels


def test_the_scratch_of_blocks_is_counted_and_not_made_on_the_host() -> None:
    for device, is_made in ((Recorded(), True), (NumpyBackend(), False)):
        alone = Alone(gn.BatchNorm(), (16, 16, 64), device, capacity=64)
        parts, tickets = alone.stages[0]._scratch  # type: ignore[attr-defined]
        assert (parts.size > 0) == (tickets.size > 0) == is_made
        buffers = 2 * 16 * 16 * 64 * 64 * 8
        assert alone.context.buffer_bytes["batchnorm1"] == buffers + parts.nbytes + tickets.nbytes


# Running averages


@pytest.mark.parametrize("momentum", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(3,), (4, 2, 3)], ids=["dense", "images"])
def test_running_averages_follow_the_batches(backend: Backend, shape: tuple[int, ...], momentum: float) -> None:
    """r := (1 − m) r + m · value, the variance as n/(n − 1) σ²; batches of different sizes."""
    rng = np.random.default_rng(5)
    alone = Alone(gn.BatchNorm(momentum=momentum), shape, backend)
    mean, variance = np.zeros(3), np.ones(3)
    for n in (8, 3, 2, 8):
        x = rng.normal(2, 3, (n, *shape))
        alone.forward(x)
        mean = (1 - momentum) * mean + momentum * of_channels(x).mean(axis=0)
        variance = (1 - momentum) * variance + momentum * of_channels(x).var(axis=0, ddof=1)
        np.testing.assert_allclose(alone.value("mean"), mean, rtol=1e-12)
        np.testing.assert_allclose(alone.value("variance"), variance, rtol=1e-12)
    x = rng.normal(size=(5, *shape))
    np.testing.assert_allclose(alone.forward(x, training=False), normalised(x, mean, variance, 1, 0), rtol=1e-10)


def test_remembered_statistics_do_not_change_by_being_used(backend: Backend) -> None:
    rng = np.random.default_rng(6)
    alone = Alone(gn.BatchNorm(), (3,), backend)
    alone.forward(rng.normal(size=(8, 3)))
    before = alone.value("mean"), alone.value("variance")
    alone.forward(rng.normal(9, 9, (8, 3)), training=False)
    np.testing.assert_array_equal(alone.value("mean"), before[0])
    np.testing.assert_array_equal(alone.value("variance"), before[1])


def test_by_remembered_statistics_a_sample_does_not_depend_on_its_batch(backend: Backend) -> None:
    rng = np.random.default_rng(7)
    alone = Alone(gn.BatchNorm(), (3,), backend).draw(rng)
    x = rng.normal(size=(8, 3))
    alone.forward(x)
    whole = alone.forward(x, training=False)
    np.testing.assert_array_equal(alone.forward(x[2:3], training=False), whole[2:3])


# One pass over the training set


def network(*after: Any) -> gn.Sequential:
    return gn.Sequential(
        [gn.Conv2D(4, 3), gn.BatchNorm(), gn.ReLU(), gn.MaxPool2D(2), gn.Flatten(), gn.Dense(12), *after, gn.Dense(10)]
    )


def digits(count: int) -> gn.Data:
    data = gn.load_data("digits", limit=count, validation=0)
    return gn.Data("digits", data.train, None, data.class_names)


def fitted(model: gn.Sequential, data: gn.Data, backend: Backend, **options: Any) -> gn.Sequential:
    model.fit(data, epochs=2, batch_size=32, device=backend, progress=False, **options)
    return model


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("count", [300, 256, 258, 700])
def test_recomputed_statistics_are_those_of_the_training_set(backend: Backend, count: int, dtype: str) -> None:
    data = digits(count)
    model = fitted(network(), data, backend, dtype=dtype)
    running = model.arrays()
    model.recompute_statistics(data)
    arrays = model.arrays()
    # The first convolution of all images, from its definition.
    x = data.train.inputs.astype(np.float64) * data.train.scale
    w = arrays["conv1.w"].astype(np.float64)
    z = np.zeros((count, 6, 6, 4))
    for u in range(3):
        for v in range(3):
            z += x[:, u : u + 6, v : v + 6] * w[:, 0, u, v]
    z = of_channels(z + arrays["conv1.b"])
    np.testing.assert_allclose(arrays["batchnorm1.mean"], z.mean(axis=0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(arrays["batchnorm1.variance"], z.var(axis=0), rtol=1e-6, atol=1e-6)
    assert not np.allclose(running["batchnorm1.mean"], arrays["batchnorm1.mean"], rtol=1e-6)
    for name in (p.name for p in model.parameters):
        np.testing.assert_array_equal(arrays[name], running[name])


@pytest.mark.parametrize("count", [257, 513, 2])
def test_statistics_of_any_number_of_samples_can_be_recomputed(backend: Backend, count: int) -> None:
    """Also where the last batch would be of one sample, which a dense BatchNorm could not normalise."""
    rng = np.random.default_rng(8)
    samples = gn.Samples(rng.normal(size=(count, 3)), rng.integers(0, 2, count))
    model = gn.Sequential([gn.Dense(4), gn.BatchNorm(), gn.Dense(2)]).build((3,), 32, backend, "float64")
    model.recompute_statistics(samples)
    arrays = model.arrays()
    z = samples.inputs @ arrays["dense1.w"].T + arrays["dense1.b"]
    np.testing.assert_allclose(arrays["batchnorm1.mean"], z.mean(axis=0), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(arrays["batchnorm1.variance"], z.var(axis=0), rtol=1e-10)


def test_no_pass_is_made_for_frozen_statistics(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = gn.Samples(np.random.default_rng(8).normal(size=(6, 3)), np.array([0, 1] * 3))
    model = gn.Sequential([gn.Dense(4), gn.BatchNorm(), gn.Dense(2)]).build((3,), 32, backend)
    model.layers[1].trainable = False
    monkeypatch.setattr("gpunn.train.evaluator.Evaluator.run", lambda *_: pytest.fail("a pass was made"))
    model.recompute_statistics(samples)


def test_several_layers_are_recomputed_in_one_pass_and_the_network_stays_as_good(backend: Backend) -> None:
    data = gn.load_data("digits")
    model = fitted(
        network(gn.BatchNorm(), gn.ReLU(), gn.Dense(12), gn.BatchNorm()), data, backend, optimizer=gn.SGD(0.1)
    )
    assert data.validation is not None
    before = model.evaluate(data.validation)
    running = model.arrays()
    model.recompute_statistics(data.train)
    after = model.evaluate(data.validation)
    for number in (1, 2, 3):
        for word in ("mean", "variance"):
            array = model.arrays()[f"batchnorm{number}.{word}"]
            assert np.isfinite(array).all()
            assert not np.array_equal(array, running[f"batchnorm{number}.{word}"])
    assert before.accuracy > 0.8
    assert after.accuracy > before.accuracy - 0.03
    assert np.isfinite(after.loss)


def test_recomputing_twice_gives_the_same(backend: Backend) -> None:
    data = digits(300)
    model = fitted(network(gn.BatchNorm()), data, backend)
    model.recompute_statistics(data)
    once = model.arrays()
    model.recompute_statistics(data.train)
    for name, array in model.arrays().items():
        np.testing.assert_array_equal(array, once[name])


def test_fit_recomputes_at_the_end_if_told_so(backend: Backend) -> None:
    data = digits(300)
    told = fitted(network(), data, backend, recompute_statistics=True).arrays()
    by_hand = fitted(network(), data, backend)
    assert not np.array_equal(told["batchnorm1.mean"], by_hand.arrays()["batchnorm1.mean"])
    by_hand.recompute_statistics(data)
    for name, array in by_hand.arrays().items():
        np.testing.assert_array_equal(told[name], array)


def test_a_pass_that_is_cut_off_leaves_the_statistics_as_they_were(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = digits(600)
    model = fitted(network(gn.BatchNorm()), data, backend)
    before, propagate, calls = model.arrays(), model.propagate, []

    def cut_off(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return propagate(*arguments)

    monkeypatch.setattr(model, "propagate", cut_off)
    with pytest.raises(KeyboardInterrupt):
        model.recompute_statistics(data)
    assert len(calls) == 3
    for name, array in model.arrays().items():
        np.testing.assert_array_equal(array, before[name])
    monkeypatch.undo()
    model.propagate(backend.asarray(np.zeros((1, 8, 8, 1), np.float32)), False, model.stages)  # as remembered again
    for name, array in model.arrays().items():
        np.testing.assert_array_equal(array, before[name])


def test_gradients_by_recomputed_statistics(backend: Backend) -> None:
    rng = np.random.default_rng(9)
    samples = gn.Samples(rng.normal(2, 3, (40, 3)), rng.integers(0, 2, 40))
    model = gn.Sequential([gn.BatchNorm(), gn.Dense(2)]).build((3,), 8, backend, "float64")
    model.recompute_statistics(samples)
    remembered = model.arrays()
    alone = Alone(gn.BatchNorm(), (3,), backend).draw(rng)
    alone.set(mean=remembered["batchnorm1.mean"], variance=remembered["batchnorm1.variance"])
    assert_gradients(alone, samples.inputs[:5], rng, training=False)


def test_to_recompute_without_batchnorm_is_refused(backend: Backend) -> None:
    model = gn.Sequential([gn.Dense(2)]).build((3,), 8, backend)
    with pytest.raises(OptionError, match="no BatchNorm") as caught:
        model.recompute_statistics(gn.Samples(np.zeros((4, 3)), np.array([0, 1, 0, 1])))
    one_line(caught.value)


def test_to_recompute_from_samples_of_another_shape_is_refused_and_leaves_the_statistics(backend: Backend) -> None:
    model = gn.Sequential([gn.Dense(2), gn.BatchNorm()]).build((3,), 8, backend)
    model.forward(np.random.default_rng(0).normal(size=(8, 3)), training=True)
    before = model.arrays()
    for samples in (gn.Samples(np.zeros((4, 5)), np.array([0, 1, 0, 1])), gn.Samples(np.zeros((1, 3)), np.array([0]))):
        with pytest.raises(ShapeError):
            model.recompute_statistics(samples)
        for name, array in model.arrays().items():
            np.testing.assert_array_equal(array, before[name])
    model.forward(np.zeros((1, 3)))  # and it normalises as remembered again


# In a network


def test_gamma_and_beta_are_learned_and_not_decayed(backend: Backend) -> None:
    model = gn.Sequential([gn.Dense(4), gn.BatchNorm(), gn.ReLU(), gn.Dense(10)]).build((64,), 32, backend)
    assert [p.name for p in model.parameters if not p.weight_decay] == [
        "dense1.b", "batchnorm1.gamma", "batchnorm1.beta", "dense2.b",
    ]  # fmt: skip
    before = model.arrays()
    data = gn.load_data("digits", limit=200, validation=0)
    step = {"optimizer": gn.SGD(0.5), "epochs": 1, "batch_size": 200, "device": backend, "progress": False}
    after = []
    for regularizer in (None, gn.L2(40.0)):
        model.load_arrays(before)
        model.count_on(0, 0)  # the order of the sums is that of the epoch
        model.fit(data, regularizer=regularizer, **step)
        after.append(model.arrays())
    plain, decayed = after
    for word in ("gamma", "beta"):
        np.testing.assert_array_equal(decayed[f"batchnorm1.{word}"], plain[f"batchnorm1.{word}"])
        assert np.abs(plain[f"batchnorm1.{word}"] - before[f"batchnorm1.{word}"]).min() > 0
    shrunk = plain["dense1.w"] - 0.5 * 40 / 200 * before["dense1.w"]
    np.testing.assert_allclose(decayed["dense1.w"], shrunk, rtol=1e-4, atol=1e-6)


def test_statistics_are_saved_and_loaded(backend: Backend, tmp_path: Path) -> None:
    data = digits(200)
    model = fitted(network(gn.BatchNorm()), data, backend)
    model.save(tmp_path / "model.safetensors")
    loaded = gn.load_model(tmp_path / "model.safetensors", device=backend.device)
    expected, arrays = model.arrays(), loaded.arrays()
    assert {"batchnorm1.mean", "batchnorm2.variance"} <= set(arrays)
    for name, array in expected.items():
        np.testing.assert_array_equal(arrays[name], array)
    x = data.train.inputs[:20]
    np.testing.assert_array_equal(loaded.predict_proba(x), model.predict_proba(x))


# Batches of one, and options that cannot be


def test_a_batch_of_one_cannot_be_normalised_in_training(backend: Backend) -> None:
    model = gn.Sequential([gn.Dense(4), gn.BatchNorm()]).build((3,), 8, backend)
    with pytest.raises(ShapeError, match=r"^batchnorm1: .*at least two values a channel, got a batch of one") as caught:
        model.forward(np.zeros((1, 3)), training=True)
    assert "larger batch" in one_line(caught.value)
    np.testing.assert_array_equal(model.arrays()["batchnorm1.variance"], 1)
    model.forward(np.zeros((1, 3)))  # by remembered statistics it can


def test_one_image_has_many_values_a_channel(backend: Backend) -> None:
    rng = np.random.default_rng(10)
    alone = Alone(gn.BatchNorm(), (3, 4, 2), backend)
    assert_gradients(alone, rng.normal(size=(1, 3, 4, 2)), rng)


@pytest.mark.parametrize(("samples", "batch_size"), [(33, 32), (65, 16), (13, 3)])
def test_fit_refuses_batches_that_leave_one_sample_before_it_begins(
    backend: Backend, samples: int, batch_size: int
) -> None:
    rng = np.random.default_rng(11)
    data = gn.Data(
        "toy", gn.Samples(rng.normal(size=(samples, 3)), rng.integers(0, 2, samples), classes=2), None, ("a", "b")
    )
    model = gn.Sequential([gn.Dense(4), gn.BatchNorm(), gn.Dense(2)])
    with pytest.raises(
        OptionError, match=f"{samples} samples in batches of {batch_size} leave a batch of one"
    ) as caught:
        model.fit(data, batch_size=batch_size, device=backend, progress=False)
    suggested = int(one_line(caught.value).split("take a batch size of ")[1].split(",")[0])
    model.fit(data, epochs=1, batch_size=suggested, device=backend, progress=False)


def test_fit_refuses_batches_of_one_before_it_begins(backend: Backend) -> None:
    rng = np.random.default_rng(12)
    data = gn.Data("toy", gn.Samples(rng.normal(size=(8, 3)), rng.integers(0, 2, 8), classes=2), None, ("a", "b"))
    model = gn.Sequential([gn.Dense(4), gn.BatchNorm(), gn.Dense(2)])
    with pytest.raises((OptionError, ShapeError), match="batch of one") as caught:
        model.fit(data, batch_size=1, device=backend, progress=False)
    one_line(caught.value)


@pytest.mark.parametrize(
    "arguments", [{"epsilon": 0.0}, {"epsilon": -1.0}, {"epsilon": float("nan")}, {"momentum": 0.0}, {"momentum": 1.1}]
)
def test_an_option_that_cannot_be_is_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(OptionError, match=f"{next(iter(arguments))} of BatchNorm"):
        gn.BatchNorm(**arguments)
