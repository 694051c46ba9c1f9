"""Simulated GPUs of several ranks, through CuPy's own binding of NCCL: sums, graphs, and what goes wrong."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from simulated_cuda.core import AT_ONCE, LATE
from simulated_cuda.processes import environment
from support.ranks import job

pytestmark = pytest.mark.simulated_cuda

BEGIN = """
import json
import numpy as np
from gpunn.backend.devices import select
from gpunn.backend.ranks import world
from gpunn.errors import CaptureError, DeviceError

ranks = world()

def say(**what):
    print(json.dumps({"rank": ranks.rank, **what}) + "\\n", end="", flush=True)
"""


def said(folder: Path, code: str, count: int = 2, **switches: Any) -> list[dict[str, Any]]:
    """Run a program on a simulated GPU a rank, and return what each rank says, by its number."""
    variables = environment(devices=count, **switches)
    with job(count, sys.executable, "-c", BEGIN + code, folder=folder, **variables) as started:
        done = started.done(240)
        started.wait_until_all_have_ended(5)
    assert (done.code, done.err) == (0, "")
    lines = sorted((json.loads(line) for line in done.out.splitlines()), key=lambda each: each["rank"])
    assert [each["rank"] for each in lines] == list(range(count))
    return lines


COLLECTIVES = """
backend = select(f"cuda:{ranks.rank}")
backend.connect()
sums = {}
for dtype, size in (("float32", 7), ("float64", 300_001), ("int32", 1)):  # of one piece, of several, and a flag
    of_rank = [(np.arange(size) % 13 + 10 * rank).astype(dtype) for rank in range(ranks.size)]
    x = backend.asarray(of_rank[ranks.rank])
    backend.all_reduce(x)
    sums[dtype] = bool((backend.to_host(x) == sum(of_rank)).all())
x = backend.asarray(np.array([1, 2], np.float32) + ranks.rank)
every = backend.zeros((ranks.size, 2), np.float32)

def work():
    backend.all_reduce(x)
    backend.all_gather(x, every)

replay = backend.capture(work)
recorded = backend.to_host(x).tolist()
replay()
once = backend.to_host(x).tolist()
replay()
say(sums=sums, recorded=recorded, once=once, twice=backend.to_host(every).tolist())
"""


@pytest.mark.parametrize("order", [AT_ONCE, LATE, 7], ids=["at once", "late", "in a random order"])
def test_devices_have_the_sums_of_all_ranks_eagerly_and_by_graphs(tmp_path: Path, order: int) -> None:
    for rank, each in enumerate(said(tmp_path, COLLECTIVES, order=order)):
        assert each["sums"] == {"float32": True, "float64": True, "int32": True}
        assert each["recorded"] == [1 + rank, 2 + rank]  # not done by the capture
        assert each["once"] == [3, 5]
        assert each["twice"] == [[6, 10], [6, 10]]


CONNECT = """
try:
    select(device).connect()
    say(error="")
except DeviceError as error:
    say(error=str(error))
"""


def test_two_ranks_on_one_gpu_are_refused_in_one_line(tmp_path: Path) -> None:
    errors = {each["error"] for each in said(tmp_path, "device = 'cuda:0'" + CONNECT)}
    mend = "start no more ranks on a machine than it has GPUs, and name no device"
    assert errors == {f"ranks 0, 1 share a GPU, and NCCL wants one for each: {mend}"}


def test_a_missing_nccl_is_told_by_all_ranks_with_the_mend(tmp_path: Path) -> None:
    missing = "from cupy.cuda import nccl\nnccl.available = ranks.rank == 0\ndevice = f'cuda:{ranks.rank}'"
    first, second = said(tmp_path, missing + CONNECT)
    assert first["error"].startswith("several ranks on GPUs need NCCL, which another rank cannot load: ")
    assert second["error"].startswith("several ranks on GPUs need NCCL, which this rank cannot load: ")
    assert "pip install -e" in second["error"]
    assert "[nccl13]" in second["error"]


def test_without_its_library_nccl_is_missing(tmp_path: Path) -> None:
    for each in said(tmp_path, "device = f'cuda:{ranks.rank}'" + CONNECT, nccl=0):
        assert "need NCCL, which this rank cannot load" in each["error"]


FAILING = """
backend = select(f"cuda:{ranks.rank}")
backend.connect()
x = backend.zeros((2,), np.float32)
backend.all_reduce(x)
try:
    backend.to_host(x)
    say(error="")
except DeviceError as error:
    say(error=str(error))
"""


def test_what_fails_in_nccl_while_the_device_works_is_seen_at_the_next_look(tmp_path: Path) -> None:
    for each in said(tmp_path, FAILING, fail="ncclCommGetAsyncError:1:6:on"):
        assert each["error"].startswith("another rank ended, or cannot be reached any more (NCCL error 6, ")
        assert "gpunn train --resume RUN" in each["error"]


REFUSED = """
backend = select(f"cuda:{ranks.rank}")
x = backend.asarray(np.ones(2, np.float32))

def work():
    backend.all_reduce(x)
    if ranks.rank == 1:
        backend.to_host(x)  # which a capture cannot hold

backend.all_reduce(x)
try:
    backend.capture(work)
    error = ""
except CaptureError as refused:
    error = str(refused)
backend.all_reduce(x)
say(error=error, sums=backend.to_host(x).tolist())
"""


def test_a_graph_that_one_rank_cannot_record_none_has(tmp_path: Path) -> None:
    first, second = said(tmp_path, REFUSED)
    assert first["error"] == "another rank could not record its steps"
    assert "the current stream is capturing" in second["error"]
    assert first["sums"] == second["sums"] == [4, 4]
