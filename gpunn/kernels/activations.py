"""Activation functions f(z), and δ = ∂C/∂a ⊙ f′(z) for back-propagation (8).

Derivatives are written from the output a = f(z) wherever that determines them: then z need not be kept, and the
activation may overwrite it. Comparisons are put so that NaN goes through and is seen, never turned into 0.
"""

from __future__ import annotations

import numpy as np

from gpunn.kernels.record import Array, Elementwise, Launch, Raw, blocks_for


def _sigmoid(z: Array, a: Array) -> None:
    # e^{-z} overflows to inf below z = -88 (float32), and 1/inf = 0 is then the right answer.
    with np.errstate(over="ignore"):
        np.negative(z, out=a)
        np.exp(a, out=a)
    np.add(a, 1, out=a)
    np.reciprocal(a, out=a)


def _sigmoid_gradient(da: Array, a: Array, dz: Array) -> None:
    slope = np.subtract(1, a)
    slope *= a
    np.multiply(da, slope, out=dz)


sigmoid = Elementwise("sigmoid", "T z", "T a", "a = T(1) / (T(1) + exp(-z));", host=_sigmoid)
sigmoid_gradient = Elementwise(
    "sigmoid_gradient", "T da, T a", "T dz", "dz = da * a * (T(1) - a);", host=_sigmoid_gradient
)


def _tanh(z: Array, a: Array) -> None:
    np.tanh(z, out=a)


def _tanh_gradient(da: Array, a: Array, dz: Array) -> None:
    # (1 - a)(1 + a) keeps the digits that 1 - a² loses near |a| = 1.
    slope = np.subtract(1, a)
    slope *= np.add(a, 1)
    np.multiply(da, slope, out=dz)


tanh = Elementwise("tanh_activation", "T z", "T a", "a = tanh(z);", host=_tanh)
tanh_gradient = Elementwise(
    "tanh_gradient", "T da, T a", "T dz", "dz = da * (T(1) - a) * (T(1) + a);", host=_tanh_gradient
)


def _relu(z: Array, a: Array) -> None:
    np.maximum(z, 0, out=a)


def _relu_gradient(da: Array, a: Array, dz: Array) -> None:
    np.multiply(da, a > 0, out=dz)


relu = Elementwise("relu", "T z", "T a", "a = z < T(0) ? T(0) : z;", host=_relu)
relu_gradient = Elementwise(
    "relu_gradient", "T da, T a", "T dz", "dz = a > T(0) ? da : da * T(0);", host=_relu_gradient
)


def _leaky_relu(z: Array, alpha: float, a: Array) -> None:
    if a is z:
        np.multiply(z, alpha, out=a, where=z < 0)
    else:
        np.multiply(z, alpha, out=a)
        np.maximum(z, a, out=a)


def _leaky_relu_gradient(da: Array, z: Array, alpha: float, dz: Array) -> None:
    slope = np.where(z > 0, z.dtype.type(1), z.dtype.type(alpha))
    np.multiply(da, slope, out=dz)


leaky_relu = Elementwise("leaky_relu", "T z, T alpha", "T a", "a = z < T(0) ? alpha * z : z;", host=_leaky_relu)
leaky_relu_gradient = Elementwise(
    "leaky_relu_gradient",
    "T da, T z, T alpha",
    "T dz",
    "dz = z > T(0) ? da : alpha * da;",
    host=_leaky_relu_gradient,
)


def _softplus(z: Array, a: Array) -> None:
    # ln(1 + e^z) = max(z, 0) + ln(1 + e^{-|z|}): the exponent is never positive, so nothing overflows.
    positive = np.maximum(z, 0)
    np.abs(z, out=a)
    np.negative(a, out=a)
    np.exp(a, out=a)
    np.log1p(a, out=a)
    np.add(a, positive, out=a)


def _softplus_gradient(da: Array, a: Array, dz: Array) -> None:
    slope = np.negative(a)
    np.expm1(slope, out=slope)
    np.negative(slope, out=slope)
    np.multiply(da, slope, out=dz)


softplus = Elementwise("softplus", "T z", "T a", "a = (z < T(0) ? T(0) : z) + log1p(exp(-abs(z)));", host=_softplus)
softplus_gradient = Elementwise(
    # f′(z) = sigmoid(z) = 1 - e^{-a}
    "softplus_gradient",
    "T da, T a",
    "T dz",
    "dz = -da * expm1(-a);",
    host=_softplus_gradient,
)


_COLUMN_THREADS = 128


def _per_column(*arguments: Array) -> Launch:
    classes, n = arguments[0].shape
    return Launch(blocks_for(n, _COLUMN_THREADS), _COLUMN_THREADS, (*arguments, classes, n))


def _softmax(z: Array, a: Array) -> None:
    np.subtract(z, np.maximum.reduce(z, axis=0), out=a)
    np.exp(a, out=a)
    np.divide(a, np.add.reduce(a, axis=0), out=a)


def _softmax_gradient(da: Array, a: Array, dz: Array) -> None:
    along = np.add.reduce(np.multiply(da, a), axis=0)
    np.subtract(da, along, out=dz)
    np.multiply(dz, a, out=dz)


# One thread a column: neighbouring threads read neighbouring columns, so every access of a warp is one line.
softmax = Raw(
    "softmax",
    """
extern "C" __global__ void softmax(const T* z, T* a, int classes, int n) {
    int j = blockIdx.x * blockDim.x + threadIdx.x;
    if (j >= n) return;
    T largest = z[j];
    for (int k = 1; k < classes; ++k) { T v = z[(long long)k * n + j]; if (v > largest) largest = v; }
    T sum = T(0);
    for (int k = 0; k < classes; ++k) sum += exp(z[(long long)k * n + j] - largest);
    for (int k = 0; k < classes; ++k) {
        long long at = (long long)k * n + j;
        a[at] = exp(z[at] - largest) / sum;
    }
}
""",
    launch=_per_column,
    host=_softmax,
)

softmax_gradient = Raw(
    "softmax_gradient",
    """
extern "C" __global__ void softmax_gradient(const T* da, const T* a, T* dz, int classes, int n) {
    int j = blockIdx.x * blockDim.x + threadIdx.x;
    if (j >= n) return;
    T along = T(0);
    for (int k = 0; k < classes; ++k) along += da[(long long)k * n + j] * a[(long long)k * n + j];
    for (int k = 0; k < classes; ++k) {
        long long at = (long long)k * n + j;
        dz[at] = a[at] * (da[at] - along);
    }
}
""",
    launch=_per_column,
    host=_softmax_gradient,
)
