"""Several processes that cannot train together say so in one line, with the mend, and leave nothing behind."""

import json
import os
import sys
from pathlib import Path

import pytest
from support.ranks import gpunn, job, program

THREADS = """
import json
import numpy as np
from threadpoolctl import threadpool_info
from gpunn.backend import blas
from gpunn.backend.ranks import world
from gpunn.kernels.cores import cores

world()
pools = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
print(json.dumps({"cores": cores(), "threads": blas.threads(), "pools": pools}) + "\\n", end="", flush=True)
"""


def threads(folder: Path, count: int, **variables: str) -> list[dict[str, object]]:
    with job(count, sys.executable, "-c", THREADS, folder=folder, **variables) as started:
        done = started.done()
    assert (done.code, done.err) == (0, "")
    return [json.loads(line) for line in done.out.splitlines()]


@pytest.mark.parametrize("count", [2, 3])
def test_the_threads_of_a_machine_are_shared_out_among_its_ranks(tmp_path: Path, count: int) -> None:
    share = max(1, len(os.sched_getaffinity(0)) // count)
    for each in threads(tmp_path, count, OPENBLAS_NUM_THREADS=""):
        assert each == {"cores": share, "threads": share, "pools": [share]}


def test_a_number_of_threads_that_the_user_has_set_stays(tmp_path: Path) -> None:
    for each in threads(tmp_path, 2, OPENBLAS_NUM_THREADS="2"):
        assert each["pools"] == [min(2, len(os.sched_getaffinity(0)))]


def test_without_mpi4py_several_processes_train_nothing(tmp_path: Path) -> None:
    (tmp_path / "without" / "mpi4py").mkdir(parents=True)
    (tmp_path / "without" / "mpi4py" / "__init__.py").write_text("raise ModuleNotFoundError('No module named mpi4py')")
    path = os.pathsep.join([str(tmp_path / "without"), str(Path(__file__).parents[2])])
    here = tmp_path / "here"
    here.mkdir()
    done = gpunn(3, "train", "digits", folder=here, PYTHONPATH=path)
    why = "3 processes were started, and they need mpi4py to train together"
    mend = 'pip install "gpunn[mpich]", or start gpunn without mpiexec'
    assert (done.code, done.err.splitlines()) == (1, [f"gpunn: {why}: {mend}"])
    assert not list(here.iterdir())
    assert gpunn(1, "--version", folder=here, PYTHONPATH=path).code == 0


def test_another_mpis_mpiexec_is_told_before_anything_is_written(tmp_path: Path) -> None:
    # What Open MPI's mpiexec sets, under which the MPICH of the wheel would end the process.
    started_by = ["env", "-u", "PMI_SIZE", "-u", "PMI_RANK", "OMPI_COMM_WORLD_SIZE=2", "OMPI_COMM_WORLD_RANK=0"]
    with job(1, *started_by, *program("train", "digits"), folder=tmp_path) as started:
        done = started.done()
    assert done.code == 1
    assert len(done.err.splitlines()) == 1
    assert done.err.startswith("gpunn: 2 processes were started by the mpiexec of another MPI")
    assert "-n 2" in done.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["predict", "run", "a.png"], ["recipes"], ["search", "--help"]])
def test_other_commands_are_refused_by_several_processes(tmp_path: Path, arguments: list[str]) -> None:
    done = gpunn(2, *arguments, folder=tmp_path)
    said = f"gpunn: gpunn {arguments[0]} is done by one process, got 2: start it without mpiexec"
    assert (done.code, done.out, done.err.splitlines()) == (2, "", [said])


def test_wrong_usage_is_told_once(tmp_path: Path) -> None:
    done = gpunn(2, "train", "--recipe", "nowhere", folder=tmp_path)
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    assert done.err.startswith("gpunn: unknown recipe 'nowhere'")
    done = gpunn(2, "--version", folder=tmp_path)
    assert (done.code, len(done.out.splitlines()), done.err) == (0, 1, "")
