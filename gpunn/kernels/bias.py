"""The bias (2), its gradient (12), and both in one pass with the activation behind it: (2) with (3), (8) with (12).

The fused kernels are made from the records of the activations, so each formula stands in one place. On a GPU each pass
that is saved is a launch; on the CPU they do what their parts do.
"""

from typing import NamedTuple

import numpy as np

from gpunn.kernels.loops import in_loops
from gpunn.kernels.record import Array, Elementwise, Host, Launch, Raw, elementwise, raw

_THREADS = 128

BLOCK_SUM = """
// The sum of one value a thread over the block, given to every thread, always added in the same order.
template <typename V> __device__ inline V block_sum(V value, V* part) {
    part[threadIdx.x] = value;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
        __syncthreads();
    }
    V sum = part[0];
    __syncthreads();
    return sum;
}
"""


@elementwise("T b", "T z", "z += b;")
def add_bias(b: Array, z: Array) -> None:
    """z := z + b, with b of shape (units, 1) beside z of shape (units, batch)."""
    np.add(z, b, out=z)


def sums_of_rows(*factors: Array) -> Array:
    """Return Σ_j of each row of a matrix, or of the product of two, in one pass of the host."""
    # NumPy's own sum takes three times as long; einsum's partial sums keep as many digits.
    return np.einsum(",".join(["ij"] * len(factors)) + "->i", *factors)  # noqa: TID251 - no product of matrices


# One block a row: the sum of a unit's δ over the batch is one pass over contiguous memory.
@raw(
    """
extern "C" __global__ void row_sums(const T* x, T* total, int n) {
    __shared__ T part[128];
    const T* row = x + (long long)blockIdx.x * n;
    T sum = T(0);
    for (int j = threadIdx.x; j < n; j += blockDim.x) sum += row[j];
    sum = block_sum(sum, part);
    if (threadIdx.x == 0) total[blockIdx.x] = sum;
}
""",
    launch=lambda x, total: Launch(len(total), _THREADS, (x, total, x.size // len(total))),
    preamble=BLOCK_SUM,
)
def row_sums(x: Array, total: Array) -> None:
    """total[u] := Σ_j x[u, j]: in the samples-last layout the bias gradient of (12) for a batch."""
    total[...] = sums_of_rows(x.reshape(len(total), -1))


class Fused(NamedTuple):
    """The kernels of an activation together with the bias before it, and that of f′ alone."""

    forward: Elementwise  # a := f(a + b), with b of shape (units, 1) beside a of shape (units, values)
    backward: Raw  # dz := da ⊙ f′(z) and db[u] := Σ_j dz[u, j]; dz may be da
    gradient: Elementwise


with_bias: dict[Elementwise | Raw, Fused] = {}  # of each activation whose derivative is written from its output


def fuse(activation: Elementwise, gradient: Elementwise, faster: Host | None = None) -> None:
    """Add an activation to `with_bias`, with loops for Numba where there are any."""

    def forward(b: Array, a: Array) -> None:
        a += b
        activation.host(a, a)

    def backward(da: Array, a: Array, dz: Array, db: Array) -> None:
        gradient.host(da, a, dz)
        row_sums.host(dz, db)

    if faster:
        forward = in_loops(faster)(forward)

    name = f"{gradient.name}_and_sums"
    source = f"""
extern "C" __global__ void {name}(const T* das, const T* as, T* dzs, T* total, int n) {{
    __shared__ T part[128];
    long long start = (long long)blockIdx.x * n;
    T sum = T(0);
    for (int j = threadIdx.x; j < n; j += blockDim.x) {{
        T da = das[start + j], a = as[start + j], dz;
        {gradient.operation}
        dzs[start + j] = dz;
        sum += dz;
    }}
    sum = block_sum(sum, part);
    if (threadIdx.x == 0) total[blockIdx.x] = sum;
}}
"""
    with_bias[activation] = Fused(
        Elementwise(f"bias_{activation.name}", "T b", "T a", f"T z = a + b; {activation.operation}", host=forward),
        Raw(
            name,
            source,
            launch=lambda da, a, dz, db: Launch(len(db), _THREADS, (da, a, dz, db, da.size // len(db))),
            host=backward,
            preamble=BLOCK_SUM,
        ),
        gradient,
    )
