"""Hold arrays, run kernels and multiply matrices on a CPU or a CUDA device, within its memory."""

from gpunn.backend.base import Backend as Backend
from gpunn.backend.devices import backend_of as backend_of
from gpunn.backend.devices import select as select
