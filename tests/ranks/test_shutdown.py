"""A rank that fails, leaves or hangs ends all: within seconds, without a process left, and one line names it."""

import socket
import sys
from pathlib import Path

import pytest
from support.cli_helpers import Done
from support.ranks import gpunn, job

STEPS = """
import os, signal, sys, threading, time
import numpy as np
from gpunn.backend.ranks import world

ranks, how = world(), sys.argv[1]


def cannot_write():
    raise OSError(28, "No space left on device", "run/model")


class Theirs(Exception):
    def __init__(self, one, two):
        super().__init__(one + two)


def of_theirs():
    raise Theirs("their", "own")


for step in range(8):
    ranks.all_reduce(np.ones(10))
    if step == 4 and ranks.rank == 1:
        if how == "raises":
            raise RuntimeError("made to fail")
        if how == "hangs":
            time.sleep(600)
        if how == "is killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "fails in a thread":
            threading.Thread(target=lambda: 1 / 0).start()
            time.sleep(600)
    if step == 5 and how == "all":
        raise ValueError("of all")
    if step == 5 and how == "first":
        ranks.of_first(cannot_write)
    if step == 5 and how == "theirs":
        ranks.of_first(of_theirs)
    if step == 5 and how == "each another":
        raise ValueError(f"of rank {ranks.rank}")
print(ranks.of_first(lambda: ranks.rank + 7), ranks.after_first(lambda: ranks.rank), flush=True)
if how == "waits" and ranks.is_first:
    time.sleep(6)
"""


def done(folder: Path, how: str, seconds: float = 60, **variables: str) -> Done:
    """Do the steps above in two processes, none of which may be left a little later."""
    with job(2, sys.executable, "-c", STEPS, how, folder=folder, GPUNN_RANK_TIMEOUT="4", **variables) as started:
        ended = started.done(seconds)
        started.wait_until_all_have_ended(5)
    return ended


def lines_of(ended: Done) -> list[str]:
    return [line for line in ended.err.splitlines() if line.startswith("gpunn: ")]


@pytest.mark.parametrize(
    ("how", "who", "what"),
    [
        ("raises", 1, "RuntimeError: made to fail"),
        ("hangs", 0, "has waited 4 s for the other ranks, in a sum over all ranks"),
        ("fails in a thread", 1, "ZeroDivisionError: division by zero"),
    ],
)
def test_one_rank_ends_all_with_one_line_that_names_it(tmp_path: Path, how: str, who: int, what: str) -> None:
    ended = done(tmp_path, how)
    assert ended.code == 1
    assert lines_of(ended) == [f"gpunn: rank {who} of 2 on {socket.gethostname()}: {what}; all ranks end"]


def test_a_rank_that_is_killed_ends_all(tmp_path: Path) -> None:
    assert done(tmp_path, "is killed").code != 0


@pytest.mark.parametrize(
    ("how", "last"),
    [
        ("all", "ValueError: of all"),
        ("first", "OSError: [Errno 28] No space left on device: 'run/model'"),
        ("theirs", "gpunn.errors.GpunnError: Theirs: theirown"),
    ],
)
def test_an_error_of_all_is_told_once_as_python_tells_it(tmp_path: Path, how: str, last: str) -> None:
    ended = done(tmp_path, how)
    assert ended.code == 1
    assert ended.err.count("Traceback") == 1
    assert ended.err.splitlines()[-1] == last
    assert not lines_of(ended)


def test_ranks_with_an_error_each_tell_each_theirs(tmp_path: Path) -> None:
    ended = done(tmp_path, "each another")
    assert ended.code == 1
    assert all(f"ValueError: of rank {rank}" in ended.err for rank in range(2))


@pytest.mark.parametrize("how", ["nothing", "waits"])
def test_ranks_that_are_done_wait_for_each_other_as_long_as_it_takes(tmp_path: Path, how: str) -> None:
    ended = done(tmp_path, how)
    assert (ended.code, ended.err) == (0, "")
    assert sorted(ended.out.splitlines()) == ["7 0", "7 1"]


@pytest.mark.parametrize("given", ["soon", "0", "-1", "inf"])
def test_a_patience_that_cannot_be_is_refused_in_one_line(tmp_path: Path, given: str) -> None:
    ended = gpunn(2, "train", "digits", folder=tmp_path, GPUNN_RANK_TIMEOUT=given)
    assert ended.code in (1, 2)
    said = f"gpunn: GPUNN_RANK_TIMEOUT is a number of seconds above 0, such as 600, got '{given}'"
    assert ended.err.splitlines() == [said]
    assert not list(tmp_path.iterdir())
