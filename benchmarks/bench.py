"""gpunn and its peers at the same work, side by side: a table, a bar chart and JSON.

python benchmarks/bench.py [GROUP...] [--rounds 5] [--device D] [--peers gpunn,PyTorch] [--out FOLDER]

Each peer works in a process of its own; they take turns, A B A B; a ratio is the median of the ratios of the rounds.
Groups: dense, conv, conv1024, deep, predict, start, fast99, growth; left out, all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from machine import machine
from measure import rounds_of, summarised
from peers import PEERS, ROOT, Peer
from report import chart, growth_chart, table
from workloads import Workload, workloads

from gpunn.backend import select


def commit() -> str:
    """The commit that was measured, with "+" where files were changed since."""

    def git(*words: str) -> str:
        try:
            return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return ""

    return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "-uno", "gpunn") else "")


def chosen_peers(names: str, device: str) -> list[Peer]:
    """The peers whose names begin with one of those given."""
    wanted = [name.strip().lower() for name in names.split(",") if name.strip()]
    return [
        peer
        for peer in PEERS
        if device in peer.devices and (not wanted or any(peer.name.lower().startswith(name) for name in wanted))
    ]


def fits(peer: Peer, workload: Workload, device: str) -> bool:
    """Whether a peer can do a workload at all."""
    is_images = any(layer["type"] == "Flatten" for layer in workload.layers)
    return workload.kind in peer.kinds and (not is_images or device in peer.images_on)


def main(arguments: list[str] | None = None) -> int:
    known = workloads()
    groups = list(dict.fromkeys(workload.group for workload in known))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=", ".join(groups))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--precision", default="float32", choices=["float32", "tf32", "bfloat16"])
    parser.add_argument("--peers", default="", help="only those whose names begin so, with commas between")
    parser.add_argument("--peers-python", default=os.environ.get("GPUNN_PEERS_PYTHON", sys.executable),
                        help="interpreter of the environment that the peers are in (GPUNN_PEERS_PYTHON)")  # fmt: skip
    parser.add_argument("--only", default="", help="only workloads whose names contain this")
    parser.add_argument("--out", type=Path, default=Path("bench"), help="folder for benchmarks.json and .png")
    options = parser.parse_args(arguments)
    if unknown := set(options.groups) - set(groups):
        parser.error(f"unknown group {', '.join(sorted(unknown))}: expected {', '.join(groups)}")
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    if options.device == "auto":
        options.device = select("auto").device.partition(":")[0]
    peers = chosen_peers(options.peers, options.device)
    done: list[dict[str, Any]] = []
    options.out.mkdir(parents=True, exist_ok=True)
    for workload in known:
        if (options.groups and workload.group not in options.groups) or options.only not in workload.name:
            continue
        print(f"{workload.name}", flush=True)
        measured = rounds_of(
            workload, [peer for peer in peers if fits(peer, workload, options.device)], options.rounds, options.device,
            options.precision, options.peers_python, print,
        )  # fmt: skip
        done.append(summarised(workload, measured))
        print(table(done[-1]), flush=True)
        write(options, done)
    if done:
        chart(done, options.out / "benchmarks.png")
        growth_chart(done, options.out / "growth.png")
        print(f"written to {', '.join(map(str, sorted(options.out.glob('*.*'))))}")
    return 0 if all(row["agrees"] for each in done for row in each["results"]) else 1


def write(options: argparse.Namespace, done: list[dict[str, Any]]) -> None:
    """What is done so far, so that a long run that is stopped leaves something."""
    result = {
        "command": f"python benchmarks/bench.py {' '.join(options.groups)} --rounds {options.rounds}"
        + (f" --device {options.device}" if options.device != "cpu" else ""),
        "commit": commit(),
        "machine": machine(),
        "date": time.strftime("%Y-%m-%d"),
        "device": options.device,
        "precision": options.precision,
        "load_average": os.getloadavg(),
        "workloads": done,
    }
    (options.out / "benchmarks.json").write_text(json.dumps(result, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
