"""Write tables of the measurements of `bench.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from measure import QUIET
from profile_report import duration

ROUNDS = 5
"""The fewest rounds whose median is worth keeping."""


def headings(workload: dict[str, Any]) -> tuple[str, ...]:
    """Return the headings of a workload's table."""
    unit = {"steps": "a step", "predict": "a call", "train": "in all"}[workload["kind"]]
    return "", "precision", unit, "spread", "times gpunn's", "spread", "loss", "accuracy", "peak memory", ""


def rows_of(workload: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return the rows of a workload's table as texts."""
    rows = []
    for row in workload["results"]:
        disturbed = sum(share > QUIET for share in row["others"])
        ratios = row.get("rounds_times_gpunn", [])
        memory = f"{row['peak_bytes'] / 2**20:.0f} MiB"
        memory += f", device {row['device_bytes'] / 2**20:.0f} MiB" if row["device_bytes"] else ""
        notes = [] if row["agrees"] else ["LOSS OR ACCURACY DIFFERS"]
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
    """List the peers without a row, and the reasons."""
    return [f"{name}: {why}" for part in ("absent", "left_out") for name, why in workload[part].items()]


Curves = dict[str, dict[str, list[tuple[float, float]]]]


def curves_of(workloads: Sequence[dict[str, Any]]) -> Curves:
    """Collect values and seconds for each growing quantity and peer: of a step, or for data of an epoch."""
    found: Curves = {}
    for each in workloads:
        for what, value in each["scale"].items():
            for row in each["results"]:
                seconds = row["median_seconds"] * (each["steps"] if what == "data" else 1)
                found.setdefault(what, {}).setdefault(row["peer"], []).append((value, seconds))
    return found


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Fit the power of growth: the least-squares slope of ln seconds over ln value."""
    x, y = np.log(np.array(points)).T
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / (x * x).sum())
