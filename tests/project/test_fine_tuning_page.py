"""The page about fine-tuning runs as it stands."""

import re
import shlex
from pathlib import Path

import pytest
from support.cli_helpers import gpunn, own_folder, without_pictures
from support.paths import ROOT

from gpunn.experiments.experiment import parse_experiment

PAGE = (ROOT / "docs" / "fine-tuning.md").read_text("utf-8")
folder = pytest.fixture(own_folder)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_example_of_the_page_runs_and_is_better_than_from_scratch(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_pictures(monkeypatch)
    data, *networks = blocks("python")
    exec(compile(data, "page", "exec"), {})
    (folder / "strokes.toml").write_text(blocks("toml")[0])
    right: dict[str, float] = {}
    for line in blocks("sh")[1].splitlines():
        _, *arguments = shlex.split(line)
        done = gpunn(*arguments, *(["--device", "cpu"] if arguments[0] == "train" else []))
        assert done.code == 0, done.err
        if found := re.search(r"^test accuracy  ([\d.]+)%", done.out, re.MULTILINE):
            right[arguments[-1]] = float(found[1])
    assert right["tuned"] > right["scratch"]
    exec(
        compile(
            "import gpunn as gn\n" + "".join(networks).replace("epochs=", "progress=False, epochs="), "page", "exec"
        ),
        {},
    )


def test_the_experiment_of_the_page_is_one() -> None:
    text = blocks("toml")[1]
    layers = '[[layers]]\ntype = "ReLU"\n' * 7 + '[optimizer]\ntype = "SGD"\n'
    experiment = parse_experiment(text + layers, "page")
    assert experiment.start is not None
    assert (experiment.start.layers, experiment.training.freeze) == (6, 2)
