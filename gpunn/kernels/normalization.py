"""Batch normalisation, (23) and (24), over arrays seen as (channels, values): one γ and β a channel.

The variance is the mean of squared distances from the mean, in a second pass: E[x²] − E[x]² loses every digit where the
mean is large beside the spread.
"""

from __future__ import annotations

import numpy as np

from gpunn.kernels.bias import sums_of_rows
from gpunn.kernels.loops import in_loops
from gpunn.kernels.parallel import in_pieces
from gpunn.kernels.record import Array, Elementwise, Launch, Raw

_THREADS = 256

_SUM = """
// The sum of one value a thread over the block, given to every thread, always added in the same order.
__device__ inline T block_sum(T value, T* part) {
    part[threadIdx.x] = value;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
        __syncthreads();
    }
    T sum = part[0];
    __syncthreads();
    return sum;
}
"""


def _normalize_loops(
    x: Array, gamma: Array, beta: Array, epsilon: float, mean: Array, variance: Array, y: Array
) -> None:
    size = x.shape[1]
    real = x.dtype.type
    for channel in range(x.shape[0]):
        row, out = x[channel], y[channel]
        total = real(0)
        for j in range(size):
            total += row[j]
        middle = total / real(size)
        total = real(0)
        for j in range(size):
            total += (row[j] - middle) * (row[j] - middle)
        mean[channel], variance[channel] = middle, total / real(size)
        scale, shift = gamma[channel] / np.sqrt(variance[channel] + epsilon), beta[channel]
        for j in range(size):
            out[j] = (row[j] - middle) * scale + shift


@in_loops(_normalize_loops)
def _normalize_passes(
    x: Array, gamma: Array, beta: Array, epsilon: float, mean: Array, variance: Array, y: Array
) -> None:
    real = x.dtype.type
    size = real(x.shape[1])
    np.divide(sums_of_rows(x), size, out=mean)
    np.subtract(x, mean[:, None], out=y)
    np.divide(sums_of_rows(y, y), size, out=variance)
    np.multiply(y, (gamma / np.sqrt(variance + epsilon))[:, None], out=y)
    np.add(y, beta[:, None], out=y)


def _normalize(
    x: Array,
    gamma: Array,
    beta: Array,
    epsilon: float,
    momentum: float,
    mean: Array,
    variance: Array,
    running_mean: Array,
    running_variance: Array,
    y: Array,
) -> None:
    channels = len(gamma)
    x, y = (array.reshape(channels, -1) for array in (x, y))
    size = x.shape[1]
    real = x.dtype.type

    def piece(channels: slice) -> None:
        statistics = mean[channels], variance[channels]
        _normalize_passes(x[channels], gamma[channels], beta[channels], real(epsilon), *statistics, y[channels])

    in_pieces(piece, channels, x.nbytes)
    running_mean *= real(1 - momentum)
    running_mean += real(momentum) * mean
    running_variance *= real(1 - momentum)
    running_variance += real(momentum * size / (size - 1)) * variance


def _normalize_launch(
    x: Array,
    gamma: Array,
    beta: Array,
    epsilon: float,
    momentum: float,
    mean: Array,
    variance: Array,
    running_mean: Array,
    running_variance: Array,
    y: Array,
) -> Launch:
    channels = len(gamma)
    size = x.size // channels
    arrays = (x, gamma, beta, mean, variance, running_mean, running_variance, y)
    unbiased = momentum * size / (size - 1)
    return Launch(channels, _THREADS, (*arrays, float(epsilon), float(momentum), float(unbiased), size))


normalize = Raw(
    "normalize",
    """
extern "C" __global__ void normalize(const T* x, const T* gamma, const T* beta, T* mean, T* variance, T* running_mean,
                                     T* running_variance, T* y, T epsilon, T momentum, T unbiased, int size) {
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
    launch=_normalize_launch,
    host=_normalize,
    preamble=_SUM,
)
"""y := γ x̂ + β (24), x̂ = (x − x̄)/√(σ² + ε) (23), over each channel of a batch. x̂ itself is not kept.

The running averages follow: r := (1 − m) r + m x̄, and for the variance with σ² n/(n − 1), as PyTorch keeps it.
"""


def _normalize_gradient_loops(
    dy: Array, x: Array, gamma: Array, mean: Array, scale: Array, share: float, dgamma: Array, dbeta: Array, dx: Array
) -> None:
    size = x.shape[1]
    for channel in range(x.shape[0]):
        delta, row, out = dy[channel], x[channel], dx[channel]
        middle = mean[channel]
        by_gamma = by_beta = x.dtype.type(0)
        for j in range(size):
            by_gamma += delta[j] * (row[j] - middle)
            by_beta += delta[j]
        by_gamma *= scale[channel]
        dgamma[channel], dbeta[channel] = by_gamma, by_beta
        by_gamma *= scale[channel] * share
        by_beta *= share
        factor = gamma[channel] * scale[channel]
        for j in range(size):
            out[j] = (delta[j] - by_beta - (row[j] - middle) * by_gamma) * factor


@in_loops(_normalize_gradient_loops)
def _normalize_gradient_passes(
    dy: Array, x: Array, gamma: Array, mean: Array, scale: Array, share: float, dgamma: Array, dbeta: Array, dx: Array
) -> None:
    change = np.subtract(x, mean[:, None])
    dgamma[:], dbeta[:] = sums_of_rows(dy, change) * scale, sums_of_rows(dy)
    if share:
        np.multiply(change, (dgamma * scale * -share)[:, None], out=change)
        np.subtract(change, (dbeta * share)[:, None], out=change)
        dy = np.add(change, dy, out=change)
    np.multiply(dy, (gamma * scale)[:, None], out=dx)


def _normalize_gradient(
    dy: Array,
    x: Array,
    gamma: Array,
    mean: Array,
    variance: Array,
    epsilon: float,
    share: float,
    dgamma: Array,
    dbeta: Array,
    dx: Array,
) -> None:
    channels = len(gamma)
    dy, x, dx = (array.reshape(channels, -1) for array in (dy, x, dx))
    real = dy.dtype.type

    def piece(channels: slice) -> None:
        scale = real(1) / np.sqrt(variance[channels] + real(epsilon))
        _normalize_gradient_passes(
            dy[channels], x[channels], gamma[channels], mean[channels], scale, real(share), dgamma[channels],
            dbeta[channels], dx[channels],
        )  # fmt: skip

    in_pieces(piece, channels, dy.nbytes)


def _normalize_gradient_launch(
    dy: Array,
    x: Array,
    gamma: Array,
    mean: Array,
    variance: Array,
    epsilon: float,
    share: float,
    dgamma: Array,
    dbeta: Array,
    dx: Array,
) -> Launch:
    channels = len(gamma)
    arrays = (dy, x, gamma, mean, variance, dgamma, dbeta, dx)
    return Launch(channels, _THREADS, (*arrays, float(epsilon), float(share), dy.size // channels))


normalize_gradient = Raw(
    "normalize_gradient",
    """
extern "C" __global__ void normalize_gradient(const T* dy, const T* x, const T* gamma, const T* mean, const T* variance,
                                              T* dgamma, T* dbeta, T* dx, T epsilon, T share, int size) {
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
    launch=_normalize_gradient_launch,
    host=_normalize_gradient,
    preamble=_SUM,
)
"""∂C/∂γ := Σ dy ⊙ x̂, ∂C/∂β := Σ dy, dx := γ/√(σ² + ε) (dy − share Σ dy − share x̂ Σ dy ⊙ x̂). dx may be dy.

`share` is 1/n for the statistics of these n values a channel, and 0 for remembered ones, which do not depend on x.
"""


def _normalize_as_remembered(
    x: Array, gamma: Array, beta: Array, mean: Array, variance: Array, epsilon: float, y: Array
) -> None:
    scale = gamma / np.sqrt(variance + variance.dtype.type(epsilon))
    # One pass more than x · scale + (beta − mean · scale), whose terms cancel where the mean is far above the spread.
    np.subtract(x, mean, out=y)
    np.multiply(y, scale, out=y)
    np.add(y, beta, out=y)


normalize_as_remembered = Elementwise(
    "normalize_as_remembered",
    "T x, T gamma, T beta, T mean, T variance, T epsilon",
    "T y",
    "y = gamma * (x - mean) / sqrt(variance + epsilon) + beta;",
    host=_normalize_as_remembered,
)
"""y := γ (x − mean)/√(variance + ε) + β with remembered statistics, columns (channels, 1) beside (channels, values)."""
