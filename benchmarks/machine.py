"""Describe the machine and versions of a measurement, and write and read the JSON files of results/."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

import gpunn
from gpunn.backend.ranks import world
from gpunn.kernels.numba_loops import version

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def machine() -> dict[str, Any]:
    """Processor, cores, versions: enough to judge a figure, nothing that names the machine."""
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        processor = names[0] if names else processor
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": version(),
        "gpunn": gpunn.__version__,
        **({"simulated": True} if is_simulated() else {}),
    }


def is_simulated() -> bool:
    """Return whether CUDA in this process is the one of tests/simulated_cuda, which is no GPU."""
    return "simulated_cuda.installing" in sys.modules


def command() -> str:
    """Return the command line of this script, from the repository's root."""
    threads = os.environ.get("OPENBLAS_NUM_THREADS")
    before = f"OPENBLAS_NUM_THREADS={threads} " if threads else ""
    before += f"mpiexec -n {world().size} " if world().size > 1 else ""
    return f"{before}python benchmarks/{Path(sys.argv[0]).name} {' '.join(sys.argv[1:])}".strip()


def commit() -> str:
    """Return the measured commit, with "+" if the code has changed since."""

    def git(*words: str) -> str:
        try:
            return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return ""

    changed = git("status", "--porcelain", "-uno", "gpunn", "benchmarks/*.py")
    return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")


def write_result(path: Path, result: dict[str, Any]) -> None:
    """Write a result as JSON; what the simulated CUDA gave goes nowhere below results/."""
    refuse_simulated(path, result)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


def read_result(path: Path) -> dict[str, Any]:
    """Read a result that a page is to be made of."""
    result: dict[str, Any] = json.loads(path.read_text("utf-8"))
    refuse_simulated(path, result, RESULTS)
    return result


def refuse_simulated(path: Path, result: dict[str, Any], folder: Path | None = None) -> None:
    """End the program where a result of the simulated CUDA is below benchmarks/results, or said to be."""
    if result["machine"].get("simulated") and (folder or path.resolve()).is_relative_to(RESULTS):
        sys.exit(f"{path.name}: figures of the simulated CUDA are of no GPU: give them another folder than results/")
