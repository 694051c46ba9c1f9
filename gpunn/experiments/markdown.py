"""Markdown of texts that may hold anything: names of classes, data sets and files stay text, whatever is in them."""

import re
from collections.abc import Iterable, Sequence

from gpunn.errors import in_one_line
from gpunn.train.table import fitted

_MOST = 60  # columns of a text in a cell


def escaped(text: str) -> str:
    """Return a text as Markdown of one line that shows it: no mark, tag, link, formula or cell of a table is in it."""
    line = re.sub(r"([\\`*_{}\[\]<>|~$#@&^])", r"\\\1", in_one_line(str(text)).strip())
    line = re.sub(r"^(\d+(?=[.)](?:\s|$))|(?=[-+=]))", r"\1\\", line)  # else a list begins, or a line
    line = re.sub(r"(?i)\b(https?|ftp|mailto|xmpp):", r"\1\\:", line)  # else these become links by themselves
    line = re.sub(r"(?i)\bwww\.", lambda found: found[0][:-1] + "\\.", line)
    return line or "(blank)"


def cell(text: str) -> str:
    """Return a text for a cell of a table, cut where it is long."""
    return escaped(fitted(in_one_line(str(text)), _MOST).rstrip())


def code(text: str) -> str:
    """Return a text as code within a line, or within a cell of a table."""
    line = in_one_line(str(text)).replace("|", "\\|")
    ticks = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    space = " " if line[:1] in ("`", " ", "") or line[-1:] == "`" else ""
    return f"{ticks}{space}{line}{space}{ticks}"


def block(text: str) -> list[str]:
    """Return lines of text as they are, between fences that do not occur in them."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return [f"{fence}text", *text.splitlines(), fence]


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], mark: str = "--:") -> list[str]:
    """Return the lines of a table of ready cells: the first column to the left, numbers to the right."""
    marks = ["---", *(mark for _ in heads[1:])]
    return [f"| {' | '.join(cells)} |" for cells in (heads, marks, *rows)]
