"""MPI through mpi4py, which is imported only in a process that a launcher of MPI has started."""

import math
import os
import sys
import time
import warnings
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

from gpunn.errors import GpunnError

# Rank and number of the processes, as Open MPI's launcher says them, and those of MPICH and Intel MPI. What SLURM says
# counts only where PMIx, which tells a rank and no number, has started the process: SLURM says it in every script.
_PLACES = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("PMIX_RANK", "SLURM_STEP_NUM_TASKS"),
    ("PMIX_RANK", "SLURM_NTASKS"),
)
VARIABLE = "GPUNN_RANK_TIMEOUT"
_USUAL = 600.0  # seconds that a process waits for the others in one call: some may compile kernels meanwhile
_MEND = 'pip install "gpunn[mpich]", or start gpunn without mpiexec'
_WAIT = 2.0  # seconds that others leave to the first process to say what is wrong: its end may be theirs


def rank_and_size() -> tuple[int, int]:
    """Return rank and number of the processes that a launcher of MPI has started; 0 where it says no number."""
    for rank, size in _PLACES:
        if _number(rank) is not None and _number(size):
            return _number(rank) or 0, _number(size) or 0
    return (0, 1) if _number("PMIX_RANK") is None else (_number("PMIX_RANK") or 0, 0)


def timeout() -> float:
    """Return how many seconds a process waits for the others before it ends them all; `GPUNN_RANK_TIMEOUT` sets it."""
    given = os.environ.get(VARIABLE, "")
    with suppress(ValueError):
        if 0 < (seconds := float(given or _USUAL)) < math.inf:
            return seconds
    raise _refusal(rank_and_size()[0], f"{VARIABLE} is a number of seconds above 0, such as 600, got {given!r:.40}")


def _number(name: str) -> int | None:
    value = os.environ.get(name, "")
    return int(value) if value.isascii() and value.isdecimal() else None


def communicator() -> Any:
    """Return the communicator of all processes, or None where this one was started alone.

    Raises:
        GpunnError: Several were started that cannot find each other; the first process says so for all, which end.
    """
    rank, size = rank_and_size()
    if size == 1:
        return None
    many = f"{size or 'several'} processes were started"
    try:
        import mpi4py

        if "mpi4py.MPI" not in sys.modules:  # else it may have begun, and what follows is not heard
            mpi4py.rc.initialize, mpi4py.rc.finalize = False, True
        with warnings.catch_warnings():  # of an environment that is another MPI's, which is told below
            warnings.simplefilter("ignore", RuntimeWarning)
            from mpi4py import MPI
    except ImportError:
        raise _refusal(rank, f"{many}, and there is no mpi4py by which they would train together: {_MEND}") from None
    except RuntimeError as error:
        why = str(error).partition("\n")[0]
        raise _refusal(
            rank, f"{many}, and mpi4py has no MPI by which they would train together ({why}): {_MEND}"
        ) from None
    name, version = MPI.get_vendor()
    found, comm = 1, MPI.COMM_WORLD
    if not _is_foreign(name):
        if not MPI.Is_initialized():
            MPI.Init_thread(MPI.THREAD_MULTIPLE)
        found = comm.Get_size()
    if found != size and size:
        known = f"mpi4py has {name} {'.'.join(map(str, version))} here"
        mend = f"start them by {_launcher(name)} -n {size}"
        raise _refusal(rank, f"{many} by the mpiexec of another MPI, and {known}, by which each is alone: {mend}")
    return None if found == 1 else comm


def _is_foreign(vendor: str) -> bool:
    """Whether the launcher is seen to be another MPI's, with which this one would be alone, or end the process."""
    if "OMPI_COMM_WORLD_SIZE" in os.environ:
        return vendor in ("MPICH", "Intel MPI")
    return vendor == "Open MPI" and "PMI_SIZE" in os.environ and "SLURM_JOB_ID" not in os.environ


def _launcher(vendor: str) -> str:
    """Return the mpiexec that belongs to the MPI in use."""
    beside = Path(sys.executable).with_name("mpiexec")
    return str(beside) if beside.exists() else f"the mpiexec of {vendor},"


def _refusal(rank: int, line: str) -> BaseException:
    """Return what a process raises that cannot train with the others: the first says why, the others wait for it."""
    if rank:
        time.sleep(_WAIT)
        return SystemExit(1)
    return GpunnError(line)


def description() -> str:
    """Return the MPI in use in words; for a process that `communicator` has found to be one of several."""
    import mpi4py
    from mpi4py import MPI

    name, version = MPI.get_vendor()
    return f"{name} {'.'.join(map(str, version))}, mpi4py {mpi4py.__version__}"


def of_machine(comm: Any) -> Any:
    """Return the communicator of the processes of this machine."""
    from mpi4py import MPI

    return comm.Split_type(MPI.COMM_TYPE_SHARED)


def cores_of(machine: Any, own: set[int], of_all: float) -> float:
    """Return how many cores this process has where all of the machine share what each of them may use.

    Args:
        machine: Communicator of the processes of the machine.
        own: Cores that this process may run on; its launcher may have bound it to some.
        of_all: Number of cores that all of them may use at a time, such as by a limit of their container.
    """
    every: list[set[int]] = machine.allgather(own)
    ranks: int = machine.Get_size()
    share = sum(Fraction(1, sum(core in others for others in every)) for core in own)
    return min(float(share), of_all / ranks)


def can_be_sent(value: object) -> bool:
    """Whether other processes get a value as it is, and not only its text."""
    from mpi4py import MPI

    try:
        return type(MPI.pickle.loads(MPI.pickle.dumps(value))) is type(value)
    except Exception:  # noqa: BLE001 - classes of others may raise anything
        return False


def in_place() -> Any:
    """Return what stands for the array that is sent and received."""
    from mpi4py import MPI

    return MPI.IN_PLACE
