"""Batch normalisation, (23) and (24), over arrays seen as (channels, values): one γ and β a channel.

The variance is the mean of squared distances from the mean, in a second pass: E[x²] − E[x]² loses every digit where the
mean is large beside the spread.
"""

import numpy as np

from gpunn.kernels import loops
from gpunn.kernels.bias import sums_of_rows
from gpunn.kernels.cores import by_channels
from gpunn.kernels.device import BLOCK_SUM
from gpunn.kernels.record import Array, Launch, elementwise, raw

_THREADS = 256


@by_channels
@loops.in_loops(loops.normalize)
def _normalize(x: Array, gamma: Array, beta: Array, epsilon: float, mean: Array, variance: Array, y: Array) -> None:
    size = x.dtype.type(x.shape[1])
    np.divide(sums_of_rows(x), size, out=mean)
    np.subtract(x, mean[:, None], out=y)
    np.divide(sums_of_rows(y, y), size, out=variance)
    np.multiply(y, (gamma / np.sqrt(variance + epsilon))[:, None], out=y)
    np.add(y, beta[:, None], out=y)


def _launch(x: Array, gamma: Array, beta: Array, epsilon: float, momentum: float, *arrays: Array) -> Launch:
    size = x.size // len(gamma)
    unbiased = momentum * size / (size - 1)
    return Launch(len(gamma), _THREADS, (x, gamma, beta, epsilon, momentum, *arrays, unbiased, size))


@raw(
    """
extern "C" __global__ void normalize(const T* x, const T* gamma, const T* beta, T epsilon, T momentum, T* mean,
                                     T* variance, T* running_mean, T* running_variance, T* y, T unbiased, int size) {
    __shared__ T part[256];
    int c = blockIdx.x;
    x += (long long)c * size;
    y += (long long)c * size;
    T sum = T(0);
    for (int at = threadIdx.x; at < size; at += blockDim.x) sum += x[at];
    T m = block_sum(sum, part) / T(size);
    sum = T(0);
    for (int at = threadIdx.x; at < size; at += blockDim.x) sum += (x[at] - m) * (x[at] - m);
    T v = block_sum(sum, part) / T(size);
    T scale = gamma[c] / sqrt(v + epsilon);
    for (int at = threadIdx.x; at < size; at += blockDim.x) y[at] = (x[at] - m) * scale + beta[c];
    if (threadIdx.x == 0) {
        mean[c] = m;
        variance[c] = v;
        running_mean[c] = (T(1) - momentum) * running_mean[c] + momentum * m;
        running_variance[c] = (T(1) - momentum) * running_variance[c] + unbiased * v;
    }
}
""",
    launch=_launch,
    preamble=BLOCK_SUM,
)
def normalize(
    x: Array, gamma: Array, beta: Array, epsilon: float, momentum: float, mean: Array, variance: Array,
    running_mean: Array, running_variance: Array, y: Array,
) -> None:  # fmt: skip
    """y := γ x̂ + β (24), x̂ = (x − x̄)/√(σ² + ε) (23), over each channel of a batch. x̂ itself is not kept.

    The running averages follow: r := (1 − m) r + m x̄, and for the variance with σ² n/(n − 1), as PyTorch keeps it.
    """
    x, y = (array.reshape(len(gamma), -1) for array in (x, y))
    size, real = x.shape[1], x.dtype.type
    _normalize(x, gamma, beta, real(epsilon), mean, variance, y)
    running_mean *= real(1 - momentum)
    running_mean += real(momentum) * mean
    running_variance *= real(1 - momentum)
    running_variance += real(momentum * size / (size - 1)) * variance


@by_channels
@loops.in_loops(loops.normalize_gradient)
def _normalize_gradient(
    dy: Array, x: Array, gamma: Array, mean: Array, scale: Array, share: float, dgamma: Array, dbeta: Array, dx: Array
) -> None:
    change = np.subtract(x, mean[:, None])
    dgamma[:], dbeta[:] = sums_of_rows(dy, change) * scale, sums_of_rows(dy)
    if share:
        np.multiply(change, (dgamma * scale * -share)[:, None], out=change)
        np.subtract(change, (dbeta * share)[:, None], out=change)
        dy = np.add(change, dy, out=change)
    np.multiply(dy, (gamma * scale)[:, None], out=dx)


@raw(
    """
extern "C" __global__ void normalize_gradient(const T* dy, const T* x, const T* gamma, const T* mean, const T* variance,
                                              T epsilon, T share, T* dgamma, T* dbeta, T* dx, int size) {
    __shared__ T part[256];
    int c = blockIdx.x;
    dy += (long long)c * size;
    x += (long long)c * size;
    dx += (long long)c * size;
    T m = mean[c], scale = T(1) / sqrt(variance[c] + epsilon);
    T by_gamma = T(0), by_beta = T(0);
    for (int at = threadIdx.x; at < size; at += blockDim.x) {
        by_gamma += dy[at] * (x[at] - m);
        by_beta += dy[at];
    }
    by_gamma = block_sum(by_gamma, part) * scale;
    by_beta = block_sum(by_beta, part);
    T through_variance = by_gamma * scale * share, through_mean = by_beta * share;
    scale *= gamma[c];
    for (int at = threadIdx.x; at < size; at += blockDim.x)
        dx[at] = scale * (dy[at] - through_mean - (x[at] - m) * through_variance);
    if (threadIdx.x == 0) {
        dgamma[c] = by_gamma;
        dbeta[c] = by_beta;
    }
}
""",
    launch=lambda dy, x, gamma, *others: Launch(len(gamma), _THREADS, (dy, x, gamma, *others, dy.size // len(gamma))),
    preamble=BLOCK_SUM,
)
def normalize_gradient(
    dy: Array, x: Array, gamma: Array, mean: Array, variance: Array, epsilon: float, share: float, dgamma: Array,
    dbeta: Array, dx: Array,
) -> None:  # fmt: skip
    """∂C/∂γ := Σ dy ⊙ x̂, ∂C/∂β := Σ dy, dx := γ/√(σ² + ε) (dy − share Σ dy − share x̂ Σ dy ⊙ x̂). dx may be dy.

    `share` is 1/n for the statistics of these n values a channel, and 0 for remembered ones, which do not depend on x.
    """
    dy, x, dx = (array.reshape(len(gamma), -1) for array in (dy, x, dx))
    real = dy.dtype.type
    scale = real(1) / np.sqrt(variance + real(epsilon))
    _normalize_gradient(dy, x, gamma, mean, scale, real(share), dgamma, dbeta, dx)


@elementwise(
    "T x, T gamma, T beta, T mean, T variance, T epsilon",
    "T y",
    "y = gamma * (x - mean) / sqrt(variance + epsilon) + beta;",
)
def normalize_as_remembered(
    x: Array, gamma: Array, beta: Array, mean: Array, variance: Array, epsilon: float, y: Array
) -> None:
    """y := γ (x − mean)/√(variance + ε) + β with remembered statistics, columns (channels, 1) beside (channels, n)."""
    scale = gamma / np.sqrt(variance + variance.dtype.type(epsilon))
    # One pass more than x · scale + (beta − mean · scale), whose terms cancel where the mean is far above the spread.
    np.subtract(x, mean, out=y)
    np.multiply(y, scale, out=y)
    np.add(y, beta, out=y)
