"""Convolution in groups, channel by channel: for groups so small that a matrix product of each would be slow.

Arrays are samples-last with the group first: x (groups, channels, height, width, batch), z (groups, filters, rows,
columns, batch), w (groups, filters, channels, size, size), with the channels and filters of one group; `geometry` is
that of `gpunn/kernels/convolution.py`. Depthwise convolution has one channel in each group.
"""

from collections.abc import Iterator

import numpy as np

from gpunn.kernels import loops
from gpunn.kernels.bias import sums_of_rows
from gpunn.kernels.convolution import Geometry, taps
from gpunn.kernels.cores import by_channels
from gpunn.kernels.device import BLOCK_SUM
from gpunn.kernels.record import Array, Launch, per_element, raw

_THREADS = 128


def _pairs(x: Array, w: Array, geometry: Geometry, z: Array) -> Iterator[tuple[int, int, int, int, Array, Array]]:
    """Yield for each filter, channel, and place u, v in the filter: these, and the views of x and z that meet there."""
    across = geometry[1]
    for place, (i, j, y, x_at) in enumerate(taps(geometry, range(z.shape[2]), z.shape[3], *x.shape[2:4])):
        for f in range(w.shape[1]):
            for c in range(w.shape[2]):
                yield f, c, place // across, place % across, x[:, c, y, x_at], z[:, f, i, j]


@raw(
    """
extern "C" __global__ void NAME(const T* x, const T* w, int size_h, int size_w, int stride_h, int stride_w, int top,
                                int left, T* z, int groups, int filters, int rows, int columns, int n, int channels,
                                int height, int width) {
    long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= (long long)groups * filters * rows * columns * n) return;
    int sample = at % n, column = at / n % columns, row = at / n / columns % rows, filter = at / n / columns / rows;
    T sum = T(0);
    for (int c = 0; c < channels; ++c) {
        const T* image = x + ((long long)(filter / filters) * channels + c) * height * width * n + sample;
        const T* weights = w + ((long long)filter * channels + c) * size_h * size_w;
        for (int u = 0; u < size_h; ++u) {
            int y = row * stride_h + u - top;
            if (y < 0 || y >= height) continue;
            for (int v = 0; v < size_w; ++v) {
                int x_at = column * stride_w + v - left;
                if (x_at < 0 || x_at >= width) continue;
                sum += weights[u * size_w + v] * image[((long long)y * width + x_at) * n];
            }
        }
    }
    z[at] = sum;
}
""",
    launch=lambda x, w, geometry, z: per_element(z.size, x, w, *geometry, z, *z.shape, *x.shape[1:4]),
)
@by_channels
@loops.in_loops(loops.convolve_groups)
def convolve_groups(x: Array, w: Array, geometry: Geometry, z: Array) -> None:
    """z[g, f, i, j] := Σ_{c,u,v} w[g, f, c, u, v] x[g, c, i·stride + u − pad, j·stride + v − pad], 0 outside x."""
    z.fill(0)
    product = np.empty(z[:, 0].size, z.dtype)
    for f, c, u, v, seen, target in _pairs(x, w, geometry, z):
        share = product[: seen.size].reshape(seen.shape)
        np.multiply(seen, w[:, f, c, u, v, None, None, None], out=share)
        target += share


@raw(
    """
extern "C" __global__ void NAME(const T* dz, const T* w, int size_h, int size_w, int stride_h, int stride_w, int top,
                                int left, T* dx, int groups, int channels, int height, int width, int n, int filters,
                                int rows, int columns) {
    long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= (long long)groups * channels * height * width * n) return;
    // One thread gathers all that one input gave, in an order that never changes: no atomics.
    int sample = at % n, x_at = at / n % width, y = at / n / width % height, channel = at / n / width / height;
    int group = channel / channels, c = channel % channels;
    T sum = T(0);
    for (int f = group * filters; f < (group + 1) * filters; ++f) {
        const T* delta = dz + (long long)f * rows * columns * n + sample;
        const T* weights = w + ((long long)f * channels + c) * size_h * size_w;
        for (int u = 0; u < size_h; ++u) {
            int down = y + top - u;
            if (down < 0 || down % stride_h || down / stride_h >= rows) continue;
            for (int v = 0; v < size_w; ++v) {
                int across = x_at + left - v;
                if (across < 0 || across % stride_w || across / stride_w >= columns) continue;
                long long place = (long long)(down / stride_h) * columns + across / stride_w;
                sum += weights[u * size_w + v] * delta[place * n];
            }
        }
    }
    dx[at] = sum;
}
""",
    launch=lambda dz, w, geometry, dx: per_element(dx.size, dz, w, *geometry, dx, *dx.shape, *dz.shape[1:4]),
)
@by_channels
@loops.in_loops(loops.convolve_groups_input_gradient)
def convolve_groups_input_gradient(dz: Array, w: Array, geometry: Geometry, dx: Array) -> None:
    """dx[g, c, y, x] := Σ_{f,u,v} w[g, f, c, u, v] dz[g, f, i, j] over the places i, j that see y, x from u, v."""
    dx.fill(0)
    product = np.empty(dz[:, 0].size, dx.dtype)
    for f, c, u, v, target, delta in _pairs(dx, w, geometry, dz):
        share = product[: delta.size].reshape(delta.shape)
        np.multiply(delta, w[:, f, c, u, v, None, None, None], out=share)
        target += share


@raw(
    """
extern "C" __global__ void NAME(const T* x, const T* dz, int size_h, int size_w, int stride_h, int stride_w, int top,
                                int left, T* dw, int filters, int channels, int height, int width, int rows,
                                int columns, int n) {
    __shared__ T part[128];
    // One block a weight: its threads go along the batch, and their sums are added in an order that never changes.
    int v = blockIdx.x % size_w, u = blockIdx.x / size_w % size_h, c = blockIdx.x / size_w / size_h % channels;
    int f = blockIdx.x / size_w / size_h / channels;
    const T* image = x + ((long long)(f / filters) * channels + c) * height * width * n;
    const T* delta = dz + (long long)f * rows * columns * n;
    T sum = T(0);
    for (long long at = threadIdx.x; at < (long long)rows * columns * n; at += blockDim.x) {
        int y = at / n / columns * stride_h + u - top, x_at = at / n % columns * stride_w + v - left;
        if (y < 0 || y >= height || x_at < 0 || x_at >= width) continue;
        sum += delta[at] * image[((long long)y * width + x_at) * n + at % n];
    }
    sum = block_sum(sum, part);
    if (threadIdx.x == 0) dw[blockIdx.x] = sum;
}
""",
    launch=lambda x, dz, geometry, dw: Launch(
        dw.size, _THREADS, (x, dz, *geometry, dw, *dw.shape[1:3], *x.shape[2:4], *dz.shape[2:5])
    ),
    preamble=BLOCK_SUM,
)
@by_channels
@loops.in_loops(loops.convolve_groups_weight_gradient)
def convolve_groups_weight_gradient(x: Array, dz: Array, geometry: Geometry, dw: Array) -> None:
    """dw[g, f, c, u, v] := Σ_{i,j,sample} dz[g, f, i, j] x[g, c, i·stride + u − pad, j·stride + v − pad]."""
    for f, c, u, v, seen, delta in _pairs(x, dw, geometry, dz):
        dw[:, f, c, u, v] = sums_of_rows(*(each.reshape(len(dw), -1) for each in (seen, delta)))
