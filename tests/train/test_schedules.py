"""Learning rates as they are over a training."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.harness import one_line

import gpunn as gn
from gpunn import Constant, Cosine, OneCycle, StepDecay, Warmup
from gpunn.errors import OptionError
from gpunn.train.schedules import Changed, Schedule


def rates(schedule: Schedule, *epochs: float, total: int = 10) -> list[float]:
    return [float(rate) for rate in schedule.rates(np.array(epochs), total)]


def test_a_constant_rate_stays() -> None:
    assert rates(Constant(0.3), 0, 0.5, 9.9) == [0.3, 0.3, 0.3]


def test_a_step_decay_falls_at_whole_multiples_only() -> None:
    assert rates(StepDecay(0.8, 0.5, 3), 0, 2.999, 3, 5.9, 6, 9) == pytest.approx([0.8, 0.8, 0.4, 0.4, 0.2, 0.1])


def test_a_cosine_goes_from_its_rate_to_its_final_rate() -> None:
    expected = [1.0, 0.2 + 0.8 * (1 + math.cos(math.pi / 4)) / 2, 0.6, 0.2]
    assert rates(Cosine(1.0, 0.2), 0, 2.5, 5, 10) == pytest.approx(expected)
    assert rates(Cosine(0.5), 10) == pytest.approx([0.0])


def test_one_cycle_climbs_to_its_peak_and_falls() -> None:
    cycle = OneCycle(2.0, rise=0.3, start=20, end=100)
    assert rates(cycle, 0, 1.5, 3, 6.5, 10) == pytest.approx([0.1, 1.05, 2.0, (2 + 0.02) / 2, 0.02])
    climb, fall = rates(cycle, *np.linspace(0, 3, 20)), rates(cycle, *np.linspace(3, 10, 20))
    assert climb == sorted(climb)
    assert fall == sorted(fall, reverse=True)


def of_steps(schedule: Schedule, steps: int, epochs: int) -> list[float]:
    """The rates of all steps of a training, as the trainer asks for them."""
    return [
        float(r)
        for e in range(epochs)
        for r in schedule.for_epochs_of(steps).rates(e + np.arange(steps) / steps, epochs)
    ]


@pytest.mark.parametrize("length", [{"epochs": 1.25}, {"steps": 5}], ids=str)
def test_a_warmup_of_n_steps_rises_by_an_nth_a_step_and_then_leaves_the_rate_to_its_schedule(length: Any) -> None:
    rise = [0.2, 0.4, 0.6, 0.8, 1.0]
    assert of_steps(Warmup(0.5, **length), 4, 3) == pytest.approx([0.5 * k for k in rise] + [0.5] * 7)
    left = Cosine(0.5).rates(np.arange(7) / 4, 1.75)
    assert of_steps(Warmup(Cosine(0.5), **length), 4, 3) == pytest.approx([*(0.5 * k for k in rise), *left])
    fallen = StepDecay(0.5, 0.5, every=1).rates(np.arange(7) / 4, 2)
    assert of_steps(Warmup(StepDecay(0.5, 0.5, every=1), **length), 4, 3) == pytest.approx(
        [*(0.5 * k for k in rise), *fallen]
    )


def test_a_warmup_longer_than_the_training_rises_to_its_end() -> None:
    for schedule in (0.5, Cosine(0.5), OneCycle(12.5)):
        assert of_steps(Warmup(schedule, steps=8), 2, 2) == pytest.approx([0.5 * k / 8 for k in (1, 2, 3, 4)])
    assert of_steps(Warmup(0.5, epochs=0.001), 2, 2) == [0.5] * 4


def test_a_warmup_of_epochs_is_a_function_of_the_time_alone_too() -> None:
    assert rates(Warmup(0.5, epochs=2), 0, 1, 2, 5) == [0, 0.25, 0.5, 0.5]
    with pytest.raises(OptionError, match="for_epochs_of"):
        Warmup(0.5, steps=3).rates(np.zeros(1), 10)


def test_a_change_keeps_the_warmup_of_what_is_before_and_after_it() -> None:
    changed = Changed(Warmup(0.5, steps=4), 1, Warmup(0.25, steps=4))
    assert of_steps(changed, 2, 3) == pytest.approx([0.125, 0.25, 0.1875, 0.25, 0.25, 0.25])
    assert changed.given == 0.25


def test_the_rate_that_names_a_warmup_is_that_of_its_schedule() -> None:
    assert Warmup(0.25, epochs=1).given == Warmup(OneCycle(0.25), steps=3).given == Warmup(Cosine(0.25), epochs=1).given
    assert Warmup(0.25, epochs=1).given == 0.25


def test_a_training_warms_up_within_and_across_epochs_and_records_its_rates() -> None:
    x = np.random.default_rng(0).normal(size=(40, 3))
    for schedule in (Warmup(Cosine(0.5, 0.1), steps=6), Warmup(Cosine(0.5, 0.1), epochs=1.5)):
        model = gn.Sequential([gn.Dense(2)])
        history = model.fit(
            gn.Data.from_arrays(x, x[:, :2], validation=0), optimizer=gn.SGD(schedule), epochs=3, batch_size=10,
            validate_every=1, device="cpu", progress=False,
        )  # fmt: skip
        expected = [0.5 * k / 6 for k in range(1, 7)] + list(Cosine(0.5, 0.1).rates(np.arange(6) / 4, 1.5))
        np.testing.assert_allclose([record.learning_rate for record in history], expected, rtol=1e-6)


@settings(deadline=None)
@given(st.floats(1e-6, 10), st.integers(1, 50), st.integers(1, 40))
def test_rates_are_positive_and_never_above_the_highest(rate: float, epochs: int, steps: int) -> None:
    begun = np.arange(epochs * steps) / steps
    for schedule in (Constant(rate), StepDecay(rate, 0.5, 2), Cosine(rate), OneCycle(rate)):
        table = schedule.rates(begun, epochs)
        assert table.shape == begun.shape
        assert np.isfinite(table).all()
        assert table.min() > 0
        assert table.max() <= rate * (1 + 1e-12)


def test_a_rate_depends_on_the_time_only_and_not_on_the_steps_around_it() -> None:
    for schedule in (StepDecay(0.8, 0.5, 3), Cosine(1.0, 0.1), OneCycle(1.0)):
        whole = schedule.rates(np.arange(40) / 4, 10)
        np.testing.assert_array_equal(schedule.rates(np.arange(20, 24) / 4, 10), whole[20:24])


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "make",
    [
        *(lambda v=v: Constant(v) for v in (0, -0.1, NAN, INF)),
        *(lambda v=v: StepDecay(v) for v in (0, NAN)),
        *(lambda v=v: StepDecay(0.1, factor=v) for v in (0, -1, NAN)),
        *(lambda v=v: StepDecay(0.1, every=v) for v in (0, -1, NAN)),
        *(lambda v=v: Cosine(v) for v in (0, INF)),
        *(lambda v=v: Cosine(0.1, final=v) for v in (-0.1, NAN, INF)),
        *(lambda v=v: OneCycle(v) for v in (0, NAN)),
        *(lambda v=v: OneCycle(1, rise=v) for v in (0, 1, -0.5, NAN)),
        *(lambda v=v: OneCycle(1, start=v) for v in (0, NAN)),
        *(lambda v=v: OneCycle(1, end=v) for v in (0, -3)),
        *(lambda v=v: Warmup(v, epochs=1) for v in (0, -1, NAN, "0.1", None, Warmup(0.1, epochs=1), Changed(1, 1, 1))),
        *(lambda v=v: Warmup(0.1, epochs=v) for v in (0, -1, NAN, INF)),
        *(lambda v=v: Warmup(0.1, steps=v) for v in (0, -1, 0.5, NAN)),
        lambda: Warmup(0.1),
        lambda: Warmup(0.1, epochs=1, steps=1),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(make: Any) -> None:
    with pytest.raises(OptionError) as caught:
        make()
    assert "got" in one_line(caught.value)
