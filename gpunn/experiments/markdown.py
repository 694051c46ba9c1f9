"""Write Markdown in which any text, such as a class name or a file name, shows as it is."""

import re
from collections.abc import Iterable, Sequence

from gpunn.errors import in_one_line
from gpunn.train.table import fitted

_MOST = 60  # columns of a text in a cell


def escaped(text: str) -> str:
    """Escape a text to one line of Markdown without markup, tags, links, formulas or table cells."""
    line = re.sub(r"([\\`*_{}\[\]<>|~$#@&^])", r"\\\1", in_one_line(str(text)).strip())
    line = re.sub(r"^(\d+(?=[.)](?:\s|$))|(?=[-+=]))", r"\1\\", line)  # else a list or a rule begins
    line = re.sub(r"(?i)\b(https?|ftp|mailto|xmpp):", r"\1\\:", line)  # else these become links
    line = re.sub(r"(?i)\bwww\.", lambda found: found[0][:-1] + "\\.", line)
    return line or "(blank)"


def cell(text: str) -> str:
    """Escape a text for a cell of a table, and shorten a long one."""
    return escaped(fitted(in_one_line(str(text)), _MOST).rstrip())


def code(text: str) -> str:
    """Return a text as inline code, also for a cell of a table."""
    line = in_one_line(str(text)).replace("|", "\\|")
    ticks = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    space = " " if line[:1] in ("`", " ", "") or line[-1:] == "`" else ""
    return f"{ticks}{space}{line}{space}{ticks}"


def block(text: str) -> list[str]:
    """Return a text as the lines of a fenced code block."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return [f"{fence}text", *text.splitlines(), fence]


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], mark: str = "--:") -> list[str]:
    """Return the lines of a table of escaped cells: the first column left-aligned, the others by `mark`."""
    marks = ["---", *(mark for _ in heads[1:])]
    return [f"| {' | '.join(cells)} |" for cells in (heads, marks, *rows)]
