"""Marks the tests of this folder: they run on the simulated CUDA alone."""

from collections.abc import Iterator

import pytest

from simulated_cuda.core import Core, core


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name == "simulated_cuda":
            item.add_marker(pytest.mark.simulated_cuda)


@pytest.fixture
def cuda() -> Iterator[Core]:
    """The simulated CUDA; its order of work is put back after the test."""
    simulated = core()
    before = simulated.order
    simulated.reset()
    yield simulated
    simulated.set_order(before)
