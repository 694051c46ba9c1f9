"""Run the example of docs/fine-tuning.md for several seeds, epochs and frozen epochs; write figures as JSON.

python benchmarks/fine_tuning.py [--seeds 0,1,2,3,4] [--epochs 3,4,10,20]
"""

from __future__ import annotations

import argparse
import io
import json
import re
import tempfile
from collections.abc import Sequence
from contextlib import chdir, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import numpy as np
from machine import command, machine

import gpunn as gn
from gpunn.cli import main as gpunn
from gpunn.experiments import results

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "fine-tuning-cpu.json"
FREEZE = (0, 1, 2)


def write_data() -> None:
    """Write below.npz and above.npz: the digits to 4, and eight images of each of the others."""
    digits = gn.load_data("digits", validation=0)
    for name, chosen, most in (("below", range(5), 1000), ("above", range(5, 10), 8)):
        arrays: dict[str, Any] = {}
        for part, samples, count in (("train", digits.train, most), ("test", digits.test, 1000)):
            at = np.concatenate([np.flatnonzero(samples.targets == digit)[:count] for digit in chosen])
            arrays[f"x_{part}"] = samples.inputs[at] * 15
            arrays[f"y_{part}"] = [f"digit {k}" for k in samples.targets[at]]
        np.savez(f"{name}.npz", **arrays)


def accuracy(*arguments: object) -> float:
    """Train by the program, and return the share of the test set that is right."""
    said = io.StringIO()
    with redirect_stdout(said), suppress(SystemExit):
        gpunn(["train", *map(str, arguments), "--device", "cpu"])
    return float(re.findall(r"^test accuracy  ([\d.]+)%", said.getvalue(), re.MULTILINE)[0]) / 100


def measure(seed: int, epochs: Sequence[int]) -> list[dict[str, Any]]:
    """The accuracies of one seed, for each number of epochs."""
    recipe = ("--recipe", "strokes.toml", "--seed", seed)
    accuracy("below.npz", *recipe, "--out", f"below-{seed}")
    rows = []
    for count in epochs:
        few = ("--batch-size", 16, "--epochs", count, "--seed", seed)
        row = {"seed": seed, "epochs": count}
        row["scratch"] = accuracy("above.npz", "--recipe", "strokes.toml", *few, "--out", f"scratch-{seed}-{count}")
        for freeze in FREEZE:
            out = f"tuned-{seed}-{count}-{freeze}"
            options = ("--from", f"below-{seed}", "--freeze", freeze, *few, "--out", out)
            row[f"freeze {freeze}"] = accuracy("above.npz", *options)
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--epochs", default="3,4,10,20")
    options = parser.parse_args()
    seeds, epochs = ([int(each) for each in text.split(",")] for text in (options.seeds, options.epochs))
    results.draw_answers = results.draw_network = lambda *_, **__: []  # type: ignore[assignment]
    results.plot_curves = lambda _, path, **__: path.write_bytes(b"")  # type: ignore[assignment]
    page = (ROOT / "docs" / "fine-tuning.md").read_text("utf-8")
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        write_data()
        Path("strokes.toml").write_text(re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[0], "utf-8")
        rows = [row for seed in seeds for row in measure(seed, epochs)]
    keys = ("scratch", *(f"freeze {freeze}" for freeze in FREEZE))
    means = {
        str(count): {key: float(np.mean([row[key] for row in rows if row["epochs"] == count])) for key in keys}
        for count in epochs
    }
    result = {
        "what": "accuracy of the example of docs/fine-tuning.md on its test set",
        "command": command(),
        "machine": machine(),
        "means": means,
        "rows": rows,
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    for count, each in means.items():
        print(f"| {count} | {' | '.join(f'{100 * each[key]:.0f} %' for key in keys)} |")


if __name__ == "__main__":
    main()
