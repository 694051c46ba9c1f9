"""Marks the tests of the simulator; without g++ they are skipped, with the reason."""

import pytest

from simulator.compiler import missing_compiler


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = missing_compiler()
    for item in items:
        if item.path.parent.name == "simulator":
            item.add_marker(pytest.mark.simulator)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))
