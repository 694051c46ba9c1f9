"""Which CUDA fits the NVIDIA driver, whether it is installed, and the command that mends it where it is not.

Run as a file by a bare Python, before anything is installed (`python -I gpunn/backend/driver.py`), it prints the CUDA
extra that fits the driver: so at module level it imports the standard library only.
"""

from __future__ import annotations

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
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

# CUDA 13 cannot compile for GPUs older than Turing, CUDA 12 for none older than Maxwell.
OLDEST_GPU = {"cuda13": (7, 5), "cuda12": (5, 0)}
OLDEST_DRIVER = {"cuda13": 13000, "cuda12": 12000}
CUPY_PACKAGES = {"cupy-cuda13x": "cuda13", "cupy-cuda12x": "cuda12"}
# For a CUDA that is too old, or for other GPUs; "cupy" is built by hand, for whatever CUDA was there, or is conda's.
_OTHER_CUDAS = (70, 75, 80, 90, 91, 92, 100, 101, 102, *range(110, 118), "10x", "11x", "14x")
OTHER_CUPYS = ("cupy", *(f"cupy-cuda{cuda}" for cuda in _OTHER_CUDAS),
               *(f"cupy-rocm-{rocm}" for rocm in ("4-0", "4-2", "4-3", "5-0", "6-0", "7-0")))  # fmt: skip
OLDEST_CUPY, OLDEST_NVMATH = (14, 2), (1, 0)
_OWNERS = {"cublas": "nvidia-cublas", "nvrtc": "nvidia-cuda-nvrtc", "cudart": "nvidia-cuda-runtime"}
LIBRARIES = {"cublas": "cuBLAS", "nvrtc": "NVRTC", "cudart": "CUDA runtime"}
PIP = f"{shlex.quote(sys.executable)} -m pip"
NO_DRIVER = "no NVIDIA driver was found"
_SILENT = "the NVIDIA driver has not answered for"


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis: `status` "missing" keeps a device from being used, "warn" does not."""

    name: str
    status: Literal["ok", "warn", "missing"]
    value: str
    mend: str = ""


@dataclass(frozen=True)
class Gpu:
    """A CUDA device as its driver describes it."""

    name: str
    memory: int  # bytes
    capability: tuple[int, int]
    pci: str = ""
    mode: int = 0  # CUDA's compute mode: who may use it

    def __str__(self) -> str:
        """The name, memory and compute capability, and where it sits, to be read."""
        major, minor = self.capability
        where = f", PCI {self.pci}" if self.pci else ""
        return f"{self.name}, {self.memory / 2**30:.0f} GiB, compute capability {major}.{minor}{where}"


@dataclass(frozen=True)
class Driver:
    """The NVIDIA driver: the newest CUDA it supports (13000 is 13.0), its devices, or why none can be used."""

    version: int = 0
    gpus: tuple[Gpu, ...] = ()
    problem: str = ""
    code: int = 0


def cuda_version(version: int) -> str:
    """A CUDA version as people write it: 12090 is 12.9."""
    return f"{version // 1000}.{version % 1000 // 10}"


DRIVER_SECONDS = 60
"""How long the driver may take to answer: that of a server with eight GPUs that were asleep needs a quarter of it."""


WSL_DRIVER = "/usr/lib/wsl/lib/libcuda.so.1"
"""Where Windows puts the driver's library. What is loaded from there is what CuPy finds when it asks by the name."""


def read_driver() -> Driver:
    """Asks the NVIDIA driver itself, through ctypes: neither CuPy nor nvidia-smi is needed."""
    library: ctypes.CDLL | None = None
    for name in ("nvcuda.dll",) if os.name == "nt" else ("libcuda.so.1", WSL_DRIVER):
        with contextlib.suppress(OSError):
            library = ctypes.CDLL(name)
            break
    if library is None:
        return Driver(problem=NO_DRIVER)

    def ask() -> Driver:
        try:
            return _ask(library)
        except (AttributeError, ValueError, OSError) as error:  # a library of that name which is another's
            return Driver(problem=f"the NVIDIA driver's library is none: {error}")

    return answered(ask, Driver(problem=f"{_SILENT} {DRIVER_SECONDS} s"))


Answer = TypeVar("Answer")


def answered(ask: Callable[[], Answer], otherwise: Answer) -> Answer:
    """What a question to the driver comes back with, or something else where it does not come back.

    Of a driver that hangs no call comes back, not even by Ctrl-C: it is left in a thread that nobody waits for.
    """
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(ask()), daemon=True)
    thread.start()
    thread.join(DRIVER_SECONDS)
    return answers[0] if answers else otherwise


def _ask(library: ctypes.CDLL) -> Driver:
    number = ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(number))
    version = number.value
    code = library.cuInit(0)
    if not code:
        code = library.cuDeviceGetCount(ctypes.byref(number))
    if code:
        text = ctypes.c_char_p()
        library.cuGetErrorString(code, ctypes.byref(text))
        reason = (text.value or b"unknown error").decode("ascii", "replace")
        return Driver(version, problem=f"the NVIDIA driver reports: {reason} (error {code})", code=code)
    gpus = tuple(_read_gpu(library, index) for index in range(number.value))
    return Driver(version, gpus, "" if gpus else "the NVIDIA driver shows no GPU")


def _read_gpu(library: ctypes.CDLL, index: int) -> Gpu:
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name, memory = ctypes.create_string_buffer(256), ctypes.c_size_t()
    library.cuDeviceGet(ctypes.byref(device), index)
    library.cuDeviceGetName(name, len(name), device)
    library.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    library.cuDeviceGetAttribute(ctypes.byref(major), 75, device)  # COMPUTE_CAPABILITY_MAJOR
    library.cuDeviceGetAttribute(ctypes.byref(minor), 76, device)  # COMPUTE_CAPABILITY_MINOR
    pci, mode = ctypes.create_string_buffer(32), ctypes.c_int()
    with contextlib.suppress(AttributeError, KeyError):  # not every stand-in for the driver has these
        library.cuDeviceGetPCIBusId(pci, len(pci), device)
        library.cuDeviceGetAttribute(ctypes.byref(mode), 20, device)  # COMPUTE_MODE
    capability = major.value, minor.value
    return Gpu(name.value.decode("utf-8", "replace"), memory.value, capability, pci.value.decode("ascii"), mode.value)


@dataclass(frozen=True)
class Fit:
    """The newest CUDA extra that a driver and its GPUs can use, or why there is none and what mends it."""

    extra: str = ""
    problem: str = ""
    mend: str = ""


def fitting_extra(driver: Driver) -> Fit:
    """Chooses between cuda13 and cuda12 by the driver's version and the age of the GPUs that either can use."""
    if driver.problem:
        return Fit("", driver.problem, _mend_of_driver(driver))
    usable = [gpu for gpu in driver.gpus if gpu.capability >= min(OLDEST_GPU.values())]
    for extra, oldest in OLDEST_DRIVER.items():
        if usable and driver.version >= oldest and all(gpu.capability >= OLDEST_GPU[extra] for gpu in usable):
            return Fit(extra)
    newest = cuda_version(driver.version)
    if driver.version < min(OLDEST_DRIVER.values()):
        problem = f"the NVIDIA driver supports CUDA {newest} at most, 12.0 is needed"
        return Fit("", problem, "update the driver to 525 or newer")
    old = min(driver.gpus, key=lambda gpu: gpu.capability)
    return Fit("", f"{old} is too old for CUDA 12", "hide it by CUDA_VISIBLE_DEVICES, or use the CPU")


def _mend_of_driver(driver: Driver) -> str:
    from gpunn.backend.cuda_errors import WSL_MEND, hidden_mend, is_wsl, meaning

    if driver.problem == NO_DRIVER:
        if is_wsl():
            return f"{WSL_MEND}; {WSL_DRIVER} is then there"
        # Of the variables only those of schedulers and of containers keep the driver itself away.
        return "install one (a container gets it from `docker run --gpus all`)"
    if driver.problem.startswith(_SILENT):
        return "reboot: it hangs, as dmesg may say (Xid)"
    if driver.code:
        return meaning("CUDA", driver.code).mend
    return hidden_mend() or meaning("CUDA", 100).mend


IMAGE = "GPUNN_IMAGE"
"""The environment variable that says that this is the project's image, which is built and never changed."""


def install_command(extra: str) -> str:
    """The command that adds an extra to this very Python, from the checkout where there is one."""
    if os.environ.get(IMAGE):
        return f"docker build -t gpunn --build-arg EXTRA={extra} ."
    root = Path(__file__).resolve().parents[2]
    if (root / "pyproject.toml").is_file():
        return f"{PIP} install -e {shlex.quote(f'{root}[{extra}]')}"
    # Never by the name gpunn, which may be anybody's where packages are found: by what the extra consists of.
    return f"{PIP} install {' '.join(map(shlex.quote, _needs_of(extra)))}"


def _needs_of(extra: str) -> list[str]:
    """The requirements of an extra, as the installed package has them."""
    try:
        needs = importlib.metadata.requires("gpunn") or []
    except importlib.metadata.PackageNotFoundError:
        needs = []
    ends = tuple(f"extra == {quote}{extra}{quote}" for quote in "'\"")
    return [need.partition(";")[0].strip() for need in needs if need.rstrip().endswith(ends)] or [f".[{extra}]"]


def _replace_command(packages: Iterable[str], extra: str) -> str:
    """The command that takes packages away and installs an extra."""
    if os.environ.get(IMAGE):
        return install_command(extra)
    if extra == "cuda12":  # the libraries of CUDA 13 would be found before its own
        packages = [*packages, *(owner for owner in _OWNERS.values() if owner not in packages and installed(owner))]
    return f"{PIP} uninstall -y {' '.join(packages)} && {install_command(extra)}"


def reinstall_command() -> str:
    """The command that replaces a CuPy that is damaged."""
    found = [package for package in (*CUPY_PACKAGES, *OTHER_CUPYS) if installed(package)]
    fits = next((CUPY_PACKAGES[package] for package in found if package in CUPY_PACKAGES), "")
    extra = fits or fitting_extra(read_driver()).extra or "cuda13"
    return _replace_command(found, extra) if found else install_command(extra)


def installed(package: str) -> str:
    """The version of an installed package, or ""."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


_loaded: dict[str, str] = {}
"""Where each CUDA library was loaded from, by the last question for its problem; its name ends with its version."""


def library_problem(name: str) -> str:
    """Why a CUDA library cannot be loaded, or "": asks the finder that CuPy and nvmath use themselves."""
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib

        _loaded[name] = os.path.realpath(load_nvidia_dynamic_lib(name).abs_path or "")
    except ImportError:
        return "cuda-pathfinder is not installed"
    except (RuntimeError, OSError) as error:
        return str(error).splitlines()[0]
    return ""


def _is_older(version: str, oldest: tuple[int, int]) -> bool:
    numbers = re.match(r"(\d+)\.(\d+)", version)
    return numbers is not None and (int(numbers[1]), int(numbers[2])) < oldest


def _cupy_finding(driver: Driver, extra: str, index: int) -> Finding:
    known = (*CUPY_PACKAGES, *OTHER_CUPYS)
    found = {package: version for package in known if (version := installed(package))}
    value = ", ".join(f"{package} {version}" for package, version in found.items())
    wanted = extra or "cuda13"
    if len(found) > 1:
        return Finding("CuPy", "missing", f"{value}: only one may be installed", _replace_command(found, wanted))
    if importlib.util.find_spec("cupy") is None:
        return Finding("CuPy", "missing", "CuPy is not installed", install_command(wanted))
    for package, version in found.items():
        fits = CUPY_PACKAGES.get(package, "")
        gpu = driver.gpus[index] if index < len(driver.gpus) else None
        if _is_older(version, OLDEST_CUPY):
            has = f"CuPy is {version}, {OLDEST_CUPY[0]}.{OLDEST_CUPY[1]} or newer is needed"
        elif package == "cupy":
            return Finding("CuPy", "ok", f"{version}, not from a wheel")
        elif not fits:
            has = f"{package} is for no CUDA that can be used, 12 or 13 is needed"
        elif extra and OLDEST_DRIVER[fits] > driver.version:
            has = f"CuPy is built for CUDA {fits[-2:]}, the driver goes up to {cuda_version(driver.version)}"
        elif extra and gpu is not None and gpu.capability < OLDEST_GPU[fits]:
            has = f"CuPy is built for CUDA {fits[-2:]}, which has dropped the {gpu.name}"
        else:
            return Finding("CuPy", "ok", f"{version} for CUDA {fits[-2:]}")
        return Finding("CuPy", "missing", has, _replace_command([package], wanted))
    return Finding("CuPy", "ok", "of unknown version")


def _library_finding(library: str, name: str, extra: str, driver: Driver) -> Finding:
    """Whether a library of CUDA is there, and of the CUDA that CuPy was built for."""
    suffix = "" if extra == "cuda13" else "-cu12"
    if problem := library_problem(library):
        wheel = f"{_OWNERS[library]}{suffix}"
        mend = install_command(extra)
        if (version := installed(wheel)) and not os.environ.get(IMAGE):  # to pip all is there
            mend = f"{PIP} install --force-reinstall --no-deps {wheel}=={version}"
        return Finding(name, "missing", f"{name} cannot be loaded: {problem}", mend)
    path = _loaded.pop(library, "")
    major = re.search(r"\.so\.(\d+)", path) or re.search(r"64_(\d\d)", path)
    if major is None or major[1] == extra[-2:]:
        return Finding(name, "ok", f"found{f', CUDA {major[1]}' if major else ''}")
    value = f"{name} of CUDA {major[1]} is loaded, CuPy is built for CUDA {extra[-2:]}: {path}"
    theirs = f"cuda{major[1]}"
    cupy = next(package for package, fits in CUPY_PACKAGES.items() if fits == extra)
    if fitting_extra(driver).extra == theirs:  # others brought these libraries, and CuPy can follow
        return Finding(name, "missing", value, _replace_command([cupy], theirs))
    suffix = "" if theirs == "cuda13" else "-cu12"
    wheels = [f"{owner}{suffix}" for owner in _OWNERS.values() if installed(f"{owner}{suffix}")]
    if wheels and "site-packages" in path:
        return Finding(name, "missing", value, _replace_command(wheels, extra))
    folder = shlex.quote(str(Path(path).parent))
    return Finding(name, "missing", value, f"take {folder} out of LD_LIBRARY_PATH, and unset CUDA_PATH and CUDA_HOME")


def _gpu_findings(driver: Driver, index: int, in_use: Callable[[Gpu], str]) -> list[Finding]:
    """The GPUs in CUDA's order, what else uses them, who may, and which are too old for what is installed."""
    from gpunn.backend.gpu_state import mode_problem, order

    findings = []
    built_for = next((fits for package, fits in CUPY_PACKAGES.items() if installed(package)), "cuda12")
    for number, gpu in enumerate(driver.gpus):
        name, value = f"GPU {number}", f"{gpu}{in_use(gpu)}"
        if gpu.capability < min(OLDEST_GPU.values()):
            mend = "take another by --device cuda:N, or hide it by CUDA_VISIBLE_DEVICES"
            status: Literal["warn", "missing"] = "missing" if number == index else "warn"
            findings.append(Finding(name, status, f"{gpu} is too old for CUDA 12", mend))
        elif number != index and gpu.capability < OLDEST_GPU[built_for]:  # that of the one asked for stands with CuPy
            mend = f"take another by --device cuda:N; for this one {_other_cupy('cuda12')}"
            findings.append(Finding(name, "warn", f"{value} is too old for CUDA {built_for[-2:]}", mend))
        elif problem := mode_problem(gpu.mode):
            findings.append(Finding(name, "warn", f"{value}, {problem}", "sudo nvidia-smi -c 0"))
        else:
            findings.append(Finding(name, "ok", value))
    if len(driver.gpus) > 1:
        findings.append(Finding("GPU order", "ok", order()))
    return findings


def _other_cupy(extra: str) -> str:
    """The command that puts the CuPy of another extra in the place of what is installed."""
    return _replace_command([package for package in (*CUPY_PACKAGES, *OTHER_CUPYS) if installed(package)], extra)


def cuda_findings(driver: Driver, index: int = 0, in_use: Callable[[Gpu], str] = lambda _: "") -> list[Finding]:
    """Look for everything that a device needs: the driver, CuPy, and its libraries."""
    fit = fitting_extra(driver)
    extra = fit.extra
    if fit.problem:
        findings = [Finding("NVIDIA driver", "missing", fit.problem, fit.mend)]
    else:
        findings = [Finding("NVIDIA driver", "ok", f"for CUDA up to {cuda_version(driver.version)}")]
    findings += _gpu_findings(driver, index, in_use)
    cupy = _cupy_finding(driver, extra, index)
    findings.append(cupy)
    # The libraries belong to the CUDA that CuPy was built for, right or wrong; mending CuPy mends them too.
    extra = next((fits for package, fits in CUPY_PACKAGES.items() if installed(package)), extra or "cuda13")
    findings += [_library_finding(library, name, extra, driver) for library, name in LIBRARIES.items()]
    version = installed("nvmath-python")
    if version and _is_older(version, OLDEST_NVMATH):
        has = f"nvmath-python is {version}, {OLDEST_NVMATH[0]}.{OLDEST_NVMATH[1]} or newer is needed"
        findings.append(Finding("nvmath", "missing", has, install_command(extra)))
    elif version:
        findings.append(Finding("nvmath", "ok", version))
    else:
        findings.append(Finding("nvmath", "missing", "nvmath-python is not installed", install_command(extra)))
    return findings


def first_gpu(driver: Driver) -> int:
    """The first GPU that nothing is seen to be missing for; 0 where there is none."""
    for index in range(len(driver.gpus)):
        if all(finding.status != "missing" for finding in cuda_findings(driver, index)):
            return index
    return 0


def cuda_advice(index: int = 0) -> str:
    """Why a GPU cannot be used, and the mend, in one line; "" if nothing is seen to be missing."""
    for finding in cuda_findings(read_driver(), index):
        if finding.status == "missing":
            return f"{finding.value}: {finding.mend}"
    return ""


if __name__ == "__main__":
    # Nothing is installed yet: modules of the package are found in these folders, without what the packages import.
    for name, folder in zip(("gpunn.backend", "gpunn"), Path(__file__).resolve().parents, strict=False):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [str(folder)]
    fit = fitting_extra(read_driver())
    sys.stdout.write(f"{fit.extra or 'cpu'}\n{fit.problem}{': ' if fit.problem else ''}{fit.mend}\n")
