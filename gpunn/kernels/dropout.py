"""Dropout: each unit is switched off with probability p, drawn from (seed, layer, step, element), never stored."""

import numpy as np

from gpunn.kernels import loops
from gpunn.kernels.random import PHILOX64, Purpose, random_halves
from gpunn.kernels.record import Array, per_element, raw


@loops.in_loops(loops.switch_off)
def _switch_off(x: Array, seed: int, step: int, stream: int, threshold: int, scale: float, y: Array) -> None:
    bits = random_halves(len(x), seed=seed, purpose=Purpose.DROPOUT, step=step, stream=stream)
    factor = np.greater_equal(bits, threshold).view(np.int8).astype(x.dtype)
    factor *= scale
    np.multiply(x, factor, out=y)


@raw(
    """
extern "C" __global__ void dropout(const T* x, unsigned seed, int stream, const int* count, int threshold, T scale,
                                   T* y, int size) {
    int number = blockIdx.x * blockDim.x + threadIdx.x;
    int first = number / 32 * 512 + number % 32;
    if (first >= size) return;
    Words drawn = philox4x64(Words{number + 1ull, (unsigned)count[0], (unsigned)stream, 0}, seed, PURPOSE);
    unsigned long long words[4] = {drawn.w0, drawn.w1, drawn.w2, drawn.w3};
    for (int k = 0; k < 16; ++k) {
        int at = first + 32 * k;
        if (at >= size) return;
        int bits = words[k / 4] >> (16 * (k % 4)) & 0xFFFF;
        y[at] = x[at] * (bits >= threshold ? scale : T(0));
    }
}
""",
    launch=lambda x, seed, *others: per_element(32 * -(-x.size // 512), x, np.uint32(seed), *others, x.size),
    preamble=f"const int PURPOSE = {int(Purpose.DROPOUT)};\n{PHILOX64}",
)
def dropout(x: Array, seed: int, stream: int, count: Array, threshold: int, scale: float, y: Array) -> None:
    """y := x · scale where the element's 16 random bits are at least threshold = p 2¹⁶, else 0. y may be x."""
    _switch_off(x.reshape(-1), seed, int(count[0]), stream, np.uint16(threshold), x.dtype.type(scale), y.reshape(-1))
