"""A run that is being trained: its curves, its state, the network that renews itself, and a server that goes."""

import contextlib
import csv
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
import pytest
from support.browsing import serving

import gpunn as gn

from .conftest import Visiting, trained

STEP = "(gpunn.curves?.rows.at(-1)?.[gpunn.curves.columns.indexOf('step')] ?? 0)"


@contextlib.contextmanager
def training(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A training in a process of its own, past its first checkpoint."""
    options = ["--recipe", "lenet-digits", "--epochs", "60", "--checkpoint-every", "33", "--device", "cpu"]
    line = [sys.executable, "-m", "gpunn", "train", "digits", *options, "--out", str(folder)]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 60
            while not list(folder.glob("checkpoints/step-*/model.safetensors")):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield process
        finally:
            process.kill()


def last_row(folder: Path) -> dict[str, float]:
    """The last row of history.csv; {} where there is none yet."""
    with contextlib.suppress(FileNotFoundError), (folder / "history.csv").open(encoding="ascii") as file:
        rows = list(csv.DictReader(file))
        return {name: float(value) for name, value in rows[-1].items()} if rows else {}
    return {}


def test_a_training_is_followed_over_a_reload_to_its_end(visit: Visiting, browser: object, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with training(run) as process, serving(run) as url:
        page = visit(url)
        page.answer()
        assert page.page.inner_text("#state") == "is being trained"
        assert page.page.evaluate(  # above the pad, and not where those of a finished run are
            "() => training.compareDocumentPosition(document.getElementById('try')) & Node.DOCUMENT_POSITION_FOLLOWING"
        )
        first = page.page.evaluate("() => gpunn.answer.answers.map(({ probability }) => probability)")
        waited: list[float] = []  # seconds, of which one may be long on a machine with other work
        while process.poll() is None:
            if step := last_row(run).get("step"):
                began = time.monotonic()
                page.page.wait_for_function(f"() => {STEP} >= {step}", timeout=10_000)
                waited.append(time.monotonic() - began)
            if len(waited) == 3:
                rows = page.page.evaluate("() => gpunn.curves.rows.length")
                page.page.reload()
                page.answer()
                page.page.wait_for_function(f"() => gpunn.curves?.rows.length >= {rows}", timeout=10_000)
            time.sleep(0.3)
        last, began = last_row(run), time.monotonic()
        page.page.wait_for_function(f"() => {STEP} === {last['step']}", timeout=10_000)
        waited.append(time.monotonic() - began)
        assert len(waited) > 4
        assert median(waited) <= 1
        page.page.wait_for_function("() => document.getElementById('state').textContent === 'finished'")
        shown = page.page.evaluate(
            "() => Object.fromEntries(gpunn.curves.columns.map((name, at) => [name, gpunn.curves.rows.at(-1)[at]]))"
        )
        assert shown == pytest.approx(last)
        drawn = page.page.evaluate("() => gpunn.curves.plots.map(({ plot }) => plot.data.map((each) => each.at(-1)))")
        assert drawn[0] == pytest.approx([last["epoch"], last["train_loss"], last["validation_loss"]])
        assert f"validation accuracy {100 * last['validation_accuracy']:.2f}\u00a0%" in page.page.inner_text(
            "#last-row"
        )
        model = gn.load_model(run / "model.safetensors", "cpu")
        seen = page.array("gpunn.answer.prepared")
        expected = model.predict_proba(seen[None])[0].tolist()
        page.page.wait_for_function(  # the network of the end, without a reload
            "(all) => gpunn.answer.answers.every(({ probability }, at) => Math.abs(probability - all[at]) < 1e-5)",
            arg=expected,
        )
        assert not np.allclose(first, expected, atol=1e-3)


def test_a_page_outlives_its_server(visit: Visiting, browser: object, tmp_path: Path) -> None:
    run = trained("lenet-digits", tmp_path / "run", epochs=1)
    with serving(run) as url:
        page = visit(url)
        page.answer()
        page.page.wait_for_selector("#confusion td")
    page.page.wait_for_function("() => document.getElementById('state').textContent.includes('no answer')")
    page.draw([[(0.5, 0.2), (0.5, 0.8)]])
    page.page.wait_for_selector("#error:not([hidden])")
    assert "Is gpunn serve still running?" in page.page.inner_text("#error")
    assert any("ERR_CONNECTION_REFUSED" in error for error in page.errors)
    page.errors.clear()
    with serving(run, int(url.rsplit(":", 1)[1].strip("/"))):
        page.page.wait_for_function("() => document.getElementById('state').textContent === 'finished'", timeout=10_000)
        page.draw([[(0.4, 0.2), (0.4, 0.8)]])
        page.answer()
        page.page.wait_for_selector("#error", state="hidden")
        page.errors[:] = [error for error in page.errors if "ERR_CONNECTION_REFUSED" not in error]
