"""Time the predictions of `gpunn serve` for drawings: the first one, and later ones.

python benchmarks/serve.py [--starts N] [--drawings N]

Networks of LeNet's kind are trained for a moment on the bundled digits and on MNIST (GPUNN_DATA). Then `gpunn serve` is
started N times as a program; the page and its description of the network are fetched, as a browser does, and digits of
the test set, drawn large and dark on white as PNGs of 280 × 280, are sent. Measured is the time from the first byte
that is sent to the last of the answer, which holds the output of every layer, and the processor time of the server for
it. Medians above 100 ms are an error; of the processor time, where the machine has more work than cores.
"""

from __future__ import annotations

import argparse
import http.client
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from machine import RESULTS, command, machine, write_result
from PIL import Image

from gpunn.data import Samples, load_data
from gpunn.experiments import run
from gpunn.experiments.experiment import read_experiment

MOST = 0.1  # seconds
RECIPES = {"digits": ("lenet-digits", None), "mnist": ("lenet", 6000)}


def drawings(samples: Samples, count: int) -> list[bytes]:
    """Draw digits as somebody does: large, dark on white."""
    made = []
    for digit in samples.inputs[:count]:
        pixels = 255 - (digit[..., 0] / digit.max() * 255).astype(np.uint8)
        held = io.BytesIO()
        Image.fromarray(pixels).resize((280, 280), Image.Resampling.BICUBIC).save(held, "PNG")
        made.append(held.getvalue())
    return made


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None) -> float:
    """Ask, and return the seconds until all of the answer was there."""
    began = time.perf_counter()
    connection.request(method, path, body, {} if body is None else {"Content-Type": "image/png"})
    answer = connection.getresponse()
    content = answer.read()
    assert answer.status == 200, content
    return time.perf_counter() - began


def processor_seconds(process: subprocess.Popen[str]) -> float:
    """Return the processor time that a process has taken so far."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measured(folder: Path, pictures: list[bytes]) -> tuple[float, list[float], float, float]:
    """Start the server; return the seconds of the first answer, of the others, of the start, and of its processor."""
    began = time.perf_counter()
    program = [sys.executable, "-m", "gpunn", "serve", str(folder), "--port", "0", "--device", "cpu"]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = urlsplit(process.stdout.readline().split()[1])
        started = time.perf_counter() - began
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
        ask(connection, "GET", "/")
        ask(connection, "GET", "/api/model")
        used = processor_seconds(process)
        first, *others = [ask(connection, "POST", "/api/predict", picture) for picture in pictures]
        return first, others, started, (processor_seconds(process) - used) / len(pictures)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=7)
    parser.add_argument("--drawings", type=int, default=50)
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name, (recipe, limit) in RECIPES.items():
        with tempfile.TemporaryDirectory() as held:
            experiment = read_experiment(recipe).with_options(data=name, epochs=1, device="cpu")
            if limit:
                experiment = replace(experiment, data=replace(experiment.data, limit=limit))
            run.train(experiment, Path(held) / "run", lambda _: None, progress=False)
            test = load_data(name).test
            assert test is not None
            pictures = drawings(test, given.drawings)
            load = os.getloadavg()[0]
            found = [measured(Path(held) / "run", pictures) for _ in range(given.starts)]
        firsts, others = [first for first, *_ in found], [each for _, more, *_ in found for each in more]
        processor = median(used for *_, used in found)
        row = {
            "data": name,
            "recipe": recipe,
            "load": round(load, 2),
            "first_milliseconds": round(1000 * median(firsts), 2),
            "further_milliseconds": round(1000 * median(others), 2),
            "further_95_percent": round(1000 * float(np.quantile(others, 0.95)), 2),
            "processor_milliseconds": round(1000 * processor, 2),
            "start_seconds": round(median(started for _, _, started, _ in found), 2),
            "firsts": [round(1000 * each, 2) for each in firsts],
        }
        rows.append(row)
        print(
            f"{name:7} first {row['first_milliseconds']:6.1f} ms, further {row['further_milliseconds']:6.1f} ms "
            f"(95 %: {row['further_95_percent']:.1f}), processor {row['processor_milliseconds']:.1f} ms, "
            f"started in {row['start_seconds']} s, load {row['load']}"
        )
        is_busy = load > (os.cpu_count() or 1)
        for what, seconds in (("first", median(firsts)), ("further", median(others))):
            judged = processor if is_busy else seconds
            assert judged <= MOST, f"{name}: the {what} answer took {judged:.3f} s, at most {MOST} is asked for"
    what = "the time of an answer on the page of gpunn serve, with the outputs of all layers"
    write_result(RESULTS / "serve-cpu.json", {"what": what, "command": command(), "machine": machine(), "rows": rows})


if __name__ == "__main__":
    main()
