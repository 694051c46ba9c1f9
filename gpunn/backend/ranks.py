"""Connect ranks, the processes that train one network together, each on its share of every batch."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from gpunn.backend import mpi
from gpunn.backend.shutdown import Shutdown
from gpunn.errors import GpunnError
from gpunn.kernels import cores

COMPARE = "GPUNN_DEBUG"  # environment variable; with 1, ranks compare their operations before each exchange
Value = TypeVar("Value")


def bounds(n: int, rank: int, size: int) -> tuple[int, int]:
    """Return the begin and end of a rank's share of n samples; the first n mod size ranks have one more."""
    share, more = divmod(n, size)
    first = rank * share + min(rank, more)
    return first, first + share + (rank < more)


class Ranks:
    """Stand for a single process, which exchanges nothing; `MPIRanks` connects several.

    Attributes:
        rank: Number of this process, from 0.
        size: Number of processes.
        local_rank, local_size: The same, among the processes of this machine.
    """

    rank, size, local_rank, local_size = 0, 1, 0, 1

    @property
    def is_first(self) -> bool:
        """True in the process that reads, writes and reports for all."""
        return self.rank == 0

    def share(self, n: int) -> tuple[int, int]:
        """Return the begin and end of this rank's share of n samples."""
        return bounds(n, self.rank, self.size)

    def waits(self, what: str) -> AbstractContextManager[None]:
        """End all ranks if this rank waits too long for the others in the block, which `what` names."""
        return nullcontext()

    def all_reduce(self, array: NDArray[Any]) -> None:
        """Set an array of the host to its sum over all ranks, with the same bits on each."""

    def all_gather(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the arrays of all ranks, (size, *shape)."""
        return np.array(array)[None]

    def broadcast(self, value: Value) -> Value:
        """Return the value of rank 0."""
        return value

    def any(self, is_so: bool) -> bool:
        """Return whether any rank passes True."""
        flag = np.array([is_so], np.int32)
        self.all_reduce(flag)
        return bool(flag[0])

    def control(self, is_due: bool, signal: int) -> tuple[bool, int]:
        """Return whether rank 0 has something due, and the number of a signal that any rank got, else 0."""
        every = self.all_gather(np.array([is_due, signal], np.int32))
        return bool(every[0, 0]), int(every[:, 1].max())

    def of_first(self, work: Callable[[], Value]) -> Value:
        """Call a function on rank 0 alone; return its result, or raise its exception, on all ranks."""
        return work()

    def after_first(self, work: Callable[[], Value]) -> Value:
        """Call a function on rank 0, then on the other ranks, which find the files that it has made."""
        made: list[Value] = []
        self.of_first(lambda: made.append(work()))
        return made[0] if made else work()

    def fail(self, why: str, code: int = 1, *, is_asked: bool = False) -> str:
        """Return the message that this rank reports, "" if another does; an error of this rank alone ends all ranks."""
        return why

    def leave(self, code: int = 0, why: str = "", *, is_asked: bool = False) -> str:
        """Wait until all ranks leave; return the message that this rank reports, see `fail`."""
        return why

    def abort(self, code: int, why: str = "") -> NoReturn:
        """Write the reason, and end the processes of all ranks at once."""
        raise SystemExit(code)

    def stop(self, code: int) -> None:
        """End several ranks at once, after a second signal; a single process ends by itself."""


class MPIRanks(Ranks):
    """Connect the processes that `mpiexec` or `srun` has started, through mpi4py."""

    def __init__(self, comm: Any) -> None:
        self._comm, self._shutdown = comm, Shutdown(comm, mpi.timeout())
        self.rank, self.size = comm.Get_rank(), comm.Get_size()
        machine = mpi.of_machine(comm)
        self.local_rank, self.local_size = machine.Get_rank(), machine.Get_size()
        cores.share_cores(mpi.cores_of(machine, cores.allowed(), cores.limit()))
        self._compares, self._compared = os.environ.get(COMPARE) == "1", 0

    def waits(self, what: str) -> AbstractContextManager[None]:
        return self._shutdown.waits(what)

    def all_reduce(self, array: NDArray[Any]) -> None:
        with self._shutdown.waits("a sum over all ranks"):
            self._compare("a sum", array.nbytes)
            self._comm.Allreduce(mpi.in_place(), array)

    def all_gather(self, array: NDArray[Any]) -> NDArray[Any]:
        made = np.empty((self.size, *array.shape), array.dtype)
        with self._shutdown.waits("a gather from all ranks"):
            self._compare("a gather", array.nbytes)
            self._comm.Allgather(np.ascontiguousarray(array), made)
        return made

    def broadcast(self, value: Value) -> Value:
        with self._shutdown.waits("a broadcast from rank 0"):
            self._compare("a broadcast from rank 0")
            made: Value = self._comm.bcast(value)
        return made

    def of_first(self, work: Callable[[], Value]) -> Value:
        with self._shutdown.waits("work of rank 0"):
            self._compare("work of rank 0")
            self._comm.Barrier()
        # From here on the others wait without limit: a download takes long, and a process that dies ends the job.
        value, error = self._comm.bcast(self._outcome(work) if self.is_first else None)
        if error is not None:
            raise error
        made: Value = value
        return made

    def _compare(self, what: str, nbytes: int = 0) -> None:
        """Raise GpunnError on all ranks if they are about to do different operations together; see `COMPARE`."""
        if self._compares:
            self._compared += 1
            every = self._comm.allgather(f"{what}, {nbytes} bytes" if nbytes else what)
            for rank, other in enumerate(every):
                if other != every[0]:
                    at = f"at exchange {self._compared}"
                    raise GpunnError(f"the ranks have diverged: {at} rank 0 is at {every[0]}, rank {rank} at {other}")

    def _outcome(self, work: Callable[[], Value]) -> tuple[Value | None, Exception | None]:
        try:
            return work(), None
        except Exception as error:  # noqa: BLE001 - raised again, on all ranks
            return None, error if mpi.can_be_sent(error) else GpunnError(f"{type(error).__name__}: {error}")

    def fail(self, why: str, code: int = 1, *, is_asked: bool = False) -> str:
        return self._shutdown.fail(why, code, is_asked=is_asked)

    def leave(self, code: int = 0, why: str = "", *, is_asked: bool = False) -> str:
        return self._shutdown.leave(code, why, is_asked=is_asked)

    def stop(self, code: int) -> None:
        self.abort(code, "stopped at once by a second signal")

    def abort(self, code: int, why: str = "") -> NoReturn:
        self._shutdown.abort(why or f"ended with {code}", code)


@cache
def world() -> Ranks:
    """Return the ranks of this process: one, unless an MPI launcher has started several."""
    comm = mpi.communicator()
    return Ranks() if comm is None else MPIRanks(comm)
