"""Every test that a GPU gets, on the simulated one: so the GPU suite is known to be right before a GPU is at hand."""

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpunn.backend import Backend, select
from simulator.installing import installed
from simulator.machine import Machine


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    """The device of the tests below, in place of those of tests/harness.py."""
    with installed(Machine()) as machine:
        machine.scheduling.races = False  # they are looked for in test_kernels.py, which is quicker without these
        yield select("cuda")


# These train for long, or draw hundreds of networks: minutes in the simulator, and what they show others show too.
TOO_LONG = re.compile(
    r"_learns?_|noise_is_overfitted|through_(stacks|networks)_of_any|through_whole_networks|recomputed_in_one_pass"
)

for _path in sorted(Path(__file__).parents[1].glob("test_*.py")):
    if "backend: Backend" in _path.read_text("utf-8"):
        for _name, _test in vars(importlib.import_module(_path.stem)).items():
            is_a_test = _name.startswith("test_") and not TOO_LONG.search(_name)
            if is_a_test and "backend" in inspect.signature(_test).parameters:
                globals()[f"{_path.stem}_{_name.removeprefix('test_')}"] = _test
