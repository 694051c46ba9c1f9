"""Gather a batch: pick rows of the data set in the order of the epoch, and convert them to network inputs.

The data set is (N, features) in bytes or floats, its targets labels (N,) or floats (N, outputs), and `order` is a
permutation of its rows. The clock selects the batch.

The clock is an array of four: the index of the current step in its epoch and in the run, then both of the next step.
On a GPU it lives on the device, since a replayed graph has its scalars frozen. The gather copies *next* to *current*;
the update of the parameters writes *next* = *current* + 1. So no kernel writes numbers while another reads them.
"""

from typing import Any

import numpy as np

from gpunn.kernels import numba_loops
from gpunn.kernels.record import Array, Launch, per_element, raw

STEP, COUNT, NEXT_STEP, NEXT_COUNT = range(4)  # indices into the clock
BEGIN_STEP = """
// A block takes 32 samples and 32 features. Its warps write contiguous memory in either layout of x.
struct Tile {
    int j, f, more_samples, more_features;
    __device__ Tile(int n, int column_stride) {
        int tiles = (n + 31) / 32, lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
        bool is_by_rows = column_stride == 1;
        j = blockIdx.x % tiles * 32 + (is_by_rows ? warp : lane);
        f = blockIdx.x / tiles * 32 + (is_by_rows ? lane : warp);
        more_samples = is_by_rows ? warps : 0;
        more_features = is_by_rows ? 0 : warps;
    }
    __device__ void next() { j += more_samples; f += more_features; }
};

// Gather the targets in tiles of 32 samples and 32 outputs; the first thread of all advances the clock.
__device__ inline void begin_step(const S* targets, const int* order, int* clock, int batch_size, S* t, int n,
                                  int outputs) {
    int tiles = (n + 31) / 32, lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    for (int tile = blockIdx.x; tile < tiles * ((outputs + 31) / 32); tile += gridDim.x) {
        int j = tile % tiles * 32 + lane, k = tile / tiles * 32 + warp, end = min(outputs, tile / tiles * 32 + 32);
        for (; j < n && k < end; k += warps)
            t[(long long)k * n + j] = targets[(long long)order[clock[2] * batch_size + j] * outputs + k];
    }
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        clock[0] = clock[2];
        clock[1] = clock[3];
    }
}
"""


def begin_on_host(data: Array, targets: Array, order: Array, clock: Array, batch_size: int, t: Array) -> Array:
    """Begin a step on the host: advance the clock, set the targets, and return the rows of the batch."""
    clock[:NEXT_STEP] = clock[NEXT_STEP:]
    n = t.shape[-1]
    start = int(clock[STEP]) * batch_size
    rows = order[start : start + n]
    if t.ndim == 1:
        np.take(targets, rows, out=t, mode="clip")
    else:
        t[...] = targets[rows].T
    return data.take(rows, axis=0, mode="clip")


def launch_tiles(*arguments: Any) -> Launch:
    """Launch 256 threads for each tile of 32 samples and 32 features of x; the last arguments are the outputs x, t."""
    x, t = arguments[-2:]
    n, features = x.shape
    strides = (stride // x.itemsize for stride in x.strides)
    return Launch(-(-n // 32) * -(-features // 32), 256, (*arguments, n, features, *strides, t.size // n))


@raw(
    """
extern "C" __global__ void gather(const D* data, const S* targets, const int* order, int* clock, int batch_size,
                                  T scale, T* x, S* t, int n, int features, int row_stride, int column_stride,
                                  int outputs) {
    begin_step(targets, order, clock, batch_size, t, n, outputs);
    Tile tile(n, column_stride);
    for (int k = threadIdx.x / 32; k < 32; k += blockDim.x / 32, tile.next()) {
        if (tile.j >= n || tile.f >= features) return;
        x[(long long)tile.j * row_stride + (long long)tile.f * column_stride] =
            T(data[(long long)order[clock[2] * batch_size + tile.j] * features + tile.f]) * scale;
    }
}
""",
    launch=lambda *given: launch_tiles(*given[:5], float(given[5]), *given[6:]),
    types={"D": 0, "S": 1, "T": 6},
    preamble=BEGIN_STEP,
)
@numba_loops.in_loops(numba_loops.gather_rows, sized_by=lambda *given: given[6:] if given[6].flags.c_contiguous else ())
def gather(
    data: Array, targets: Array, order: Array, clock: Array, batch_size: int, scale: float, x: Array, t: Array
) -> None:
    """x[j] := scale · data[order[step · batch_size + j]], t[…, j] := targets[order[step · batch_size + j]].

    x is (batch, features), or samples-last transposed; t labels (batch,), or (outputs, batch).
    """
    rows = begin_on_host(data, targets, order, clock, batch_size, t)
    # NumPy vectorizes a plain conversion but not a product of mixed types: two passes beat one.
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
    """w[j] := weights[order[step · batch_size + j]], in the step begun by a gather; weights (N,), w (batch,)."""
    start = int(clock[STEP]) * batch_size
    np.take(weights, order[start : start + len(w)], out=w, mode="clip")
