"""Test accuracy of a recipe over some seeds, as JSON in results/; on a GPU it must be that of the CPU.

python benchmarks/accuracy.py RECIPE [DATA] [--seeds 0,1,2] [--device D]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import fmean

from machine import command, machine

from gpunn import run
from gpunn.recipes import read_experiment
from gpunn.run_folder import METRICS

RESULTS = Path(__file__).parent / "results"
ALIKE = 0.0015
"""How far the mean of a GPU may be from that of the CPU."""

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
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON")
    options = parser.parse_args()
    runs = []
    for seed in map(int, options.seeds.split(",")):
        experiment = read_experiment(options.recipe).with_options(data=options.data, seed=seed, device=options.device)
        with tempfile.TemporaryDirectory() as folder:
            made = run.train(experiment, Path(folder) / "run", print, progress=False)
            metrics = json.loads((made / METRICS).read_text("utf-8"))
        runs.append({key: metrics[key] for key in KEPT})
    result = {
        "what": f"test accuracy of {experiment.name} on {metrics['data']}",
        "command": command(),
        "machine": machine(),
        "mean_test_accuracy": fmean(each["test_accuracy"] for each in runs),
        "runs": runs,
    }
    options.out.mkdir(exist_ok=True)
    device, stem = runs[0]["device"].partition(":")[0], f"accuracy-{metrics['data']}-{experiment.name}"
    target, on_cpu = options.out / f"{stem}-{device}.json", RESULTS / f"{stem}-cpu.json"
    target.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    print(f"mean test accuracy {result['mean_test_accuracy']:.4f}: {target}")
    if device == "cpu" or not on_cpu.is_file():
        return None
    expected = json.loads(on_cpu.read_text("utf-8"))["mean_test_accuracy"]
    print(f"mean on the CPU    {expected:.4f}: {on_cpu}")
    off = abs(result["mean_test_accuracy"] - expected)
    return f"{off:.2%} from the CPU's, more than {ALIKE:.2%}" if off > ALIKE else None


if __name__ == "__main__":
    sys.exit(main())
