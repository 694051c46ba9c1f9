"""Sum and gather arrays over the GPUs of all ranks with NCCL, on a stream and so in its graphs."""

import os
import time
import warnings
from typing import Any

import numpy as np

from gpunn.backend.driver import nccl_command
from gpunn.backend.ranks import world
from gpunn.errors import DeviceError
from gpunn.kernels.record import Array

_LOOKS_AFTER = 5e-5  # seconds between two looks at a stream while waiting for it


class Communicator:
    """Connect the devices of all ranks; all ranks make it at once, on the current device and outside of captures.

    Sums have the same bits on every rank, and in every run with as many ranks on the same machines.
    """

    def __init__(self, index: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # CuPy says how to install it in six lines
            from cupy.cuda import nccl, runtime

        ranks = world()
        if ranks.any(not nccl.available):
            mend = nccl_command()
            who = "another rank" if nccl.available else "this rank"
            raise DeviceError(f"several ranks on GPUs need NCCL, which {who} cannot load: {mend}", mend)
        properties = runtime.getDeviceProperties(index)
        # CuPy ends the UUID at its first byte of 0, so that some would look alike without the place on the bus.
        place = ".".join(str(properties[name]) for name in ("pciDomainID", "pciBusID", "pciDeviceID"))
        gpus = ranks.all_gather(np.frombuffer(f"{properties['uuid'].hex()} {place}".encode().ljust(80), np.uint8))
        same = [rank for rank, gpu in enumerate(gpus) if (gpu == gpus).all(1).sum() > 1]
        if same:
            mend = "start no more ranks on a machine than it has GPUs, and name no device"
            which = ", ".join(map(str, same))
            raise DeviceError(f"ranks {which} share a GPU, and NCCL wants one for each: {mend}", mend)
        # Sums that are computed in the switches of NVLink differ from call to call (NVIDIA/nccl#1497).
        os.environ.setdefault("NCCL_NVLS_ENABLE", "0")
        name = ranks.broadcast(nccl.get_unique_id() if ranks.is_first else None)
        self._communicator = nccl.NcclCommunicator(ranks.size, name, ranks.rank)
        self._sum = nccl.NCCL_SUM
        self._types = {"int32": nccl.NCCL_INT32, "float32": nccl.NCCL_FLOAT32, "float64": nccl.NCCL_FLOAT64}

    def all_reduce(self, array: Array, stream: Any) -> None:
        """Set a contiguous array to its sum over all ranks."""
        at, kind = array.data.ptr, self._types[str(array.dtype)]
        self._communicator.allReduce(at, at, array.size, kind, self._sum, stream.ptr)

    def all_gather(self, array: Array, gathered: Array, stream: Any) -> None:
        """Set gathered (ranks, *shape) to the arrays of all ranks, all contiguous."""
        kind = self._types[str(array.dtype)]
        self._communicator.allGather(array.data.ptr, gathered.data.ptr, array.size, kind, stream.ptr)

    def wait(self, until: Any) -> None:
        """Wait for a stream or an event, or raise an error of NCCL, after which its work may never end."""
        with world().waits("sums on the GPUs"):
            while not until.done:
                self._communicator.check_async_error()
                time.sleep(_LOOKS_AFTER)
        self._communicator.check_async_error()
