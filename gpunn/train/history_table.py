"""Write a history as a table, in text and in HTML, with a small plot of its losses without Matplotlib."""

import math
from collections.abc import Sequence

from gpunn.display.html import html_table
from gpunn.display.style import TRAINING, VALIDATION
from gpunn.nn.tasks import FIGURES, shown
from gpunn.train.record import Record

_LAST = 5  # records of a table in HTML
_WIDTH, _HEIGHT, _POINTS = 420, 90, 300  # size of the plot, and most points of a line


def rows_of(records: Sequence[Record], named: Sequence[tuple[str, Record]]) -> list[list[str]]:
    """Write named records as rows of cells after a row of heads, with the columns of all records."""
    figures = [
        (f"{part}_{name}", word + FIGURES[name])
        for part, word in (("train", ""), ("validation", "validation "))
        for name in FIGURES
        if any(name in record.figures(part) for record in records)
    ]
    if any(not math.isnan(record.penalty) for _, record in named):
        figures.append(("penalty", "λR"))
    figures += [(name, name) for name in dict.fromkeys(name for each in records for name in each.metrics)]
    rows = [["", "step", "epoch", *(word for _, word in figures), "time"]]
    for name, record in named:
        values = [(column.rpartition("_")[2], record.number(column)) for column, _ in figures]
        cells = ["-" if math.isnan(value) else shown(figure, value) for figure, value in values]
        rows.append([name, str(record.step), f"{record.epoch:.4g}", *cells, f"{record.seconds:.1f} s"])
    return rows


def html_of(records: Sequence[Record], best: Record | None, title: str, notes: Sequence[str]) -> str:
    """Write the losses as a small plot, and the last records and the best as a table."""
    if not records:
        return html_table((title,), [])
    last = [("last" if record is records[-1] else "", record) for record in records[-_LAST:]]
    head, *rows = rows_of(records, [*last, *([("best", best)] if best else [])])
    table = html_table(head, [rows[: len(last)], rows[len(last) :]], title=title, notes=notes)
    return f"<div>{_lines(records)}{table}</div>"


def _lines(records: Sequence[Record]) -> str:
    """Draw training and validation loss over the steps, on a logarithmic scale if they span two decades."""
    parts = {"training": ("train_loss", TRAINING), "validation": ("validation_loss", VALIDATION)}
    every = -(-len(records) // _POINTS)
    chosen = [*records[::every], *([records[-1]] if (len(records) - 1) % every else [])]
    values = [value for column, _ in parts.values() for each in chosen if math.isfinite(value := getattr(each, column))]
    if len(chosen) < 2 or not values:
        return ""
    is_log = 0 < 100 * min(values) < max(values)
    scaled = math.log if is_log else float
    low, high = scaled(min(values)), scaled(max(values))
    first, span = chosen[0].step, max(1, chosen[-1].step - chosen[0].step)
    drawn, named = [], []
    for name, (column, colour) in parts.items():
        runs: list[list[str]] = [[]]  # a loss that is not finite leaves a gap
        for each in chosen:
            value = getattr(each, column)
            if not math.isfinite(value):
                runs.append([])
                continue
            share = (scaled(value) - low) / (high - low) if high > low else 0.5
            x, y = 4 + (_WIDTH - 8) * (each.step - first) / span, 4 + (_HEIGHT - 8) * (1 - share)
            runs[-1].append(f"{x:.1f},{y:.1f}")
        lines = [" ".join(points if len(points) > 1 else 2 * points) for points in runs if points]
        drawn += [
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.8" stroke-linecap="round"/>'
            for points in lines
        ]
        named += [f'<span style="color:{colour}">&#9644;</span> {name} loss'] if lines else []
    told = f"from {shown('loss', max(values))} to {shown('loss', min(values))}{', log scale' if is_log else ''}"
    frame = f'<svg width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">'
    return f'{frame}{"".join(drawn)}</svg><div style="opacity:0.8">{" &#160; ".join(named)}, {told}</div>'
