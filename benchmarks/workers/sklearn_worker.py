"""scikit-learn's MLPClassifier at work: plain gradient descent, one pass of `partial_fit` over the samples.

It takes floats only, so a pass begins by putting the bytes in order and converting them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import sklearn
from protocol import Task, Worker, serve
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_info


class ScikitLearn(Worker):
    def __init__(self, task: Task) -> None:
        self.task = task
        self.order = task.order(0)
        hidden = [layer["units"] for layer in task.layers if layer["type"] == "Dense"][:-1]
        self.model = MLPClassifier(
            hidden, solver="sgd", alpha=0.0, batch_size=task.batch, learning_rate_init=task.rate, momentum=0.0,
            nesterovs_momentum=False, shuffle=False, max_iter=1,
        )  # fmt: skip
        self.data = task.inputs.reshape(len(task.inputs), -1)
        first = min(task.batch, len(self.data))
        self.model.batch_size = first
        labels = np.arange(first) % 10
        self.model.partial_fit(self._floats(self.data[:first]), labels, classes=np.arange(10))
        self.reset(0)

    def _floats(self, inputs: Any) -> Any:
        x = inputs.reshape(len(inputs), -1).astype(np.float32)
        x /= 255
        return x

    def describe(self) -> dict[str, Any]:
        threads = max(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        return {
            "version": sklearn.__version__,
            "threads": threads,
            "device": "CPU",
            "precision": str(self.model.coefs_[0].dtype),
        }

    def reset(self, seed: int) -> None:
        weights = self.task.weights(seed)
        numbers = sorted({int(name.partition(".")[0]) for name in weights})
        for at, number in enumerate(numbers):
            self.model.coefs_[at][...] = weights[f"{number}.w"].T
            self.model.intercepts_[at][...] = weights[f"{number}.b"]

    def run(self) -> Any:
        if self.task.kind == "predict":
            for _ in range(self.task.steps):
                probabilities = self.model.predict_proba(self._floats(self.task.inputs))
            return probabilities
        self.model.partial_fit(self._floats(self.data[self.order]), self.task.labels[self.order])
        return None

    def outputs(self, inputs: Any) -> Any:
        return np.log(np.maximum(self.model.predict_proba(self._floats(inputs)), 1e-30))


if __name__ == "__main__":
    serve(ScikitLearn)
