"""Processes of their own over the simulated CUDA: for failures, devices and orders that a process is born with."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def environment(**switches: object) -> dict[str, str]:
    """The environment of a process whose CUDA is simulated.

    Args:
        switches: by their names without FAKECUDA_, such as `fail="cudaMalloc:3:2"`; see failures.cpp, devices.cpp,
            memory.cpp, streams.cpp and compiling.py. Names in capitals are variables of their own.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FAKECUDA_")}
    own = {name if name.isupper() else f"FAKECUDA_{name.upper()}": str(value) for name, value in switches.items()}
    paths = [str(HERE / "everywhere"), str(ROOT), str(HERE.parent), kept.get("PYTHONPATH", "")]
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OPENBLAS_NUM_THREADS": "1"} | own


def python(*arguments: str, timeout: float = 300, **switches: object) -> subprocess.CompletedProcess[str]:
    """Run Python over the simulated CUDA: `python("-c", code, devices=2)`, `python("-m", "gpunn", "doctor")`."""
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment(**switches),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
