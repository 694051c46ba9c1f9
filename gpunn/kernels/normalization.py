"""Apply batch normalization, (23) and (24), to arrays seen as (channels, values), with one γ and β per channel.

The variance comes from squared distances to the mean: E[x²] − E[x]² loses every digit if the mean is large beside the
spread. On a GPU one pass gives both (B. Welford, 1962). One block takes a channel; in large arrays several blocks share
it, and their results are merged in order (T. Chan, G. Golub, R. LeVeque, 1979).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.kernels import numba_loops
from gpunn.kernels.bias import sums_of_rows
from gpunn.kernels.cores import by_channels
from gpunn.kernels.device_code import DEVICE, part_of_row, parts_of_row
from gpunn.kernels.record import Array, Launch, elementwise, per_element, raw

_THREADS = 256
LARGE = 2**18  # values from which several blocks share a channel: below, saving a launch is faster

STATISTICS = """
struct Moments {  // count and mean of some values, and their squared distances from the mean
    T count, mean, squares;

    __device__ void add(const Moments& other) {
        if (other.count == T(0)) return;
        T whole = count + other.count, distance = other.mean - mean, share = other.count / whole;
        squares += other.squares + distance * distance * count * share;
        mean += distance * share;
        count = whole;
    }
    __device__ void add(T value) {
        T distance = value - mean;
        count += T(1);
        mean += distance * (T(1) / count);
        squares += distance * (value - mean);
    }
};

// Merge the moments of all threads of the block, for every thread, in a fixed order.
__device__ inline Moments of_block(Moments mine) {
    __shared__ T count[8], mean[8], squares[8];  // of each warp
    for (int apart = 16; apart > 0; apart /= 2)
        mine.add({__shfl_down_sync(0xffffffffu, mine.count, apart), __shfl_down_sync(0xffffffffu, mine.mean, apart),
                  __shfl_down_sync(0xffffffffu, mine.squares, apart)});
    int warp = threadIdx.x / 32;
    if (threadIdx.x % 32 == 0) count[warp] = mine.count, mean[warp] = mine.mean, squares[warp] = mine.squares;
    __syncthreads();
    Moments all = {count[0], mean[0], squares[0]};
    for (int warp = 1; warp < blockDim.x / 32; ++warp) all.add({count[warp], mean[warp], squares[warp]});
    __syncthreads();
    return all;
}

// Moments of the elements of a row, less its first value, so a mean keeps digits that are small beside the values.
__device__ inline Moments moments_of(const T* row, unsigned begin, unsigned end) {
    const T* const from[1] = {row};
    const T origin = row[0];
    Moments mine = {T(0), T(0), T(0)};
    each<4>(from, begin, end, [&](const T (&values)[1]) { mine.add(values[0] - origin); });
    return of_block(mine);
}

__device__ inline void remember(T m, T v, T count, T momentum, T* mean, T* variance, T* running_mean,
                                T* running_variance) {
    *mean = m;
    *variance = v;
    *running_mean = (T(1) - momentum) * *running_mean + momentum * m;
    *running_variance = (T(1) - momentum) * *running_variance + momentum * (count / max(count - T(1), T(1))) * v;
}
"""


def are_shared(channels: int, size: int) -> bool:
    """Return whether several blocks of a GPU share each channel of `size` values."""
    return channels * size >= LARGE and parts_of_row(channels, size) > 1


def launch_shared(x: Array, *others: Array) -> Launch:
    """Launch blocks that share rows or channels, as many for each as `parts` has room for."""
    parts, channels = others[-2], others[-3].size
    size = x.size // channels
    count = min(parts_of_row(channels, size), max(1, parts.size // (2 * channels)))
    return Launch((channels, count, 1), _THREADS, (x, *others, size, part_of_row(size, count)))


@by_channels
@numba_loops.in_loops(numba_loops.normalize)
def _normalize(x: Array, gamma: Array, beta: Array, epsilon: float, mean: Array, variance: Array, y: Array) -> None:
    size = x.dtype.type(x.shape[1])
    np.divide(sums_of_rows(x), size, out=mean)
    np.subtract(x, mean[:, None], out=y)
    np.divide(sums_of_rows(y, y), size, out=variance)
    np.multiply(y, (gamma / np.sqrt(variance + epsilon))[:, None], out=y)
    np.add(y, beta[:, None], out=y)


@raw(
    """
extern "C" __global__ void normalize(const T* x, const T* gamma, const T* beta, T epsilon, T momentum, T* mean,
                                     T* variance, T* running_mean, T* running_variance, T* y, int size) {
    int c = blockIdx.x;
    const T* const from[1] = {x + (long long)c * size};
    Moments moments = moments_of(from[0], 0, size);
    T m = from[0][0] + moments.mean, v = moments.squares / T(size);
    T scale = gamma[c] / sqrt(v + epsilon), shift = beta[c];
    each_into<4>(from, y + (long long)c * size, 0, size, [=](const T (&values)[1]) {
        return (values[0] - m) * scale + shift;
    });
    if (threadIdx.x == 0)
        remember(m, v, T(size), momentum, mean + c, variance + c, running_mean + c, running_variance + c);
}
""",
    launch=lambda x, gamma, *others: Launch(len(gamma), _THREADS, (x, gamma, *others, x.size // len(gamma))),
    preamble=DEVICE + STATISTICS,
)
def normalize(
    x: Array, gamma: Array, beta: Array, epsilon: float, momentum: float, mean: Array, variance: Array,
    running_mean: Array, running_variance: Array, y: Array,
) -> None:  # fmt: skip
    """y := γ x̂ + β (24), x̂ = (x − x̄)/√(σ² + ε) (23), over each channel of a batch. x̂ itself is not kept.

    It also updates the running averages: r := (1 − m) r + m x̄, and for the variance with σ² n/(n − 1) like PyTorch.
    """
    x, y = (array.reshape(len(gamma), -1) for array in (x, y))
    _normalize(x, gamma, beta, x.dtype.type(epsilon), mean, variance, y)
    _update_running(x.shape[1], momentum, mean, variance, running_mean, running_variance)


def _update_running(
    size: int, momentum: float, mean: Array, variance: Array, running_mean: Array, running_variance: Array
) -> None:
    real = mean.dtype.type
    running_mean *= real(1 - momentum)
    running_mean += real(momentum) * mean
    running_variance *= real(1 - momentum)
    running_variance += real(momentum * size / max(size - 1, 1)) * variance


@by_channels
def _moments(x: Array, mean: Array, variance: Array) -> None:
    size = x.dtype.type(x.shape[1])
    np.divide(sums_of_rows(x), size, out=mean)
    distance = np.subtract(x, mean[:, None])
    np.divide(sums_of_rows(distance, distance), size, out=variance)


@raw(
    """
extern "C" __global__ void moments(const T* x, T momentum, T* mean, T* variance, T* running_mean, T* running_variance,
                                   T* parts, unsigned* tickets, int size, int of_part) {
    int c = blockIdx.x, count = gridDim.y;
    x += (long long)c * size;
    Moments all = moments_of(x, part_begin(blockIdx.y, of_part, size), part_begin(blockIdx.y + 1, of_part, size));
    if (count > 1) {
        parts += 2LL * c * count;
        if (threadIdx.x == 0) parts[2 * blockIdx.y] = all.mean, parts[2 * blockIdx.y + 1] = all.squares;
        if (!is_last_block(tickets + c, count)) return;
        all = {T(0), T(0), T(0)};
        for (int part = threadIdx.x; part < count; part += blockDim.x)
            all.add({T(part_begin(part + 1, of_part, size) - part_begin(part, of_part, size)), parts[2 * part],
                     parts[2 * part + 1]});
        all = of_block(all);
    }
    if (threadIdx.x == 0)
        remember(x[0] + all.mean, all.squares / T(size), T(size), momentum, mean + c, variance + c, running_mean + c,
                 running_variance + c);
}
""",
    launch=launch_shared,
    preamble=DEVICE + STATISTICS,
)
def moments(
    x: Array, momentum: float, mean: Array, variance: Array, running_mean: Array, running_variance: Array,
    *_scratch: Array,
) -> None:  # fmt: skip
    """mean := x̄, variance := σ² of each channel of a batch; the running averages are updated as in `normalize`.

    The last two arguments are the scratch of `shared_rows`, with two numbers per block.
    """
    x = x.reshape(len(mean), -1)
    _moments(x, mean, variance)
    _update_running(x.shape[1], momentum, mean, variance, running_mean, running_variance)


@by_channels
@numba_loops.in_loops(numba_loops.normalize_gradient)
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


class Statistics:
    """Accumulate mean and squared distances of values that arrive in parts, in float64."""

    def __init__(self, channels: int) -> None:
        self.count, self.mean, self.squares = 0, np.zeros(channels), np.zeros(channels)

    def add(self, count: int, mean: NDArray[Any], variance: NDArray[Any]) -> None:
        """Add a part by its count, means and variances."""
        total = self.count + count
        distance = mean.astype(np.float64) - self.mean
        self.squares += variance.astype(np.float64) * count + distance**2 * (self.count * count / total)
        self.mean += distance * (count / total)
        self.count = total


@raw(
    """
extern "C" __global__ void merge_moments(const T* of_ranks, T momentum, int samples, int each, T* mean, T* variance,
                                         T* running_mean, T* running_variance, int ranks, int channels) {
    int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= channels) return;
    Moments all = {T(0), T(0), T(0)};
    for (int rank = 0; rank < ranks; ++rank) {
        int share = samples / ranks + (rank < samples % ranks);
        if (share == 0) break;
        const T* given = of_ranks + 2LL * rank * channels + c;
        T count = T(share) * T(each);
        all.add({count, given[0], given[channels] * count});
    }
    remember(all.mean, all.squares / all.count, all.count, momentum, mean + c, variance + c, running_mean + c,
             running_variance + c);
}
""",
    launch=lambda of_ranks, *others: per_element(
        of_ranks.shape[2], of_ranks, *others, len(of_ranks), of_ranks.shape[2]
    ),
    preamble=DEVICE + STATISTICS,
)
def merge_moments(
    of_ranks: Array, momentum: float, samples: int, each: int, mean: Array, variance: Array, running_mean: Array,
    running_variance: Array,
) -> None:  # fmt: skip
    """Merge the moments of the ranks, in their order; sets mean, variance and running averages like `moments`.

    `of_ranks` holds means and variances, (ranks, 2, channels); the batch has `samples` with `each` values per channel.
    """
    all_ranks = Statistics(len(mean))
    share, more = divmod(samples, len(of_ranks))
    for rank in range(min(samples, len(of_ranks))):
        all_ranks.add((share + (rank < more)) * each, *of_ranks[rank])
    mean[...], variance[...] = all_ranks.mean, all_ranks.squares / all_ranks.count
    _update_running(all_ranks.count, momentum, mean, variance, running_mean, running_variance)


_SUMS = """
// Σ dy ⊙ (x − mean) and Σ dy of this thread's elements of a row.
__device__ inline void sums_of(const T* dy, const T* x, T mean, unsigned begin, unsigned end, T (&sums)[2]) {
    const T* const from[2] = {dy, x};
    T by_gamma = T(0), by_beta = T(0);
    each<4>(from, begin, end, [&](const T (&values)[2]) {
        by_gamma += values[0] * (values[1] - mean);
        by_beta += values[0];
    });
    sums[0] = by_gamma, sums[1] = by_beta;
}
"""


@raw(
    """
extern "C" __global__ void normalize_gradient(const T* dy, const T* x, const T* gamma, const T* mean, const T* variance,
                                              T epsilon, T share, T* dgamma, T* dbeta, T* dx, int size) {
    int c = blockIdx.x;
    long long start = (long long)c * size;
    const T* const from[2] = {dy + start, x + start};
    T m = mean[c], scale = T(1) / sqrt(variance[c] + epsilon), sums[2];
    __shared__ T part[2 * 256 / 32];
    sums_of(from[0], from[1], m, 0, size, sums);
    block_sums(sums, part);
    T by_gamma = sums[0] * scale, factor = scale * gamma[c];
    T through_variance = by_gamma * scale * share, through_mean = sums[1] * share;
    each_into<4>(from, dx + start, 0, size, [=](const T (&values)[2]) {
        return factor * (values[0] - through_mean - (values[1] - m) * through_variance);
    });
    if (threadIdx.x == 0) dgamma[c] = by_gamma, dbeta[c] = sums[1];
}
""",
    launch=lambda dy, x, gamma, *others: Launch(len(gamma), _THREADS, (dy, x, gamma, *others, dy.size // len(gamma))),
    preamble=DEVICE + _SUMS,
)
def normalize_gradient(
    dy: Array, x: Array, gamma: Array, mean: Array, variance: Array, epsilon: float, share: float, dgamma: Array,
    dbeta: Array, dx: Array,
) -> None:  # fmt: skip
    """∂C/∂γ := Σ dy ⊙ x̂, ∂C/∂β := Σ dy, dx := γ/√(σ² + ε) (dy − share Σ dy − share x̂ Σ dy ⊙ x̂). dx may be dy.

    `share` is 1/n for the statistics of these n values per channel, and 0 for running ones, which do not depend on x.
    """
    dy, x, dx = (array.reshape(len(gamma), -1) for array in (dy, x, dx))
    real = dy.dtype.type
    scale = real(1) / np.sqrt(variance + real(epsilon))
    _normalize_gradient(dy, x, gamma, mean, scale, real(share), dgamma, dbeta, dx)


@by_channels
def _sums(dy: Array, x: Array, mean: Array, scale: Array, dgamma: Array, dbeta: Array) -> None:
    dgamma[:], dbeta[:] = sums_of_rows(dy, np.subtract(x, mean[:, None])) * scale, sums_of_rows(dy)


@raw(
    """
extern "C" __global__ void normalize_sums(const T* dy, const T* x, const T* mean, const T* variance, T epsilon,
                                          T* dgamma, T* dbeta, T* parts, unsigned* tickets, int size, int of_part) {
    int c = blockIdx.x;
    long long start = (long long)c * size;
    T sums[2];
    unsigned begin = part_begin(blockIdx.y, of_part, size), end = part_begin(blockIdx.y + 1, of_part, size);
    sums_of(dy + start, x + start, mean[c], begin, end, sums);
    if (!sums_of_row(sums, parts, tickets)) return;
    if (threadIdx.x == 0) dgamma[c] = sums[0] * (T(1) / sqrt(variance[c] + epsilon)), dbeta[c] = sums[1];
}
""",
    launch=launch_shared,
    preamble=DEVICE + _SUMS,
)
def normalize_sums(
    dy: Array, x: Array, mean: Array, variance: Array, epsilon: float, dgamma: Array, dbeta: Array, *_scratch: Array
) -> None:
    """∂C/∂γ := Σ dy ⊙ x̂ and ∂C/∂β := Σ dy; the last two arguments are the scratch, as in `moments`."""
    dy, x = (array.reshape(len(mean), -1) for array in (dy, x))
    _sums(dy, x, mean, 1 / np.sqrt(variance + variance.dtype.type(epsilon)), dgamma, dbeta)


@elementwise(
    "T dy, T x, T gamma, T mean, T variance, T epsilon, T share, T dgamma, T dbeta",
    "T dx",
    "T scale = T(1) / sqrt(variance + epsilon);\n"
    "dx = gamma * scale * (dy - share * dbeta - (x - mean) * scale * (share * dgamma));",
)
@by_channels
def normalize_gradient_by_sums(
    dy: Array, x: Array, gamma: Array, mean: Array, variance: Array, epsilon: float, share: float, dgamma: Array,
    dbeta: Array, dx: Array,
) -> None:  # fmt: skip
    """dx as in `normalize_gradient`, from sums computed before; columns (channels, 1) beside (channels, n)."""
    real = dy.dtype.type
    scale = 1 / np.sqrt(variance + real(epsilon))
    change = np.subtract(x, mean)
    np.multiply(change, dgamma * scale * real(share), out=change)
    np.add(change, dbeta * real(share), out=change)
    np.subtract(dy, change, out=dx)
    np.multiply(dx, gamma * scale, out=dx)


@elementwise(
    "T x, T gamma, T beta, T mean, T variance, T epsilon",
    "T y",
    "y = gamma * (x - mean) / sqrt(variance + epsilon) + beta;",
)
def normalize_as_remembered(
    x: Array, gamma: Array, beta: Array, mean: Array, variance: Array, epsilon: float, y: Array
) -> None:
    """y := γ (x − mean)/√(variance + ε) + β with running statistics, columns (channels, 1) beside (channels, n)."""
    scale = gamma / np.sqrt(variance + variance.dtype.type(epsilon))
    # One pass more than x · scale + (beta − mean · scale), whose terms cancel if the mean is far above the spread.
    np.subtract(x, mean, out=y)
    np.multiply(y, scale, out=y)
    np.add(y, beta, out=y)
