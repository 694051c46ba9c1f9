"""What a layer with weights needs besides its matrix product: adding the bias (2), and summing its gradient (12)."""

from __future__ import annotations

import numpy as np

from gpunn.kernels.kernel import Array, Elementwise, Launch, Raw


def _add_bias(b: Array, z: Array) -> None:
    np.add(z, b, out=z)


add_bias = Elementwise("add_bias", "T b", "T z", "z += b;", host=_add_bias)
"""z := z + b, with b of shape (units, 1) beside z of shape (units, batch)."""


_ROW_THREADS = 128


def _per_row(x: Array, total: Array) -> Launch:
    rows = x.shape[0]
    return Launch(rows, _ROW_THREADS, (x, total, x.size // rows))


def _row_sums(x: Array, total: Array) -> None:
    np.add.reduce(x.reshape(x.shape[0], -1), axis=1, out=total)


row_sums = Raw(
    "row_sums",
    """
extern "C" __global__ void row_sums(const T* x, T* total, int n) {
    // One block a row: the sum of a unit's δ over the batch is one pass over contiguous memory, in an order that
    // never changes, so the same numbers give the same bits.
    __shared__ T part[128];
    const T* row = x + (long long)blockIdx.x * n;
    T sum = T(0);
    for (int j = threadIdx.x; j < n; j += blockDim.x) sum += row[j];
    part[threadIdx.x] = sum;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) total[blockIdx.x] = part[0];
}
""",
    launch=_per_row,
    host=_row_sums,
)
"""total[u] := Σ_j x[u, j]: in the samples-last layout the bias gradient of (12) for a batch."""
