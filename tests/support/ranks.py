"""Start processes by mpiexec as a user does, and see that each of them has ended."""

import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from support.cli_helpers import Done
from support.paths import ROOT

MARK = "GPUNN_TEST_JOB"
"""The variable by which the processes of a job are known, whatever their parents and groups."""
SECONDS = 120.0
"""Patience with a job that must end by itself; a machine with other work is slow."""


def launcher() -> str:
    """Return the mpiexec beside this Python, which pip's wheels of MPI bring, or that of the system."""
    beside = Path(sys.executable).with_name("mpiexec")
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if found is None:
        pytest.skip("no mpiexec: pip install '.[mpich]'")
    return found


def living(mark: str) -> list[int]:
    """Return the numbers of the processes of a job that have not ended."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


class Job:
    """Processes that one mpiexec has started.

    Attributes:
        process: The mpiexec itself.
    """

    def __init__(self, count: int, arguments: Sequence[object], folder: Path, variables: dict[str, str]) -> None:
        self.mark = uuid.uuid4().hex
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PMI", "MPI", "HYDRA"))}
        kept.pop("PYTHONUNBUFFERED", None)  # by which the parts of a line that is printed may stand between others
        kept |= {"OPENBLAS_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "-1", "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [launcher(), "-n", str(count), *map(str, arguments)],
            cwd=folder, env=kept | variables | {MARK: self.mark}, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def done(self, seconds: float = SECONDS) -> Done:
        """Return how the job ended, and what all its processes said."""
        out, err = self.process.communicate(timeout=seconds)
        return Done(self.process.returncode, out, err)

    def ranks(self) -> dict[int, int]:
        """Return the process of each rank, as MPICH and Open MPI number them."""
        found = {}
        for process in living(self.mark):
            with suppress(OSError):
                variables = dict(
                    line.partition("=")[::2]
                    for line in Path(f"/proc/{process}/environ").read_text(errors="replace").split("\0")
                )
                if rank := variables.get("PMI_RANK", variables.get("OMPI_COMM_WORLD_RANK")):
                    found[int(rank)] = process
        return found

    def wait_until_all_have_ended(self, seconds: float) -> None:
        """Fail where a process of the job lives so many seconds from now."""
        until = time.monotonic() + seconds
        while left := living(self.mark):
            assert time.monotonic() < until, f"processes {left} live {seconds:.0f} s later"
            time.sleep(0.05)

    def end(self) -> None:
        """Kill whatever has not ended."""
        for process in living(self.mark):
            with suppress(ProcessLookupError):
                os.kill(process, 9)
        with self.process:
            self.process.communicate()


@contextmanager
def job(count: int, *arguments: object, folder: Path, **variables: str) -> Iterator[Job]:
    """Give a job of so many processes, which ends with the block."""
    pytest.importorskip("mpi4py", reason="no mpi4py: pip install '.[mpich]'")
    made = Job(count, arguments, folder, variables)
    try:
        yield made
    finally:
        made.end()


def program(*arguments: object) -> list[Any]:
    """Return the command line of gpunn."""
    return [sys.executable, "-m", "gpunn", *arguments]


def gpunn(count: int, *arguments: object, folder: Path, **variables: str) -> Done:
    """Run gpunn in so many processes, all of which must then have ended, and return how that went."""
    with job(count, *program(*arguments), folder=folder, **variables) as started:
        done = started.done()
        started.wait_until_all_have_ended(5)
    return done
