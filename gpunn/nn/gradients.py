"""Check the gradients of a layer, a loss or a network against central differences, in float64."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpunn.backend.base import Backend, Shape
from gpunn.backend.devices import on_host, select
from gpunn.config.scalars import POSITIVE, checked_seed, positive_whole, real
from gpunn.data.checks import as_array
from gpunn.data.tokens import as_tokens
from gpunn.errors import GpunnError, OptionError, ShapeError
from gpunn.kernels.record import Array
from gpunn.nn.arguments import as_shape
from gpunn.nn.initializers import Initializer
from gpunn.nn.layers.base import BuildContext, Layer
from gpunn.nn.losses import Loss
from gpunn.nn.network import Network
from gpunn.nn.tasks import Task

__all__ = ["GradientCheck", "GradientError", "check_gradients"]
_INPUT = "input"
_MOST_ELEMENTS = 10_000  # each takes two passes through the network
_DOUBTFUL = 1e-8  # error above which an element is checked again with a smaller step
_KINK = 1e-3  # difference of the one-sided slopes at a kink, as a share of the largest gradient


class GradientError(GpunnError, ArithmeticError):
    """Error of a wrong gradient; `check` holds the whole comparison."""

    check: "GradientCheck"


@dataclass(frozen=True)
class Compared:
    """Largest error in the gradient by one array.

    Attributes:
        name: "input", or name of the parameter, such as "dense1.w".
        place: Index of the element in the array.
        gradient: Gradient from `backward`.
        difference: Central difference (C(x + h) − C(x − h)) / 2h.
        error: |gradient − difference|, divided by the largest number in both arrays.
        kinks: Number of elements at a kink, where any slope between the one-sided ones is correct.
        overwritten: Whether a following layer overwrote the output, as far as `output_is_free` permits.
    """

    name: str
    place: tuple[int, ...]
    gradient: float
    difference: float
    error: float
    kinks: int
    overwritten: bool = False

    def __str__(self) -> str:
        kinks = f", {self.kinks} at kinks" if self.kinks else ""
        kinks += ", before a layer that overwrites" if self.overwritten else ""
        return f"{self.name}{list(self.place)}: {self.gradient:.9g}, by differences {self.difference:.9g}{kinks}"


@dataclass(frozen=True, repr=False)
class GradientCheck:
    """Result of `check_gradients`.

    Attributes:
        compared: Largest error of each array.
        tolerance: Largest error allowed.
    """

    compared: tuple[Compared, ...]
    tolerance: float

    @property
    def worst(self) -> Compared:
        """The largest error of all arrays."""
        return max(self.compared, key=lambda each: each.error if each.error == each.error else np.inf)

    def __getitem__(self, name: str) -> Compared:
        return next(each for each in self.compared if each.name == name)

    def __repr__(self) -> str:
        rows = "\n".join(f"  {each.error:8.1e}  {each}" for each in self.compared)
        return f"GradientCheck: largest error of each array, allowed {self.tolerance:g}\n{rows}"


def check_gradients(
    part: Layer | Loss | Network,
    shape: int | Sequence[int],
    *,
    loss: Loss | None = None,
    inputs: ArrayLike | None = None,
    targets: ArrayLike | None = None,
    batch_size: int = 3,
    device: str | Backend = "cpu",
    seed: int = 0,
    step: float = 1e-5,
    tolerance: float = 1e-6,
) -> GradientCheck:
    """Compare the gradients by the input and by every parameter with central differences in float64.

    For a layer or network, C is its `loss`, or Σ r y with random r. A layer without a loss is checked once more before
    a layer that overwrites its output. At a kink, such as ReLU's at 0, the one-sided slopes differ, and every slope
    between them is correct. Inputs that are whole numbers have no gradient.

    Args:
        part: Layer, loss or network; a copy with the same weights is checked.
        shape: Shape of one input sample, (features,) or (height, width, channels); for a loss (outputs,).
        loss: Loss of the outputs, or None.
        inputs: Inputs (n, *shape); by default `batch_size` samples from N(0, 1), or random tokens.
        targets: Targets of the loss; by default random ones of its kind.
        batch_size: Number of samples.
        device: "cpu", "cuda" or "cuda:N".
        seed: Seed of random inputs, targets and initial weights.
        step: Step h of the differences.
        tolerance: Largest error allowed, as a share of the largest number in the gradient.

    Returns:
        Largest error of each array.

    Raises:
        GradientError: A gradient is wrong; the message names the parameter, the element, and both numbers.
        OptionError, ShapeError: An argument out of its range, or more than 10,000 elements to check.
    """
    if not isinstance(part, Layer | Loss | Network):
        made = f": write {part.__name__}()" if isinstance(part, type) else ""
        raise OptionError(f"check_gradients takes a layer, a loss or a network, got {part!r:.80}{made}")
    if loss is not None and (isinstance(part, Loss) or not isinstance(loss, Loss)):
        raise OptionError(f"loss is the loss behind a layer or a network, got {loss!r:.80}")
    shape, count, seed = as_shape(shape), positive_whole(batch_size, "batch_size"), int(checked_seed(seed))
    h, allowed = real(step, "step", POSITIVE), real(tolerance, "tolerance", POSITIVE)
    backend = device if isinstance(device, Backend) else select(device)
    rng = np.random.default_rng(seed)
    _check_count(count * prod(shape))
    tokens = 0 if isinstance(part, Loss) else part.tokens
    drawn = rng.integers(0, tokens, (count, *shape)) if tokens else rng.normal(size=(count, *shape))
    x = drawn if inputs is None else as_array(on_host(inputs), "inputs")
    if x.shape[1:] != shape or not len(x) or x.dtype.kind not in "fiub":
        raise ShapeError(f"inputs must be numbers of shape (n, {', '.join(map(str, shape))}), got {x.shape} {x.dtype}")
    x = np.asarray(as_tokens(x, tokens)) if tokens else np.asarray(x, np.float64) if x.dtype.kind == "f" else x
    if isinstance(part, Loss):
        found = _of_loss(copy(part), x, targets, backend, rng, h)
    else:
        layers = part.layers if isinstance(part, Network) else [part]
        runs = [False] if isinstance(part, Network) or loss is not None else [False, True]
        found = [each for follows in runs for each in _of_layers(layers, x, loss, targets, backend, seed, h, follows)]
    check = GradientCheck(tuple(found), allowed)
    if not check.worst.error <= allowed:
        worst = check.worst
        share = f"{worst.error:.1g} of the largest, allowed {allowed:g}"
        mend = "look at its derivative" if isinstance(part, Loss) else "look at backward"
        if worst.overwritten and all(each.error <= allowed for each in found if not each.overwritten):
            mend = "its output may be overwritten: set output_is_free = False on the class, if backward reads it"
        error = GradientError(f"{part!r:.120}: the gradient by {worst} ({share}): {mend}")
        error.check = check
        raise error
    return check


class _InputParameter(Layer):
    """Output a parameter in place of the input, whose gradient is then ∂C/∂input."""

    name_prefix = _INPUT

    def __init__(self, values: NDArray[np.float64], shape: Shape) -> None:
        self.values, self.shape = values, shape

    def output_shape(self, input_shape: Shape) -> Shape:
        return self.shape

    def build(self, context: BuildContext, input_shape: Shape) -> Shape:
        self._assign, self._copy = context.backend.assign, context.buffer(self.shape)
        self.x = context.parameter("x", self.values.shape, _FixedValues(self.values))
        return self.shape

    def forward(self, x: Array, training: bool) -> Array:
        given = self._copy[x.shape[-1]]  # a copy, which the next layer may overwrite
        self._assign(given, self.x.value)
        return given

    def backward(self, dy: Array) -> None:
        self._assign(self.x.grad, dy)


class _FixedValues(Initializer):
    """Return given initial values."""

    def __init__(self, values: NDArray[np.float64]) -> None:
        self.values = values

    def __call__(self, shape: Shape, fan_in: int, fan_out: int, generator: np.random.Generator) -> NDArray[Any]:
        return self.values


class _Halved(Layer):
    """y = x/2, in place where the layer before permits it."""

    name_prefix = "halved"

    def build(self, context: BuildContext, input_shape: Shape) -> Shape:
        self._in_place, self._backend = context.may_overwrite_input, context.backend
        return input_shape

    def forward(self, x: Array, training: bool) -> Array:
        with self._backend.array_code():
            if not self._in_place:
                return x * 0.5
            x *= 0.5
            return x

    def backward(self, dy: Array) -> Array:
        with self._backend.array_code():
            return dy * 0.5


def _of_layers(
    layers: Sequence[Layer], x: NDArray[Any], loss: Loss | None, targets: Any, backend: Backend, seed: int, h: float,
    follows: bool,
) -> list[Compared]:  # fmt: skip
    """Compare the gradients of layers; with `follows`, before a layer that overwrites their output."""
    own = [copy(layer) for layer in layers] + ([_Halved()] if follows else [])
    takes_numbers = x.dtype.kind == "f"
    shape, inside = x.shape[1:], x.T if x.ndim == 2 else x.transpose(3, 1, 2, 0)
    first = [_InputParameter(np.ascontiguousarray(inside), shape)] if takes_numbers else []
    network = Network([*first, *own]).build(shape, len(x), backend, "float64", seed)
    fed = np.zeros(x.shape) if takes_numbers else x
    rng = np.random.default_rng(seed + 1)
    weights = rng.normal(size=(len(x), *network.output_shape))
    last = None if loss is None else copy(loss)
    t = None if last is None else _targets(last, weights.shape, targets, rng)

    def value() -> float:
        y = network.forward(fed, training=True)
        if last is not None:
            return float(backend.to_host(last.forward(y, t)))
        return float((backend.to_host(y) * weights).sum())

    value()
    network.backward(backend.asarray(weights) if last is None else last.backward())
    gradients = {p.name: backend.to_host(p.grad) for p in network.parameters if p.grad is not None}
    network.count_on(network.epochs_trained, network.steps_trained - 1)  # so that Dropout drops the same units
    return [replace(each, overwritten=follows) for each in _compared(network, gradients, value, backend, h)]


def _compared(
    network: Network, gradients: dict[str, NDArray[Any]], value: Callable[[], float], backend: Backend, h: float
) -> Iterator[Compared]:
    _check_count(sum(gradient.size for gradient in gradients.values()))
    for p in network.parameters:
        if (gradient := gradients.get(p.name)) is None:
            continue
        held = backend.to_host(p.value)

        def assign(values: NDArray[Any], p: Any = p) -> None:
            backend.assign(p.value, values)

        found = _worst(p.name, gradient, held, assign, value, h)
        if p.name.startswith(f"{_INPUT}1."):  # show the user's layout, samples first
            place = found.place[::-1] if held.ndim == 2 else tuple(found.place[axis] for axis in (3, 1, 2, 0))
            found = replace(found, name=_INPUT, place=place)
        yield found


def _of_loss(
    loss: Loss, y: NDArray[Any], targets: Any, backend: Backend, rng: np.random.Generator, h: float
) -> list[Compared]:
    """Compare the gradient of a loss by the outputs, for unweighted and for weighted samples."""
    t, held, found = _targets(loss, y.shape, targets, rng), np.array(y, np.float64), []
    _check_count(held.size)
    ways: list[tuple[str, Any]] = [("outputs", None)]
    try:
        loss.weighing_kernel()
        ways.append(("outputs of weighted samples", rng.uniform(0.5, 2, len(y))))
    except OptionError:
        pass  # it cannot weigh samples
    for name, weights in ways:

        def value(weights: Any = weights) -> float:
            return float(backend.to_host(loss.forward(backend.asarray(held), t, weights)))

        value()
        gradient = backend.to_host(loss.backward())
        found.append(_worst(name, gradient, held, lambda _: None, value, h))
    return found


def _targets(loss: Loss, shape: Shape, targets: Any, rng: np.random.Generator) -> Any:
    if targets is not None:
        return targets
    if loss.takes_labels:
        return rng.integers(0, loss.classes_of(shape[1]), shape[0])
    return rng.uniform(0, 1, shape) if loss.of_targets is Task.BINARY else rng.normal(size=shape)


Assign = Callable[[NDArray[Any]], None]


def _sides(
    values: NDArray[np.float64], places: Iterable[tuple[int, ...]], assign: Assign, value: Callable[[], float], h: float
) -> NDArray[np.float64]:
    """Return C at x − h and x + h for the given elements, (2, number of places); restore the array afterwards."""
    sides = []
    for place in places:
        kept = values[place]
        for x in (kept - h, kept + h):
            values[place] = x
            assign(values)
            sides.append(value())
        values[place] = kept
    assign(values)
    return np.array(sides).reshape(-1, 2).T


def _worst(
    name: str, gradient: NDArray[Any], values: NDArray[np.float64], assign: Assign, value: Callable[[], float], h: float
) -> Compared:
    """Return the largest error; at a kink every slope between the one-sided ones is correct."""
    shape, slopes, here = values.shape, gradient.ravel(), value()
    below, above = _sides(values, np.ndindex(shape), assign, value, h)
    central = (above - below) / (2 * h)
    largest = max(float(np.abs(slopes).max()), float(np.abs(central).max()), 1e-12)
    errors, kinks = _errors(slopes, below, here, above, h, largest)
    # A weak kink escapes the threshold; a smaller step no longer straddles one that lies beside x.
    doubtful = np.flatnonzero(errors > _DOUBTFUL)
    places = [tuple(map(int, np.unravel_index(number, shape))) for number in doubtful]
    closer = _sides(values, places, assign, value, h / 100)
    errors[doubtful] = np.minimum(
        errors[doubtful], _errors(slopes[doubtful], closer[0], here, closer[1], h / 100, largest)[0]
    )
    number = int(np.argmax(np.where(np.isnan(errors), np.inf, errors)))
    at = tuple(map(int, np.unravel_index(number, shape)))
    return Compared(name, at, float(slopes[number]), float(central[number]), float(errors[number]), int(kinks.sum()))


def _errors(
    slopes: NDArray[Any], below: NDArray[Any], here: float, above: NDArray[Any], h: float, largest: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the errors of slopes as shares of the `largest`, and a mask of the kinks."""
    central, left, right = (above - below) / (2 * h), (here - below) / h, (above - here) / h
    # Rounding of C limits the precision of its differences.
    noise = 8 * np.finfo(np.float64).eps * max(1.0, abs(here)) / h
    kinks = np.abs(right - left) > _KINK * largest + 4 * noise
    nearest = np.where(kinks, np.clip(slopes, np.minimum(left, right), np.maximum(left, right)), central)
    return np.maximum(np.abs(slopes - nearest) - noise, 0) / largest, kinks


def _check_count(count: int) -> None:
    if count > _MOST_ELEMENTS:
        mend = "take a smaller shape, fewer units or a smaller batch_size"
        raise OptionError(
            f"there are {count:,} elements to check, with two passes for each: {mend} (at most {_MOST_ELEMENTS:,})"
        )
