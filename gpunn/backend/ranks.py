"""Ranks: the processes that train one network together, each with its share of every batch."""

from functools import cache
from typing import Any, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from gpunn.backend import mpi

Value = TypeVar("Value")


def bounds(n: int, rank: int, size: int) -> tuple[int, int]:
    """Return the first and the end of a rank's share of n samples; the first n mod size ranks have one more."""
    share, more = divmod(n, size)
    first = rank * share + min(rank, more)
    return first, first + share + (rank < more)


class Ranks:
    """The one process of a training that shares nothing; those of several are `MPIRanks`.

    Attributes:
        rank: Number of this process, from 0.
        size: Number of processes.
        local_rank, local_size: The same among the processes of this machine.
    """

    rank, size, local_rank, local_size = 0, 1, 0, 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that reads, writes and says for all."""
        return self.rank == 0

    def share(self, n: int) -> tuple[int, int]:
        """Return the first and the end of this rank's share of n samples."""
        return bounds(n, self.rank, self.size)

    def sum(self, array: NDArray[Any]) -> None:
        """Set an array of the host to its sum over all ranks, with the same bits on each."""

    def gathered(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the arrays of all ranks, (size, *shape)."""
        return np.array(array)[None]

    def agreed(self, value: Value) -> Value:
        """Return the value that rank 0 has, which all then go by."""
        return value

    def any(self, is_so: bool) -> bool:
        """Whether it is so on any rank."""
        return is_so

    def abort(self, code: int) -> NoReturn:
        """End the processes of all ranks at once."""
        raise SystemExit(code)


class MPIRanks(Ranks):
    """The processes that `mpiexec` or `srun` has started, by mpi4py."""

    def __init__(self, comm: Any) -> None:
        self._comm = comm
        self.rank, self.size = comm.Get_rank(), comm.Get_size()
        self.local_rank, self.local_size = mpi.place_on_machine(comm)

    def sum(self, array: NDArray[Any]) -> None:
        self._comm.Allreduce(mpi.in_place(), array)

    def gathered(self, array: NDArray[Any]) -> NDArray[Any]:
        made = np.empty((self.size, *array.shape), array.dtype)
        self._comm.Allgather(np.ascontiguousarray(array), made)
        return made

    def agreed(self, value: Value) -> Value:
        made: Value = self._comm.bcast(value)
        return made

    def any(self, is_so: bool) -> bool:
        flag = np.array([is_so], np.int32)
        self.sum(flag)
        return bool(flag[0])

    def abort(self, code: int) -> NoReturn:
        self._comm.Abort(code)
        raise SystemExit(code)


@cache
def world() -> Ranks:
    """Return the ranks of this process: one, unless a launcher of MPI has started several."""
    comm = mpi.started()
    return Ranks() if comm is None else MPIRanks(comm)
