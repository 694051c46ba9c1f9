"""Import modules that only a checkout of the repository has."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from gpunn.errors import GpunnError


def import_benchmark(module: str, what_comes: str) -> Any:
    """Import a module of `benchmarks/`, which an installed package lacks."""
    folder = Path(__file__).resolve().parent.parent.parent / "benchmarks"
    if not (folder / f"{module}.py").is_file():
        mend = "clone the repository, pip install -e . in it, and run the command again"
        raise GpunnError(f"{what_comes} with the source, not with the package: {mend}")
    sys.path.insert(0, str(folder))
    return import_module(module)
