"""Set up MPI through mpi4py, which is imported only in a process started by an MPI launcher."""

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

# Rank and number of processes in the variables of Open MPI, of MPICH and Intel MPI, and of PMIx, which has no number.
# SLURM's number counts only beside PMIx's rank: SLURM sets it in every script.
_RANK_VARIABLES = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("PMIX_RANK", "SLURM_STEP_NUM_TASKS"),
    ("PMIX_RANK", "SLURM_NTASKS"),
)
VARIABLE = "GPUNN_RANK_TIMEOUT"
_DEFAULT = 600.0  # seconds that a process waits for the others in one call; they may be compiling kernels
_MEND = 'pip install "gpunn[mpich]", or start gpunn without mpiexec'
_WAIT = 2.0  # seconds for the first process to report an error before the others exit, which may end it


def rank_and_size() -> tuple[int, int]:
    """Return the rank and the number of processes that an MPI launcher has started; the number is 0 if unknown."""
    for names in _RANK_VARIABLES:
        rank, size = map(_number, names)
        if rank is not None and size:
            return rank, size
    rank = _number("PMIX_RANK")
    return (0, 1) if rank is None else (rank, 0)


def timeout() -> float:
    """Return the seconds that a process waits for the others before it ends all; `GPUNN_RANK_TIMEOUT` sets them."""
    given = os.environ.get(VARIABLE, "")
    with suppress(ValueError):
        if 0 < (seconds := float(given or _DEFAULT)) < math.inf:
            return seconds
    raise _refusal(rank_and_size()[0], f"{VARIABLE} is a number of seconds above 0, such as 600, got {given!r:.40}")


def _number(name: str) -> int | None:
    value = os.environ.get(name, "")
    return int(value) if value.isascii() and value.isdecimal() else None


def communicator() -> Any:
    """Return the communicator of all processes, or None if this one was started alone.

    Raises:
        GpunnError: The processes cannot find each other; the first one reports it, and all end.
    """
    rank, size = rank_and_size()
    if size == 1:
        return None
    many = f"{size or 'several'} processes were started"
    try:
        import mpi4py

        if "mpi4py.MPI" not in sys.modules:  # else MPI may have begun, and ignores these
            mpi4py.rc.initialize, mpi4py.rc.finalize = False, True
        with warnings.catch_warnings():  # about the environment of another MPI, which is reported below
            warnings.simplefilter("ignore", RuntimeWarning)
            from mpi4py import MPI
    except ImportError:
        raise _refusal(rank, f"{many}, and they need mpi4py to train together: {_MEND}") from None
    except RuntimeError as error:
        why = str(error).partition("\n")[0]
        raise _refusal(rank, f"{many}, and mpi4py has no MPI to train together ({why}): {_MEND}") from None
    name, version = MPI.get_vendor()
    found, comm = 1, MPI.COMM_WORLD
    if not _is_foreign(name):
        if not MPI.Is_initialized():
            MPI.Init_thread(MPI.THREAD_MULTIPLE)
        found = comm.Get_size()
    if found != size and size:
        known = f"mpi4py has {name} {'.'.join(map(str, version))} here"
        mend = f"start them by {_launcher(name)} -n {size}"
        raise _refusal(rank, f"{many} by the mpiexec of another MPI, and {known}, in which each is alone: {mend}")
    return None if found == 1 else comm


def _is_foreign(vendor: str) -> bool:
    """Return whether the launcher belongs to another MPI; this one would then be alone, or end the process."""
    if "OMPI_COMM_WORLD_SIZE" in os.environ:
        return vendor in ("MPICH", "Intel MPI")
    return vendor == "Open MPI" and "PMI_SIZE" in os.environ and "SLURM_JOB_ID" not in os.environ


def _launcher(vendor: str) -> str:
    """Return the mpiexec that belongs to the MPI in use."""
    beside = Path(sys.executable).with_name("mpiexec")
    return str(beside) if beside.exists() else f"the mpiexec of {vendor},"


def _refusal(rank: int, line: str) -> BaseException:
    """Return the exception of a process that cannot train with the others: the first says why, the others wait."""
    if rank:
        time.sleep(_WAIT)
        return SystemExit(1)
    return GpunnError(line)


def description() -> str:
    """Describe the MPI in use; call it only after `communicator` has found several processes."""
    import mpi4py
    from mpi4py import MPI

    name, version = MPI.get_vendor()
    return f"{name} {'.'.join(map(str, version))}, mpi4py {mpi4py.__version__}"


def of_machine(comm: Any) -> Any:
    """Return the communicator of the processes of this machine."""
    from mpi4py import MPI

    return comm.Split_type(MPI.COMM_TYPE_SHARED)


def cores_of(machine: Any, own: set[int], of_all: float) -> float:
    """Return the cores of this process, if all processes of the machine share their cores.

    Args:
        machine: Communicator of the processes of the machine.
        own: Cores that this process may run on; its launcher may have bound it to some.
        of_all: Number of cores that all processes may use together, such as a limit of their container.
    """
    every: list[set[int]] = machine.allgather(own)
    ranks: int = machine.Get_size()
    share = sum(Fraction(1, sum(core in others for others in every)) for core in own)
    return min(float(share), of_all / ranks)


def can_be_sent(value: object) -> bool:
    """Return whether other processes can receive a value unchanged, by pickle."""
    from mpi4py import MPI

    try:
        return type(MPI.pickle.loads(MPI.pickle.dumps(value))) is type(value)
    except Exception:  # noqa: BLE001 - classes of others may raise anything
        return False


def in_place() -> Any:
    """Return MPI's marker for an operation in place."""
    from mpi4py import MPI

    return MPI.IN_PLACE
