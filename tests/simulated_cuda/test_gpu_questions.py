"""The experiments that wait for a GPU, on the simulated one: they run, and measure what they say."""

from pathlib import Path
from typing import Any

import pytest

import gpunn as gn
from gpunn.backend import select
from simulated_cuda.core import Core

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def questions(cuda: Core, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, its experiments made small."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gpu_questions

    # Once instead of many times, to see that it can be done; no time of a simulator means anything.
    monkeypatch.setattr(gpu_questions, "seconds", lambda backend, work, times: work() or 1e-6)
    monkeypatch.setattr(gpu_questions, "host_seconds", lambda backend, work, times: work() or 1e-6)
    small = {"SIZES": (64, 512), "COPIED": 1 << 16, "IMAGES": 600, "STEPS": 4, "STEPS_PER_GRAPH": (1, 4)}
    small |= {"PIECE": 1 << 16, "networks": lambda: {"784-16-10": [gn.Dense(16), gn.ReLU(), gn.Dense(10)]}}
    for name, value in small.items():
        monkeypatch.setattr(gpu_questions, name, value)
    return gpu_questions


def test_every_question_is_answered(questions: Any) -> None:
    answers = list(questions.ask(select("cuda")))
    assert [what for what, value, _ in answers if value != value] == []  # NaN stands for what failed
    assert len(answers) > 20
    text = "\n".join(what for what, _, _ in answers)
    for part in ("captured product", "kernel by kernel", "4 in a graph", "data on the host", "cublasLt with epilog"):
        assert part in text


def test_a_product_with_an_epilog_is_the_same_as_product_bias_and_relu(questions: Any) -> None:
    answers = list(questions.epilogs(select("cuda")))
    differences = [value for what, value, _ in answers if "largest difference" in what]
    assert len(differences) == 3
    assert max(differences) < 1e-5


def test_a_question_that_fails_leaves_the_others(questions: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(backend: Any) -> Any:
        raise RuntimeError("no such thing")
        yield

    monkeypatch.setattr(questions, "QUESTIONS", (fails, questions.products))
    answers = list(questions.ask(select("cuda")))
    assert answers[0][0] == "fails failed: RuntimeError: no such thing"
    assert answers[1][0].startswith("captured product: largest difference")
    assert answers[1][1] < 1e-3
