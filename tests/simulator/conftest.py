"""The simulated machine as a fixture; without g++ its tests are skipped, with the reason."""

from collections.abc import Iterator

import pytest

from simulator.compiler import missing_compiler
from simulator.installing import installed
from simulator.machine import Machine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of this folder, and skips them where kernels cannot be compiled."""
    reason = missing_compiler()
    for item in items:
        if item.path.parent.name == "simulator":
            item.add_marker(pytest.mark.simulator)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def machine() -> Iterator[Machine]:
    """A simulated CUDA device, used by everything that asks for device="cuda"."""
    with installed(Machine()) as device:
        yield device
