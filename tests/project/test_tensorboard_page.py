"""The page about TensorBoard runs as it stands."""

import re
from pathlib import Path

import pytest
from support.cli_helpers import gpunn, own_folder, without_pictures
from support.paths import ROOT

from gpunn.reports import tensorboard
from gpunn.train.record import COLUMNS

pytest.importorskip("tensorboard")
PAGE = (ROOT / "docs" / "tensorboard.md").read_text("utf-8")
folder = pytest.fixture(own_folder)


def test_the_page_runs_from_top_to_bottom(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_pictures(monkeypatch)
    for name in ("draw_answers", "draw_network"):
        monkeypatch.setattr(tensorboard, name, lambda *_: [])
    names = {"__name__": "page"}
    for language, block in re.findall(r"^```(sh|python)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        if language == "python":
            exec(compile(block, "page", "exec"), names)
        else:
            done = gpunn(*block.split()[1:], "--device", "cpu")
            assert done.code == 0, done.err
    assert len(list(Path("runs").glob("*/events.out.tfevents.*"))) == 2


def test_the_page_names_each_figure_of_a_record() -> None:
    for column in COLUMNS[1:]:
        name = tensorboard.TAGS[column]
        assert f"`{name}`" in PAGE or f"`{name.partition('/')[0]}`" in PAGE, name
