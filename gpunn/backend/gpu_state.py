"""What else goes on with the GPUs: memory that others use, compute mode, MIG, order. The standard library only."""

import ctypes
import os
from contextlib import suppress
from functools import cache

_MODES = {
    1: "which one thread may use at a time (compute mode exclusive thread)",
    2: "which nobody may use (compute mode prohibited)",
    3: "which one process may use at a time (compute mode exclusive process)",
}


def mode_problem(mode: int) -> str:
    """Who may use a GPU of this compute mode; "" where everybody may."""
    return _MODES.get(mode, "")


def order() -> str:
    """By what CUDA numbers the GPUs."""
    named = os.environ.get("CUDA_DEVICE_ORDER", "")
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    seen = "" if hidden is None else f"; CUDA_VISIBLE_DEVICES={hidden}"
    if named.upper() == "PCI_BUS_ID":
        return f"that of nvidia-smi (CUDA_DEVICE_ORDER=PCI_BUS_ID){seen}"
    return f"the fastest first; that of nvidia-smi by export CUDA_DEVICE_ORDER=PCI_BUS_ID{seen}"


@cache
def _management() -> ctypes.CDLL | None:
    """NVIDIA's library of management, which nvidia-smi asks too; None where it cannot be used."""
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL("libnvidia-ml.so.1")
        if library.nvmlInit_v2() == 0:
            return library
    return None


class _Memory(ctypes.Structure):
    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


def in_use(pci: str, memory: int) -> str:
    """Memory of a GPU that is in use by all programs together, and whether it is divided by MIG; "" if not known."""
    library, handle, words = _management(), ctypes.c_void_p(), ""
    if library is None or not pci:
        return ""
    with suppress(AttributeError):  # of an older driver not all are there
        if library.nvmlDeviceGetHandleByPciBusId_v2(pci.encode(), ctypes.byref(handle)):
            return ""
        used = _Memory()
        if not library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(used)):
            words = f", {used.used / 2**30:.1f} GiB in use"
        now, later = ctypes.c_uint(), ctypes.c_uint()
        if not library.nvmlDeviceGetMigMode(handle, ctypes.byref(now), ctypes.byref(later)) and now.value:
            # What is asked by the place on the bus is the whole GPU; CUDA sees one of its instances.
            whole = f" of the {used.total / 2**30:.0f} GiB of the whole" if words else ""
            words += f"{whole}, divided by MIG: this is an instance of {memory / 2**30:.0f} GiB"
    return words
