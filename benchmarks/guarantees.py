"""Measure the costs of the guarantees in docs/reliability.md: a checkpoint, and the check that numbers are finite.

python benchmarks/guarantees.py [RECIPE ...]
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from machine import command, machine
from profiler import profile

from gpunn.experiments.experiment import read_experiment
from gpunn.saving.checkpoint import write_checkpoint
from gpunn.train.monitor import FiniteCheck

RESULTS = Path(__file__).parent / "results"
TIMES = 20


def seconds(work: Callable[[int], object], often: int = 1) -> float:
    """Median seconds of `work`, which is told its number."""
    took = []
    for number in range(TIMES):
        begun = time.perf_counter()
        for _ in range(often):
            work(number)
        took.append((time.perf_counter() - begun) / often)
    return median(took)


def costs(recipe: str, folder: Path) -> dict[str, Any]:
    """Measure both costs for a recipe's network."""
    experiment = read_experiment(recipe)
    trainer = experiment.trainer(experiment.load_data(), progress=False)
    step = profile(trainer, seconds=1.0).step_seconds
    origin, state = experiment.origin(trainer), trainer.state()
    writing = seconds(lambda number: write_checkpoint(folder / f"step-{number}", state, origin, trainer.model))
    written = sum(path.stat().st_size for path in (folder / "step-0").iterdir())
    check = FiniteCheck(trainer.step.backend, trainer.model.parameters.values, trainer.step.totals)
    checking = seconds(lambda _: check.trouble(), often=1000)
    return {
        "recipe": recipe, "parameters": trainer.model.parameters.size, "checkpoint_seconds": writing,
        "checkpoint_bytes": written, "check_seconds": checking, "step_seconds": step,
    }  # fmt: skip


def main() -> None:
    made = []
    for recipe in sys.argv[1:] or ["nielsen-100", "mlp", "lenet", "lenet-bn"]:
        with tempfile.TemporaryDirectory() as folder:
            made.append(costs(recipe, Path(folder)))
        last = made[-1]
        size, took = f"{last['checkpoint_bytes'] / 1e6:.1f} MB", f"{last['checkpoint_seconds'] * 1e3:.1f} ms"
        check, step = f"{last['check_seconds'] * 1e6:.1f} µs", f"{last['step_seconds'] * 1e6:,.0f} µs"
        print(f"{recipe:12}  {last['parameters']:>7,} parameters; {size} in {took}; checked in {check} of {step}")
    result = {"what": "the cost of checkpoints and of the check for finite numbers", "command": command(),
              "machine": machine(), "costs": made}  # fmt: skip
    (RESULTS / "guarantees-cpu.json").write_text(json.dumps(result, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
