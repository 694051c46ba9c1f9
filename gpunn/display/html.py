"""Write tables as HTML for every notebook, light or dark, in the colours and fonts of the page."""

from collections.abc import Iterable, Sequence
from html import escape

from gpunn.errors import in_one_line

_TABLE = "border-collapse:collapse;margin:0.3em 0;width:auto"
_CELL = "padding:0.15em 0.7em;border:0;white-space:pre;background:none"
_LINE = ";border-bottom:1px solid rgba(128,128,128,0.6)"


def html_table(
    heads: Sequence[str],
    groups: Iterable[Sequence[Sequence[str]]],
    *,
    title: str = "",
    notes: Iterable[str] = (),
    texts: int = 1,
) -> str:
    """Lay out groups of rows under column heads, between a title and notes; escape all text.

    Args:
        heads: Head of each column.
        groups: Groups of rows of cells, separated by lines.
        title: Line above the table, or "".
        notes: Lines below the table.
        texts: Number of text columns, from the left; the others are numbers, aligned to the right.
    """
    lines = [f"<div><strong>{written(title)}</strong></div>" if title else ""]
    lines.append(f'<table style="{_TABLE}"><thead>{_row(heads, "th", texts, True)}</thead><tbody>')
    parts = [group for group in groups if group]
    for number, group in enumerate(parts, 1):
        for place, row in enumerate(group, 1):
            lines.append(_row(row, "td", texts, place == len(group) and number < len(parts)))
    lines.append("</tbody></table>")
    lines += [f'<div style="opacity:0.8">{written(note)}</div>' for note in notes]
    return "<div>" + "\n".join(filter(None, lines)) + "</div>"


def written(text: str) -> str:
    """Escape a text, which may come from any file, as one line of HTML."""
    indent = len(text) - len(text.lstrip(" "))
    return " " * indent + escape(in_one_line(text[indent:]))


def _row(cells: Sequence[str], tag: str, texts: int, is_lined: bool) -> str:
    line = _LINE if is_lined else ""
    made = (
        f'<{tag} style="{_CELL};text-align:{"left" if place < texts else "right"}{line}">{written(cell)}</{tag}>'
        for place, cell in enumerate(cells)
    )
    return f'<tr style="background:none">{"".join(made)}</tr>'
