"""Diagnose what gpunn can run here, and how fast."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpunn.backend.driver import (
    PIP,
    Finding,
    Gpu,
    answered,
    cuda_findings,
    first_gpu,
    install_command,
    installed,
    read_driver,
)


def _in_use(gpu: Gpu) -> str:
    from gpunn.backend.gpu_state import in_use

    return answered(lambda: in_use(gpu.pci, gpu.memory), ", and its memory cannot be asked for: NVML does not answer")


def _trial_findings(index: int) -> Iterator[Finding]:
    """What comes of using a device, step by step, up to the first that fails."""
    from gpunn.backend.devices import trials
    from gpunn.backend.trial import trouble_in

    for name, attempt in trials(index):
        try:
            yield Finding(name, "ok", attempt())
        except Exception as error:  # noqa: BLE001 - the doctor survives what patients do
            yield Finding(name, "missing", *trouble_in(error))
            return


def _version_finding(package: str) -> Finding:
    version = installed(package)
    if version:
        return Finding(package, "ok", version)
    return Finding(package, "missing", "not installed", f"{PIP} install {package}")


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
        return Finding("BLAS", "warn", "none recognised: the CPU may be slow", f"{PIP} install --force-reinstall numpy")
    if len(pools) > 1:
        return Finding("BLAS", "warn", f"{value}: two pools of threads are slow", "import neither SciPy nor PyTorch")
    return Finding("BLAS", "ok", value)


def _processor_finding() -> Finding:
    """The cores, and whether threads of a BLAS that cannot be told to take fewer get one each.

    Where they do not, they wait for each other, and a step can take a hundred times as long.
    """
    from gpunn.backend.blas import shares_cores, threads
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
            mend = f"{PIP} install --upgrade numba, or export {OFF}=0"
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


def _cache_finding() -> Finding:
    """Whether compiled kernels can be kept, and those that are there read: of another user's they cannot."""
    from gpunn.backend.kernel_cache import VARIABLE, kernel_cache

    finding, folder = _folder_finding("kernel cache", kernel_cache(), VARIABLE), kernel_cache()
    if finding.status == "ok" and folder.is_dir():
        foreign = next((path for path in folder.iterdir() if not os.access(path, os.R_OK)), None)
        if foreign is not None:
            mend = f"export {VARIABLE}=FOLDER with a folder of your own"
            return Finding("kernel cache", "warn", f"{folder}: {foreign.name} is another user's", mend)
    return finding


def diagnose() -> list[Finding]:
    """Everything that decides on what gpunn can run here, and how fast.

    Returns:
        Findings in the order in which they are best read: Python, packages, BLAS, folders, CUDA.
    """
    from gpunn.version import __version__

    python = ".".join(map(str, sys.version_info[:3]))
    findings = [
        Finding("gpunn", "ok", __version__),
        Finding("Python", "ok", f"{python}, {sys.executable}"),
        *(_version_finding(package) for package in ("numpy", "matplotlib", "pillow", "pooch")),
        _blas_finding(),
        _processor_finding(),
        _loops_finding(),
        *_data_findings(),
        _cache_finding(),
    ]
    driver = read_driver()
    index = first_gpu(driver)
    cuda = cuda_findings(driver, index, _in_use)
    if driver.gpus and all(finding.status != "missing" for finding in cuda):
        cuda += _trial_findings(index)
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
