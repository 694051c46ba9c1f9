"""The page about equations of one's own is true: its example runs, and each form that it names is taken."""

import json
import re
from pathlib import Path

import pytest
from support.paths import ROOT

import gpunn as gn
from gpunn.errors import OptionError
from gpunn.experiments.experiment import parse_experiment
from gpunn.nn.equations.grammar import FUNCTIONS, MOST_CHARACTERS, MOST_EXPONENT, MOST_NODES

PAGE = (ROOT / "docs" / "equations-of-your-own.md").read_text("utf-8")


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    text = block("python").replace("epochs=20", 'epochs=20, device="cpu", progress=False')
    exec(compile(text, "page", "exec"), found := {"__name__": "page"})
    assert found["history"][-1].validation_loss < 0.5 * found["history"][0].validation_loss
    assert "f′(z)" in capsys.readouterr().out
    assert gn.load_model("swish.safetensors", "cpu").layers[1].name == "swish1"


def test_the_experiment_is_read() -> None:
    head = '[optimizer]\ntype = "Adam"\n'
    assert len(parse_experiment(head + block("toml"), "page").layers) == 1


def test_what_the_page_says_of_the_grammar_is_so() -> None:
    row = re.search(r"^\| functions \| `(.*?)` \|$", PAGE, re.MULTILINE)
    assert row is not None
    assert sorted(row[1].split()) == sorted(set(FUNCTIONS) - {"where"})
    assert f"{MOST_CHARACTERS:,} characters and {MOST_NODES} numbers" in PAGE
    assert f"from −{MOST_EXPONENT} to {MOST_EXPONENT}" in PAGE
    with pytest.raises(OptionError) as caught:
        gn.Activation.from_equation("own", "sqrt(z)")
    assert str(caught.value) in PAGE


def test_the_table_of_speeds_is_that_of_the_benchmark() -> None:
    """Of every bundled activation, at least 0.9 of the speed by hand."""
    rows = json.loads((ROOT / "benchmarks/results/equations-cpu.json").read_text("utf-8"))["rows"]
    page = (ROOT / "docs/equations-of-your-own.md").read_text("utf-8")
    assert {row["activation"] for row in rows} == {"sigmoid", "tanh", "relu", "leaky_relu", "softplus"}
    assert min(row["speed"] for row in rows) >= 0.9
    for row in rows:
        (line,) = [line for line in page.splitlines() if line.startswith(f"| `{row['activation']}` |")]
        assert f"{row['by_hand_us']:.0f} µs, {row['speed']:.2f} ×" in line
