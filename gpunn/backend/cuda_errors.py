"""Error codes of CUDA, cuBLAS and NVRTC: what each means, and what a person does about it.

The driver and the runtime number their errors alike. `python -m gpunn.backend.cuda_errors` prints the table of
`docs/gpu.md`.
At module level only the standard library is imported: the doctor reads this before anything is installed.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

_AGAIN = "start the program again, and go on with gpunn train --resume RUN"
_REBOOT = "reboot, so that the driver's module and its library are of one version"
_OURS = "please report it with what gpunn doctor says, and meanwhile take --device cpu"
_FAULT = (
    f"{_AGAIN}; if it comes back, run gpunn doctor, look for Xid in dmesg, and see whether the GPU is hot, overclocked "
    "or short of power"
)
_UPDATE = "update the driver, or install the CUDA extra that gpunn doctor names"
_CACHE = "empty the kernel cache that gpunn doctor names, and run gpunn doctor"
_FREE = "end what else uses the GPU (nvidia-smi lists it), take a smaller batch, or another device by --device cuda:N"


@dataclass(frozen=True)
class Meaning:
    """What an error code means, what to do, and whether CUDA refuses everything after it in the same process."""

    what: str
    mend: str
    is_sticky: bool = False


def _fault(what: str, mend: str = _FAULT) -> Meaning:
    return Meaning(what, mend, is_sticky=True)


CUDA: dict[int, Meaning] = {
    1: Meaning("CUDA was given an argument that it does not take", _OURS),
    2: Meaning("the GPU's memory is full", _FREE),
    3: Meaning(
        "CUDA could not be started",
        "in a process that was forked after CUDA began, start processes with multiprocessing.get_context('spawn'); "
        "else reboot, and run gpunn doctor",
    ),
    4: Meaning("CUDA has been shut down", _AGAIN, is_sticky=True),
    5: Meaning("a profiler is attached that CUDA does not take", "run without the profiler"),
    9: Meaning("CUDA was given a launch that the GPU cannot do", _OURS),
    34: Meaning(
        "the library of the driver is a stub, which is there for linking only",
        "take the folder stubs of the CUDA toolkit out of LD_LIBRARY_PATH, and install a driver if there is none",
    ),
    35: Meaning("the driver is older than CuPy's CUDA", _UPDATE),
    36: Meaning("the driver is too old for this call", _UPDATE),
    46: Meaning(
        "the GPU is busy or does not allow it: another process has it for itself, or its compute mode forbids all",
        "end the other process (nvidia-smi lists it), set the mode by sudo nvidia-smi -c 0, or take another device by "
        "--device cuda:N",
    ),
    98: Meaning("the compiled kernel is not one for this GPU", _CACHE),
    100: Meaning("no GPU is to be seen", "see whether nvidia-smi shows one, and give a container --gpus all"),
    101: Meaning(
        "there is no device of this number", "see which there are by gpunn doctor; CUDA_VISIBLE_DEVICES may hide some"
    ),
    102: Meaning(
        "the virtual GPU has no licence",
        "let the guest reach its licence server (nvidia-smi -q shows the licence), then start the program again",
    ),
    103: Meaning("CUDA found its own files changed", "install the driver again"),
    127: Meaning("CUDA's libraries could not be started", "run gpunn doctor, and install again what it names"),
    200: Meaning("a compiled kernel cannot be read", _CACHE),
    201: Meaning("the CUDA context is gone", _AGAIN, is_sticky=True),
    205: Meaning("the driver could not map memory of the GPU", "take a smaller batch, or reboot"),
    209: Meaning("the compiled kernel is not for this GPU", _CACHE),
    214: _fault(
        "an error in the GPU's memory that ECC could not correct",
        "reset the GPU by sudo nvidia-smi -r, or reboot, then go on with gpunn train --resume RUN; if it comes back, "
        "have the GPU replaced (nvidia-smi -q -d ECC counts)",
    ),
    216: Meaning("another context uses what was asked for", "end what else uses the GPU (nvidia-smi lists it)"),
    217: Meaning("the two GPUs cannot reach each other's memory", "use one GPU a process"),
    218: Meaning("the driver cannot compile this PTX", _UPDATE),
    220: _fault("a fault on NVLink that could not be corrected"),
    221: Meaning("the driver lacks its compiler of PTX, libnvidia-ptxjitcompiler", "install the driver again, whole"),
    222: Meaning("the kernel was compiled by a CUDA that is newer than the driver", _UPDATE),
    223: Meaning("compiling by the driver is switched off", "unset CUDA_DISABLE_PTX_JIT"),
    225: _fault("the GPU's memory had an error, which it has contained"),
    226: _fault("the GPU had an error, which it has contained"),
    300: Meaning("the kernel's source cannot be read", _CACHE),
    302: Meaning("a library of CUDA lacks a symbol", "run gpunn doctor, and install again what it names"),
    303: Meaning("a library of CUDA cannot be started", "run gpunn doctor, and install again what it names"),
    304: Meaning(
        "the system refused the driver a call",
        "see whether you may read and write /dev/nvidia* (in a container: --gpus all) and whether nvidia-smi works",
    ),
    400: Meaning("CUDA was given a handle that is not one of its", _OURS),
    401: Meaning("CUDA is in a state that does not allow this", _AGAIN),
    402: _fault("the GPU's memory lost data"),
    500: Meaning("the driver lacks a function that was asked for", _UPDATE),
    600: Meaning("the GPU is not ready yet", _AGAIN),
    700: _fault("a kernel read or wrote memory that is not its own"),
    701: Meaning("a kernel needs more registers or shared memory than the GPU has", _OURS),
    702: _fault(
        "a kernel took longer than the desktop allows",
        f"give the display another GPU, or take a smaller batch; {_AGAIN}",
    ),
    709: _fault("the CUDA context was destroyed", _AGAIN),
    710: _fault("a kernel stopped itself by an assertion"),
    714: _fault("the stack of a kernel was damaged"),
    715: _fault("a kernel met an instruction that the GPU does not have"),
    716: _fault("a kernel read or wrote memory at an address that is not aligned"),
    717: _fault("a kernel used memory of a wrong kind"),
    718: _fault("a kernel jumped to where no kernel is"),
    719: _fault("a kernel failed, or the GPU was lost: fallen off its bus, reset, or asleep"),
    721: _fault("memory of the tensor cores was not given back"),
    800: Meaning(
        "this is not permitted",
        "see whether another process has the GPU for itself or a CUDA MPS server restricts it (nvidia-smi lists both)",
    ),
    801: Meaning("the GPU, its driver or its virtual machine does not support this", _UPDATE),
    802: Meaning(
        "the GPUs wait for NVIDIA's fabric manager",
        "sudo systemctl start nvidia-fabricmanager, of the driver's very version, and wait a minute",
    ),
    803: Meaning(
        "the driver's module and its library are of two versions, as after an update",
        f"{_REBOOT}; in a container, take CUDA's compat folder out of LD_LIBRARY_PATH",
    ),
    804: Meaning(
        "a library for newer CUDA on older drivers was loaded, which this GPU does not support",
        "take CUDA's compat folder out of LD_LIBRARY_PATH (apt remove 'cuda-compat-*'), or update the host's driver",
    ),
    805: Meaning(
        "the CUDA MPS server does not answer", "restart nvidia-cuda-mps-control, or unset CUDA_MPS_PIPE_DIRECTORY"
    ),
    806: Meaning("the CUDA MPS server failed", "restart nvidia-cuda-mps-control"),
    807: Meaning("the CUDA MPS server takes nobody at the moment", "start the program again in a minute"),
    808: Meaning("the CUDA MPS server has all the clients that it takes", "end another of its programs"),
    809: Meaning("the CUDA MPS server has no connection left", "end another of its programs"),
    810: _fault("the CUDA MPS server ended this program", f"restart nvidia-cuda-mps-control; {_AGAIN}"),
    812: _fault("the CUDA MPS server lost this program", f"restart nvidia-cuda-mps-control; {_AGAIN}"),
    908: Meaning("a recorded graph could not be started anew", _AGAIN),
    909: Meaning("the GPU did not answer in time", _AGAIN, is_sticky=True),
    910: Meaning("a recorded graph could not be changed", _AGAIN),
    911: _fault("a device beside the GPU failed"),
    999: _fault(
        "the driver failed without a reason, as after the machine was suspended",
        "sudo rmmod nvidia_uvm && sudo modprobe nvidia_uvm, or reboot; then start the program again, with gpunn train "
        "--resume RUN for a run that was begun",
    ),
}
"""By the code of the driver and the runtime."""

CUBLAS: dict[int, Meaning] = {
    1: Meaning(
        "cuBLAS could not be started: mostly for want of the GPU's memory, or since its library is of another CUDA",
        _FREE,
    ),
    3: Meaning("cuBLAS got no memory of the GPU", _FREE),
    7: Meaning("cuBLAS was given an argument that it does not take", _OURS),
    8: Meaning("this GPU has not what the product needs", "take precision float32"),
    11: _fault("cuBLAS could not reach memory of the GPU"),
    13: _fault("a kernel of cuBLAS failed"),
    14: _fault("cuBLAS failed inside"),
    15: Meaning("cuBLAS does not support this product", "take precision float32"),
    16: Meaning("cuBLAS has no licence", "install NVIDIA's own cuBLAS again"),
}
"""By the status of cuBLAS."""

_LIBRARY = "run gpunn doctor, and install again what it names; --device cpu needs no compiler"
NVRTC: dict[int, Meaning] = {
    1: Meaning("NVRTC got no memory of the host", "end other programs"),
    2: Meaning("NVRTC could not begin a program", _LIBRARY),
    3: Meaning("NVRTC was given a source that it does not take", _LIBRARY),
    4: Meaning("NVRTC was given a program that it does not know", _LIBRARY),
    5: Meaning("NVRTC does not know an option: it is of another CUDA than CuPy, or older than the GPU", _LIBRARY),
    6: Meaning(
        "NVRTC could not compile a kernel", f"headers or libraries of another CUDA may be found first: {_LIBRARY}"
    ),
    7: Meaning("NVRTC lacks its builtins, libnvrtc-builtins, of its very version", _LIBRARY),
    11: Meaning("NVRTC failed inside", _LIBRARY),
}
"""By the result of NVRTC."""

_TABLES = {"CUDA": CUDA, "cuBLAS": CUBLAS, "NVRTC": NVRTC}
_UNKNOWN = {
    "CUDA": Meaning("CUDA failed", f"run gpunn doctor, look for Xid in dmesg, {_AGAIN}"),
    "cuBLAS": Meaning("cuBLAS failed", f"run gpunn doctor, and {_AGAIN}"),
    "NVRTC": Meaning("NVRTC failed", _LIBRARY),
}


def meaning(library: str, code: int) -> Meaning:
    """What a code of "CUDA", "cuBLAS" or "NVRTC" means here, on this machine."""
    known = _TABLES[library].get(code, _UNKNOWN[library])
    if library != "CUDA":
        return known
    if code in (100, 101) and (mend := hidden_mend()):
        return Meaning(known.what, mend)
    if is_wsl() and code in (35, 36, 100, 304, 500, 803, 999):
        return Meaning(known.what, WSL_MEND, known.is_sticky)
    return known


def line(library: str, code: int, said: str = "") -> str:
    """One line about an error: what it means, its number and the library's own words, and the mend."""
    return f"{told(library, code, said)}: {meaning(library, code).mend}"


def told(library: str, code: int, said: str = "") -> str:
    """The same without the mend."""
    return f"{meaning(library, code).what} ({library} error {code}{f', {said}' if said else ''})"


WSL_MEND = (
    "under WSL2 the driver is that of Windows: update it there, remove any NVIDIA driver that was installed inside WSL "
    "(apt purge 'libnvidia-compute-*'), then wsl --shutdown"
)


def is_wsl() -> bool:
    """Whether this is Linux under Windows, whose GPU driver is that of Windows."""
    return Path("/dev/dxg").exists() or Path("/usr/lib/wsl/lib").is_dir()


def hidden_mend() -> str:
    """What shows a GPU that an environment variable hides; "" where none does."""
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


def table() -> str:
    """All codes, as a table in Markdown."""
    rows = ["| error | what it means | what to do |", "|---|---|---|"]
    for library, codes in _TABLES.items():
        for code, known in codes.items():
            after = "; the process must be started again" if known.is_sticky and _AGAIN not in known.mend else ""
            rows.append(f"| {library} {code} | {known.what} | {known.mend}{after} |")
        rows.append(f"| {library}, any other | {_UNKNOWN[library].what} | {_UNKNOWN[library].mend} |")
    return "\n".join(rows).replace("'cuda-compat-*'", "'cuda-compat-\\*'")


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
