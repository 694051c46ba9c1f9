"""Compute activations a = f(z), and δ = ∂C/∂a ⊙ f′(z) for back-propagation (8).

Where the output a determines the derivative, it is written from a. The activation may then overwrite z, and
`from_output` fuses it with the bias before it. Comparisons let NaN through and never turn it into 0.
"""

from collections.abc import Callable

import numpy as np

from gpunn.kernels import numba_loops
from gpunn.kernels.bias import fuse
from gpunn.kernels.device_code import OF_SAMPLES, samples_of_block
from gpunn.kernels.record import Array, Elementwise, Host, Launch, elementwise, raw


def from_output(activation: Elementwise, operation: str, faster: Host | None = None) -> Callable[[Host], Elementwise]:
    """Return a decorator that registers the gradient of f, written from its output, and fuses both with the bias."""

    def gradient_of(host: Host) -> Elementwise:
        gradient = elementwise("T da, T a", "T dz", operation)(host)
        fuse(activation, gradient, faster)
        return gradient

    return gradient_of


@elementwise("T z", "T a", "a = T(1) / (T(1) + exp(-z));")
def sigmoid(z: Array, a: Array) -> None:
    """a := 1 / (1 + e⁻ᶻ)."""
    # e^{-z} overflows to inf below z = -88 (float32), and 1/inf = 0 is then the right answer.
    with np.errstate(over="ignore"):
        np.negative(z, out=a)
        np.exp(a, out=a)
    np.add(a, 1, out=a)
    np.reciprocal(a, out=a)


@from_output(sigmoid, "dz = da * a * (T(1) - a);")
def sigmoid_gradient(da: Array, a: Array, dz: Array) -> None:
    """dz := da a (1 − a)."""
    slope = np.subtract(1, a)
    slope *= a
    np.multiply(da, slope, out=dz)


@elementwise("T z", "T a", "a = tanh(z);", name="tanh_activation")
def tanh(z: Array, a: Array) -> None:
    """a := tanh z."""
    np.tanh(z, out=a)


@from_output(tanh, "dz = da * (T(1) - a) * (T(1) + a);")
def tanh_gradient(da: Array, a: Array, dz: Array) -> None:
    """dz := da (1 − a)(1 + a), which keeps the digits that 1 − a² loses near |a| = 1."""
    slope = np.subtract(1, a)
    slope *= np.add(a, 1)
    np.multiply(da, slope, out=dz)


@numba_loops.in_loops(numba_loops.keep_positive)
def _keep_positive(a: Array) -> None:
    np.maximum(a, 0, out=a)


@elementwise("T z", "T a", "a = z < T(0) ? T(0) : z;")
def relu(z: Array, a: Array) -> None:
    """a := max(z, 0)."""
    if a is z and a.flags.c_contiguous:  # Numba vectorizes the loop only for one array under one name
        _keep_positive(a.reshape(-1))
    else:
        np.maximum(z, 0, out=a)


@numba_loops.in_loops(numba_loops.keep_where_positive)
def _keep_where_positive(a: Array, dz: Array) -> None:
    np.multiply(dz, a > 0, out=dz)


@from_output(relu, "dz = a > T(0) ? da : da * T(0);", numba_loops.bias_relu)
def relu_gradient(da: Array, a: Array, dz: Array) -> None:
    """dz := da where a > 0, else 0."""
    if dz is da and dz.flags.c_contiguous and a.flags.c_contiguous:
        _keep_where_positive(a.reshape(-1), dz.reshape(-1))
    else:
        np.multiply(da, a > 0, out=dz)


@elementwise("T z, T alpha", "T a", "a = z < T(0) ? alpha * z : z;")
def leaky_relu(z: Array, alpha: float, a: Array) -> None:
    """a := max(z, αz)."""
    if a is z:
        np.multiply(z, alpha, out=a, where=z < 0)
    else:
        np.multiply(z, alpha, out=a)
        np.maximum(z, a, out=a)


@elementwise("T da, T z, T alpha", "T dz", "dz = z > T(0) ? da : alpha * da;")
def leaky_relu_gradient(da: Array, z: Array, alpha: float, dz: Array) -> None:
    """dz := da where z > 0, else α da."""
    np.multiply(da, np.where(z > 0, z.dtype.type(1), z.dtype.type(alpha)), out=dz)


@elementwise("T z", "T a", "a = (z < T(0) ? T(0) : z) + log1p(exp(-abs(z)));")
def softplus(z: Array, a: Array) -> None:
    """a := ln(1 + eᶻ) = max(z, 0) + ln(1 + e^{−|z|}): the exponent is never positive, so nothing overflows."""
    positive = np.maximum(z, 0)
    np.abs(z, out=a)
    np.negative(a, out=a)
    np.exp(a, out=a)
    np.log1p(a, out=a)
    np.add(a, positive, out=a)


@from_output(softplus, "dz = -da * expm1(-a);")
def softplus_gradient(da: Array, a: Array, dz: Array) -> None:
    """dz := da sigmoid(z) = da (1 − e⁻ᵃ)."""
    slope = np.negative(a)
    np.expm1(slope, out=slope)
    np.negative(slope, out=slope)
    np.multiply(da, slope, out=dz)


def _per_column(*arrays: Array) -> Launch:
    """Launch blocks that take some columns each; several threads share the classes of a column."""
    classes, n = arrays[0].shape
    shift = samples_of_block(classes, _THREADS)
    return Launch(-(-n >> shift), _THREADS, (*arrays, classes, n, shift))


_THREADS = 256
_COLUMN = """
// This thread's share of a column: every `lanes`-th class from `first` on, and none beyond the last column.
#define OF_COLUMN(classes, n, shift)                                                                         \\
    __shared__ T part[256];                                                                                  \\
    int samples = 1 << shift, first = threadIdx.x >> shift, lanes = blockDim.x >> shift;                     \\
    long long j = (long long)blockIdx.x * samples + (threadIdx.x & (samples - 1));                           \\
    int end = j < n ? classes : 0
"""


@raw(
    """
extern "C" __global__ void softmax(const T* z, T* a, int classes, int n, int shift) {
    OF_COLUMN(classes, n, shift);
    T largest = -T(1) / T(0), sum = T(0);
    #pragma unroll 4
    for (int k = first; k < end; k += lanes) { T v = z[(long long)k * n + j]; if (v > largest) largest = v; }
    largest = join_of_sample(largest, samples, part, [](T p, T q) { return q > p ? q : p; });
    #pragma unroll 4
    for (int k = first; k < end; k += lanes) sum += exp(z[(long long)k * n + j] - largest);
    sum = sum_of_sample(sum, samples, part);
    #pragma unroll 4
    for (int k = first; k < end; k += lanes) {
        long long at = (long long)k * n + j;
        a[at] = exp(z[at] - largest) / sum;
    }
}
""",
    launch=_per_column,
    preamble=OF_SAMPLES + _COLUMN,
)
def softmax(z: Array, a: Array) -> None:
    """a[k] := e^{z_k} / Σ_i e^{z_i} in each column."""
    np.subtract(z, np.maximum.reduce(z, axis=0), out=a)
    np.exp(a, out=a)
    np.divide(a, np.add.reduce(a, axis=0), out=a)


@raw(
    """
extern "C" __global__ void softmax_gradient(const T* da, const T* a, T* dz, int classes, int n, int shift) {
    OF_COLUMN(classes, n, shift);
    T along = T(0);
    #pragma unroll 4
    for (int k = first; k < end; k += lanes) along += da[(long long)k * n + j] * a[(long long)k * n + j];
    along = sum_of_sample(along, samples, part);
    #pragma unroll 4
    for (int k = first; k < end; k += lanes) {
        long long at = (long long)k * n + j;
        dz[at] = a[at] * (da[at] - along);
    }
}
""",
    launch=_per_column,
    preamble=OF_SAMPLES + _COLUMN,
)
def softmax_gradient(da: Array, a: Array, dz: Array) -> None:
    """dz := a ⊙ (da − Σ da ⊙ a) in each column."""
    np.subtract(da, np.add.reduce(np.multiply(da, a), axis=0), out=dz)
    np.multiply(dz, a, out=dz)
