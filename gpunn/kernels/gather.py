"""The batch: rows of the data set, picked in the order of the epoch, turned into the inputs of the network.

The data set is (N, features) in bytes or floats, its targets labels (N,) or floats (N, outputs), and `order` is a
permutation of its rows. The clock says which batch it is.

The clock is an array of four: the number of this step in its epoch and in the whole run, and those of the next one. On
a GPU it lives on the device, since a replayed graph has its scalars frozen. The gather copies *next* to *current*; the
update of the parameters writes *next* = *current* + 1; so no kernel writes numbers that others read at the same time.
"""

from typing import Any

import numpy as np

from gpunn.kernels import loops
from gpunn.kernels.record import Array, Launch, per_element, raw

STEP, COUNT, NEXT_STEP, NEXT_COUNT = range(4)  # the places of the clock
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


def picked(data: Array, targets: Array, order: Array, clock: Array, batch_size: int, t: Array) -> Array:
    """Begin a step on the host: set the clock and the targets, and return the rows of the batch."""
    clock[:NEXT_STEP] = clock[NEXT_STEP:]
    n = t.shape[-1]
    start = int(clock[STEP]) * batch_size
    rows = order[start : start + n]
    if t.ndim == 1:
        np.take(targets, rows, out=t, mode="clip")
    else:
        t[...] = targets[rows].T
    return data.take(rows, axis=0, mode="clip")


def launched(*arguments: Any, threads: int = 256) -> Launch:
    """Launch a thread for each value of the batch, of which x and t, the last arguments, are written."""
    x, t = arguments[-2:]
    strides = (stride // x.itemsize for stride in x.strides)
    return per_element(max(x.size, t.size), *arguments, *x.shape, *strides, t.size // len(x), threads=threads)


@raw(
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
    launch=lambda *given: launched(*given[:5], float(given[5]), *given[6:]),
    types={"D": 0, "S": 1, "T": 6},
    preamble=BEGIN_STEP,
)
@loops.in_loops(loops.gather_rows, sized_by=lambda *given: given[6:] if given[6].flags.c_contiguous else ())
def gather(
    data: Array, targets: Array, order: Array, clock: Array, batch_size: int, scale: float, x: Array, t: Array
) -> None:
    """x[j] := scale · data[order[step · batch_size + j]], t[…, j] := targets[order[step · batch_size + j]].

    x is (batch, features), or samples-last transposed; t labels (batch,), or (outputs, batch).
    """
    rows = picked(data, targets, order, clock, batch_size, t)
    # A plain conversion is vectorised and a mixed multiplication is not: two passes beat one.
    np.copyto(x, rows, casting="unsafe")
    if scale != 1.0:
        np.multiply(x, x.dtype.type(scale), out=x)


@raw(
    """
extern "C" __global__ void gather_weights(const T* weights, const int* order, const int* clock, int batch_size, T* w,
                                          int n) {
    int j = blockIdx.x * blockDim.x + threadIdx.x;
    if (j < n) w[j] = weights[order[clock[0] * batch_size + j]];
}
""",
    launch=lambda *given: per_element(len(given[-1]), *given, len(given[-1])),
)
def gather_weights(weights: Array, order: Array, clock: Array, batch_size: int, w: Array) -> None:
    """w[j] := weights[order[step · batch_size + j]], in the step that a gather has begun; weights (N,), w (batch,)."""
    start = int(clock[STEP]) * batch_size
    np.take(weights, order[start : start + len(w)], out=w, mode="clip")
