"""Pooling: the largest, or the mean, of each window of an image.

Arrays are samples-last, (channels, height, width, batch); `window` is (size_h, size_w, stride_h, stride_w). Windows lie
wholly inside: what is left over at the right and bottom edges is not looked at, and gets no gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np

from gpunn.kernels.loops import in_loops
from gpunn.kernels.parallel import in_pieces
from gpunn.kernels.record import Array, Launch, Raw, blocks_for

Window: TypeAlias = tuple[int, int, int, int]

_THREADS = 256


def _places(x: Array, y: Array, window: Window) -> Iterator[Array]:
    """For each place in the window: what lies there in every window of x, a view with the shape of y."""
    size_h, size_w, stride_h, stride_w = window
    rows, columns = y.shape[1:3]
    for u in range(size_h):
        for v in range(size_w):
            yield x[:, u : u + (rows - 1) * stride_h + 1 : stride_h, v : v + (columns - 1) * stride_w + 1 : stride_w]


def _overlaps(window: Window) -> bool:
    size_h, size_w, stride_h, stride_w = window
    return size_h > stride_h or size_w > stride_w


def _max_pool_loops(x: Array, window: Window, y: Array, choice: Array) -> None:
    size_h, size_w, stride_h, stride_w = window
    last = size_h * size_w - 1
    for channel in range(y.shape[0]):
        for row in range(y.shape[1]):
            for column in range(y.shape[2]):
                best, chosen = y[channel, row, column], choice[channel, row, column]
                # Places by twos: half as often best and chosen are fetched. An odd last one is its own neighbour.
                for place in range(0, last + 1, 2):
                    after = min(place + 1, last)
                    one = x[channel, row * stride_h + place // size_w, column * stride_w + place % size_w]
                    other = x[channel, row * stride_h + after // size_w, column * stride_w + after % size_w]
                    if place == 0:
                        for j in range(len(best)):
                            is_better = other[j] > one[j]
                            is_nan = other[j] != other[j]
                            best[j] = other[j] if is_better or is_nan else one[j]
                            chosen[j] = np.uint8(is_better)
                        continue
                    for j in range(len(best)):
                        is_better = one[j] > best[j]
                        is_nan = one[j] != one[j]
                        most = one[j] if is_better or is_nan else best[j]
                        its = np.uint8(place) if is_better else chosen[j]
                        is_better = other[j] > most
                        is_nan = other[j] != other[j]
                        best[j] = other[j] if is_better or is_nan else most
                        chosen[j] = np.uint8(after) if is_better else its


@in_loops(_max_pool_loops)
def _max_pool_passes(x: Array, window: Window, y: Array, choice: Array) -> None:
    better = np.empty(y.shape, np.bool_)
    place_if_better = better.view(np.uint8)
    values = np.empty(y.shape, x.dtype)
    for place, seen in enumerate(_places(x, y, window)):
        if place == 0:
            np.copyto(y, seen)
            choice.fill(0)
            continue
        # NumPy copies with strides five times as fast as it calculates with them.
        np.copyto(values, seen)
        np.greater(values, y, out=better)
        np.maximum(values, y, out=y)
        # Places only grow, so the larger of two choices is the later one: cheaper than a masked copy.
        np.multiply(place_if_better, np.uint8(place), out=place_if_better)
        np.maximum(choice, place_if_better, out=choice)


def _max_pool(x: Array, window: Window, y: Array, choice: Array) -> None:
    def piece(channels: slice) -> None:
        _max_pool_passes(x[channels], window, y[channels], choice[channels])

    in_pieces(piece, len(x), x.nbytes)


def _max_pool_gradient_loops(dy: Array, choice: Array, window: Window, dx: Array) -> None:
    size_h, size_w, stride_h, stride_w = window
    for channel in range(dy.shape[0]):
        for row in range(dy.shape[1]):
            for column in range(dy.shape[2]):
                gradient, chosen = dy[channel, row, column], choice[channel, row, column]
                for place in range(size_h * size_w):
                    target = dx[channel, row * stride_h + place // size_w, column * stride_w + place % size_w]
                    for j in range(len(gradient)):
                        share = gradient[j] * gradient.dtype.type(chosen[j] == place)
                        target[j] = share


def _shares(dy: Array, choice: Array, window: Window, dx: Array) -> Iterator[tuple[Array, Array]]:
    """For each place in the window: what lies there in every window of dx, and its share of the gradient."""
    is_choice = np.empty(dy.shape, np.bool_)
    share = np.empty(dy.shape, dy.dtype)
    for place, seen in enumerate(_places(dx, dy, window)):
        # A conversion and a product of equal types are vectorised, a product of mixed types is not.
        np.equal(choice, place, out=is_choice)
        np.copyto(share, is_choice.view(np.int8))
        np.multiply(dy, share, out=share)
        yield seen, share


@in_loops(_max_pool_gradient_loops)
def _max_pool_gradient_passes(dy: Array, choice: Array, window: Window, dx: Array) -> None:
    for seen, share in _shares(dy, choice, window, dx):
        np.copyto(seen, share)


def _max_pool_gradient(dy: Array, choice: Array, window: Window, dx: Array) -> None:
    covers_once = not _overlaps(window) and (dx.size == dy.size * window[0] * window[1])

    def piece(channels: slice) -> None:
        gradient, chosen, target = dy[channels], choice[channels], dx[channels]
        if covers_once:
            _max_pool_gradient_passes(gradient, chosen, window, target)
            return
        target.fill(0)
        for seen, share in _shares(gradient, chosen, window, target):
            seen += share

    in_pieces(piece, len(dx), dx.nbytes)


def _launch_of(each: Array, *arguments: object) -> Launch:
    return Launch(blocks_for(each.size, _THREADS), _THREADS, arguments)


def _max_pool_launch(x: Array, window: Window, y: Array, choice: Array) -> Launch:
    return _launch_of(y, x, y, choice, *window, *x.shape, *y.shape[1:3])


def _max_pool_gradient_launch(dy: Array, choice: Array, window: Window, dx: Array) -> Launch:
    return _launch_of(dx, dy, choice, dx, *window, *dx.shape, *dy.shape[1:3])


max_pool = Raw(
    "max_pool",
    """
extern "C" __global__ void max_pool(const T* x, T* y, unsigned char* choice, int size_h, int size_w, int stride_h,
                                    int stride_w, int channels, int height, int width, int n, int rows, int columns) {
    long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= (long long)channels * rows * columns * n) return;
    int j = at % n;
    int column = at / n % columns;
    int row = at / n / columns % rows;
    int channel = at / n / columns / rows;
    const T* corner = x + (((long long)channel * height + row * stride_h) * width + column * stride_w) * n + j;
    T best = corner[0];
    int chosen = 0;
    for (int place = 1; place < size_h * size_w; ++place) {
        T v = corner[((long long)(place / size_w) * width + place % size_w) * n];
        if (v > best) chosen = place;
        if (v > best || v != v) best = v;  // a NaN stays, whatever comes after it
    }
    y[at] = best;
    choice[at] = chosen;
}
""",
    launch=_max_pool_launch,
    host=_max_pool,
)
"""y := the largest of each window, choice := its place in the window, the first of equals."""

max_pool_gradient = Raw(
    "max_pool_gradient",
    """
extern "C" __global__ void max_pool_gradient(const T* dy, const unsigned char* choice, T* dx, int size_h, int size_w,
                                             int stride_h, int stride_w, int channels, int height, int width, int n,
                                             int rows, int columns) {
    long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= (long long)channels * height * width * n) return;
    // One thread asks every window that its input lies in whether it was chosen there: no atomics.
    int j = at % n;
    int x_at = at / n % width;
    int y_at = at / n / width % height;
    int channel = at / n / width / height;
    T sum = T(0);
    for (int u = y_at % stride_h; u < size_h && u <= y_at; u += stride_h) {
        int row = (y_at - u) / stride_h;
        if (row >= rows) continue;
        for (int v = x_at % stride_w; v < size_w && v <= x_at; v += stride_w) {
            int column = (x_at - v) / stride_w;
            if (column >= columns) continue;
            long long from = (((long long)channel * rows + row) * columns + column) * n + j;
            if (choice[from] == u * size_w + v) sum += dy[from];
        }
    }
    dx[at] = sum;
}
""",
    launch=_max_pool_gradient_launch,
    host=_max_pool_gradient,
)
"""dx := dy at the chosen place of each window, summed where windows overlap, 0 elsewhere."""


def _average_pool(x: Array, window: Window, y: Array) -> None:
    for place, seen in enumerate(_places(x, y, window)):
        if place == 0:
            np.copyto(y, seen)
        else:
            np.add(y, seen, out=y)
    np.multiply(y, y.dtype.type(1 / (window[0] * window[1])), out=y)


def _average_pool_gradient(dy: Array, window: Window, dx: Array) -> None:
    share = dy * dy.dtype.type(1 / (window[0] * window[1]))
    dx.fill(0)
    for seen in _places(dx, dy, window):
        seen += share


def _average_pool_launch(x: Array, window: Window, y: Array) -> Launch:
    return _launch_of(y, x, y, *window, *x.shape, *y.shape[1:3])


def _average_pool_gradient_launch(dy: Array, window: Window, dx: Array) -> Launch:
    return _launch_of(dx, dy, dx, *window, *dx.shape, *dy.shape[1:3])


average_pool = Raw(
    "average_pool",
    """
extern "C" __global__ void average_pool(const T* x, T* y, int size_h, int size_w, int stride_h, int stride_w,
                                        int channels, int height, int width, int n, int rows, int columns) {
    long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= (long long)channels * rows * columns * n) return;
    int j = at % n;
    int column = at / n % columns;
    int row = at / n / columns % rows;
    int channel = at / n / columns / rows;
    const T* corner = x + (((long long)channel * height + row * stride_h) * width + column * stride_w) * n + j;
    T sum = T(0);
    for (int place = 0; place < size_h * size_w; ++place)
        sum += corner[((long long)(place / size_w) * width + place % size_w) * n];
    y[at] = sum / T(size_h * size_w);
}
""",
    launch=_average_pool_launch,
    host=_average_pool,
)
"""y := the mean of each window."""

average_pool_gradient = Raw(
    "average_pool_gradient",
    """
extern "C" __global__ void average_pool_gradient(const T* dy, T* dx, int size_h, int size_w, int stride_h, int stride_w,
                                                 int channels, int height, int width, int n, int rows, int columns) {
    long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= (long long)channels * height * width * n) return;
    int j = at % n;
    int x_at = at / n % width;
    int y_at = at / n / width % height;
    int channel = at / n / width / height;
    T sum = T(0);
    for (int u = y_at % stride_h; u < size_h && u <= y_at; u += stride_h) {
        int row = (y_at - u) / stride_h;
        if (row >= rows) continue;
        for (int v = x_at % stride_w; v < size_w && v <= x_at; v += stride_w) {
            int column = (x_at - v) / stride_w;
            if (column < columns) sum += dy[(((long long)channel * rows + row) * columns + column) * n + j];
        }
    }
    dx[at] = sum / T(size_h * size_w);
}
""",
    launch=_average_pool_gradient_launch,
    host=_average_pool_gradient,
)
"""dx := dy/(size_h size_w) for every place of each window, summed where windows overlap, 0 elsewhere."""
