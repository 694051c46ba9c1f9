"""Dropout: each unit is switched off with probability p, drawn from (seed, layer, step, element), never stored."""

from __future__ import annotations

import numpy as np

from gpunn.kernels.kernel import Array, Launch, Raw, blocks_for
from gpunn.kernels.loops import in_loops
from gpunn.kernels.random import PHILOX64, Purpose, halves_of, random_groups

_THREADS = 256


def _switch_off_loops(x: Array, words: Array, threshold: int, scale: float, y: Array) -> None:
    turned = np.empty((16, 32), np.uint16)
    halves = turned.reshape(512)
    for group in range(words.shape[0]):
        for i in range(32):
            for k in range(4):
                for h in range(4):
                    turned[4 * k + h, i] = words[group, i, k] >> np.uint64(16 * h) & np.uint64(0xFFFF)
        some, result = x[512 * group : 512 * (group + 1)], y[512 * group : 512 * (group + 1)]
        for at in range(len(some)):
            result[at] = some[at] * (scale if halves[at] >= threshold else x.dtype.type(0))


@in_loops(_switch_off_loops)
def _switch_off(x: Array, words: Array, threshold: int, scale: float, y: Array) -> None:
    factor = np.greater_equal(halves_of(words, len(x)), threshold).view(np.int8).astype(x.dtype)
    factor *= scale
    np.multiply(x, factor, out=y)


def _dropout(x: Array, seed: int, stream: int, count: Array, threshold: int, scale: float, y: Array) -> None:
    words = random_groups(x.size, seed=seed, purpose=Purpose.DROPOUT, step=int(count[0]), stream=stream)
    _switch_off(x.reshape(-1), words, np.uint64(threshold), x.dtype.type(scale), y.reshape(-1))


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
