"""Pooling: the largest, or the mean, of each window of an image.

Arrays are samples-last, (channels, height, width, batch); `window` is (size_h, size_w, stride_h, stride_w). Windows lie
wholly inside: the rows and columns left over at the right and bottom edges are not seen, and get no gradient.
"""

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np

from gpunn.kernels import loops
from gpunn.kernels.convolution import PLACE
from gpunn.kernels.cores import by_channels
from gpunn.kernels.record import Array, Launch, per_element, raw

Window: TypeAlias = tuple[int, int, int, int]


def _places(x: Array, y: Array, window: Window) -> Iterator[Array]:
    """Yield for each place in the window a view of x there, in every window: an array of the shape of y."""
    size_h, size_w, stride_h, stride_w = window
    rows, columns = y.shape[1:3]
    for u in range(size_h):
        for v in range(size_w):
            yield x[:, u : u + (rows - 1) * stride_h + 1 : stride_h, v : v + (columns - 1) * stride_w + 1 : stride_w]


def _launch(each: Array, large: Array, small: Array, *arguments: Array | int) -> Launch:
    """Launch a thread for each element of an array; `small` has a place for each window of `large`."""
    return per_element(each.size, *arguments, *large.shape, *small.shape[1:3])


def _of_windows(name: str, arrays: str, body: str) -> str:
    """Return the CUDA C++ of a kernel with a thread for each window; `VALUE(place)` is what it sees at a place."""
    return f"""
#define VALUE(place) corner[((long long)((place) / size_w) * width + (place) % size_w) * n]
extern "C" __global__ void {name}(const T* x, int size_h, int size_w, int stride_h, int stride_w, {arrays},
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


def _of_inputs(name: str, arrays: str, share: str, area: str = "1") -> str:
    """Return the CUDA C++ of a gradient with a thread for each input; `share` adds that of place u, v to `sum`."""
    return f"""
extern "C" __global__ void {name}({arrays}, int size_h, int size_w, int stride_h, int stride_w, T* dx,
                                  int channels, int height, int width, int n, int rows, int columns) {{
    long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= (long long)channels * height * width * n) return;
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


@raw(
    _of_windows(
        "max_pool",
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
    ),
    launch=lambda x, window, y, choice: _launch(y, x, y, x, *window, y, choice),
    preamble=PLACE,
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


def _shares(dy: Array, choice: Array, window: Window, dx: Array) -> Iterator[tuple[Array, Array]]:
    """Yield for each place in the window the view of dx there, in every window, and its share of the gradient."""
    is_choice = np.empty(dy.shape, np.bool_)
    share = np.empty(dy.shape, dy.dtype)
    for place, seen in enumerate(_places(dx, dy, window)):
        # A conversion and a product of equal types are vectorised, a product of mixed types is not.
        np.equal(choice, place, out=is_choice)
        np.copyto(share, is_choice.view(np.int8))
        np.multiply(dy, share, out=share)
        yield seen, share


@loops.in_loops(loops.max_pool_gradient)
def _gradient_of_a_cover(dy: Array, choice: Array, window: Window, dx: Array) -> None:
    for seen, share in _shares(dy, choice, window, dx):
        np.copyto(seen, share)


@raw(
    _of_inputs(
        "max_pool_gradient",
        "const T* dy, const unsigned char* choice",
        "if (choice[from] == u * size_w + v) sum += dy[from];",
    ),
    launch=lambda dy, choice, window, dx: _launch(dx, dx, dy, dy, choice, *window, dx),
    preamble=PLACE,
)
@by_channels
def max_pool_gradient(dy: Array, choice: Array, window: Window, dx: Array) -> None:
    """dx := dy at the chosen place of each window, summed where windows overlap, 0 elsewhere."""
    size_h, size_w, stride_h, stride_w = window
    if size_h <= stride_h and size_w <= stride_w and dx.size == dy.size * size_h * size_w:
        _gradient_of_a_cover(dy, choice, window, dx)
        return
    dx.fill(0)
    for seen, share in _shares(dy, choice, window, dx):
        seen += share


@raw(
    _of_windows(
        "average_pool",
        "T* y",
        """
    T sum = T(0);
    for (int place = 0; place < size_h * size_w; ++place) sum += VALUE(place);
    y[at] = sum / T(size_h * size_w);
""",
    ),
    launch=lambda x, window, y: _launch(y, x, y, x, *window, y),
    preamble=PLACE,
)
def average_pool(x: Array, window: Window, y: Array) -> None:
    """y := the mean of each window."""
    for place, seen in enumerate(_places(x, y, window)):
        if place == 0:
            np.copyto(y, seen)
        else:
            np.add(y, seen, out=y)
    np.multiply(y, y.dtype.type(1 / (window[0] * window[1])), out=y)


@raw(
    _of_inputs("average_pool_gradient", "const T* dy", "sum += dy[from];", area="size_h * size_w"),
    launch=lambda dy, window, dx: _launch(dx, dx, dy, dy, *window, dx),
    preamble=PLACE,
)
def average_pool_gradient(dy: Array, window: Window, dx: Array) -> None:
    """dx := dy/(size_h size_w) for every place of each window, summed where windows overlap, 0 elsewhere."""
    share = dy * dy.dtype.type(1 / (window[0] * window[1]))
    dx.fill(0)
    for seen in _places(dx, dy, window):
        seen += share
