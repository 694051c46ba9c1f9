"""What the ranks of a training say to each other, and that a job leaves no process behind."""

import json
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from support.ranks import job, living

SAY = """
import json
import numpy as np
from gpunn.backend.ranks import world

ranks = world()
numbers = np.arange(3.0) + ranks.rank
ranks.all_reduce(numbers)
said = {
    "rank": ranks.rank, "size": ranks.size, "local": [ranks.local_rank, ranks.local_size], "first": ranks.is_first,
    "all_reduce": numbers.tolist(), "all_gather": ranks.all_gather(np.array([ranks.rank, 7])).tolist(),
    "broadcast": ranks.broadcast({"from": ranks.rank}), "any": [ranks.any(ranks.rank == 1), ranks.any(False)],
    "share": ranks.share(10),
}
print(json.dumps(said) + "\\n", end="", flush=True)
"""


@pytest.mark.parametrize("count", [2, 3])
def test_all_ranks_have_the_same_sums_and_each_its_share(tmp_path: Path, count: int) -> None:
    with job(count, sys.executable, "-c", SAY, folder=tmp_path) as started:
        done = started.done()
        started.wait_until_all_have_ended(5)
    assert (done.code, done.err) == (0, "")
    said = sorted((json.loads(line) for line in done.out.splitlines()), key=lambda each: each["rank"])
    assert [each["rank"] for each in said] == list(range(count))
    more = sum(range(count))
    for rank, each in enumerate(said):
        assert (each["size"], each["local"], each["first"]) == (count, [rank, count], rank == 0)
        assert each["all_reduce"] == [count * number + more for number in range(3)]
        assert each["all_gather"] == [[other, 7] for other in range(count)]
        assert (each["broadcast"], each["any"]) == ({"from": 0}, [True, False])
    shares = [each["share"] for each in said]
    assert [shares[0][0], shares[-1][1]] == [0, 10]
    assert all(end == first for (_, end), (first, _) in pairwise(shares))


def test_a_job_of_the_tests_ends_with_its_block(tmp_path: Path) -> None:
    with job(2, sys.executable, "-c", "import time; print(flush=True); time.sleep(600)", folder=tmp_path) as started:
        until = time.monotonic() + 30
        while len(started.ranks()) < 2:
            assert time.monotonic() < until
            time.sleep(0.05)
        assert sorted(started.ranks()) == [0, 1]
    until = time.monotonic() + 5
    while living(started.mark):
        assert time.monotonic() < until
        time.sleep(0.05)


PART = """
import numpy as np
from gpunn.backend.ranks import world

ranks = world()
ranks.all_reduce(np.zeros(3))
try:
    ranks.all_reduce(np.zeros(2)) if ranks.rank == 1 else ranks.all_gather(np.zeros(4))
except Exception as error:
    print(f"{type(error).__name__}: {error}\\n", end="", flush=True)
"""


def test_ranks_that_part_are_told_so_where_they_are_asked_to_compare(tmp_path: Path) -> None:
    with job(3, sys.executable, "-c", PART, folder=tmp_path, GPUNN_DEBUG="1") as started:
        done = started.done()
    where = "at exchange 2 rank 0 is at a gather, 32 bytes, rank 1 at a sum, 16 bytes"
    assert done.out.splitlines() == [f"GpunnError: the ranks have diverged: {where}"] * 3
