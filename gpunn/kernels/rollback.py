"""Steps that can be taken back: the values before are held, and put back where a number is no longer finite.

The flag, which is not 0 where it is set, lives on the device and no host looks at it, so these kernels may stand in a
recorded step.
"""

import numpy as np

from gpunn.kernels.device import BLOCK_SUM
from gpunn.kernels.record import Array, Launch, elementwise, raw

_THREADS = 1024


# One block, so that nothing is written by two.
@raw(
    """
extern "C" __global__ void mark_not_finite(const T* x, int* flag, int size) {
    __shared__ int part[1024];
    int found = 0;
    for (int i = threadIdx.x; i < size; i += blockDim.x) found |= !(x[i] - x[i] == T(0));
    found = block_sum(found, part);
    if (threadIdx.x == 0 && found) flag[0] = 1;
}
""",
    launch=lambda x, flag: Launch(1, _THREADS, (x, flag, x.size)),
    preamble=BLOCK_SUM,
)
def mark_not_finite(x: Array, flag: Array) -> None:
    """flag := 1 where a number of x is not finite; else it stays as it is. x − x is 0 for finite numbers only."""
    if not np.isfinite(x).all():
        flag[0] = 1


@elementwise("T x", "T held", "held = x;")
def hold(x: Array, held: Array) -> None:
    """held := x."""
    np.copyto(held, x)


@elementwise("raw int32 flag, T held", "T x", "if (flag[0]) x = held;")
def take_back(flag: Array, held: Array, x: Array) -> None:
    """x := held where the flag is set."""
    if flag[0]:
        np.copyto(x, held)


@elementwise(
    "int32 n", "int32 flag, int32 batches, int32 samples", "batches += flag != 0; samples += flag ? n : 0; flag = 0;"
)
def count_skipped(n: int, flag: Array, batches: Array, samples: Array) -> None:
    """One batch of n samples more where the flag is set, which is then cleared."""
    is_set = flag != 0
    batches += is_set
    samples += n * is_set
    flag[...] = 0
