"""Going on: a training that was stopped after any step ends in the very bits of one that never was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoint_helpers import ORIGIN, adam, momentum, outcome, stopped_after

from gpunn.checkpoint import open_checkpoint, write_checkpoint
from gpunn.training import Trainer

STEPS = 24
CUTS = [0, 1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 13, 15, 16, 17, 18, 19, 20, 22, 23, 24]


@pytest.fixture(
    scope="module", params=[momentum, adam], ids=["Dropout, BatchNorm, momentum", "Adam, augmentation, schedule"]
)
def make(request: pytest.FixtureRequest) -> Callable[..., Trainer]:
    return request.param


@pytest.fixture(scope="module")
def undisturbed(make: Callable[..., Trainer]) -> object:
    training = make()
    training.run()
    assert training.done == STEPS
    return outcome(training)


@pytest.mark.parametrize("cut", CUTS)
def test_a_training_that_goes_on_from_a_checkpoint_ends_in_the_same_bits(
    make: Callable[..., Trainer], undisturbed: object, cut: int, tmp_path: Path
) -> None:
    first = make()
    write_checkpoint(tmp_path / "step", stopped_after(first, cut), ORIGIN, first.model)
    second = make()
    second.restore(open_checkpoint(tmp_path / "step").state(second.state()))
    assert second.done == cut
    second.run()
    assert outcome(second) == undisturbed
