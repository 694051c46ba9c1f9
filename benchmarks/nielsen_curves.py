"""Draw the trainings of Nielsen's chapter 3 over his published curves; write figures as JSON and curves as CSV.

python benchmarks/nielsen_curves.py [--seeds 0,1]

The published curves are looked for in GPUNN_DATA/curves, then in ../shared/data/curves; each file is
[test_cost, test_correct of 10,000, training_cost, training_correct of 1,000], one number an epoch.
The CSV in results/ has both, for the lecture: a row an epoch, columns such as overfitting_published_train_loss.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from machine import command, machine
from pictures import IMAGES, shrink

from gpunn import History
from gpunn.experiments import run
from gpunn.experiments.experiment import read_experiment
from gpunn.experiments.folder import HISTORY
from gpunn.reports import plot_curves

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
NAMES = ("overfitting", "regularized")


def published(name: str) -> dict[str, Any]:
    """Read the published curves for `plot_curves`."""
    folders = [Path(os.environ.get("GPUNN_DATA", ".")) / "curves", ROOT.parent / "shared" / "data" / "curves"]
    path = next((folder / f"{name}.json" for folder in folders if (folder / f"{name}.json").is_file()), None)
    if path is None:
        raise SystemExit(f"{name}.json was found in none of {', '.join(map(str, folders))}: set GPUNN_DATA")
    test_cost, test_right, train_cost, train_right = json.loads(path.read_text("utf-8"))
    return {
        "name": "published by Nielsen",
        "train_loss": train_cost,
        "validation_loss": test_cost,
        "train_accuracy": [right / 1_000 for right in train_right],
        "validation_accuracy": [right / 10_000 for right in test_right],
    }


def measure(name: str, seed: int) -> tuple[History, dict[str, Any]]:
    """Train once, and return the history and its figures."""
    experiment = read_experiment(f"nielsen-{name}").with_options(seed=seed, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        made = run.train(experiment, Path(folder) / "run", print, progress=False)
        history = History.read_csv(made / HISTORY)
    since, best, last = history.overfitting_since, history.best, history[-1]
    return history, {
        "recipe": experiment.name,
        "seed": seed,
        "test_accuracy": last.validation_accuracy,
        "test_cost": last.validation_loss,
        "train_cost": last.train_loss,
        "lowest_test_cost": best and best.validation_loss,
        "lowest_test_cost_at_epoch": best and best.epoch,
        "overfitting_since_epoch": since and since.epoch,
        "seconds": last.seconds,
    }


def write_curves(curves: dict[str, list[float]]) -> None:
    """Write columns of one number an epoch as CSV, rounded to what can be seen in a picture."""
    columns = {"epoch": list(range(1, len(next(iter(curves.values()))) + 1)), **curves}
    rows = zip(*columns.values(), strict=True)
    lines = [",".join(columns), *(",".join(f"{number:.5g}" for number in row) for row in rows)]
    (RESULTS / "nielsen-curves.csv").write_text("\n".join(lines) + "\n", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0,1")
    seeds = [int(seed) for seed in parser.parse_args().seeds.split(",")]
    figures, theirs, curves = [], {}, {}
    for name in NAMES:
        reference = published(name)
        theirs[name] = {
            "test_accuracy": reference["validation_accuracy"][-1],
            "test_cost": reference["validation_loss"][-1],
            "lowest_test_cost": min(reference["validation_loss"]),
        }
        for seed in seeds:
            history, found = measure(name, seed)
            figures.append(found)
            if seed == seeds[0]:
                # The published training cost contains λR.
                penalties = [0.0 if math.isnan(r.penalty) else r.penalty for r in history]
                whole = [replace(r, train_loss=r.train_loss + p) for r, p in zip(history, penalties, strict=True)]
                title = f"nielsen-{name}, seed {seed}: ours over the published curves"
                picture = IMAGES / f"nielsen-{name}.png"
                plot_curves(History(whole), picture, title=title, reference=reference)
                measures = [key for key in reference if key != "name"]
                curves |= {f"{name}_published_{key}": reference[key] for key in measures}
                curves |= {f"{name}_gpunn_{key}": [getattr(r, key) for r in whole] for key in measures}
                shrink(picture, picture)
    result = {
        "what": "the trainings of Nielsen's chapter 3: first 1,000 images of MNIST, the test set watched as validation",
        "command": command(),
        "machine": machine(),
        "published": theirs,
        "runs": figures,
    }
    RESULTS.mkdir(exist_ok=True)
    write_curves(curves)
    (RESULTS / "nielsen-curves.json").write_text(json.dumps(result, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
