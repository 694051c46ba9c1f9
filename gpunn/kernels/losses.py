"""The costs, a value for each sample and the gradient by the network's output in one pass; and the right answers.

All arrays are samples-last: outputs and targets are (outputs, batch), labels and costs (batch,). Gradients already
hold the 1/n of the mean over the batch. Costs are computed from z in forms that stay finite for every finite z.
"""

from __future__ import annotations

import numpy as np

from gpunn.kernels.kernel import Array, Launch, Raw, blocks_for

_THREADS = 128


def _per_sample(z: Array, targets: Array, gradient: Array, costs: Array) -> Launch:
    outputs, n = z.shape
    return Launch(blocks_for(n, _THREADS), _THREADS, (z, targets, gradient, costs, outputs, n))


def _softmax_cross_entropy(z: Array, labels: Array, gradient: Array, costs: Array) -> None:
    n = z.shape[1]
    columns = np.arange(n)
    np.subtract(z, np.maximum.reduce(z, axis=0), out=gradient)
    of_label = gradient[labels, columns]
    np.exp(gradient, out=gradient)
    total = np.add.reduce(gradient, axis=0)
    np.log(total, out=costs)
    costs -= of_label
    total *= n
    np.divide(gradient, total, out=gradient)
    gradient[labels, columns] -= gradient.dtype.type(1 / n)


softmax_cross_entropy = Raw(
    "softmax_cross_entropy",
    """
extern "C" __global__ void softmax_cross_entropy(const T* z, const int* labels, T* gradient, T* costs,
                                                 int classes, int n) {
    int j = blockIdx.x * blockDim.x + threadIdx.x;
    if (j >= n) return;
    T largest = z[j];
    for (int k = 1; k < classes; ++k) { T v = z[(long long)k * n + j]; if (v > largest) largest = v; }
    T sum = T(0);
    for (int k = 0; k < classes; ++k) sum += exp(z[(long long)k * n + j] - largest);
    costs[j] = log(sum) - (z[(long long)labels[j] * n + j] - largest);
    for (int k = 0; k < classes; ++k) {
        long long at = (long long)k * n + j;
        gradient[at] = (exp(z[at] - largest) / sum - T(k == labels[j])) / T(n);
    }
}
""",
    launch=_per_sample,
    host=_softmax_cross_entropy,
)
"""costs[j] := -ln softmax(z)_label (log-sum-exp form), gradient := (softmax(z) - onehot(label)) / n."""


def _binary_cross_entropy(z: Array, targets: Array, gradient: Array, costs: Array) -> None:
    # -y ln a - (1 - y) ln(1 - a) with a = sigmoid(z) is max(z, 0) - z y + ln(1 + e^{-|z|}).
    exponential = np.abs(z)
    np.negative(exponential, out=exponential)
    np.exp(exponential, out=exponential)
    terms = np.maximum(z, 0)
    terms -= z * targets
    terms += np.log1p(exponential)
    np.add.reduce(terms, axis=0, out=costs)
    # sigmoid(z) is 1/(1 + e^{-|z|}) for z >= 0, and e^{-|z|}/(1 + e^{-|z|}) below.
    np.divide(np.where(z >= 0, z.dtype.type(1), exponential), exponential + 1, out=gradient)
    gradient -= targets
    gradient *= z.dtype.type(1 / z.shape[1])


binary_cross_entropy = Raw(
    "binary_cross_entropy",
    """
extern "C" __global__ void binary_cross_entropy(const T* z, const T* targets, T* gradient, T* costs,
                                                int outputs, int n) {
    int j = blockIdx.x * blockDim.x + threadIdx.x;
    if (j >= n) return;
    T cost = T(0);
    for (int k = 0; k < outputs; ++k) {
        long long at = (long long)k * n + j;
        T v = z[at], y = targets[at], e = exp(-abs(v));
        cost += (v < T(0) ? T(0) : v) - v * y + log1p(e);
        gradient[at] = ((v >= T(0) ? T(1) : e) / (T(1) + e) - y) / T(n);
    }
    costs[j] = cost;
}
""",
    launch=_per_sample,
    host=_binary_cross_entropy,
)
"""costs[j] := -Σ y ln a + (1 - y) ln(1 - a) with a = sigmoid(z); gradient := (a - y) / n, (7)."""


def _mean_squared_error(a: Array, targets: Array, gradient: Array, costs: Array) -> None:
    np.subtract(a, targets, out=gradient)
    np.add.reduce(np.square(gradient), axis=0, out=costs)
    gradient *= a.dtype.type(2 / a.shape[1])


mean_squared_error = Raw(
    "mean_squared_error",
    """
extern "C" __global__ void mean_squared_error(const T* a, const T* targets, T* gradient, T* costs,
                                              int outputs, int n) {
    int j = blockIdx.x * blockDim.x + threadIdx.x;
    if (j >= n) return;
    T cost = T(0);
    for (int k = 0; k < outputs; ++k) {
        long long at = (long long)k * n + j;
        T difference = a[at] - targets[at];
        cost += difference * difference;
        gradient[at] = difference * (T(2) / T(n));
    }
    costs[j] = cost;
}
""",
    launch=_per_sample,
    host=_mean_squared_error,
)
"""costs[j] := ‖a - y‖², gradient := 2 (a - y) / n: the true gradient of the cost as written, (6) with its 2/n."""


def _one_hot(labels: Array, targets: Array) -> None:
    targets.fill(0)
    targets[labels, np.arange(labels.size)] = 1


def _one_hot_launch(labels: Array, targets: Array) -> Launch:
    outputs, n = targets.shape
    return Launch(blocks_for(outputs * n, _THREADS), _THREADS, (labels, targets, outputs, n))


one_hot = Raw(
    "one_hot",
    """
extern "C" __global__ void one_hot(const int* labels, T* targets, int outputs, int n) {
    int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at < outputs * n) targets[at] = T(labels[at % n] == at / n);
}
""",
    launch=_one_hot_launch,
    host=_one_hot,
    types={"T": 1},
)
"""targets[k, j] := 1 where k is the label of sample j, else 0."""


def _right_answers(scores: Array, labels: Array, right: Array) -> None:
    np.equal(np.argmax(scores, axis=0), labels, out=right, casting="unsafe")


def _right_answers_launch(scores: Array, labels: Array, right: Array) -> Launch:
    classes, n = scores.shape
    return Launch(blocks_for(n, _THREADS), _THREADS, (scores, labels, right, classes, n))


right_answers = Raw(
    "right_answers",
    """
extern "C" __global__ void right_answers(const T* scores, const int* labels, T* right, int classes, int n) {
    int j = blockIdx.x * blockDim.x + threadIdx.x;
    if (j >= n) return;
    int guess = 0;
    T best = scores[j];
    for (int k = 1; k < classes; ++k) {
        T v = scores[(long long)k * n + j];
        if (v > best) { best = v; guess = k; }
    }
    right[j] = T(guess == labels[j]);
}
""",
    launch=_right_answers_launch,
    host=_right_answers,
)
"""right[j] := 1 where argmax_k scores[k, j], the first of equals, is the label of sample j, else 0."""


def _accumulate(values: Array, weight: float, total: Array) -> None:
    total += float(np.add.reduce(values, dtype=np.float64)) * weight


def _accumulate_launch(values: Array, weight: float, total: Array) -> Launch:
    return Launch(1, _THREADS, (values, np.float64(weight), total, values.size))


accumulate = Raw(
    "accumulate",
    """
extern "C" __global__ void accumulate(const T* values, double weight, double* total, int n) {
    __shared__ double part[128];
    double sum = 0.0;
    for (int j = threadIdx.x; j < n; j += blockDim.x) sum += values[j];
    part[threadIdx.x] = sum;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) total[0] += weight * part[0];
}
""",
    launch=_accumulate_launch,
    host=_accumulate,
)
"""total[0] := total[0] + weight · Σ_j values[j], in float64 and in an order that never changes."""
