"""Drop each unit with probability p, by a mask drawn from (seed, layer, step, sample, unit) and never stored.

Samples are counted within the batch of all ranks, so every number of ranks drops the same units.
"""

import numpy as np

from gpunn.kernels import numba_loops
from gpunn.kernels.image_grid import ENOUGH_BLOCKS
from gpunn.kernels.random import PHILOX64, Purpose, groups, random_halves
from gpunn.kernels.record import Array, Launch, per_element, raw

_PURPOSE, _32, _LOW = np.uint64(Purpose.DROPOUT), np.uint64(32), np.uint64(0xFFFFFFFF)
_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
(_M0_LOW, _M0_HIGH), (_M1_LOW, _M1_HIGH) = ((m & _LOW, m >> _32) for m in map(np.uint64, _MULTIPLIERS))
_LANES = 1024  # counters whose words are kept together
_WEYL = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBB67AE8584CAA73B))


def switch_off(x: Array, seed: int, step: int, stream: int, first: int, threshold: int, scale: float, y: Array) -> None:
    """Apply dropout in a loop for Numba: 32 counters at a time, by as many samples and groups as fit the cache."""

    def product(word: np.uint64, by_low: np.uint64, by_high: np.uint64) -> tuple[np.uint64, np.uint64]:
        """Return the upper and lower 64 bits of a product, from four 32-bit products, which can be vectorized."""
        low, high = word & _LOW, word >> _32
        least = low * by_low
        middle = low * by_high + (least >> _32)
        other = high * by_low + (middle & _LOW)
        return high * by_high + (middle >> _32) + (other >> _32), other << _32 | least & _LOW

    features, n = x.shape
    needed, nothing = -(-features // 16), x.dtype.type(0)
    counters = needed if needed < 16 else needed | 1  # as by `groups`
    given, result = x.reshape(-1), y.reshape(-1)
    words, halves = np.empty((4, _LANES), np.uint64), np.empty(16 * _LANES, np.uint16)
    most = min(n, _LANES)
    for start in range(0, n, most):
        width = min(most, n - start)
        at_once = _LANES // width
        for group in range(0, needed, at_once):
            count = min(at_once, needed - group)
            for g in range(count):
                for j in range(width):
                    words[0, g * width + j] = (first + start + j) * counters + group + g + 1
            for block in range(0, count * width, 32):
                c0, c1, c2, c3 = words[:, block : block + 32]
                k0, k1 = np.uint64(seed), _PURPOSE
                # All counters share three of their four words, and so half of the first two rounds.
                high1, low1 = product(np.uint64(stream), _M1_LOW, _M1_HIGH)
                high2, low2 = product(high1 ^ np.uint64(step) ^ k0, _M0_LOW, _M0_HIGH)
                for i in range(32):
                    high0, low0 = product(c0[i], _M0_LOW, _M0_HIGH)
                    high3, low3 = product(high0 ^ k1, _M1_LOW, _M1_HIGH)
                    c0[i] = high3 ^ low1 ^ (k0 + _WEYL[0])
                    c1[i] = low3
                    c2[i] = high2 ^ low0 ^ (k1 + _WEYL[1])
                    c3[i] = low2
                for _ in range(8):
                    k0 += _WEYL[0]
                    k1 += _WEYL[1]
                    for i in range(32):
                        high0, low0 = product(c0[i], _M0_LOW, _M0_HIGH)
                        high1, low1 = product(c2[i], _M1_LOW, _M1_HIGH)
                        c0[i] = high1 ^ c1[i] ^ (k0 + _WEYL[0])
                        c1[i] = low1
                        c2[i] = high0 ^ c3[i] ^ (k1 + _WEYL[1])
                        c3[i] = low0
            for g in range(count):
                for k in range(4):
                    word = words[k, g * width : (g + 1) * width]
                    for h in range(4):
                        half = halves[(16 * g + 4 * k + h) * width :][:width]
                        for j in range(width):
                            half[j] = word[j] >> np.uint64(16 * h)
            # If all samples fit at once, the features are contiguous and form one row.
            units = min(16 * count, features - 16 * group)
            rows, length = (1, units * n) if width == n else (units, width)
            for row in range(rows):
                at = (16 * group + row) * n + start
                some, kept, bits = given[at:][:length], result[at:][:length], halves[row * length :][:length]
                for i in range(length):
                    kept[i] = some[i] * (scale if bits[i] >= threshold else nothing)


@numba_loops.in_loops(switch_off)
def _switch_off(
    x: Array, seed: int, step: int, stream: int, first: int, threshold: int, scale: float, y: Array
) -> None:
    bits = random_halves(*x.shape, seed=seed, purpose=Purpose.DROPOUT, step=step, stream=stream, first=first)
    factor = np.greater_equal(bits, threshold).view(np.int8).astype(x.dtype)
    factor *= scale
    np.multiply(x, factor, out=y)


def _launch(x: Array, seed: int, *others: object) -> Launch:
    n = x.shape[-1]
    features = x.size // n
    count, threads = -(-features // 16) * n, 256
    # A thread has much to do, so use smaller blocks until every multiprocessor has some.
    while threads > 32 and -(-count // threads) < ENOUGH_BLOCKS:
        threads //= 2
    return per_element(count, x, np.uint32(seed), *others, features, n, groups(features), threads=threads)


@raw(
    """
extern "C" __global__ void dropout(const T* x, unsigned seed, int stream, int first, const int* count, int threshold,
                                   T scale, T* y, int features, int n, int groups) {
    // Neighbouring threads take neighbouring samples; each takes 16 features, and reads them before it draws.
    unsigned number = blockIdx.x * blockDim.x + threadIdx.x;
    int group = number / n, j = number % n, left = min(16, features - 16 * group);
    if (left <= 0) return;
    long long at = 16ll * group * n + j;
    T seen[16];
    #pragma unroll
    for (int k = 0; k < 16; ++k)
        if (k < left) seen[k] = x[at + (long long)k * n];
    unsigned long long counter = (unsigned long long)(first + j) * groups + group + 1;
    Words drawn = philox4x64(Words{counter, (unsigned)count[0], (unsigned)stream, 0}, seed, PURPOSE);
    unsigned long long words[4] = {drawn.w0, drawn.w1, drawn.w2, drawn.w3};
    #pragma unroll
    for (int k = 0; k < 16; ++k) {
        int bits = words[k / 4] >> (16 * (k % 4)) & 0xFFFF;
        if (k < left) y[at + (long long)k * n] = seen[k] * (bits >= threshold ? scale : T(0));
    }
}
""",
    launch=_launch,
    preamble=f"const int PURPOSE = {int(Purpose.DROPOUT)};\n{PHILOX64}",
)
def dropout(x: Array, seed: int, stream: int, first: int, count: Array, threshold: int, scale: float, y: Array) -> None:
    """y := x · scale where the 16 random bits of unit and sample are at least threshold = p 2¹⁶, else 0; y may be x.

    Samples are the last axis, and `first` is the index of the first one in the batch of all ranks.
    """
    shape = -1, x.shape[-1]
    flat = x.reshape(shape), y.reshape(shape)
    drawn = seed, int(count[0]), stream, first, np.uint16(threshold), x.dtype.type(scale)
    _switch_off(flat[0], *drawn, flat[1])
