"""Weights of samples and classes in training and evaluation: a weighted sample is the sample repeated."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics
from support.harness import one_line

import gpunn as gn
from gpunn.backend.base import Backend
from gpunn.data.loader import bytes_on_device, bytes_on_host
from gpunn.errors import DataError, OptionError
from gpunn.kernels import Raw, registry
from gpunn.train.arguments import TrainOptions
from gpunn.train.trainer import Trainer

N, CLASSES = 40, 3
RNG = np.random.default_rng(5)
X, LABELS = RNG.normal(size=(N, 5)), RNG.integers(0, CLASSES, N)
NUMBERS, SHARES = RNG.normal(2, 1, (N, CLASSES)), RNG.uniform(size=(N, CLASSES))
TIMES = RNG.integers(0, 5, N)
QUIET: dict[str, Any] = {"progress": False, "dtype": "float64", "device": "cpu"}
TASKS = [
    (gn.SoftmaxCrossEntropy, LABELS),
    (gn.BinaryCrossEntropy, LABELS),
    (gn.BinaryCrossEntropy, SHARES),
    (gn.MeanSquaredError, LABELS),
    (gn.MeanSquaredError, NUMBERS),
]
OF_TASKS = ["softmax", "binary of labels", "binary of shares", "squares of labels", "squares of numbers"]


def network(*more: gn.Layer, outputs: int = CLASSES) -> gn.Sequential:
    return gn.Sequential([gn.Dense(7), *more, gn.Tanh(), gn.Dense(outputs)])


def watched(samples: gn.Samples, validation: gn.Samples | None = None) -> gn.Data:
    names = tuple("abcdefgh"[: samples.classes])
    return gn.Data("data", samples, validation, names)


def figures(history: gn.History) -> NDArray[Any]:
    parts = (record.figures("train") | record.figures("validation") for record in history)
    return np.array([list(part.values()) for part in parts])


def bits(model: gn.Sequential, history: gn.History) -> tuple[bytes, list[Any]]:
    assert model.backend is not None
    values = model.backend.to_host(model.parameters.values).tobytes()
    return values, [(r.train_loss, r.train_accuracy, r.validation_loss, r.validation_accuracy) for r in history]


# Loss, gradient and figures


@pytest.mark.parametrize("regularizer", [None, gn.L2(5.0), gn.L1(1.0)], ids=repr)
@pytest.mark.parametrize(("loss", "targets"), TASKS, ids=OF_TASKS)
def test_a_weighted_sample_is_the_sample_repeated(
    backend: Backend, loss: type[gn.Loss], targets: NDArray[Any], regularizer: gn.Regularizer | None
) -> None:
    rows = np.repeat(np.arange(N), TIMES)
    results = []
    for samples in (gn.Samples(X, targets, weights=TIMES), gn.Samples(X[rows], targets[rows])):
        model = network()
        options = QUIET | {"device": backend, "batch_size": len(samples), "epochs": 2, "optimizer": gn.SGD(0.3)}
        history = model.fit(watched(samples, samples), loss=loss(), regularizer=regularizer, **options)
        result = model.evaluate(samples)
        penalties = [record.penalty for record in history if regularizer]
        results.append(
            (backend.to_host(model.parameters.values), figures(history), list(result.figures.values()), penalties)
        )
    for weighted, repeated in zip(*results, strict=True):
        np.testing.assert_allclose(weighted, repeated, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("loss", "targets"), TASKS, ids=OF_TASKS)
def test_by_hand_too(backend: Backend, loss: type[gn.Loss], targets: NDArray[Any]) -> None:
    rows, by_weight, by_rows, z = np.repeat(np.arange(N), TIMES), loss(), loss(), RNG.normal(size=(N, CLASSES))
    value = by_weight.forward(backend.asarray(z), targets, sample_weight=TIMES)
    assert float(value) == pytest.approx(float(by_rows.forward(backend.asarray(z[rows]), targets[rows])), rel=1e-13)
    each = np.zeros((N, CLASSES))
    np.add.at(each, rows, backend.to_host(by_rows.backward()))
    np.testing.assert_allclose(backend.to_host(by_weight.backward()), each, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("loss", "targets"), TASKS, ids=OF_TASKS)
def test_weights_of_1_change_no_bit(backend: Backend, loss: type[gn.Loss], targets: NDArray[Any]) -> None:
    options = {"loss": loss(), "epochs": 3, "batch_size": 16, "device": backend, "progress": False}
    results = []
    for weights in (None, np.ones(N)):
        model, samples = network(), gn.Samples(X, targets, weights=weights)
        history = model.fit(watched(samples, samples), regularizer=gn.L2(0.1), **options)
        results.append(bits(model, history))
    if backend.device == "cpu":  # on a device one product more may be contracted
        assert results[0] == results[1]
    np.testing.assert_allclose(*(np.frombuffer(values, np.float32) for values, _ in results), rtol=1e-5, atol=1e-6)


def test_only_the_ratio_of_weights_counts_but_for_a_regularizer() -> None:
    values = []
    for factor in (1.0, 1e-30, 1e30):
        model = network()
        model.fit(
            gn.Samples(X, LABELS, weights=TIMES * factor), epochs=3, batch_size=16, **QUIET | {"dtype": "float32"}
        )
        values.append(model.parameters.values)
    np.testing.assert_allclose(values[1:], [values[0]] * 2, rtol=1e-5, atol=1e-6)


def test_figures_are_those_of_scikit_learn(backend: Backend) -> None:
    w = RNG.uniform(0, 3, N)
    model = network().build((5,), 16, backend, "float64")
    model.loss = gn.SoftmaxCrossEntropy()
    found, p = model.evaluate(X, LABELS, sample_weight=w), model.predict_proba(X)
    assert found.loss == pytest.approx(metrics.log_loss(LABELS, p, sample_weight=w), rel=1e-12)
    assert found.accuracy == pytest.approx(metrics.accuracy_score(LABELS, p.argmax(axis=1), sample_weight=w), rel=1e-12)
    assert found.right == pytest.approx(found.accuracy * found.total)
    balanced = model.evaluate(X, LABELS, class_weight="balanced")
    assert balanced.accuracy == pytest.approx(metrics.balanced_accuracy_score(LABELS, p.argmax(axis=1)), rel=1e-12)
    assert "by weight" in str(balanced)

    model = network(outputs=1)
    model.fit(X, NUMBERS[:, 0], sample_weight=w, epochs=1, **QUIET | {"device": backend})
    found, a = model.evaluate(X, NUMBERS[:, 0], sample_weight=w), model.predict(X)
    assert found.rmse == pytest.approx(metrics.root_mean_squared_error(NUMBERS[:, :1], a, sample_weight=w), rel=1e-12)
    assert found.r2 == pytest.approx(metrics.r2_score(NUMBERS[:, :1], a, sample_weight=w), rel=1e-9)


def test_records_of_minibatches_are_averages_by_weight(backend: Backend) -> None:
    """With a rate of nothing, the network stays as it began: an epoch's figures are those of all samples."""
    samples = gn.Samples(X, LABELS, weights=TIMES)
    model = network()
    options = QUIET | {
        "device": backend,
        "batch_size": 7,
        "epochs": 2,
        "validate_every": 6,
        "optimizer": gn.SGD(1e-300),
    }
    for record in model.fit(watched(samples, samples), **options):
        assert record.train_loss == pytest.approx(record.validation_loss, rel=1e-12)
        assert record.train_accuracy == pytest.approx(record.validation_accuracy, rel=1e-12)


# Samples of weight 0


def test_a_sample_of_weight_0_counts_for_nothing() -> None:
    counting = TIMES > 0
    with_them, without = network(), network()
    full = QUIET | {"batch_size": N, "epochs": 4, "optimizer": gn.SGD(0.3)}
    with_them.fit(watched(gn.Samples(X, NUMBERS, weights=TIMES)), **full)
    without.fit(watched(gn.Samples(X[counting], NUMBERS[counting], weights=TIMES[counting])), **full)
    np.testing.assert_allclose(with_them.parameters.values, without.parameters.values, rtol=1e-12, atol=1e-13)
    for r2 in (
        with_them.evaluate(X, NUMBERS, sample_weight=TIMES).r2,
        without.evaluate(X, NUMBERS, sample_weight=TIMES).r2,
    ):
        assert r2 == pytest.approx(metrics.r2_score(NUMBERS, NUMBERS) - (1 - r2))


def test_batches_of_weight_0_are_no_trouble(backend: Backend) -> None:
    weights = np.zeros(N)
    weights[17] = 1
    model = network()
    options = QUIET | {"device": backend, "batch_size": 4, "epochs": 3, "validate_every": 1, "patience": 2}
    history = model.fit(watched(gn.Samples(X, LABELS, weights=weights), gn.Samples(X, LABELS, classes=3)), **options)
    assert len(history) == 3  # of thirty steps: the others have no loss
    assert all(np.isfinite(record.train_loss) for record in history)


def test_a_learning_rate_is_found_with_batches_of_weight_0() -> None:
    weights = np.where(np.arange(N) % 10 == 3, 1.0, 0.0)
    options: dict[str, Any] = {"batch_size": 2, "steps": 40, "device": "cpu"}
    curve = gn.Sequential([gn.Dense(3)]).find_learning_rate(watched(gn.Samples(X, LABELS, weights=weights)), **options)
    assert 1 < len(curve.losses) < 40
    assert len(curve.losses) == len(curve.rates)


def test_a_part_of_a_split_whose_samples_all_have_weight_0_is_refused_in_one_line() -> None:
    weights = np.zeros(N)
    weights[3] = 1
    with pytest.raises(DataError, match=r"all \d+ samples that the split leaves for \w+ have weight 0") as caught:
        network().fit(X, LABELS, sample_weight=weights, epochs=1, **QUIET)
    one_line(caught.value)


# Where weights go


def test_the_weights_of_a_loader_are_those_of_its_batches(backend: Backend) -> None:
    values = []
    for data_on in ("device", "host"):
        model, samples = network(), gn.Samples(X, LABELS, weights=TIMES)
        options = QUIET | {"device": backend, "batch_size": 7, "epochs": 3, "data_on": data_on}
        values.append(bits(model, model.fit(watched(samples, samples), **options)))
    assert values[0] == values[1]


def test_samples_of_a_file_take_their_weights_along(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    values = []
    for x in (X, np.load(tmp_path / "x.npy", mmap_mode="r")):
        data = gn.Data.from_arrays(x, LABELS, sample_weight=TIMES, validation=0.25, limit=30)
        model = network()
        values.append(bits(model, model.fit(data, batch_size=8, epochs=2, **QUIET)))
    assert values[0] == values[1]


def test_images_are_augmented_and_weighted(backend: Backend) -> None:
    images = RNG.integers(0, 255, (N, 6, 6, 1)).astype(np.uint8)
    options = {"augmentation": gn.Augmentation(shift=1), "epochs": 2, "batch_size": 8, "device": backend}
    values = []
    for weights in (np.where(TIMES > 2, 3.0, 0.0), np.where(TIMES > 2, 1.0, 0.0)):
        model = gn.Sequential([gn.Conv2D(2, 3), gn.ReLU(), gn.Flatten(), gn.Dense(3)])
        history = model.fit(gn.Samples(images, LABELS, 1 / 255, weights=weights), progress=False, **options)
        values.append(bits(model, history))
    assert values[0][0] == values[1][0]


def test_the_memory_of_weights_is_counted() -> None:
    plain, weighted = gn.Samples(X, LABELS), gn.Samples(X, LABELS, weights=TIMES)
    for dtype, item in (("float32", 4), ("float64", 8)):
        assert bytes_on_device(weighted, dtype) - bytes_on_device(plain, dtype) == N * item
        assert bytes_on_host(weighted, dtype) - bytes_on_host(plain, dtype) == N * item


def test_validation_samples_have_their_own_weights() -> None:
    data = gn.Data.from_arrays(X, LABELS, sample_weight=TIMES + 1, validation=0.25)
    assert data.validation is not None
    samples, rows = data.validation, [int(np.flatnonzero((row == X).all(axis=1))[0]) for row in data.validation.inputs]
    np.testing.assert_array_equal(samples.weights, TIMES[rows] + 1)
    model = network()
    last = model.fit(data, epochs=1, class_weight="balanced", **QUIET)[-1]
    assert last.validation_loss == pytest.approx(model.evaluate(samples).loss, rel=1e-12)
    assert last.validation_loss != pytest.approx(model.evaluate(samples.inputs, samples.targets).loss, rel=1e-3)

    for pair in ((X, LABELS, TIMES), [X, LABELS, TIMES]):
        last = network().fit(X, LABELS, validation_data=pair, epochs=1, **QUIET)[-1]
        expected = network().fit(X, LABELS, validation_data=gn.Samples(X, LABELS, weights=TIMES), epochs=1, **QUIET)[-1]
        assert last.validation_loss == expected.validation_loss
    data = gn.Data.from_arrays(X, LABELS, test=(X, LABELS, TIMES), validation=(X, LABELS, TIMES))
    assert data.test is not None
    assert data.validation is not None
    np.testing.assert_array_equal(data.test.weights, TIMES)
    np.testing.assert_array_equal(data.validation.weights, TIMES)


def test_weights_in_fit_are_those_of_its_samples() -> None:
    models = [network() for _ in range(3)]
    models[0].fit(X, LABELS, sample_weight=TIMES, epochs=2, **QUIET)
    models[1].fit(gn.Samples(X, LABELS), sample_weight=TIMES, epochs=2, **QUIET)
    models[2].fit(gn.Data.from_arrays(X, LABELS, sample_weight=TIMES), epochs=2, **QUIET)
    for model in models[1:]:
        np.testing.assert_array_equal(model.parameters.values, models[0].parameters.values)


def test_weights_stay_out_of_the_way_of_skipping_and_of_going_on(backend: Backend) -> None:
    samples, options = gn.Samples(X, LABELS, weights=TIMES), QUIET | {"device": backend, "batch_size": 8}
    whole, parts = network(), network()
    whole.fit(watched(samples), epochs=4, skip_bad_batches=True, **options)
    optimizer = gn.SGD(0.1, momentum=0.9)
    for _ in range(4):
        parts.fit(watched(samples), epochs=1, optimizer=optimizer, **options)
    np.testing.assert_array_equal(*(backend.to_host(model.parameters.values) for model in (whole, parts)))


# Weights of classes


def test_weights_of_classes_multiply_those_of_samples() -> None:
    given: list[dict[str, Any]] = [
        {"sample_weight": TIMES * np.array([1.0, 4.0, 0.5])[LABELS]},
        {"sample_weight": TIMES, "class_weight": [1, 4, 0.5]},
        {"sample_weight": TIMES, "class_weight": {1: 4, "c": 0.5}},
    ]
    values = []
    for options in given:
        data = gn.Data.from_arrays(
            X, LABELS, class_names=["a", "b", "c"], validation=0, sample_weight=options.pop("sample_weight")
        )
        model = network()
        model.fit(data, epochs=2, **QUIET, **options)
        values.append(model.parameters.values)
    np.testing.assert_array_equal(values[1:], [values[0]] * 2)


def test_weights_by_number_are_of_the_data_also_where_the_network_numbers_its_classes_otherwise() -> None:
    by_name, by_number = (gn.Sequential([gn.Dense(4)]) for _ in range(2))
    first, second = (np.array(names)[LABELS] for names in (["ant", "bee", "cat"], ["bee", "cat", "dog"]))
    for model, class_weight in ((by_name, {"bee": 2, "dog": 5}), (by_number, [2, 1, 5])):
        model.fit(X, first, epochs=1, **QUIET)
        model.fit(X, second, epochs=1, class_weight=class_weight, **QUIET)
    np.testing.assert_array_equal(by_name.parameters.values, by_number.parameters.values)


def test_balanced_weights_are_of_the_training_part_and_leave_the_data_as_they_are() -> None:
    data = gn.Data.from_arrays(X, LABELS, validation=0.3)
    before = data.train.sha256()
    model = network()
    trainer = Trainer(model, TrainOptions(class_weight="balanced", epochs=1, progress=False), data)
    assert trainer.samples.weights is not None
    counts = np.bincount(data.train.targets)
    np.testing.assert_allclose(
        trainer.samples.weights, (len(data.train) / (3 * counts))[data.train.targets], rtol=1e-15
    )
    assert trainer.data.train.weights is None
    assert trainer.data.train.sha256() == before


def imbalanced(count: int, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """20 samples spread widely to 1 of a narrow class at their edge."""
    rng, labels = np.random.default_rng(seed), (np.arange(count) % 21 == 0).astype(int)
    return rng.normal(size=(count, 2)) * np.where(labels, 0.3, 2)[:, None] + np.stack(
        [3 * labels, 0 * labels], 1
    ), labels


def test_balanced_weights_raise_the_macro_f1_as_those_of_scikit_learn_do() -> None:
    from sklearn.linear_model import LogisticRegression

    (x, y), (x_new, y_new) = imbalanced(2100, 0), imbalanced(4200, 1)
    scores: dict[Any, float] = {}
    for class_weight in (None, "balanced"):
        model = gn.Sequential([gn.Dense(2)])
        options = QUIET | {"batch_size": len(x), "epochs": 300, "optimizer": gn.SGD(0.5, momentum=0.9)}
        model.fit(watched(gn.Samples(x, y)), class_weight=class_weight, **options)
        theirs = LogisticRegression(C=np.inf, tol=1e-9, class_weight=class_weight).fit(x, y)
        ours = model.predict(x_new)
        scores[class_weight] = float(metrics.f1_score(y_new, ours, average="macro"))
        expected = metrics.f1_score(y_new, theirs.predict(x_new), average="macro")
        assert scores[class_weight] == pytest.approx(expected, abs=0.005)
        p = theirs.predict_proba(x_new)
        np.testing.assert_allclose(model.predict_proba(x_new), p, atol=2e-3)
    assert scores["balanced"] > scores[None] + 0.15


def test_a_network_of_balanced_classes_is_not_taken_for_one_of_chance(caplog: pytest.LogCaptureFixture) -> None:
    x, y = imbalanced(2100, 0)
    model, options = gn.Sequential([gn.Dense(2)]), {"epochs": 5, "device": "cpu", "class_weight": "balanced"}
    with caplog.at_level(logging.INFO):
        trainer = Trainer(model, TrainOptions(progress=False, **options), gn.Data.from_arrays(x, y))
        trainer.run()
    assert model.evaluate(x, y).accuracy < 20 / 21
    assert trainer.verdict() == ""


def test_a_network_that_learned_nothing_of_weighted_samples_is_told_by_their_weights() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 4)), np.arange(300) % 2
    for weights, share in ((np.where(y, 3.0, 1.0), "75.00%"), (None, "50.00%")):
        data = watched(gn.Samples(x * 1e-9, y, weights=weights))
        trainer = Trainer(network(outputs=2), TrainOptions(progress=False, epochs=30, device="cpu"), data)
        trainer.run()
        assert f"always answering the commonest class gives {share}" in trainer.verdict()


# What cannot be


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"class_weight": "balancd"}, OptionError, 'class_weight is "balanced", a table'),
        ({"class_weight": 2}, OptionError, 'class_weight is "balanced", a table'),
        ({"class_weight": {0: -1}}, OptionError, "class_weight of 0 must be at least 0 and finite, got -1"),
        ({"class_weight": {0: "much"}}, OptionError, "class_weight of 0 must be a number, got 'much'"),
        ({"class_weight": [1, np.nan, 1]}, OptionError, "class_weight of class 1 must be at least 0 and finite"),
        ({"class_weight": {1: 1e39}}, OptionError, "class_weight of 1 must be at least 0 and finite"),
        ({"class_weight": [1, 2]}, OptionError, "class_weight lists 2 weights for 3 classes"),
        ({"class_weight": [0, 0, 0]}, OptionError, "the weights of all 36 samples are 0"),
        ({"class_weight": {3: 1}}, OptionError, "a weight for 3, which is no class: expected 0, 1, 2"),
        ({"class_weight": {"cat": 1}}, OptionError, "a weight for 'cat', which is no class: expected 0, 1, 2"),
        ({"class_weight": {1.5: 1}}, OptionError, "a weight for 1.5, which is no class"),
        ({"class_weight": {1: 1, "1": 2}}, OptionError, "weights for 1 and '1', which are one class"),
        ({"class_weight": "balanced", "y": NUMBERS}, OptionError, "class_weight needs labels"),
        ({"sample_weight": TIMES[1:]}, DataError, r"sample weights are \(40,\), one for each sample, got int64 of"),
        ({"sample_weight": np.where(TIMES, 1, -1)}, DataError, "sample weights are at least 0, got -1 for sample"),
        ({"sample_weight": np.full(N, np.nan)}, DataError, "sample weights must be finite"),
        ({"sample_weight": np.zeros(N)}, DataError, "the weights of all 40 samples are 0"),
        ({"sample_weight": "balanced"}, DataError, "sample weights must be numbers"),
        ({"validation_data": (X, LABELS, TIMES[1:])}, DataError, r"sample weights are \(40,\)"),
    ],
)
def test_weights_that_cannot_be_are_refused_in_one_line(
    given: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said) as caught:
        network().fit(X, **{"y": LABELS, "epochs": 1} | QUIET | given)
    one_line(caught.value)


def test_weights_beside_data_that_may_have_their_own_are_refused() -> None:
    with pytest.raises(DataError, match="sample_weight goes with x and y or with samples") as caught:
        network().fit(gn.Data.from_arrays(X, LABELS), sample_weight=TIMES, epochs=1, **QUIET)
    one_line(caught.value)
    with pytest.raises(DataError, match="these samples have weights already") as caught:
        network().fit(gn.Samples(X, LABELS, weights=TIMES), sample_weight=TIMES, epochs=1, **QUIET)
    one_line(caught.value)


# Losses of one's own


def _scaled(
    z: Any, bias: Any, t: Any, weight: float, gradient: Any, db: Any, costs: Any, totals: Any, each: bool
) -> None:
    difference = z + bias[:, None] - t
    costs[...] = 0.5 * np.square(difference).sum(axis=0)
    gradient[...] = difference / z.shape[1]
    db[...] = gradient.sum(axis=1)
    totals[0] += weight * costs.sum()


def _weighted(
    z: Any, bias: Any, t: Any, weight: float, w: Any, gradient: Any, db: Any, costs: Any, totals: Any, each: bool
) -> None:
    _scaled(z, bias, t, weight, gradient, db, costs, np.zeros(2), each)
    gradient *= w
    db[...] = gradient.sum(axis=1)
    totals[0] += weight * (w * costs).sum()
    totals[2] += w.sum()


@pytest.fixture
def halves() -> Iterator[tuple[Raw, Raw]]:
    before = set(registry)
    yield Raw("own_halves", host=_scaled), Raw("own_weighted_halves", host=_weighted)
    for name in set(registry) - before:
        del registry[name]


def test_a_loss_of_ones_own_that_cannot_weigh_is_refused_by_its_name(halves: tuple[Raw, Raw]) -> None:
    class Half(gn.Loss):
        kernel = halves[0]

    class Squares(gn.MeanSquaredError):
        kernel = halves[0]  # and not the formula of the kernel that its base weighs by

    class Elsewhere(gn.MeanSquaredError):
        def evaluate(
            self, backend: Any, z: Any, t: Any, totals: Any, weight: Any = 1.0, bias: Any = None, db: Any = None
        ) -> None:
            super().evaluate(backend, z, t, totals, 2 * weight, bias, db)

    for loss in (Half(), Squares(), Elsewhere()):
        network().fit(X, NUMBERS, loss=loss, epochs=1, **QUIET)  # as before
        for call in (
            lambda loss=loss: network().fit(X, NUMBERS, loss=loss, sample_weight=TIMES, epochs=1, **QUIET),
            lambda loss=loss: loss.forward(NUMBERS, NUMBERS, sample_weight=TIMES),
        ):
            with pytest.raises(OptionError, match=f"{type(loss).__name__} cannot weigh samples: give") as caught:
                call()
            one_line(caught.value)


def test_a_loss_of_ones_own_weighs_by_a_kernel_of_its_own(halves: tuple[Raw, Raw]) -> None:
    class Half(gn.Loss):
        kernel, weighted_kernel = halves

    class Same(Half):
        """Inherits both."""

    rows = np.repeat(np.arange(N), TIMES)
    for loss in (Half(), Same()):
        by_weight = loss.forward(SHARES, NUMBERS, sample_weight=TIMES)
        assert by_weight == pytest.approx(loss.forward(SHARES[rows], NUMBERS[rows]), rel=1e-13)
        network().fit(X, NUMBERS, loss=loss, sample_weight=TIMES, epochs=1, **QUIET)
