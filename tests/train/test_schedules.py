"""Learning rates as they are over a training."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.harness import one_line

from gpunn import Constant, Cosine, OneCycle, StepDecay
from gpunn.errors import OptionError
from gpunn.train.schedules import Schedule


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
    ],
)
def test_a_schedule_that_cannot_be_is_refused(make: Any) -> None:
    with pytest.raises(OptionError) as caught:
        make()
    assert "got" in one_line(caught.value)
