"""Update all parameters at once, on the flat arrays: (4), (20)–(22), momentum, Nesterov, Adam and AdamW.

The regularizers (λ/n for L1 and L2) apply to the first `decayed` elements, the weights, and not to the rest: biases,
and BatchNorm's γ and β (22). `rate` holds the learning rates of the epoch, and `clock` the current step (see `gather`).
These updates also advance the clock, which saves a launch; `end_step` does so after other updates.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np

from gpunn.kernels import numba_loops
from gpunn.kernels.gather import COUNT, NEXT_STEP, STEP
from gpunn.kernels.record import Array, Elementwise, Host, elementwise

_BLOCK = 16384  # elements updated at once: three arrays and 256 KB of scratch stay in the cache from pass to pass


def _gradients(gradient: Array, value: Array, decayed: int, l1: float, l2: float) -> Iterator[tuple[slice, Array]]:
    """Yield blocks, each with a copy of ∂C/∂w of the regularized loss (19)."""
    real = value.dtype.type
    for begin, end, decays in ((0, decayed, True), (decayed, value.size, False)):
        for start in range(begin, end, _BLOCK):
            at = slice(start, min(start + _BLOCK, end))
            g, w = gradient[at].copy(), value[at]
            if decays and l2:
                g += w * real(l2)
            if decays and l1:
                g += np.sign(w) * real(l1)
            yield at, g


def _update(constants: str, state: str, operation: str, prepare: str = "") -> Callable[[Host], Elementwise]:
    """Return a decorator that makes the record of an update, which sets `value` from `eta` and from (19) in `g`."""
    # No thread reads the next step here, so one may set it while others still work.
    return elementwise(
        f"T gradient, raw T rate, int32 decayed, T l1, T l2{constants}",
        f"{state}T value, raw int32 clock",
        f"""
    T eta = rate[clock[0]], g = gradient;
    if (i < decayed) g = g + l2 * value + l1 * T((value > T(0)) - (value < T(0)));
    {operation}
    if (i == 0) {{
        clock[2] = clock[0] + 1;
        clock[3] = clock[1] + 1;
    }}
""",
        prepare=prepare,
    )


@elementwise("int32 now", "int32 next", "next = now + 1;")
def end_step(now: Array, following: Array) -> None:
    """next := now + 1: the second half of the clock from its first."""
    np.add(now, 1, out=following)


@_update("", "", "value -= eta * g;")
@numba_loops.in_loops(numba_loops.sgd)
def sgd(gradient: Array, rate: Array, decayed: int, l1: float, l2: float, value: Array, clock: Array) -> None:
    """w := w - η (∂C₀/∂w + (λ/n) w) for decayed elements (20), p := p - η ∂C/∂p for the others (4)."""
    eta = rate[int(clock[STEP])]
    for at, change in _gradients(gradient, value, decayed, l1, l2):
        change *= eta
        value[at] -= change
    end_step.host(clock[:NEXT_STEP], clock[NEXT_STEP:])


@_update(
    ", T momentum, bool nesterov",
    "T velocity, ",
    """
    velocity = momentum * velocity + g;
    value -= eta * (nesterov ? g + momentum * velocity : velocity);
""",
)
@numba_loops.in_loops(numba_loops.momentum_sgd)
def momentum_sgd(
    gradient: Array, rate: Array, decayed: int, l1: float, l2: float, momentum: float, nesterov: bool, velocity: Array,
    value: Array, clock: Array,
) -> None:  # fmt: skip
    """v := μ v + g, w := w - η v; with Nesterov w := w - η (g + μ v). g includes the regularizer (19)."""
    eta, mu = rate[int(clock[STEP])], value.dtype.type(momentum)
    for at, change in _gradients(gradient, value, decayed, l1, l2):
        v = velocity[at]
        v *= mu
        v += change
        if nesterov:
            change += v * mu
        else:
            change[...] = v
        change *= eta
        value[at] -= change
    end_step.host(clock[:NEXT_STEP], clock[NEXT_STEP:])


def of_mean(beta: float) -> tuple[float, float, float]:
    """Return β, 1 - β and log β for a running mean, so that each keeps its own digits in the network's dtype."""
    return beta, 1 - beta, math.log(beta) if beta else -math.inf


@_update(
    ", T beta1, T share1, T log_beta1, T beta2, T share2, T log_beta2, T epsilon, T decay, int32 begun",
    "T first, T second, ",
    """
    first = beta1 * first + share1 * g;
    second = beta2 * second + share2 * g * g;
    T change = of_step[0] * first / (sqrt(second) * of_step[1] + epsilon);
    if (decay > T(0) && i < decayed) change += eta * decay * value;
    value -= change;
""",
    """
    // 1 - βᵗ = -expm1(t log β) loses no digits if βᵗ is near 1, and is 1 for β = 0, since t ≥ 1. One thread computes it
    // for its block.
    __shared__ T of_step[2];
    if (threadIdx.x == 0) {
        T t = T(clock[1] - begun + 1);
        of_step[0] = rate[clock[0]] / -expm1(t * log_beta1);
        of_step[1] = T(1) / sqrt(-expm1(t * log_beta2));
    }
    __syncthreads();
""",
)
def adam(
    gradient: Array, rate: Array, decayed: int, l1: float, l2: float,
    beta1: float, share1: float, log_beta1: float,  # noqa: ARG001 - the powers of a device
    beta2: float, share2: float, log_beta2: float,  # noqa: ARG001
    epsilon: float, decay: float, begun: int, first: Array, second: Array, value: Array, clock: Array,
) -> None:  # fmt: skip
    """w := w - η m̂ / (√v̂ + ε), m̂ = m / (1 - β₁ᵗ), v̂ = v / (1 - β₂ᵗ): Adam (D. P. Kingma, J. Ba, 2015, algorithm 1).

    m, v are running means of g and g², and t counts steps from `begun`. g includes the regularizer (19); `of_mean`
    gives β, 1 - β and log β of each mean. With `decay` it is AdamW (I. Loshchilov, F. Hutter, 2019, algorithm 2):
    decayed elements also lose η · decay · w, in the same subtraction: w (1 - η decay) would round a small decay away.
    """
    real = value.dtype.type
    eta, t = float(rate[int(clock[STEP])]), float(clock[COUNT] - begun) + 1
    size, spread = real(eta / (1 - beta1**t)), real(1 / np.sqrt(1 - beta2**t))
    for at, g in _gradients(gradient, value, decayed, l1, l2):
        m, v = first[at], second[at]
        m *= real(beta1)
        m += g * real(share1)
        v *= real(beta2)
        g *= g
        g *= real(share2)
        v += g
        np.sqrt(v, out=g)
        g *= spread
        g += real(epsilon)
        np.divide(m, g, out=g)
        g *= size
        if decay and at.start < decayed:
            g += value[at] * real(eta * decay)
        value[at] -= g
    end_step.host(clock[:NEXT_STEP], clock[NEXT_STEP:])
