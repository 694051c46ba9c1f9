"""What a measurement was made on and with, for the JSON files in results/."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np

import gpunn
from gpunn.kernels.loops import version


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
    }


def command() -> str:
    """The command line that a script was started with, from the repository's root."""
    threads = os.environ.get("OPENBLAS_NUM_THREADS")
    before = f"OPENBLAS_NUM_THREADS={threads} " if threads else ""
    return f"{before}python benchmarks/{Path(sys.argv[0]).name} {' '.join(sys.argv[1:])}".strip()
