"""The benchmarks' own machinery, on work of a moment: no claim about speed is made here."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent

# A library that has the right answer, and one that makes it easier for itself.
FAKE = """
from protocol import Worker, serve
import numpy as np


class Fake(Worker):
    def __init__(self, task):
        self.task = task
        if task.mode == "absent":
            import a_library_that_is_not_installed

    def describe(self):
        return {"version": "1", "threads": 1, "device": "CPU"}

    def reset(self, seed):
        first, second = self.task.weights(seed)["0.w"], self.task.weights(seed)["2.w"]
        self.w = [first.astype(np.float64), second.astype(np.float64)]
        self.b = [np.zeros(len(w)) for w in self.w]

    def run(self):
        order = self.task.order(0)
        if self.task.mode == "lazy":
            order = order[: self.task.batch]
        if self.task.mode == "broken":
            raise ZeroDivisionError("nothing to divide")
        for start in range(0, len(order), self.task.batch):
            at = order[start : start + self.task.batch]
            x = self.task.inputs[at].reshape(len(at), -1) / 255
            a = np.maximum(x @ self.w[0].T + self.b[0], 0)
            z = a @ self.w[1].T + self.b[1]
            p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
            p[np.arange(len(at)), self.task.labels[at]] -= 1
            delta = p / len(at)
            before = (delta @ self.w[1]) * (a > 0)
            for k, (d, seen) in enumerate(((before, x), (delta, a))):
                self.w[k] -= self.task.rate * d.T @ seen
                self.b[k] -= self.task.rate * d.sum(axis=0)

    def outputs(self, inputs):
        x = inputs.reshape(len(inputs), -1) / 255
        return np.maximum(x @ self.w[0].T + self.b[0], 0) @ self.w[1].T + self.b[1]


serve(Fake)
"""


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The modules of benchmarks/."""
    if not (ROOT / "benchmarks").is_dir():
        pytest.fail("benchmarks/ is missing: run the tests in a checkout")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.delenv("GPUNN_DATA", raising=False)
    import measure
    import peers
    import report
    import workloads

    return SimpleNamespace(measure=measure, peers=peers, report=report, workloads=workloads)


@pytest.fixture
def measured(bench: SimpleNamespace, tmp_path: Path) -> dict[str, Any]:
    """gpunn and four fakes at eight steps."""
    fake = tmp_path / "fake_worker.py"
    fake.write_text(FAKE)
    kinds = ["right", "lazy", "absent", "broken"]
    fakes = [bench.peers.Peer(kind, str(fake), kind, install="pip install it") for kind in kinds]
    work = bench.workloads.Workload("tiny", "tiny", bench.workloads.dense(8, 10), batch=32, steps=8)
    found = bench.measure.rounds_of(
        work, [bench.peers.PEERS[0], *fakes], 2, "cpu", "float32", sys.executable, lambda line: None
    )
    return bench.measure.summarised(work, found)


def row(measured: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in measured["results"] if each["peer"] == name)


def test_who_does_the_same_work_ends_with_the_same_cost(measured: dict[str, Any]) -> None:
    assert row(measured, "right")["loss"] == pytest.approx(row(measured, "gpunn")["loss"], abs=1e-4)
    assert row(measured, "right")["agrees"]
    assert row(measured, "gpunn")["agrees"]


def test_who_does_less_is_found_out(measured: dict[str, Any], bench: SimpleNamespace) -> None:
    assert not row(measured, "lazy")["agrees"]
    assert "COST DIFFERS" in bench.report.table(measured)


def test_what_is_missing_is_said_with_its_install_line_and_not_faked(measured: dict[str, Any]) -> None:
    assert set(measured["absent"]) == {"absent", "broken"}
    assert "not installed" in measured["absent"]["absent"]
    assert "pip install it" in measured["absent"]["absent"]
    assert "ZeroDivisionError: nothing to divide" in measured["absent"]["broken"]


def test_every_round_is_kept(measured: dict[str, Any]) -> None:
    for each in measured["results"]:
        assert len(each["rounds_seconds"]) == 2
        assert 0 < each["least_seconds"] <= each["median_seconds"] <= each["most_seconds"]
        assert each["peak_bytes"] > 0
    assert row(measured, "gpunn")["times_gpunn"] == 1


def program(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """benchmarks/bench.py as one starts it."""
    command = [sys.executable, ROOT / "benchmarks" / "bench.py", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_the_program_writes_table_json_and_chart(tmp_path: Path) -> None:
    # Too little to measure anything by, but the way that a user goes.
    done = program("start", "--rounds", "1", "--device", "cpu", "--peers", "gpunn", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "times gpunn's" in done.stdout
    written = json.loads((tmp_path / "benchmarks.json").read_text())
    assert {"commit", "machine", "command", "precision", "date"} <= set(written)
    assert [each["name"] for each in written["workloads"]] == ["start to the first step, 784-128-10"]
    assert (tmp_path / "benchmarks.png").read_bytes().startswith(b"\x89PNG")


def test_a_group_that_is_not_there_is_wrong_usage() -> None:
    done = program("nothing")
    assert done.returncode == 2
    assert "expected dense, conv" in done.stderr


def test_the_slope_is_the_power_of_growth(bench: SimpleNamespace) -> None:
    assert bench.report.slope([(x, 3 * x**1.5) for x in (1, 10, 100)]) == pytest.approx(1.5)
