"""JAX at work. Modes: jit (one compiled call a step) and scan (one compiled call for all steps, the fastest way).

Parameters are donated, images are (height, width, channels) with the batch first: what XLA is fastest with on a CPU.
"""

from __future__ import annotations

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from protocol import Task, Worker, serve

MOMENTUM, EPSILON = 0.1, 1e-5  # of BatchNorm

Tree = dict[str, Any]
State = tuple[Tree, Tree]
"""Parameters, and the statistics that BatchNorm remembers."""


def propagate(task: Task, parameters: Tree, statistics: Tree, x: Any, key: Any) -> tuple[Any, Tree]:
    """Logits, and the running statistics after the batch; `key` is None when nothing is learned."""
    after = dict(statistics)
    return through(task.layers, "", parameters, statistics, after, x, key), after


def convolved(x: Any, w: Any, stride: int, padding: Any, groups: int = 1) -> Any:
    """A convolution without its bias."""
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x, w, (stride, stride), padding, dimension_numbers=numbers, feature_group_count=groups
    )


def through(
    layers: list[dict[str, Any]], before: str, parameters: Tree, statistics: Tree, after: Tree, x: Any, key: Any
) -> Any:
    """What some layers make of x; the running statistics go into `after`."""
    for place, layer in enumerate(layers):
        kind, number = layer["type"], f"{before}{place}"
        if kind == "Dense":
            x = x @ parameters[f"{number}.w"] + parameters[f"{number}.b"]
        elif kind == "Conv2D":
            padding = layer.get("padding", 0)
            padding = "SAME" if padding == "same" else [(padding, padding)] * 2
            x = convolved(x, parameters[f"{number}.w"], layer.get("stride", 1), padding, layer.get("groups", 1))
            if f"{number}.b" in parameters:
                x = x + parameters[f"{number}.b"]
        elif kind == "Residual":
            f = through(layer["layers"], f"{number}.", parameters, statistics, after, x, key)
            if (w := parameters.get(f"{number}.projection.w")) is not None:
                x = convolved(x, w, -(-x.shape[1] // f.shape[1]), "VALID")
            x = x + f
        elif kind == "GlobalAveragePool2D":
            x = x.mean((1, 2))
        elif kind == "ReLU":
            x = jax.nn.relu(x)
        elif kind == "MaxPool2D":
            x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        elif kind == "Flatten":
            x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
        elif kind == "BatchNorm":
            if key is None:
                mean, variance = statistics[f"{number}.mean"], statistics[f"{number}.variance"]
            else:
                axes = tuple(range(x.ndim - 1))
                mean = x.mean(axes)
                variance = jnp.square(x - mean).mean(axes)
                for name, value in (("mean", mean), ("variance", variance)):
                    old = statistics[f"{number}.{name}"]
                    after[f"{number}.{name}"] = old + MOMENTUM * (lax.stop_gradient(value) - old)
            scale = parameters[f"{number}.gamma"] * lax.rsqrt(variance + EPSILON)
            x = (x - mean) * scale + parameters[f"{number}.beta"]
        elif kind == "Dropout" and key is not None:
            kept = jax.random.bernoulli(jax.random.fold_in(key, place), 1 - layer["p"], x.shape)
            x = jnp.where(kept, x / (1 - layer["p"]), 0)
        elif kind == "Sigmoid":
            x = jax.nn.sigmoid(x)
    return x


class Jax(Worker):
    def __init__(self, task: Task) -> None:
        self.task = task
        jax.config.update("jax_platforms", task.device)
        precision = {"float32": "highest", "tf32": "tensorfloat32", "bfloat16": "bfloat16"}[task.precision]
        jax.config.update("jax_default_matmul_precision", precision)
        self.data = self._bytes(task.inputs)
        self.labels = jnp.asarray(task.labels)
        self.order = jnp.asarray(task.order(0))

        # Data go in as arguments: those that a function only sees are constants to XLA, which folds for minutes.
        def cost(parameters: Tree, statistics: Tree, x: Any, labels: Any, key: Any) -> tuple[Any, Tree]:
            z, after = propagate(task, parameters, statistics, x.astype(jnp.float32) / 255, key)
            return -jnp.take_along_axis(jax.nn.log_softmax(z), labels[:, None], 1).mean(), after

        def step(state: State, data: Any, labels: Any, index: Any, key: Any) -> tuple[State, Any]:
            parameters, statistics = state
            differentiated = jax.value_and_grad(cost, has_aux=True)
            (value, after), gradient = differentiated(parameters, statistics, data[index], labels[index], key)
            return (jax.tree.map(lambda p, g: p - task.rate * g, parameters, gradient), after), value

        def one(state: State, data: Any, labels: Any, order: Any, number: Any) -> tuple[State, Any]:
            index = lax.dynamic_slice_in_dim(order, number * task.batch, task.batch)
            return step(state, data, labels, index, jax.random.fold_in(jax.random.key(0), number))

        def epoch(state: State, data: Any, labels: Any, order: Any) -> tuple[State, Any]:
            def body(state: State, given: tuple[Any, Any]) -> tuple[State, Any]:
                return step(state, data, labels, *given)

            keys = jax.random.split(jax.random.key(0), task.steps)
            return lax.scan(body, state, (order.reshape(task.steps, task.batch), keys))

        self.one = jax.jit(one, donate_argnums=0)
        self.epoch = jax.jit(epoch, donate_argnums=0)
        self.infer = jax.jit(lambda state, x: propagate(task, *state, x.astype(jnp.float32) / 255, None)[0])
        self.probabilities = jax.jit(lambda state, x: jax.nn.softmax(self.infer(state, x)))
        self.reset(0)

    def _bytes(self, inputs: Any) -> Any:
        return jnp.asarray(inputs if self.task.is_images else inputs.reshape(len(inputs), -1))

    def describe(self) -> dict[str, Any]:
        about = {"version": jax.__version__, "threads": os.cpu_count(), "device": str(jax.devices()[0])}
        return about | {"precision": self.task.precision}

    def reset(self, seed: int) -> None:
        parameters, statistics = {}, {}
        for name, value in self.task.weights(seed).items():
            if name.endswith(".w"):
                value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
            if name.endswith(".gamma"):
                statistics[name.replace("gamma", "mean")] = jnp.zeros(len(value))
                statistics[name.replace("gamma", "variance")] = jnp.ones(len(value))
            parameters[name] = jnp.asarray(value)
        self.state = parameters, statistics
        jax.block_until_ready(self.state)

    def run(self) -> Any:
        task = self.task
        if task.kind == "predict":
            for _ in range(task.steps):
                probabilities = np.asarray(self.probabilities(self.state, self._bytes(task.inputs)))
            return probabilities
        if task.mode == "scan":
            self.state, _ = self.epoch(self.state, self.data, self.labels, self.order)
        else:
            for number in range(task.steps):
                self.state, _ = self.one(self.state, self.data, self.labels, self.order, number)
        jax.block_until_ready(self.state)
        return None

    def outputs(self, inputs: Any) -> Any:
        return np.asarray(self.infer(self.state, self._bytes(inputs)))

    def device_bytes(self) -> int:
        return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)


if __name__ == "__main__":
    serve(Jax)
