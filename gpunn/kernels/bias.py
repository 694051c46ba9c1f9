"""Add the bias (2), sum its gradient (12), and fuse both with the activation behind: (2) with (3), (8) with (12).

Fused kernels are made from the records of the activations, so each formula stands in one place. On a GPU fusion saves
a launch; on the CPU the fused kernels call their parts.
"""

from typing import NamedTuple

import numpy as np

from gpunn.kernels.device_code import DEVICE, part_of_row, parts_of_row
from gpunn.kernels.numba_loops import in_loops
from gpunn.kernels.record import Array, Elementwise, Host, Launch, Raw, elementwise, raw

_THREADS = 128


@elementwise("T b", "T z", "z += b;")
def add_bias(b: Array, z: Array) -> None:
    """z := z + b, with b of shape (units, 1) beside z of shape (units, batch)."""
    np.add(z, b, out=z)


def sums_of_rows(*factors: Array) -> Array:
    """Return Σ_j of each row of a matrix, or of the product of two, in one pass on the host."""
    # NumPy's own sum takes three times as long; einsum's partial sums keep as many digits.
    return np.einsum(",".join(["ij"] * len(factors)) + "->i", *factors)  # noqa: TID251 - no product of matrices


def launch_sums(parts: Array, tickets: Array, total: Array, *arrays: Array) -> Launch:
    """Launch blocks for the rows of some arrays, several per row to fill a device; see `sums_of_row`."""
    rows, n = len(total), arrays[0].size // len(total)
    shared = min(parts_of_row(rows, n), max(1, parts.size // rows))
    return Launch((rows, shared, 1), _THREADS, (*arrays, total, parts, tickets, n, part_of_row(n, shared)))


@raw(
    """
extern "C" __global__ void row_sums(const T* x, T* total, T* parts, unsigned* tickets, int n, int size) {
    const T* const from[1] = {x + (long long)blockIdx.x * n};
    T sum[1] = {};
    each<4>(from, part_begin(blockIdx.y, size, n), part_begin(blockIdx.y + 1, size, n),
            [&](const T (&values)[1]) { sum[0] += values[0]; });
    if (sums_of_row(sum, parts, tickets) && threadIdx.x == 0) total[blockIdx.x] = sum[0];
}
""",
    launch=lambda x, total, parts, tickets: launch_sums(parts, tickets, total, x),
    preamble=DEVICE,
)
def row_sums(x: Array, total: Array, *_: Array) -> None:
    """total[u] := Σ_j x[u, j]: in the samples-last layout the bias gradient (12) of a batch.

    On a GPU several blocks share a long row; the last two arguments are their scratch, `BuildContext.shared_rows`.
    """
    total[...] = sums_of_rows(x.reshape(len(total), -1))


class Fused(NamedTuple):
    """Kernels of an activation fused with the bias before it, and the kernel of f′ alone."""

    forward: Elementwise  # a := f(a + b), with b of shape (units, 1) beside a of shape (units, values)
    backward: Raw  # dz := da ⊙ f′(z) and db[u] := Σ_j dz[u, j]; dz may be da; scratch as for `row_sums`
    gradient: Elementwise


with_bias: dict[Elementwise | Raw, Fused] = {}  # by activation, if its derivative is written from the output


def fuse(activation: Elementwise, gradient: Elementwise, faster: Host | None = None) -> None:
    """Add an activation to `with_bias`; `faster` is a loop for Numba that replaces the forward pass."""

    def forward(b: Array, a: Array) -> None:
        a += b
        activation.host(a, a)

    def backward(da: Array, a: Array, dz: Array, db: Array, *_: Array) -> None:
        gradient.host(da, a, dz)
        row_sums.host(dz, db)

    if faster:
        forward = in_loops(faster)(forward)

    name = f"{gradient.name}_and_sums"
    source = f"""
extern "C" __global__ void {name}(const T* das, const T* as, T* dzs, T* total, T* parts, unsigned* tickets,
                                  int n, int size) {{
    long long start = (long long)blockIdx.x * n;
    const T* const from[2] = {{das + start, as + start}};
    T sum[1] = {{}};
    each_into<2>(from, dzs + start, part_begin(blockIdx.y, size, n), part_begin(blockIdx.y + 1, size, n),
                 [&](const T (&values)[2]) {{
        T da = values[0], a = values[1], dz;
        {gradient.operation}
        sum[0] += dz;
        return dz;
    }});
    if (sums_of_row(sum, parts, tickets) && threadIdx.x == 0) total[blockIdx.x] = sum[0];
}}
"""
    with_bias[activation] = Fused(
        Elementwise(f"bias_{activation.name}", "T b", "T a", f"T z = a + b; {activation.operation}", host=forward),
        Raw(
            name,
            source,
            launch=lambda da, a, dz, db, parts, tickets: launch_sums(parts, tickets, db, da, a, dz),
            host=backward,
            preamble=DEVICE,
        ),
        gradient,
    )
