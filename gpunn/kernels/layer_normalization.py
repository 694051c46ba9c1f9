"""Normalize the columns of (features, columns) arrays by their own mean and variance: layer normalization.

A column holds the features of one sample, or the channels of one pixel. The variance is computed in a second pass from
squared distances to the mean, as in batch normalization.
"""

from collections.abc import Callable

import numpy as np

from gpunn.kernels.bias import sums_of_rows
from gpunn.kernels.cores import in_pieces
from gpunn.kernels.device_code import DEVICE
from gpunn.kernels.normalization import launch_shared
from gpunn.kernels.record import Array, Launch, raw

_THREADS = 256
_LEAST = 16  # columns of a piece: NumPy sums a single column in another order

# Neighbouring threads read neighbouring values: 32 columns, and eight threads for the features of each.
_COLUMNS = """
// Sum one value per thread over the threads of its column, for each of them, in a fixed order.
__device__ inline T column_sum(T value, T* part) {
    part[threadIdx.x] = value;
    __syncthreads();
    for (int half = blockDim.x / 2; half >= 32; half /= 2) {
        if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
        __syncthreads();
    }
    T sum = part[threadIdx.x % 32];
    __syncthreads();
    return sum;
}
"""


def _launch(x: Array, *others: object) -> Launch:
    features, columns = x.shape
    return Launch(-(-columns // 32), _THREADS, (x, *others, features, columns))


def _in_columns(function: Callable[[slice], None], x: Array) -> None:
    """Call function(slice) for pieces of the columns of x."""
    columns = x.shape[1]
    units = max(1, columns // _LEAST)

    def piece(at: slice) -> None:
        function(slice(_LEAST * at.start, columns if at.stop == units else _LEAST * at.stop))

    in_pieces(piece, units, x.nbytes)


@raw(
    """
extern "C" __global__ void normalize_columns(const T* x, const T* gamma, const T* beta, T epsilon, T* mean, T* scale,
                                             T* y, int features, int columns) {
    __shared__ T part[256];
    int column = blockIdx.x * 32 + threadIdx.x % 32, first = threadIdx.x / 32, step = blockDim.x / 32;
    int end = column < columns ? features : 0;  // every thread takes part in the sums
    T sum = T(0);
    for (int k = first; k < end; k += step) sum += x[(long long)k * columns + column];
    T m = column_sum(sum, part) / T(features);
    sum = T(0);
    for (int k = first; k < end; k += step) {
        T distance = x[(long long)k * columns + column] - m;
        sum += distance * distance;
    }
    T s = T(1) / sqrt(column_sum(sum, part) / T(features) + epsilon);
    for (int k = first; k < end; k += step) {
        long long at = (long long)k * columns + column;
        y[at] = (x[at] - m) * s * gamma[k] + beta[k];
    }
    if (first == 0 && end) {
        mean[column] = m;
        scale[column] = s;
    }
}
""",
    launch=_launch,
    preamble=_COLUMNS,
)
def normalize_columns(x: Array, gamma: Array, beta: Array, epsilon: float, mean: Array, scale: Array, y: Array) -> None:
    """y := γ x̂ + β with x̂ = (x − x̄) s, s = 1/√(σ² + ε), by the mean x̄ and variance σ² of each column."""
    features, small = x.dtype.type(len(x)), x.dtype.type(epsilon)

    def piece(at: slice) -> None:
        part, m, s = y[:, at], mean[at], scale[at]
        np.add.reduce(x[:, at], axis=0, out=m)
        np.divide(m, features, out=m)
        np.subtract(x[:, at], m, out=part)
        np.add.reduce(np.square(part), axis=0, out=s)
        np.divide(s, features, out=s)
        np.add(s, small, out=s)
        np.sqrt(s, out=s)
        np.divide(1, s, out=s)
        np.multiply(part, s, out=part)
        np.multiply(part, gamma[:, None], out=part)
        np.add(part, beta[:, None], out=part)

    _in_columns(piece, x)


@raw(
    """
extern "C" __global__ void normalize_columns_sums(const T* dy, const T* x, const T* mean, const T* scale, T* dgamma,
                                                  T* dbeta, T* parts, unsigned* tickets, int columns, int of_part) {
    long long start = (long long)blockIdx.x * columns;
    const T* const from[4] = {dy + start, x + start, mean, scale};
    T sums[2] = {};
    each<2>(from, part_begin(blockIdx.y, of_part, columns), part_begin(blockIdx.y + 1, of_part, columns),
            [&](const T (&values)[4]) {
        sums[0] += values[0] * (values[1] - values[2]) * values[3];
        sums[1] += values[0];
    });
    if (!sums_of_row(sums, parts, tickets)) return;
    if (threadIdx.x == 0) dgamma[blockIdx.x] = sums[0], dbeta[blockIdx.x] = sums[1];
}
""",
    launch=launch_shared,
    preamble=DEVICE,
)
def normalize_columns_sums(
    dy: Array, x: Array, mean: Array, scale: Array, dgamma: Array, dbeta: Array, *_scratch: Array
) -> None:
    """∂C/∂γ := Σ dy ⊙ x̂ and ∂C/∂β := Σ dy, over the columns.

    The last two arguments are the scratch of `shared_rows`, with two numbers per block.
    """

    def piece(at: slice) -> None:
        normalized = np.subtract(x[at], mean)
        np.multiply(normalized, scale, out=normalized)
        dgamma[at], dbeta[at] = sums_of_rows(dy[at], normalized), sums_of_rows(dy[at])

    in_pieces(piece, len(x), x.nbytes)


@raw(
    """
extern "C" __global__ void normalize_columns_gradient(const T* dy, const T* x, const T* gamma, const T* mean,
                                                      const T* scale, T* dx, int features, int columns) {
    __shared__ T part[256];
    int column = blockIdx.x * 32 + threadIdx.x % 32, first = threadIdx.x / 32, step = blockDim.x / 32;
    int end = column < columns ? features : 0;
    T m = end ? mean[column] : T(0), s = end ? scale[column] : T(0);
    T sum = T(0), along = T(0);
    for (int k = first; k < end; k += step) {
        long long at = (long long)k * columns + column;
        T g = gamma[k] * dy[at];
        sum += g;
        along += g * (x[at] - m);
    }
    sum = column_sum(sum, part) / T(features);
    along = column_sum(along, part) * s * s / T(features);
    for (int k = first; k < end; k += step) {
        long long at = (long long)k * columns + column;
        dx[at] = s * (gamma[k] * dy[at] - sum - (x[at] - m) * along);
    }
}
""",
    launch=_launch,
    preamble=_COLUMNS,
)
def normalize_columns_gradient(dy: Array, x: Array, gamma: Array, mean: Array, scale: Array, dx: Array) -> None:
    """dx := s (g − mean(g) − x̂ mean(g ⊙ x̂)) with g = γ dy and means over each column. dx may be dy."""
    features = x.dtype.type(len(x))

    def piece(at: slice) -> None:
        s = scale[at]
        g = np.multiply(dy[:, at], gamma[:, None])
        normalized = np.subtract(x[:, at], mean[at])
        np.multiply(normalized, s, out=normalized)
        along = np.add.reduce(g * normalized, axis=0) / features
        np.subtract(g, np.add.reduce(g, axis=0) / features, out=g)
        np.multiply(normalized, along, out=normalized)
        np.subtract(g, normalized, out=g)
        np.multiply(g, s, out=dx[:, at])

    _in_columns(piece, x)
