"""What a layer with weights needs besides its matrix product: adding the bias (2), and summing its gradient (12)."""

from __future__ import annotations

import numpy as np

from gpunn.kernels.record import Array, Elementwise, Launch, Raw


def _add_bias(b: Array, z: Array) -> None:
    np.add(z, b, out=z)


add_bias = Elementwise("add_bias", "T b", "T z", "z += b;", host=_add_bias)
"""z := z + b, with b of shape (units, 1) beside z of shape (units, batch)."""


_THREADS = 128

ROW_SUM = """
    part[threadIdx.x] = sum;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) total[blockIdx.x] = part[0];
"""
"""CUDA: the `sum` of each thread of a block, added up in an order that never changes, to total[block]."""


def rows_launch(x: Array, rows: int, arguments: tuple[Array, ...]) -> Launch:
    """A block for each row of x, seen as (rows, values); the number of values is the last argument."""
    return Launch(rows, _THREADS, (*arguments, x.size // rows))


def _row_sums_launch(x: Array, total: Array) -> Launch:
    return rows_launch(x, len(total), (x, total))


def sums_of_rows(*factors: Array) -> Array:
    """Σ_j of each row of a matrix, or of the product of two, on the host: one pass, with no array between.

    NumPy's own sum takes three times as long; einsum's partial sums keep as many digits.
    """
    return np.einsum(",".join(["ij"] * len(factors)) + "->i", *factors)  # noqa: TID251 - no product of matrices


def _row_sums(x: Array, total: Array) -> None:
    total[...] = sums_of_rows(x.reshape(len(total), -1))


# One block a row: the sum of a unit's δ over the batch is one pass over contiguous memory.
row_sums = Raw(
    "row_sums",
    f"""
extern "C" __global__ void row_sums(const T* x, T* total, int n) {{
    __shared__ T part[128];
    const T* row = x + (long long)blockIdx.x * n;
    T sum = T(0);
    for (int j = threadIdx.x; j < n; j += blockDim.x) sum += row[j];
    {ROW_SUM}
}}
""",
    launch=_row_sums_launch,
    host=_row_sums,
)
"""total[u] := Σ_j x[u, j]: in the samples-last layout the bias gradient of (12) for a batch."""
