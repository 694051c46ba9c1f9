"""Compute losses, each with the gradient at which back-propagation begins."""

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


class _Buffers(threading.local):
    """Hold a loss's buffers, separate for each thread, so that threads and networks may share the loss."""

    costs: Array
    gradient: Array
    key: tuple[Any, ...] = ()
    capacity = 0

    def prepare(self, backend: Backend, outputs: int, n: int, dtype: Any, needs_targets: bool) -> None:
        """Allocate the buffers, again for a larger batch or another network."""
        if self.key == (backend, outputs, dtype) and n <= self.capacity:
            return
        self.key, self.capacity = (backend, outputs, dtype), n
        self.gradients = Buffer(backend, (outputs,), n, dtype)
        self.targets = Buffer(backend, (outputs,), n if needs_targets else 1, dtype)
        self.all_costs = Buffer(backend, (), n, dtype)
        self.no_bias, self.scratch = backend.zeros((outputs,), dtype), backend.zeros((outputs,), dtype)
        # Scratch for sums shared by GPU blocks: of the loss, and of the rows of its gradient.
        on_host = backend.device == "cpu"
        parts = 0 if on_host else 3 * kernels.blocks(outputs, n)
        self.parts, self.ticket = backend.zeros((parts,), np.float64), backend.zeros((1,), np.uint32)
        self.sums_rows = not on_host and kernels.leaves_sums(outputs, n)
        rows = outputs * parts_of_row(outputs, n) if self.sums_rows else 0
        self.row_parts, self.row_tickets = backend.empty((rows,), dtype), backend.zeros((outputs,), np.uint32)


def _of_thread(name: str) -> Any:
    """Make an attribute of a loss that is separate for each thread."""
    return property(attrgetter(f"_buffers.{name}"), lambda loss, value: setattr(loss._buffers, name, value))


class Loss(Part, ABC, kind="loss", example="MeanSquaredError()"):
    """C = (1/n) Σ c(y, t): a loss, averaged over the batch.

    By hand: `value = loss.forward(y, t)`, then `model.backward(loss.backward())`. Your own loss defines `function` and
    `derivative`, in array code that runs on NumPy and CuPy, or a kernel.

    Attributes:
        link: Activation that the loss contains, or None. A network that ends in it is trained from its logits.
        takes_labels: Whether targets are class labels (batch,). Otherwise they are (batch, outputs), and labels become
            one-hot, or 0 and 1 for a single output, that of class 1.
        kernel: Kernel for unweighted samples.
        weighted_kernel: Kernel for samples with weights w: C = (1/n) Σ w c with the loss c of a sample. It takes w
            (batch,) before its output arrays, and adds Σ w to a third total. A loss without one refuses weights.
        costs: Unweighted loss of each sample in the last batch, (batch,).
        gradient: ∂C/∂z of the last batch, (outputs, batch).
    """

    link: ClassVar[type[Activation] | None] = None
    takes_labels: ClassVar[bool] = False
    of_targets: ClassVar[Task] = Task.REGRESSION  # task of a network trained by this loss on float targets
    is_squared_error: ClassVar[bool] = False  # summed over outputs: RMSE and R² then follow from the loss
    kernel: ClassVar[Raw]
    weighted_kernel: ClassVar[Raw | None] = None
    costs: Array = _of_thread("costs")
    gradient: Array = _of_thread("gradient")
    is_array_code: ClassVar[bool] = False  # whether `function` and `derivative` replace the kernels
    _buffers: _Buffers

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.is_array_code = is_array_code(cls, "function", "kernel", "evaluate")

    def function(self, xp: Any, y: Array, t: Array) -> Array:
        """Return the loss of each sample (batch,), or of each output (outputs, batch), to be summed over outputs.

        Args:
            xp: NumPy or CuPy.
            y: Outputs (outputs, batch); logits for a loss with a link.
            t: Targets (outputs, batch); for a loss that `takes_labels`, labels (batch,).
        """
        raise NotImplementedError

    def derivative(self, xp: Any, y: Array, t: Array) -> Array:
        """Return ∂c/∂y of each sample, (outputs, batch), without the mean's 1/n and the sample weights."""
        raise NotImplementedError

    def __new__(cls, *_: Any, **__: Any) -> Self:
        loss = super().__new__(cls)
        loss._buffers = _Buffers()
        return loss

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_buffers"}

    def made_link(self) -> Activation | None:
        """Return a new activation of the link's class, or None; raise OptionError if it needs arguments."""
        if self.link is not None and (needed := needed_by(self.link)):
            mend = f"give {', '.join(needed)} a default in its __init__"
            raise OptionError(
                f"{self.link.__name__} is the link of {type(self).__name__}, which is made by itself: {mend}"
            )
        return None if self.link is None else self.link()

    def task(self, has_labels: bool) -> Task:
        """Return the task of a network trained by this loss, on labels or on float targets."""
        return Task.CLASSES if has_labels or self.takes_labels else self.of_targets

    def classes_of(self, outputs: int) -> int:
        """Return the number of classes for this many outputs."""
        return 2 if outputs == 1 and not self.takes_labels else outputs

    def check_targets(self, targets: NDArray[Any]) -> None:
        """Raise DataError for targets on the host that do not suit this loss."""
        if self.takes_labels and targets.ndim != 1:
            raise DataError(f"{type(self).__name__} needs labels, these samples have float targets")

    def check_takes_shares(self) -> None:
        """Raise OptionError where a user's `evaluate` has no argument `of`, for a share of the batch."""
        takes = signature(self.evaluate).parameters.values()
        if not any(each.name == "of" or each.kind is each.VAR_KEYWORD for each in takes):
            mend = "give it of=0, the number of samples that the mean is over, or train by one process"
            raise OptionError(f"evaluate of {type(self).__name__} takes no share of a batch: {mend}")

    def weighing_kernel(self) -> Raw:
        """Return the kernel for weighted samples; raise OptionError where a user's loss has none."""
        if self.is_array_code:
            return NO_KERNEL  # array code weighs samples itself
        for cls in type(self).__mro__:
            own = vars(cls)
            if "weighted_kernel" in own and isinstance(kernel := own["weighted_kernel"], Raw):
                return kernel
            if not {"kernel", "evaluate"}.isdisjoint(own):
                break
        mend = "give its class a weighted_kernel, or leave sample_weight and class_weight out"
        raise OptionError(f"{type(self).__name__} cannot weigh samples: {mend}")

    def of_constant(self, means: NDArray[np.float64], squares: NDArray[np.float64]) -> float:
        """Return the lowest loss of a constant prediction, from the means of targets and their squares, or NaN."""
        return math.nan

    def forward(self, y: Array, t: Any, sample_weight: Any = None) -> Array:
        """Compute the loss of a batch, the mean over samples, weighted Σ w c / Σ w: a scalar on the backend.

        Args:
            y: Outputs of the network (batch, outputs); logits z for a loss with a link.
            t: Labels (batch,), or targets (batch, outputs), which are one-hot for a loss of labels.
            sample_weight: Weight w of each sample (batch,), at least 0; None for equal weights.

        Raises:
            ShapeError, DataError: y and t do not fit each other, a label has no output, or a weight is impossible.
            OptionError: Your own loss cannot weigh samples.
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
            self.weighing_kernel()  # raises OptionError where there is none
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
        """Set `costs` and `gradient` for outputs or logits on the device, within a training step.

        Args:
            backend: Backend of the arrays.
            z: Outputs or logits (outputs, batch).
            targets: int32 labels (batch,), or targets (outputs, batch).
            totals: Gains weight · Σ costs, and the number of correct predictions, one a sample for labels, else one an
                output. With `sample_weight` w it gains weight · Σ w costs, Σ w of correct predictions, and Σ w.
            weight: Factor of the loss in `totals`.
            bias: Bias (outputs,) of the last layer that the loss adds to z, or None.
            bias_gradient: Array (outputs,) for the gradient of that bias.
            sample_weight: Weight w of each sample (batch,), or None.
            of: Number of samples in the mean, where z is one rank's share of them; 0 for the batch.
        """
        buffers, (outputs, n) = self._buffers, z.shape
        buffers.prepare(backend, outputs, n, z.dtype, not self.takes_labels)
        of = of or n
        buffers.costs, buffers.gradient = buffers.all_costs[n], buffers.gradients[n]
        # Whether each output is a prediction by itself; kernels for labels have no such argument.
        each = () if self.takes_labels else (targets.ndim == 2 or outputs == 1,)
        if targets.ndim == 1 and not self.takes_labels:
            labels, targets = targets, buffers.targets[n]
            backend.run(kernels.one_hot, labels, targets)
        bias = buffers.no_bias if bias is None else bias
        bias_gradient = buffers.scratch if bias_gradient is None else bias_gradient
        if self.is_array_code:
            with backend.array_code():
                right = self._compute(backend.xp, z + bias[:, None], targets, bool(each and each[0]), of)
                _sum(right, buffers.costs, buffers.gradient, totals, weight, bias_gradient, sample_weight)
            return
        arrays = buffers.gradient, bias_gradient, buffers.costs, totals
        kernel = self.kernel if sample_weight is None else self.weighing_kernel()
        weights = () if sample_weight is None else (sample_weight,)
        takes = _parameters(kernel)
        divides = "of" in takes
        more: tuple[Any, ...] = (of,) if divides else ()
        if "parts" in takes:
            more += buffers.parts, buffers.ticket
        backend.run(kernel, z, bias, targets, weight, *weights, *arrays, *more, *each, *self._constants())
        is_left = buffers.sums_rows and bias_gradient is not buffers.scratch and kernels.leaves_sums(outputs, n)
        if is_left and "parts" in takes:
            backend.run(row_sums, buffers.gradient, bias_gradient, buffers.row_parts, buffers.row_tickets)
        if of != n and not divides:
            with backend.array_code():
                for array in (buffers.gradient, bias_gradient):
                    array *= z.dtype.type(n / of)

    def _compute(self, xp: Any, y: Array, t: Array, each: bool, of: int) -> Array:
        """Set costs and gradient by array code, and return a mask of correct predictions."""
        losses = self.function(xp, y, t)
        self.costs[...] = losses if losses.ndim == 1 else losses.sum(axis=0)
        xp.multiply(self.derivative(xp, y, t), y.dtype.type(1 / of), out=self.gradient)
        if (link := self.made_link()) is not None and link.is_array_code:
            y = link.function(xp, y)  # predictions follow from the link's output
        if each:
            return (y >= (0.0 if self.link is Sigmoid else 0.5)) == (t >= 0.5)
        return y.argmax(axis=0) == (t if self.takes_labels else t.argmax(axis=0))

    def _constants(self) -> tuple[Any, ...]:
        return ()

    @staticmethod
    def from_equation(name: str, equation: str, check: bool = True) -> "Loss":
        """Make a loss from the equation of one output a and its target y, summed over outputs; SymPy derives it.

        C = (1/n) Σ Σ_k c(a_k, y_k). Write the equation as for `Activation.from_equation`. An experiment file writes
        `type = "Equation"`, `equation = "..."`.

        Args:
            name: Name of the loss, such as "huber".
            equation: Right-hand side of c(a, y), such as "sqrt(1 + (a - y)**2) - 1".
            check: Whether to check c and its derivative: finite in float32 for a from −1000 to 1000 and y = 0, ½, 1,
                and the derivative equal to central differences.

        Raises:
            OptionError: An equation outside this grammar, without a, or failing the check; or SymPy is missing.
        """
        made = {"type": "Equation", "equation": equation, "name": name, "check": check}
        return from_config("loss", made)  # type: ignore[no-any-return]

    def backward(self) -> Array:
        """Return ∂C/∂y of the last batch, (batch, outputs)."""
        return self.gradient.T


@lru_cache
def _parameters(kernel: Raw) -> frozenset[str]:
    """Return the names of a kernel's parameters: a user's kernel may lack `of`, `parts` and `ticket`."""
    return frozenset(signature(kernel.host).parameters)


def _sum(
    right: Array, costs: Array, gradient: Array, totals: Array, weight: float, bias_gradient: Array, weights: Array
) -> None:
    """Weight the gradient, and sum losses, correct predictions and the gradient of the last bias, by array code."""
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
    ∂C/∂z = (softmax(z) − t)/n, so ever larger logits no longer lower the loss. Every reported loss is smoothed, that of
    the validation too: it stays above 0 even where all predictions are correct and certain.

    Args:
        label_smoothing: Smoothing s, from 0 to below 1 (C. Szegedy et al., 2016); 0.1 is usual.

    Raises:
        OptionError: label_smoothing out of its range.

    Shapes: logits (batch, classes), labels (batch,).
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

    The sigmoid is part of the loss, so that C and its gradient stay finite. By hand, pass the z before a last Sigmoid,
    as `fit` does.

    Shapes: logits (batch, outputs), targets (batch, outputs) from 0 to 1 or labels (batch,).
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
    """C = (1/n) Σ ‖a − y‖²; ∂C/∂a = 2 (a − y)/n: (6), which leaves the factor 2/n to η.

    Shapes: outputs (batch, outputs), targets (batch, outputs) or labels (batch,).
    """

    kernel = kernels.mean_squared_error
    weighted_kernel = kernels.weighted[kernel]
    is_squared_error = True

    def of_constant(self, means: NDArray[np.float64], squares: NDArray[np.float64]) -> float:
        return float(np.sum(squares - means**2))
