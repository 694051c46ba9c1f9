"""Runs that are killed by SIGKILL: a few of the 200 that support/killing.py does."""

import signal
from pathlib import Path

import pytest
from support.cli_helpers import own_folder
from support.killing import kill_runs

folder = pytest.fixture(autouse=True)(own_folder)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_runs_that_are_killed_leave_a_whole_checkpoint_and_go_on_to_the_same_bytes(
    folder: Path, sent: signal.Signals
) -> None:
    moments = kill_runs(folder, kills=3, seed=1, epochs=2, sent=sent, say=lambda _: None)
    assert moments.total() == 3
