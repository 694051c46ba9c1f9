"""Python reads this when it starts with this folder on its path: CUDA is then simulated, in every process."""

import sys
from pathlib import Path

_TESTS = str(Path(__file__).resolve().parents[2])
sys.path.insert(0, _TESTS)
try:
    from simulated_cuda.installing import install, problem

    if not problem():
        install()
finally:
    sys.path.remove(_TESTS)
