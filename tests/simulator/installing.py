"""Putting the simulated machine where CuPy, nvmath and the NVIDIA driver are looked for, and taking it away again."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from threadpoolctl import threadpool_limits

from gpunn import backend, doctor
from simulator.cupy_module import make_modules
from simulator.machine import Machine

_PACKAGES = {"cupy-cuda13x": "14.2.0", "nvmath-python": "1.0.0"}


@contextmanager
def installed(machine: Machine) -> Iterator[Machine]:
    """Within it, `device="cuda"` is the simulated machine."""
    gpu = doctor.Gpu("simulated device", machine.memory, (9, 0))
    # Its products are small: a pool of threads for them only waits for the other work of the machine.
    with threadpool_limits(1, "blas"), pytest.MonkeyPatch.context() as patch:
        for name in [name for name in sys.modules if name.partition(".")[0] in ("cupy", "nvmath")]:
            patch.delitem(sys.modules, name)
        for name, module in make_modules(machine).items():
            patch.setitem(sys.modules, name, module)
        # What the doctor asks of the machine; what it concludes is its own.
        found = doctor.installed
        patch.setattr(doctor, "read_driver", lambda: doctor.Driver(13000, (gpu,)))
        patch.setattr(doctor, "installed", lambda package: _PACKAGES.get(package) or found(package))
        patch.setattr(doctor, "_library_problem", lambda name: "")
        backend._made.cache_clear()
        try:
            yield machine
        finally:
            backend._made.cache_clear()
