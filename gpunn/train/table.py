"""Write tables of plain text within a width: long names are cut, and wide characters count as two columns."""

import math
import textwrap
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from gpunn.display.html import html_table
from gpunn.errors import in_one_line

HEADS = ("precision", "recall", "F1", "support")
MOST_ROWS = 50  # classes or outputs in a table; of more, the worst are shown
MOST_IN_FILES = 1000  # classes or outputs in `metrics.json`, which is read whole
_LEAST_NAME = 8  # columns of a name in the narrowest table
_MOST_NAMES = 6

Layout: TypeAlias = tuple[Sequence[str], Sequence[Sequence[Sequence[str]]], list[str]]  # heads, groups of rows, notes


class TableReport(ABC):
    """Show a report as a table, of text or, in a notebook, of HTML."""

    @abstractmethod
    def _layout(self) -> Layout:
        """Return the heads, the groups of rows, and the notes below them."""

    def table(self, width: int = 80) -> str:
        """Write the metrics of each class or output, and their averages, in at most `width` columns of text."""
        heads, groups, notes = self._layout()
        lines = [line for note in notes if note for line in textwrap.wrap(note, max(width, 20))]
        return "\n".join([table(heads, groups, width), "", *lines])

    def _repr_html_(self) -> str:
        heads, groups, notes = self._layout()
        return html_table(heads, groups, title=repr(self), notes=notes)

    def __str__(self) -> str:
        return self.table()


def width_of(text: str) -> int:
    """Count the terminal columns of a text."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


def fitted(text: str, width: int) -> str:
    """Cut a text to one line of `width` columns, with "…" at the end, and pad it with spaces."""
    text = in_one_line(text)
    if width_of(text) > width:
        while width_of(text) > width - 1:
            text = text[:-1]
        text += "…"
    return text + " " * (width - width_of(text))


def table(heads: Sequence[str], groups: Iterable[Sequence[Sequence[str]]], width: int = 80) -> str:
    """Write groups of rows, a name and numbers each, under heads; names are cut to fit the width."""
    parts = [group for group in groups if group]
    rows = [heads, *(row for group in parts for row in group)]
    others = [max(width_of(row[k]) for row in rows) for k in range(1, len(heads))]
    most = max(width - sum(others) - 2 * len(others), _LEAST_NAME)
    first = min(max(width_of(in_one_line(row[0])) for row in rows), most)
    line = "  ".join("─" * size for size in (first, *others))
    lines = [_row(heads, first, others)]
    for group in parts:
        lines += [line, *(_row(row, first, others) for row in group)]
    return "\n".join(lines)


def _row(row: Sequence[str], first: int, others: Sequence[int]) -> str:
    cells = (f"{cell:>{size}}" for cell, size in zip(row[1:], others, strict=True))
    return "  ".join([fitted(row[0], first), *cells]).rstrip()


def decimal(value: float) -> str:
    """Write a share with four decimals, "–" for NaN."""
    return "–" if math.isnan(value) else f"{value:.4f}"


def amount(value: float) -> str:
    """Write a number of samples, or a sum of their weights."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4g}"


def in_line(figures: Mapping[str, float]) -> str:
    """Write metrics by name as one text."""
    return ", ".join(f"{name} {decimal(value)}" for name, value in figures.items())


def own(metrics: Mapping[str, float]) -> list[str]:
    """Write metrics of the user's own as a note, if there are any."""
    return [", ".join(f"{name} {value:.6g}" for name, value in metrics.items())] if metrics else []


def some(names: Sequence[str]) -> str:
    """Write the first few names, and the number of the others."""
    more = f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(fitted(name, 24).rstrip() for name in names[:_MOST_NAMES]) + more
