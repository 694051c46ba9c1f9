"""Compute losses in one pass over a batch: loss, gradients by z and by the last bias, and correct predictions.

All arrays are samples-last: outputs and targets are (outputs, batch), labels and losses (batch,). The last bias is
added here, so the loss is that of z + bias. Gradients include the 1/n of the mean, where n is `of`, the samples in the
batch of all ranks. Losses are computed from z in forms that stay finite for every finite z. `totals` gains
weight · Σ losses and the number of correct predictions: samples whose first largest output is at the first largest
target, or, if `each` output is a binary prediction, outputs with a ≥ ½ exactly where y ≥ ½.

Each formula makes two kernels. One gives all samples the same weight. The other takes sample weights w (batch,):
gradients are multiplied by w, and totals gain weight · Σ w · losses, Σ w of the correct predictions, and Σ w.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from gpunn.kernels import numba_loops
from gpunn.kernels.device_code import BLOCK_SUM, OF_SAMPLES, SHARED_ROWS, samples_of_block
from gpunn.kernels.record import Array, Host, Launch, Raw, per_element, raw

_THREADS = 256
_FEW = 2**14  # elements of a gradient that one block may sum for the bias
weighted: dict[Raw, Raw] = {}  # kernels for weighted samples, by the kernel of the same loss without weights


def _correct(a: Array, targets: Array, each: bool) -> Array:
    """Return a mask of the correct predictions, of samples or of `each` output."""
    if each:
        return (a >= 0.5) == (targets >= 0.5)
    return np.argmax(a, axis=0) == np.argmax(targets, axis=0)


def blocks(outputs: int, n: int) -> int:
    """Return the number of blocks of a device for a batch."""
    return -(-n >> samples_of_block(outputs, _THREADS))


def leaves_sums(outputs: int, n: int) -> bool:
    """Return whether a device sums the gradient of the bias in a later kernel, as one block would take too long."""
    return outputs * n > _FEW


def _launch(z: Array, bias: Array, targets: Array, weight: float, *others: Array) -> Launch:
    outputs, n = z.shape
    summed = 0 if leaves_sums(outputs, n) else outputs
    sizes = outputs, n, samples_of_block(outputs, _THREADS), summed
    return Launch(blocks(outputs, n), _THREADS, (z, bias, targets, np.float64(weight), *others, *sizes))


_BEST = """
struct Best { T value; int at; };  // the first largest output and its index, −1 for none
__device__ inline void take(Best& best, T value, int at) {
    if (best.at < 0 || value > best.value || (value == best.value && at < best.at)) best = {value, at};
}
__device__ inline Best best_of_sample(Best best, int samples, T* values, int* places) {
    values[threadIdx.x] = best.value;
    places[threadIdx.x] = best.at;
    __syncthreads();
    best.at = -1;
    for (int at = threadIdx.x & (samples - 1); at < blockDim.x; at += samples)
        if (places[at] >= 0) take(best, values[at], places[at]);
    __syncthreads();
    return best;
}
"""


def _source(targets: str, sample: str, more: str, is_weighted: bool) -> str:
    """Return the CUDA source of a loss; see `_loss`."""
    parameter, w = ("const T* __restrict__ weights,", "weights[j]") if is_weighted else ("", "T(1)")
    sums, whole = (3, "sums[2] = w;") if is_weighted else (2, "")
    return f"""
extern "C" __global__ void NAME(const T* __restrict__ z, const T* __restrict__ bias,
                                const {targets}* __restrict__ targets, double weight, {parameter}
                                T* __restrict__ gradient, T* bias_gradient, T* losses, double* totals, int of,
                                double* parts, unsigned* ticket{more}, int outputs, int n, int shift, int summed) {{
    __shared__ double part[3 * 256 / 32];
    __shared__ T values[256];
    __shared__ int places[256];
    int samples = 1 << shift, lane = threadIdx.x >> shift, lanes = blockDim.x >> shift;
    long long j = (long long)blockIdx.x * samples + (threadIdx.x & (samples - 1));
    int end = j < n ? outputs : 0;  // every thread takes part in the sums
    T loss = T(0), w = j < n ? {w} : T(0);
    int hits = 0;
    T held[4];  // outputs of this thread that need not be read again
    #pragma unroll
    for (int u = 0; u < 4; ++u) {{
        int k = lane + u * lanes;
        if (k < end) held[u] = z[(long long)k * n + j] + bias[k];
    }}
    auto each_output = [&](auto use) {{
        #pragma unroll
        for (int u = 0; u < 4; ++u) {{
            int k = lane + u * lanes;
            if (k < end) use(k, (long long)k * n + j, held[u]);
        }}
        #pragma unroll 4
        for (int k = lane + 4 * lanes; k < end; k += lanes) {{
            long long at = (long long)k * n + j;
            use(k, at, z[at] + bias[k]);
        }}
    }};
    {sample}
    double sums[{sums}] = {{}};
    if (lane == 0 && j < n) {{
        losses[j] = loss;
        sums[0] = double(w) * loss;
        sums[1] = double(w) * hits;
        {whole}
    }}
    block_sums(sums, part);
    if (gridDim.x > 1) {{
        if (threadIdx.x == 0) {{
            #pragma unroll
            for (int k = 0; k < {sums}; ++k) parts[blockIdx.x * {sums} + k] = sums[k];
        }}
        if (!is_last_block(ticket, gridDim.x)) return;
        #pragma unroll
        for (int k = 0; k < {sums}; ++k) {{
            sums[k] = 0.0;
            for (int block = threadIdx.x; block < gridDim.x; block += blockDim.x) sums[k] += parts[block * {sums} + k];
        }}
        block_sums(sums, part);
    }}
    if (threadIdx.x == 0) {{
        totals[0] += weight * sums[0];
        #pragma unroll
        for (int k = 1; k < {sums}; ++k) totals[k] += sums[k];
    }}
    // One warp per output sums the gradient that the blocks have written.
    for (int k = threadIdx.x / 32; k < summed; k += blockDim.x / 32) {{
        T total = T(0);
        #pragma unroll 4
        for (int i = threadIdx.x % 32; i < n; i += 32) total += gradient[(long long)k * n + i];
        total = warp_sum(total);
        if (threadIdx.x % 32 == 0) bias_gradient[k] = total;
    }}
}}
"""


def _loss(
    targets: str, sample: str, *, more: str = "", faster: Host | None = None, is_listed: bool = True
) -> Callable[[Callable[..., Array]], Raw]:
    """Return a decorator that makes the records of a formula, which sets gradient and losses and returns correct ones.

    `sample` is C++ that sets `loss` and `hits`, the number of correct predictions, and writes the gradient of sample j
    times its weight `w`, the constant 1 for samples without weights. `weighted` gets the record for sample weights.
    """

    def decorate(formula: Callable[..., Array]) -> Raw:
        def host(
            z: Array, bias: Array, targets: Array, weight: float, gradient: Array, bias_gradient: Array, losses: Array,
            totals: Array, of: int, parts: Array, ticket: Array, *others: Any,  # noqa: ARG001 - scratch of a device
        ) -> None:  # fmt: skip
            correct = formula(z, bias[:, None], targets, gradient, losses, of, *others)
            np.add.reduce(gradient, axis=1, out=bias_gradient)
            totals[0] += weight * float(np.add.reduce(losses, dtype=np.float64))
            totals[1] += np.count_nonzero(correct)

        def weighted_host(
            z: Array, bias: Array, targets: Array, weight: float, weights: Array, gradient: Array, bias_gradient: Array,
            losses: Array, totals: Array, of: int, parts: Array, ticket: Array, *others: Any,  # noqa: ARG001
        ) -> None:  # fmt: skip
            correct = formula(z, bias[:, None], targets, gradient, losses, of, *others)
            gradient *= weights
            np.add.reduce(gradient, axis=1, out=bias_gradient)
            totals[0] += weight * float(np.add.reduce(np.multiply(weights, losses, dtype=np.float64)))
            totals[1] += float(np.add.reduce(np.multiply(weights, correct, dtype=np.float64), axis=None))
            totals[2] += float(np.add.reduce(weights, dtype=np.float64))

        host.__name__, weighted_host.__name__ = formula.__name__, f"weighted_{formula.__name__}"
        body = numba_loops.in_loops(faster)(host) if faster else host
        preamble = BLOCK_SUM + SHARED_ROWS + OF_SAMPLES + _BEST
        options: dict[str, Any] = {"launch": _launch, "preamble": preamble, "is_listed": is_listed}
        plain = raw(_source(targets, sample, more, False), **options)(body)
        weighted[plain] = raw(_source(targets, sample, more, True), **options)(weighted_host)
        return plain

    return decorate


@_loss(
    "int",
    """
        Best best = {T(0), -1};
        each_output([&](int k, long long at, T v) { take(best, v, k); });
        best = best_of_sample(best, samples, values, places);
        T largest = best.value, total = T(0), sum_of_all = T(0);
        each_output([&](int k, long long at, T v) {
            total += exp(v - largest);
            sum_of_all += v - largest;
        });
        total = sum_of_sample(total, samples, values);
        if (smoothing > T(0)) sum_of_all = sum_of_sample(sum_of_all, samples, values);
        T share = w / T(of), part_of_total = share / total;
        T off = smoothing / T(outputs) * share, on = (T(1) - smoothing) * share + off;
        int label = end ? targets[j] : 0;
        if (label >= 0 && label < outputs) {
            hits = best.at == label;
            T aim = end ? z[(long long)label * n + j] + bias[label] - largest : T(0);
            if (smoothing > T(0)) aim = (T(1) - smoothing) * aim + smoothing * (sum_of_all / T(outputs));
            loss = log(total) - aim;
        } else {  // a label out of range: NaN in loss and gradient show it, and no memory outside z is read
            loss = off = T(0) / T(0);
        }
        each_output([&](int k, long long at, T v) {
            gradient[at] = exp(v - largest) * part_of_total - (k == label ? on : off);
        });
""",
    more=", T smoothing",
    faster=numba_loops.softmax_cross_entropy,
)
def softmax_cross_entropy(
    z: Array, bias: Array, labels: Array, gradient: Array, losses: Array, of: int, smoothing: float
) -> Array:
    """losses[j] := -Σ t ln softmax(z + b) (log-sum-exp form), gradient := (softmax(z + b) - t) / of.

    The targets t are (1 - smoothing) onehot(label) + smoothing / outputs.
    """
    n = z.shape[1]
    # Flat indices: NumPy takes a third of the time that it takes with an index per axis.
    flat, at = gradient.reshape(-1), labels * np.intp(n)
    at += np.arange(n)
    np.add(z, bias, out=gradient)
    correct = gradient.argmax(axis=0) == labels
    np.subtract(gradient, np.maximum.reduce(gradient, axis=0), out=gradient)
    aim = flat.take(at)
    if smoothing:
        aim *= aim.dtype.type(1 - smoothing)
        aim += gradient.mean(axis=0) * aim.dtype.type(smoothing)
    np.exp(gradient, out=gradient)
    total = np.add.reduce(gradient, axis=0)
    np.log(total, out=losses)
    losses -= aim
    total *= of
    np.divide(gradient, total, out=gradient)
    if smoothing:
        gradient -= gradient.dtype.type(smoothing / (of * len(z)))
    flat[at] -= gradient.dtype.type((1 - smoothing) / of)
    return correct


_WITH_TARGETS = """
        Best guess = {T(0), -1}, wanted = guess;
        int agreed = 0;
        each_output([&](int k, long long at, T v) {
            T y = targets[at];
            take(guess, v, k);
            take(wanted, y, k);
            %s
        });
        loss = sum_of_sample(loss, samples, values);
        if (each) {
            hits = sum_of_sample(agreed, samples, places);
        } else {
            guess = best_of_sample(guess, samples, values, places);
            hits = guess.at == best_of_sample(wanted, samples, values, places).at;
        }
"""


@_loss(
    "T",
    _WITH_TARGETS
    % """
            T e = exp(-abs(v));
            loss += (v < T(0) ? T(0) : v) - v * y + log1p(e);
            T a = (v >= T(0) ? T(1) : e) / (T(1) + e);
            agreed += (a >= T(0.5)) == (y >= T(0.5));
            gradient[at] = w * (a - y) / T(of);
""",
    more=", bool each",
)
def binary_cross_entropy(
    z: Array, bias: Array, targets: Array, gradient: Array, losses: Array, of: int, each: bool
) -> Array:
    """losses[j] := -Σ y ln a + (1 - y) ln(1 - a) with a = sigmoid(z + b); gradient := (a - y) / of, (7)."""
    z = z + bias
    # -y ln a - (1 - y) ln(1 - a) with a = sigmoid(z) is max(z, 0) - z y + ln(1 + e^{-|z|}).
    exponential = np.abs(z)
    np.negative(exponential, out=exponential)
    np.exp(exponential, out=exponential)
    terms = np.maximum(z, 0)
    terms -= z * targets
    terms += np.log1p(exponential)
    np.add.reduce(terms, axis=0, out=losses)
    # sigmoid(z) is 1/(1 + e^{-|z|}) for z >= 0, and e^{-|z|}/(1 + e^{-|z|}) below.
    np.divide(np.where(z >= 0, z.dtype.type(1), exponential), exponential + 1, out=gradient)
    correct = _correct(gradient if each else z, targets, each)  # by a = sigmoid(z), as `predict` compares it with ½
    gradient -= targets
    gradient *= z.dtype.type(1 / of)
    return correct


@_loss(
    "T",
    _WITH_TARGETS
    % """
            loss += (v - y) * (v - y);
            agreed += (v >= T(0.5)) == (y >= T(0.5));
            gradient[at] = w * (v - y) * (T(2) / T(of));
""",
    more=", bool each",
)
def mean_squared_error(
    a: Array, bias: Array, targets: Array, gradient: Array, losses: Array, of: int, each: bool
) -> Array:
    """losses[j] := ‖a - y‖², gradient := 2 (a - y) / of, (6): the true gradient of the loss, with its factor 2/n."""
    np.add(a, bias, out=gradient)
    correct = _correct(gradient, targets, each)
    np.subtract(gradient, targets, out=gradient)
    np.add.reduce(np.square(gradient), axis=0, out=losses)
    gradient *= a.dtype.type(2 / of)
    return correct


def summed_over_outputs(name: str, sample: str, outputs: Callable[[Array, Array, Array], Array]) -> tuple[Raw, Raw]:
    """Make the kernels of a loss that sums a formula over the outputs, without and with weights; they are not listed.

    `sample` is C++ for one output v and its target y; it adds to `loss` and sets gradient[at]. `outputs` takes outputs,
    targets and an array for the derivatives, and returns the loss of each output.
    """

    def formula(z: Array, bias: Array, targets: Array, gradient: Array, losses: Array, of: int, each: bool) -> Array:
        a = z + bias
        np.add.reduce(outputs(a, targets, gradient), axis=0, out=losses)
        gradient *= a.dtype.type(1 / of)
        return _correct(a, targets, each)

    formula.__name__ = name
    agreed = "agreed += (v >= T(0.5)) == (y >= T(0.5));"
    kernel = _loss("T", _WITH_TARGETS % f"{sample} {agreed}", more=", bool each", is_listed=False)(formula)
    return kernel, weighted.pop(kernel)


@raw(
    """
extern "C" __global__ void one_hot(const int* labels, T* targets, int outputs, int n) {
    long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at < (long long)outputs * n) targets[at] = T(labels[at % n] == at / n + (outputs == 1));
}
""",
    launch=lambda labels, targets: per_element(targets.size, labels, targets, *targets.shape),
    types={"T": 1},
)
def one_hot(labels: Array, targets: Array) -> None:
    """targets[k, j] := 1 where k is the label of sample j, else 0; a single output is class 1 of two."""
    outputs = len(targets)
    np.equal(labels, np.arange(outputs)[:, None] + (outputs == 1), out=targets)
