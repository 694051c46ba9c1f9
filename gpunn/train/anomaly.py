"""Find the first NaN or Inf by replaying the steps since the last record; the seed makes them the same steps.

Several ranks search together. A rank with a finding still ends its step, since the others wait for its gradients.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from gpunn.backend.base import Buildable, parts_of
from gpunn.backend.ranks import Ranks
from gpunn.kernels.record import Array
from gpunn.nn.layers import Layer
from gpunn.nn.parameter import Parameter
from gpunn.train.distributed import first_text
from gpunn.train.training import Training


class _Search:
    """Check the arrays of a step one after another, until one is not finite.

    Attributes:
        found: Name of the first array with NaN or Inf; "" before.
        checks: Number of arrays checked until then.
    """

    def __init__(self, training: Training) -> None:
        self._backend = training.backend
        self.begin()

    def begin(self) -> None:
        """Begin a step."""
        self.found, self.checks = "", 0

    def check(self, array: Array, name: str) -> None:
        """Check the next array."""
        if not self.found:
            self.checks += 1
            if not np.isfinite(self._backend.to_host(array)).all():
                self.found = name


class _CheckedStage:
    """Stand in for a stage, and check its inputs and outputs, forward and backward."""

    def __init__(self, stage: Layer, training: Training, search: _Search) -> None:
        self._stage, self._training, self._check = stage, training, search.check
        layer = next(layer for layer, _ in training.model.every_layer if layer.name == stage.name)
        self._name = f"{stage.name}, {layer!r}" + (f" with {stage.fused!r}" if stage.fused else "")

    def forward(self, x: Array, training: bool) -> Array:
        self._check(x, "the batch")  # the inputs of later stages were checked as outputs
        y = self._stage.forward(x, training)
        self._check(y, f"the output of {self._name}")
        return y

    def backward(self, dy: Array) -> Array | None:
        self._check(self._training.step.loss.costs, f"the loss, {self._training.loss!r}")
        self._check(dy, f"the gradient of the loss, {self._training.loss!r}")
        dx = self._stage.backward(dy)
        for p in _parameters_of(self._stage):
            # Without a stored gradient, the matrix product of the gradient has updated the weight already.
            self._check(p.value if p.grad is None else p.grad, f"the gradient of {p.name}")
        if dx is not None:
            self._check(dx, f"the gradient by the input of {self._name}")
        return dx

    def idle(self, forward: bool) -> None:
        self._stage.idle(forward)


@contextmanager
def _checked(training: Training, search: _Search) -> Iterator[None]:
    """Check every stage of the step, nested ones too, while the context is open."""
    owners: list[tuple[Any, list[Layer]]] = [(training.step, training.step.stages)]
    for _, stages in owners:  # grows as it goes, by the stages nested in these
        owners += [(inner, inner.stages) for stage in stages for inner in stage.running]
    try:
        for owner, stages in owners:
            owner.stages = [_CheckedStage(stage, training, search) for stage in stages]
        yield
    finally:
        for owner, stages in owners:
            owner.stages = stages


def _parameters_of(stage: Buildable) -> list[Parameter]:
    """List the parameters whose gradients the backward pass of a stage computes."""
    own = [value for value in vars(stage).values() if isinstance(value, Parameter)]
    return own + [parameter for part in parts_of(stage) for parameter in _parameters_of(part)]


def first_not_finite(training: Training) -> str:
    """Name the first NaN or Inf since the last record, "" if there is none; the weights are then those of any step."""
    last, step, parameters = training.done, training.step, training.model.parameters
    search = _Search(training)

    def compute(n: int) -> None:
        search.begin()
        for p in parameters:
            search.check(p.value, f"{p.name}, before the step")
        step.compute(n)
        for p in parameters:
            search.check(p.value, f"{p.name} after its update")

    training.rewind()
    # The CPU checks after every step, so only the last one can be at fault.
    while training.backend.device == "cpu" and training.done < last - 1:
        training.do_steps()
    with _checked(training, search):
        while training.done < last:
            training.do_steps(compute=compute)
            if found := _earliest(training.ranks, search):
                return f"{found}, in step {training.done}" if training.done < last else found
    return ""


def _earliest(ranks: Ranks, search: _Search) -> str:
    """Return the finding of the rank that needed the fewest checks."""
    places = ranks.all_gather(np.array(search.checks if search.found else np.iinfo(np.int64).max))
    return first_text(ranks, search.found if ranks.rank == places.argmin() else "")
