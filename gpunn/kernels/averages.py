"""Update the exponential moving average of all weights, on their flat array."""

import numpy as np

from gpunn.kernels.gather import COUNT
from gpunn.kernels.record import Array, elementwise

_BLOCK = 16384  # elements at once: the scratch of a block stays in the cache


@elementwise(
    "T value, int32 begun, T share, raw int32 clock",
    "T average",
    "average = clock[1] == begun ? value : average + share * (value - average);",
)
def average_weights(value: Array, begun: int, share: float, clock: Array, average: Array) -> None:
    """m := m + share (w − m); m := w in step `begun` of the run, the first of the average."""
    if int(clock[COUNT]) == begun:
        np.copyto(average, value)
        return
    for start in range(0, value.size, _BLOCK):
        at = slice(start, start + _BLOCK)
        change = value[at] - average[at]
        change *= value.dtype.type(share)
        average[at] += change
