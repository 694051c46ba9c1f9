"""Tables and charts of what `bench.py` measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measure import QUIET

from gpunn.reports.profiled import duration

ROUNDS = 5
"""The fewest rounds whose median is worth keeping."""


def headings(workload: dict[str, Any]) -> tuple[str, ...]:
    """Of a workload's table."""
    unit = {"steps": "a step", "predict": "a call", "train": "in all"}[workload["kind"]]
    return "", "precision", unit, "spread", "times gpunn's", "spread", "cost", "accuracy", "peak memory", ""


def rows_of(workload: dict[str, Any]) -> list[tuple[str, ...]]:
    """The lines of a workload's table, as texts."""
    rows = []
    for row in workload["results"]:
        disturbed = sum(share > QUIET for share in row["others"])
        ratios = row.get("rounds_times_gpunn", [])
        memory = f"{row['peak_bytes'] / 2**20:.0f} MiB"
        memory += f", device {row['device_bytes'] / 2**20:.0f} MiB" if row["device_bytes"] else ""
        notes = [] if row["agrees"] else ["COST OR ACCURACY DIFFERS"]
        notes += [f"{disturbed} disturbed rounds"] if disturbed else []
        notes += [] if (count := len(row["rounds_seconds"])) >= ROUNDS else [f"only {count} of {ROUNDS} rounds"]
        rows.append((
            f"{row['peer']} {row['version'].split('+')[0]}",
            row["precision"],
            duration(row["median_seconds"]),
            f"{duration(row['least_seconds'])} – {duration(row['most_seconds'])}",
            f"{row['times_gpunn']:.2f}" if ratios else "",
            f"{min(ratios):.2f} – {max(ratios):.2f}" if ratios else "",
            f"{row['loss']:.4f}",
            f"{row['accuracy']:.2%}",
            memory,
            ", ".join(notes),
        ))  # fmt: skip
    return rows


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of texts, the headings first, for a terminal."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = [
        "  " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return "\n".join(lines)


def not_measured(workload: dict[str, Any]) -> list[str]:
    """Who is not in the table, and why."""
    return [f"{name}: {why}" for part in ("absent", "left_out") for name, why in workload[part].items()]


def chart(workloads: Sequence[dict[str, Any]], path: Path) -> None:
    """Bars: how many times gpunn's time each peer takes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = [each for each in workloads if not each["scale"] and any("times_gpunn" in row for row in each["results"])]
    if not drawn:
        return
    names = list(dict.fromkeys(row["peer"] for each in drawn for row in each["results"]))
    figure = Figure(figsize=(9, 0.8 + sum(0.22 * len(each["results"]) + 0.25 for each in drawn)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    at, ticks = 0.0, []
    for each in drawn:
        top = at
        for row in each["results"]:
            value = row["times_gpunn"]
            axes.barh(at, value, height=0.8, color=f"C{names.index(row['peer'])}")
            axes.text(value, at, f" {value:.2g}", va="center", fontsize=7)
            at += 1
        ticks.append(((top + at - 1) / 2, each["name"]))
        at += 1
    axes.set_yticks([place for place, _ in ticks], [name for _, name in ticks], fontsize=8)
    axes.invert_yaxis()
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlabel("time, as a multiple of gpunn's (median of the rounds' ratios); right of the line gpunn is faster")
    handles = [axes.barh(0, 0, color=f"C{number}", label=name) for number, name in enumerate(names)]
    axes.legend(handles=handles, fontsize=8, loc="lower right")
    save(figure, path)


def save(figure: Any, path: Path) -> None:
    """Write a picture whole, or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    figure.savefig(partial, dpi=120, format="png")
    partial.replace(path)


Curves = dict[str, dict[str, list[tuple[float, float]]]]


def curves_of(workloads: Sequence[dict[str, Any]]) -> Curves:
    """For each quantity that grows and each peer, its values with seconds: of a step, or for data of an epoch."""
    found: Curves = {}
    for each in workloads:
        for what, value in each["scale"].items():
            for row in each["results"]:
                seconds = row["median_seconds"] * (each["steps"] if what == "data" else 1)
                found.setdefault(what, {}).setdefault(row["peer"], []).append((value, seconds))
    return found


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The power of growth: the least-squares slope of ln seconds over ln value."""
    x, y = np.log(np.array(points)).T
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / (x * x).sum())


def growth_chart(workloads: Sequence[dict[str, Any]], path: Path) -> None:
    """Log-log curves of time against what grows, with their slopes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    curves = curves_of(workloads)
    if not curves:
        return
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (what, peers) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
        for peer, points in peers.items():
            label = f"{peer}: {slope(points):.2f}" if len(points) > 1 else peer
            axes.loglog(*zip(*points, strict=True), marker="o", markersize=3, linewidth=1, label=label)
        axes.set_xlabel(what)
        axes.set_ylabel("seconds an epoch" if what == "data" else "seconds a step")
        axes.legend(fontsize=6, title="slope", title_fontsize=6)
        axes.grid(which="both", linewidth=0.3)
    save(figure, path)
