"""The page on parts of one's own: its blocks are one program, and its commands do what they say."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cli_helpers import assert_one_line, gpunn, own_folder, without_pictures
from support.paths import ROOT

from gpunn.config import PARTS
from gpunn.data.formats.registry import READERS
from project.test_examples import blocks, run_python

PAGE = ROOT / "docs" / "extending.md"
folder = pytest.fixture(own_folder)
MODULE = "".join(blocks(PAGE, "python"))


@pytest.fixture
def page(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the page's program; what it registers is forgotten."""
    (folder / "mymodule.py").write_text(MODULE, "utf-8")
    without_pictures(monkeypatch)
    readers, parts = dict(READERS), {kind: dict(of) for kind, of in PARTS.items()}
    yield folder
    sys.modules.pop("mymodule", None)
    READERS.clear()
    READERS.update(readers)
    assert {kind: dict(of) for kind, of in PARTS.items()} == parts


def test_the_program_of_the_page_trains_and_its_commands_run(page: Path) -> None:
    """A process of its own for the program, and four commands."""
    out = run_python("mymodule.py", cwd=page)
    assert re.search(r"Swish\(beta=1\.5\)", out)
    assert re.search(r"within 0\.\d+", out)
    assert "GradientCheck" in out
    (experiment,), (commands,) = blocks(PAGE, "toml"), blocks(PAGE, "sh")
    (page / "own.toml").write_text(experiment, "utf-8")
    for line in commands.splitlines():
        words = line.split()
        assert words[0] == "gpunn"
        done = gpunn(*words[1:])
        assert done.code == 0, done.err
        assert f"imported mymodule ({page / 'mymodule.py'})" in done.err
    assert len(done.out.splitlines()) == 400
    assert_one_line(gpunn("evaluate", "run"), 1, "--allow-import mymodule")


@pytest.mark.parametrize("kind", ["Layer", "Activation", "Loss", "Optimizer", "Schedule", "Regularizer", "Initializer"])
def test_the_page_has_one_of_each_kind(kind: str) -> None:
    assert re.search(rf"^class \w+\(gn\.{kind}\):$", MODULE, re.MULTILINE)


def test_the_example_of_a_layer_is_checked_and_learns_the_digits(tmp_path: Path) -> None:
    """A process that trains fifteen epochs."""
    out = run_python(str(ROOT / "examples" / "own_layer.py"), cwd=tmp_path)
    (accuracy,) = re.findall(r"test accuracy ([\d.]+)%", out)
    assert float(accuracy) > 94
    assert "normalize1.gamma" in out
    text = (ROOT / "examples" / "own_layer.py").read_text("utf-8")
    layer = text[text.index("class Normalize") : text.index("device = ")].strip()
    assert len(layer.splitlines()) <= 24
