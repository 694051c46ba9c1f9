"""Batch normalisation, (23) and (24), over arrays seen as (channels, values): one γ and β a channel.

The variance is the mean of squared distances from the mean, in a second pass: E[x²] − E[x]² loses every digit where the
mean is large beside the spread.
"""

from __future__ import annotations

import numpy as np

from gpunn.kernels.kernel import Array, Elementwise, Launch, Raw
from gpunn.kernels.linear import sums_of_rows
from gpunn.kernels.threads import in_pieces

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
    normalized: Array,
    y: Array,
) -> None:
    channels = len(gamma)
    x, normalized, y = (array.reshape(channels, -1) for array in (x, normalized, y))
    size = x.shape[1]
    real = x.dtype.type

    def piece(channels: slice) -> None:
        x_, h, y_ = x[channels], normalized[channels], y[channels]
        np.divide(sums_of_rows(x_), real(size), out=mean[channels])
        np.subtract(x_, mean[channels, None], out=h)
        np.divide(sums_of_rows(h, h), real(size), out=variance[channels])
        np.multiply(h, 1 / np.sqrt(variance[channels, None] + real(epsilon)), out=h)
        np.multiply(h, gamma[channels, None], out=y_)
        np.add(y_, beta[channels, None], out=y_)

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
    normalized: Array,
    y: Array,
) -> Launch:
    channels = len(gamma)
    size = x.size // channels
    arrays = (x, gamma, beta, mean, variance, running_mean, running_variance, normalized, y)
    unbiased = momentum * size / (size - 1)
    return Launch(channels, _THREADS, (*arrays, float(epsilon), float(momentum), float(unbiased), size))


normalize = Raw(
    "normalize",
    """
extern "C" __global__ void normalize(const T* x, const T* gamma, const T* beta, T* mean, T* variance, T* running_mean,
                                     T* running_variance, T* normalized, T* y, T epsilon, T momentum, T unbiased,
                                     int size) {
    __shared__ T part[256];
    int c = blockIdx.x;
    x += (long long)c * size;
    normalized += (long long)c * size;
    y += (long long)c * size;
    T sum = T(0);
    for (int at = threadIdx.x; at < size; at += blockDim.x) sum += x[at];
    T m = block_sum(sum, part) / T(size);
    sum = T(0);
    for (int at = threadIdx.x; at < size; at += blockDim.x) sum += (x[at] - m) * (x[at] - m);
    T v = block_sum(sum, part) / T(size);
    T scale = T(1) / sqrt(v + epsilon);
    for (int at = threadIdx.x; at < size; at += blockDim.x) {
        T h = (x[at] - m) * scale;
        normalized[at] = h;
        y[at] = gamma[c] * h + beta[c];
    }
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
"""x̂ := (x − x̄)/√(σ² + ε) (23), y := γ x̂ + β (24), over each channel of a batch.

The running averages follow: r := (1 − m) r + m x̄, and for the variance with σ² n/(n − 1), as PyTorch keeps it.
"""


def _normalize_gradient(
    dy: Array,
    normalized: Array,
    gamma: Array,
    variance: Array,
    epsilon: float,
    dgamma: Array,
    dbeta: Array,
    dx: Array,
) -> None:
    channels = len(gamma)
    dy, normalized, dx = (array.reshape(channels, -1) for array in (dy, normalized, dx))
    real = dy.dtype.type
    share = real(1 / dy.shape[1])

    def piece(channels: slice) -> None:
        dy_, h, dx_ = dy[channels], normalized[channels], dx[channels]
        dgamma[channels], dbeta[channels] = sums_of_rows(dy_, h), sums_of_rows(dy_)
        product = np.multiply(h, -share * dgamma[channels, None])
        np.add(product, dy_, out=dx_)
        np.subtract(dx_, share * dbeta[channels, None], out=dx_)
        np.multiply(dx_, gamma[channels, None] / np.sqrt(variance[channels, None] + real(epsilon)), out=dx_)

    in_pieces(piece, channels, dy.nbytes)


def _normalize_gradient_launch(
    dy: Array,
    normalized: Array,
    gamma: Array,
    variance: Array,
    epsilon: float,
    dgamma: Array,
    dbeta: Array,
    dx: Array,
) -> Launch:
    channels = len(gamma)
    arrays = (dy, normalized, gamma, variance, dgamma, dbeta, dx)
    return Launch(channels, _THREADS, (*arrays, float(epsilon), dy.size // channels))


normalize_gradient = Raw(
    "normalize_gradient",
    """
extern "C" __global__ void normalize_gradient(const T* dy, const T* normalized, const T* gamma, const T* variance,
                                              T* dgamma, T* dbeta, T* dx, T epsilon, int size) {
    __shared__ T part[256];
    int c = blockIdx.x;
    dy += (long long)c * size;
    normalized += (long long)c * size;
    dx += (long long)c * size;
    T by_gamma = T(0), by_beta = T(0);
    for (int at = threadIdx.x; at < size; at += blockDim.x) {
        by_gamma += dy[at] * normalized[at];
        by_beta += dy[at];
    }
    by_gamma = block_sum(by_gamma, part);
    by_beta = block_sum(by_beta, part);
    T scale = gamma[c] / sqrt(variance[c] + epsilon);
    for (int at = threadIdx.x; at < size; at += blockDim.x)
        dx[at] = scale * (dy[at] - by_beta / T(size) - normalized[at] * (by_gamma / T(size)));
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
"""∂C/∂γ := Σ dy ⊙ x̂, ∂C/∂β := Σ dy, dx := γ/√(σ² + ε) (dy − mean(dy) − x̂ mean(dy ⊙ x̂)). dx may be dy."""


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
