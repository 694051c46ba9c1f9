"""Read py:percent files with the standard library alone: cells, their kinds, tags and lines."""

import re
from dataclasses import dataclass
from pathlib import Path

from support.paths import ROOT

LECTURE = ROOT / "lecture"
CHAPTERS = sorted(LECTURE.glob("[0-9][0-9]_*.py"))
MARKER = re.compile(r"# %%(?P<title>[^\[\n]*?)(?P<markdown>\[markdown\])?\s*(?P<metadata>\w+=.*)?$")


@dataclass(frozen=True)
class Cell:
    """A cell of a chapter, and the line at which it begins."""

    is_code: bool
    tags: tuple[str, ...]
    text: str
    line: int


def cells_of(path: Path) -> list[Cell]:
    """The cells of a file, which must begin with one."""
    lines = path.read_text("utf-8").splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("# %%")]
    assert starts[:1] == [0], f"{path.name} begins with a cell, # %% [markdown]"
    cells = []
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        marker = MARKER.fullmatch(lines[start])
        assert marker, f"{path.name}:{start + 1}: no line that begins a cell: {lines[start]}"
        tags = re.search(r"tags=\[(.*?)\]", marker["metadata"] or "")
        body = lines[start + 1 : end]
        if marker["markdown"]:
            wrong = [line for line in body if line and not line.startswith("#")]
            assert wrong == [], f"{path.name}:{start + 1}: lines of Markdown begin with #"
            body = [line[2:] if line.startswith("# ") else line[1:] for line in body]
        names = tuple(re.findall(r'"(\w+)"', tags[1])) if tags else ()
        cells.append(Cell(not marker["markdown"], names, "\n".join(body).strip(), start + 1))
    return cells


def prose(text: str) -> str:
    """Markdown without its code and formulas."""
    text = re.sub(r"```.*?```|\$\$.*?\$\$", " ", text, flags=re.DOTALL)
    return re.sub(r"`[^`\n]*`|\$[^$]+\$", " ", text)
