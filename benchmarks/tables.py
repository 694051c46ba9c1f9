"""Measure accuracy or R² on four tables, beside scikit-learn's MLP with its defaults; write JSON.

python benchmarks/tables.py [--seeds 0-4,7] [--tables iris,wine] [--out FILE.json]

Each seed splits a table into three quarters to learn from and a quarter to test on, written as CSV by scikit-learn in a
process of its own. gpunn reads these files and trains by the recipe `table`, of which it holds back a tenth to watch.
The columns of iris are all lengths in cm, so there gpunn trains on them as they are too (`--scaling none`).
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import fmean

from machine import RESULTS, ROOT, command, machine, write_result

from gpunn.data.load import read_samples
from gpunn.experiments.experiment import read_experiment


def score(folder: Path, name: str, seed: int, scaling: str = "standard") -> float:
    """Train on one split, and return accuracy or R² of its test part."""
    experiment = read_experiment("table").with_options(
        data=str(folder / f"{name}-{seed}-train.csv"), target="target", seed=seed, device="cpu", scaling=scaling
    )
    trainer = experiment.trainer(experiment.load_data(), progress=False)
    trainer.run()
    model = trainer.model
    assert model.trained_on is not None
    assert model.trained_on.columns is not None
    figures = model.evaluate(read_samples(folder / f"{name}-{seed}-test.csv", model.trained_on.columns)).figures
    return figures.get("accuracy", figures.get("r2", 0.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0-4")
    parser.add_argument("--tables", default="iris,wine,breast_cancer,diabetes")
    parser.add_argument("--out", type=Path, default=RESULTS / "tables-cpu.json")
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # that whole numbers are taken for classes
    spans = [list(map(int, part.split("-"))) for part in options.seeds.split(",")]
    seeds = [seed for span in spans for seed in range(span[0], span[-1] + 1)]
    with tempfile.TemporaryDirectory() as temporary:
        script = str(ROOT / "benchmarks/workers/sklearn_tables.py")
        worker = [sys.executable, script, temporary, ",".join(map(str, seeds)), options.tables]
        peers = json.loads(subprocess.run(worker, check=True, capture_output=True, text=True).stdout)
        tables = {}
        for name, theirs in peers["scores"].items():
            scores = {"gpunn": [score(Path(temporary), name, seed) for seed in seeds], **theirs}
            if name == "iris":
                scores["gpunn_plain"] = [score(Path(temporary), name, seed, "none") for seed in seeds]
            means = {key: round(fmean(values), 4) for key, values in scores.items()}
            figure = "R²" if name == "diabetes" else "accuracy"
            tables[name] = {"figure": figure, "means": means, "scores": scores}
            print(f"{name:14} {figure:9} {means}", flush=True)
    result = {
        "what": "accuracy or R² on a quarter of each table, gpunn beside scikit-learn's MLP with its defaults",
        "command": command(),
        "machine": machine() | {"scikit-learn": peers["scikit-learn"]},
        "seeds": seeds,
        "tables": tables,
    }
    write_result(options.out, result)


if __name__ == "__main__":
    main()
