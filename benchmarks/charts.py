"""Charts of what `bench.py` measured: every peer beside gpunn, and the growth of time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from profile_report import duration
from report import curves_of, slope

from gpunn.display.style import INK, picture


def chart(workloads: Sequence[dict[str, Any]], path: Path) -> None:
    """A bar for each peer from gpunn's time to its own: to the right where it takes longer, to the left where less."""
    drawn = [each for each in workloads if not each["scale"] and any("times_gpunn" in row for row in each["results"])]
    if not drawn:
        return
    peers = list(dict.fromkeys(row["peer"] for each in drawn for row in each["results"] if row["peer"] != "gpunn"))
    bars = sum(len(each["results"]) for each in drawn)
    with picture(path, 9.0, 1.5 + 0.2 * bars) as figure:
        axes = figure.add_subplot()
        at, ticks = 0, []
        for each in drawn:
            top = at
            for row in each["results"]:
                if row["peer"] != "gpunn":
                    ratio = row["times_gpunn"]
                    axes.barh(at, ratio - 1, left=1, height=0.8, color=f"C{peers.index(row['peer'])}")
                    side = "left" if ratio >= 1 else "right"
                    axes.annotate(
                        f"{ratio:.2f}", (ratio, at), (4 if ratio >= 1 else -4, 0), textcoords="offset points",
                        ha=side, va="center", fontsize=7,
                    )  # fmt: skip
                    at += 1
            ticks.append(((top + at - 1) / 2, each["name"]))
            at += 1
        axes.set_yticks([place for place, _ in ticks], [name for _, name in ticks], fontsize=8)
        axes.set_ylim(at - 0.5, -1)
        axes.set_xscale("log")
        axes.set_xticks(marks := [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50], [f"{mark:g}" for mark in marks])
        axes.minorticks_off()
        ratios = [row["times_gpunn"] for each in drawn for row in each["results"]]
        axes.set_xlim(0.6 * min(0.8, *ratios), 1.6 * max(1.2, *ratios))
        axes.grid()
        axes.axvline(1, color=INK, linewidth=1)
        axes.set_xlabel("time as a multiple of gpunn's: to the right of 1 gpunn is faster, to the left the peer")
        handles = [axes.barh(0, 0, color=f"C{number}", label=name) for number, name in enumerate(peers)]
        figure.legend(handles=handles, fontsize=8, loc="outside lower center", ncols=4)


def growth_chart(workloads: Sequence[dict[str, Any]], path: Path) -> None:
    """Log-log curves of time against what grows, with their slopes."""
    curves = curves_of(workloads)
    if not curves:
        return
    with picture(path, 11.0, 3.6) as figure:
        for axes, (what, peers) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
            for peer, points in peers.items():
                label = f"{peer}: {slope(points):.2f}" if len(points) > 1 else peer
                axes.plot(*zip(*points, strict=True), marker="o", markersize=3, linewidth=1, label=label)
            axes.set(xlabel=what, ylabel="time of an epoch" if what == "data" else "time of a step")
            axes.loglog()
            values = [value for value, _ in next(iter(peers.values()))]
            axes.set_xticks(values, [f"{value:g}" for value in values], rotation=45, fontsize=7)
            axes.yaxis.set_major_formatter(lambda seconds, _: duration(seconds))
            axes.yaxis.set_minor_formatter("")
            axes.xaxis.minorticks_off()
            axes.grid()
            axes.legend(fontsize=6.5, title="slope", title_fontsize=6.5)
