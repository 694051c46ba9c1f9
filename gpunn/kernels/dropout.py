"""Dropout: each unit is switched off with probability p, drawn from (seed, layer, step, element), never stored."""

from __future__ import annotations

import numpy as np

from gpunn.kernels.loops import in_loops
from gpunn.kernels.random import MULTIPLIERS64, PHILOX64, WEYL64, Purpose, halves_of, random_groups
from gpunn.kernels.record import Array, Launch, Raw, blocks_for

_THREADS = 256
_PURPOSE = int(Purpose.DROPOUT)
_32, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)
(_M0_LOW, _M0_HIGH), (_M1_LOW, _M1_HIGH) = ((m & _LOW, m >> _32) for m in map(np.uint64, MULTIPLIERS64))
_WEYL = (np.uint64(WEYL64[0]), np.uint64(WEYL64[1]))


def _switch_off_loops(x: Array, seed: int, step: int, stream: int, threshold: int, scale: float, y: Array) -> None:
    def product(word: np.uint64, by_low: np.uint64, by_high: np.uint64) -> tuple[np.uint64, np.uint64]:
        """The upper and lower 64 bits, from four products of 32 bits by 32, which there are vectors of."""
        low, high = word & _LOW, word >> _32
        least = low * by_low
        middle = low * by_high + (least >> _32)
        other = high * by_low + (middle & _LOW)
        return high * by_high + (middle >> _32) + (other >> _32), other << _32 | least & _LOW

    words = np.empty((4, 32), np.uint64)
    quarters = np.empty((4, 4, 32), np.uint16)
    bits = quarters.reshape(512)
    for first in range(0, len(x), 512):
        for i in range(32):
            words[0, i], words[1, i], words[2, i], words[3, i] = first // 16 + i + 1, step, stream, 0
        k0, k1 = np.uint64(seed), np.uint64(_PURPOSE)
        for _ in range(10):
            for i in range(32):
                high0, low0 = product(words[0, i], _M0_LOW, _M0_HIGH)
                high1, low1 = product(words[2, i], _M1_LOW, _M1_HIGH)
                words[0, i] = high1 ^ words[1, i] ^ k0
                words[1, i] = low1
                words[2, i] = high0 ^ words[3, i] ^ k1
                words[3, i] = low0
            k0 += _WEYL[0]
            k1 += _WEYL[1]
        for i in range(32):
            for k in range(4):
                for h in range(4):
                    quarters[k, h, i] = words[k, i] >> np.uint64(16 * h)
        some, result = x[first : first + 512], y[first : first + 512]
        for at in range(len(some)):
            result[at] = some[at] * (scale if bits[at] >= threshold else x.dtype.type(0))


@in_loops(_switch_off_loops)
def _switch_off(x: Array, seed: int, step: int, stream: int, threshold: int, scale: float, y: Array) -> None:
    words = random_groups(x.size, seed=seed, purpose=Purpose.DROPOUT, step=step, stream=stream)
    factor = np.greater_equal(halves_of(words, len(x)), threshold).view(np.int8).astype(x.dtype)
    factor *= scale
    np.multiply(x, factor, out=y)


def _dropout(x: Array, seed: int, stream: int, count: Array, threshold: int, scale: float, y: Array) -> None:
    _switch_off(x.reshape(-1), seed, int(count[0]), stream, np.uint16(threshold), x.dtype.type(scale), y.reshape(-1))


def _dropout_launch(x: Array, seed: int, stream: int, count: Array, threshold: int, scale: float, y: Array) -> Launch:
    arguments = (x, np.uint32(seed), int(Purpose.DROPOUT), stream, count, np.uint32(threshold), float(scale), y, x.size)
    return Launch(blocks_for(32 * blocks_for(x.size, 512), _THREADS), _THREADS, arguments)


dropout = Raw(
    "dropout",
    """
extern "C" __global__ void dropout(const T* x, unsigned seed, int purpose, int stream, const int* count,
                                   unsigned threshold, T scale, T* y, int size) {
    int number = blockIdx.x * blockDim.x + threadIdx.x;
    int first = number / 32 * 512 + number % 32;
    if (first >= size) return;
    Words drawn = philox4x64(Words{number + 1ull, (unsigned)count[0], (unsigned)stream, 0}, seed, purpose);
    unsigned long long words[4] = {drawn.w0, drawn.w1, drawn.w2, drawn.w3};
    for (int k = 0; k < 16; ++k) {
        int at = first + 32 * k;
        if (at >= size) return;
        unsigned bits = words[k / 4] >> (16 * (k % 4)) & 0xFFFF;
        y[at] = x[at] * (bits >= threshold ? scale : T(0));
    }
}
""",
    launch=_dropout_launch,
    host=_dropout,
    preamble=PHILOX64,
)
"""y := x · scale where the element's 16 random bits are at least threshold = p 2¹⁶, else 0. y may be x."""
