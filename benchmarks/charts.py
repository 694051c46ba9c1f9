"""Draw the measurements of `bench.py`: every peer beside gpunn, and the growth of time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profile_report import duration
from report import curves_of, slope

from gpunn.display.style import FAINT, INK, TRAINING, VALIDATION, picture, place
from gpunn.display.text import width_of, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, told apart under every common colour blindness; gpunn's own is black.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_ROW, _COLUMN, _NUMBER = 0.24, 0.92, 0.36  # inches of a row, a column, and a number in it
_READ = (
    "Each bar starts at gpunn's time and ends at the peer's. Blue, to the right: gpunn takes less time, by the factor "
    "written. Orange, to the left: the peer does. Logarithmic scale: twice the time and half of it are bars of one "
    "length. Sorted by the mean factor, rows and columns."
)
_READ_GROWTH = (
    "Both axes are logarithmic, so a straight line is a power: with a slope of 1, twice the work takes twice the time; "
    "with less, larger work is done better. Written at each line's end: its slope."
)


def chart(workloads: Sequence[dict[str, Any]], path: Path) -> None:
    """A table of bars, a row a workload and a column a peer: how many times gpunn's time the peer's is."""
    factors = {
        each["name"]: {row["peer"]: row["times_gpunn"] for row in each["results"] if row["peer"] != "gpunn"}
        for each in workloads
        if not each["scale"]
    }
    factors = {name: row for name, row in factors.items() if row}
    if not factors:
        return
    peers = sorted({peer for row in factors.values() for peer in row})
    peers.sort(key=lambda peer: -mean([row[peer] for row in factors.values() if peer in row]))
    names = sorted(factors, key=lambda name: -mean(factors[name].values()))
    logs = [math.log(factor) for row in factors.values() for factor in row.values()]
    ends = min(-0.8, 1.1 * min(logs)), max(1.0, *logs)
    left = 0.2 + max(width_of(name, 8.5) for name in names)
    width = left + _COLUMN * len(peers) + 0.1
    note = wrapped(_READ, width - 0.3, 8.0, bold=False, most=9)
    heads = [wrapped(peer, _COLUMN - 0.06, 8.5) for peer in peers]
    above, below = 0.15 + 0.16 * (1 + max(head.count("\n") for head in heads)), 0.55 + 0.14 * (note.count("\n") + 1)
    high = _ROW * len(names)
    with picture(path, width, above + high + below, by_hand=True) as figure:
        for number, (peer, head) in enumerate(zip(peers, heads, strict=True)):
            axes = place(figure, left + _COLUMN * number, above, _COLUMN - 0.06, high)
            axes.set_title(head, fontsize=8.5, fontweight="bold", pad=3)
            _draw_peer(axes, [factors[name].get(peer) for name in names], ends)
            axes.set_yticks(range(len(names)), names if number == 0 else [""] * len(names), fontsize=8.5)
        figure.text(0.15 / width, 0.1 / (above + high + below), note, fontsize=8.0, color=FAINT, va="bottom")


def mean(factors: Any) -> float:
    """The geometric mean, in which 2 and 1/2 make 1."""
    logs = [math.log(factor) for factor in factors]
    return math.exp(sum(logs) / len(logs))


def _draw_peer(axes: Axes, factors: Sequence[float | None], ends: tuple[float, float]) -> None:
    """Draw the column of a peer between two ends of the logarithm; to the right there is room for the numbers."""
    inch = (ends[1] - ends[0]) / (_COLUMN - 0.06 - _NUMBER)
    for row, factor in enumerate(factors):
        axes.axhspan(row - 0.5, row + 0.5, color="#F3F3F3" if row % 2 else "white", lw=0, zorder=0)
        length = math.log(factor or 1.0)
        told = "–" if factor is None else f"{factor:.2f}" if factor < 9.995 else f"{factor:.1f}"
        axes.barh(row, length, height=0.62, color=TRAINING if length >= 0 else VALIDATION, zorder=2)
        at = max(length, 0.0) + 0.05 * inch
        axes.text(at, row, told, ha="left", va="center", fontsize=7.5, color=FAINT if factor is None else INK)
    axes.set(xlim=(ends[0], ends[1] + _NUMBER * inch), ylim=(len(factors) - 0.5, -0.5))
    axes.axvline(0.0, color=INK, lw=0.9, zorder=3)
    marks = {"½": 0.5, "1": 1.0, "5" if ends[1] > math.log(5) else "2": 5.0 if ends[1] > math.log(5) else 2.0}
    axes.set_xticks([math.log(mark) for mark in marks.values()], list(marks))
    axes.tick_params(length=0, labelsize=7.5)
    axes.spines[:].set_visible(False)


def growth_chart(workloads: Sequence[dict[str, Any]], path: Path) -> None:
    """Curves of time against what grows, on logarithmic axes, each named at its end with its slope."""
    curves = curves_of(workloads)
    if not curves:
        return
    across = min(2, len(curves))
    down = math.ceil(len(curves) / across)
    width = 4.1 * across
    note = wrapped(_READ_GROWTH, width - 0.3, 8.0, bold=False, most=9)
    below = 0.2 + 0.14 * (note.count("\n") + 1)
    peers = list(dict.fromkeys(peer for each in curves.values() for peer in each if peer != "gpunn"))
    colours = {"gpunn": INK} | {peer: COLOURS[number % len(COLOURS)] for number, peer in enumerate(peers)}
    with picture(path, width, 2.75 * down + below, by_hand=True) as figure:
        for number, (what, lines) in enumerate(curves.items()):
            left, top = 4.1 * (number % across) + 0.75, 2.75 * (number // across) + 0.35
            axes = place(figure, left, top, 2.0, 1.9)
            axes.set_title(f"time of {'an epoch' if what == 'data' else 'a step'} over {what}", fontsize=9.5)
            _draw_growth(axes, lines, colours)
        figure.text(0.15 / width, 0.1 / figure.get_figheight(), note, fontsize=8.0, color=FAINT, va="bottom")


def _draw_growth(axes: Axes, lines: Mapping[str, Sequence[tuple[float, float]]], colours: Mapping[str, str]) -> None:
    from matplotlib.ticker import LogLocator

    for peer, points in lines.items():
        look: dict[str, Any] = {"lw": 2.2, "zorder": 4} if peer == "gpunn" else {"lw": 1.3, "zorder": 3}
        axes.plot(*zip(*points, strict=True), marker="o", ms=3, color=colours[peer], **look)
    axes.loglog()
    values = [value for value, _ in next(iter(lines.values()))]
    axes.set_xticks(values, [f"{value:,g}" for value in values], fontsize=7.5)
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(lambda seconds, _: duration(seconds))
    axes.yaxis.set_minor_formatter("")
    axes.minorticks_off()
    axes.tick_params(labelsize=7.5)
    axes.grid()
    low, high = (math.log(limit) for limit in axes.get_ylim())
    inches = 1.9 / (high - low)
    ends = {peer: (math.log(points[-1][1]) - low) * inches for peer, points in lines.items()}
    for peer, at in apart(ends, 0.15).items():
        points = lines[peer]
        told = f"{peer}: {slope(points):.2f}" if len(points) > 1 else peer
        axes.annotate(
            told, (1.04, at / 1.9), xycoords="axes fraction", va="center", fontsize=8.0, color=colours[peer],
            weight="bold" if peer == "gpunn" else "normal", annotation_clip=False,
        )  # fmt: skip


def apart(places: Mapping[str, float], least: float) -> dict[str, float]:
    """Move places that are closer than `least` to each other, as little as it takes and in their order."""
    groups: list[list[Any]] = []  # of names, and of the sum of what each wants
    for name, at in sorted(places.items(), key=lambda item: item[1]):
        groups.append([[name], at])
        while len(groups) > 1 and _start(groups[-1], least) < _end(groups[-2], least) + least:
            names, total = groups.pop()
            before = len(groups[-1][0])
            groups[-1] = [groups[-1][0] + names, groups[-1][1] + total - least * before * len(names)]
    return {
        name: _start(group, least) + least * number for group in groups for number, name in enumerate(group[0])
    }  # fmt: skip


def _start(group: Sequence[Any], least: float) -> float:
    names, total = group
    return float(total / len(names))


def _end(group: Sequence[Any], least: float) -> float:
    return _start(group, least) + least * (len(group[0]) - 1)
