"""The page about ONNX runs as it stands."""

import re
import shlex
from pathlib import Path

import pytest
from support.cli_helpers import gpunn, own_folder, without_pictures
from support.paths import ROOT

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

PAGE = (ROOT / "docs" / "onnx.md").read_text("utf-8")
folder = pytest.fixture(own_folder)


def test_the_page_runs_from_top_to_bottom(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_pictures(monkeypatch)
    for language, block in re.findall(r"^```(sh|python)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        if language == "python":
            exec(compile(block, "page", "exec"), {"__name__": "page"})
            continue
        for line in block.splitlines():
            _, *arguments = shlex.split(line, comments=True)
            done = gpunn(*arguments, *(["--device", "cpu"] if arguments[0] == "train" else []))
            assert done.code == 0, done.err
