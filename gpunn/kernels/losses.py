"""The costs: in one pass over a batch its cost, the gradients by z and by the last bias, and the right answers.

All arrays are samples-last: outputs and targets are (outputs, batch), labels and costs (batch,). The last bias is added
here: z + bias is what the cost is of. Gradients hold the 1/n of the mean over the batch. Costs are computed from z in
forms that stay finite for every finite z. `totals` gains weight · Σ costs, and the number of right answers: of samples
those where the first of the largest outputs is that of the largest target; where `each` output is a question by itself,
of outputs those where a ≥ ½ if and only if y ≥ ½.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gpunn.kernels.loops import in_loops
from gpunn.kernels.record import Array, Launch, Raw, blocks_for

_THREADS = 256


def _finish(gradient: Array, right: Array, costs: Array, weight: float, bias_gradient: Array, totals: Array) -> None:
    np.add.reduce(gradient, axis=1, out=bias_gradient)
    totals[0] += weight * float(np.add.reduce(costs, dtype=np.float64))
    totals[1] += np.count_nonzero(right)


def _right(a: Array, targets: Array, each: bool) -> Array:
    """Which answers are right: those of samples, or of each output."""
    if each:
        return (a >= 0.5) == (targets >= 0.5)
    return np.argmax(a, axis=0) == np.argmax(targets, axis=0)


def _launch(
    z: Array,
    bias: Array,
    targets: Array,
    weight: float,
    gradient: Array,
    bias_gradient: Array,
    costs: Array,
    totals: Array,
    *each: bool,
) -> Launch:
    arrays = (z, bias, targets, gradient, bias_gradient, costs, totals)
    return Launch(1, _THREADS, (*arrays, np.float64(weight), *z.shape, *map(int, each)))


def _cost(name: str, targets: str, sample: str, host: Callable[..., None], more: str = "") -> Raw:
    """A record whose CUDA source differs from the others' in what it does for one sample.

    Args:
        name: of the kernel.
        targets: C++ type of the targets.
        sample: C++ that sets `cost` and the number of right answers, `hits`, and writes the gradient of sample j.
        host: the NumPy twin.
        more: C++ parameters that come last.
    """
    # One block: a batch has few outputs, and so all its sums are made here, in an order that never changes.
    source = f"""
__device__ inline double sum_of_block(double value, double* part) {{
    part[threadIdx.x] = value;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {{
        if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
        __syncthreads();
    }}
    double sum = part[0];
    __syncthreads();
    return sum;
}}

extern "C" __global__ void {name}(const T* z, const T* bias, const {targets}* targets, T* gradient, T* bias_gradient,
                                  T* costs, double* totals, double weight, int outputs, int n{more}) {{
    __shared__ double part[256];
    double sum = 0.0, right = 0.0;
    for (int j = threadIdx.x; j < n; j += blockDim.x) {{
        T cost = T(0);
        int hits = 0;
        {sample}
        costs[j] = cost;
        sum += cost;
        right += hits;
    }}
    sum = sum_of_block(sum, part);
    right = sum_of_block(right, part);
    if (threadIdx.x == 0) {{
        totals[0] += weight * sum;
        totals[1] += right;
    }}
    // A warp for each output, over the gradient that the block has written.
    int lane = threadIdx.x % 32;
    for (int k = threadIdx.x / 32; k < outputs; k += blockDim.x / 32) {{
        T total = T(0);
        for (int j = lane; j < n; j += 32) total += gradient[(long long)k * n + j];
        for (int offset = 16; offset > 0; offset /= 2) total += __shfl_down_sync(0xffffffffu, total, offset);
        if (lane == 0) bias_gradient[k] = total;
    }}
}}
"""
    return Raw(name, source, launch=_launch, host=host)


def _softmax_cross_entropy_loops(
    z: Array,
    bias: Array,
    labels: Array,
    weight: float,
    gradient: Array,
    bias_gradient: Array,
    costs: Array,
    totals: Array,
) -> None:
    outputs, n = z.shape
    real = z.dtype.type
    bias_gradient[:] = real(0)
    cost, right = 0.0, 0
    for j in range(n):
        guess = 0
        largest = z[0, j] + bias[0]
        for k in range(outputs):
            v = z[k, j] + bias[k]
            gradient[k, j] = v
            if v > largest or (np.isnan(v) and not np.isnan(largest)):  # as NumPy has it: NaN is above all
                largest, guess = v, k
        label = labels[j]
        of_label = gradient[label, j] - largest
        total = real(0)
        for k in range(outputs):
            e = np.exp(gradient[k, j] - largest)
            gradient[k, j] = e
            total += e
        costs[j] = np.log(total) - of_label
        total *= real(n)
        for k in range(outputs):
            share = gradient[k, j] / total
            if k == label:
                share -= real(1 / n)
            gradient[k, j] = share
            bias_gradient[k] += share
        cost += costs[j]
        right += guess == label
    totals[0] += weight * cost
    totals[1] += right


@in_loops(_softmax_cross_entropy_loops)
def _softmax_cross_entropy(
    z: Array,
    bias: Array,
    labels: Array,
    weight: float,
    gradient: Array,
    bias_gradient: Array,
    costs: Array,
    totals: Array,
) -> None:
    n = z.shape[1]
    # By places in the flat array: NumPy takes a third of the time that it takes with an index for each axis.
    flat, at = gradient.reshape(-1), labels * np.intp(n)
    at += np.arange(n)
    np.add(z, bias[:, None], out=gradient)
    right = gradient.argmax(axis=0) == labels
    np.subtract(gradient, np.maximum.reduce(gradient, axis=0), out=gradient)
    of_label = flat.take(at)
    np.exp(gradient, out=gradient)
    total = np.add.reduce(gradient, axis=0)
    np.log(total, out=costs)
    costs -= of_label
    total *= n
    np.divide(gradient, total, out=gradient)
    flat[at] -= gradient.dtype.type(1 / n)
    _finish(gradient, right, costs, weight, bias_gradient, totals)


softmax_cross_entropy = _cost(
    "softmax_cross_entropy",
    "int",
    """
        int guess = 0;
        T largest = z[j] + bias[0];
        for (int k = 1; k < outputs; ++k) {
            T v = z[(long long)k * n + j] + bias[k];
            if (v > largest) { largest = v; guess = k; }
        }
        T total = T(0);
        for (int k = 0; k < outputs; ++k) total += exp(z[(long long)k * n + j] + bias[k] - largest);
        int label = targets[j];
        hits = guess == label;
        cost = log(total) - (z[(long long)label * n + j] + bias[label] - largest);
        for (int k = 0; k < outputs; ++k) {
            long long at = (long long)k * n + j;
            gradient[at] = (exp(z[at] + bias[k] - largest) / total - T(k == label)) / T(n);
        }
""",
    _softmax_cross_entropy,
)
"""costs[j] := -ln softmax(z + b)_label (log-sum-exp form), gradient := (softmax(z + b) - onehot(label)) / n."""


def _binary_cross_entropy(
    z: Array,
    bias: Array,
    targets: Array,
    weight: float,
    gradient: Array,
    bias_gradient: Array,
    costs: Array,
    totals: Array,
    each: bool,
) -> None:
    z = z + bias[:, None]
    right = None if each else _right(z, targets, each)
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
    if right is None:  # asked of a and not of z, as `predict` does
        right = _right(gradient, targets, each)
    gradient -= targets
    gradient *= z.dtype.type(1 / z.shape[1])
    _finish(gradient, right, costs, weight, bias_gradient, totals)


_WITH_TARGETS = """
        int guess = 0, wanted = 0, agreed = 0;
        T largest = z[j] + bias[0], most = targets[j];
        for (int k = 0; k < outputs; ++k) {
            long long at = (long long)k * n + j;
            T v = z[at] + bias[k], y = targets[at];
            if (v > largest) { largest = v; guess = k; }
            if (y > most) { most = y; wanted = k; }
            %s
        }
        hits = each ? agreed : guess == wanted;
"""

binary_cross_entropy = _cost(
    "binary_cross_entropy",
    "T",
    _WITH_TARGETS
    % """
            T e = exp(-abs(v));
            cost += (v < T(0) ? T(0) : v) - v * y + log1p(e);
            T a = (v >= T(0) ? T(1) : e) / (T(1) + e);
            agreed += (a >= T(0.5)) == (y >= T(0.5));
            gradient[at] = (a - y) / T(n);
""",
    _binary_cross_entropy,
    ", int each",
)
"""costs[j] := -Σ y ln a + (1 - y) ln(1 - a) with a = sigmoid(z + b); gradient := (a - y) / n, (7)."""


def _mean_squared_error(
    a: Array,
    bias: Array,
    targets: Array,
    weight: float,
    gradient: Array,
    bias_gradient: Array,
    costs: Array,
    totals: Array,
    each: bool,
) -> None:
    np.add(a, bias[:, None], out=gradient)
    right = _right(gradient, targets, each)
    np.subtract(gradient, targets, out=gradient)
    np.add.reduce(np.square(gradient), axis=0, out=costs)
    gradient *= a.dtype.type(2 / a.shape[1])
    _finish(gradient, right, costs, weight, bias_gradient, totals)


mean_squared_error = _cost(
    "mean_squared_error",
    "T",
    _WITH_TARGETS
    % """
            cost += (v - y) * (v - y);
            agreed += (v >= T(0.5)) == (y >= T(0.5));
            gradient[at] = (v - y) * (T(2) / T(n));
""",
    _mean_squared_error,
    ", int each",
)
"""costs[j] := ‖a - y‖², gradient := 2 (a - y) / n: the true gradient of the cost as written, (6) with its 2/n."""


def _one_hot(labels: Array, targets: Array) -> None:
    outputs = len(targets)
    np.equal(labels, np.arange(outputs)[:, None] + (outputs == 1), out=targets)


def _one_hot_launch(labels: Array, targets: Array) -> Launch:
    return Launch(blocks_for(targets.size, _THREADS), _THREADS, (labels, targets, *targets.shape))


one_hot = Raw(
    "one_hot",
    """
extern "C" __global__ void one_hot(const int* labels, T* targets, int outputs, int n) {
    int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at < outputs * n) targets[at] = T(labels[at % n] == at / n + (outputs == 1));
}
""",
    launch=_one_hot_launch,
    host=_one_hot,
    types={"T": 1},
)
"""targets[k, j] := 1 where k is the label of sample j, else 0; one output alone stands for class 1 of two."""
