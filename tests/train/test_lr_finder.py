"""Finding a learning rate: rising rates, the losses at them, what they suggest, and what stays as it was."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from support.harness import one_line

import gpunn as gn
from gpunn.backend.base import Backend
from gpunn.data import Data
from gpunn.errors import DataError, DivergenceError, GpunnError, OptionError
from gpunn.reports.learning_rates import LearningRateCurve
from gpunn.train.arguments import TrainOptions
from gpunn.train.lr_finder import Losses, Rising, smoothed, suggest_rate, try_rates

QUIET: dict[str, Any] = {"device": "cpu", "progress": False}


def digits(**options: Any) -> gn.Data:
    return gn.load_data("digits", limit=600, **options)


def network() -> gn.Sequential:
    return gn.Sequential([gn.Dense(32), gn.ReLU(), gn.Dense(10)])


def everything(model: gn.Sequential) -> bytes:
    """A network with all that it has learned and counted, and its optimizer's state."""
    arrays = {name: array.tobytes() for name, array in model.arrays().items()} if model.backend else {}
    aside = ("_built", "layers", "loss", "optimizer_memory")
    state = {name: value for name, value in model.__getstate__().items() if name not in aside}
    memory = model.optimizer_memory and (model.optimizer_memory.first, model.optimizer_memory.arrays)
    counted = repr(model.layers), repr(model.loss), model.freezing_changed if model.backend else None
    return pickle.dumps((arrays, state, memory, counted, model.clock.tolist() if model.backend else None))


# Rates


@pytest.mark.parametrize("per_epoch", [1, 7, 300])
def test_rates_rise_by_one_factor_from_the_lowest_to_the_highest(per_epoch: int) -> None:
    rise, steps = Rising(1e-5, 2.0, 90).for_epochs_of(per_epoch), np.arange(120)
    rates = np.concatenate([rise.rates(e + np.arange(per_epoch) / per_epoch, 99) for e in range(-(-120 // per_epoch))])
    np.testing.assert_allclose(rates[:90], np.geomspace(1e-5, 2.0, 90), rtol=1e-9)
    np.testing.assert_allclose(rates[90 : len(steps)], 2.0, rtol=1e-12)


def test_the_steps_of_a_training_are_done_at_these_rates(backend: Backend) -> None:
    """And the losses are those of the same training by hand, so that nothing else but the rate differs."""
    data, model = digits(validation=0), network()
    curve = model.find_learning_rate(data, optimizer=gn.SGD(7.0), batch_size=250, device=backend, lowest=1e-4, steps=40)
    assert len(curve.rates) <= 40
    np.testing.assert_allclose(curve.rates, np.geomspace(1e-4, 10, 40)[: len(curve.rates)], rtol=1e-6)

    class ByHand(gn.Schedule):
        def rates(self, epochs: Any, total: float) -> Any:
            return np.geomspace(1e-4, 10, 40)[np.round(3 * epochs).astype(int).clip(0, 39)]

    steps = len(curve.losses) // 3
    history = network().fit(
        data, optimizer=gn.SGD(ByHand()), batch_size=250, epochs=steps, validate_every=1, device=backend, progress=False
    )
    assert [record.train_loss for record in history] == curve.losses[: 3 * steps].tolist()


# Suggestions from losses


def seen(losses: Any, **more: Any) -> Losses:
    losses = np.asarray(losses, np.float64)
    rates = np.geomspace(1e-6, 10, len(losses))
    return Losses(rates, losses, more.get("sizes", np.ones(len(losses))), "")


def falling(at: float, noise: float = 0.0, steps: int = 200, seed: int = 0) -> Losses:
    """A loss that falls about a rate, is lowest at ten times that, and explodes at a hundred times."""
    rates = np.geomspace(1e-6, 10, steps)
    curve = 0.3 + 2 / (1 + (rates / at) ** 1.5) + (rates / (100 * at)) ** 4
    return seen(curve + noise * np.random.default_rng(seed).normal(size=steps))


@pytest.mark.parametrize("at", [1e-4, 1e-3, 1e-2])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_the_suggestion_follows_the_fall_whatever_the_noise_and_the_explosion(at: float, noise: float) -> None:
    chosen = [suggest_rate(falling(at, noise, seed=seed))[1] for seed in range(10)]
    assert all(rate is not None and 1.5 * at < rate < 12 * at for rate in chosen), chosen
    far = falling(at, noise)
    far.losses[np.argmax(far.losses > 10) :] = 1e30  # one batch that has exploded hides nothing
    assert suggest_rate(far)[1] == pytest.approx(suggest_rate(falling(at, noise))[1], rel=0.3)


def test_the_suggestion_does_not_change_with_the_scale_of_the_loss() -> None:
    plain = falling(1e-3, 0.05)
    for scale, offset in ((1e-6, 0.0), (1e6, 0.0), (1.0, -50.0)):
        assert suggest_rate(seen(scale * plain.losses + offset))[1] == suggest_rate(plain)[1]


@pytest.mark.parametrize("losses", [np.full(200, 2.3), np.zeros(50), np.geomspace(1, 50, 100), [1.0], [1.0, 0.9]])
def test_a_loss_that_does_not_fall_suggests_nothing(losses: Any) -> None:
    if len(losses) == 2:
        losses = [0.9, 1.0]
    _, suggestion, why = suggest_rate(seen(losses))
    assert suggestion is None
    assert "fell at no rate" in why


def test_noise_suggests_nothing() -> None:
    noise = np.random.default_rng(0).normal(2.3, 0.2, (100, 200))
    assert sum(suggest_rate(seen(losses))[1] is not None for losses in noise) <= 2


def test_the_mean_of_equal_losses_is_that_loss_and_short_batches_count_less() -> None:
    sizes = np.tile([100.0, 100.0, 1.0], 20)
    np.testing.assert_allclose(smoothed(np.full(60, 1.7), sizes), 1.7, rtol=1e-12)
    losses = np.tile([1.0, 1.0, 50.0], 20)
    assert smoothed(losses, sizes).max() < 1.5
    assert smoothed(losses, np.ones(60)).min() > 5


# On networks


@pytest.mark.parametrize(
    "make",
    [lambda: gn.SGD(9.0), lambda: gn.SGD(1.0, 0.9, nesterov=True), gn.Adam, lambda: gn.AdamW(gn.OneCycle(3.0))],
    ids=["SGD", "nesterov", "Adam", "AdamW"],
)
def test_the_suggested_rate_trains_better_than_a_tenth_and_ten_times_of_it(backend: Backend, make: Any) -> None:
    data, optimizer = digits(), make()
    suggestion = network().find_learning_rate(data, optimizer=optimizer, batch_size=32, device=backend).suggestion
    assert suggestion is not None

    def loss_at(rate: float) -> float:
        optimizer = make()
        optimizer.learning_rate = rate
        try:
            return network().fit(data, optimizer=optimizer, epochs=4, batch_size=32, **QUIET)[-1].validation_loss
        except DivergenceError:
            return np.inf

    assert loss_at(suggestion) < min(loss_at(suggestion / 10), loss_at(10 * suggestion))


X = np.random.default_rng(0).normal(size=(300, 4))
TARGETS = {
    "labels": (np.argmax(X[:, :3], axis=1), [gn.Dense(8), gn.Tanh(), gn.Dense(3)], {}),
    "numbers": (X[:, :2] * 40 - 3, [gn.Dense(8), gn.Tanh(), gn.Dense(2)], {"optimizer": gn.Adam()}),
    "either": ((X[:, :1] > 0).astype(float), [gn.Dense(8), gn.Tanh(), gn.Dense(1)], {"loss": "bce"}),
    "quadratic": (
        np.argmax(X[:, :3], axis=1), [gn.Dense(8), gn.Sigmoid(), gn.Dense(3), gn.Sigmoid()], {"loss": "mse"},
    ),
    "regularized": (X[:, 0] > 0, [gn.Dense(8), gn.BatchNorm(), gn.ReLU(), gn.Dense(2)], {"regularizer": gn.L2(1.0)}),
}  # fmt: skip


@pytest.mark.parametrize("name", TARGETS)
def test_every_loss_has_its_rate(name: str) -> None:
    y, layers, options = TARGETS[name]
    curve = gn.Sequential(layers).find_learning_rate(X, y, device="cpu", batch_size=32, highest=100.0, **options)
    assert curve.suggestion is not None, curve
    assert 1e-4 < curve.suggestion < 50
    assert np.isfinite(curve.losses).all()


def test_the_same_seed_gives_the_same_curve_and_another_seed_another() -> None:
    data = digits()
    one, same, other = (network().find_learning_rate(data, device="cpu", seed=seed) for seed in (3, 3, 4))
    assert one.losses.tobytes() == same.losses.tobytes()
    assert one.suggestion == same.suggestion
    assert one.losses[0] != other.losses[0]


def test_a_new_network_stays_unbuilt_and_then_trains_as_if_nothing_had_been() -> None:
    data, optimizer, loss = digits(), gn.SGD(0.1, momentum=0.9), gn.SoftmaxCrossEntropy()
    model, untouched, shown = network(), network(), repr(optimizer)
    model.find_learning_rate(data, optimizer=optimizer, loss=loss, device="cpu")
    assert model.backend is None
    assert model.loss is model.trained_on is None
    assert repr(optimizer) == shown
    assert sorted(vars(optimizer)) == sorted(vars(gn.SGD(0.1, momentum=0.9)))
    for each in (model, untouched):
        each.fit(data, optimizer=gn.SGD(0.1, momentum=0.9), epochs=2, **QUIET)
    assert everything(model) == everything(untouched)


def test_a_trained_network_stays_as_it_is_to_the_last_bit() -> None:
    """Weights, statistics, the optimizer's state, counts, and what comes after."""
    data, optimizer = digits(), gn.Adam(0.003)
    layers = [gn.Dense(32), gn.BatchNorm(), gn.ReLU(), gn.Dropout(0.2), gn.Dense(10)]
    model = gn.Sequential(layers)
    model.fit(data, optimizer=optimizer, epochs=2, **QUIET)
    model.layers[0].trainable = False
    twin, before = copy.deepcopy(model), everything(model)
    curve = model.find_learning_rate(data, optimizer=optimizer, device="cpu", batch_size=700, dtype="float64", seed=9)
    assert len(curve.losses) > 100
    assert everything(model) == before
    for each in (model, twin):
        each.fit(data, optimizer=optimizer, epochs=2, **QUIET)
    assert everything(model) == everything(twin)


class Closed(gn.Samples):
    """Samples that must not be looked at."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"{name} of closed samples was asked for")


def test_validation_and_test_samples_are_not_looked_at() -> None:
    data = digits()
    closed = Data(data.name, data.train, data.validation, data.class_names, lambda: pytest.fail("the test set is open"))
    closed.validation = Closed.__new__(Closed)
    rows = gn.Samples(data.train.inputs, np.eye(10)[data.train.targets])
    for loss, train in ((None, data.train), (gn.BinaryCrossEntropy(), rows)):  # the rows become several answers at once
        closed.train = train
        curve = network().find_learning_rate(closed, loss=loss, device="cpu")
        assert curve.suggestion is not None
        assert not closed.test_is_open
    alone = Data(data.name, data.train, None, data.class_names)
    expected, losses = (network().find_learning_rate(each, device="cpu").losses for each in (alone, data))
    np.testing.assert_array_equal(losses, expected)


def test_layers_of_another_network_learn_from_the_start() -> None:
    """The rate is for the part of a training in which all learn, the longer one."""
    data, begun = digits(), network()
    begun.fit(data, epochs=1, **QUIET)
    kept, plain = TrainOptions(freeze=2, patience=1.0, device="cpu"), TrainOptions(device="cpu")
    held, free = (try_rates(begun.replace_last(10), each, data, None, Rising(1e-6, 10, 100)) for each in (kept, plain))
    np.testing.assert_array_equal(held.losses, free.losses)


def test_weights_of_classes_and_samples_are_those_of_the_training() -> None:
    y = np.argmax(X[:, :3], axis=1)
    plain, by_class, by_sample = (
        gn.Sequential([gn.Dense(3)]).find_learning_rate(X, y, device="cpu", **weights).losses
        for weights in ({}, {"class_weight": {0: 3.0}}, {"sample_weight": np.where(y == 0, 3.0, 1.0)})
    )
    assert plain[0] != by_class[0]
    np.testing.assert_allclose(by_class, by_sample, rtol=1e-5)


def test_arrays_are_split_as_fit_splits_them() -> None:
    """So that the samples held back later have not been learned from."""
    y = np.argmax(X[:, :3], axis=1)
    layers = [gn.Dense(3)]
    kept = gn.Data.from_arrays(X, y, seed=5).train
    expected = gn.Sequential(layers).find_learning_rate(gn.Data.from_samples(kept, validation=0), device="cpu", seed=5)
    for given in ((X, y), (gn.Samples(X, y),), ((X, y),)):
        curve = gn.Sequential(layers).find_learning_rate(*given, device="cpu", seed=5)
        np.testing.assert_array_equal(curve.losses, expected.losses)


# What cannot be


def test_it_ends_where_the_running_mean_has_exploded() -> None:
    curve = network().find_learning_rate(digits(), optimizer=gn.SGD(), device="cpu", highest=1e4, steps=300)
    assert curve.end == "exploded"
    means, total, weight = [], 0.0, 0.0
    for loss, size in zip(curve.losses, np.resize([128, 128, 128, 128, 28], len(curve.losses)), strict=True):
        total, weight = 0.9 * total + 0.1 * size * loss, 0.9 * weight + 0.1 * size
        means.append(total / weight)
    limits = [max(4 * min(means[: k + 1]), means[0]) for k in range(len(means))]
    assert [mean > limit for mean, limit in zip(means, limits, strict=True)] == [False] * (len(means) - 1) + [True]


def test_a_loss_that_explodes_or_overflows_is_no_error() -> None:
    curve = network().find_learning_rate(digits(), device="cpu", highest=1e30, steps=600)
    assert curve.end in ("exploded", "not finite")
    assert curve.suggestion is not None
    assert curve.rates[-1] < 1e30
    assert np.isfinite(curve.losses).all()
    wild = gn.Sequential([gn.Dense(1)]).find_learning_rate(X, X[:, 0] * 1e3, device="cpu", highest=1e38, steps=20)
    assert wild.end in ("exploded", "not finite")


def test_a_loss_that_is_nan_from_the_start_is_said_in_one_line() -> None:
    model = network().build((64,), 32, "cpu")
    model.parameters["dense1.w"].value[...] = np.nan
    with pytest.raises(DivergenceError, match="at the first step, before anything was learned") as caught:
        model.find_learning_rate(digits().train.inputs.reshape(-1, 64), digits().train.targets, device="cpu")
    assert "dense1.w" in one_line(caught.value)
    assert "learning rate below" not in str(caught.value)


def test_a_network_that_learns_nothing_has_no_suggestion_and_says_so() -> None:
    dead = gn.Sequential([gn.Dense(5, bias=-100.0), gn.ReLU(), gn.Dense(1, bias=False)])
    curve = dead.find_learning_rate(X, X[:, 0], device="cpu")
    assert curve.suggestion is None
    assert str(curve).startswith("no suggestion: the loss of ")
    assert "learns nothing" in str(curve)
    assert "no suggestion" in repr(curve)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"data": gn.Data.from_arrays(X[:1], [0], validation=0)}, DataError, "at least 2 training samples, got 1"),
        ({"data": "digits"}, DataError, "load_data"),
        ({"lowest": 0}, OptionError, "lowest rate must be above 0"),
        ({"highest": np.inf}, OptionError, "highest rate must be above 0 and finite"),
        ({"lowest": 1.0, "highest": 1.0}, OptionError, "lowest rate must be below the highest, got 1.0 and 1.0"),
        ({"steps": 3}, OptionError, "steps must be a whole number of at least 20, got 3"),
        ({"steps": 10**9}, OptionError, "steps must be at most 100,000"),
        ({"optimizer": "adamx"}, OptionError, "did you mean AdamW|did you mean Adam"),
        ({"batch_size": 0}, OptionError, "batch size"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_is_refused_in_one_line(given: dict[str, Any], error: type[GpunnError], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        network().find_learning_rate(**{"data": digits(), "device": "cpu", **given})
    one_line(caught.value)


def test_few_samples_are_enough_for_a_suggestion() -> None:
    """XOR: one batch of four, again and again."""
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], float)
    data = gn.Data.from_arrays(x, [0, 1, 1, 0], validation=0)
    model = gn.Sequential([gn.Dense(8), gn.Tanh(), gn.Dense(2)])
    curve = model.find_learning_rate(data, optimizer="adam", device="cpu")
    assert curve.suggestion is not None
    history = model.fit(data, optimizer=gn.Adam(curve.suggestion), epochs=100, **QUIET)
    assert history[-1].train_accuracy == 1.0


def test_a_curve_is_shown_in_one_line() -> None:
    curve = LearningRateCurve.of(falling(1e-3))
    assert str(curve) == f"suggested learning rate {curve.suggestion:g}"
    assert repr(curve) == f"LearningRateCurve(suggested learning rate {curve.suggestion:g}, 200 steps from 1e-06 to 10)"
