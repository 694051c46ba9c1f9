"""Embed tokens as rows of a table, and sum the gradient of the table without atomics.

Arrays are samples-last: tokens x (length, batch) as int32, their features y (features, length, batch); the table w is
(tokens, features). A token outside the table is clipped to the nearest row, so no other memory is read or written.
"""

import numpy as np

from gpunn.kernels.device_code import BLOCK_SUM
from gpunn.kernels.record import Array, Launch, per_element, raw

_THREADS, _FEATURES = 128, 16  # threads of a block of the gradient, and features that it sums at once


def _sizes(x: Array, w: Array) -> tuple[int, ...]:
    """Return length, batch, features, tokens, and whether the tokens of a sample are contiguous."""
    return *x.shape, w.shape[1], w.shape[0], int(x.strides[0] == x.itemsize)


@raw(
    """
extern "C" __global__ void embed(const int* x, const T* w, T* y, int length, int n, int features, int tokens,
                                 int by_sample_strides) {
    long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= (long long)features * length * n) return;
    long long place = at % ((long long)length * n);
    long long feature = at / ((long long)length * n);
    int token = x[by_sample_strides ? place % n * length + place / n : place];
    token = token < 0 ? 0 : token >= tokens ? tokens - 1 : token;
    y[at] = w[(long long)token * features + feature];
}
""",
    launch=lambda x, w, y: per_element(y.size, x, w, y, *_sizes(x, w)),
    types={"T": 1},
)
def embed(x: Array, w: Array, y: Array) -> None:
    """y[f, …, t, j] := w[x[t, j], f]."""
    np.copyto(y.reshape(w.shape[1], -1), w.take(x.reshape(-1), axis=0, mode="clip").T)


# A block for each token of the table and 16 features scans all tokens of the batch and adds its own, in an order that
# depends on the sizes alone. So the bits never change, and it needs neither atomics nor memory for a sorted copy.
@raw(
    f"""
extern "C" __global__ void embed_gradient(const int* x, const T* dy, T* dw, int length, int n, int features, int tokens,
                                          int by_sample_strides) {{
    __shared__ T part[{_THREADS}];
    T sum[{_FEATURES}];
    for (int k = 0; k < {_FEATURES}; k++) sum[k] = T(0);
    long long places = (long long)length * n;
    int first = blockIdx.y * {_FEATURES}, count = min({_FEATURES}, features - first), own = blockIdx.x;
    for (long long at = threadIdx.x; at < places; at += blockDim.x) {{
        int token = x[at];
        token = token < 0 ? 0 : token >= tokens ? tokens - 1 : token;
        if (token != own) continue;
        const T* from = dy + first * places + (by_sample_strides ? at % length * n + at / length : at);
        for (int k = 0; k < count; k++) sum[k] += from[k * places];
    }}
    for (int k = 0; k < count; k++) {{
        T total = block_sum(sum[k], part);
        if (threadIdx.x == 0) dw[(long long)own * features + first + k] = total;
    }}
}}
""",
    launch=lambda x, dy, dw: Launch(
        (dw.shape[0], -(-dw.shape[1] // _FEATURES), 1), _THREADS, (x, dy, dw, *_sizes(x, dw))
    ),
    types={"T": 1},
    preamble=BLOCK_SUM,
)
def embed_gradient(x: Array, dy: Array, dw: Array) -> None:
    """dw[v, f] := Σ dy[f, …, t, j] over all t, j with x[t, j] = v; 0 for tokens that are not in the batch."""
    tokens, features = dw.shape
    places, rows = np.clip(x.reshape(-1), 0, tokens - 1).astype(np.intp), dy.reshape(features, -1)
    if tokens <= 2 * len(places):
        for feature in range(features):  # bincount adds in float64, one after another
            dw[:, feature] = np.bincount(places, rows[feature], tokens)
        return
    # For a table far larger than the batch, sum only the rows of tokens in the batch.
    found, places = np.unique(places, return_inverse=True)
    sums = np.empty((features, len(found)), dw.dtype)
    for feature in range(features):
        sums[feature] = np.bincount(places, rows[feature], len(found))
    dw.fill(0)
    dw[found] = sums.T
