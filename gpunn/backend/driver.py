"""Find the CUDA that fits the NVIDIA driver, check what is installed for it, and name the command that mends it.

A bare Python runs this file before anything is installed (`python -I gpunn/backend/driver.py`), to print the CUDA extra
that fits the driver. So at module level it imports the standard library only.
"""

import contextlib
import ctypes
import importlib.metadata
import importlib.util
import os
import re
import shlex
import sys
import threading
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

# CUDA 13 cannot compile for GPUs older than Turing, CUDA 12 for none older than Maxwell.
OLDEST_GPU = {"cuda13": (7, 5), "cuda12": (5, 0)}
OLDEST_DRIVER = {"cuda13": 13000, "cuda12": 12000}
CUPY_PACKAGES = {"cupy-cuda13x": "cuda13", "cupy-cuda12x": "cuda12"}
# For an older CUDA, or for other GPUs; "cupy" is built by hand for the CUDA of the machine, or comes from conda.
_OTHER_CUDAS = (70, 75, 80, 90, 91, 92, 100, 101, 102, *range(110, 118), "10x", "11x", "14x")
OTHER_CUPYS = ("cupy", *(f"cupy-cuda{cuda}" for cuda in _OTHER_CUDAS),
               *(f"cupy-rocm-{rocm}" for rocm in ("4-0", "4-2", "4-3", "5-0", "6-0", "7-0")))  # fmt: skip
OLDEST_CUPY, OLDEST_NVMATH = "14.2", "1.0"
_OWNERS = {"cublas": "nvidia-cublas", "nvrtc": "nvidia-cuda-nvrtc", "cudart": "nvidia-cuda-runtime"}
LIBRARIES = {"cublas": "cuBLAS", "nvrtc": "NVRTC", "cudart": "CUDA runtime"}
PIP = f"{shlex.quote(sys.executable)} -m pip"
IMAGE = "GPUNN_IMAGE"  # set in the project's container image, which is built anew and never changed
NO_DRIVER = "no NVIDIA driver was found"
_SILENT = "the NVIDIA driver has not answered for"
DRIVER_SECONDS = 60  # a server with eight sleeping GPUs answers in a quarter of it
WSL_DRIVER = "/usr/lib/wsl/lib/libcuda.so.1"  # once loaded from here, CuPy finds it by its name
_MODES = {
    1: "which one thread may use at a time (compute mode exclusive thread)",
    2: "which nobody may use (compute mode prohibited)",
    3: "which one process may use at a time (compute mode exclusive process)",
}
Answer = TypeVar("Answer")


class Finding(NamedTuple):
    """Line of the diagnosis; a device cannot be used if any `status` is "missing"."""

    name: str
    status: Literal["ok", "warn", "missing"]
    value: str
    mend: str = ""


class Gpu(NamedTuple):
    """CUDA device as its driver describes it: memory in bytes, `mode` 0 if everybody may use it."""

    name: str
    memory: int
    capability: tuple[int, int]
    pci: str = ""
    mode: int = 0

    def __str__(self) -> str:
        capability, where = ".".join(map(str, self.capability)), f", PCI {self.pci}" if self.pci else ""
        return f"{self.name}, {self.memory / 2**30:.0f} GiB, compute capability {capability}{where}"


class Driver(NamedTuple):
    """NVIDIA driver: the newest CUDA that it supports (13000 is 13.0), its devices, or why none can be used."""

    version: int = 0
    gpus: tuple[Gpu, ...] = ()
    problem: str = ""
    code: int = 0

    @property
    def cuda(self) -> str:
        return f"{self.version // 1000}.{self.version % 1000 // 10}"  # as people write it: 12090 is 12.9


class Fit(NamedTuple):
    """Newest CUDA extra that a driver and its GPUs can use, or the problem and its mend."""

    extra: str = ""
    problem: str = ""
    mend: str = ""


def read_driver() -> Driver:
    """Ask the NVIDIA driver through ctypes, without CuPy or nvidia-smi."""
    for name in ("libcuda.so.1", WSL_DRIVER):
        with contextlib.suppress(OSError):
            return answered(_ask, ctypes.CDLL(name), Driver(problem=f"{_SILENT} {DRIVER_SECONDS} s"))
    return Driver(problem=NO_DRIVER)


def answered(ask: Callable[[Any], Answer], asked: Any, otherwise: Answer) -> Answer:
    """Return the answer of a driver, or `otherwise` if it hangs; not even Ctrl-C would end a hanging call."""
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(ask(asked)), daemon=True)
    thread.start()
    thread.join(DRIVER_SECONDS)
    return answers[0] if answers else otherwise


def _ask(library: ctypes.CDLL) -> Driver:
    number, text = ctypes.c_int(), ctypes.c_char_p()
    try:
        library.cuDriverGetVersion(ctypes.byref(number))
        version = number.value
        if code := library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(number)):
            library.cuGetErrorString(code, ctypes.byref(text))
            reason = (text.value or b"unknown error").decode("ascii", "replace")
            return Driver(version, problem=f"the NVIDIA driver reports: {reason} (error {code})", code=code)
        gpus = tuple(_read_gpu(library, index) for index in range(number.value))
        return Driver(version, gpus, "" if gpus else "the NVIDIA driver shows no GPU")
    except (AttributeError, ValueError, OSError) as error:  # another library of the same name
        return Driver(problem=f"the library of the NVIDIA driver cannot be used: {error}")


def _read_gpu(library: ctypes.CDLL, index: int) -> Gpu:
    device, major, minor, mode = (ctypes.c_int() for _ in range(4))
    name, memory, pci = ctypes.create_string_buffer(256), ctypes.c_size_t(), ctypes.create_string_buffer(32)
    library.cuDeviceGet(ctypes.byref(device), index)
    library.cuDeviceGetName(name, len(name), device)
    library.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    library.cuDeviceGetAttribute(ctypes.byref(major), 75, device)  # COMPUTE_CAPABILITY_MAJOR
    library.cuDeviceGetAttribute(ctypes.byref(minor), 76, device)  # COMPUTE_CAPABILITY_MINOR
    with contextlib.suppress(AttributeError, KeyError):  # not every stand-in for the driver has these
        library.cuDeviceGetPCIBusId(pci, len(pci), device)
        library.cuDeviceGetAttribute(ctypes.byref(mode), 20, device)  # COMPUTE_MODE
    capability = major.value, minor.value
    return Gpu(name.value.decode("utf-8", "replace"), memory.value, capability, pci.value.decode("ascii"), mode.value)


def in_use(gpu: Gpu) -> str:
    """Describe how much of a GPU's memory all programs use, and whether MIG divides it; "" if unknown."""
    return answered(_ask_nvml, gpu, ", memory in use unknown: NVML does not answer")


def _ask_nvml(gpu: Gpu) -> str:
    words = ""
    with contextlib.suppress(OSError, AttributeError):  # no NVML, or an older one without all functions
        library, handle, memory = ctypes.CDLL("libnvidia-ml.so.1"), ctypes.c_void_p(), (ctypes.c_ulonglong * 3)()
        where = gpu.pci.encode(), ctypes.byref(handle)
        if not gpu.pci or library.nvmlInit_v2() or library.nvmlDeviceGetHandleByPciBusId_v2(*where):
            return ""
        if not library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)):
            words = f", {memory[2] / 2**30:.1f} GiB in use"
        now, later = ctypes.c_uint(), ctypes.c_uint()
        if not library.nvmlDeviceGetMigMode(handle, ctypes.byref(now), ctypes.byref(later)) and now.value:
            # NVML describes the whole GPU in this place on the bus; CUDA sees one of its instances.
            whole = f" of the {memory[0] / 2**30:.0f} GiB of the whole" if words else ""
            words += f"{whole}, divided by MIG: this is an instance of {gpu.memory / 2**30:.0f} GiB"
    return words


def fitting_extra(driver: Driver) -> Fit:
    """Choose between cuda13 and cuda12 by the version of the driver and the age of its usable GPUs."""
    if driver.problem:
        from gpunn.backend.cuda_errors import WSL_MEND, is_wsl, meaning

        if driver.problem == NO_DRIVER:
            # Environment variables hide no driver, unless a scheduler or a container sets them.
            install = "install one (a container gets it from `docker run --gpus all`)"
            mend = f"{WSL_MEND}; {WSL_DRIVER} is then there" if is_wsl() else install
        elif driver.problem.startswith(_SILENT):
            mend = "reboot: it hangs, as dmesg may say (Xid)"
        else:
            mend = meaning("CUDA", driver.code or 100).mend
        return Fit("", driver.problem, mend)
    usable = [gpu for gpu in driver.gpus if gpu.capability >= min(OLDEST_GPU.values())]
    for extra, oldest in OLDEST_DRIVER.items():
        if usable and driver.version >= oldest and all(gpu.capability >= OLDEST_GPU[extra] for gpu in usable):
            return Fit(extra)
    if driver.version < min(OLDEST_DRIVER.values()):
        problem = f"the NVIDIA driver supports CUDA {driver.cuda} at most, 12.0 is needed"
        return Fit("", problem, "update the driver to 525 or newer")
    old = min(driver.gpus, key=lambda gpu: gpu.capability)
    return Fit("", f"{old} is too old for CUDA 12", "hide it by CUDA_VISIBLE_DEVICES, or use the CPU")


def install_command(extra: str) -> str:
    """Return the command that adds an extra to this Python, from the checkout if there is one."""
    if os.environ.get(IMAGE):
        return f"docker build -t gpunn --build-arg EXTRA={extra} ."
    root = Path(__file__).resolve().parents[2]
    if (root / "pyproject.toml").is_file():
        return f"{PIP} install -e {shlex.quote(f'{root}[{extra}]')}"
    # By the packages of the extra, never by the name gpunn, which may be anybody's on a package index.
    ends = tuple(f"extra == {quote}{extra}{quote}" for quote in "'\"")
    requirements = (importlib.metadata.requires("gpunn") if installed("gpunn") else None) or []
    needs = [need.partition(";")[0].strip() for need in requirements if need.rstrip().endswith(ends)]
    return f"{PIP} install {' '.join(map(shlex.quote, needs or [f'.[{extra}]']))}"


def _replace_command(packages: Iterable[str], extra: str) -> str:
    """Return the command that uninstalls packages and installs an extra."""
    if os.environ.get(IMAGE):
        return install_command(extra)
    if extra == "cuda12":  # the libraries of CUDA 13 would be found before its own
        packages = [*packages, *(owner for owner in _OWNERS.values() if owner not in packages and installed(owner))]
    return f"{PIP} uninstall -y {' '.join(packages)} && {install_command(extra)}"


def reinstall_command() -> str:
    """Return the command that replaces a damaged CuPy."""
    found = _installed_cupys()
    extra = _built_for(found) or fitting_extra(read_driver()).extra or "cuda13"
    return _replace_command(found, extra) if found else install_command(extra)


def nccl_command() -> str:
    """Return the command that adds NCCL for the CUDA of the installed CuPy."""
    return install_command((_built_for(_installed_cupys()) or "cuda13").replace("cuda", "nccl"))


def installed(package: str) -> str:
    """Return the version of an installed package, or ""."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _installed_cupys() -> dict[str, str]:
    return {package: version for package in (*CUPY_PACKAGES, *OTHER_CUPYS) if (version := installed(package))}


def _built_for(cupys: Iterable[str]) -> str:
    """Return the extra that an installed CuPy belongs to, or ""."""
    return next((CUPY_PACKAGES[package] for package in cupys if package in CUPY_PACKAGES), "")


def _is_older(version: str, oldest: str) -> bool:
    return [*map(int, re.findall(r"\d+", version)[:2])] < [*map(int, oldest.split("."))]


def cuda_findings(driver: Driver, index: int = 0, in_use: Callable[[Gpu], str] = lambda _: "") -> list[Finding]:
    """Check all that a device needs: the driver, the GPU, CuPy, and its libraries."""
    fit, cupys = fitting_extra(driver), _installed_cupys()
    supported = Finding("NVIDIA driver", "ok", f"for CUDA up to {driver.cuda}")
    # The libraries belong to the CUDA that CuPy was built for, right or wrong; mending CuPy mends them too.
    extra = _built_for(cupys) or fit.extra or "cuda13"
    nvmath = installed("nvmath-python")
    has = f"nvmath-python is {f'{nvmath}, {OLDEST_NVMATH} or newer is needed' if nvmath else 'not installed'}"
    is_missing = _is_older(nvmath, OLDEST_NVMATH)
    return [
        Finding("NVIDIA driver", "missing", fit.problem, fit.mend) if fit.problem else supported,
        *_gpu_findings(driver, index, [*cupys], in_use),
        _cupy_finding(driver, fit.extra, index),
        *(_library_finding(library, extra, driver) for library in LIBRARIES),
        Finding("nvmath", "missing", has, install_command(extra)) if is_missing else Finding("nvmath", "ok", nvmath),
    ]


def _gpu_findings(driver: Driver, index: int, cupys: list[str], in_use: Callable[[Gpu], str]) -> Iterable[Finding]:
    """Describe the GPUs in CUDA's order: their use, their compute mode, and those too old for the installed CuPy."""
    built_for = _built_for(cupys) or "cuda12"
    for number, gpu in enumerate(driver.gpus):
        name, value = f"GPU {number}", f"{gpu}{in_use(gpu)}"
        if gpu.capability < min(OLDEST_GPU.values()):
            mend = "take another by --device cuda:N, or hide it by CUDA_VISIBLE_DEVICES"
            yield Finding(name, "missing" if number == index else "warn", f"{gpu} is too old for CUDA 12", mend)
        elif number != index and gpu.capability < OLDEST_GPU[built_for]:  # for the chosen GPU the line of CuPy says so
            mend = f"take another by --device cuda:N; for this one {_replace_command(cupys, 'cuda12')}"
            yield Finding(name, "warn", f"{value} is too old for CUDA {built_for[-2:]}", mend)
        elif gpu.mode in _MODES:
            yield Finding(name, "warn", f"{value}, {_MODES[gpu.mode]}", "sudo nvidia-smi -c 0")
        else:
            yield Finding(name, "ok", value)
    if len(driver.gpus) > 1:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        order = "the fastest first; that of nvidia-smi by export CUDA_DEVICE_ORDER=PCI_BUS_ID"
        if os.environ.get("CUDA_DEVICE_ORDER", "").upper() == "PCI_BUS_ID":
            order = "that of nvidia-smi (CUDA_DEVICE_ORDER=PCI_BUS_ID)"
        yield Finding("GPU order", "ok", order if hidden is None else f"{order}; CUDA_VISIBLE_DEVICES={hidden}")


def _cupy_finding(driver: Driver, extra: str, index: int) -> Finding:
    found, wanted = _installed_cupys(), extra or "cuda13"
    package, version = next(iter(found.items()), ("", ""))
    fits, gpu = _built_for(found), driver.gpus[index] if index < len(driver.gpus) else None
    if len(found) > 1:
        has = f"{', '.join(map(' '.join, found.items()))}: only one may be installed"
    elif importlib.util.find_spec("cupy") is None:
        return Finding("CuPy", "missing", "CuPy is not installed", install_command(wanted))
    elif not found:
        return Finding("CuPy", "ok", "of unknown version")
    elif _is_older(version, OLDEST_CUPY):
        has = f"CuPy is {version}, {OLDEST_CUPY} or newer is needed"
    elif package == "cupy":
        return Finding("CuPy", "ok", f"{version}, not from a wheel")
    elif not fits:
        has = f"{package} is for no CUDA that can be used, 12 or 13 is needed"
    elif extra and OLDEST_DRIVER[fits] > driver.version:
        has = f"CuPy is built for CUDA {fits[-2:]}, the driver goes up to {driver.cuda}"
    elif extra and gpu is not None and gpu.capability < OLDEST_GPU[fits]:
        has = f"CuPy is built for CUDA {fits[-2:]}, which has dropped the {gpu.name}"
    else:
        return Finding("CuPy", "ok", f"{version} for CUDA {fits[-2:]}")
    return Finding("CuPy", "missing", has, _replace_command(found, wanted))


def load_library(name: str) -> tuple[str, str]:
    """Return the path of a CUDA library, or why it cannot be loaded, with the finder of CuPy and nvmath."""
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib

        return os.path.realpath(load_nvidia_dynamic_lib(name).abs_path or ""), ""
    except ImportError:
        return "", "cuda-pathfinder is not installed"
    except (RuntimeError, OSError) as error:
        return "", str(error).splitlines()[0]


def _wheel(library: str, extra: str) -> str:
    """Return the name of the wheel that brings a library."""
    return f"{_OWNERS[library]}{'' if extra == 'cuda13' else '-cu12'}"


def _library_finding(library: str, extra: str, driver: Driver) -> Finding:
    """Check that a CUDA library is there, and belongs to the CUDA that CuPy was built for."""
    name, (path, problem) = LIBRARIES[library], load_library(library)
    if problem:
        wheel, mend = _wheel(library, extra), install_command(extra)
        if (version := installed(wheel)) and not os.environ.get(IMAGE):  # pip takes it for complete
            mend = f"{PIP} install --force-reinstall --no-deps {wheel}=={version}"
        return Finding(name, "missing", f"{name} cannot be loaded: {problem}", mend)
    major = re.search(r"\.so\.(\d+)", path)
    if major is None or major[1] == extra[-2:]:
        return Finding(name, "ok", f"found, CUDA {major[1]}" if major else "found")
    theirs = f"cuda{major[1]}"
    wheels = [wheel for owned in _OWNERS if installed(wheel := _wheel(owned, theirs))]
    if fitting_extra(driver).extra == theirs:  # others brought these libraries, and CuPy can follow
        mend = _replace_command([package for package, fits in CUPY_PACKAGES.items() if fits == extra], theirs)
    elif wheels and "site-packages" in path:
        mend = _replace_command(wheels, extra)
    else:
        mend = f"take {shlex.quote(str(Path(path).parent))} out of LD_LIBRARY_PATH, and unset CUDA_PATH and CUDA_HOME"
    value = f"{name} of CUDA {major[1]} is loaded, CuPy is built for CUDA {extra[-2:]}: {path}"
    return Finding(name, "missing", value, mend)


def first_gpu(driver: Driver) -> int:
    """Return the index of the first GPU that misses nothing; 0 if there is none."""
    usable = (i for i in range(len(driver.gpus)) if all(f.status != "missing" for f in cuda_findings(driver, i)))
    return next(usable, 0)


def cuda_advice(index: int = 0) -> str:
    """Return why a GPU cannot be used and the mend in one line; "" if nothing is missing."""
    missing = (f"{f.value}: {f.mend}" for f in cuda_findings(read_driver(), index) if f.status == "missing")
    return next(missing, "")


if __name__ == "__main__":
    # Nothing is installed yet: with these empty packages Python finds the modules, and runs no __init__.py.
    for name, folder in zip(("gpunn.backend", "gpunn"), Path(__file__).resolve().parents, strict=False):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [str(folder)]
    fit = fitting_extra(read_driver())
    sys.stdout.write(f"{fit.extra or 'cpu'}\n{fit.problem}{': ' if fit.problem else ''}{fit.mend}\n")
