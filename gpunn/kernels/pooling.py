"""Pooling: the largest, or the mean, of each window of an image.

Arrays are samples-last, (channels, height, width, batch); `window` is (size_h, size_w, stride_h, stride_w). Windows lie
wholly inside: the rows and columns left over at the right and bottom edges are not seen, and get no gradient.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np

from gpunn.kernels import loops
from gpunn.kernels.convolution import PLACE
from gpunn.kernels.cores import by_channels
from gpunn.kernels.record import Array, Host, Launch, Raw, elementwise, per_element, raw

Window: TypeAlias = tuple[int, int, int, int]


def _places(x: Array, y: Array, window: Window) -> Iterator[Array]:
    """Yield for each place in the window a view of x there, in every window: an array of the shape of y."""
    size_h, size_w, stride_h, stride_w = window
    rows, columns = y.shape[1:3]
    for u in range(size_h):
        for v in range(size_w):
            yield x[:, u : u + (rows - 1) * stride_h + 1 : stride_h, v : v + (columns - 1) * stride_w + 1 : stride_w]


def _pooling(written: str, body: str) -> Callable[[Host], Raw]:
    """Return a decorator that makes the record of a pooling: a thread for each window, which sees `VALUE(place)`."""
    source = f"""
#define VALUE(place) corner[((long long)((place) / size_w) * width + (place) % size_w) * n]
extern "C" __global__ void NAME(const T* x, int size_h, int size_w, int stride_h, int stride_w, {written},
                                int channels, int height, int width, int n, int rows, int columns) {{
    long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= (long long)channels * rows * columns * n) return;
    Place of = place_of(at, rows, columns, n);
    const T* corner =
        x + (((long long)of.channel * height + of.y * stride_h) * width + of.x * stride_w) * n + of.sample;
    {body}
}}
#undef VALUE
"""

    def launch(x: Array, window: Window, y: Array, *choice: Array) -> Launch:
        return per_element(y.size, x, *window, y, *choice, *x.shape, *y.shape[1:3])

    return raw(source, launch, preamble=PLACE)


def _pooling_gradient(read: str, share: str, area: str = "1") -> Callable[[Host], Raw]:
    """Return a decorator for a gradient: a thread for each input, which adds its share of place u, v to `sum`."""
    source = f"""
extern "C" __global__ void NAME({read}, int size_h, int size_w, int stride_h, int stride_w, T* dx,
                                int channels, int height, int width, int n, int rows, int columns) {{
    long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= (long long)channels * height * width * n) return;
    // One thread asks every window that its input lies in: no atomics.
    Place of = place_of(at, height, width, n);
    T sum = T(0);
    for (int u = of.y % stride_h; u < size_h && u <= of.y; u += stride_h) {{
        int row = (of.y - u) / stride_h;
        if (row >= rows) continue;
        for (int v = of.x % stride_w; v < size_w && v <= of.x; v += stride_w) {{
            int column = (of.x - v) / stride_w;
            if (column >= columns) continue;
            long long from = (((long long)of.channel * rows + row) * columns + column) * n + of.sample;
            {share}
        }}
    }}
    dx[at] = sum / T({area});
}}
"""

    def launch(dy: Array, *others: Any) -> Launch:
        *choice, window, dx = others
        return per_element(dx.size, dy, *choice, *window, dx, *dx.shape, *dy.shape[1:3])

    return raw(source, launch, preamble=PLACE)


@_pooling(
    "T* y, unsigned char* choice",
    """
    T best = VALUE(0);
    int chosen = 0;
    for (int place = 1; place < size_h * size_w; ++place) {
        T v = VALUE(place);
        if (v > best) chosen = place;
        if (v > best || v != v) best = v;  // a NaN stays, whatever comes after it
    }
    y[at] = best;
    choice[at] = chosen;
""",
)
@by_channels
@loops.in_loops(loops.max_pool)
def max_pool(x: Array, window: Window, y: Array, choice: Array) -> None:
    """y := the largest of each window, choice := its place in the window, the first of equals."""
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


def _covers(dy: Array, window: Window, dx: Array) -> bool:
    """Return whether every input lies in one window and no more."""
    size_h, size_w, stride_h, stride_w = window
    return size_h <= stride_h and size_w <= stride_w and bool(dx.size == dy.size * size_h * size_w)


@_pooling_gradient("const T* dy, const unsigned char* choice", "if (choice[from] == u * size_w + v) sum += dy[from];")
@by_channels
@loops.in_loops(loops.max_pool_gradient, lambda dy, _, window, dx: (dx,) if _covers(dy, window, dx) else ())
def max_pool_gradient(dy: Array, choice: Array, window: Window, dx: Array) -> None:
    """dx := dy at the chosen place of each window, summed where windows overlap, 0 elsewhere."""
    covers = _covers(dy, window, dx)
    if not covers:
        dx.fill(0)
    is_choice = np.empty(dy.shape, np.bool_)
    share = np.empty(dy.shape, dy.dtype)
    for place, seen in enumerate(_places(dx, dy, window)):
        # A conversion and a product of equal types are vectorised, a product of mixed types is not.
        np.equal(choice, place, out=is_choice)
        np.copyto(share, is_choice.view(np.int8))
        np.multiply(dy, share, out=share)
        if covers:
            np.copyto(seen, share)
        else:
            seen += share


@_pooling(
    "T* y",
    """
    T sum = T(0);
    for (int place = 0; place < size_h * size_w; ++place) sum += VALUE(place);
    y[at] = sum / T(size_h * size_w);
""",
)
def average_pool(x: Array, window: Window, y: Array) -> None:
    """y := the mean of each window."""
    for place, seen in enumerate(_places(x, y, window)):
        if place == 0:
            np.copyto(y, seen)
        else:
            np.add(y, seen, out=y)
    np.multiply(y, y.dtype.type(1 / (window[0] * window[1])), out=y)


@_pooling_gradient("const T* dy", "sum += dy[from];", area="size_h * size_w")
def average_pool_gradient(dy: Array, window: Window, dx: Array) -> None:
    """dx := dy/(size_h size_w) for every place of each window, summed where windows overlap, 0 elsewhere."""
    share = dy * dy.dtype.type(1 / (window[0] * window[1]))
    dx.fill(0)
    for seen in _places(dx, dy, window):
        seen += share


@raw(
    """
extern "C" __global__ void mean_of_pixels(const T* x, T* y, int features, int pixels, int n) {
    long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= (long long)features * n) return;
    const T* first = x + at / n * pixels * n + at % n;
    T sum = T(0);
    for (int pixel = 0; pixel < pixels; ++pixel) sum += first[(long long)pixel * n];
    y[at] = sum / T(pixels);
}
""",
    launch=lambda x, y: per_element(y.size, x, y, len(y), x.size // max(y.size, 1), y.shape[1]),
)
@by_channels
def mean_of_pixels(x: Array, y: Array) -> None:
    """y := the mean of each channel's pixels, (channels, batch)."""
    channels, height, width, n = x.shape
    np.add.reduce(x.reshape(channels, height * width, n), axis=1, out=y)
    np.divide(y, y.dtype.type(height * width), out=y)


@elementwise("T dy, T pixels", "T dx", "dx = dy / pixels;")
def mean_of_pixels_gradient(dy: Array, pixels: float, dx: Array) -> None:
    """dx := dy/pixels for every pixel, dy being (channels, 1, 1, batch)."""
    np.copyto(dx, dy / dy.dtype.type(pixels))
