"""Metrics in experiment files: kept in what a run writes, found in modules that are allowed, and resumed."""

import json
from pathlib import Path

import pytest
from support.cli_helpers import TINY, gpunn, own_folder, without_pictures

import gpunn as gn

folder = pytest.fixture(own_folder)
MODULE = """
import gpunn as gn
import numpy as np


def share(y_true, y_pred):
    return float((y_true == y_pred).mean())


class Power(gn.Metric):
    def __init__(self, exponent=1.0):
        self.exponent = exponent

    def __call__(self, y_true, y_pred, sample_weight=None):
        return share(y_true, y_pred) ** self.exponent
"""
METRICS = 'metrics = ["f1", "sharing:share", { type = "sharing:Power", exponent = 2.0 }]\n'
ALLOW = ("--allow-import", "sharing")


@pytest.fixture
def own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    without_pictures(monkeypatch)
    monkeypatch.syspath_prepend(folder)
    (folder / "sharing.py").write_text(MODULE)
    (folder / "own.toml").write_text(METRICS + TINY)
    return folder


def test_a_run_keeps_its_metrics_and_resumes_with_them(own: Path) -> None:
    done = gpunn("train", "--recipe", "own.toml", "--out", "run", *ALLOW)
    assert done.code == 0, done.err
    history, written = gn.History.read_csv("run/history.csv"), json.loads(Path("run/metrics.json").read_text())
    assert list(history[-1].metrics) == ["f1", "share", "Power"]
    assert written["metrics"] == history[-1].metrics
    assert history["share"] == pytest.approx(history["validation_accuracy"])
    assert history["Power"] == pytest.approx([value**2 for value in history["share"]])
    part = written["test"] or written["validation"]
    assert part["metrics"]["share"] == pytest.approx(part["accuracy"])
    page = Path("run/report.md").read_text()
    assert f"share {part['metrics']['share']:.6g}" in page
    assert "gpunn train --recipe experiment.toml --allow-import sharing" in page
    refused = gpunn("train", "--resume", "run", "--epochs", "3")
    assert refused.code != 0
    assert "--allow-import sharing" in refused.err
    more = gpunn("train", "--resume", "run", "--epochs", "3", *ALLOW)
    assert more.code == 0, more.err
    longer = gn.History.read_csv("run/history.csv")
    assert longer["f1"][: len(history)] == history["f1"]
    assert len(longer) > len(history)
    again = gpunn("train", "--recipe", "own.toml", "--out", "run", *ALLOW)
    assert "--resume run --allow-import sharing" in again.err


def test_no_metrics_leave_all_files_as_they_were(own: Path) -> None:
    assert gpunn("train", "--recipe", "tiny.toml", "--out", "run").code == 0
    assert Path("run/history.csv").read_text().splitlines()[0].endswith(",seconds")
    assert "metrics" not in Path("run/experiment.toml").read_text()
    assert "metrics" not in json.loads(Path("run/metrics.json").read_text())
    assert "--allow-import" not in Path("run/report.md").read_text()


@pytest.mark.parametrize("value", ['"f1"', "[1]", '["accuracy"]', '["other:f"]', "[{ exponent = 2 }]", "{ a = 1 }"])
def test_metrics_of_a_file_that_cannot_be_are_said_in_a_line(own: Path, value: str) -> None:
    Path("own.toml").write_text(f"metrics = {value}\n{TINY}")
    done = gpunn("train", "--recipe", "own.toml", "--out", "run", *ALLOW)
    assert done.code != 0
    assert len(done.err.strip().splitlines()[-1:]) == 1
    assert "own.toml" in done.err
    assert "Traceback" not in done.err
    assert not Path("run").exists()
