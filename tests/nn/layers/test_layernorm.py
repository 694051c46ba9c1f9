"""LayerNorm: its equation, its gradients, and that no sample depends on another."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.harness import one_line
from support.layer_helpers import Alone, assert_gradients

from gpunn import L2, SGD, Conv2D, Dense, Flatten, LayerNorm, ReLU, Sequential, load_model
from gpunn.backend.base import Backend
from gpunn.backend.devices import select
from gpunn.errors import OptionError, ShapeError
from gpunn.kernels import cores as threads

SHAPES = st.one_of(st.tuples(st.integers(2, 40)), st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(2, 9)))


@settings(deadline=None, max_examples=60)
@given(shape=SHAPES, n=st.integers(1, 8), seed=st.integers(0, 999), training=st.booleans())
def test_the_features_of_a_sample_are_normalised(
    backend: Backend, shape: tuple[int, ...], n: int, seed: int, training: bool
) -> None:
    """And of an image the channels of each pixel: the last axis of both."""
    rng = np.random.default_rng(seed)
    x = rng.normal(3, 2, (n, *shape))
    alone = Alone(LayerNorm(1e-3), shape, backend).draw(rng)
    normalised = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-3)
    expected = alone.value("gamma") * normalised + alone.value("beta")
    np.testing.assert_allclose(alone.forward(x, training), expected, rtol=1e-9, atol=1e-10)


@settings(deadline=None, max_examples=40)
@given(shape=SHAPES, n=st.integers(1, 6), seed=st.integers(0, 999))
def test_back_propagation_through_layer_normalisation(
    backend: Backend, shape: tuple[int, ...], n: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    alone = Alone(LayerNorm(epsilon=0.1), shape, backend).draw(rng)
    assert_gradients(alone, rng.normal(0.5, 2, (n, *shape)), rng, directions=3)


@pytest.mark.parametrize("shape", [(5,), (3, 2, 4)], ids=["dense", "images"])
def test_back_propagation_element_by_element(backend: Backend, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(13)
    assert_gradients(Alone(LayerNorm(), shape, backend).draw(rng), rng.normal(1, 2, (4, *shape)), rng)


def test_it_begins_as_plain_normalisation(backend: Backend) -> None:
    alone = Alone(LayerNorm(), (4,), backend)
    np.testing.assert_array_equal(alone.value("gamma"), np.ones(4))
    np.testing.assert_array_equal(alone.value("beta"), np.zeros(4))
    y = alone.forward(np.random.default_rng(0).normal(50, 10, (6, 4)))
    np.testing.assert_allclose(y.mean(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(y.std(axis=1), 1, rtol=1e-5)


def test_a_spread_small_beside_the_mean_is_not_lost(backend: Backend) -> None:
    """With E[x²] − E[x]² every digit of this variance is lost in float32."""
    x = np.random.default_rng(3).normal(1e4, 1e-1, (8, 64)).astype(np.float32)
    exact = x.astype(np.float64)
    expected = (exact - exact.mean(axis=1, keepdims=True)) / np.sqrt(exact.var(axis=1, keepdims=True) + 1e-5)
    y = Alone(LayerNorm(), (64,), backend, dtype="float32").forward(x)
    # Sums of 64 such numbers have units of 0.06, so the mean is off by some thousandths: hundredths of the deviation.
    np.testing.assert_allclose(y, expected, atol=0.06)


def test_features_all_alike_are_beta_and_stay_finite(backend: Backend) -> None:
    alone = Alone(LayerNorm(), (3,), backend).set(gamma=[1.0, 2.0, 3.0], beta=[4.0, 5.0, 6.0])
    y = alone.forward(np.full((2, 3), 7.0))
    np.testing.assert_array_equal(y, [[4, 5, 6]] * 2)
    dx = alone.backward(np.ones((2, 3)))
    assert dx is not None
    assert np.isfinite(dx).all()


@pytest.mark.parametrize("shape", [(10,), (3, 2, 5)], ids=["dense", "images"])
def test_no_sample_depends_on_another(backend: Backend, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    x, v = rng.normal(size=(8, *shape)), rng.normal(size=(8, *shape))
    alone = Alone(LayerNorm(), shape, backend).draw(rng)
    whole, gradient = alone.forward(x), alone.backward(v)
    assert gradient is not None
    for n in (1, 3):
        np.testing.assert_allclose(alone.forward(x[:n]), whole[:n], rtol=1e-12)
        np.testing.assert_allclose(alone.backward(v[:n]), gradient[:n], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_columns_in_pieces_for_several_threads_give_the_same_bits(monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    rng = np.random.default_rng(1)
    x, v = rng.normal(size=(5, 11, 13, 7)), rng.normal(size=(5, 11, 13, 7))
    results = []
    for cores, piece in ((1, 2**40), (1, 1), (1, 2**14), (2, 1), (3, 1)):
        monkeypatch.setattr(threads, "cores", lambda cores=cores: cores)
        monkeypatch.setattr(threads, "PIECE", piece)
        monkeypatch.setattr(threads, "PIECE_OF_THREAD", piece)
        monkeypatch.setattr(threads, "WORTHWHILE", 1)
        alone = Alone(LayerNorm(), (11, 13, 7), select("cpu"), dtype=dtype).draw(np.random.default_rng(0))
        results.append((alone.forward(x), alone.backward(v), alone.grad("gamma"), alone.grad("beta")))
    for other in results[1:]:
        for one, first in zip(other, results[0], strict=True):
            np.testing.assert_array_equal(one, first)


# In a network


def network() -> Sequential:
    return Sequential([Conv2D(4, 3), LayerNorm(), ReLU(), Flatten(), Dense(9), LayerNorm(), ReLU(), Dense(3)])


def test_gamma_and_beta_are_learned_and_not_decayed(backend: Backend) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 6, 6, 2)), rng.integers(0, 3, 40)
    model = network().build((6, 6, 2), 8, backend)
    decayed = [p.name for p in model.parameters if p.weight_decay]
    assert decayed == ["conv1.w", "dense1.w", "dense2.w"]
    options: dict[str, Any] = {"epochs": 3, "batch_size": 8, "device": backend, "progress": False}
    history = model.fit(x, y, optimizer=SGD(0.1), regularizer=L2(0.1), **options)
    assert history[-1].train_loss < history[0].train_loss
    after = model.parameters.to_host()
    for number in (1, 2):
        assert (after[f"layernorm{number}.gamma"] != 1).all()
        assert after[f"layernorm{number}.beta"].any()


def test_a_saved_network_gives_the_same(backend: Backend, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 6, 6, 2)), rng.integers(0, 3, 40)
    model = network()
    model.fit(x, y, epochs=1, batch_size=8, device=backend, progress=False)
    model.save(tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors", device=backend.device)
    np.testing.assert_array_equal(again.predict_proba(x), model.predict_proba(x))


def test_frozen_it_hands_gradients_on_and_stays(backend: Backend) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 5)), rng.integers(0, 3, 40)
    model = Sequential([Dense(6), LayerNorm(), Dense(3)]).build((5,), 8, backend)
    before = model.parameters.to_host()
    model.layers[1].trainable = False
    model.fit(x, y, epochs=1, batch_size=8, device=backend, progress=False)
    after = model.parameters.to_host()
    for word in ("gamma", "beta"):
        np.testing.assert_array_equal(after[f"layernorm1.{word}"], before[f"layernorm1.{word}"])
    assert (after["dense1.w"] != before["dense1.w"]).any()


@pytest.mark.parametrize("shape", [(1,), (4, 4, 1)], ids=["dense", "images"])
def test_a_single_feature_is_refused(backend: Backend, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="layernorm1: LayerNorm needs at least two features") as caught:
        Sequential([LayerNorm()]).build(shape, 4, backend)
    one_line(caught.value)


@pytest.mark.parametrize("epsilon", [0.0, -1e-5, float("nan"), float("inf"), "1", True])
def test_an_epsilon_that_cannot_be_is_refused(epsilon: Any) -> None:
    with pytest.raises(OptionError, match="epsilon of LayerNorm must be") as caught:
        LayerNorm(epsilon)
    one_line(caught.value)
