"""Weights of samples: what they may be, that they stay with their samples, and what they do to a fingerprint."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight
from support.harness import one_line

from gpunn import Samples
from gpunn.data.class_weights import class_weights, with_class_weight
from gpunn.data.memmap import is_mapped
from gpunn.errors import DataError, OptionError

X, Y = np.arange(12, dtype=np.float32).reshape(6, 2), np.array([0, 1, 2, 0, 1, 2])
WEIGHTS = [1, 0, 2.5, 0, 1, 3]


def weighted(**more: Any) -> Samples:
    return Samples(**{"inputs": X, "targets": Y, "weights": WEIGHTS} | more)


def test_weights_are_kept_as_float64_and_are_none_where_there_are_none() -> None:
    samples = weighted()
    assert samples.weights is not None
    assert samples.weights.dtype == np.float64
    assert samples.weights.tolist() == WEIGHTS
    assert Samples(X, Y).weights is None
    assert "weighted" in repr(samples)
    assert "weighted" not in repr(Samples(X, Y))


@pytest.mark.parametrize("given", [np.array(WEIGHTS)[:, None], tuple(WEIGHTS), np.array(WEIGHTS, np.float32)])
def test_weights_are_taken_in_one_column_and_in_any_type(given: Any) -> None:
    assert np.array_equal(weighted(weights=given).weights, WEIGHTS)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ([1, 1, 1, 1, 1], r"\(6,\), one for each sample, got int64 of shape \(5,\)"),
        (np.ones((6, 2)), r"\(6,\), one for each sample"),
        (2.0, r"one for each sample"),
        ([1, 1, -0.5, 1, 1, 1], "at least 0, got -0.5 for sample 2"),
        ([1, 1, 1, np.nan, 1, 1], "finite float32 numbers, got NaN in sample 3"),
        ([1, 1, 1, 1, 1, np.inf], "finite float32 numbers, got inf in sample 5"),
        ([1, 1, 1, 1, 1, 1e300], r"finite float32 numbers, got 1e\+300 in sample 5"),
        ([0, 0, 0, 0, 0, 0], "the weights of all 6 samples are 0"),
        (["much"] * 6, "sample weights must be numbers"),
        ("balanced", "sample weights must be numbers"),
    ],
)
def test_weights_that_cannot_be_are_refused_in_one_line(weights: Any, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        weighted(weights=weights)
    one_line(caught.value)


def test_weights_stay_with_their_samples(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    for inputs in (X, np.load(tmp_path / "x.npy", mmap_mode="r")):
        samples = weighted(inputs=inputs)
        assert is_mapped(samples.inputs) == (inputs is not X)
        picked = samples.subset([5, 0, 2])
        for same in (picked, picked.subset([True, True, True]), picked.first(9), picked.as_floats()):
            np.testing.assert_array_equal(same.weights, [3, 1, 2.5])
            np.testing.assert_array_equal(same.inputs[:], X[[5, 0, 2]])
        np.testing.assert_array_equal(samples.first(3).weights, WEIGHTS[:3])


def test_a_fingerprint_holds_the_weights_and_is_as_before_without_them() -> None:
    # As computed before samples could have weights: runs of then go on.
    assert Samples(X, Y).sha256() == "b5cbaee1ded61a8179b4b9a26ba1e6ae9b0047d9415026e960fce2d88137abc5"
    assert len({Samples(X, Y).sha256(), weighted().sha256(), weighted(weights=np.ones(6)).sha256()}) == 3
    assert weighted().sha256() == weighted(weights=np.array(WEIGHTS, ">f8")).sha256()


# Weights of classes


@pytest.mark.parametrize("weights", [None, np.arange(60) % 4])
def test_balanced_weights_are_those_of_scikit_learn(weights: Any) -> None:
    labels = np.random.default_rng(0).choice([0, 1, 3], 60, p=[0.7, 0.25, 0.05])  # of class 2 there is no sample
    samples = Samples(np.ones((60, 2)), labels, classes=4, weights=weights)
    repeated = labels if weights is None else np.repeat(labels, weights)
    expected = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=repeated)
    np.testing.assert_allclose(class_weights("balanced", samples)[[0, 1, 3]], expected, rtol=1e-14)
    of_samples = with_class_weight(samples, "balanced").weights
    assert of_samples is not None
    if weights is None:
        np.testing.assert_allclose(of_samples, compute_sample_weight("balanced", labels), rtol=1e-14)
    assert of_samples.sum() == pytest.approx(samples.total_weight)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([1, 2.5, 0], [1, 2.5, 0]),
        (np.array([1, 2.5, 0]), [1, 2.5, 0]),
        ({"bee": 2.5}, [1, 2.5, 1]),
        ({1: 2.5, np.int64(2): 0}, [1, 2.5, 0]),
        ({"1": 2.5, "cat": 0}, [1, 2.5, 0]),  # the keys of a file are texts
        ({True: 2.5, 0.0: 3}, [3, 2.5, 1]),
        ({}, [1, 1, 1]),
    ],
)
def test_class_weights_are_given_by_name_or_number_or_in_a_list(given: Any, expected: list[float]) -> None:
    assert class_weights(given, Samples(X, Y), ("ant", "bee", "cat")).tolist() == expected


def test_a_name_that_is_a_number_is_a_name_first() -> None:
    assert class_weights({"1": 5}, Samples(X, Y), ("2", "1", "0")).tolist() == [1, 5, 1]
    assert class_weights({"0": 5}, Samples(X, Y), ("2", "1", "0")).tolist() == [1, 1, 5]


def test_a_name_that_is_none_is_answered_with_the_nearest() -> None:
    with pytest.raises(
        OptionError, match="'bea', which is no class: expected ant, bee, cat, did you mean 'bee'"
    ) as caught:
        class_weights({"bea": 2}, Samples(X, Y), ("ant", "bee", "cat"))
    one_line(caught.value)
