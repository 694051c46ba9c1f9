"""The batch: rows of the data set, picked in the order of the epoch, turned into what the network computes with.

The data set is (N, features) in bytes or floats, `order` is a permutation of its rows, and `step` is a one-element
array, the number of the step in the epoch: a batch begins at order[step · batch_size]. On a GPU the step lives on the
device, since a replayed graph has its scalars frozen.
"""

from __future__ import annotations

import numpy as np

from gpunn.kernels.kernel import Array, Launch, Raw, blocks_for

_THREADS = 256


def _rows_of(order: Array, step: Array, batch_size: int, n: int) -> Array:
    start = int(step[0]) * batch_size
    return order[start : start + n]


def _gather(data: Array, order: Array, step: Array, batch_size: int, scale: float, x: Array) -> None:
    rows = data[_rows_of(order, step, batch_size, x.shape[0])]
    # A plain conversion is vectorised and a mixed multiplication is not: two passes beat one.
    np.copyto(x, rows, casting="unsafe")
    if scale != 1.0:
        np.multiply(x, x.dtype.type(scale), out=x)


def _gather_launch(data: Array, order: Array, step: Array, batch_size: int, scale: float, x: Array) -> Launch:
    n, features = x.shape
    row_stride, column_stride = (stride // x.itemsize for stride in x.strides)
    return Launch(
        blocks_for(n * features, _THREADS),
        _THREADS,
        (data, order, step, batch_size, float(scale), x, n, features, row_stride, column_stride),
    )


gather = Raw(
    "gather",
    """
extern "C" __global__ void gather(const D* data, const int* order, const int* step, int batch_size, T scale,
                                  T* x, int n, int features, int row_stride, int column_stride) {
    int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= n * features) return;
    // Neighbouring threads write neighbouring places, whichever way round x lies in memory.
    int j = column_stride == 1 ? at / features : at % n;
    int f = column_stride == 1 ? at % features : at / n;
    x[(long long)j * row_stride + (long long)f * column_stride] =
        T(data[(long long)order[step[0] * batch_size + j] * features + f]) * scale;
}
""",
    launch=_gather_launch,
    host=_gather,
    types={"D": 0, "T": 5},
)
"""x[j] := scale · data[order[step · batch_size + j]]; x is (batch, features), or samples-last transposed."""


def _gather_labels(labels: Array, order: Array, step: Array, batch_size: int, t: Array) -> None:
    np.take(labels, _rows_of(order, step, batch_size, t.size), out=t, mode="clip")


def _gather_labels_launch(labels: Array, order: Array, step: Array, batch_size: int, t: Array) -> Launch:
    return Launch(blocks_for(t.size, _THREADS), _THREADS, (labels, order, step, batch_size, t, t.size))


gather_labels = Raw(
    "gather_labels",
    """
extern "C" __global__ void gather_labels(const int* labels, const int* order, const int* step, int batch_size,
                                         int* t, int n) {
    int j = blockIdx.x * blockDim.x + threadIdx.x;
    if (j < n) t[j] = labels[order[step[0] * batch_size + j]];
}
""",
    launch=_gather_labels_launch,
    host=_gather_labels,
    types={},
)
"""t[j] := labels[order[step · batch_size + j]]."""


def _advance(step: Array, count: Array) -> None:
    step += 1
    count += 1


def _advance_launch(step: Array, count: Array) -> Launch:
    return Launch(1, 1, (step, count))


advance = Raw(
    "advance",
    """
extern "C" __global__ void advance(int* step, int* count) {
    step[0] += 1;
    count[0] += 1;
}
""",
    launch=_advance_launch,
    host=_advance,
    types={},
)
"""One step further: in the epoch, and in the whole run."""
