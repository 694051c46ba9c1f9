"""docs/benchmarks.md from the JSON of benchmarks/results/bench-*.json.

python benchmarks/bench.py dense --out bench && cp bench/benchmarks.json benchmarks/results/bench-cpu-dense.json
python benchmarks/write_docs.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from report import HEADINGS, chart, curves_of, growth_chart, rows_of, slope

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
DOCS = ROOT / "docs"

ABOUT = """# Benchmarks

`python benchmarks/write_docs.py` makes this page from `benchmarks/results/bench-*.json`; every figure was measured.

`gpunn bench` does the same work with gpunn and with each peer that is installed:

- Each library works in a process of its own, so that no two thread pools meet, with all cores in its own way. They take
  turns, A B A B. The first turn warms up and is not counted: compilers have compiled by then.
- All begin with the same weights (drawn by NumPy) and see the same batches in the same order, in the same precision.
- A step is a whole one: gather of the batch from bytes, conversion, forward, backward, update. gpunn's is the loop of
  `fit` with its shuffling, records and checks; those of the peers are bare loops.
- Afterwards the cost of every network is computed by the same code. "Cost after" must agree, so nobody wins by
  doing less; where it does not, the table says COST DIFFERS and the program ends with 1.
- A time is the median of the rounds, with the least and the most; "times gpunn's" is the median of the ratios of each
  round: above 1, gpunn is faster. A round in which other programs took more than a tenth of the processors is done
  again, twice at most, and else marked as disturbed.
- Images are MNIST where `GPUNN_DATA` names it, else random bytes: the speed of a step does not depend on them.
"""


def section(run: dict[str, Any]) -> str:
    """One run of the program."""
    machine = run["machine"]
    versions = f"Python {machine['python']}, NumPy {machine['numpy']}"
    load = f"load average at the end {run['load_average'][0]:.1f}"
    lines = [
        f"## {machine['processor']}, {machine['cores']} cores, {run['device']}, {run['precision']}",
        "",
        f"`{run['command']}`, {run['date']}, commit {run['commit']}, {versions}; {load}.",
    ]
    for workload in run["workloads"]:
        if workload["scale"]:
            continue
        lines += ["", f"### {workload['name']}", "", f"Data: {workload['data']}.", ""]
        lines += ["| " + " | ".join(HEADINGS) + " |", "|---" * len(HEADINGS) + "|"]
        lines += ["| " + " | ".join(row) + " |" for row in rows_of(workload)]
        lines += [f"\n{name}: {why}." for name, why in workload["absent"].items()]
    if curves := curves_of(run["workloads"]):
        lines += ["", "### Growth", "", "Slope of ln seconds over ln of what grows.", ""]
        peers = list(dict.fromkeys(peer for each in curves.values() for peer in each))
        lines += ["| | " + " | ".join(peers) + " |", "|---" * (len(peers) + 1) + "|"]
        for what, each in curves.items():
            slopes = (f"{slope(each[peer]):.2f}" if len(each.get(peer, [])) > 1 else "" for peer in peers)
            lines.append(f"| {what} | " + " | ".join(slopes) + " |")
    return "\n".join(lines)


def page(runs: list[dict[str, Any]]) -> str:
    """The whole page."""
    pictures = [name for name in ("benchmarks", "growth") if (DOCS / "images" / f"{name}.png").is_file()]
    parts = [ABOUT.rstrip(), *(f"![{name}](images/{name}.png)" for name in pictures), *map(section, runs)]
    return "\n\n".join(parts) + "\n"


def read_runs(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """All runs that are kept."""
    return [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("bench-*.json"))]


def main() -> None:
    runs = read_runs()
    done = [workload for run in runs for workload in run["workloads"]]
    chart(done, DOCS / "images" / "benchmarks.png")
    growth_chart(done, DOCS / "images" / "growth.png")
    (DOCS / "benchmarks.md").write_text(page(runs), "utf-8")


if __name__ == "__main__":
    main()
