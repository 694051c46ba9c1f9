"""Run gpunn and its peers at the same work, side by side: a table, bar charts and JSON.

Each peer works in a process of its own; they take turns, A B A B; a ratio is the median of the ratios of the rounds.
The peers are looked for in the environment of --peers-python (or GPUNN_PEERS_PYTHON), by default in this one:

  python -m venv .venv.peers && .venv.peers/bin/pip install torch==2.13.0 jax==0.10.2 scikit-learn==1.9.1
  gpunn bench dense conv --peers-python .venv.peers/bin/python
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from charts import chart, growth_chart
from machine import RESULTS, commit, machine, write_result
from measure import rounds_of, summarised
from peers import PEERS, PLAIN, Peer
from report import ROUNDS, headings, not_measured, rows_of, table
from targets import HEADINGS as TARGET_HEADINGS
from targets import target_rows
from workloads import on_device, quickened, workloads

from gpunn.backend.devices import select
from gpunn.kernels.numba_loops import version


def chosen_peers(names: str, device: str) -> list[Peer]:
    """The peers whose names begin with one of those given."""
    wanted = [name.strip().lower() for name in names.split(",") if name.strip()]
    return [
        peer
        for peer in PEERS
        if device in peer.devices
        and (peer.name != PLAIN or version())  # else "gpunn" itself is that
        and (not wanted or any(peer.name.lower().startswith(name) for name in wanted))
    ]


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The options, checked."""
    groups = list(dict.fromkeys(workload.group for workload in workloads()))
    parser = argparse.ArgumentParser(
        prog="gpunn bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"{', '.join(groups)}; left out, all of them")
    parser.add_argument("--quick", action="store_true", help="a twentieth of the work, once: to see that it runs")
    parser.add_argument("--rounds", type=int, help=f"turns that each library has ({ROUNDS}, or 1 with --quick)")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--precision", default="float32", choices=["float32", "tf32", "bfloat16"])
    parser.add_argument("--peers", default="", help="only those whose names begin so, with commas between")
    parser.add_argument("--peers-python", default=os.environ.get("GPUNN_PEERS_PYTHON", sys.executable),
                        metavar="PYTHON", help="interpreter of the environment that the peers are in")  # fmt: skip
    parser.add_argument("--only", default="", metavar="TEXT", help="only workloads whose names contain this")
    parser.add_argument("--out", type=Path, default=Path("bench"), help="folder for benchmarks.json and the charts")
    parser.add_argument("--keep", action="store_true",
                        help="write each group to benchmarks/results too, for docs/benchmarks.md")  # fmt: skip
    options = parser.parse_args(arguments)
    if unknown := set(options.groups) - set(groups):
        parser.error(f"unknown group {', '.join(sorted(unknown))}: expected {', '.join(groups)}")
    options.groups = options.groups or groups
    options.rounds = options.rounds if options.rounds is not None else 1 if options.quick else ROUNDS
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    if options.keep and (options.quick or options.only or options.peers or options.rounds < ROUNDS):
        parser.error(
            f"--keep is for whole measurements: not with --quick, --only, --peers or fewer than {ROUNDS} rounds"
        )
    if shutil.which(options.peers_python) is None:
        parser.error(f"--peers-python {options.peers_python} is no program: give the python of the peers' environment")
    if options.device == "auto":
        options.device = select("auto").device.partition(":")[0]
    if options.device == "cpu" and options.precision != "float32":
        parser.error(f"--precision {options.precision} needs a CUDA device")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parsed(arguments)
    peers = chosen_peers(options.peers, options.device)
    done: list[dict[str, Any]] = []
    options.out.mkdir(parents=True, exist_ok=True)
    print(f"{options.device}, {options.precision}, {options.rounds} rounds, commit {commit()}", flush=True)
    for group in options.groups:
        begun, found = time.perf_counter(), len(done)
        for workload in workloads():
            if workload.group != group or options.only not in workload.name:
                continue
            print(f"\n{workload.name}", flush=True)
            workload = on_device(workload, options.device)
            workload = quickened(workload) if options.quick else workload
            measured = rounds_of(
                workload, peers, options.rounds, options.device, options.precision, options.peers_python, print
            )
            done.append(summarised(workload, measured))
            print(table([headings(done[-1]), *rows_of(done[-1])]))
            print("".join(f"  not measured: {line}\n" for line in not_measured(done[-1])), end="", flush=True)
            write(options.out / "benchmarks.json", options, options.groups, done)
        if options.keep:
            write(RESULTS / kept_name(options, group), options, [group], done[found:])
        print(f"\n{group}: {time.perf_counter() - begun:.0f} s", flush=True)
    chart(done, options.out / "benchmarks.png")
    growth_chart(done, options.out / "growth.png")
    if not options.quick and (rows := target_rows(options.device, done)):
        print("\n" + table([TARGET_HEADINGS, *rows]))
    print(f"\nwritten to {', '.join(map(str, sorted(options.out.glob('*.*'))))}")
    failed = any({"gpunn", "profile"} & set(each["absent"]) for each in done)
    return 1 if failed or not all(row["agrees"] for each in done for row in each["results"]) else 0


def kept_name(options: argparse.Namespace, group: str) -> str:
    """The file of a group's results, which the next run of it on such a device overwrites."""
    precision = "" if options.precision == "float32" else f"-{options.precision}"
    return f"bench-{options.device}{precision}-{group}.json"


def write(path: Path, options: argparse.Namespace, groups: list[str], done: list[dict[str, Any]]) -> None:
    """What is done so far, so that a long run that is stopped leaves something."""
    words = ["gpunn bench", *groups, f"--rounds {options.rounds}", f"--device {options.device}"]
    words += [f"--precision {options.precision}"] if options.precision != "float32" else []
    words += ["--quick"] if options.quick else []
    result = {
        "command": " ".join(words),
        "commit": commit(),
        "machine": machine(),
        "date": time.strftime("%Y-%m-%d"),
        "device": options.device,
        "precision": options.precision,
        "load_average": os.getloadavg(),
        "workloads": done,
    }
    write_result(path, result)


if __name__ == "__main__":
    sys.exit(main())
