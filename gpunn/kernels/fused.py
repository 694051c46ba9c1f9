"""Bias and activation in one pass, and their gradients in one: (2) with (3), and (8) with (12).

Made from the records of the activations, so each formula still stands in one place. On a GPU each pass that is saved is
a launch; on the CPU the twins are those of the parts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from gpunn.kernels import activations
from gpunn.kernels.bias import ROW_SUM, row_sums, rows_launch
from gpunn.kernels.loops import in_loops
from gpunn.kernels.record import Array, Elementwise, Launch, Raw


class Fused(NamedTuple):
    """The kernels of an activation together with the bias before it.

    Attributes:
        forward: a := f(a + b), with b of shape (units, 1) beside a of shape (units, values).
        backward: dz := da ⊙ f′(z) and db[u] := Σ_j dz[u, j]; dz may be da.
        gradient: The kernel of f′ that `backward` is made of.
    """

    forward: Elementwise
    backward: Raw
    gradient: Elementwise


def _bias_relu_loops(b: Array, a: Array) -> None:
    for unit in range(a.shape[0]):
        row, bias = a[unit], b[unit, 0]
        for j in range(len(row)):
            z = row[j] + bias
            row[j] = a.dtype.type(0) if z < 0 else z


def _relu_gradient_and_sums_loops(da: Array, a: Array, dz: Array, db: Array) -> None:
    for unit in range(a.shape[0]):
        upper, seen, lower = da[unit], a[unit], dz[unit]
        total = a.dtype.type(0)
        for j in range(len(seen)):
            delta = upper[j] * upper.dtype.type(seen[j] > 0)
            lower[j] = delta
            total += delta
        db[unit] = total


_Body: TypeAlias = Callable[..., None]


def _fuse(activation: Elementwise, gradient: Elementwise, loops: tuple[_Body, _Body] | None = None) -> Fused:
    def forward(b: Array, a: Array) -> None:
        a += b
        activation.host(a, a)

    def backward(da: Array, a: Array, dz: Array, db: Array) -> None:
        gradient.host(da, a, dz)
        row_sums.host(dz, db)

    if loops:
        forward, backward = in_loops(loops[0])(forward), in_loops(loops[1])(backward)

    def by_rows(da: Array, a: Array, dz: Array, db: Array) -> None:
        units = len(db)
        backward(da.reshape(units, -1), a.reshape(units, -1), dz.reshape(units, -1), db)

    def launch(da: Array, a: Array, dz: Array, db: Array) -> Launch:
        return rows_launch(da, len(db), (da, a, dz, db))

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
    {ROW_SUM}
}}
"""
    return Fused(
        Elementwise(f"bias_{activation.name}", "T b", "T a", f"T z = a + b; {activation.operation}", host=forward),
        Raw(name, source, launch=launch, host=by_rows),
        gradient,
    )


with_bias: dict[Elementwise | Raw, Fused] = {
    activation: _fuse(activation, *others)
    for activation, *others in (
        (activations.sigmoid, activations.sigmoid_gradient),
        (activations.tanh, activations.tanh_gradient),
        (activations.relu, activations.relu_gradient, (_bias_relu_loops, _relu_gradient_and_sums_loops)),
        (activations.softplus, activations.softplus_gradient),
    )
}
"""For each activation whose derivative is written from its output: what it is together with a bias."""
