"""The page about notebooks runs as it stands, and names every picture that there is."""

import re
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from support.paths import ROOT

import gpunn as gn
from gpunn.display import style
from gpunn.reports import plots

PAGE = (ROOT / "docs" / "notebooks.md").read_text("utf-8")


def test_the_examples_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(style._STYLE, "figure.dpi", 40)
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
    names: dict[str, Any] = {}
    exec(compile(code.replace("epochs=4", 'progress=False, device="cpu", epochs=1'), "page", "exec"), names)
    assert isinstance(names["figure"], Figure)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "curves.pdf").read_bytes().startswith(b"%PDF")


def test_the_page_names_every_picture() -> None:
    assert {f"gn.{name}" for name in plots.__all__} == set(re.findall(r"`(gn\.plot_\w+)\(", PAGE))
    assert set(plots.__all__) < set(gn.__all__)
