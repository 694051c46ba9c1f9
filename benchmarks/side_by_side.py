"""Time trainings side by side: K at once, K at once with one BLAS thread each, and one alone.

python benchmarks/side_by_side.py [--at-once K] [--rounds N] [digits | lenet ...]

The three take turns, and a ratio is the median of the ratios of the rounds, so that a machine which is busy with other
things for a while disturbs all three alike.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from machine import command, machine

RESULTS = Path(__file__).parent / "results"
PATIENCE = 300.0
"""Seconds after which a training is given up: with threads that wait for each other it may take forty times as long."""

WORK = {"digits": ["digits", "--epochs", "30"], "lenet": ["mnist", "--recipe", "lenet", "--epochs", "1"]}


def seconds(arguments: list[str], count: int, one_thread: bool) -> float:
    """Mean seconds of so many trainings that start at once, each from the start of its process to its end."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    environment |= {"OPENBLAS_NUM_THREADS": "1"} if one_thread else {}
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        started = [
            subprocess.Popen(
                [sys.executable, "-m", "gpunn", "train", *arguments, "--device", "cpu", "--out", f"{folder}/{number}"],
                env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            )
            for number in range(count)
        ]  # fmt: skip
        took, running = [], list(started)
        try:
            while running and time.perf_counter() - began < PATIENCE:
                took += [time.perf_counter() - began for training in running if training.poll() is not None]
                running = [training for training in running if training.poll() is None]
                time.sleep(0.01)
        finally:
            for training in running:
                training.kill()
            errors = [training.communicate()[1] for training in started]
    if running:
        sys.exit(f"{len(running)} of {count} trainings took more than {PATIENCE:.0f} s")
    if failed := [error for training, error in zip(started, errors, strict=True) if training.returncode]:
        sys.exit(failed[0])
    return sum(took) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(WORK)}; left out, all of them")
    parser.add_argument("--at-once", type=int, default=2, metavar="K")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    options = parser.parse_args()
    if unknown := set(options.names) - set(WORK):
        parser.error(f"unknown {', '.join(sorted(unknown))}: expected {', '.join(WORK)}")
    path, count = RESULTS / "side-by-side-cpu.json", options.at_once
    found: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))["trainings"] if path.is_file() else []
    for name in options.names or WORK:
        ways = {"at_once": (count, False), "one_thread_each": (count, True), "alone": (1, False)}
        rounds: list[dict[str, float]] = []
        for _ in range(options.rounds):
            rounds.append({way: seconds(WORK[name], *how) for way, how in ways.items()})
            print("  ".join(f"{way} {took:.1f} s" for way, took in rounds[-1].items()), flush=True)
        ratio = median(each["at_once"] / each["one_thread_each"] for each in rounds)
        made = {
            "training": " ".join(WORK[name]), "at_once": count, "command": command(), "machine": machine(),
            "date": time.strftime("%Y-%m-%d"), "load_average": os.getloadavg(), "seconds": rounds, "ratio": ratio,
        }  # fmt: skip
        found = [one for one in found if (one["training"], one["at_once"]) != (made["training"], count)] + [made]
        middle = {way: median(each[way] for each in rounds) for way in ways}
        print(f"{name} × {count}: {middle['at_once']:.1f} s at once, {middle['one_thread_each']:.1f} s with one BLAS "
              f"thread each, ratio {ratio:.2f}; alone {middle['alone']:.1f} s", flush=True)  # fmt: skip
        result = {"what": "trainings side by side, mean seconds of each", "trainings": found}
        path.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
