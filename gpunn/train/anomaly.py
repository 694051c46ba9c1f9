"""Find the first NaN or Inf by replaying the steps since the last record: the seed makes the same numbers again.

Several ranks do so together: one that finds something ends its step first, since the others wait for its gradients.
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
    """Looks at one array after another of a step, until one is not finite.

    Attributes:
        found: The first that was not, in words.
        looks: Number of arrays looked at until then.
    """

    def __init__(self, training: Training) -> None:
        self._backend = training.backend
        self.begin()

    def begin(self) -> None:
        """Begin a step."""
        self.found, self.looks = "", 0

    def check(self, array: Array, what: str) -> None:
        """Look at the next array, in words `what`."""
        if not self.found:
            self.looks += 1
            if not np.isfinite(self._backend.to_host(array)).all():
                self.found = what


class _CheckedStage:
    """A stage, in all but its class, whose inputs and outputs are checked, forward and backward."""

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
            # Where no gradient is kept, the product that would make it has changed the weight already.
            self._check(p.value if p.grad is None else p.grad, f"the gradient of {p.name}")
        if dx is not None:
            self._check(dx, f"the gradient by the input of {self._name}")
        return dx

    def idle(self, forward: bool) -> None:
        self._stage.idle(forward)


@contextmanager
def _checked(training: Training, search: _Search) -> Iterator[None]:
    """Within, every stage of the step is checked, and those that run within others."""
    held: list[tuple[Any, list[Layer]]] = [(training.step, training.step.stages)]
    for _, stages in held:  # and those within them, which are added meanwhile
        held += [(within, within.stages) for stage in stages for within in stage.running]
    try:
        for owner, stages in held:
            owner.stages = [_CheckedStage(stage, training, search) for stage in stages]
        yield
    finally:
        for owner, stages in held:
            owner.stages = stages


def _parameters_of(stage: Buildable) -> list[Parameter]:
    """The parameters whose gradients are there once the stage has gone backward."""
    own = [value for value in vars(stage).values() if isinstance(value, Parameter)]
    return own + [parameter for part in parts_of(stage) for parameter in _parameters_of(part)]


def first_not_finite(training: Training) -> str:
    """Name the first NaN or Inf since the last record; "" where all was finite. The network is left anywhere."""
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
    # On the CPU every step was checked when it was done, so only the last is searched.
    while training.backend.device == "cpu" and training.done < last - 1:
        training.do_steps()
    with _checked(training, search):
        while training.done < last:
            training.do_steps(compute=compute)
            if found := _first_of_all(training.ranks, search):
                return f"{found}, in step {training.done}" if training.done < last else found
    return ""


def _first_of_all(ranks: Ranks, search: _Search) -> str:
    """Return what the rank has found that found something first."""
    places = ranks.all_gather(np.array(search.looks if search.found else np.iinfo(np.int64).max))
    return first_text(ranks, search.found if ranks.rank == places.argmin() else "")
