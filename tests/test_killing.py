"""Runs that are killed by SIGKILL: a few of the 200 that python tests/killing.py does."""

from pathlib import Path

import pytest
from cli_helpers import own_folder
from killing import kill_runs

folder = pytest.fixture(autouse=True)(own_folder)


def test_killed_runs_leave_a_whole_checkpoint_and_go_on_to_the_same_bytes(folder: Path) -> None:
    moments = kill_runs(folder, kills=4, seed=1, epochs=2, say=lambda _: None)
    assert moments.total() == 4
