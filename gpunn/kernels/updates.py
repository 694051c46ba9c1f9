"""Updates of all parameters at once, on the flat arrays: (4), (20)–(22), momentum, Nesterov's, and Adam.

The first `decayed` elements are weights and feel the regularisers (λ/n for L1 and L2); the rest are biases and
BatchNorm's γ and β, which do not (22). `rate` is the table of learning rates of the epoch, and `clock` says which step
it is (see `gather`). These updates also end the step, by setting the next one, which saves a launch; `end_step` does
it after updates that do not.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gpunn.kernels.gather import COUNT, NEXT_COUNT, NEXT_STEP, STEP
from gpunn.kernels.loops import in_loops
from gpunn.kernels.record import Array, Elementwise

# The host twins go block by block so that what one pass leaves is still in the cache for the next: 16 Ki floats of
# three arrays and a scratch are 256 KB.
_BLOCK = 16384


def _blocks(size: int, decayed: int) -> Iterator[tuple[slice, bool]]:
    """Slices of at most a block, each all decayed or not decayed at all."""
    for begin, end, decays in ((0, decayed, True), (decayed, size, False)):
        for start in range(begin, end, _BLOCK):
            yield slice(start, min(start + _BLOCK, end)), decays


def _end_step(clock: Array) -> None:
    clock[NEXT_STEP:] = clock[:NEXT_STEP] + 1


def _regularised(g: Array, w: Array, decays: bool, l1: float, l2: float) -> Array:
    """∂C/∂w of the regularised cost (19), in an array of its own."""
    total = g.copy()
    if decays and l2:
        total += w * w.dtype.type(l2)
    if decays and l1:
        total += np.sign(w) * w.dtype.type(l1)
    return total


def _sgd_loops(gradient: Array, rate: Array, decayed: int, l1: float, l2: float, value: Array, clock: Array) -> None:
    eta = rate[clock[STEP]]
    first, second = value.dtype.type(l1), value.dtype.type(l2)
    for at in range(len(value)):
        w, g = value[at], gradient[at]
        if at < decayed:
            g += second * w
            g += first * np.sign(w)
        value[at] = w - eta * g
    clock[NEXT_STEP], clock[NEXT_COUNT] = clock[STEP] + 1, clock[COUNT] + 1


@in_loops(_sgd_loops)
def _sgd(gradient: Array, rate: Array, decayed: int, l1: float, l2: float, value: Array, clock: Array) -> None:
    eta = rate[int(clock[STEP])]
    for at, decays in _blocks(value.size, decayed):
        change = _regularised(gradient[at], value[at], decays, l1, l2)
        change *= eta
        value[at] -= change
    _end_step(clock)


_PREAMBLE = """
template <typename T> __device__ inline T regularised(T g, T w, bool decays, T l1, T l2) {
    return decays ? g + l2 * w + l1 * T((w > T(0)) - (w < T(0))) : g;
}
"""

# Nobody reads the places of the next step here, so one thread may set them while others still work.
_END_STEP = """
    if (i == 0) {
        clock[2] = clock[0] + 1;
        clock[3] = clock[1] + 1;
    }
"""

end_step = Elementwise(
    "end_step",
    "int32 now",
    "int32 next",
    "next = now + 1;",
    host=lambda now, following: np.add(now, 1, out=following),
)
"""The places of the next step from those of this one: the second half of the clock from its first."""

sgd = Elementwise(
    "sgd",
    "T gradient, raw T rate, int32 decayed, T l1, T l2",
    "T value, raw int32 clock",
    "value -= rate[clock[0]] * regularised(gradient, value, i < decayed, l1, l2);" + _END_STEP,
    host=_sgd,
    preamble=_PREAMBLE,
)
"""w := w - η (∂C₀/∂w + (λ/n) w) for decayed elements (20), p := p - η ∂C/∂p for the others (4)."""


def _momentum_loops(
    gradient: Array, eta: float, decayed: int, l1: float, l2: float, mu: float, nesterov: bool, velocity: Array,
    value: Array,
) -> None:  # fmt: skip
    for at in range(len(value)):
        w, g, v = value[at], gradient[at], velocity[at]
        if at < decayed:
            g += l2 * w
            g += l1 * np.sign(w)
        v = mu * v + g
        velocity[at] = v
        value[at] = w - eta * (g + mu * v if nesterov else v)


@in_loops(_momentum_loops)
def _momentum_passes(
    gradient: Array, eta: float, decayed: int, l1: float, l2: float, mu: float, nesterov: bool, velocity: Array,
    value: Array,
) -> None:  # fmt: skip
    for at, decays in _blocks(value.size, decayed):
        change = _regularised(gradient[at], value[at], decays, l1, l2)
        v = velocity[at]
        v *= mu
        v += change
        if nesterov:
            change += v * mu
        else:
            change[...] = v
        change *= eta
        value[at] -= change


def _momentum(
    gradient: Array,
    rate: Array,
    decayed: int,
    l1: float,
    l2: float,
    momentum: float,
    nesterov: bool,
    velocity: Array,
    value: Array,
    clock: Array,
) -> None:
    real = value.dtype.type
    constants = rate[int(clock[STEP])], decayed, real(l1), real(l2), real(momentum), nesterov
    _momentum_passes(gradient, *constants, velocity, value)
    _end_step(clock)


momentum_sgd = Elementwise(
    "momentum_sgd",
    "T gradient, raw T rate, int32 decayed, T l1, T l2, T momentum, bool nesterov",
    "T velocity, T value, raw int32 clock",
    """
    T g = regularised(gradient, value, i < decayed, l1, l2);
    velocity = momentum * velocity + g;
    value -= rate[clock[0]] * (nesterov ? g + momentum * velocity : velocity);
    """
    + _END_STEP,
    host=_momentum,
    preamble=_PREAMBLE,
)
"""v := μ v + g, w := w - η v; with Nesterov's w := w - η (g + μ v). g holds the regulariser (19)."""


def _adam(
    gradient: Array,
    rate: Array,
    decayed: int,
    l1: float,
    l2: float,
    beta1: float,
    beta2: float,
    epsilon: float,
    begun: int,
    first: Array,
    second: Array,
    value: Array,
    clock: Array,
) -> None:
    eta = float(rate[int(clock[STEP])])
    t = float(clock[COUNT] - begun) + 1
    size = value.dtype.type(eta / (1 - beta1**t))
    spread = value.dtype.type(1 / np.sqrt(1 - beta2**t))
    for at, decays in _blocks(value.size, decayed):
        g = _regularised(gradient[at], value[at], decays, l1, l2)
        m, v = first[at], second[at]
        m *= value.dtype.type(beta1)
        m += g * value.dtype.type(1 - beta1)
        v *= value.dtype.type(beta2)
        g *= g
        g *= value.dtype.type(1 - beta2)
        v += g
        np.sqrt(v, out=g)
        g *= spread
        g += value.dtype.type(epsilon)
        np.divide(m, g, out=g)
        g *= size
        value[at] -= g
    _end_step(clock)


adam = Elementwise(
    "adam",
    "T gradient, raw T rate, int32 decayed, T l1, T l2, float64 beta1, float64 beta2, T epsilon, int32 begun",
    "T first, T second, T value, raw int32 clock",
    """
    T g = regularised(gradient, value, i < decayed, l1, l2);
    double t = clock[1] - begun + 1.0;
    first = T(beta1) * first + T(1.0 - beta1) * g;
    second = T(beta2) * second + T(1.0 - beta2) * g * g;
    T size = T(rate[clock[0]] / (1.0 - pow(beta1, t)));
    T spread = T(1.0 / sqrt(1.0 - pow(beta2, t)));
    value -= size * first / (sqrt(second) * spread + epsilon);
    """
    + _END_STEP,
    host=_adam,
    preamble=_PREAMBLE,
)
"""Adam (D. P. Kingma, J. Ba, 2015, algorithm 1): m, v are running means of g and g², t counts steps after `begun`.

w := w - η m̂ / (√v̂ + ε), m̂ = m / (1 - β₁ᵗ), v̂ = v / (1 - β₂ᵗ). g holds the regulariser (19).
"""
