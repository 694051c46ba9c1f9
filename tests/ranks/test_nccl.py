"""Simulated GPUs of several ranks, through CuPy's own binding of NCCL: sums, graphs, and what goes wrong."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
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


def test_each_rank_of_a_machine_takes_a_gpu_of_its_own_and_all_take_one_or_none(tmp_path: Path) -> None:
    devices = [each["device"] for each in said(tmp_path, "say(device=select('auto').device)")]
    assert devices == ["cuda:0", "cuda:1"]
    assert devices == [each["device"] for each in said(tmp_path, "say(device=select('cuda').device)")]
    errors = {each["error"] for each in said(tmp_path, "device = ('cpu', 'cuda')[ranks.rank]" + CONNECT)}
    mend = "take --device cpu, or give every rank a GPU that gpunn doctor finds no fault with"
    assert errors == {f"ranks train on GPUs together, or all on CPUs, and here those on CPUs are 0: {mend}"}


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
backend = select("cuda")
backend.connect()
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


TRAINING = """
import hashlib
import gpunn as gn
from gpunn.backend.cuda import CupyBackend
from gpunn.train.arguments import TrainOptions
from gpunn.train.trainer import Trainer
from simulated_cuda.core import core

rng = np.random.default_rng(0)
kinds, labels = rng.integers(0, 256, (10, 28, 28, 1)), rng.integers(0, 10, 150)
images = (0.6 * kinds[labels] + 0.4 * rng.integers(0, 256, (150, 28, 28, 1))).astype(np.uint8)
data = gn.Data.from_arrays(images, labels, validation=22)  # 128 samples: the last of 6 batches of 25 has 3

def trained(layers, optimizer, steps=20, **options):
    model = gn.Sequential(layers)
    options = {"batch_size": 25, "device": "auto", "seed": 3, "progress": False, **options}
    trainer = Trainer(model, TrainOptions(optimizer=optimizer, epochs=20, **options), data)
    while trainer.done < steps:
        count = min(4, steps - trainer.done, trainer.steps_per_epoch - trainer.done % trainer.steps_per_epoch)
        trainer.do_steps(count)
    return model, trainer

def bits(model):
    values = model.parameters.to_host()
    return hashlib.sha256(b"".join(values[name].tobytes() for name in sorted(values))).hexdigest()
"""


GRAPHS = """
def network(**options):
    return trained([gn.Dense(128), gn.ReLU(), gn.Dense(10)], gn.SGD(0.1, momentum=0.9), dtype="float32", **options)

graph, with_graph = network()
eager, _ = network(capture=False)
found = {"graph": bits(graph), "eager": bits(eager), "trouble": with_graph.step.trouble}
cuda = core()
backend = graph.backend
with_graph.step.start_epoch(np.arange(64), np.full(6, 0.1))
backend.synchronize()
cuda.reset()
with_graph.step(25)
backend.synchronize()
counts = {name: cuda.count(name) for name in ("cudaGraphLaunch", "kernel ncclAllReduce", "kernel ncclAllGather")}
say(**found, counts=counts, launches=cuda.launches)
"""


@pytest.mark.parametrize("order", [AT_ONCE, LATE, 11], ids=["at once", "late", "in a random order"])
def test_a_step_by_graph_has_the_bits_of_one_kernel_by_kernel_and_one_sum_over_the_ranks(
    tmp_path: Path, order: int
) -> None:
    first, second = said(tmp_path, TRAINING + GRAPHS, order=order)
    assert first["graph"] == first["eager"] == second["graph"] == second["eager"]
    for each in (first, second):
        assert each["trouble"] == ""
        # Gather, product, bias with ReLU, product, loss; two products, gradient of ReLU, product; the sum; update.
        assert each["launches"] == 11
        assert each["counts"] == {"cudaGraphLaunch": 1, "kernel ncclAllReduce": 1, "kernel ncclAllGather": 0}


REFUSED_ON_ONE = """
record, tries = CupyBackend._recorded, []

def refusing(self, work):
    tries.append(1)
    if ranks.rank == 1 and len(tries) == which:
        raise CaptureError("no memory for a graph")
    return record(self, work)

CupyBackend._recorded = refusing
layers = lambda: [gn.Dense(16), gn.ReLU(), gn.Dense(10)]
model, trainer = trained(layers(), gn.SGD(0.1), steps=34, batch_size=8)
CupyBackend._recorded = record
eager, _ = trained(layers(), gn.SGD(0.1), steps=34, batch_size=8, capture=False)
say(model=bits(model), eager=bits(eager), trouble=trainer.step.trouble, is_recorded=trainer.step.is_recorded)
"""


def test_a_capture_that_one_rank_is_refused_lets_all_train_kernel_by_kernel(tmp_path: Path) -> None:
    first, second = said(tmp_path, TRAINING + "which = 1\n" + REFUSED_ON_ONE)
    assert first["model"] == first["eager"] == second["model"] == second["eager"]
    assert not first["is_recorded"]
    assert not second["is_recorded"]
    how = "training kernel by kernel, not by graph"
    assert first["trouble"] == f"{how}: another rank could not record its steps"
    assert second["trouble"] == f"{how}: no memory for a graph"


SHARES = """
layers = [gn.Flatten(), gn.Dense(24), gn.BatchNorm(), gn.ReLU(), gn.Dropout(0.4), gn.Dense(10)]
model, _ = trained(layers, gn.SGD(0.05, momentum=0.9), dtype="float64", regularizer=gn.L2(0.5))
np.savez(f"{ranks.rank} of {ranks.size}.npz", **model.parameters.to_host())
say()
"""


def test_two_gpus_train_as_one_with_batchnorm_and_dropout(tmp_path: Path) -> None:
    for count in (1, 2):
        said(tmp_path, TRAINING + SHARES, count=count)
    alone, first, second = (np.load(tmp_path / f"{name}.npz") for name in ("0 of 1", "0 of 2", "1 of 2"))
    for name in alone.files:
        np.testing.assert_array_equal(first[name], second[name])
        np.testing.assert_allclose(first[name], alone[name], rtol=0, atol=1e-11)


STREAMED = """
import gpunn.data.loader as loader

loader.PIECE = (3 if ranks.rank else 5) * 8 * 784  # so many of its batches of 8 samples have room in a piece
def network(**options):
    return trained([gn.Dense(12), gn.ReLU(), gn.Dense(10)], gn.SGD(0.1), steps=32, batch_size=16, **options)

streamed, trainer = network(data_on="host")
say(streamed=bits(streamed), placed=bits(network()[0]), trouble=trainer.step.trouble, placement=trainer.placement)
"""


def test_ranks_that_stream_pieces_of_other_sizes_replay_the_same_graphs(tmp_path: Path) -> None:
    first, second = said(tmp_path, TRAINING + STREAMED)
    assert first["streamed"] == first["placed"] == second["streamed"] == second["placed"]
    for each in (first, second):
        assert each["trouble"] == ""
        assert "streamed from memory" in each["placement"]


REFUSED_REPLAY = """
try:
    trained([gn.Dense(12), gn.ReLU(), gn.Dense(10)], gn.SGD(0.1))
    say(error="")
except DeviceError as error:
    say(error=str(error))
"""


def test_a_replay_that_is_refused_ends_a_training_of_several_ranks(tmp_path: Path) -> None:
    for each in said(tmp_path, TRAINING + REFUSED_REPLAY, fail="cudaGraphLaunch:3:2"):
        assert each["error"].startswith("CUDA refused this rank a graph (")
        assert each["error"].endswith(": start again, and go on with gpunn train --resume RUN")
