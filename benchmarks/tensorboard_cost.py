"""Measure the cost of TensorBoard events: the ratio of times of alternating runs with and without them.

python benchmarks/tensorboard_cost.py [--pairs N]

Each pair is `gpunn train digits --recipe mlp --device cpu` without and with --tensorboard, in one process and in turns
of first and second. Measured are the training, as the last record has it, and all of the run with its pictures, by the
clock and in processor seconds, which say more where the machine has other work. Shown is the median of the ratios.
Where these scatter by more than the cost itself, the share says more: processor seconds within the calls of the
callback, by those of the rest of the run.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from machine import RESULTS, command, machine, write_result

import gpunn as gn
from gpunn.experiments import run
from gpunn.experiments.experiment import read_experiment

spent = [0.0]  # processor seconds in the calls of the callback


def timed(method: Callable[..., None]) -> Callable[..., None]:
    def call(*given: Any, **named: Any) -> None:
        began = time.process_time()
        method(*given, **named)
        spent[0] += time.process_time() - began

    return call


for hook in ("__init__", "on_train_begin", "on_record", "on_epoch_end", "end_with"):
    setattr(gn.TensorBoard, hook, timed(getattr(gn.TensorBoard, hook)))


def measured(folder: Path, tensorboard: bool) -> dict[str, Any]:
    """Train in a folder, and return the seconds, and the bytes of the model."""
    experiment = read_experiment("mlp").with_options(data="digits", device="cpu")
    spent[0] = 0.0
    began, used = time.perf_counter(), time.process_time()
    run.train(experiment, folder, lambda _: None, progress=False, tensorboard=tensorboard)
    seconds = {"run": time.perf_counter() - began, "run_processor": time.process_time() - used}
    seconds["share"] = spent[0] / (seconds["run_processor"] - spent[0])
    training = gn.History.read_csv(folder / "history.csv")[-1].seconds
    return {**seconds, "training": training, "model": (folder / "model.safetensors").read_bytes()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=15)
    pairs = parser.parse_args().pairs
    rows: list[dict[bool, dict[str, Any]]] = []
    with tempfile.TemporaryDirectory() as name:
        for number in range(pairs + 1):
            order = (False, True) if number % 2 else (True, False)
            rows.append({on: measured(Path(name) / f"{number}-{on}", on) for on in order})
    rows = rows[1:]  # the first has imported and compiled
    kinds = ("training", "run", "run_processor")
    ratios = {kind: [pair[True][kind] / pair[False][kind] for pair in rows] for kind in kinds}
    result = {
        "what": "the cost of events for TensorBoard: digits, recipe mlp, 12 epochs",
        "command": command(),
        "machine": machine(),
        "same_model": all(pair[True]["model"] == pair[False]["model"] for pair in rows),
        "seconds_without": {kind: median(pair[False][kind] for pair in rows) for kind in kinds},
        "median_ratio": {kind: median(ratios[kind]) for kind in kinds},
        "share_of_processor_seconds": median(pair[True]["share"] for pair in rows),
        "shares": [round(pair[True]["share"], 4) for pair in rows],
        "ratios": {kind: [round(ratio, 4) for ratio in ratios[kind]] for kind in kinds},
    }
    for kind in kinds:
        print(
            f"{kind:14} {result['seconds_without'][kind]:.3f} s, with events {result['median_ratio'][kind]:.4f} of it"
        )
    print(f"processor seconds of the callback: {result['share_of_processor_seconds']:.4f} of those of the rest")
    print(f"the same model to the last bit: {result['same_model']}")
    write_result(RESULTS / "tensorboard-cpu.json", result)


if __name__ == "__main__":
    main()
