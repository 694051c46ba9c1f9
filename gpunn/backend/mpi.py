"""MPI through mpi4py, which is imported only in a process that a launcher of MPI has started."""

import os
from typing import Any

# Number of processes by launcher: Open MPI, MPICH and Intel MPI, and what speaks PMIx. SLURM sets more in every script.
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


def started() -> Any:
    """Return the communicator of all processes, or None where this one was started alone."""
    sizes = [int(os.environ[name]) for name in _SIZES if os.environ.get(name, "").isdecimal()]
    if not any(size > 1 for size in sizes):
        return None
    from mpi4py import MPI

    return MPI.COMM_WORLD


def place_on_machine(comm: Any) -> tuple[int, int]:
    """Return the number of this process among those of its machine, and how many these are."""
    from mpi4py import MPI

    here = comm.Split_type(MPI.COMM_TYPE_SHARED)
    return here.Get_rank(), here.Get_size()


def in_place() -> Any:
    """Return what stands for the array that is sent and received."""
    from mpi4py import MPI

    return MPI.IN_PLACE
