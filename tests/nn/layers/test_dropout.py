"""Dropout: its mask, the expectation that it keeps, and the identity that it is when not training."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.harness import one_line
from support.kernel_cases import dropout_bits
from support.layer_helpers import Alone, AsIs, assert_gradients, samples_last

from gpunn import Conv2D, Dense, Dropout, Flatten, MeanSquaredError, ReLU, Sequential, Sigmoid, Tanh
from gpunn.backend.base import Backend
from gpunn.errors import OptionError

SHAPES = [(40,), (6, 5, 3)]


def taken(p: float) -> float:
    """The probability that 16 bits can express."""
    return round(p * 2**16) / 2**16


def mask_of(y: NDArray[Any]) -> NDArray[np.bool_]:
    return y != 0


# The mask


@pytest.mark.parametrize("shape", SHAPES, ids=["dense", "images"])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_each_unit_is_off_or_scaled_up(backend: Backend, shape: tuple[int, ...], p: float) -> None:
    x = np.random.default_rng(0).uniform(1, 2, (8, *shape))
    y = Alone(Dropout(p), shape, backend).forward(x)
    on = mask_of(y)
    assert 0 < on.sum() < on.size
    np.testing.assert_allclose(y[on], x[on] / (1 - taken(p)), rtol=1e-14)


def test_a_mask_is_drawn_by_seed_layer_step_sample_and_unit(backend: Backend) -> None:
    """16 bits of Philox4x64-10 at (sample and unit, step, layer), keyed by (seed, purpose), against p 2¹⁶."""
    seed, number, step, p = 12, 0, 7, 0.3
    alone = Alone(Dropout(p), (5, 2, 3), backend, seed=seed)
    alone.backend.assign(alone.count, step)
    y = samples_last(alone.forward(np.ones((7, 5, 2, 3)))).reshape(30, 7)
    np.testing.assert_array_equal(mask_of(y), dropout_bits(30, 7, step, number, seed) >= taken(p) * 2**16)


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("n", [8, 37])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_shares_of_a_batch_have_slices_of_its_mask(backend: Backend, ranks: int, n: int, dtype: str) -> None:
    x = np.random.default_rng(9).uniform(1, 2, (n, 3, 3, 2))
    alone = Alone(Dropout(0.5), (3, 3, 2), backend, capacity=n, dtype=dtype)
    whole, back = alone.forward(x).copy(), alone.backward(x).copy()
    for rank in range(ranks):
        first, end = rank * n // ranks, (rank + 1) * n // ranks
        alone.context.share.first = first
        np.testing.assert_array_equal(alone.forward(x[first:end]), whole[first:end])
        np.testing.assert_array_equal(alone.backward(x[first:end]), back[first:end])


def test_the_number_of_the_first_sample_may_be_any(backend: Backend) -> None:
    alone = Alone(Dropout(0.5), (40,), backend, capacity=70)
    alone.context.share.first = 2**30
    whole = alone.forward(np.ones((70, 40))).copy()
    for first, end in ((0, 1), (1, 33), (33, 70), (69, 70)):
        alone.context.share.first = 2**30 + first
        np.testing.assert_array_equal(alone.forward(np.ones((end - first, 40))), whole[first:end])


def test_backward_drops_what_forward_dropped(backend: Backend) -> None:
    alone = Alone(Dropout(0.4), (30,), backend)
    rng = np.random.default_rng(1)
    for step in range(3):
        alone.backend.assign(alone.count, step)
        x, v = rng.uniform(1, 2, (8, 30)), rng.uniform(1, 2, (8, 30))
        on = mask_of(alone.forward(x))
        np.testing.assert_allclose(alone.backward(v), v * on / (1 - taken(0.4)), rtol=1e-14)


@pytest.mark.parametrize("shape", SHAPES, ids=["dense", "images"])
def test_back_propagation_through_dropout(backend: Backend, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(2)
    for training in (True, False):
        assert_gradients(Alone(Dropout(0.5), shape, backend), rng.normal(size=(3, *shape)), rng, training)


def test_the_mask_is_another_at_the_next_step_and_comes_back_at_the_same_one(backend: Backend) -> None:
    alone, x = Alone(Dropout(0.5), (50,), backend), np.ones((8, 50))
    masks = []
    for step in (0, 1, 2, 0):
        alone.backend.assign(alone.count, step)
        masks.append(mask_of(alone.forward(x)))
    np.testing.assert_array_equal(masks[0], masks[3])
    for first, second in ((0, 1), (1, 2), (0, 2)):
        assert 0.4 < (masks[first] == masks[second]).mean() < 0.6


def test_a_step_by_hand_goes_on_to_the_next_mask(backend: Backend) -> None:
    model = Sequential([Dense(50), Dropout(0.5)]).build((3,), 8, backend, "float64")
    x = np.ones((8, 3))
    masks = []
    for _ in range(2):
        for _ in range(2):  # forward alone draws the same again
            masks.append(mask_of(backend.to_host(model.forward(x, training=True))))
        model.backward(backend.asarray(np.ones((8, 50))))
    np.testing.assert_array_equal(masks[0], masks[1])
    np.testing.assert_array_equal(masks[2], masks[3])
    assert 0.3 < (masks[0] == masks[2]).mean() < 0.7


def test_layers_and_seeds_have_masks_of_their_own(backend: Backend) -> None:
    class Keep(Tanh):
        """Hands everything on, and keeps it."""

        def forward(self, x: Any, training: bool) -> Any:
            self.seen = backend.to_host(x)
            return super().forward(x, training)

    masks = {}
    for seed in (0, 1):
        keeps = Keep(), Keep()
        model = Sequential([Dropout(0.5), keeps[0], Dropout(0.5), keeps[1]]).build((50,), 8, backend, "float64", seed)
        model.forward(np.ones((8, 50)), training=True)
        first = mask_of(keeps[0].seen)
        second = mask_of(keeps[1].seen)[first]  # where the first left something
        masks[seed] = first, second
        assert 0.3 < second.mean() < 0.7
        assert 0.3 < (first.ravel()[: second.size] == second).mean() < 0.7
    assert 0.4 < (masks[0][0] == masks[1][0]).mean() < 0.6


def test_a_mask_belongs_to_the_sample_and_not_to_the_batch(backend: Backend) -> None:
    """A sample's place in the batch is all that counts: a shorter batch has the beginning of the mask."""
    alone = Alone(Dropout(0.5), (30,), backend)
    whole, part = (mask_of(alone.forward(np.ones((n, 30)))) for n in (8, 4))
    np.testing.assert_array_equal(part, whole[:4])


def test_masks_are_the_same_in_every_dtype(backend: Backend) -> None:
    x = np.ones((8, 33))
    single, double = (Alone(Dropout(0.3), (33,), backend, dtype=d).forward(x) for d in ("float32", "float64"))
    np.testing.assert_array_equal(mask_of(single), mask_of(double))


# Expectation


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.8])
def test_dropout_keeps_the_expectation(backend: Backend, p: float) -> None:
    """The mean of x·mask/(1 − p) over many steps is x."""
    units, batch, steps = 50, 8, 250
    x = np.random.default_rng(3).uniform(1, 2, (batch, units))
    alone = Alone(Dropout(p), (units,), backend)
    total, on = np.zeros_like(x), 0
    for step in range(steps):
        alone.backend.assign(alone.count, step)
        y = alone.forward(x)
        total += y
        on += int(mask_of(y).sum())
    draws = units * batch * steps
    # One draw of the ratio y/x is 1/(1 − p) with probability 1 − p: its deviation is √(p/(1 − p)).
    deviation = np.sqrt(p / (1 - p))
    assert abs((total / x).mean() / steps - 1) < 5 * deviation / np.sqrt(draws)
    assert np.abs(total / x / steps - 1).max() < 5.5 * deviation / np.sqrt(steps)
    assert abs(on / draws - (1 - p)) < 5 * np.sqrt(p * (1 - p) / draws)


@pytest.mark.parametrize("p", [0.25, 0.5])
def test_scaling_in_training_or_weights_afterwards_is_the_same_in_expectation(backend: Backend, p: float) -> None:
    """Ours: kept units times 1/(1 − p) in training. The other: units as they are in training, w times (1 − p) after."""
    rng = np.random.default_rng(4)
    units, steps = 200, 400
    a, w = rng.uniform(0, 1, (8, units)), rng.normal(size=(3, units))
    alone = Alone(Dropout(p), (units,), backend)
    ours, others = np.zeros((8, 3)), np.zeros((8, 3))
    for step in range(steps):
        alone.backend.assign(alone.count, step)
        dropped = alone.forward(a)
        ours += dropped @ w.T / steps
        others += (dropped * (1 - p)) @ w.T / steps
    # The variance of Σ w a m/(1 − p) is Σ (w a)² p/(1 − p).
    deviation = np.sqrt(np.square(a) @ np.square(w).T * p / (1 - p) / steps)
    assert (np.abs(ours - a @ w.T) < 4 * deviation).all()  # not training: every unit on, w as it is
    assert (np.abs(others - a @ ((1 - p) * w).T) < 4 * (1 - p) * deviation).all()  # every unit on, w times (1 − p)
    np.testing.assert_allclose(others, ours * (1 - p), rtol=1e-12)


def test_neighbouring_units_are_dropped_independently(backend: Backend) -> None:
    alone, steps = Alone(Dropout(0.5), (40,), backend), 200
    masks = []
    for step in range(steps):
        alone.backend.assign(alone.count, step)
        masks.append(mask_of(alone.forward(np.ones((8, 40)))))
    on = np.array(masks) - 0.5
    count = on.size
    for axis in range(3):  # steps, samples, units
        along = np.moveaxis(on, axis, 0)
        assert abs((along[1:] * along[:-1]).mean() / 0.25) < 5 / np.sqrt(count * (1 - 1 / along.shape[0]))


# When not training, and p = 0


@pytest.mark.parametrize("shape", SHAPES, ids=["dense", "images"])
@pytest.mark.parametrize(("p", "training"), [(0.5, False), (0.0, True), (0.0, False)])
def test_it_is_the_identity(backend: Backend, shape: tuple[int, ...], p: float, training: bool) -> None:
    rng = np.random.default_rng(5)
    alone = Alone(Dropout(p), shape, backend)
    x, v = rng.normal(size=(4, *shape)), rng.normal(size=(4, *shape))
    np.testing.assert_array_equal(alone.forward(x, training), x)
    np.testing.assert_array_equal(alone.backward(v), v)


def test_evaluation_does_not_depend_on_the_step(backend: Backend) -> None:
    model = Sequential([Dense(20), ReLU(), Dropout(0.5), Dense(4)]).build((5,), 8, backend, "float64")
    x = np.random.default_rng(6).normal(size=(8, 5))
    before = backend.to_host(model.forward(x))
    model.forward(x, training=True)
    model.backward(backend.asarray(np.zeros((8, 4))))
    np.testing.assert_array_equal(backend.to_host(model.forward(x)), before)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("after", [Sigmoid, Tanh, ReLU])
@pytest.mark.parametrize("p", [0.0, 0.5])
def test_nothing_is_overwritten_that_back_propagation_needs(
    backend: Backend, p: float, after: type[Any], training: bool
) -> None:
    """Where nothing is dropped the output is the very input: an activation after it must not overwrite that."""
    rng = np.random.default_rng(7)
    x, t = rng.normal(size=(6, 5)), rng.normal(size=(6, 3))
    gradients = []
    for layers in (
        [Dense(8), Sigmoid(), Dropout(p), after(), Dense(3)],
        [Dense(8), Sigmoid(), Dropout(p), AsIs(), after(), Dense(3)],
    ):
        model, loss = Sequential(layers).build((5,), 8, backend, "float64"), MeanSquaredError()
        loss.forward(model.forward(x, training), t)
        model.backward(loss.backward())
        gradients.append(backend.to_host(model.parameters["dense1.w"].grad))
    np.testing.assert_array_equal(gradients[0], gradients[1])


def test_the_inputs_of_a_network_are_not_dropped_in_place(backend: Backend) -> None:
    x = np.random.default_rng(8).normal(size=(4, 3, 3, 2))
    before = x.copy()
    model = Sequential([Dropout(0.5), Conv2D(2, 2), Dropout(0.5), Flatten(), Dense(2), Dropout(0.5)])
    model.build((3, 3, 2), 8, backend, "float64")
    dy = backend.asarray(np.ones((4, 2)))
    model.forward(x, training=True)
    model.backward(dy)
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(backend.to_host(dy), 1)


# Options


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5, float("nan")])
def test_a_probability_that_cannot_be_is_refused(p: float) -> None:
    with pytest.raises(OptionError, match="p of Dropout must lie from 0 to below 1") as caught:
        Dropout(p)
    one_line(caught.value)


def test_every_probability_below_one_can_be_drawn(backend: Backend) -> None:
    y = Alone(Dropout(1 - 2**-40), (20,), backend).forward(np.ones((8, 20)))
    assert set(np.unique(y)) <= {0.0, 2.0**40}


def test_dropout_asks_for_one_buffer_at_most(backend: Backend) -> None:
    model = Sequential([Dense(16), ReLU(), Dropout(0.5), Dense(2)]).build((3,), 8, backend, "float64")
    assert model.buffer_bytes.get("dropout1", 0) <= 16 * model.capacity * 8
