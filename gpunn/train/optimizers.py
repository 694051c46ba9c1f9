"""Gradient descent: how gradients change parameters. Every optimizer is one kernel over the flat arrays."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import TypeVar

from gpunn.backend.copies import Buildable
from gpunn.config import base_of_kind, register, written
from gpunn.errors import OptionError
from gpunn.kernels import updates as kernels
from gpunn.kernels.gather import STEP
from gpunn.kernels.record import Array
from gpunn.nn.parameter import Parameters
from gpunn.scalars import flag, real
from gpunn.train.regularizers import Regularizer
from gpunn.train.schedules import Constant, Schedule

__all__ = ["SGD", "Adam", "Optimizer"]

Update = TypeVar("Update", bound=Callable[..., None])


def ending_step(update: Update) -> Update:
    """Mark an `update` whose kernel ends the step too: a launch less, since one follows on all others."""
    update.ends_step = True  # type: ignore[attr-defined]
    return update


@base_of_kind("optimizer", "SGD(0.1)")
class Optimizer(Buildable, ABC):
    """Changes parameters so that the cost falls.

    `fit` works with a copy, so one object may serve several networks, also at once. Each of them keeps what its
    optimizer remembered (momentum, means of gradients), and goes on with it in the next `fit` with the same object.

    Args:
        learning_rate: η, or a schedule of it.
    """

    def __init__(self, learning_rate: float | Schedule) -> None:
        if isinstance(learning_rate, str | type):
            raise OptionError(
                f"learning rate of {type(self).__name__} must be a number or a schedule such as Cosine(0.1), "
                f"got {learning_rate!r}"
            )
        if not isinstance(learning_rate, Schedule):
            learning_rate = real(learning_rate, f"learning rate of {type(self).__name__}")
        self.learning_rate = learning_rate
        _ = self.schedule  # which raises an error for a rate that cannot be

    def __repr__(self) -> str:
        return written(self)

    @property
    def schedule(self) -> Schedule:
        """Learning rates as a schedule; a plain number is `Constant`."""
        rate = self.learning_rate
        return rate if isinstance(rate, Schedule) else Constant(rate)

    @cached_property
    def identity(self) -> str:
        """Tells this optimizer, and copies made of it from now on, from every other."""
        return os.urandom(16).hex()

    def build(self, parameters: Parameters, regularizer: Regularizer | None = None, n: int = 1, first: int = 0) -> None:
        """Take the parameters to change, and make what is remembered of them.

        Args:
            parameters: of the network.
            regularizer: its gradient is part of the update.
            n: size of the training set, for λ/n.
            first: step of the network that was the first of this optimizer.
        """
        self.remember_settings()
        self.first = first
        self.parameters = parameters
        self.l1, self.l2 = regularizer.coefficients(n) if regularizer else (0.0, 0.0)
        self._run = parameters.backend.run
        self._build()

    @abstractmethod
    def _build(self) -> None:
        """Make what is remembered."""

    def before_backward(self, rates: Array, clock: Array) -> None:
        """Called before the gradients of a step are computed."""

    @abstractmethod
    def update(self, rates: Array, clock: Array) -> None:
        """Change the parameters by their gradients.

        Args:
            rates: the learning rates of the epoch's steps.
            clock: which step it is, and which comes next; see `gpunn.kernels.gather`.
        """

    @property
    def state(self) -> dict[str, Array]:
        """What is remembered from step to step, by name."""
        return {}

    def _zeros(self) -> Array:
        return self.parameters.backend.zeros(self.parameters.gradients.shape, self.parameters.gradients.dtype)


@register
class SGD(Optimizer):
    """Stochastic gradient descent: v := μ v + ∂C/∂p, p := p − η v; plain (4) where μ = 0.

    With Nesterov's momentum p := p − η (∂C/∂p + μ v). Momentum is put as in PyTorch, so a schedule of η means the same.

    Args:
        learning_rate: η, or a schedule of it.
        momentum: μ, 0 to below 1.
        nesterov: whether the gradient is taken one step ahead.
    """

    def __init__(self, learning_rate: float | Schedule = 0.1, momentum: float = 0.0, nesterov: bool = False) -> None:
        super().__init__(learning_rate)
        self.momentum, self.nesterov = real(momentum, "momentum"), flag(nesterov, "nesterov")
        if not 0 <= self.momentum < 1:
            raise OptionError(f"momentum must lie from 0 to below 1, got {momentum!r}")
        if self.nesterov and not self.momentum:
            raise OptionError("nesterov needs a momentum above 0, got 0")

    def _build(self) -> None:
        p = self.parameters
        weights = [parameter for parameter in p if parameter.weight_decay and not parameter.is_frozen]
        # Without a memory of gradients, (21) is the very product that would make the gradient, with another alpha and
        # beta. On a device the rate would have to be known on the host, so there the update stays a kernel.
        foldable = not self.momentum and not self.l1 and p.backend.device == "cpu"
        self._folded = [w for w in weights if len(w.shape) == 2] if foldable else []
        if len(self._folded) != len(weights):
            self._folded = []
        start = p.decayed if self._folded else 0
        self._values, self._gradients = p.learned[start:], p.gradients[start:]
        self._decayed = p.decayed - start
        self._velocity = self._zeros() if self.momentum else None

    def before_backward(self, rates: Array, clock: Array) -> None:
        if self._folded:
            eta = float(rates[int(clock[STEP])])
            for w in self._folded:
                w.fold_update(-eta, 1 - eta * self.l2)

    @ending_step
    def update(self, rates: Array, clock: Array) -> None:
        if self._velocity is None:
            self._run(kernels.sgd, self._gradients, rates, self._decayed, self.l1, self.l2, self._values, clock)
        else:
            self._run(
                kernels.momentum_sgd,
                self._gradients,
                rates,
                self._decayed,
                self.l1,
                self.l2,
                self.momentum,
                self.nesterov,
                self._velocity,
                self._values,
                clock,
            )

    @property
    def state(self) -> dict[str, Array]:
        return {} if self._velocity is None else {"velocity": self._velocity}


@register
class Adam(Optimizer):
    """Adam (D. P. Kingma, J. Ba, 2015): steps of about η, whatever the size of the gradient.

    Args:
        learning_rate: η, or a schedule of it.
        beta1: how long the mean of gradients remembers.
        beta2: how long the mean of their squares remembers.
        epsilon: added to the root, so that nothing is divided by 0.
    """

    def __init__(
        self,
        learning_rate: float | Schedule = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
    ) -> None:
        super().__init__(learning_rate)
        for name, beta in (("beta1", beta1), ("beta2", beta2)):
            if not 0 <= real(beta, f"{name} of Adam") < 1:
                raise OptionError(f"{name} of Adam must lie from 0 to below 1, got {beta!r}")
        if not 0 < real(epsilon, "epsilon of Adam") < float("inf"):
            raise OptionError(f"epsilon of Adam must be above 0 and finite, got {epsilon!r}")
        self.beta1, self.beta2, self.epsilon = float(beta1), float(beta2), float(epsilon)

    def _build(self) -> None:
        self._first, self._second = self._zeros(), self._zeros()

    @ending_step
    def update(self, rates: Array, clock: Array) -> None:
        p = self.parameters
        self._run(
            kernels.adam,
            p.gradients,
            rates,
            p.decayed,
            self.l1,
            self.l2,
            self.beta1,
            self.beta2,
            self.epsilon,
            self.first,
            self._first,
            self._second,
            p.learned,
            clock,
        )

    @property
    def state(self) -> dict[str, Array]:
        return {"first": self._first, "second": self._second}
