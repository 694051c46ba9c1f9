"""Where numbers first left the finite ones: the steps since the last record done over, and looked at stage by stage.

A training is a function of its seed, so what happened happens again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from gpunn.backend.base import Backend
from gpunn.backend.copies import Buildable, parts_of
from gpunn.kernels.record import Array
from gpunn.nn.layers import Layer
from gpunn.nn.losses import Loss
from gpunn.nn.network import Network
from gpunn.nn.parameter import Parameter
from gpunn.train.step import Step


class Training(Protocol):
    """A training that can be done over from its last record; see `gpunn.training.Trainer`."""

    model: Network
    loss: Loss
    step: Step
    done: int

    def go_back(self) -> None: ...
    def do_steps(self, count: int = 1, compute: Callable[[int], None] | None = None) -> int: ...


class _NotFiniteError(Exception):
    """The first thing that was not finite, in words."""


class _Watched:
    """A stage of a network that looks at all it is given and gives.

    Args:
        stage: what is watched.
        trainer: whose network it belongs to.
    """

    def __init__(self, stage: Layer, trainer: Training) -> None:
        self._stage, self._trainer = stage, trainer
        layer = next(layer for layer in trainer.model.layers if layer.name == stage.name)
        fused = f" with {stage.fused!r}" if stage.fused else ""
        self._name = f"{stage.name}, {layer!r}{fused}"

    def forward(self, x: Array, training: bool) -> Array:
        self._check(x, "the batch")  # what other stages are given was checked when it was made
        y = self._stage.forward(x, training)
        self._check(y, f"the output of {self._name}")
        return y

    def backward(self, dy: Array) -> Array | None:
        self._check(self._trainer.step.loss.costs, f"the cost, {self._trainer.loss!r}")
        self._check(dy, f"the gradient of the cost, {self._trainer.loss!r}")
        dx = self._stage.backward(dy)
        for p in _parameters_of(self._stage):
            # Where no gradient is kept, the product that would make it has changed the weight already.
            self._check(p.value if p.grad is None else p.grad, f"the gradient of {p.name}")
        if dx is not None:
            self._check(dx, f"the gradient by the input of {self._name}")
        return dx

    def _check(self, array: Array, what: str) -> None:
        _check(self._trainer.step.backend, array, what)


def _parameters_of(stage: Buildable) -> list[Parameter]:
    """The parameters whose gradients are there once the stage has gone backward."""
    own = [value for value in vars(stage).values() if isinstance(value, Parameter)]
    return own + [parameter for part in parts_of(stage) for parameter in _parameters_of(part)]


def _check(backend: Backend, array: Array, what: str) -> None:
    if not np.isfinite(backend.to_host(array)).all():
        raise _NotFiniteError(what)


def first_not_finite(trainer: Training) -> str:
    """What first was not finite since the last record, in words; "" where all was. The network is left anywhere.

    On the CPU every step is checked when it is done, so only the last is looked at; on a device all are.
    """
    last = trainer.done
    trainer.go_back()
    first = last - 1 if trainer.step.backend.device == "cpu" else trainer.done
    while trainer.done < last:
        if trainer.done < first:
            trainer.do_steps()
        elif what := _look_at_step(trainer):
            return f"{what}, in step {trainer.done + 1}" if trainer.done + 1 < last else what
    return ""


def _look_at_step(trainer: Training) -> str:
    """Do the next step and say what first was not finite in it; "" where all was."""
    model, step = trainer.model, trainer.step
    stages = step.stages
    compute = step.compute

    def watched(n: int) -> None:
        for p in model.parameters:
            _check(step.backend, p.value, f"{p.name}, before the step")
        step.stages = [_Watched(stage, trainer) for stage in stages]  # type: ignore[misc]  # stages in all but class
        try:
            compute(n)
        finally:
            step.stages = stages
        for p in model.parameters:
            _check(step.backend, p.value, f"{p.name} after its update")

    try:
        trainer.do_steps(compute=watched)
    except _NotFiniteError as error:
        return str(error)
    return ""
