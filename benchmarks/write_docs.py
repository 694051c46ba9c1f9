"""docs/benchmarks.md, with its charts, from the JSON of benchmarks/results/bench-*.json.

gpunn bench GROUP --keep && python benchmarks/write_docs.py
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from charts import chart, growth_chart
from machine import RESULTS, ROOT, read_result
from pictures import IMAGES, shrink
from profile_report import HEADINGS as PROFILE_HEADINGS
from profile_report import profile_notes, profile_rows
from profiler import Profile
from report import curves_of, headings, not_measured, rows_of, slope
from targets import HEADINGS as TARGET_HEADINGS
from targets import target_rows
from workloads import workloads

DOCS = ROOT / "docs"

ABOUT = """# Benchmarks

Run `gpunn bench` to do the same work with gpunn and with each peer that you have installed. Peers may live in an
environment of their own; one that is missing is named, with the command that installs it, and the others are measured.

```sh
python -m venv .venv.peers && .venv.peers/bin/pip install torch==2.13.0 jax==0.10.2 scikit-learn==1.9.1
gpunn bench --quick --peers-python .venv.peers/bin/python          # a twentieth of the work: does everything run?
gpunn bench dense conv --peers-python .venv.peers/bin/python       # two groups of workloads
gpunn bench --help                                                 # all groups and options
```

You get the tables below, and `benchmarks.json`, `benchmarks.png` and `growth.png`.

- Each library works in a process of its own, so that no two thread pools meet, with all cores in its own way. They take
  turns, A B A B. The first turn warms up and is not counted: compilers have compiled by then.
- All begin with the same weights (drawn by NumPy) and see the same batches in the same order. Each line says in which
  precision its library computed.
- A step is a whole one: gather of the batch from bytes, conversion, forward, backward, update. gpunn's is the loop of
  `fit` with its shuffling, records and checks; those of the peers are bare loops. Its steps are the first of a training
  of 10,000, which takes all loops of Numba; "start" and `fast99` are what they are.
- Afterwards loss and accuracy of every network, or of its predictions, are computed by the same code and must agree, so
  that nobody wins by doing less; where they do not, the table says so and the program ends with 1.
- A time is the median of the rounds, with the least and the most. "Times gpunn's" is the median of the ratios of each
  round, with the least and the most: above 1, gpunn is faster. A round in which other programs took more than a tenth
  of the processors is done again, twice at most, and else marked as disturbed.
- Images are MNIST where `GPUNN_DATA` names it, else random bytes: the speed of a step does not depend on them.
- Peak memory is that of the whole process, with the library itself and the images, on a device also of its allocator.
- "Start" is from the start of the process to the end of the first step.
- Where the time goes is measured as by `gpunn train --profile`, in a process of its own after the rounds.

Make this page again by `python benchmarks/write_docs.py`, from `benchmarks/results/bench-*.json`, which `gpunn bench
--keep` writes.
"""


def markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table, the headings first."""
    first, *rest = ("| " + " | ".join(row) + " |" for row in rows)
    return [first, "|---" * len(rows[0]) + "|", *rest]


def of_workload(workload: dict[str, Any]) -> Iterator[str]:
    """What was measured of one workload, and where gpunn's time goes in it."""
    yield from ("", f"### {workload['name']}", "", f"Data: {workload['data']}.", "")
    yield from markdown([headings(workload), *rows_of(workload)])
    if left := not_measured(workload):
        yield from ("", f"Not measured: {'; '.join(left)}.")
    if workload["profile"]:
        profile = Profile.from_dict(workload["profile"])
        yield from ("", "<details><summary>Where the time of gpunn's step goes</summary>", "")
        yield from markdown([PROFILE_HEADINGS, *profile_rows(profile)])
        yield from ("", " ".join(profile_notes(profile)), "", "</details>")


def of_growth(workloads: Sequence[dict[str, Any]], picture: str) -> Iterator[str]:
    """The slopes of the growth of time."""
    curves = curves_of(workloads)
    if not curves:
        return
    yield from ("", "### Growth", "", f"![Time against batch, width, depth and data](images/{picture})", "")
    yield from ("784-128-10 at batch 128, one quantity growing at a time: slopes of ln seconds over its ln.", "")
    peers = list(dict.fromkeys(peer for each in curves.values() for peer in each))
    rows = [("", *peers)]
    for what, each in curves.items():
        rows.append((what, *(f"{slope(each[peer]):.2f}" if len(each.get(peer, [])) > 1 else "" for peer in peers)))
    yield from markdown(rows)


def device_of(runs: Sequence[dict[str, Any]]) -> str:
    """What all of these runs ran on, in words."""
    machine, device = runs[0]["machine"], runs[0]["device"]
    words = f"{machine['processor']}, {machine['cores']} cores"
    if device != "cpu":
        rows = (row for run in runs for each in run["workloads"] for row in each["results"] if row["peer"] == "gpunn")
        words = f"{next(row['device'] for row in rows)}; {words}"
    return words


def names_of(sections: Sequence[Sequence[dict[str, Any]]]) -> list[str]:
    """Of each machine's charts: its device and precision; of two alike the one of less work is numbered."""
    names = [
        runs[0]["device"] + ("" if runs[0]["precision"] == "float32" else f"-{runs[0]['precision']}")
        for runs in sections
    ]
    work = [sum(len(run["workloads"]) for run in runs) for runs in sections]
    numbered = list(names)
    for place in range(len(names)):
        before = [k for k in range(len(names)) if names[k] == names[place] and (-work[k], k) < (-work[place], place)]
        numbered[place] += f"-{len(before) + 1}" if before else ""
    return numbered


def section(runs: Sequence[dict[str, Any]], name: str) -> str:
    """All runs on one machine, whose charts have a name."""
    machine = runs[0]["machine"]
    done = [workload for run in runs for workload in run["workloads"]]
    lines = [
        f"## {device_of(runs)}, {runs[0]['precision']}",
        "",
        f"Python {machine['python']}, NumPy {machine['numpy']}"
        + (f", Numba {machine['numba']}." if machine.get("numba") else "."),
    ]
    lines += ["", *markdown([("command", "date", "commit", "load at the end"), *(
        (f"`{run['command']}`", run["date"], run["commit"], f"{run['load_average'][0]:.1f}") for run in runs
    )])]  # fmt: skip
    if rows := target_rows(runs[0]["device"], done):
        lines += ["", "### What gpunn is to reach", "", *markdown([TARGET_HEADINGS, *rows])]
    if any(not each["scale"] for each in done):
        lines += ["", f"![Times of all peers as multiples of gpunn's](images/benchmarks-{name}.png)"]
    for workload in done:
        if not workload["scale"]:
            lines += of_workload(workload)
    return "\n".join([*lines, *of_growth(done, f"growth-{name}.png")])


def page(runs: Sequence[dict[str, Any]]) -> str:
    """The whole page."""
    sections = by_machine(runs)
    return "\n\n".join([ABOUT.rstrip(), *map(section, sections, names_of(sections))]) + "\n"


def by_machine(runs: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The runs of each machine, device and precision."""

    def key(run: dict[str, Any]) -> tuple[str, ...]:
        machine = run["machine"]
        return (
            run["device"],
            run["precision"],
            *(str(machine[word]) for word in ("processor", "cores", "python", "numpy")),
        )

    return [list(each) for _, each in groupby(sorted(runs, key=key), key)]


def read_runs(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """All runs that are kept, in the order in which `gpunn bench` has their groups."""
    runs = [read_result(path) for path in sorted(folder.glob("bench-*.json"))]
    order = {workload.name: number for number, workload in enumerate(workloads())}
    return sorted(runs, key=lambda run: min(order.get(each["name"], len(order)) for each in run["workloads"]))


def main() -> None:
    runs = read_runs()
    sections = by_machine(runs)
    for each, of in zip(sections, names_of(sections), strict=True):
        done = [workload for run in each for workload in run["workloads"]]
        for name, draw in ((f"benchmarks-{of}.png", chart), (f"growth-{of}.png", growth_chart)):
            draw(done, IMAGES / name)
            if (IMAGES / name).is_file():
                shrink(IMAGES / name, IMAGES / name)
    (DOCS / "benchmarks.md").write_text(page(runs), "utf-8")


if __name__ == "__main__":
    main()
