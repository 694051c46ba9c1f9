"""The split into training and validation: complete, stratified, and the same for ever."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpunn.data.dataset import stratified_split, validation_count
from gpunn.errors import OptionError

labelled = st.lists(st.integers(0, 6), min_size=2, max_size=80).map(np.array)


@given(labels=labelled, data=st.data(), seed=st.integers(0, 2**70))
def test_every_sample_is_in_exactly_one_part_and_every_class_is_learned(labels, data, seed):
    most = len(labels) - len(np.unique(labels))
    count = data.draw(st.integers(0, most))
    train, validation = stratified_split(labels, count, seed)
    assert len(validation) == count
    np.testing.assert_array_equal(np.sort(np.concatenate([train, validation])), np.arange(len(labels)))
    assert set(labels[train]) == set(labels)
    assert np.all(np.diff(train) > 0)
    assert np.all(np.diff(validation) > 0)


@given(
    sizes=st.lists(st.integers(10, 60), min_size=1, max_size=6),
    fraction=st.floats(0.05, 0.8),
    seed=st.integers(0, 99),
)
def test_classes_keep_their_proportions_to_one_sample(sizes, fraction, seed):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    count = int(fraction * len(labels))
    _, validation = stratified_split(labels, count, seed)
    ideal = np.array(sizes) * count / len(labels)
    got = np.bincount(labels[validation], minlength=len(sizes))
    assert np.all(np.abs(got - ideal) < 1)


def test_the_split_of_a_seed_never_changes():
    # Pinned, not derived: a split that moves mixes validation samples into a training that is resumed.
    labels = np.arange(1000) * 7 % 10
    _, validation = stratified_split(labels, 100, 0)
    assert validation[:6].tolist() == [3, 14, 19, 37, 43, 44]
    assert (
        hashlib.sha256(validation.astype("<i8").tobytes()).hexdigest()
        == "486fffc98dd4304eecb2807a11dfbe879a334f53f3b719b3feb7de3d9f3f5312"
    )


def test_seeds_give_different_splits():
    labels = np.arange(200) % 10
    splits = {tuple(stratified_split(labels, 50, seed)[1].tolist()) for seed in range(20)}
    assert len(splits) == 20


def test_the_split_does_not_depend_on_the_type_of_the_labels():
    labels = np.arange(50) % 3
    expected = stratified_split(labels, 10, 3)[1]
    for dtype in (np.uint8, np.int32):
        np.testing.assert_array_equal(stratified_split(labels.astype(dtype), 10, 3)[1], expected)


def test_a_plain_split_is_drawn_from_everywhere():
    train, validation = stratified_split(np.zeros(1000, int), 500, 0)
    assert len(train) == len(validation) == 500
    assert 180 < np.count_nonzero(validation < 500) < 320


def test_a_class_would_be_lost_is_said_with_the_largest_count():
    with pytest.raises(OptionError, match="give at most 3"):
        stratified_split(np.array([0, 0, 1, 1, 2, 2]), 4, 0)


@pytest.mark.parametrize(
    ("validation", "count"),
    [
        (0.1, 10),
        (0.0, 0),
        (0, 0),
        (1, 1),
        (25, 25),
        (0.001, 1),
        (0.255, 26),
        (np.int64(3), 3),
        (np.float32(0.5), 50),
    ],
)
def test_fractions_and_counts(validation, count):
    assert validation_count(validation, 100) == count


@pytest.mark.parametrize(("total", "count"), [(1, 0), (4, 0), (10, 0), (19, 0), (20, 2), (24, 2), (30, 3)])
def test_of_few_samples_a_fraction_holds_back_none_rather_than_one(total, count):
    assert validation_count(0.1, total) == count
    assert validation_count(0.5, 10) == 5
    assert validation_count(1, 4) == 1


def test_a_fraction_takes_no_more_than_the_classes_can_give():
    assert validation_count(0.1, 30, most=0) == 0
    assert validation_count(0.1, 30, most=2) == 2
    assert validation_count(3, 30, most=2) == 3


@pytest.mark.parametrize("validation", [1.0, -0.1, float("nan"), -1, 100, 0.999, True, "0.1", None, [3]])
def test_what_is_no_fraction_or_count_is_refused_with_the_mend(validation):
    with pytest.raises(OptionError, match="fraction"):
        validation_count(validation, 100)


@pytest.mark.parametrize("seed", [-1, 0.5, True, "0", None])
def test_a_seed_is_a_whole_number_from_0(seed):
    with pytest.raises(OptionError, match="whole number from 0"):
        stratified_split(np.zeros(10, int), 2, seed)
