"""For every kernel what it is given and what must come out, from the equations in float64, one number at a time.

Python's `math` computes the expected values, not NumPy, so that a twin is never compared with itself. A kernel of the
registry without a case fails in test_kernels.py, which imports those of images from kernel_cases_images.py.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpunn.kernels.losses import blocks
from gpunn.kernels.updates import of_mean


class Case(NamedTuple):
    """One call of a kernel: its arguments, and by the number of an argument what that array must hold afterwards.

    `scale` is the size that rounding is measured by, where terms cancel; None for each value itself. `on_device` is
    what comes out instead on a CUDA device, to which subnormal numbers of float32 are zeros.
    """

    arguments: tuple[Any, ...]
    expected: dict[int, NDArray[Any]]
    scale: float | None = None
    on_device: dict[int, NDArray[Any]] = {}  # noqa: RUF012 - never changed


CASES: dict[str, Callable[[str, np.random.Generator, int], list[Case]]] = {}
"""By the kernel's name: from (dtype, generator, batch size) to calls of it."""


def case(name: str) -> Callable[[Any], Any]:
    """Let a function make the cases of a kernel."""

    def register(function: Any) -> Any:
        assert name not in CASES
        CASES[name] = function
        return function

    return register


_NEVER_WRITTEN = {4: np.array(0x7FA5A5A5, np.uint32), 8: np.array(0x7FF5A5A5A5A5A5A5, np.uint64)}
"""Signalling NaNs: one that arithmetic made is quiet."""


def unset(shape: int | tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """An array that was never written, which a kernel must not read: of NaNs, or with 0xA5 in every byte."""
    array = np.empty(shape, dtype)
    pattern = _NEVER_WRITTEN[array.itemsize] if array.dtype.kind == "f" else np.array(0xA5, np.uint8)
    array.view(pattern.dtype).fill(pattern)
    return array


def is_unset(array: NDArray[Any]) -> bool:
    """Whether an array is as `unset` made it."""
    return array.tobytes() == unset(array.shape, array.dtype).tobytes()


SUBNORMAL = {"float32": 1e-42, "float64": 1e-310}
EXTREMES = (0.0, -0.0, 1e-30, -1e-30, 1e-4, -1e-4, 0.5, -0.5, 1.0, -1.0, 17.0, -17.0, 40.0, -40.0)
FAR = (87.0, -87.0, 89.0, -89.0, 104.0, -104.0, 710.0, -710.0, 1000.0, -1000.0, 1e30, -1e30)


def numbers(dtype: str, rng: np.random.Generator, n: int, *, rows: int = 5, far: bool = True) -> NDArray[Any]:
    """(rows, n) numbers, among them every extreme that fits."""
    special = [*EXTREMES, SUBNORMAL[dtype], -SUBNORMAL[dtype], *(FAR if far else ())]
    values = rng.normal(0, 3, rows * n)
    values[: len(special)] = rng.permutation(special)[: values.size]
    return rng.permutation(values).astype(dtype).reshape(rows, n)


def flushed(values: NDArray[Any]) -> NDArray[Any]:
    """Values as a kernel of CuPy sees them: it is compiled with -ftz=true, which float64 does not mind."""
    is_subnormal = (np.abs(values) < np.finfo(np.float32).tiny) & (values.dtype == np.float32)
    return np.where(is_subnormal, np.copysign(0, values), values).astype(values.dtype)


def each(function: Callable[..., float], *arrays: Any) -> NDArray[np.float64]:
    """The function of each element, computed by Python in float64."""
    arrays = np.broadcast_arrays(*(np.asarray(array, np.float64) for array in arrays))
    values = [function(*(float(value) for value in row)) for row in zip(*(a.ravel() for a in arrays), strict=True)]
    return np.array(values, np.float64).reshape(arrays[0].shape)


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z)) if z > -700 else 0.0


def softplus(z: float) -> float:
    return z if z > 700 else math.log1p(math.exp(z))


def columns(function: Callable[[list[float]], list[float]], z: NDArray[Any]) -> NDArray[np.float64]:
    """The function of each sample's outputs."""
    # In C order, as buffers are: a raw kernel is told no strides.
    return np.array([function([float(v) for v in column]) for column in z.T], np.float64).T.copy()


def softmax(z: list[float]) -> list[float]:
    total = math.fsum(math.exp(v - max(z)) for v in z)
    return [math.exp(v - max(z)) / total for v in z]


# Activations: forward, in an array of its own and in place.


def gradient_of(activation: str) -> str:
    """The name of the kernel of f′."""
    return f"{activation.removesuffix('_activation')}_gradient"


ACTIVATIONS: dict[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "sigmoid": (sigmoid, lambda a: a * (1 - a)),
    "tanh_activation": (math.tanh, lambda a: (1 - a) * (1 + a)),
    "relu": (lambda z: max(z, 0.0), lambda a: 1.0 if a > 0 else 0.0),
    "softplus": (softplus, lambda a: -math.expm1(-a)),
}
"""f, and f′ written from the output, by the kernel's name."""

for _name, (_function, _) in ACTIVATIONS.items():

    @case(_name)
    def _forward(dtype: str, rng: Any, n: int, function: Any = _function) -> list[Case]:
        z = numbers(dtype, rng, n)
        expected = each(function, z)
        return [Case((z, unset(z.shape, dtype)), {0: z, 1: expected}), Case((z, z), {1: expected})]


@case("leaky_relu")
def _leaky_relu(dtype: str, rng: Any, n: int) -> list[Case]:
    cases = []
    for alpha in (0.01, 0.0, 1.0, -0.5):
        z = numbers(dtype, rng, n)
        slope = float(np.dtype(dtype).type(alpha))
        expected = each(lambda v, s=slope: max(v, s * v), z)
        cases += [Case((z, alpha, unset(z.shape, dtype)), {0: z, 2: expected}), Case((z, alpha, z), {2: expected})]
    return cases


# Activations: δ = ∂C/∂a ⊙ f′(z), in an array of its own and in place of ∂C/∂a.


def _gradient_cases(da: NDArray[Any], seen: NDArray[Any], expected: NDArray[Any], *constants: float) -> list[Case]:
    last = 2 + len(constants)
    return [
        Case((da, seen, *constants, unset(da.shape, da.dtype)), {0: da, 1: seen, last: expected}),
        Case((da, seen, *constants, da), {1: seen, last: expected}),
    ]


def _slope_cases(
    da: NDArray[Any], seen: NDArray[Any], gradient: Callable[[float, float], float], *constants: float
) -> list[Case]:
    on_device = {2 + len(constants): each(gradient, da, flushed(seen))}
    cases = _gradient_cases(da, seen, each(gradient, da, seen), *constants)
    return [case._replace(on_device=on_device) for case in cases]


for _name, (_output, _slope) in ACTIVATIONS.items():

    @case(gradient_of(_name))
    def _backward(dtype: str, rng: Any, n: int, output: Any = _output, slope: Any = _slope) -> list[Case]:
        a = each(output, numbers(dtype, rng, n)).astype(dtype)
        da = numbers(dtype, rng, n, far=False)
        return _slope_cases(da, a, lambda d, v: d * slope(v))


@case("leaky_relu_gradient")
def _leaky_relu_gradient(dtype: str, rng: Any, n: int) -> list[Case]:
    cases = []
    for alpha in (0.01, -0.5):
        slope = float(np.dtype(dtype).type(alpha))
        z, da = numbers(dtype, rng, n), numbers(dtype, rng, n, far=False)
        cases += _slope_cases(da, z, lambda d, v, s=slope: d if v > 0 else s * d, alpha)
    return cases


@case("softmax")
def _softmax(dtype: str, rng: Any, n: int) -> list[Case]:
    cases = []
    for rows in (5, 70):  # of many threads share a column
        z = numbers(dtype, rng, n, rows=rows)
        expected = columns(softmax, z)
        # The exponent is rounded before e is raised to it: an error of |exponent| units, up to some hundreds.
        cases += [Case((z, unset(z.shape, dtype)), {0: z, 1: expected}, 1.0), Case((z, z), {1: expected}, 1.0)]
    return cases


@case("softmax_gradient")
def _softmax_gradient(dtype: str, rng: Any, n: int) -> list[Case]:
    cases = []
    for rows in (5, 70):
        a = columns(softmax, numbers(dtype, rng, n, rows=rows)).astype(dtype)
        da = numbers(dtype, rng, n, rows=rows, far=False)
        along = [math.fsum(float(d) * float(v) for d, v in zip(da[:, j], a[:, j], strict=True)) for j in range(n)]
        expected = each(lambda d, v, s: v * (d - s), da, a, np.array(along))
        cases += [case._replace(scale=80.0) for case in _gradient_cases(da, a, expected)]
    return cases


# Linear


@case("add_bias")
def _add_bias(dtype: str, rng: Any, n: int) -> list[Case]:
    z, b = numbers(dtype, rng, n, far=False), numbers(dtype, rng, 1, far=False)
    return [Case((b, z), {0: b, 1: each(lambda p, q: p + q, b, z)})]


def shared_rows(rows: int, parts: int, dtype: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """The scratch of sums over rows that blocks share: parts, and tickets, which must be 0 again afterwards."""
    return unset((rows * parts,), dtype), np.zeros(rows, np.uint32)


@case("row_sums")
def _row_sums(dtype: str, rng: Any, n: int) -> list[Case]:
    x = numbers(dtype, rng, n, far=False)
    images = rng.normal(size=(3, 2, 4, n)).astype(dtype)
    long = rng.normal(size=(2, 19 * n)).astype(dtype)  # shared by several blocks from n = 28 on
    cases = []
    for rows, parts in ((x, 0), (images, 2), (long, 4)):
        total = np.array([math.fsum(float(v) for v in row.ravel()) for row in rows])
        scratch = shared_rows(len(rows), parts, dtype)
        scale = 300.0 if rows is long else 40.0
        cases.append(Case((rows, unset(len(rows), dtype), *scratch), {0: rows, 1: total, 3: 0 * scratch[1]}, scale))
    return cases


# Costs


def cost_case(name: str) -> Callable[[Any], Any]:
    """Let a function make the cases of a loss, and given weights (n,) those of its kernel for weighted samples."""

    def register(function: Any) -> Any:
        case(name)(lambda dtype, rng, n: function(dtype, rng, n, None))

        def weighted(dtype: str, rng: np.random.Generator, n: int) -> list[Case]:
            return function(dtype, rng, n, rng.choice([0.0, 0.3, 1.0, 2.5], n).astype(dtype))

        case(f"weighted_{name}")(weighted)
        return function

    return register


def _cost_case(
    z: NDArray[Any], bias: NDArray[Any], targets: NDArray[Any], weights: NDArray[Any] | None, costs: NDArray[Any],
    gradient: NDArray[Any], rights: list[int], scale: float, gradient_scale: float, *constants: float,
) -> list[Case]:  # fmt: skip
    """Calls of a cost with all that it must write; `rights` are the right answers of each sample."""
    dtype, (outputs, n), weight = z.dtype, z.shape, 0.75
    w = np.ones(n) if weights is None else weights.astype(np.float64)
    given, at = ((), 4) if weights is None else ((weights,), 5)
    written = unset((outputs, n), dtype), unset(outputs, dtype), unset(n, dtype)
    begin = np.array([2.5, 3.0] if weights is None else [2.5, 3.0, 7.0])
    of = n + 3  # samples of the whole batch, of which these are the share of one rank
    scratch = unset(3 * blocks(outputs, n), "float64"), np.zeros(1, np.uint32)
    arguments = (z, bias, targets, weight, *given, *written, begin, of, *scratch, *constants)
    gradient = gradient * w * (n / of)
    sums = np.array([math.fsum(float(v) for v in row) for row in gradient])
    totals = [weight * math.fsum(w * costs), math.fsum(w * rights), math.fsum(w)]
    return [
        Case(arguments, {0: z, 1: bias, 2: targets, at + 2: costs}, scale),
        Case(arguments, {at: gradient}, gradient_scale),
        Case(arguments, {at + 1: sums}, 1.0 + n * gradient_scale),
        # The sums are in float64, of costs that were rounded to the network's dtype.
        Case(
            arguments,
            {at + 3: begin + totals[: len(begin)], at + 6: np.zeros(1)},
            scale * n * float(np.finfo(dtype).eps / np.finfo(np.float64).eps),
        ),
    ]


def _guess(column: list[float]) -> int:
    return max(range(len(column)), key=lambda k: (column[k], -k))


def _rights(a: NDArray[Any], y: NDArray[Any], each_output: bool) -> list[int]:
    """Right answers of each sample: of its outputs by themselves, or 1 or 0."""
    if each_output:
        return [sum((p >= 0.5) == (q >= 0.5) for p, q in zip(a[:, j], y[:, j], strict=True)) for j in range(a.shape[1])]
    return [int(_guess(list(a[:, j])) == _guess(list(y[:, j]))) for j in range(a.shape[1])]


def _sums(z: NDArray[Any], bias: NDArray[Any]) -> NDArray[np.float64]:
    """z + bias as the kernel rounds it."""
    return (z + bias[:, None]).astype(np.float64)


@cost_case("softmax_cross_entropy")
def _softmax_cross_entropy(dtype: str, rng: Any, n: int, weights: Any) -> list[Case]:
    cases = []
    for z, scale, smoothing in (
        (numbers(dtype, rng, n, far=False), 60.0, 0.0),
        (numbers(dtype, rng, n, far=False), 60.0, 0.125),
        (rng.choice([1000, -1000, 0], (5, n)).astype(dtype), 2000.0, 0.0),
        (rng.choice([1000, -1000, 0], (5, n)).astype(dtype), 2000.0, 0.75),
        (rng.integers(-2, 3, (5, n)).astype(dtype), 60.0, 0.0),  # so few values that there are ties
    ):
        bias = rng.choice([0.0, 0.5, -0.25], 5).astype(dtype)
        labels = rng.integers(0, 5, n).astype(np.int32)
        sums = _sums(z, bias)
        wanted = (1 - smoothing) * (np.arange(5)[:, None] == labels) + smoothing / 5
        gradient = (columns(softmax, sums) - wanted) / n
        costs, rights = [], []
        for j, k in enumerate(labels):
            column = [float(v) for v in sums[:, j]]
            whole = max(column) + math.log(math.fsum(math.exp(v - max(column)) for v in column))
            costs.append(math.fsum(float(t) * (whole - v) for t, v in zip(wanted[:, j], column, strict=True)))
            rights.append(int(_guess(column) == k))
        cases += _cost_case(z, bias, labels, weights, np.array(costs), gradient, rights, scale, 1.0, smoothing)
    return cases


@cost_case("binary_cross_entropy")
def _binary_cross_entropy(dtype: str, rng: Any, n: int, weights: Any) -> list[Case]:
    z = rng.choice([1000, -1000, 0.0, -0.0, SUBNORMAL[dtype], 3, -3, 40, -40, 0.1], (5, n)).astype(dtype)
    bias = rng.choice([0.0, 0.5], 5).astype(dtype)
    y = rng.choice([0, 1, 0.25], (5, n)).astype(dtype)
    sums = _sums(z, bias)
    # -y ln a - (1 - y) ln(1 - a), where -ln a = softplus(-z) and -ln(1 - a) = softplus(z).
    terms = each(lambda v, t: t * softplus(-v) + (1 - t) * softplus(v), sums, y)
    costs = np.array([math.fsum(column) for column in terms.T])
    gradient = each(lambda v, t: (sigmoid(v) - t) / n, sums, y)
    cases = []
    for each_output in (False, True):
        rights = _rights(each(sigmoid, sums) if each_output else sums, y, each_output)
        cases += _cost_case(z, bias, y, weights, costs, gradient, rights, 5000.0, 1.0 / n, each_output)
    return cases


@cost_case("mean_squared_error")
def _mean_squared_error(dtype: str, rng: Any, n: int, weights: Any) -> list[Case]:
    a, y = numbers(dtype, rng, n, far=False), rng.normal(size=(5, n)).astype(dtype)
    a[0, 0], a[1, 0] = 1000, -1000
    bias = rng.choice([0.0, 0.5], 5).astype(dtype)
    sums = _sums(a, bias)
    squares = each(lambda p, q: (p - q) ** 2, sums, y)
    costs = np.array([math.fsum(column) for column in squares.T])
    gradient = each(lambda p, q: 2 * (p - q) / n, sums, y)
    return [
        case
        for each in (False, True)
        for case in _cost_case(a, bias, y, weights, costs, gradient, _rights(sums, y, each), 2e6, 4000.0, each)
    ]


@case("one_hot")
def _one_hot(dtype: str, rng: Any, n: int) -> list[Case]:
    labels = rng.integers(0, 5, n).astype(np.int32)
    expected = np.array([[float(labels[j] == k) for j in range(n)] for k in range(5)])
    two = labels % 2
    return [
        Case((labels, unset((5, n), dtype)), {0: labels, 1: expected}),
        Case((two, unset((1, n), dtype)), {0: two, 1: two[None].astype(float)}),  # one output is class 1
    ]


# Batches


@case("gather")
def _gather(dtype: str, rng: Any, n: int) -> list[Case]:
    size, features = 3 * n + 2, 4
    order = rng.permutation(size).astype(np.int32)
    bytes_ = rng.integers(0, 256, (size, features)).astype(np.uint8)
    floats = rng.normal(size=(size, features)).astype(dtype)
    labels = rng.integers(0, 10, size).astype(np.int32)
    outputs = rng.normal(size=(size, 3)).astype(dtype)
    cases = []
    for data, targets, scale, step, count, turned in (
        (bytes_, labels, 1 / 255, 2, n, False),
        (floats, labels, 1.0, 2, n, False),
        (floats, outputs, 2.0, 1, n, False),
        (bytes_, outputs, 1 / 255, 0, n, True),  # seen turned round, as the batch of a convolution is
        (floats, labels, 1.0, 3, min(2, n), False),  # the last batch of an epoch begins where the others end
    ):
        picked = [int(order[step * n + j]) for j in range(count)]
        x = unset((features, count), dtype).T if turned else unset((count, features), dtype)
        expected = np.array([[float(data[i, f]) * scale for f in range(features)] for i in picked])
        t = unset(count, np.int32) if targets.ndim == 1 else unset((3, count), dtype)
        wanted = np.array([targets[i] for i in picked]).T
        clock = np.array([7, 70, step, 1000 + step], np.int32)
        after = np.array([step, 1000 + step, step, 1000 + step])
        arguments = (data, targets, order, clock, n, scale, x, t)
        cases.append(Case(arguments, {0: data, 1: targets, 2: order, 3: after, 6: expected, 7: wanted}))
    return cases


@case("gather_weights")
def _gather_weights(dtype: str, rng: Any, n: int) -> list[Case]:
    size = 3 * n + 2
    order, weights = rng.permutation(size).astype(np.int32), rng.uniform(0, 5, size).astype(dtype)
    cases = []
    for step, count in ((0, n), (2, n), (3, min(2, n))):  # the last batch of an epoch begins where the others end
        clock = np.array([step, 1000 + step, 7, 70], np.int32)
        expected = np.array([float(weights[order[step * n + j]]) for j in range(count)])
        arguments = (weights, order, clock, n, unset(count, dtype))
        cases.append(Case(arguments, {0: weights, 1: order, 2: clock, 4: expected}))
    return cases


def philox(counter: tuple[int, ...], key: tuple[int, int]) -> list[int]:
    """Philox4x32-10 of one counter, in Python's integers (Salmon et al., 2011)."""
    return _philox(counter, key, 2**32, (0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85))


def philox64(counter: tuple[int, ...], key: tuple[int, int]) -> list[int]:
    """Philox4x64-10 of one counter, likewise."""
    multipliers, steps = (0xD2E7470EE14C6C93, 0xCA5A826395121157), (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
    return _philox(counter, key, 2**64, multipliers, steps)


def _philox(
    counter: tuple[int, ...], key: tuple[int, int], base: int, multipliers: tuple[int, int], steps: tuple[int, int]
) -> list[int]:
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        high0, low0 = divmod(multipliers[0] * c0, base)
        high1, low1 = divmod(multipliers[1] * c2, base)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + steps[0]) % base, (k1 + steps[1]) % base
    return [c0, c1, c2, c3]


def dropout_bits(features: int, n: int, step: int, stream: int, seed: int, first: int = 0) -> NDArray[np.int64]:
    """The 16 bits of each feature f of each sample j: quarter h of word k of a counter of its own, f = 16g + 4k + h."""
    counters = -(-features // 16)
    counters |= counters >= 16
    bits = np.empty((features, n), np.int64)
    for f, j in np.ndindex(features, n):
        words = philox64((counters * (first + j) + f // 16 + 1, step, stream, 0), (seed, 3))
        bits[f, j] = words[f % 16 // 4] >> 16 * (f % 4) & 0xFFFF
    return bits


# Updates


class _State(NamedTuple):
    """What an update is given, with as many weights as make the host's twin take several blocks."""

    g: NDArray[Any]
    w: NDArray[Any]
    rate: NDArray[Any]
    decayed: int
    l1: float
    l2: float

    @property
    def clock(self) -> NDArray[Any]:
        """The third step of its epoch, the seventh of all."""
        return np.array([2, 6, 0, 0], np.int32)

    @property
    def regularised(self) -> NDArray[np.float64]:
        def one(g: float, w: float, i: float) -> float:
            if i >= self.decayed:
                return g
            return g + self.l2 * w + self.l1 * (math.copysign(1, w) if w else 0.0)

        return each(one, self.g, self.w, np.arange(self.w.size))


def _states(dtype: str, rng: Any, n: int) -> list[_State]:
    states = []
    for size, decayed, l1, l2 in ((n + 7, n + 2, 0.125, 0.0), (n + 7, n, 0.0, 0.25), (40000, 20000, 0.125, 0.25)):
        g, w = rng.normal(size=size).astype(dtype), rng.normal(size=size).astype(dtype)
        w[:: max(size // 5, 1)] = 0.0
        rate = rng.uniform(0.1, 1, 4).astype(dtype)
        states.append(_State(g, w, rate, decayed, l1, l2))
    return states


AFTER = np.array([2, 6, 3, 7])
"""The clock after an update: the next step is set."""


@case("end_step")
def _end_step(dtype: str, rng: Any, n: int) -> list[Case]:
    now = np.array([n, 2 * n + 1], np.int32)
    return [Case((now, np.zeros(2, np.int32)), {0: now, 1: now + 1})]


@case("average_weights")
def _average_weights(dtype: str, rng: Any, n: int) -> list[Case]:
    cases = []
    for begun, share in ((7, 0.25), (-1, 0.001), (8, 0.25)):
        w, m = (rng.normal(size=5 * n + 2).astype(dtype) for _ in range(2))
        clock = np.array([2, 7, 3, 8], np.int32)
        expected = w if begun == 7 else each(lambda a, b, s=share: b + s * (a - b), w, m)
        cases.append(Case((w, begun, share, clock, m.copy()), {0: w, 3: clock, 4: expected}, 5.0))
    return cases


@case("sgd")
def _sgd(dtype: str, rng: Any, n: int) -> list[Case]:
    cases = []
    for s in _states(dtype, rng, n):
        arguments = (s.g, s.rate, s.decayed, s.l1, s.l2, s.w, s.clock)
        cases.append(Case(arguments, {0: s.g, 5: s.w - float(s.rate[2]) * s.regularised, 6: AFTER}, 8.0))
    return cases


@case("momentum_sgd")
def _momentum_sgd(dtype: str, rng: Any, n: int) -> list[Case]:
    cases = []
    for nesterov in (False, True):
        for s in _states(dtype, rng, n):
            velocity, mu = rng.normal(size=s.w.size).astype(dtype), 0.875
            v = mu * velocity.astype(np.float64) + s.regularised
            change = s.regularised + mu * v if nesterov else v
            arguments = (s.g, s.rate, s.decayed, s.l1, s.l2, mu, nesterov, velocity, s.w, s.clock)
            cases.append(Case(arguments, {0: s.g, 7: v, 8: s.w - float(s.rate[2]) * change, 9: AFTER}, 8.0))
    return cases


@case("adam")
def _adam(dtype: str, rng: Any, n: int) -> list[Case]:
    cases = []
    for begun, s in enumerate(_states(dtype, rng, n)):
        first, second = rng.normal(size=s.w.size).astype(dtype), rng.uniform(0, 2, s.w.size).astype(dtype)
        beta1, beta2, epsilon = 0.75 if n > 1 else 0.0, 0.96875, 2.0**-10
        m = beta1 * first.astype(np.float64) + (1 - beta1) * s.regularised
        v = beta2 * second.astype(np.float64) + (1 - beta2) * s.regularised**2
        m_hat, v_hat = m / (1 - beta1 ** (7 - begun)), v / (1 - beta2 ** (7 - begun))
        for decay in (0.0, 0.375):  # AdamW takes it from the weights alone
            lost = np.where(np.arange(s.w.size) < s.decayed, decay * s.w.astype(np.float64), 0.0)
            step = each(lambda p, q: p / (math.sqrt(q) + 2.0**-10), m_hat, v_hat)
            means = *of_mean(beta1), *of_mean(beta2)
            settings = (s.decayed, s.l1, s.l2, *means, epsilon, decay, begun)
            arguments = (s.g, s.rate, *settings, first.copy(), second.copy(), s.w.copy(), s.clock)
            w = s.w - float(s.rate[2]) * (step + lost)
            cases.append(Case(arguments, {0: s.g, 14: m, 15: v, 16: w, 17: AFTER}, 8.0))
    return cases


@case("add")
def _add(dtype: str, rng: Any, n: int) -> list[Case]:
    a, b = numbers(dtype, rng, n, far=False), numbers(dtype, rng, n, far=False)[::-1].copy()
    total = np.array([[float(p) + float(q) for p, q in zip(*pair, strict=True)] for pair in zip(a, b, strict=True)])
    twice = np.array([[2 * float(p) for p in row] for row in a])
    in_place, doubled = a.copy(), a.copy()
    cases = [Case((a, b, unset(a.shape, dtype)), {0: a, 1: b, 2: total})]
    cases.append(Case((in_place, b, in_place), {0: total, 1: b}))
    return [*cases, Case((doubled, doubled, doubled), {0: twice})]


@case("copy")
def _copy(dtype: str, rng: Any, n: int) -> list[Case]:
    x = numbers(dtype, rng, n)
    return [Case((x, unset(x.shape, x.dtype)), {0: x, 1: x})]


@case("hold")
def _hold(dtype: str, rng: Any, n: int) -> list[Case]:
    x = numbers(dtype, rng, n)
    return [Case((x, unset(x.shape, x.dtype)), {0: x, 1: x})]


@case("mark_not_finite")
def _mark_not_finite(dtype: str, rng: Any, n: int) -> list[Case]:
    cases = []
    for size in {1, n, 17 * n, 8200 if n == 257 else 3}:  # the last for three blocks
        for before in (0, 1):
            largest = np.full(size, np.finfo(dtype).max, dtype)
            cases.append(Case((largest, np.array([before], np.int32)), {0: largest, 1: np.array([before])}))
        for bad in (np.nan, -np.nan, np.inf, -np.inf):
            x = rng.normal(size=size).astype(dtype)
            x[rng.integers(size)] = bad
            cases.append(Case((x, np.zeros(1, np.int32)), {1: np.array([1])}))
    return cases


@case("take_back")
def _take_back(dtype: str, rng: Any, n: int) -> list[Case]:
    held, x = numbers(dtype, rng, n), numbers(dtype, rng, n)
    cases = []
    for flag, kept in ((0, x), (1, held)):
        cases.append(Case((np.array([flag], np.int32), held, x), {0: np.array([flag]), 1: held, 2: kept}))
    return cases


@case("count_skipped")
def _count_skipped(dtype: str, rng: Any, n: int) -> list[Case]:
    cases = []
    for flag in (0, 1):
        before = [np.array([value], np.int32) for value in (flag, 3, 50)]
        after = [np.array([value]) for value in (0, 3 + flag, 50 + flag * n)]
        cases.append(Case((n, *before), dict(enumerate(after, start=1))))
    return cases
