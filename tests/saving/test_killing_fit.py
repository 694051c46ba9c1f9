"""`fit` with a `Checkpointer` that is killed by SIGKILL at 20 points goes on, from Python, to the same bits."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import gpunn as gn
from gpunn.saving.checkpointer import list_checkpoints
from saving.test_resuming_fit import Counter, CutOff, adam, fit

# So many steps after the newest checkpoint; or at a call of fsync, within the writing of one: of its files, of its
# folder, after its name was given, and before or after older ones are removed.
POINTS = [("step", 1)] + [("fsync", number) for number in range(1, 13)] + [("step", 1), ("step", 3), ("fsync", 7)]
POINTS += [("fsync", 16), ("step", 1), ("fsync", 2), ("step", 2)]
SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from saving.test_killing_fit import kill_at_all_points
kill_at_all_points()
"""


def kill_at_all_points() -> None:
    """Fork a process for each point, which is killed there; each begins with the checkpoints of those before alone."""
    for kind, number in POINTS:
        if child := os.fork():
            _, status = os.waitpid(child, 0)
            assert os.WIFSIGNALED(status), (kind, number, status)
            assert os.WTERMSIG(status) == signal.SIGKILL, (kind, number, status)
        else:
            train_until(kind, number)
            os._exit(0)


def train_until(kind: str, number: int) -> None:
    """Train until the process kills itself."""
    after, calls, fsync = list_checkpoints(Path("run/checkpoints")), 0, os.fsync

    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def count(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            kill()
        fsync(descriptor)

    if kind == "fsync":
        os.fsync = count
    step = after[0][0] + number if after and kind == "step" else number if kind == "step" else 1000
    fit(adam, gn.Checkpointer("run", every=1, resume=True), Counter(), CutOff(step, kill))


def test_fit_killed_at_20_points_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    whole, counter = Counter(), Counter()
    result = fit(adam, whole)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(Path(__file__).parents[1])], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(POINTS) == 20
    assert 4 < list_checkpoints(Path("run/checkpoints"))[0][0] < 23  # neither at the beginning nor at the end
    assert fit(adam, gn.Checkpointer("run", resume=True), counter) == result
    assert counter.seen == whole.seen
