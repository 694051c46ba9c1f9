"""What the tests of the simulated CUDA use."""

from collections.abc import Iterator

import pytest

from simulated_cuda.core import Core, core


@pytest.fixture
def cuda() -> Iterator[Core]:
    """The simulated CUDA; its order of work is put back after the test."""
    simulated = core()
    before = simulated.order
    simulated.reset()
    yield simulated
    simulated.set_order(before)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Everything that trainings say within the test."""
    texts: list[str] = []
    monkeypatch.setattr("gpunn.train.trainer.Trainer.say", lambda self, text: texts.append(text))
    return texts
