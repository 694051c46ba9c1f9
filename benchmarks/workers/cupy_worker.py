"""A plain CuPy loop, as one writes it without a library: arrays, `@`, and a dozen launches a layer."""

from __future__ import annotations

from typing import Any

import cupy as cp
from protocol import Task, Worker, serve


class CupyLoop(Worker):
    def __init__(self, task: Task) -> None:
        self.task = task
        self.data = cp.asarray(task.inputs.reshape(len(task.inputs), -1))
        self.labels = cp.asarray(task.labels)
        self.order = cp.asarray(task.order(0))
        self.numbers = [number for number, layer in enumerate(task.layers) if layer["type"] == "Dense"]
        self.reset(0)

    def describe(self) -> dict[str, Any]:
        name = cp.cuda.runtime.getDeviceProperties(0)["name"].decode()
        precision = "tf32" if self.task.precision == "tf32" else "float32"  # CuPy knows no bfloat16
        return {"version": cp.__version__, "threads": 1, "device": name, "precision": precision}

    def reset(self, seed: int) -> None:
        weights = self.task.weights(seed)
        self.w = [cp.asarray(weights[f"{number}.w"].T) for number in self.numbers]
        self.b = [cp.asarray(weights[f"{number}.b"]) for number in self.numbers]
        cp.cuda.runtime.deviceSynchronize()

    def run(self) -> None:
        task = self.task
        for start in range(0, len(self.order), task.batch):
            index = self.order[start : start + task.batch]
            self._step(self.data[index].astype(cp.float32) / 255, self.labels[index])
        cp.cuda.runtime.deviceSynchronize()

    def _step(self, x: Any, labels: Any) -> None:
        seen = [x]
        for w, b in zip(self.w[:-1], self.b[:-1], strict=True):
            seen.append(cp.maximum(seen[-1] @ w + b, 0))
        z = seen[-1] @ self.w[-1] + self.b[-1]
        e = cp.exp(z - z.max(axis=1, keepdims=True))
        delta = e / e.sum(axis=1, keepdims=True)
        delta[cp.arange(len(labels)), labels] -= 1
        delta /= len(labels)
        for at in reversed(range(len(self.w))):
            before = (delta @ self.w[at].T) * (seen[at] > 0) if at else None
            self.w[at] -= self.task.rate * (seen[at].T @ delta)
            self.b[at] -= self.task.rate * delta.sum(axis=0)
            delta = before

    def outputs(self, inputs: Any) -> Any:
        x = cp.asarray(inputs.reshape(len(inputs), -1)).astype(cp.float32) / 255
        for w, b in zip(self.w[:-1], self.b[:-1], strict=True):
            x = cp.maximum(x @ w + b, 0)
        return cp.asnumpy(x @ self.w[-1] + self.b[-1])

    def device_bytes(self) -> int:
        return int(cp.get_default_memory_pool().total_bytes())


if __name__ == "__main__":
    serve(CupyLoop)
