"""The detector of overfitting against published trainings, noise, and runs as they usually are."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from support.paths import ROOT

from gpunn.train.history import OverfittingCriterion, Record


def published(name):
    """(validation cost, training cost), one a epoch, of the trainings in chapter 3 of Nielsen's book."""
    places = [ROOT.parent / "shared" / "data"]
    if "GPUNN_DATA" in os.environ:
        places.insert(0, Path(os.environ["GPUNN_DATA"]))
    for place in places:
        path = place / "curves" / f"{name}.json"
        if path.exists():
            validation, _, training, _ = json.loads(path.read_text())
            return np.array(validation), np.array(training)
    pytest.skip(f"the published curves curves/{name}.json are neither in GPUNN_DATA nor in ../shared/data")


def verdict(validation, training, per_epoch=1):
    """(epoch at which the detector speaks, epoch since which), or None where it keeps silent."""
    detector = OverfittingCriterion()
    said = []
    for i, (v, t) in enumerate(zip(validation, training, strict=True)):
        now = Record(i + 1, (i + 1) / per_epoch, float(t), 0.9, float(v), 0.9, 0.1, float(i))
        since = detector.observe(now)
        if since is not None:
            said.append((now.epoch, since.epoch))
    assert len(said) <= 1, "it speaks once"
    return said[0] if said else None


def noise(size, seed, white=0.0, smooth=0.0, length=5):
    """Factors around 1: noise from record to record, and noise that lasts about `length` records."""
    random = np.random.Generator(np.random.Philox(seed))
    hill = np.hanning(length + 2)[1:-1]
    waves = np.convolve(random.normal(size=size + length - 1), hill / np.sqrt((hill**2).sum()), mode="valid")
    return np.exp(white * random.normal(size=size) + smooth * waves)


def test_the_published_overfitting_is_seen_by_epoch_34_and_dated_within_20_epochs_of_epoch_14():
    spoke, since = verdict(*published("overfitting"))
    # The book counts epochs from 0.
    assert spoke - 1 <= 34
    assert abs(since - 1 - 14) <= 2


def test_nothing_is_said_of_the_published_regularised_training():
    assert verdict(*published("regularized")) is None


@pytest.mark.parametrize(
    ("white", "smooth", "length"), [(0.01, 0, 1), (0.02, 0, 1), (0, 0.01, 3), (0, 0.01, 10), (0.005, 0.005, 5)]
)
def test_noise_on_the_published_curves_changes_no_verdict(white, smooth, length):
    late = 0
    for seed in range(6):
        validation, training = published("overfitting")
        validation = validation * noise(400, seed, white, smooth, length)
        spoke, since = verdict(validation, training * noise(400, seed + 50, white / 2, smooth / 2, length))
        assert abs(since - 1 - 14) <= 20
        assert spoke <= 45
        late += spoke - 1 > 34
        validation, training = published("regularized")
        validation = validation * noise(400, seed + 100, white, smooth, length)
        assert verdict(validation, training * noise(400, seed + 150, white / 2, smooth / 2, length)) is None
    assert late <= 2


def with_penalty(validation, training, penalty):
    """The verdict on a training with a regulariser."""
    detector = OverfittingCriterion()
    for i, (v, t) in enumerate(zip(validation, training, strict=True)):
        record = Record(i + 1, i + 1.0, float(t), 0.9, float(v), 0.9, 0.1, float(i), penalty=penalty)
        if (since := detector.observe(record)) is not None:
            return record.epoch, since.epoch
    return None


def test_a_penalty_far_above_the_loss_hides_no_overfitting():
    validation, training = published("overfitting")
    assert with_penalty(validation, training, penalty=100.0) is not None


def test_with_a_regulariser_a_loss_that_hardly_rises_is_no_overfitting():
    """The training loss falls to a hundredth of itself where the training is as it should be."""
    epochs = np.arange(1, 101)
    training, validation = np.exp(-epochs / 20), 1 + 0.0275 * np.clip((epochs - 10) / 30, 0, 1)
    assert verdict(validation, training) is not None
    assert with_penalty(validation, training, penalty=0.1) is None


def test_the_verdict_hardly_depends_on_the_number_of_records_an_epoch():
    validation, training = published("overfitting")
    epochs = np.arange(1, 401)
    once = verdict(validation, training)
    for per_epoch in (2, 4, 10):
        fine = np.arange(1, 60 * per_epoch + 1) / per_epoch
        often = verdict(np.interp(fine, epochs, validation), np.interp(fine, epochs, training), per_epoch)
        assert abs(often[0] - once[0]) <= 2
        assert abs(often[1] - once[1]) <= 1


def test_a_validation_cost_that_creeps_up_while_training_falls_to_nothing_is_overfitting():
    epochs = np.arange(1, 81) / 4
    training = 0.3 * np.exp(-epochs / 4) + 0.002
    validation = 0.07 + 0.13 * np.exp(-epochs) + 0.0008 * np.maximum(epochs - 6, 0)
    spoke, since = verdict(validation * noise(80, 1, white=0.01), training * noise(80, 2, white=0.05), per_epoch=4)
    assert 4 <= since <= 9
    assert spoke <= 16


def test_a_validation_cost_that_stands_still_is_not_called_overfitting():
    epochs = np.arange(1, 201) / 4
    for seed in range(5):
        validation = (0.07 + 0.3 * np.exp(-epochs)) * noise(200, seed, white=0.01 + 0.01 * seed)
        assert verdict(validation, 0.3 * np.exp(-epochs / 5), per_epoch=4) is None


def test_costs_that_rise_together_are_divergence_and_not_overfitting():
    epochs = np.arange(1.0, 41)
    both = 0.1 + 0.01 * np.abs(epochs - 10)
    assert verdict(both, both) is None


def test_one_spike_of_the_validation_cost_says_nothing():
    epochs = np.arange(1.0, 41)
    validation = 0.5 + np.exp(-epochs / 3)
    validation[25] *= 3
    assert verdict(validation, np.exp(-epochs / 10)) is None


def test_a_noisier_validation_cost_has_to_rise_further():
    epochs = np.arange(1.0, 61)
    validation, training = 1.0 + 0.004 * np.abs(epochs - 10), np.exp(-epochs / 8)
    calm = verdict(validation, training)
    restless = verdict(validation * (1 + 0.03 * (-1.0) ** epochs), training)
    assert calm[0] + 5 < restless[0]


def test_records_without_a_finite_cost_are_passed_over():
    validation, training = published("overfitting")
    validation[3::4] = math.nan
    validation[18] = math.inf
    training[22] = math.nan
    spoke, since = verdict(validation, training)
    assert spoke <= 37
    assert abs(since - 15) <= 4


def test_without_validation_nothing_is_said():
    assert verdict(np.full(50, math.nan), np.exp(-np.arange(50.0))) is None


def test_costs_of_zero_and_huge_costs_are_no_error():
    assert verdict(np.zeros(50), np.zeros(50)) is None
    huge = np.full(50, 1e300) * np.linspace(1, 1.5, 50)
    assert verdict(huge, np.linspace(1, 0.1, 50) * 1e300) is None


def test_records_rarer_than_the_window_still_make_windows_of_five():
    epochs = 10 * np.arange(1.0, 41)
    detector = OverfittingCriterion()
    said = [
        detector.observe(Record(i + 1, epoch, math.exp(-epoch / 100), 1.0, 1 + 0.001 * abs(epoch - 100), 1.0, 0.1, 0.0))
        for i, epoch in enumerate(epochs)
    ]
    (since,) = [record for record in said if record is not None]
    assert since.epoch == 100
