"""The losses, each with the gradient that back-propagation begins with."""

import math
import threading
from abc import ABC
from functools import lru_cache
from inspect import signature
from operator import attrgetter
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from gpunn.backend.array_code import NO_KERNEL, is_array_code
from gpunn.backend.base import Backend, Buffer
from gpunn.backend.devices import backend_of
from gpunn.config import Part, from_config, needed_by, register
from gpunn.config.scalars import SHARE, real
from gpunn.data.checks import as_array, checked_weights, is_one_hot
from gpunn.errors import DataError, OptionError, ShapeError
from gpunn.kernels import losses as kernels
from gpunn.kernels.bias import row_sums
from gpunn.kernels.device_code import parts_of_row
from gpunn.kernels.record import Array, Raw
from gpunn.nn.layers import Activation, Sigmoid, Softmax
from gpunn.nn.tasks import Task

__all__ = ["BinaryCrossEntropy", "Loss", "MeanSquaredError", "SoftmaxCrossEntropy"]


class _Work(threading.local):
    """The arrays that a loss works with: each thread has its own, so that threads and networks may share the loss."""

    costs: Array
    gradient: Array
    key: tuple[Any, ...] = ()
    capacity = 0

    def prepare(self, backend: Backend, outputs: int, n: int, dtype: Any, needs_targets: bool) -> None:
        """Make the buffers, again where a larger batch or another network comes."""
        if self.key == (backend, outputs, dtype) and n <= self.capacity:
            return
        self.key, self.capacity = (backend, outputs, dtype), n
        self.gradients = Buffer(backend, (outputs,), n, dtype)
        self.targets = Buffer(backend, (outputs,), n if needs_targets else 1, dtype)
        self.all_costs = Buffer(backend, (), n, dtype)
        self.no_bias, self.scratch = backend.zeros((outputs,), dtype), backend.zeros((outputs,), dtype)
        # For sums that the blocks of a device share: of the loss, and of the rows of its gradient.
        on_host = backend.device == "cpu"
        parts = 0 if on_host else 3 * kernels.blocks(outputs, n)
        self.parts, self.ticket = backend.zeros((parts,), np.float64), backend.zeros((1,), np.uint32)
        self.sums_rows = not on_host and kernels.leaves_sums(outputs, n)
        rows = outputs * parts_of_row(outputs, n) if self.sums_rows else 0
        self.row_parts, self.row_tickets = backend.empty((rows,), dtype), backend.zeros((outputs,), np.uint32)


def _of_thread(name: str) -> Any:
    """Make an attribute of a loss that each thread has for itself."""
    return property(attrgetter(f"_work.{name}"), lambda loss, value: setattr(loss._work, name, value))


class Loss(Part, ABC, kind="loss", example="MeanSquaredError()"):
    """A loss C, averaged over the batch.

    By hand: `value = loss.forward(y, t)`, then `model.backward(loss.backward())`. One of your own has `function` and
    `derivative`, in array code that runs on NumPy and CuPy alike, or a kernel.

    Attributes:
        link: The activation that the loss contains, or None; a network that ends in it is trained from the z before it.
        takes_labels: Whether targets are class labels (batch,); else (batch, outputs), and labels become one-hot, or
            for one output alone, that of class 1, 0 and 1.
        kernel: Kernel for samples that count alike.
        weighted_kernel: Kernel for samples of weights w: C = (1/n) Σ w c, c the loss of a sample. It takes w (batch,)
            before the arrays that it writes, and adds Σ w to a third total. A loss without one refuses weights.
        costs, gradient: Loss of each sample of the last batch, not weighted, and its ∂C/∂z, (outputs, batch).
    """

    link: ClassVar[type[Activation] | None] = None
    takes_labels: ClassVar[bool] = False
    of_targets: ClassVar[Task] = Task.REGRESSION  # of a network that is trained by this loss on float targets
    is_squared_error: ClassVar[bool] = False  # summed over outputs, so that RMSE and R² follow from it
    kernel: ClassVar[Raw]
    weighted_kernel: ClassVar[Raw | None] = None
    costs: Array = _of_thread("costs")
    gradient: Array = _of_thread("gradient")
    is_array_code: ClassVar[bool] = False  # whether `function` and `derivative` stand for the kernels
    _work: _Work

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.is_array_code = is_array_code(cls, "function", "kernel", "evaluate")

    def function(self, xp: Any, y: Array, t: Array) -> Array:
        """Return the loss c of each sample (batch,), or of each output (outputs, batch), whose sum it then is.

        Args:
            xp: NumPy or CuPy.
            y: Outputs (outputs, batch); logits for a loss with a link.
            t: Targets (outputs, batch); for a loss that `takes_labels`, labels (batch,).
        """
        raise NotImplementedError

    def derivative(self, xp: Any, y: Array, t: Array) -> Array:
        """Return ∂c/∂y of each sample, (outputs, batch); the 1/n of the mean and the weights are not in it."""
        raise NotImplementedError

    def __new__(cls, *_: Any, **__: Any) -> Self:
        loss = super().__new__(cls)
        loss._work = _Work()
        return loss

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_work"}

    def made_link(self) -> Activation | None:
        """Make the activation that the loss contains, or return None; OptionError where it needs arguments."""
        if self.link is not None and (needed := needed_by(self.link)):
            mend = f"give {', '.join(needed)} a default in its __init__"
            raise OptionError(
                f"{self.link.__name__} is the link of {type(self).__name__}, which is made by itself: {mend}"
            )
        return None if self.link is None else self.link()

    def task(self, has_labels: bool) -> Task:
        """Return the task of a network that is trained by this loss on labels, or on float targets."""
        return Task.CLASSES if has_labels or self.takes_labels else self.of_targets

    def classes_of(self, outputs: int) -> int:
        """Return the number of classes that so many outputs can tell apart."""
        return 2 if outputs == 1 and not self.takes_labels else outputs

    def check_targets(self, targets: NDArray[Any]) -> None:
        """Raise DataError for targets on the host that this loss does not take."""
        if self.takes_labels and targets.ndim != 1:
            raise DataError(f"{type(self).__name__} needs labels, these samples have float targets")

    def check_takes_shares(self) -> None:
        """Raise OptionError where an `evaluate` of one's own cannot be told that it has a share of the samples."""
        takes = signature(self.evaluate).parameters.values()
        if not any(each.name == "of" or each.kind is each.VAR_KEYWORD for each in takes):
            mend = "give it of=0, the number of samples that the mean is over, or train by one process"
            raise OptionError(f"evaluate of {type(self).__name__} takes no share of a batch: {mend}")

    def weighing_kernel(self) -> Raw:
        """Return the kernel for weighted samples; OptionError where a loss of one's own has none for its formula."""
        if self.is_array_code:
            return NO_KERNEL  # which has nothing to do there
        for cls in type(self).__mro__:
            own = vars(cls)
            if "weighted_kernel" in own and isinstance(kernel := own["weighted_kernel"], Raw):
                return kernel
            if not {"kernel", "evaluate"}.isdisjoint(own):
                break
        mend = "give its class a weighted_kernel, or leave sample_weight and class_weight out"
        raise OptionError(f"{type(self).__name__} cannot weigh samples: {mend}")

    def of_constant(self, means: NDArray[np.float64], squares: NDArray[np.float64]) -> float:
        """Return the lowest loss of one answer for all samples, by the means of targets and squares; nan if unknown."""
        return math.nan

    def forward(self, y: Array, t: Any, sample_weight: Any = None) -> Array:
        """Compute the loss of a batch, a scalar of the backend: the mean over samples, by weight Σ w c / Σ w.

        Args:
            y: Outputs of the network (batch, outputs); logits z for a loss with a link.
            t: Labels (batch,), or targets (batch, outputs), which for a loss of labels are rows of one 1.
            sample_weight: Weight w of each sample (batch,), at least 0; None where all count alike.

        Raises:
            ShapeError, DataError: y and t do not belong together, a label is no output of the network, or a weight is
                none.
            OptionError: A loss of your own cannot weigh samples.
        """
        name = type(self).__name__
        y = y if hasattr(y, "ndim") else as_array(y, "outputs")
        t = t if hasattr(t, "dtype") else as_array(t, "targets")
        if y.ndim != 2 or not len(y):
            raise ShapeError(f"{name} expects outputs (batch, outputs) of at least one sample, got {tuple(y.shape)}")
        backend, (n, outputs) = backend_of(y), y.shape
        if self.takes_labels and isinstance(t, np.ndarray) and t.shape == (n, outputs) and is_one_hot(t):
            t = t.argmax(axis=1)
        if t.ndim == 1 and len(t) == n and t.dtype.kind in "iub":
            most = self.classes_of(outputs) - 1
            if int(t.min()) < 0 or int(t.max()) > most:
                raise DataError(f"labels must be 0 to {most}, got {int(t.min())} to {int(t.max())}")
            targets = backend.asarray(t, np.int32)
        elif tuple(t.shape) == (n, outputs) and not self.takes_labels:
            targets = backend.asarray(t.T, y.dtype)
        else:
            wanted = f"integer labels ({n},)" + ("" if self.takes_labels else f" or targets ({n}, {outputs})")
            raise ShapeError(f"{name} expects {wanted} for outputs {(n, outputs)}, got {tuple(t.shape)} {t.dtype}")
        given, z = {}, backend.asarray(y.T)
        totals = backend.zeros((2 if sample_weight is None else 3,), np.float64)
        if sample_weight is not None:
            self.weighing_kernel()  # which says so where there is none
            weights = checked_weights(sample_weight, n)
            given = {"sample_weight": backend.asarray(weights / weights.mean(), y.dtype)}
        self.evaluate(backend, z, targets, totals, 1 / n, **given)
        return totals[0]

    def evaluate(
        self,
        backend: Backend,
        z: Array,
        targets: Array,
        totals: Array,
        weight: float = 1.0,
        bias: Array | None = None,
        bias_gradient: Array | None = None,
        sample_weight: Array | None = None,
        of: int = 0,
    ) -> None:
        """Set `costs` and `gradient` for outputs or logits z (outputs, batch) on the device: the entry of a step.

        Targets are int32 labels (batch,), or (outputs, batch). `totals` gains weight · Σ costs, and the right answers:
        one a sample for labels, else one an output. A last layer may leave its bias (outputs,) to the loss. With
        `sample_weight` w (batch,), `totals` gains weight · Σ w costs, Σ w of the right answers, and Σ w. Where z is a
        share of the samples that the mean is over, `of` is the number of all of them.
        """
        work, (outputs, n) = self._work, z.shape
        work.prepare(backend, outputs, n, z.dtype, not self.takes_labels)
        of = of or n
        work.costs, work.gradient = work.all_costs[n], work.gradients[n]
        # Whether each output is a question by itself; a loss of labels need not be told.
        each = () if self.takes_labels else (targets.ndim == 2 or outputs == 1,)
        if targets.ndim == 1 and not self.takes_labels:
            labels, targets = targets, work.targets[n]
            backend.run(kernels.one_hot, labels, targets)
        bias = work.no_bias if bias is None else bias
        bias_gradient = work.scratch if bias_gradient is None else bias_gradient
        if self.is_array_code:
            with backend.array_code():
                right = self._compute(backend.xp, z + bias[:, None], targets, bool(each and each[0]), of)
                _sum(right, work.costs, work.gradient, totals, weight, bias_gradient, sample_weight)
            return
        arrays = work.gradient, bias_gradient, work.costs, totals
        kernel = self.kernel if sample_weight is None else self.weighing_kernel()
        weights = () if sample_weight is None else (sample_weight,)
        takes = _parameters(kernel)
        divides = "of" in takes
        more: tuple[Any, ...] = (of,) if divides else ()
        if "parts" in takes:
            more += work.parts, work.ticket
        backend.run(kernel, z, bias, targets, weight, *weights, *arrays, *more, *each, *self._constants())
        is_left = work.sums_rows and bias_gradient is not work.scratch and kernels.leaves_sums(outputs, n)
        if is_left and "parts" in takes:
            backend.run(row_sums, work.gradient, bias_gradient, work.row_parts, work.row_tickets)
        if of != n and not divides:
            with backend.array_code():
                for array in (work.gradient, bias_gradient):
                    array *= z.dtype.type(n / of)

    def _compute(self, xp: Any, y: Array, t: Array, each: bool, of: int) -> Array:
        """Set costs and gradient by array code, and return which answers are right; see `gpunn.kernels.losses`."""
        losses = self.function(xp, y, t)
        self.costs[...] = losses if losses.ndim == 1 else losses.sum(axis=0)
        xp.multiply(self.derivative(xp, y, t), y.dtype.type(1 / of), out=self.gradient)
        if (link := self.made_link()) is not None and link.is_array_code:
            y = link.function(xp, y)  # in which the answers are given
        if each:
            return (y >= (0.0 if self.link is Sigmoid else 0.5)) == (t >= 0.5)
        return y.argmax(axis=0) == (t if self.takes_labels else t.argmax(axis=0))

    def _constants(self) -> tuple[Any, ...]:
        return ()

    @staticmethod
    def from_equation(name: str, equation: str, check: bool = True) -> "Loss":
        """Make a loss from the equation of one output a and its target y, summed over outputs; SymPy derives it.

        C = (1/n) Σ Σ_k c(a_k, y_k). An equation is written as for `Activation.from_equation`. An experiment file has
        it as `type = "Equation"`, `equation = "..."`.

        Args:
            name: What it is called, such as "huber".
            equation: Such as "sqrt(1 + (a - y)**2) - 1".
            check: Whether it must be finite in float32 for a from −1000 to 1000 and y = 0, ½, 1, with its derivative,
                and this be the limit of differences.

        Raises:
            OptionError: the equation has what none may have, depends on no a, or fails the check; or SymPy is missing.
        """
        made = {"type": "Equation", "equation": equation, "name": name, "check": check}
        return from_config("loss", made)  # type: ignore[no-any-return]

    def backward(self) -> Array:
        """Return ∂C/∂y of the last batch, (batch, outputs)."""
        return self.gradient.T


@lru_cache
def _parameters(kernel: Raw) -> frozenset[str]:
    """Return the names of a kernel's parameters.

    Ours are told of how many samples the mean is, `of`, behind the totals, and then given scratch, `parts` and
    `ticket`; one of a user need not be.
    """
    return frozenset(signature(kernel.host).parameters)


def _sum(
    right: Array, costs: Array, gradient: Array, totals: Array, weight: float, bias_gradient: Array, weights: Array
) -> None:
    """Weigh the gradient, and sum it for the last bias, the losses and the right answers; by array code."""
    if weights is not None:
        gradient *= weights
        costs, right = costs * weights, right * weights
        totals[2] += weights.sum(dtype=np.float64)
    bias_gradient[...] = gradient.sum(axis=1)
    totals[0] += weight * costs.sum(dtype=np.float64)
    totals[1] += right.sum(dtype=np.float64)


@register
class SoftmaxCrossEntropy(Loss):
    """C = −(1/n) Σ ln softmax(z)_y for labels y; ∂C/∂z = (softmax(z) − onehot(y))/n. Takes logits.

    With smoothing s and K classes, the targets are t = (1 − s) onehot(y) + s/K, C = −(1/n) Σ t ln softmax(z) and
    ∂C/∂z = (softmax(z) − t)/n, so that a network has nothing to gain from ever larger logits. All losses reported are
    this one, that of validation too: it is not 0 where every answer is right and sure.

    Args:
        label_smoothing: s, from 0 to below 1 (C. Szegedy and others, 2016); 0.1 is usual.
    """

    link = Softmax
    takes_labels = True
    label_smoothing = 0.0
    kernel = kernels.softmax_cross_entropy
    weighted_kernel = kernels.weighted[kernel]

    def __init__(self, *, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = real(label_smoothing, "label_smoothing of SoftmaxCrossEntropy", SHARE)

    def _constants(self) -> tuple[Any, ...]:
        return (self.label_smoothing,)

    def of_constant(self, means: NDArray[np.float64], squares: NDArray[np.float64]) -> float:
        means = (1 - self.label_smoothing) * means + self.label_smoothing / max(1, len(means))
        return -float(np.sum(means * np.log(np.maximum(means, 1e-300))))


@register
class BinaryCrossEntropy(Loss):
    """C = −(1/n) Σ y ln a + (1−y) ln(1−a) with a = sigmoid(z); ∂C/∂z = (a − y)/n (7). Takes logits.

    The sigmoid belongs to the loss, so that both stay finite: by hand, give it the z before a last Sigmoid, as `fit`.
    """

    link = Sigmoid
    of_targets = Task.BINARY
    kernel = kernels.binary_cross_entropy
    weighted_kernel = kernels.weighted[kernel]

    def of_constant(self, means: NDArray[np.float64], squares: NDArray[np.float64]) -> float:
        p = np.clip(means, 1e-15, 1 - 1e-15)
        return -float(np.sum(means * np.log(p) + (1 - means) * np.log(1 - p)))

    def check_targets(self, targets: NDArray[Any]) -> None:
        super().check_targets(targets)
        if targets.ndim != 1 and not (targets.min() >= 0 and targets.max() <= 1):
            wrong = f"needs targets from 0 to 1, got {targets.min():g} to {targets.max():g}"
            raise DataError(f"BinaryCrossEntropy {wrong}: write 0 for no and 1 for yes, or take MeanSquaredError")


@register
class MeanSquaredError(Loss):
    """C = (1/n) Σ ‖a − y‖²; ∂C/∂a = 2 (a − y)/n, and so (6) with the 2/n that it leaves to η."""

    kernel = kernels.mean_squared_error
    weighted_kernel = kernels.weighted[kernel]
    is_squared_error = True

    def of_constant(self, means: NDArray[np.float64], squares: NDArray[np.float64]) -> float:
        return float(np.sum(squares - means**2))
