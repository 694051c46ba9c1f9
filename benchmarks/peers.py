"""Start each peer in a separate process, and read its answers."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workloads import Workload, is_of_images

from gpunn.kernels.numba_loops import OFF

ROOT = Path(__file__).resolve().parent.parent
WORKERS = Path(__file__).resolve().parent / "workers"
PATIENCE = 1800.0
"""Seconds after which a worker that says nothing is given up: compilers may take minutes."""


@dataclass(frozen=True)
class Peer:
    """A library in one way of using it.

    Args:
        name: in tables.
        worker: file in workers/.
        mode: what the worker is told.
        install: what installs it.
        devices: it runs on.
        leaves_out: kinds and groups of workloads, "images" and "dense", "images on cpu", each with the reason why it is
            not measured there.
    """

    name: str
    worker: str
    mode: str
    install: str = ""
    devices: tuple[str, ...] = ("cpu", "cuda")
    leaves_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_gpunn(self) -> bool:
        """True for gpunn, with and without Numba."""
        return self.name.startswith("gpunn")

    def why_not(self, workload: Workload, device: str) -> str:
        """Why it does not take part in a workload; empty where it does."""
        layers = "images" if is_of_images(workload.layers) else "dense"
        words = (workload.kind, workload.group, layers, f"{layers} on {device}")
        return next((self.leaves_out[word] for word in words if word in self.leaves_out), "")


_TORCH, _JAX = "pip install torch==2.13.0", "pip install jax==0.10.2"
_AS_EAGER = {
    "predict": "predicts as PyTorch eager does",
    "train": "the recipe is compared with PyTorch eager",
    "start": "starts as PyTorch eager does",
    "growth": "its curve is that of PyTorch eager, with another constant",
}
_COMPILED = {
    "train": "the recipe is compared with PyTorch",
    "start": "most of the time would be its compiler's",
}
PLAIN = "gpunn without Numba"
"""What the base install does, beside the row of a gpunn that has the extra `numba`."""
PEERS = (
    Peer("gpunn", "gpunn_worker.py", "fit"),
    Peer(PLAIN, "gpunn_worker.py", "plain", "pip install 'gpunn[numba]'", devices=("cpu",),
         leaves_out={"growth": "its curves are those of gpunn, with another constant"}),
    Peer("PyTorch eager", "torch_worker.py", "eager", _TORCH),
    Peer(
        "PyTorch channels last", "torch_worker.py", "channels_last", _TORCH,
        leaves_out={"dense": "is PyTorch eager without images"},
    ),
    Peer(
        "PyTorch compile", "torch_worker.py", "compile", _TORCH,
        leaves_out=_COMPILED | {"growth": "every point would have to be compiled"},
    ),
    Peer("PyTorch CUDA graph", "torch_worker.py", "graph", _TORCH, devices=("cuda",), leaves_out=_AS_EAGER),
    Peer(
        "JAX jit", "jax_worker.py", "jit", _JAX,
        leaves_out={"train": _COMPILED["train"], "growth": "JAX scan is the faster of the two"},
    ),
    Peer(
        "JAX scan", "jax_worker.py", "scan", _JAX,
        leaves_out=_COMPILED | {
            "predict": "nothing to scan over",
            "images on cpu": "convolutions inside a loop take XLA's slow way on a CPU, many times the time of JAX jit",
        },
    ),
    Peer(
        "scikit-learn", "sklearn_worker.py", "mlp", "pip install scikit-learn==1.9.1", devices=("cpu",),
        leaves_out={"images": "has no convolutions"},
    ),
    Peer(
        "CuPy loop", "cupy_worker.py", "loop", "pip install 'gpunn[cuda13]'", devices=("cuda",),
        leaves_out={
            "images": "a plain loop has no convolutions",
            "predict": "only trains",
            "start": "most of the time would be its compiler's",
            "growth": "its time is that of its launches",
        },
    ),
)  # fmt: skip


class WorkerError(Exception):
    """A worker that cannot do the work: a missing library, or one that failed; the text says which."""


def environment(python: str, *folders: Path) -> dict[str, str]:
    """Return the environment of a worker that imports from some folders.

    Every library is to take all cores in its own way: limits that the shell has set are not handed on.
    """
    env = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    # What the shell has set is for this interpreter, and not for that of another environment.
    shells = os.environ.get("PYTHONPATH", "") if python == sys.executable else ""
    return env | {"PYTHONPATH": os.pathsep.join(filter(None, [*map(str, folders), shells]))}


class WorkerProcess:
    """Run a worker.

    Args:
        peer: whose.
        python: the interpreter, which may be of another environment.
        folder: of the task.
        device: "cpu" or "cuda".
        precision: of products.
    """

    def __init__(self, peer: Peer, python: str, folder: Path, device: str, precision: str) -> None:
        self.peer = peer
        env = environment(python, WORKERS, *([ROOT] if peer.is_gpunn else []))
        env["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # else JAX takes the device's memory from all others
        env["CUPY_TF32"] = "1" if precision == "tf32" else "0"
        if peer.name == PLAIN:
            env[OFF] = "0"
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process; a pipe could fill up
        self.began = time.perf_counter()
        self.process = subprocess.Popen(
            [python, str(WORKERS / peer.worker), str(folder), peer.mode, device, precision],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True, env=env,
        )  # fmt: skip
        self.about: dict[str, Any] = self._answer()["ready"]

    def round(self, seed: int) -> dict[str, Any]:
        """Run a round, and return its time and the loss after it."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended, and its last words are read below
            self.process.stdin.write(f"{seed}\n")
            self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        line = self.process.stdout.readline() if readable else ""
        answer: dict[str, Any] = json.loads(line) if line else {"failed": self._last_words(bool(readable))}
        if "missing" in answer:
            self.close()
            raise WorkerError(f"not installed ({answer['missing']}): {self.peer.install}")
        if "failed" in answer:
            self.close()
            raise WorkerError(f"failed: {answer['failed']}")
        return answer

    def _last_words(self, ended: bool) -> str:
        if not ended:
            return f"no answer within {PATIENCE:.0f} s"
        self.process.wait()
        self.errors.seek(0)
        lines = self.errors.read().strip().splitlines()
        return f"ended with exit code {self.process.returncode}" + (f": {lines[-1]}" if lines else "")

    def close(self) -> None:
        """End it."""
        if self.process.stdin is not None:
            with suppress(BrokenPipeError):
                self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.errors.close()


def python_for(peer: Peer, peers_python: str) -> str:
    """gpunn runs in this environment, the others in one that may be another."""
    return sys.executable if peer.is_gpunn else peers_python
