"""Dropout: each unit is switched off with probability p, drawn from (seed, layer, step, element), never stored."""

from __future__ import annotations

import numpy as np

from gpunn.kernels.kernel import Array, Launch, Raw, blocks_for
from gpunn.kernels.random import PHILOX, Purpose, random_words

_THREADS = 256


def _dropout(x: Array, seed: int, stream: int, count: Array, threshold: int, scale: float, y: Array) -> None:
    words = random_words(-(-x.size // 2), seed=seed, purpose=Purpose.DROPOUT, step=int(count[0]), stream=stream)
    # Low half before high half, whatever the order of bytes of this machine.
    halves = words.astype("<u4", copy=False).view("<u2")[: x.size]
    factor = np.greater_equal(halves, np.uint16(threshold)).view(np.int8).astype(x.dtype)
    factor *= x.dtype.type(scale)
    np.multiply(x, factor.reshape(x.shape), out=y)


def _dropout_launch(x: Array, seed: int, stream: int, count: Array, threshold: int, scale: float, y: Array) -> Launch:
    arguments = (x, np.uint32(seed), int(Purpose.DROPOUT), stream, count, np.uint32(threshold), float(scale), y, x.size)
    return Launch(blocks_for(blocks_for(x.size, 8), _THREADS), _THREADS, arguments)


dropout = Raw(
    "dropout",
    """
extern "C" __global__ void dropout(const T* x, unsigned seed, int purpose, int stream, const int* count,
                                   unsigned threshold, T scale, T* y, int size) {
    int block = blockIdx.x * blockDim.x + threadIdx.x;
    if (8 * block >= size) return;
    uint4 words = philox4x32(make_uint4(block, count[0], 0, stream), seed, purpose);
    unsigned four[4] = {words.x, words.y, words.z, words.w};
    for (int k = 0; k < 8 && 8 * block + k < size; ++k) {
        unsigned half = four[k / 2] >> (16 * (k % 2)) & 0xFFFF;
        y[8 * block + k] = x[8 * block + k] * (half >= threshold ? scale : T(0));
    }
}
""",
    launch=_dropout_launch,
    host=_dropout,
    preamble=PHILOX,
)
"""y := x · scale where the element's random 16 bits are at least threshold = p 2¹⁶, else 0. y may be x."""
