"""Steps that can be taken back: what was there is held, and put back where a number is no longer finite.

The flag lives on the device and no host looks at it, so these kernels may stand in a recorded step.
"""

from __future__ import annotations

import numpy as np

from gpunn.kernels.record import Array, Elementwise, Launch, Raw

_THREADS = 1024


def _mark_not_finite(x: Array, flag: Array) -> None:
    if not np.isfinite(x).all():
        flag[0] = 1


def _mark_launch(x: Array, flag: Array) -> Launch:
    # One block, so that nothing is written by two.
    return Launch(1, _THREADS, (x, flag, x.size))


mark_not_finite = Raw(
    "mark_not_finite",
    """
extern "C" __global__ void mark_not_finite(const T* x, int* flag, int size) {
    __shared__ int part[1024];
    int found = 0;
    for (int i = threadIdx.x; i < size; i += blockDim.x) found |= !(x[i] - x[i] == T(0));
    part[threadIdx.x] = found;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) part[threadIdx.x] |= part[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0 && part[0]) flag[0] = 1;
}
""",
    launch=_mark_launch,
    host=_mark_not_finite,
)
"""flag := 1 where a number of x is not finite; else it stays as it is. x − x is 0 for finite numbers only."""


def _hold(x: Array, held: Array) -> None:
    np.copyto(held, x)


hold = Elementwise("hold", "T x", "T held", "held = x;", host=_hold)
"""held := x."""


def _take_back(flag: Array, held: Array, x: Array) -> None:
    if flag[0]:
        np.copyto(x, held)


take_back = Elementwise("take_back", "raw int32 flag, T held", "T x", "if (flag[0]) x = held;", host=_take_back)
"""x := held where the flag is set."""


def _count_skipped(n: int, flag: Array, batches: Array, samples: Array) -> None:
    batches += flag
    samples += n * flag
    flag[...] = 0


count_skipped = Elementwise(
    "count_skipped",
    "int32 n",
    "int32 flag, int32 batches, int32 samples",
    """
    batches += flag;
    samples += n * flag;
    flag = 0;
    """,
    host=_count_skipped,
)
"""One batch of n samples more where the flag is set, which is then cleared."""
