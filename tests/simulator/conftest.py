"""CuPy anew for the tests of this folder: every kernel is compiled with checks of what its threads do to memory."""

from collections.abc import Iterator

import pytest
from simulated_cuda.core import Core, core


@pytest.fixture(scope="module")
def checked() -> Iterator[Core]:
    """The simulated CUDA, and `checks` of it that find something."""
    with core().compiling_checks():
        yield core()
