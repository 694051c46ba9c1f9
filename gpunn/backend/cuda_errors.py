"""Explain errors of CUDA, cuBLAS, NVRTC and NCCL with a mend, and raise them in these words.

`python -m gpunn.backend.cuda_errors` prints the table of `docs/gpu.md`; it needs only the standard library.
"""

import os
import re
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from gpunn.errors import DeviceError, GpunnError

_AGAIN = "start the program again, and go on with gpunn train --resume RUN"
_OURS = "please report it with what gpunn doctor says, and meanwhile take --device cpu"
_POWER = "see whether the GPU is hot, overclocked or short of power"
_FAULT = f"{_AGAIN}; if it comes back, run gpunn doctor, look for Xid in dmesg, and {_POWER}"
_UPDATE = "update the driver, or install the CUDA extra that gpunn doctor names"
_CACHE = "empty the kernel cache that gpunn doctor names, and run gpunn doctor"
_FREE = "end what else uses the GPU (nvidia-smi lists it), take a smaller batch, or another device by --device cuda:N"
_INSTALL = "run gpunn doctor, and install again what it names"
_LIBRARY = f"{_INSTALL}; --device cpu needs no compiler"
_OTHER = -1  # stands for every code that a table does not name


class Meaning(NamedTuple):
    """Meaning of an error code, its mend, and whether CUDA refuses all later work of the process."""

    what: str
    mend: str
    is_sticky: bool = False


def _table(text: str) -> dict[int, Meaning]:
    """Read rows of `code | meaning | mend`; "!" marks a sticky code, an indented line continues its row."""
    rows = (row.split(" | ") for row in re.sub(r"\n +", " ", text).strip().splitlines())
    return {int(code.rstrip("!")): Meaning(what, mend, code.endswith("!")) for code, what, mend in rows}


CUDA = _table(f"""
1 | CUDA was given an argument that it does not take | {_OURS}
2 | the GPU's memory is full | {_FREE}
3 | CUDA could not be started | in a process that was forked after CUDA began, start processes with
    multiprocessing.get_context('spawn'); else reboot, and run gpunn doctor
4! | CUDA has been shut down | {_AGAIN}
5 | a profiler is attached that CUDA does not take | run without the profiler
9 | CUDA was given a launch that the GPU cannot do | {_OURS}
34 | the library of the driver is a stub, which is there for linking only | take the folder stubs of the CUDA toolkit
    out of LD_LIBRARY_PATH, and install a driver if there is none
35 | the driver is older than CuPy's CUDA | {_UPDATE}
36 | the driver is too old for this call | {_UPDATE}
46 | the GPU is busy or does not allow it: another process has it for itself, or its compute mode forbids all | end the
    other process (nvidia-smi lists it), set the mode by sudo nvidia-smi -c 0, or take another device by --device cuda:N
98 | the compiled kernel is not one for this GPU | {_CACHE}
100 | no GPU is visible | see whether nvidia-smi shows one, and give a container --gpus all
101 | there is no device of this number | list the devices by gpunn doctor; CUDA_VISIBLE_DEVICES may hide some
102 | the virtual GPU has no licence | let the guest reach its licence server (nvidia-smi -q shows the licence), then
    start the program again
103 | CUDA found its own files changed | install the driver again
127 | CUDA's libraries could not be started | {_INSTALL}
200 | a compiled kernel cannot be read | {_CACHE}
201! | the CUDA context is gone | {_AGAIN}
205 | the driver could not map memory of the GPU | take a smaller batch, or reboot
209 | the compiled kernel is not for this GPU | {_CACHE}
214! | an error in the GPU's memory that ECC could not correct | reset the GPU by sudo nvidia-smi -r, or reboot, then go
    on with gpunn train --resume RUN; if it comes back, have the GPU replaced (nvidia-smi -q -d ECC counts)
216 | another context uses what was asked for | end what else uses the GPU (nvidia-smi lists it)
217 | the two GPUs cannot reach each other's memory | use one GPU a process
218 | the driver cannot compile this PTX | {_UPDATE}
220! | a fault on NVLink that could not be corrected | {_FAULT}
221 | the driver lacks its compiler of PTX, libnvidia-ptxjitcompiler | install the driver again, whole
222 | the kernel was compiled by a CUDA that is newer than the driver | {_UPDATE}
223 | compiling by the driver is switched off | unset CUDA_DISABLE_PTX_JIT
225! | the GPU's memory had an error, which it has contained | {_FAULT}
226! | the GPU had an error, which it has contained | {_FAULT}
300 | the kernel's source cannot be read | {_CACHE}
302 | a library of CUDA lacks a symbol | {_INSTALL}
303 | a library of CUDA cannot be started | {_INSTALL}
304 | the system refused the driver a call | see whether you may read and write /dev/nvidia* (in a container: --gpus
    all) and whether nvidia-smi works
400 | CUDA was given a handle that is not one of its | {_OURS}
401 | CUDA is in a state that does not allow this | {_AGAIN}
402! | the GPU's memory lost data | {_FAULT}
500 | the driver lacks a function that was asked for | {_UPDATE}
600 | the GPU is not ready yet | {_AGAIN}
700! | a kernel read or wrote memory that is not its own | {_FAULT}
701 | a kernel needs more registers or shared memory than the GPU has | {_OURS}
702! | a kernel took longer than the desktop allows | give the display another GPU, or take a smaller batch; {_AGAIN}
709! | the CUDA context was destroyed | {_AGAIN}
710! | a kernel stopped itself by an assertion | {_FAULT}
714! | the stack of a kernel was damaged | {_FAULT}
715! | a kernel met an instruction that the GPU does not have | {_FAULT}
716! | a kernel read or wrote memory at an address that is not aligned | {_FAULT}
717! | a kernel used memory of a wrong kind | {_FAULT}
718! | a kernel jumped to where no kernel is | {_FAULT}
719! | a kernel failed, or the GPU was lost: fallen off its bus, reset, or asleep | {_FAULT}
721! | memory of the tensor cores was not given back | {_FAULT}
800 | this is not permitted | see whether another process has the GPU for itself or a CUDA MPS server restricts it
    (nvidia-smi lists both)
801 | the GPU, its driver or its virtual machine does not support this | {_UPDATE}
802 | the GPUs wait for NVIDIA's fabric manager | sudo systemctl start nvidia-fabricmanager, of the driver's very
    version, and wait a minute
803 | the driver's module and its library are of two versions, as after an update | reboot, so that the driver's module
    and its library are of one version; in a container, take CUDA's compat folder out of LD_LIBRARY_PATH
804 | a library for newer CUDA on older drivers was loaded, which this GPU does not support | take CUDA's compat folder
    out of LD_LIBRARY_PATH (apt remove 'cuda-compat-*'), or update the host's driver
805 | the CUDA MPS server does not answer | restart nvidia-cuda-mps-control, or unset CUDA_MPS_PIPE_DIRECTORY
806 | the CUDA MPS server failed | restart nvidia-cuda-mps-control
807 | the CUDA MPS server takes nobody at the moment | start the program again in a minute
808 | the CUDA MPS server has all the clients that it takes | end another of its programs
809 | the CUDA MPS server has no connection left | end another of its programs
810! | the CUDA MPS server ended this program | restart nvidia-cuda-mps-control; {_AGAIN}
812! | the CUDA MPS server lost this program | restart nvidia-cuda-mps-control; {_AGAIN}
908 | a recorded graph could not be started anew | {_AGAIN}
909! | the GPU did not answer in time | {_AGAIN}
910 | a recorded graph could not be changed | {_AGAIN}
911! | a device beside the GPU failed | {_FAULT}
999! | the driver failed without a reason, as after the machine was suspended | sudo rmmod nvidia_uvm && sudo modprobe
    nvidia_uvm, or reboot; then start the program again, with gpunn train --resume RUN for a run that was begun
-1 | CUDA failed | run gpunn doctor, look for Xid in dmesg, {_AGAIN}
""")

CUBLAS = _table(f"""
1 | cuBLAS could not be started: mostly for lack of GPU memory, or because its library belongs to another CUDA | {_FREE}
3 | cuBLAS got no memory of the GPU | {_FREE}
7 | cuBLAS was given an argument that it does not take | {_OURS}
8 | this GPU lacks a feature that the product needs | take precision float32
11! | cuBLAS could not reach memory of the GPU | {_FAULT}
13! | a kernel of cuBLAS failed | {_FAULT}
14! | cuBLAS failed inside | {_FAULT}
15 | cuBLAS does not support this product | take precision float32
16 | cuBLAS has no licence | install NVIDIA's own cuBLAS again
-1 | cuBLAS failed | run gpunn doctor, and {_AGAIN}
""")

NVRTC = _table(f"""
1 | NVRTC got no memory of the host | end other programs
2 | NVRTC could not begin a program | {_LIBRARY}
3 | NVRTC was given a source that it does not take | {_LIBRARY}
4 | NVRTC was given a program that it does not know | {_LIBRARY}
5 | NVRTC does not know an option: it is of another CUDA than CuPy, or older than the GPU | {_LIBRARY}
6 | NVRTC could not compile a kernel | headers or libraries of another CUDA may be found first: {_LIBRARY}
7 | NVRTC lacks its builtins, libnvrtc-builtins, of its very version | {_LIBRARY}
11 | NVRTC failed inside | {_LIBRARY}
-1 | NVRTC failed | {_LIBRARY}
""")

_DEBUG = "with NCCL_DEBUG=WARN set it says which"

NCCL = _table(f"""
1! | CUDA failed inside NCCL | {_FAULT}
2! | the system refused NCCL a call ({_DEBUG}), mostly for lack of shared memory | give a container --shm-size=1g
3! | NCCL failed inside ({_DEBUG}) | {_AGAIN}
4 | NCCL was given an argument that it does not take | {_OURS}
5 | NCCL was used in a way that it does not allow, such as by two ranks on one GPU | start no more ranks on a machine
    than it has GPUs, and name no device
6! | another rank ended, or cannot be reached any more | look at what that rank said; {_AGAIN}
-1! | NCCL failed ({_DEBUG}) | {_AGAIN}
""")

_TABLES = {"CUDA": CUDA, "cuBLAS": CUBLAS, "NVRTC": NVRTC, "NCCL": NCCL}
# Errors of CuPy and nvmath are named, not imported; the driver and the runtime share their codes.
_RAISED_BY = {
    "CUDARuntime": "CUDA",
    "CUDADriver": "CUDA",
    "CUBLAS": "cuBLAS",
    "cuBLAS": "cuBLAS",
    "cuBLASLt": "cuBLAS",
    "NVRTC": "NVRTC",
    "Nccl": "NCCL",
}

_PURGE = "remove any NVIDIA driver that was installed inside WSL (apt purge 'libnvidia-compute-*')"
WSL_MEND = f"under WSL2 the driver is that of Windows: update it there, {_PURGE}, then wsl --shutdown"
sticky_errors: list[DeviceError] = []  # after these CUDA refuses all other work, also destructors of CuPy


def meaning(library: str, code: int) -> Meaning:
    """Return the meaning of an error code of "CUDA", "cuBLAS", "NVRTC" or "NCCL" on this machine."""
    known = _TABLES[library].get(code, _TABLES[library][_OTHER])
    if library == "CUDA" and code in (100, 101) and (mend := hidden_mend()):
        return known._replace(mend=mend)
    if library == "CUDA" and code in (35, 36, 100, 304, 500, 803, 999) and is_wsl():
        return known._replace(mend=WSL_MEND)
    return known


def description(library: str, code: int, said: str = "") -> str:
    """Describe an error by its meaning, its number, and the library's own words."""
    return f"{meaning(library, code).what} ({library} error {code}{f', {said}' if said else ''})"


def message(library: str, code: int, said: str = "") -> str:
    """Describe an error and its mend in one line."""
    return f"{description(library, code, said)}: {meaning(library, code).mend}"


def is_wsl() -> bool:
    """Return whether this is Linux under Windows (WSL), which uses the GPU driver of Windows."""
    return Path("/dev/dxg").exists() or Path("/usr/lib/wsl/lib").is_dir()


def hidden_mend() -> str:
    """Return how to show a GPU that an environment variable hides; "" if none does."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if any(name in os.environ for name in ("SLURM_JOB_ID", "SLURM_JOBID", "PBS_JOBID", "LSB_JOBID", "JOB_ID")):
        return "ask the scheduler for a GPU, such as srun --gres=gpu:1: what a job may use is for it to say"
    if os.environ.get("NVIDIA_VISIBLE_DEVICES") in ("void", "none"):
        return "give the container a GPU: docker run --gpus all"
    if visible is None:
        return ""
    if visible.strip() in ("", "-1", "NoDevFiles"):
        return "unset CUDA_VISIBLE_DEVICES"
    return f"CUDA_VISIBLE_DEVICES is {visible!r:.60}: let it name a GPU that gpunn doctor shows without it, or unset it"


class Gate:
    """Raise errors of CUDA in a block as `DeviceError` or a memory error; admit one thread at a time if `is_lock`."""

    def __init__(self, out_of_memory: Callable[[str], MemoryError] = MemoryError, is_lock: bool = True) -> None:
        self._out_of_memory, self._lock = out_of_memory, threading.RLock() if is_lock else None
        self._process = os.getpid()

    def __enter__(self) -> None:
        if os.getpid() != self._process:
            what = "this process was forked after CUDA had begun, and CUDA works in the parent only: start processes"
            mend = "with multiprocessing.get_context('spawn'), or fork before anything is computed on a GPU"
            raise DeviceError(f"{what} {mend}")
        if self._lock is not None:
            self._lock.acquire()

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if self._lock is not None:
            self._lock.release()
        if isinstance(error, Exception) and (other := translated(error, self._out_of_memory)) is not None:
            raise other from error


def translated(error: Exception, out_of_memory: Callable[[str], MemoryError] = MemoryError) -> Exception | None:
    """Return the error to raise in place of an error of a CUDA library; None for any other error."""
    if isinstance(error, GpunnError | MemoryError):
        return None
    name, code, said = type(error).__name__, getattr(error, "status", None), " ".join(str(error).split())
    if (library := _RAISED_BY.get(name.removesuffix("Error"), "")) and code is not None:
        code = int(code)
    elif name == "CompileException":
        # CuPy raises it while it handles NVRTC's own error, which has the code.
        library, code = "NVRTC", 7 if "builtins" in said else int(getattr(error.__context__, "status", 6))
    elif type(error).__module__.partition(".")[0] in ("cuda", "nvmath", "cupy_backends") or "failed to load" in said:
        mend = "run gpunn doctor, which names it"
        return DeviceError(f"a library of CUDA cannot be loaded ({said:.200}): {mend}", mend)
    else:
        return None
    if (library, code) in (("CUDA", 2), ("cuBLAS", 3)):
        return out_of_memory(said)
    known = DeviceError(message(library, code, said[:160]), meaning(library, code).mend)
    if meaning(library, code).is_sticky:
        known.is_sticky = True
        sticky_errors.append(known)
    return known


def silence_destructors() -> None:
    """Ignore errors of CuPy's destructors, in the program only: the end of the process frees their memory."""
    for name in ("excepthook", "unraisablehook"):  # Cython uses both for one error
        hook = getattr(sys, name)
        if getattr(hook, "func", None) is not _show_unless_cupys:
            setattr(sys, name, partial(_show_unless_cupys, hook))


def _show_unless_cupys(hook: Callable[..., None], *given: Any) -> None:
    """Call a hook of `sys` unless the function, or the type of the error, is CuPy's."""
    parts = given[:1] if len(given) > 1 else (given[0].object, given[0].exc_type)
    names = (part if isinstance(part, str) else getattr(part, "__module__", None) or "" for part in parts)
    if not any(name.startswith("cupy") for name in names):
        hook(*given)


def table() -> str:
    """Return all codes as a Markdown table."""
    rows = ["| error | what it means | what to do |", "|---|---|---|"]
    for library, codes in _TABLES.items():
        for code, (what, mend, is_sticky) in codes.items():
            after = "; the process must be started again" if is_sticky and _AGAIN not in mend else ""
            rows.append(f"| {library}{', any other' if code == _OTHER else f' {code}'} | {what} | {mend}{after} |")
    return "\n".join(rows).replace("'cuda-compat-*'", "'cuda-compat-\\*'")


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
