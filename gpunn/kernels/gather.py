"""The batch: rows of the data set, picked in the order of the epoch, turned into what the network computes with.

The data set is (N, features) in bytes or floats, its targets labels (N,) or floats (N, outputs), and `order` is a
permutation of its rows. Which batch it is stands in the clock.

The clock is an array of four: the number of this step in its epoch and in the whole run, and those of the next one. On
a GPU it lives on the device, since a replayed graph has its scalars frozen. The gather makes the next step this one,
the update of the parameters sets the next one: so no kernel writes what others read at the same time.
"""

from __future__ import annotations

import numpy as np

from gpunn.kernels.loops import in_loops
from gpunn.kernels.record import Array, Launch, Raw, blocks_for

_THREADS = 256

STEP, COUNT, NEXT_STEP, NEXT_COUNT = range(4)
"""The places of the clock."""


def picked(data: Array, targets: Array, order: Array, clock: Array, batch_size: int, t: Array) -> Array:
    """Begin a step on the host: set the clock and the targets, and give the rows of the batch."""
    clock[:NEXT_STEP] = clock[NEXT_STEP:]
    n = t.shape[-1]
    start = int(clock[STEP]) * batch_size
    rows = order[start : start + n]
    if t.ndim == 1:
        np.take(targets, rows, out=t, mode="clip")
    else:
        t[...] = targets[rows].T
    return data.take(rows, axis=0, mode="clip")


def _gather_rows_loops(
    data: Array, targets: Array, order: Array, clock: Array, batch_size: int, scale: float, x: Array, t: Array
) -> None:
    clock[STEP], clock[COUNT] = clock[NEXT_STEP], clock[NEXT_COUNT]
    start, factor = clock[STEP] * batch_size, x.dtype.type(scale)
    for j in range(x.shape[0]):
        row = order[start + j]
        for f in range(x.shape[1]):
            x[j, f] = data[row, f] * factor
        if t.ndim == 1:
            t[j] = targets[row]
        else:
            t[:, j] = targets[row]


def _gather_passes(
    data: Array, targets: Array, order: Array, clock: Array, batch_size: int, scale: float, x: Array, t: Array
) -> None:
    rows = picked(data, targets, order, clock, batch_size, t)
    # A plain conversion is vectorised and a mixed multiplication is not: two passes beat one.
    np.copyto(x, rows, casting="unsafe")
    if scale != 1.0:
        np.multiply(x, x.dtype.type(scale), out=x)


_gather_rows = in_loops(_gather_rows_loops, slice(6, None))(_gather_passes)


def _gather(
    data: Array, targets: Array, order: Array, clock: Array, batch_size: int, scale: float, x: Array, t: Array
) -> None:
    gather_into = _gather_rows if x.flags.c_contiguous else _gather_passes
    gather_into(data, targets, order, clock, batch_size, scale, x, t)


def placed(x: Array) -> tuple[int, int, int, int]:
    """What a kernel needs of (batch, features) to find its places: both sizes and both strides in elements."""
    n, features = x.shape
    return n, features, x.strides[0] // x.itemsize, x.strides[1] // x.itemsize


def _gather_launch(
    data: Array, targets: Array, order: Array, clock: Array, batch_size: int, scale: float, x: Array, t: Array
) -> Launch:
    outputs = t.size // len(x)
    return Launch(
        blocks_for(max(x.size, t.size), _THREADS),
        _THREADS,
        (data, targets, order, clock, batch_size, float(scale), x, t, *placed(x), outputs),
    )


BEGIN_STEP = """
// Element `at` of the targets; and the first thread of all takes the next step for this one.
__device__ inline void begin_step(const S* targets, const int* order, int* clock, int batch_size, S* t, int at, int n,
                                  int outputs) {
    if (at < n * outputs) t[at] = targets[(long long)order[clock[2] * batch_size + at % n] * outputs + at / n];
    if (at == 0) {
        clock[0] = clock[2];
        clock[1] = clock[3];
    }
}
"""

gather = Raw(
    "gather",
    """
extern "C" __global__ void gather(const D* data, const S* targets, const int* order, int* clock, int batch_size,
                                  T scale, T* x, S* t, int n, int features, int row_stride, int column_stride,
                                  int outputs) {
    int at = blockIdx.x * blockDim.x + threadIdx.x;
    begin_step(targets, order, clock, batch_size, t, at, n, outputs);
    if (at >= n * features) return;
    // Neighbouring threads write neighbouring places, whichever way round x lies in memory.
    int j = column_stride == 1 ? at / features : at % n;
    int f = column_stride == 1 ? at % features : at / n;
    x[(long long)j * row_stride + (long long)f * column_stride] =
        T(data[(long long)order[clock[2] * batch_size + j] * features + f]) * scale;
}
""",
    launch=_gather_launch,
    host=_gather,
    types={"D": 0, "S": 1, "T": 6},
    preamble=BEGIN_STEP,
)
"""x[j] := scale · data[order[step · batch_size + j]], t[…, j] := targets[order[step · batch_size + j]].

x is (batch, features), or samples-last transposed; t labels (batch,), or (outputs, batch).
"""
