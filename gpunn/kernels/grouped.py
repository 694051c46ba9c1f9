"""Compute grouped convolution channel by channel, where a matrix product for each small group would be slow.

Arrays are samples-last with the group first: x (groups, channels, height, width, batch), z (groups, filters, rows,
columns, batch), w (groups, filters, channels, size, size), with channels and filters counted per group; `geometry` is
that of `gpunn/kernels/convolution.py`. Depthwise convolution has one channel per group.
"""

from collections.abc import Iterator

import numpy as np

from gpunn.kernels import numba_loops
from gpunn.kernels.bias import sums_of_rows
from gpunn.kernels.convolution import taps
from gpunn.kernels.cores import by_channels
from gpunn.kernels.device_code import BLOCK_SUM
from gpunn.kernels.image_grid import PLACES, Geometry, launch_per_pixel, samples, window_constants
from gpunn.kernels.record import Array, Launch, raw

_THREADS = 128


def _pairs(x: Array, w: Array, geometry: Geometry, z: Array) -> Iterator[tuple[int, int, int, int, Array, Array]]:
    """Yield each filter f, channel c and position u, v in the filter, with the views of x and z that meet there."""
    for tap, (i, j, y, x_at) in enumerate(taps(geometry, range(z.shape[2]), z.shape[3], *x.shape[2:4])):
        for f in range(w.shape[1]):
            for c in range(w.shape[2]):
                yield f, c, *divmod(tap, geometry[1]), x[:, c, y, x_at], z[:, f, i, j]


def _constants(given: Array, w: Array, geometry: Geometry, result: Array) -> dict[str, int]:
    """Return the constants of a kernel: windows, samples, and the filters and channels of a group."""
    return window_constants(geometry, given, result) | {"FILTERS": w.shape[1], "CHANNELS": w.shape[2]}


def _launch(given: Array, w: Array, geometry: Geometry, result: Array) -> Launch:
    """Launch a thread for some samples of each pixel of the result."""
    groups, channels, height, width, n = result.shape
    arguments = given, w, *geometry[4:], result, groups * channels, height, width, *given.shape[2:4]
    return launch_per_pixel({"SAMPLES": samples(given, result)}, groups * channels, height, width, n, *arguments)


@raw(
    """
extern "C" __global__ void NAME(const T* __restrict__ x, const T* __restrict__ w, int top, int left, T* __restrict__ z,
                                int filters, int rows, int columns, int height, int width, int groups, int shift) {
    FOR_PLACES(filters, rows, columns, groups, shift) {
        Samples sum = {};
        #pragma unroll 1
        for (int c = 0; c < CHANNELS; ++c) {
            long long of_x = (long long)(channel / FILTERS) * CHANNELS + c;
            const T* weights = w + ((long long)channel * CHANNELS + c) * SIZE_H * SIZE_W;
            #pragma unroll UNROLLED
            for (int u = 0; u < SIZE_H; ++u)
                #pragma unroll
                for (int v = 0; v < SIZE_W; ++v) {
                    int y = row * STRIDE_H + u - top, x_at = column * STRIDE_W + v - left;
                    if (!lies_in(y, height, x_at, width)) continue;
                    Samples seen = ((const Samples*)x)[place(of_x, height, y, width, x_at, groups, group)];
                    T weight = weights[u * SIZE_W + v];
                    EACH_SAMPLE(s) sum.of[s] += weight * seen.of[s];
                }
        }
        ((Samples*)z)[place(channel, rows, row, columns, column, groups, group)] = sum;
    }
}
""",
    launch=_launch,
    preamble=PLACES,
    constants=_constants,
)
@by_channels
@numba_loops.in_loops(numba_loops.convolve_groups)
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
extern "C" __global__ void NAME(const T* __restrict__ dz, const T* __restrict__ w, int top, int left,
                                T* __restrict__ dx, int channels, int height, int width, int rows, int columns,
                                int groups, int shift) {
    FOR_PLACES(channels, height, width, groups, shift) {
        // One thread sums the gradient of one input in a fixed order, without atomics.
        int first = channel / CHANNELS * FILTERS, c = channel % CHANNELS;
        Samples sum = {};
        #pragma unroll 1
        for (int f = first; f < first + FILTERS; ++f) {
            const T* weights = w + ((long long)f * CHANNELS + c) * SIZE_H * SIZE_W;
            #pragma unroll UNROLLED
            for (int u = 0; u < SIZE_H; ++u) {
                unsigned down = row + top - u;  // a negative row wraps to beyond the end of the image
                if (down / STRIDE_H >= rows || down % STRIDE_H) continue;
                #pragma unroll
                for (int v = 0; v < SIZE_W; ++v) {
                    unsigned across = column + left - v;
                    if (across / STRIDE_W >= columns || across % STRIDE_W) continue;
                    int i = down / STRIDE_H, j = across / STRIDE_W;
                    Samples delta = ((const Samples*)dz)[place(f, rows, i, columns, j, groups, group)];
                    T weight = weights[u * SIZE_W + v];
                    EACH_SAMPLE(s) sum.of[s] += weight * delta.of[s];
                }
            }
        }
        ((Samples*)dx)[place(channel, height, row, width, column, groups, group)] = sum;
    }
}
""",
    launch=_launch,
    preamble=PLACES,
    constants=_constants,
)
@by_channels
@numba_loops.in_loops(numba_loops.convolve_groups_input_gradient)
def convolve_groups_input_gradient(dz: Array, w: Array, geometry: Geometry, dx: Array) -> None:
    """dx[g, c, y, x] := Σ_{f,u,v} w[g, f, c, u, v] dz[g, f, i, j] over the positions i, j that see y, x at u, v."""
    dx.fill(0)
    product = np.empty(dz[:, 0].size, dx.dtype)
    for f, c, u, v, target, delta in _pairs(dx, w, geometry, dz):
        share = product[: delta.size].reshape(delta.shape)
        np.multiply(delta, w[:, f, c, u, v, None, None, None], out=share)
        target += share


def _launch_weight_gradient(x: Array, dz: Array, geometry: Geometry, dw: Array) -> Launch:
    groups = x.shape[4] // samples(x, dz)
    arguments = x, dz, *geometry[4:], dw, *x.shape[2:4], *dz.shape[2:4], groups, (groups - 1).bit_length()
    return Launch(dw.size, _THREADS, arguments)


@raw(
    """
extern "C" __global__ void NAME(const T* __restrict__ x, const T* __restrict__ dz, int top, int left, T* dw, int height,
                                int width, int rows, int columns, int groups, int shift) {
    __shared__ T part[128 / 32];
    // One block per weight: its threads go along samples and columns, and add their sums in a fixed order.
    int v = blockIdx.x % SIZE_W, u = blockIdx.x / SIZE_W % SIZE_H, c = blockIdx.x / (SIZE_W * SIZE_H) % CHANNELS;
    int f = blockIdx.x / (SIZE_W * SIZE_H * CHANNELS);
    long long of_x = (long long)(f / FILTERS) * CHANNELS + c;
    Samples sums = {};
    for (int i = 0; i < rows; ++i) {
        int y = i * STRIDE_H + u - top;
        if (y < 0 || y >= height) continue;
        for (long long at = threadIdx.x; at >> shift < columns; at += blockDim.x) {
            int j = at >> shift, group = at & ((1 << shift) - 1), x_at = j * STRIDE_W + v - left;
            if (group >= groups || x_at < 0 || x_at >= width) continue;
            Samples delta = ((const Samples*)dz)[place(f, rows, i, columns, j, groups, group)];
            Samples seen = ((const Samples*)x)[place(of_x, height, y, width, x_at, groups, group)];
            EACH_SAMPLE(s) sums.of[s] += delta.of[s] * seen.of[s];
        }
    }
    T sum = T(0);
    EACH_SAMPLE(s) sum += sums.of[s];
    sum = block_sum(sum, part);
    if (threadIdx.x == 0) dw[blockIdx.x] = sum;
}
""",
    launch=_launch_weight_gradient,
    preamble=BLOCK_SUM + PLACES,
    constants=lambda x, dz, geometry, dw: _constants(x, dw, geometry, dz),
)
@by_channels
@numba_loops.in_loops(numba_loops.convolve_groups_weight_gradient)
def convolve_groups_weight_gradient(x: Array, dz: Array, geometry: Geometry, dw: Array) -> None:
    """dw[g, f, c, u, v] := Σ_{i,j,sample} dz[g, f, i, j] x[g, c, i·stride + u − pad, j·stride + v − pad]."""
    for f, c, u, v, seen, delta in _pairs(x, dw, geometry, dz):
        dw[:, f, c, u, v] = sums_of_rows(*(each.reshape(len(dw), -1) for each in (seen, delta)))
