"""Devices: where arrays live, how kernels and products run, and how much memory there is."""

from gpunn.backend.base import Backend as Backend
from gpunn.backend.devices import backend_of as backend_of
from gpunn.backend.devices import select as select
