"""The experiments that wait for a GPU, on the simulated one: they run, and measure what they say."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.paths import ROOT

from gpunn.backend.devices import select

pytestmark = pytest.mark.simulated_cuda


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, its experiments made small."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gpu_questions

    for name in ("SIZES", "COPIED", "IMAGES", "STEPS", "STEPS_PER_GRAPH", "PIECE", "ROUNDS", "networks"):
        monkeypatch.setattr(gpu_questions, name, getattr(gpu_questions, name))  # which puts them back afterwards
    gpu_questions.shrink()
    return gpu_questions


def test_every_question_is_answered(questions: Any) -> None:
    answers = list(questions.ask(select("cuda")))
    assert [what for what, value, _ in answers if value != value] == []  # NaN stands for what failed
    assert len(answers) > 20
    text = "\n".join(what for what, _, _ in answers)
    for part in ("multiprocessors", "a load from the cache", "bandwidth of the cache", "a cut sum"):
        assert part in text  # the constants of gpu_model.py
    parts = ("captured product", "kernel by kernel", "4 in a graph", "data on the host", "cublasLt with epilog")
    for part in (*parts, "over one rank"):
        assert part in text


def test_a_product_with_an_epilog_is_the_same_as_product_bias_and_relu(questions: Any) -> None:
    answers = list(questions.epilogs(select("cuda")))
    differences = [value for what, value, _ in answers if "largest difference" in what]
    assert len(differences) == 3
    assert max(differences) < 1e-5


def test_sums_over_ranks_are_asked_for_only_where_there_is_nccl(
    questions: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from cupy.cuda import nccl

    answers = list(questions.sums(select("cuda")))
    assert {value for what, value, _ in answers if "largest difference" in what} == {0}
    monkeypatch.setattr(nccl, "available", False)
    monkeypatch.setattr(questions, "QUESTIONS", (questions.sums,))
    monkeypatch.setattr("sys.argv", ["gpu_questions.py", "--small", str(tmp_path)])
    assert questions.main() is None
    (skipped,) = json.loads((tmp_path / "gpu-questions.json").read_text("utf-8"))["skipped"]
    assert skipped.startswith("sums over ranks were not tried: several ranks on GPUs need NCCL")


def fails(backend: Any) -> Any:
    raise RuntimeError("no such thing")
    yield


def test_a_question_that_fails_leaves_the_others(questions: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "QUESTIONS", (fails, questions.products))
    answers = list(questions.ask(select("cuda")))
    assert answers[0][0] == "fails failed: RuntimeError: no such thing"
    assert answers[1][0].startswith("captured product: largest difference")
    assert answers[1][1] < 1e-3


def test_a_question_that_fails_fails_the_program(
    questions: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(questions, "QUESTIONS", (questions.products, fails))
    monkeypatch.setattr("sys.argv", ["gpu_questions.py", "--small", str(tmp_path)])
    assert questions.main() == "fails failed: RuntimeError: no such thing"
    result = json.loads((tmp_path / "gpu-questions.json").read_text("utf-8"))
    assert result["failed"] == ["fails failed: RuntimeError: no such thing"]
    assert len(result["answers"]) == len(capsys.readouterr().out.splitlines()) - 1 > 5
