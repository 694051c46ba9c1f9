"""gpunn at work: the loop that `fit` runs, with its records, checks and shuffling, not the bare step."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
from protocol import Task, Worker, serve

import gpunn as gn
from gpunn.config import from_config
from gpunn.kernels.cores import EVERY, load_monitor
from gpunn.kernels.numba_loops import LONG
from gpunn.train.arguments import TrainOptions
from gpunn.train.callbacks import LambdaCallback
from gpunn.train.record import Weights
from gpunn.train.trainer import Trainer


class _Enough(BaseException):
    """All steps that are timed have been done."""


class Gpunn(Worker):
    def __init__(self, task: Task) -> None:
        self.task = task
        self._make(0)

    def _make(self, seed: int) -> None:
        task = self.task
        self.samples = gn.Samples(task.inputs, task.labels, scale=1 / 255, classes=10)
        self.model = gn.Sequential([from_config("layer", layer) for layer in task.layers])
        regularizer = gn.L2(task.decay * len(self.samples)) if task.decay else None
        rate = gn.OneCycle(task.peak) if task.peak else task.rate
        options = TrainOptions(
            loss=gn.SoftmaxCrossEntropy(), optimizer=gn.SGD(rate, momentum=task.momentum, nesterov=task.momentum > 0),
            regularizer=regularizer, epochs=self._epochs(), batch_size=min(task.batch, len(self.samples)),
            device=task.device, precision=task.precision, seed=seed, progress=False,
        )  # fmt: skip
        self.trainer = Trainer(self.model, options, gn.Data("bench", self.samples, None, ()))
        if task.kind == "steps":
            self.trainer.callbacks.add(LambdaCallback(self._stop))
        arrays = self.model.arrays()
        for name, value in task.weights(seed).items():
            *places, letter = name.split(".")
            layer = self.model.layers[int(places[0])]
            for place in places[1:]:
                layer = layer.branches[1][0] if place == "projection" else layer.branches[0][int(place)]
            arrays[f"{layer.name}.{letter}"] = value
        self.model.load_arrays(arrays)
        start = Weights(0, arrays)
        self.start = replace(self.trainer.state(), now=start, last=start, good=start)

    def _epochs(self) -> int:
        """Of the training: what is timed of steps are the first of a long one, else the whole."""
        return 1 + LONG // self.task.steps if self.task.kind == "steps" and self.task.steps > 1 else 1

    def _stop(self, _: object) -> None:
        if self.trainer.done == self.task.steps:
            raise _Enough

    def describe(self) -> dict[str, Any]:
        backend = self.trainer.step.backend
        foreign = [name for name in ("torch", "jax", "sklearn") if name in __import__("sys").modules]
        assert not foreign, f"{foreign} beside gpunn: a second thread pool would slow both down"
        return {
            "version": gn.__version__, "threads": os.cpu_count(), "device": backend.description,
            "precision": backend.precision,
        }  # fmt: skip

    def reset(self, seed: int) -> None:
        self.seed = seed
        if self.task.kind == "train":
            return
        self.trainer.restore(self.start)
        self.trainer.step.backend.synchronize()
        # A training measures four times a second how many cores are free. A round may be shorter than that, and would
        # go by the cores that the other peers left free while this one waited.
        load_monitor.free()
        time.sleep(EVERY)
        load_monitor.free()

    def run(self) -> Any:
        task = self.task
        if task.kind == "predict":
            for _ in range(task.steps):
                probabilities = self.model.predict_proba(task.inputs)
            return probabilities
        if task.kind == "train":
            self._make(self.seed)
        with suppress(_Enough):
            self.trainer.run()
        if task.kind == "train":
            self.model.evaluate(gn.Samples(task.test_inputs, task.test_labels, scale=1 / 255, classes=10))
        return None

    def outputs(self, inputs: Any) -> Any:
        return np.log(np.maximum(self.model.predict_proba(inputs), 1e-30))

    def device_bytes(self) -> int:
        backend = self.trainer.step.backend
        return 0 if backend.device == "cpu" else int(backend.cupy.get_default_memory_pool().total_bytes())


if __name__ == "__main__":
    serve(Gpunn)
