"""What is installed, what is missing for a GPU, and the command that mends it.

Run as a file by a bare Python, before anything is installed (`python -I gpunn/doctor.py`), it prints the CUDA
extra that fits the driver: so at module level it imports the standard library only.
"""

import ctypes
import importlib
import importlib.metadata
import importlib.util
import os
import shlex
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

# CUDA 13 cannot compile for GPUs older than Turing, CUDA 12 for none older than Maxwell.
OLDEST_GPU = {"cuda13": (7, 5), "cuda12": (5, 0)}
OLDEST_DRIVER = {"cuda13": 13000, "cuda12": 12000}
CUPY_PACKAGES = {"cupy-cuda13x": "cuda13", "cupy-cuda12x": "cuda12"}
LIBRARIES = {"cublas": "cuBLAS", "nvrtc": "NVRTC", "cudart": "CUDA runtime"}
_PIP = f"{shlex.quote(sys.executable)} -m pip"
_NO_DRIVER = "no NVIDIA driver was found"


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

    def __str__(self) -> str:
        """The name, memory and compute capability, to be read."""
        major, minor = self.capability
        return f"{self.name}, {self.memory / 2**30:.0f} GiB, compute capability {major}.{minor}"


@dataclass(frozen=True)
class Driver:
    """The NVIDIA driver: the newest CUDA it supports (13000 is 13.0), its devices, why none can be used."""

    version: int = 0
    gpus: tuple[Gpu, ...] = ()
    problem: str = ""


def cuda_version(version: int) -> str:
    """A CUDA version as people write it: 12090 is 12.9."""
    return f"{version // 1000}.{version % 1000 // 10}"


def read_driver() -> Driver:
    """Asks the NVIDIA driver itself, through ctypes: neither CuPy nor nvidia-smi is needed."""
    try:
        library = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return Driver(problem=_NO_DRIVER)
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
        return Driver(version, problem=f"the NVIDIA driver reports: {reason} (error {code})")
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
    return Gpu(name.value.decode("utf-8", "replace"), memory.value, (major.value, minor.value))


@dataclass(frozen=True)
class Fit:
    """The newest CUDA extra that a driver and its GPUs can use, or why there is none and what mends it."""

    extra: str = ""
    problem: str = ""
    mend: str = ""


def fitting_extra(driver: Driver) -> Fit:
    """Chooses between cuda13 and cuda12 by the driver's version and the age of the GPUs."""
    if driver.problem == _NO_DRIVER:
        return Fit("", _NO_DRIVER, "install one (a container gets it from `docker run --gpus all`)")
    if driver.problem:
        hidden = "CUDA_VISIBLE_DEVICES" in os.environ
        return Fit(
            "",
            driver.problem,
            "unset CUDA_VISIBLE_DEVICES" if hidden else "see whether nvidia-smi shows a GPU",
        )
    for extra, oldest in OLDEST_DRIVER.items():
        if driver.version >= oldest and all(gpu.capability >= OLDEST_GPU[extra] for gpu in driver.gpus):
            return Fit(extra)
    newest = cuda_version(driver.version)
    if driver.version < min(OLDEST_DRIVER.values()):
        problem = f"the NVIDIA driver supports CUDA {newest} at most, 12.0 is needed"
        return Fit("", problem, "update the driver to 525 or newer")
    old = min(driver.gpus, key=lambda gpu: gpu.capability)
    return Fit("", f"{old} is too old for CUDA 12", "hide it by CUDA_VISIBLE_DEVICES, or use the CPU")


def install_command(extra: str) -> str:
    """The command that adds an extra to this very Python, from the checkout where there is one."""
    root = Path(__file__).resolve().parent.parent
    source = f"-e {shlex.quote(f'{root}[{extra}]')}" if (root / "pyproject.toml").is_file() else f"'gpunn[{extra}]'"
    return f"{_PIP} install {source}"


def installed(package: str) -> str:
    """The version of an installed package, or ""."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _library_problem(name: str) -> str:
    """Why a CUDA library cannot be loaded, or "": asks the finder that CuPy and nvmath use themselves."""
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib

        load_nvidia_dynamic_lib(name)
    except ImportError:
        return "cuda-pathfinder is not installed"
    except (RuntimeError, OSError) as error:
        return str(error).splitlines()[0]
    return ""


def _cupy_finding(driver: Driver, extra: str) -> Finding:
    found = {package: version for package in CUPY_PACKAGES if (version := installed(package))}
    value = ", ".join(f"{package} {version}" for package, version in found.items())
    wanted = extra or "cuda13"
    if len(found) > 1:
        mend = f"{_PIP} uninstall -y {' '.join(found)} && {install_command(wanted)}"
        return Finding("CuPy", "missing", f"{value}: only one may be installed", mend)
    if importlib.util.find_spec("cupy") is None:
        return Finding("CuPy", "missing", "CuPy is not installed", install_command(wanted))
    for package, version in found.items():
        fits = CUPY_PACKAGES[package]
        if extra and OLDEST_DRIVER[fits] > driver.version:
            has = f"CuPy is built for CUDA {fits[-2:]}, the driver goes up to {cuda_version(driver.version)}"
        elif extra and any(gpu.capability < OLDEST_GPU[fits] for gpu in driver.gpus):
            has = f"CuPy is built for CUDA {fits[-2:]}, which has dropped the {driver.gpus[0].name}"
        else:
            return Finding("CuPy", "ok", f"{version} for CUDA {fits[-2:]}")
        mend = f"{_PIP} uninstall -y {package} && {install_command(extra)}"
        return Finding("CuPy", "missing", has, mend)
    return Finding("CuPy", "ok", installed("cupy") or "of unknown version")


def _cuda_findings(driver: Driver) -> list[Finding]:
    fit = fitting_extra(driver)
    extra = fit.extra
    if fit.problem:
        findings = [Finding("NVIDIA driver", "missing", fit.problem, fit.mend)]
    else:
        findings = [Finding("NVIDIA driver", "ok", f"for CUDA up to {cuda_version(driver.version)}")]
    findings += [Finding(f"GPU {index}", "ok", str(gpu)) for index, gpu in enumerate(driver.gpus)]
    cupy = _cupy_finding(driver, extra)
    findings.append(cupy)
    # The libraries belong to the CUDA that CuPy was built for, right or wrong; mending CuPy mends them too.
    extra = extra or next((fits for package, fits in CUPY_PACKAGES.items() if installed(package)), "cuda13")
    for library, name in LIBRARIES.items():
        problem = _library_problem(library)
        findings.append(
            Finding(name, "missing", f"{name} cannot be loaded: {problem}", install_command(extra))
            if problem
            else Finding(name, "ok", "found")
        )
    version = installed("nvmath-python")
    findings.append(
        Finding("nvmath", "ok", version)
        if version
        else Finding("nvmath", "missing", "nvmath-python is not installed", install_command(extra))
    )
    return findings


def cuda_advice() -> str:
    """Why no GPU can be used, and the mend, in one line; "" if nothing is seen to be missing."""
    for finding in _cuda_findings(read_driver()):
        if finding.status == "missing":
            return f"{finding.value}: {finding.mend}"
    return ""


def _version_finding(package: str) -> Finding:
    version = installed(package)
    if version:
        return Finding(package, "ok", version)
    return Finding(package, "missing", "not installed", f"{_PIP} install {package}")


def _blas_finding() -> Finding:
    import numpy  # noqa: F401  # so that its BLAS is loaded, and found
    from threadpoolctl import threadpool_info

    pools: list[dict[str, Any]] = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    value = "; ".join(
        f"{pool['internal_api']} {pool['version'] or '?'}, {pool['num_threads']} "
        f"thread{'s' if pool['num_threads'] != 1 else ''}, {Path(pool['filepath']).name}"
        for pool in pools
    )
    if not pools:
        return Finding(
            "BLAS", "warn", "none recognised: the CPU may be slow", f"{_PIP} install --force-reinstall numpy"
        )
    if len(pools) > 1:
        return Finding("BLAS", "warn", f"{value}: two pools of threads are slow", "import neither SciPy nor PyTorch")
    return Finding("BLAS", "ok", value)


def _processor_finding() -> Finding:
    """The cores, and whether threads of a BLAS that cannot be told to take fewer get one each.

    Where they do not, they wait for each other, and a step can take a hundred times as long.
    """
    from gpunn.blas import shares_cores, threads
    from gpunn.kernels.cores import cores

    count, allowed, busy = threads(), cores(), os.getloadavg()[0]
    value = f"{allowed} core{'s' if allowed != 1 else ''}"
    if shares_cores():
        return Finding("processor", "ok", value)
    if count > allowed:
        mend = f"export OPENBLAS_NUM_THREADS={allowed}"
        return Finding("processor", "warn", f"{value}, but BLAS has {count} threads, which wait for each other", mend)
    if count > 1 and busy > allowed / 2:
        what = f"{value}, and work for {busy:.1f} of them: threads of BLAS that wait for each other can be 100 × slower"
        return Finding("processor", "warn", what, "end the other programs, or export OPENBLAS_NUM_THREADS=1")
    return Finding("processor", "ok", value)


def _loops_finding() -> Finding:
    """Whether the loops of the CPU's kernels are compiled: networks for images are then faster."""
    from gpunn.kernels.loops import OFF, version

    if version():
        try:
            importlib.import_module("numba")
        except ImportError as error:
            mend = f"{_PIP} install --upgrade numba, or export {OFF}=0"
            return Finding("Numba", "warn", f"{version()} cannot be used: {error}", mend)
        return Finding("Numba", "ok", f"{version()}: compiles the loops of larger networks")
    if installed("numba"):
        return Finding("Numba", "ok", f"{installed('numba')}, unused: {OFF} is 0")
    what = "not installed; with it, networks for images train faster on the CPU"
    return Finding("Numba", "ok", what, install_command("numba"))


def _folder_finding(name: str, folder: Path, variable: str) -> Finding:
    """Whether a file can be written in a folder, or in the nearest parent where it would be made."""
    mend = f"export {variable}=FOLDER with a folder that can be written"
    nearest = folder
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        return Finding(name, "warn", f"{folder}: {error.strerror or error}", mend)
    return Finding(name, "ok", str(folder))


def _data_findings() -> list[Finding]:
    from gpunn.data.load import user_cache

    findings = [_folder_finding("data cache", user_cache(), "XDG_CACHE_HOME")]
    if named := os.environ.get("GPUNN_DATA"):
        there = Path(named).is_dir()
        mend = "let GPUNN_DATA name a folder, or unset it"
        findings.append(
            Finding("GPUNN_DATA", "ok", named) if there else Finding("GPUNN_DATA", "warn", f"{named}: no folder", mend)
        )
    return findings


def kernel_cache() -> Path:
    """Where CuPy keeps compiled kernels: CUPY_CACHE_DIR, or its folder in the user's home."""
    return Path(os.environ.get("CUPY_CACHE_DIR") or Path.home() / ".cupy" / "kernel_cache")


def diagnose() -> list[Finding]:
    """Everything that decides on what gpunn can run here, and how fast.

    Returns:
        Findings in the order in which they are best read: Python, packages, BLAS, folders, CUDA.
    """
    from gpunn import __version__

    python = ".".join(map(str, sys.version_info[:3]))
    findings = [
        Finding("gpunn", "ok", __version__),
        Finding("Python", "ok", f"{python}, {sys.executable}"),
        *(_version_finding(package) for package in ("numpy", "matplotlib", "pillow", "pooch")),
        _blas_finding(),
        _processor_finding(),
        _loops_finding(),
        *_data_findings(),
        _folder_finding("kernel cache", kernel_cache(), "CUPY_CACHE_DIR"),
    ]
    driver = read_driver()
    cuda = _cuda_findings(driver)
    if not driver.gpus:
        # Without a GPU nothing of CUDA is needed: the first line says so, the rest is for whoever adds one.
        cuda = [Finding(f.name, "warn" if f.status == "missing" else f.status, f.value, f.mend) for f in cuda]
    return findings + cuda


def format_findings(findings: list[Finding]) -> str:
    """The diagnosis as text: one line a finding, and below it, or below those it mends as well, its mend."""
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding, following in zip(findings, [*findings[1:], None], strict=True):
        lines.append(f"{finding.status:7}  {finding.name:{width}}  {finding.value}")
        if finding.mend and (following is None or following.mend != finding.mend):
            lines.append(f"{'':7}  {'':{width}}  -> {finding.mend}")
    return "\n".join(lines)


if __name__ == "__main__":
    fit = fitting_extra(read_driver())
    sys.stdout.write(f"{fit.extra or 'cpu'}\n{fit.problem}{': ' if fit.problem else ''}{fit.mend}\n")
