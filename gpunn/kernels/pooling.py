"""Pooling: the largest, or the mean, of each window of an image.

Arrays are samples-last, (channels, height, width, batch); `window` is (size_h, size_w, stride_h, stride_w, pad_top,
pad_left). Every window sees at least one pixel. Padding is not seen: it is never the largest, and adds 0 to a mean.
Rows and columns left over at the right and bottom edges are not seen either, and get no gradient.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np

from gpunn.kernels import loops
from gpunn.kernels.convolution import PLACE, Geometry, taps
from gpunn.kernels.cores import by_channels
from gpunn.kernels.record import Array, Host, Launch, Raw, elementwise, per_element, raw

Window: TypeAlias = Geometry

CLIPPED = """
// The places of a window, along one axis, that lie in the image.
__device__ inline int first_inside(int index, int stride, int before) { return max(0, before - index * stride); }
__device__ inline int end_inside(int index, int stride, int before, int size, int length) {
    return min(size, length + before - index * stride);
}
"""


def _places(x: Array, y: Array, window: Window) -> Iterator[tuple[slice, slice, Array]]:
    """Yield for each place in the window the rows and columns of y whose windows have it in x, and the view of x."""
    for i, j, down, across in taps(window, range(y.shape[1]), y.shape[2], *x.shape[1:3]):
        yield i, j, x[:, down, across]


def _lies_inside(x: Array, y: Array, window: Window) -> bool:
    """Return whether every window lies wholly inside x."""
    size_h, size_w, stride_h, stride_w, top, left = window
    (rows, columns), (height, width) = y.shape[1:3], x.shape[1:3]
    ends = (rows - 1) * stride_h + size_h <= height and (columns - 1) * stride_w + size_w <= width
    return top == left == 0 and ends


def _pooling(written: str, body: str) -> Callable[[Host], Raw]:
    """Return a decorator that makes the record of a pooling: a thread for each window, which sees `VALUE(u, v)`."""
    source = f"""
#define VALUE(u, v) x[corner + ((long long)(u) * width + (v)) * n]
extern "C" __global__ void NAME(const T* x, int size_h, int size_w, int stride_h, int stride_w, int top, int left,
                                {written}, int channels, int height, int width, int n, int rows, int columns) {{
    long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= (long long)channels * rows * columns * n) return;
    Place of = place_of(at, rows, columns, n);
    int first_u = first_inside(of.y, stride_h, top), end_u = end_inside(of.y, stride_h, top, size_h, height);
    int first_v = first_inside(of.x, stride_w, left), end_v = end_inside(of.x, stride_w, left, size_w, width);
    int y_at = of.y * stride_h - top, x_at = of.x * stride_w - left;
    long long corner = (((long long)of.channel * height + y_at) * width + x_at) * n + of.sample;
    {body}
}}
#undef VALUE
"""

    def launch(x: Array, window: Window, *others: Any) -> Launch:
        y = others[-1]
        return per_element(y.size, x, *window, *others, *x.shape, *y.shape[1:3])

    return raw(source, launch, preamble=PLACE + CLIPPED)


def _pooling_gradient(read: str, share: str, counted: str = "", area: str = "1") -> Callable[[Host], Raw]:
    """Return a decorator for a gradient: a thread for each input, which adds its share of place u, v to `sum`."""
    source = f"""
extern "C" __global__ void NAME({read}, int size_h, int size_w, int stride_h, int stride_w, int top, int left,
                                {counted} T* dx, int channels, int height, int width, int n, int rows, int columns) {{
    long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= (long long)channels * height * width * n) return;
    // One thread asks every window that its input lies in: no atomics.
    Place of = place_of(at, height, width, n);
    int y = of.y + top, x = of.x + left;
    T sum = T(0);
    for (int u = y % stride_h; u < size_h && u <= y; u += stride_h) {{
        int row = (y - u) / stride_h;
        if (row >= rows) continue;
        for (int v = x % stride_w; v < size_w && v <= x; v += stride_w) {{
            int column = (x - v) / stride_w;
            if (column >= columns) continue;
            long long from = (((long long)of.channel * rows + row) * columns + column) * n + of.sample;
            {share}
        }}
    }}
    dx[at] = sum / T({area});
}}
"""

    def launch(dy: Array, *others: Any) -> Launch:
        flat = [each for other in others for each in (other if isinstance(other, tuple) else (other,))]
        dx = others[-1]
        return per_element(dx.size, dy, *flat, *dx.shape, *dy.shape[1:3])

    return raw(source, launch, preamble=PLACE + CLIPPED)


@_pooling(
    "T* y, unsigned char* choice",
    """
    T best = VALUE(first_u, first_v);
    int chosen = first_u * size_w + first_v;
    for (int u = first_u; u < end_u; ++u)
        for (int v = first_v; v < end_v; ++v) {
            T seen = VALUE(u, v);
            if (seen > best) chosen = u * size_w + v;
            if (seen > best || seen != seen) best = seen;  // a NaN stays, whatever comes after it
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
    if not (lies_inside := _lies_inside(x, y, window)):
        y.fill(-np.inf)
        _set_first(choice, window)
    for place, (i, j, seen) in enumerate(_places(x, y, window)):
        if place == 0 and lies_inside:
            np.copyto(y, seen)
            choice.fill(0)
            continue
        best, chosen, value, is_better = y[:, i, j], choice[:, i, j], values[:, i, j], place_if_better[:, i, j]
        # NumPy copies with strides five times as fast as it calculates with them.
        np.copyto(value, seen)
        np.greater(value, best, out=better[:, i, j])
        np.maximum(value, best, out=best)
        # Places only grow, so the larger of two choices is the later one: cheaper than a masked copy.
        np.multiply(is_better, np.uint8(place), out=is_better)
        np.maximum(chosen, is_better, out=chosen)


def _set_first(choice: Array, window: Window) -> None:
    """Set the first place of each window that lies in the image: chosen where nothing is above -inf."""
    _, size_w, stride_h, stride_w, top, left = window
    first_u, first_v = (
        np.maximum(0, before - np.arange(count) * stride)
        for before, count, stride in ((top, choice.shape[1], stride_h), (left, choice.shape[2], stride_w))
    )
    choice[...] = (first_u[:, None] * size_w + first_v).astype(np.uint8)[:, :, None]


def _covers(dy: Array, window: Window, dx: Array) -> bool:
    """Return whether every input lies in one window and no more, and every window in the image."""
    size_h, size_w, stride_h, stride_w = window[:4]
    is_one = size_h <= stride_h and size_w <= stride_w and bool(dx.size == dy.size * size_h * size_w)
    return is_one and _lies_inside(dx, dy, window)


def _goes_in_loops(dy: Array, _: Array, window: Window, dx: Array) -> bool:
    """Return whether each input is written once, or there is padding: else sums keep the order that they always had."""
    return any(window[4:]) or _covers(dy, window, dx)


@_pooling_gradient("const T* dy, const unsigned char* choice", "if (choice[from] == u * size_w + v) sum += dy[from];")
@by_channels
@loops.in_loops(loops.max_pool_gradient, lambda *arguments: arguments[-1:] if _goes_in_loops(*arguments) else ())
def max_pool_gradient(dy: Array, choice: Array, window: Window, dx: Array) -> None:
    """dx := dy at the chosen place of each window, summed where windows overlap, 0 elsewhere."""
    covers = _covers(dy, window, dx)
    if not covers:
        dx.fill(0)
    is_choice = np.empty(dy.shape, np.bool_)
    share = np.empty(dy.shape, dy.dtype)
    for place, (i, j, seen) in enumerate(_places(dx, dy, window)):
        # A conversion and a product of equal types are vectorised, a product of mixed types is not.
        np.equal(choice, place, out=is_choice)
        np.copyto(share, is_choice.view(np.int8))
        np.multiply(dy, share, out=share)
        if covers:
            np.copyto(seen, share)
        else:
            seen += share[:, i, j]


def _shares(y: Array, window: Window, counts_all: bool, height: int, width: int) -> Any:
    """Return 1/(numbers that a mean is of): of all places of a window, or of each window's that lie in the image."""
    size_h, size_w, stride_h, stride_w, top, left = window
    if counts_all:
        return y.dtype.type(1 / (size_h * size_w))
    down, across = (
        np.minimum(size, length + before - (at := np.arange(count) * stride)) - np.maximum(0, before - at)
        for size, length, before, count, stride in (
            (size_h, height, top, y.shape[1], stride_h), (size_w, width, left, y.shape[2], stride_w),
        )
    )  # fmt: skip
    return (1 / (down[:, None] * across)).astype(y.dtype)[:, :, None]


@_pooling(
    "bool counts_all, T* y",
    """
    T sum = T(0);
    for (int u = first_u; u < end_u; ++u)
        for (int v = first_v; v < end_v; ++v) sum += VALUE(u, v);
    y[at] = sum / T(counts_all ? size_h * size_w : (end_u - first_u) * (end_v - first_v));
""",
)
def average_pool(x: Array, window: Window, counts_all: bool, y: Array) -> None:
    """y := the sum of each window over the number of its places, of all if `counts_all`, else of those in x."""
    if not (lies_inside := _lies_inside(x, y, window)):
        y.fill(0)
    for place, (i, j, seen) in enumerate(_places(x, y, window)):
        if place == 0 and lies_inside:
            np.copyto(y, seen)
        else:
            np.add(y[:, i, j], seen, out=y[:, i, j])
    np.multiply(y, _shares(y, window, counts_all, *x.shape[1:3]), out=y)


@_pooling_gradient(
    "const T* dy",
    """
            int seen_h = end_inside(row, stride_h, top, size_h, height) - first_inside(row, stride_h, top);
            int seen_w = end_inside(column, stride_w, left, size_w, width) - first_inside(column, stride_w, left);
            sum += counts_all ? dy[from] : dy[from] / T(seen_h * seen_w);
""",
    counted="bool counts_all,",
    area="counts_all ? size_h * size_w : 1",
)
def average_pool_gradient(dy: Array, window: Window, counts_all: bool, dx: Array) -> None:
    """dx := dy over the count of its mean for every place of each window, summed where windows overlap, 0 elsewhere."""
    share = dy * _shares(dy, window, counts_all, *dx.shape[1:3])
    dx.fill(0)
    for i, j, seen in _places(dx, dy, window):
        seen += share[:, i, j]


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
