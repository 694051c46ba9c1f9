"""Draw random numbers as a pure function of (seed, purpose, step, element): Philox4x32-10 and Philox4x64-10.

J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC'11. The generator
maps a counter of four words and a key of two to four random words, and has no state. So back-propagation draws a
dropout mask again instead of storing it, and CPU and GPU draw the same bits. Dropout needs many numbers and uses the
64-bit generator, which NumPy has in C.
"""

import threading
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from gpunn.kernels.record import Array

_32, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)
_of_thread = threading.local()
_BLOCK = 128  # samples transposed at once to samples last, in the cache


class Purpose(IntEnum):
    """Purpose of random numbers, the second word of the key, so that no two purposes share a stream."""

    TEST = 0
    WEIGHTS = 1
    SHUFFLE = 2
    DROPOUT = 3
    AUGMENTATION = 4


def philox(counter: tuple[Array | int, ...], key: tuple[int, int]) -> NDArray[np.uint32]:
    """Compute Philox4x32-10 of counters given as four arrays that broadcast together: uint32 (..., 4)."""
    words = np.broadcast_arrays(*(np.asarray(word, dtype=np.uint64) for word in counter))
    c0, c1, c2, c3 = drawn = np.array([word.reshape(-1) for word in words])
    product0, product1 = np.empty_like(drawn[:2])
    k0, k1 = key
    for _ in range(10):
        np.multiply(c0, np.uint64(0xD2511F53), out=product0)
        np.multiply(c2, np.uint64(0xCD9E8D57), out=product1)
        for product, k, high, low in ((product1, k0, c0, c1), (product0, k1, c2, c3)):
            np.right_shift(product, _32, out=high)
            high ^= low
            high ^= np.uint64(k)
            np.bitwise_and(product, _LOW, out=low)
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return drawn.T.astype(np.uint32, order="C").reshape(*words[0].shape, 4)


def random_words(
    count: int, *, seed: int, purpose: Purpose, step: int = 0, stream: int = 0, first: int = 0
) -> NDArray[np.uint32]:
    """Draw `count` words of the stream (seed, purpose, step, stream): word 4i+k is word k of counter first + i."""
    blocks = np.arange(first, first + (count + 3) // 4, dtype=np.uint64)
    return philox((blocks, step & 0xFFFFFFFF, step >> 32, stream), (seed, purpose)).reshape(-1)[:count]


def random_halves(
    features: int, n: int, *, seed: int, purpose: Purpose, step: int = 0, stream: int = 0, first: int = 0
) -> NDArray[np.uint16]:
    """Draw 16 random bits for each feature of the samples first, …, first + n − 1, uint16 (features, n).

    The four words of Philox4x64-10 are the bits of 16 features of a sample: feature 16g + 4k + h has quarter h of word
    k of counter G · sample + g + 1, where G is `groups(features)`. So the bits of a sample do not depend on the batch.
    """
    counters = groups(features)
    generator = _at((first * counters, step, stream, 0), (seed, purpose))
    halves = np.empty((features, n), np.uint16)
    for start in range(0, n, _BLOCK):
        part = halves[:, start : start + _BLOCK]
        words = generator.random_raw(4 * counters * part.shape[1])
        part[...] = words.astype("<u8", copy=False).view("<u2").reshape(part.shape[1], -1)[:, :features].T
    return halves


def _at(counter: tuple[int, ...], key: tuple[int, int]) -> np.random.Philox:
    """Return this thread's generator, set to draw from the counters after this one: NumPy advances before it draws."""
    # A new generator asks the system for entropy, which takes longer than drawing for a small layer.
    if not hasattr(_of_thread, "generator"):
        _of_thread.generator = np.random.Philox(0)
    words = {"counter": np.array(counter, np.uint64), "key": np.array(key, np.uint64)}
    unused = {"buffer": np.zeros(4, np.uint64), "buffer_pos": 4, "has_uint32": 0, "uinteger": 0}
    _of_thread.generator.state = {"bit_generator": "Philox", "state": words, **unused}
    drawing: np.random.Philox = _of_thread.generator
    return drawing


def groups(features: int) -> int:
    """Return the number of counters of a sample: one per 16 features, made odd from 16 counters on."""
    # With an even number, the bits of one feature of several samples could lie a power of two apart and fall on the
    # same few cache lines: the transpose would take twice the time.
    needed = -(-features // 16)
    return needed if needed < 16 else needed | 1


def epoch_order(n: int, *, seed: int, epoch: int) -> NDArray[np.int32]:
    """Return the order in which an epoch visits n samples: sorted by 32 random bits each, then by their indices."""
    words = random_words(n, seed=seed, purpose=Purpose.SHUFFLE, step=epoch).astype(np.uint64)
    keys = (words << _32) | np.arange(n, dtype=np.uint64)
    keys.sort()
    return (keys & _LOW).astype(np.int32)


PHILOX = """
__device__ inline uint4 philox4x32(uint4 c, unsigned k0, unsigned k1) {
    for (int round = 0; round < 10; ++round) {
        unsigned long long p0 = 0xD2511F53ull * c.x, p1 = 0xCD9E8D57ull * c.z;
        c = make_uint4((unsigned)(p1 >> 32) ^ c.y ^ k0, (unsigned)p1,
                       (unsigned)(p0 >> 32) ^ c.w ^ k1, (unsigned)p0);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return c;
}
"""
"""The same generator in CUDA C++, for the preamble of a kernel; PHILOX64 is the 64-bit one."""

PHILOX64 = """
struct Words { unsigned long long w0, w1, w2, w3; };

__device__ inline Words philox4x64(Words c, unsigned long long k0, unsigned long long k1) {
    const unsigned long long m0 = 0xD2E7470EE14C6C93ull, m1 = 0xCA5A826395121157ull;
    for (int round = 0; round < 10; ++round) {
        c = Words{__umul64hi(m1, c.w2) ^ c.w1 ^ k0, m1 * c.w2, __umul64hi(m0, c.w0) ^ c.w3 ^ k1, m0 * c.w0};
        k0 += 0x9E3779B97F4A7C15ull;
        k1 += 0xBB67AE8584CAA73Bull;
    }
    return c;
}
"""
