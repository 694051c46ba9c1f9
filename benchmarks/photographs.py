"""Measure accuracy on MNIST's test digits drawn as photographs, by kind of photograph; write JSON.

python benchmarks/photographs.py [--digits 200] [--workers 2]
"""

from __future__ import annotations

import argparse
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from machine import RESULTS, command, commit, machine, write_result
from photograph_kinds import KINDS, LARGE

import gpunn as gn
from gpunn.data.formats.inputs import read_inputs
from gpunn.errors import DataError

NETWORKS = {
    "mlp": ([gn.Dense(128), gn.ReLU(), gn.Dense(10)], {"epochs": 8, "optimizer": gn.SGD(0.1, momentum=0.9)}),
    "lenet": (
        [
            *(gn.Conv2D(8, 5), gn.ReLU(), gn.MaxPool2D(2), gn.Conv2D(16, 5), gn.ReLU(), gn.MaxPool2D(2)),
            *(gn.Flatten(), gn.Dense(64), gn.ReLU(), gn.Dense(10)),
        ],
        {"epochs": 4, "optimizer": gn.SGD(0.05, momentum=0.9)},
    ),
}
SHAPE, TRAINED_ON, FEW_LARGE, UNPREPARED = (28, 28, 1), 20_000, 10, 20


@cache
def loaded(path: str) -> tuple[Any, Any]:
    data = gn.load_data("mnist", limit=TRAINED_ON)
    return gn.load_model(path, "cpu").trained_on, data.test


def prepared(number: int, kind: str, path: str) -> tuple[Any, Any, float]:
    """Draw a digit as a photograph; read it with preparation, in how many seconds, and the first ones without."""
    trained_on, test = loaded(path)
    picture = (KINDS | LARGE)[kind](np.asarray(test.inputs[number, :, :, 0]), np.random.default_rng(number))
    exif = picture.getexif()
    with tempfile.TemporaryDirectory() as folder:
        is_jpeg = bool(exif) or kind in LARGE
        file = Path(folder) / ("a.jpg" if is_jpeg else "a.png")
        picture.save(file, **({"exif": exif, "quality": 90} if is_jpeg else {"compress_level": 1}))

        def read(prepare: bool) -> Any:
            try:
                return read_inputs(file, SHAPE, note=lambda _: None, trained_on=trained_on, prepare=prepare)[0]
            except DataError:  # nothing was found: counted as wrong
                return np.full(SHAPE, np.nan, np.float32)

        start = process_time()
        found = read(prepare=True)
        seconds = process_time() - start
        return found, read(prepare=False) if number < UNPREPARED else None, seconds


def right(model: Any, inputs: list[Any], targets: Any) -> tuple[Any, Any]:
    """Return the probabilities of the answers to some inputs, and which of them are right."""
    given = np.stack(inputs)
    outputs = model.predict_proba(np.nan_to_num(given))
    return outputs.max(axis=1), (outputs.argmax(axis=1) == targets[: len(given)]) & ~np.isnan(given).any(axis=(1, 2, 3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--digits", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS / "photographs-cpu.json")
    options = parser.parse_args()
    data = gn.load_data("mnist", limit=TRAINED_ON)
    targets, models, rows = np.asarray(data.test.targets), {}, []
    sure: list[tuple[Any, Any]] = []
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(options.workers) as pool:
        path = str(Path(folder) / "model")
        for name, (layers, training) in NETWORKS.items():
            models[name] = gn.Sequential(layers)
            models[name].fit(data, batch_size=64, progress=False, device="cpu", **training)
            models[name].save(path)
        for kind in KINDS | LARGE:
            count = options.digits if kind in KINDS else min(FEW_LARGE, options.digits)
            each = list(pool.map(partial(prepared, kind=kind, path=path), range(count), chunksize=5))
            median = 1000 * float(np.median([seconds for *_, seconds in each]))
            row: dict[str, Any] = {"kind": kind, "digits": count, "milliseconds": median}
            for name, model in models.items():
                answered = right(model, [found for found, *_ in each], targets)
                sure.append(answered)
                row[name] = float(answered[1].mean())
                fitted = right(model, [found for _, found, _ in each if found is not None], targets)
                row[f"{name} without preparation"] = float(fitted[1].mean())
            rows.append(row)
            print(
                {key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()}, flush=True
            )
    some = {name: model.predict(data.test.inputs[: options.digits]) for name, model in models.items()}
    share, is_right = (np.concatenate(each) for each in zip(*sure, strict=True))
    limits = {
        str(limit): {
            "share of wrong answers below": float((share[~is_right] < limit).mean()),
            "share of right answers below": float((share[is_right] < limit).mean()),
        }
        for limit in (0.5, 0.6, 0.7, 0.8)
    }
    write_result(
        options.out,
        {
            "what": "accuracy on the first test digits of MNIST, drawn as photographs, with and without preparation",
            "command": command(),
            "commit": commit(),
            "machine": machine(),
            "trained on": TRAINED_ON,
            "test accuracy": {name: model.evaluate(data.test).accuracy for name, model in models.items()},
            "originals": {name: float((got == targets[: options.digits]).mean()) for name, got in some.items()},
            "sure": limits,
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
