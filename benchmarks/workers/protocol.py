"""What every worker speaks: it reads a task from a folder, then does rounds of it as it is told on standard input.

python workers/NAME.py FOLDER MODE DEVICE PRECISION

It answers in JSON, a line each on standard output. Nothing here imports a library that is measured; NumPy is all it
needs, so that no two BLAS or thread pools meet in one process.
"""

from __future__ import annotations

import json
import platform
import resource
import sys
import time
import traceback
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np


class Task:
    """What to do, and with what.

    Attributes:
        kind, layers, shape, batch, steps, rate, momentum, decay, peak: as in `workloads.Workload`.
        inputs, labels: the samples, bytes (n, height, width, channels) and int32 (n,).
        rates: the learning rate of each step.
        mode, device, precision: how the library is to be used.
    """

    def __init__(self, folder: Path, mode: str, device: str, precision: str) -> None:
        self.folder, self.mode, self.device, self.precision = folder, mode, device, precision
        values: dict[str, Any] = json.loads((folder / "task.json").read_text("utf-8"))
        self.kind: str = values["kind"]
        self.layers: list[dict[str, Any]] = values["layers"]
        self.shape: tuple[int, int, int] = tuple(values["shape"])
        self.batch: int = values["batch"]
        self.steps: int = values["steps"]
        self.momentum: float = values["momentum"]
        self.decay: float = values["decay"]
        self.peak: float = values["peak"]
        self.rate: float = values["rate"]
        self.checked: int = values["checked"]
        self.inputs, self.labels = np.load(folder / "inputs.npy"), np.load(folder / "labels.npy")
        self.rates = np.load(folder / "rates.npy")
        self.test_inputs = self.test_labels = None
        if self.kind == "train":
            self.test_inputs = np.load(folder / "test-inputs.npy")
            self.test_labels = np.load(folder / "test-labels.npy")

    @property
    def is_images(self) -> bool:
        """Whether the network takes images, not features."""
        return any(layer["type"] in ("Flatten", "GlobalAveragePool2D") for layer in self.layers)

    def order(self, seed: int) -> Any:
        """The order of the epoch."""
        return np.load(self.folder / f"order-{seed}.npy")

    def weights(self, seed: int) -> dict[str, Any]:
        """Initial values by the place of the layer."""
        with np.load(self.folder / f"weights-{seed}.npz") as file:
            return dict(file)


class Worker(ABC):
    """One library at work on one task."""

    @abstractmethod
    def __init__(self, task: Task) -> None:
        """Import the library and build the network."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Version, threads, device, and the precision of products that it really computes in."""

    @abstractmethod
    def reset(self, seed: int) -> None:
        """Back to the initial weights; not timed."""

    @abstractmethod
    def run(self) -> Any:
        """The work, until the device has done it; timed.

        Returns:
            Of predictions, the probabilities that came out last, in host memory: (n, 10).
        """

    @abstractmethod
    def outputs(self, inputs: Any) -> Any:
        """Logits for images of bytes, as float NumPy array (n, 10); not timed."""

    def device_bytes(self) -> int:
        """The most memory taken on the device, 0 on a CPU."""
        return 0


def answers_of(worker: Worker, task: Task, predicted: Any) -> tuple[Any, Any]:
    """Logits and labels that the work is judged by: of what it predicted, or of what the trained network says."""
    if task.kind == "predict":
        return np.log(np.maximum(predicted, 1e-30)), task.labels[: len(predicted)]
    if task.kind == "train":
        return np.asarray(worker.outputs(task.test_inputs)), task.test_labels
    return np.asarray(worker.outputs(task.inputs[: task.checked])), task.labels[: task.checked]


def judged(outputs: Any, labels: Any) -> dict[str, float]:
    """Cost and accuracy, computed in the same way for every library."""
    z = outputs.astype(np.float64)
    z -= z.max(axis=1, keepdims=True)
    costs = np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), labels]
    return {"loss": float(costs.mean()), "accuracy": float((outputs.argmax(axis=1) == labels).mean())}


def serve(worker_type: type[Worker]) -> None:
    """Do what standard input says until it ends: `SEED` does one round."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print must not come between the answers

    def say(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    folder, mode, device, precision = sys.argv[1:]
    try:
        task = Task(Path(folder), mode, device, precision)
        worker = worker_type(task)
        began_cpu = 0.0
        say({"ready": worker.describe() | {"numpy": np.__version__, "python": platform.python_version()}})
        for line in sys.stdin:
            worker.reset(int(line))
            cpu, begun = time.process_time(), time.perf_counter()
            predicted = worker.run()
            seconds = time.perf_counter() - begun
            own = time.process_time() - cpu
            found = judged(*answers_of(worker, task, predicted))
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            answer = {"seconds": seconds, "cpu": own, "peak_bytes": peak, "device_bytes": worker.device_bytes()}
            say(answer | found | {"total_cpu": time.process_time() - began_cpu})
            began_cpu = time.process_time()
    except ImportError as error:
        say({"missing": str(error)})
    except Exception as error:  # noqa: BLE001 - told to whoever started this process
        traceback.print_exc()
        say({"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"})
