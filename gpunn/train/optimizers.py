"""Update parameters by gradient descent (4) with regularisation (17), each optimizer by one kernel over flat arrays."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from gpunn.backend.array_code import is_array_code, run_on_device
from gpunn.backend.base import Buildable
from gpunn.backend.ranks import world
from gpunn.config import Part, outside, register
from gpunn.config.scalars import NOT_NEGATIVE, POSITIVE, SHARE, flag, real
from gpunn.errors import OptionError
from gpunn.kernels import updates as kernels
from gpunn.kernels.gather import COUNT, STEP
from gpunn.kernels.record import Array
from gpunn.nn.parameter import Parameters
from gpunn.train.schedules import Constant, Schedule

__all__ = ["L1", "L2", "SGD", "Adam", "AdamW", "Optimizer", "Regularizer"]
Update = TypeVar("Update", bound=Callable[..., None])


class Regularizer(Part, ABC, kind="regularizer", example="L2(5.0)"):
    """C = C₀ + λ R(w) (17): penalise large weights, not biases; λ = `strength`, n is the size of the training set.

    With weighted samples n is the sum of their weights: a sample of weight 2 counts as two samples.
    """

    def __init__(self, strength: float) -> None:
        self.strength = real(strength, f"strength of {type(self).__name__}", NOT_NEGATIVE)

    is_array_code: ClassVar[bool] = False  # whether `gradient` replaces `coefficients`

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.is_array_code = is_array_code(cls, "gradient", "coefficients")
        if "gradient" in vars(cls):
            cls.coefficients = _no_coefficients  # type: ignore[method-assign,assignment]

    def gradient(self, xp: Any, weights: Array, n: float) -> Array:
        """Return λ ∂R/∂w of the weights, one flat array, with functions of `xp`, NumPy or CuPy."""
        raise NotImplementedError

    @abstractmethod
    def coefficients(self, n: float) -> tuple[float, float]:
        """Return the factors of sign w and of w in λ ∂R/∂w; a subclass may define `gradient` instead."""

    @abstractmethod
    def cost(self, weights: NDArray[Any], n: float) -> float:
        """Return λ R of the weights, one flat array in host memory."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.strength:g})"


def _no_coefficients(_self: Regularizer, _n: float) -> tuple[float, float]:
    return 0.0, 0.0


@register
class L2(Regularizer):
    """R = (1/2n) Σ w² (18), so ∂C/∂w gains (λ/n) w (19)."""

    def coefficients(self, n: float) -> tuple[float, float]:
        return 0.0, self.strength / n

    def cost(self, weights: NDArray[Any], n: float) -> float:
        return self.strength / (2 * n) * float(np.square(weights, dtype=np.float64).sum())


@register
class L1(Regularizer):
    """R = (1/n) Σ |w|, so ∂C/∂w gains (λ/n) sign w, 0 at w = 0."""

    def coefficients(self, n: float) -> tuple[float, float]:
        return self.strength / n, 0.0

    def cost(self, weights: NDArray[Any], n: float) -> float:
        return self.strength / n * float(np.abs(weights).sum(dtype=np.float64))


def ending_step(update: Update) -> Update:
    """Mark an `update` whose last kernel also ends the step, which saves a launch."""
    update.ends_step = True  # type: ignore[attr-defined]
    return update


class Optimizer(Buildable, Part, ABC, kind="optimizer", example="SGD(0.1)"):
    """Update parameters to reduce the loss.

    `fit` copies the optimizer, so one object may serve several networks, even at once. Each network keeps the state of
    its optimizer (momentum, means of gradients), and the next `fit` with the same object continues from it.

    Args:
        learning_rate: η, or a schedule.

    Your own optimizer defines `change`, array code for NumPy and CuPy alike, or `_build` and `update`.

    Attributes:
        state: Arrays that last from step to step, by name.
        remembers: Names of state arrays that begin with zeros and have one element for each parameter.
    """

    state: Mapping[str, Array] = {}
    remembers: ClassVar[tuple[str, ...]] = ()
    penalty: Regularizer | None = None  # a regularizer with a `gradient` in array code

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        run_on_device(cls, "before_backward", "update")
        if "change" in vars(cls) and "update" not in vars(cls):
            cls.update = Optimizer._update_by_arrays  # type: ignore[method-assign]

    def __init__(self, learning_rate: float | Schedule) -> None:
        what = f"learning rate of {type(self).__name__}"
        if isinstance(learning_rate, str | type):
            raise OptionError(f"{what} must be a number or a schedule such as Cosine(0.1), got {learning_rate!r}")
        self.learning_rate = learning_rate if isinstance(learning_rate, Schedule) else real(learning_rate, what)
        _ = self.schedule  # raises an error for a bad rate

    @property
    def schedule(self) -> Schedule:
        """Schedule of the learning rate; a number becomes `Constant`."""
        rate = self.learning_rate
        return rate if isinstance(rate, Schedule) else Constant(rate)

    @cached_property
    def identity(self) -> str:
        """Random identifier that this optimizer shares with its later copies alone."""
        return os.urandom(16).hex()

    def build(
        self, parameters: Parameters, regularizer: Regularizer | None = None, n: float = 1, first: int = 0
    ) -> None:
        """Attach the optimizer to parameters, and allocate its state.

        Args:
            parameters: Parameters of the network.
            regularizer: Regularizer whose gradient joins the update.
            n: Size of the training set, by weight, for λ/n.
            first: Step of the network at which this optimizer began.
        """
        self.remember_settings()
        self.first, self.parameters = first, parameters
        self.l1, self.l2 = regularizer.coefficients(n) if regularizer else (0.0, 0.0)
        self.penalty, self._n = regularizer if regularizer and regularizer.is_array_code else None, n
        self._run = parameters.backend.run
        self._build()

    def _build(self) -> None:
        """Allocate the optimizer's state (momentum, moments)."""
        self.state = {name: self._zeros() for name in self.remembers}

    def change(self, xp: Any, values: Array, gradients: Array, rate: Array, count: Array) -> Array:
        """Return the amount that a step subtracts from the parameters, and update the arrays of `state` in place.

        All parameters lie in one flat array without gaps, regularized weights first.

        Args:
            xp: NumPy or CuPy.
            values: Values of the parameters; leave them unchanged.
            gradients: Gradients of the loss and the regularizer.
            rate: Learning rate of the step, (1,).
            count: Number of the step, from 1, in float64, (1,).
        """
        raise NotImplementedError

    def add_penalty(self) -> None:
        """Add the gradient of a regularizer in array code to the gradients of the weights."""
        if self.penalty is not None:
            p = self.parameters
            with p.backend.array_code():
                gradients = p.packed(p.gradients)
                gradients[: p.weights] += self.penalty.gradient(p.backend.xp, p.packed(p.learned)[: p.weights], self._n)
                p.spread(gradients, p.gradients)

    def _update_by_arrays(self, rates: Array, clock: Array) -> None:
        p, xp, weights = self.parameters, self.parameters.backend.xp, self.parameters.weights
        with p.backend.array_code():
            values, gradients = p.packed(p.learned), p.packed(p.gradients)
            if self.l1 or self.l2:
                w, real = values[:weights], values.dtype.type
                gradients = gradients.copy()
                gradients[:weights] += real(self.l2) * w + real(self.l1) * xp.sign(w)
            # Rate and count stay on the device: a graph would replay the numbers of its capture.
            rate = rates[clock[STEP : STEP + 1]]
            count = (clock[COUNT : COUNT + 1] + (1 - self.first)).astype(np.float64)
            values -= self.change(xp, values, gradients, rate, count)
            p.spread(values, p.learned)

    def clear_gaps(self) -> None:
        """Set the gaps between parameters to 0 again, since a user's `update` may have written to them."""
        p, update = self.parameters, type(self).update
        if not p.has_gaps or outside.is_ours(update):
            return
        with p.backend.array_code():
            for flat in (p.gradients, p.learned, *self.state.values()):
                if flat.shape == p.gradients.shape:
                    for gap in p.gaps:
                        flat[gap] = 0

    def before_backward(self, rates: Array, clock: Array) -> None:
        """Prepare a step before its backward pass."""

    @abstractmethod
    def update(self, rates: Array, clock: Array) -> None:
        """Update the parameters by their gradients.

        Args:
            rates: Learning rates of the epoch's steps.
            clock: Number of this step and of the next one; see `gpunn.kernels.gather`.
        """

    def _zeros(self) -> Array:
        """Return zeros in the layout of the gradients, or of the arrays of `change` if the optimizer defines it."""
        p, by_change = self.parameters, type(self).update is Optimizer._update_by_arrays
        return p.backend.zeros((p.learned_size,) if by_change else p.gradients.shape, p.gradients.dtype)


@register
class SGD(Optimizer):
    """Stochastic gradient descent: v := μ v + ∂C/∂p, p := p − η v; plain (4) where μ = 0.

    With Nesterov's momentum p := p − η (∂C/∂p + μ v). Momentum and schedules of η have the meaning of PyTorch.

    Args:
        learning_rate: η, or a schedule.
        momentum: μ, 0 to below 1.
        nesterov: Whether to use Nesterov's momentum.
    """

    def __init__(self, learning_rate: float | Schedule = 0.1, momentum: float = 0.0, nesterov: bool = False) -> None:
        super().__init__(learning_rate)
        self.momentum, self.nesterov = real(momentum, "momentum", SHARE), flag(nesterov, "nesterov")
        if self.nesterov and not self.momentum:
            raise OptionError("nesterov needs a momentum above 0, got 0")

    def _build(self) -> None:
        p = self.parameters
        weights = [parameter for parameter in p if parameter.weight_decay and not parameter.is_frozen]
        # Without momentum, (21) is the matrix product of the gradient with another alpha and beta. A GPU keeps the
        # update as a kernel, since the product would need the learning rate on the host; so do several ranks, since
        # each has the product of its share alone.
        is_alone = p.backend.device == "cpu" and world().size == 1
        is_folded = not self.momentum and not self.l1 and self.penalty is None and is_alone
        self._folded = weights if is_folded and all(len(w.shape) == 2 and not w.is_table for w in weights) else []
        start = p.decayed if self._folded else 0
        self._values, self._gradients, self._decayed = p.learned[start:], p.gradients[start:], p.decayed - start
        self.state = {"velocity": self._zeros()} if self.momentum else {}
        self._momentum = (self.momentum, self.nesterov, *self.state.values()) if self.momentum else ()
        self._kernel = kernels.momentum_sgd if self.momentum else kernels.sgd

    def before_backward(self, rates: Array, clock: Array) -> None:
        if self._folded:
            eta = float(rates[int(clock[STEP])])
            for w in self._folded:
                w.fold_update(-eta, 1 - eta * self.l2)

    @ending_step
    def update(self, rates: Array, clock: Array) -> None:
        settings = self._decayed, self.l1, self.l2, *self._momentum
        self._run(self._kernel, self._gradients, rates, *settings, self._values, clock)


@register
class Adam(Optimizer):
    """w := w − η m̂ / (√v̂ + ε), Adam (D. P. Kingma, J. Ba, 2015): steps of about η for gradients of any size.

    Args:
        learning_rate: η, or a schedule.
        beta1: Decay rate of the mean of the gradients, m.
        beta2: Decay rate of the mean of the squared gradients, v.
        epsilon: ε, which avoids a division by 0.
    """

    weight_decay = 0.0

    def __init__(
        self, learning_rate: float | Schedule = 0.001, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8
    ) -> None:
        super().__init__(learning_rate)
        name = type(self).__name__
        self.beta1, self.beta2 = real(beta1, f"beta1 of {name}", SHARE), real(beta2, f"beta2 of {name}", SHARE)
        self.epsilon = real(epsilon, f"epsilon of {name}", POSITIVE)

    def _build(self) -> None:
        self.state = {"first": self._zeros(), "second": self._zeros()}

    @ending_step
    def update(self, rates: Array, clock: Array) -> None:
        p, means = self.parameters, (*kernels.of_mean(self.beta1), *kernels.of_mean(self.beta2))
        settings = p.decayed, self.l1, self.l2, *means, self.epsilon, self.weight_decay, self.first
        self._run(kernels.adam, p.gradients, rates, *settings, *self.state.values(), p.learned, clock)


@register
class AdamW(Adam):
    """Adam with decoupled weight decay (I. Loshchilov, F. Hutter, 2019): w := w − η m̂ / (√v̂ + ε) − η λ w.

    Every weight decays by the same share, while Adam divides the gradient of `L2` by √v̂. Like the regularizers, the
    decay acts on weights, not on biases nor BatchNorm's γ and β. PyTorch's AdamW decays these too, except in a
    parameter group with weight_decay=0. λ is not divided by the size of the training set.

    Args:
        learning_rate: η, or a schedule, which the decay follows.
        weight_decay: λ, at least 0; 0 is Adam, to the same bits.
        beta1: Decay rate of the mean of the gradients, m.
        beta2: Decay rate of the mean of the squared gradients, v.
        epsilon: ε, which avoids a division by 0.
    """

    def __init__(
        self,
        learning_rate: float | Schedule = 0.001,
        weight_decay: float = 0.01,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
    ) -> None:
        super().__init__(learning_rate, beta1, beta2, epsilon)
        self.weight_decay = real(weight_decay, "weight_decay of AdamW", NOT_NEGATIVE)
