"""Undo steps: hold the values before a step, and restore them if a number is no longer finite.

The flag lives on the device and no host reads it, so these kernels may be part of a recorded step.
"""

import numpy as np

from gpunn.kernels.device_code import BLOCKS, DEVICE, part_of_row
from gpunn.kernels.record import Array, Launch, elementwise, raw

_THREADS, _EACH = 256, 4096  # threads of a block, and the fewest numbers that it checks


def _launch(x: Array, flag: Array) -> Launch:
    blocks = max(1, min(BLOCKS, -(-x.size // _EACH)))
    return Launch(blocks, _THREADS, (x, flag, np.int64(x.size), np.int64(part_of_row(x.size, blocks))))


# Several blocks may set the flag, so they use an atomic; all set it to 1.
@raw(
    """
extern "C" __global__ void mark_not_finite(const T* x, int* flag, long long size, long long part) {
    long long begin = min(blockIdx.x * part, size);
    const T* const from[1] = {x + begin};
    bool found = false;
    each<4>(from, 0, min(part, size - begin),
            [&](const T (&values)[1]) { found |= !(values[0] - values[0] == T(0)); });
    if (__syncthreads_or(found) && threadIdx.x == 0) atomicOr(flag, 1);
}
""",
    launch=_launch,
    preamble=DEVICE,
)
def mark_not_finite(x: Array, flag: Array) -> None:
    """flag := 1 if a number of x is not finite, else unchanged. x − x is 0 for finite numbers only."""
    if not np.isfinite(x).all():
        flag[0] = 1


@elementwise("T x", "T held", "held = x;")
def hold(x: Array, held: Array) -> None:
    """held := x."""
    np.copyto(held, x)


@elementwise("raw int32 flag, T held", "T x", "if (flag[0]) x = held;", may_be_wide=False)
def take_back(flag: Array, held: Array, x: Array) -> None:
    """x := held if the flag is set."""
    if flag[0]:
        np.copyto(x, held)


@elementwise(
    "int32 n", "int32 flag, int32 batches, int32 samples", "batches += flag != 0; samples += flag ? n : 0; flag = 0;"
)
def count_skipped(n: int, flag: Array, batches: Array, samples: Array) -> None:
    """batches += 1 and samples += n if the flag is set; then clear it."""
    is_set = flag != 0
    batches += is_set
    samples += n * is_set
    flag[...] = 0
