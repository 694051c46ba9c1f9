"""Write docs/benchmarks.md with its charts, from the JSON of benchmarks/results/bench-*.json.

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

Compare gpunn with PyTorch, JAX and scikit-learn on your machine: `gpunn bench` runs the same work with gpunn and with
each installed peer. Peers may be in a separate environment. A missing peer is named with the command that installs
it.

```sh
python -m venv .venv.peers && .venv.peers/bin/pip install torch==2.13.0 jax==0.10.2 scikit-learn==1.9.1
gpunn bench --quick --peers-python .venv.peers/bin/python          # a twentieth of the work: does everything run?
gpunn bench dense conv --peers-python .venv.peers/bin/python       # two groups of workloads
gpunn bench --help                                                 # all groups and options
```

You get the tables below, and `benchmarks.json`, `benchmarks.png` and `growth.png`.

- **Processes.** Each library runs in a separate process with all cores, so thread pools do not collide. They take
  turns, A B A B. The first turn warms up (compilers finish) and is not counted. Before a turn gpunn measures for a
  quarter of a second how many cores are free, as it does four times a second in a training.
- **Work.** All begin with the same weights (drawn by NumPy) and see the same batches in the same order. A step is
  gather of the batch from bytes, conversion, forward, backward and update. gpunn runs the loop of `fit` with
  shuffling, records and checks; the peers run bare loops. gpunn's steps are the first of a training of 10,000, so
  Numba's loops are used; "start" and `fast99` run as usual. Each row has the precision of its library.
- **Agreement.** Afterwards the same code computes loss and accuracy of every network, or of its predictions. They
  must agree, so no library wins by doing less; if they differ, the table says so and the program exits with 1.
- **Times** are medians of the rounds, with minimum and maximum. "Times gpunn's" is the median of the ratios in each
  round, with minimum and maximum: above 1, gpunn is faster. A round in which other programs used more than a tenth of
  the processors is repeated at most twice, else marked as disturbed. "Start" is from the start of the process to the
  end of the first step.
- **Data** are MNIST if `GPUNN_DATA` names it, else random bytes: the speed of a step does not depend on them.
- **Peak memory** is that of the whole process with library and images, on a device also that of its allocator.
- **Profiles** (where the time goes) come from `gpunn train --profile`, in a separate process after the rounds.

`python benchmarks/write_docs.py` writes this page from `benchmarks/results/bench-*.json`, which `gpunn bench --keep`
writes.
"""


def markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    """Write a table, the headings first."""
    first, *rest = ("| " + " | ".join(row) + " |" for row in rows)
    return [first, "|---" * len(rows[0]) + "|", *rest]


def of_workload(workload: dict[str, Any]) -> Iterator[str]:
    """Write the measurements of a workload, and the profile of gpunn's step."""
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
    """Write the slopes of the growth of time."""
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
    """Describe the machine or device of the runs."""
    machine, device = runs[0]["machine"], runs[0]["device"]
    words = f"{machine['processor']}, {machine['cores']} cores"
    if device != "cpu":
        rows = (row for run in runs for each in run["workloads"] for row in each["results"] if row["peer"] == "gpunn")
        words = f"{next(row['device'] for row in rows)}; {words}"
    return words


def names_of(sections: Sequence[Sequence[dict[str, Any]]]) -> list[str]:
    """Name each machine's charts by device and precision; number the one of less work of two alike."""
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
    """Write the section of all runs on one machine."""
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
        lines += ["", "### Targets", "", *markdown([TARGET_HEADINGS, *rows])]
    if any(not each["scale"] for each in done):
        lines += ["", f"![Times of all peers as multiples of gpunn's](images/benchmarks-{name}.png)"]
    for workload in done:
        if not workload["scale"]:
            lines += of_workload(workload)
    return "\n".join([*lines, *of_growth(done, f"growth-{name}.png")])


def page(runs: Sequence[dict[str, Any]]) -> str:
    """Write the whole page."""
    sections = by_machine(runs)
    return "\n\n".join([ABOUT.rstrip(), *map(section, sections, names_of(sections))]) + "\n"


def by_machine(runs: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Group the runs by machine, device and precision."""

    def key(run: dict[str, Any]) -> tuple[str, ...]:
        machine = run["machine"]
        return (
            run["device"],
            run["precision"],
            *(str(machine[word]) for word in ("processor", "cores", "python", "numpy")),
        )

    return [list(each) for _, each in groupby(sorted(runs, key=key), key)]


def read_runs(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """Read all kept runs, in the order of their groups in `gpunn bench`."""
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
