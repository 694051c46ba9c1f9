"""Measure a recipe's test accuracy over some seeds, as JSON; a GPU and several ranks must reach that of the CPU.

python benchmarks/accuracy.py RECIPE [DATA] [--seeds 0,1,2] [--device D] [--epochs N] [--pad 32]
mpiexec -n 2 python benchmarks/accuracy.py lenet-bn
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from machine import RESULTS, command, machine, write_result

from gpunn.backend.ranks import world
from gpunn.data import load_data
from gpunn.experiments import run
from gpunn.experiments.experiment import read_experiment
from gpunn.experiments.folder import METRICS

ALIKE = 0.0015
"""How far the mean of a GPU, or of several ranks, may be from that of one process on the CPU on the same seeds."""

KEPT = (
    "seed", "test_accuracy", "test_loss", "validation_accuracy", "epochs", "seconds", "samples_per_second", "device",
    "device_description",
)  # fmt: skip


def main() -> str | None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("data", nargs="?")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--device")
    parser.add_argument("--epochs", type=int, help="in the place of those of the recipe")
    parser.add_argument("--pad", type=int, help="height and width to which zeros around bring the images of DATA")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON")
    parser.add_argument("--alike", type=float, default=ALIKE, help=f"how far from the CPU a GPU may be ({ALIKE})")
    options = parser.parse_args()
    runs, seeds = [], list(map(int, options.seeds.split(",")))
    ranks = world()
    for seed in seeds:
        metrics = measured(options, seed)
        runs.append({key: metrics[key] for key in KEPT})
    if not ranks.is_first:
        return None
    result = {
        "what": f"test accuracy of {metrics['name']} on {metrics['data']}",
        "command": command(),
        "machine": machine(),
        "mean_test_accuracy": fmean(each["test_accuracy"] for each in runs),
        "runs": runs,
    }
    device, stem = runs[0]["device"].partition(":")[0], f"accuracy-{metrics['data']}-{metrics['name']}"
    shared = f"-{ranks.size}-ranks" if ranks.size > 1 else ""
    target, on_cpu = options.out / f"{stem}-{device}{shared}.json", RESULTS / f"{stem}-cpu.json"
    if (device != "cpu" or shared) and on_cpu.is_file():
        there = {each["seed"]: each["test_accuracy"] for each in json.loads(on_cpu.read_text("utf-8"))["runs"]}
        if missing := [seed for seed in seeds if seed not in there]:
            print(f"not compared with the CPU: {on_cpu} has no seeds {missing}; it has {list(there)}")
        else:
            result["mean_on_cpu"] = fmean(there[seed] for seed in seeds)
    write_result(target, result)
    print(f"mean test accuracy {result['mean_test_accuracy']:.4f}: {target}")
    if "mean_on_cpu" not in result:
        return None
    print(f"mean on the CPU    {result['mean_on_cpu']:.4f}: {on_cpu}")
    off = abs(result["mean_test_accuracy"] - result["mean_on_cpu"])
    return f"{off:.2%} from the CPU's, more than {options.alike:.2%}" if off > options.alike else None


def measured(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Return the metrics of one run, on every rank."""
    ranks = world()
    with tempfile.TemporaryDirectory() as own:
        folder = Path(ranks.broadcast(own))
        data = ranks.of_first(lambda: padded(options.data, options.pad, folder)) if options.pad else options.data
        changes = {"data": data, "seed": seed, "device": options.device, "epochs": options.epochs}
        experiment = read_experiment(options.recipe).with_options(**changes)
        made = run.train(experiment, folder / "run", print if ranks.is_first else _say_nothing, progress=False)
        metrics: dict[str, Any] = ranks.of_first(lambda: json.loads((made / METRICS).read_text("utf-8")))
        return metrics | {"name": experiment.name}


def _say_nothing(line: str) -> None:
    """Stand for `print` on the ranks that are not the first."""


def padded(source: str, size: int, folder: Path) -> str:
    """Write the images of a data set with zeros around them, and return the path of the file."""
    data = load_data(source, validation=0)
    arrays = {}
    for part, samples in (("train", data.train), ("test", data.test)):
        images = np.asarray(samples.inputs)
        around = [(left := (size - n) // 2, size - n - left) for n in images.shape[1:3]]
        arrays[f"x_{part}"] = np.pad(images, [(0, 0), *around, (0, 0)])
        arrays[f"y_{part}"] = samples.targets
    np.savez(path := folder / f"{source}-{size}.npz", **arrays)
    return str(path)


if __name__ == "__main__":
    sys.exit(main())
