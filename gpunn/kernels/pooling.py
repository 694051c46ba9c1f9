"""Pool images: take the largest value, or the mean, of each window.

Arrays are samples-last, (channels, height, width, batch); `window` is (size_h, size_w, stride_h, stride_w, pad_top,
pad_left). Every window contains at least one pixel. Padding is never the largest, and adds 0 to a mean. Rows and
columns left over at the right and bottom edges belong to no window and get no gradient.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np

from gpunn.kernels import numba_loops
from gpunn.kernels.convolution import taps
from gpunn.kernels.cores import by_channels
from gpunn.kernels.image_grid import PLACES, Geometry, launch_per_pixel, samples, window_constants
from gpunn.kernels.record import Array, Host, Launch, Raw, raw

Window: TypeAlias = Geometry


def _places(x: Array, y: Array, window: Window) -> Iterator[tuple[slice, slice, Array]]:
    """Yield for each position in the window the rows and columns of y where it lies in x, and the view of x there."""
    for i, j, down, across in taps(window, range(y.shape[1]), y.shape[2], *x.shape[1:3]):
        yield i, j, x[:, down, across]


def _lies_inside(x: Array, y: Array, window: Window) -> bool:
    """Return whether every window lies wholly inside x."""
    size_h, size_w, stride_h, stride_w, top, left = window
    (rows, columns), (height, width) = y.shape[1:3], x.shape[1:3]
    ends = (rows - 1) * stride_h + size_h <= height and (columns - 1) * stride_w + size_w <= width
    return top == left == 0 and ends


def _arrays_of(*arguments: Any) -> list[Array]:
    return [argument for argument in arguments if hasattr(argument, "shape")]


# 1/count of the pixels that a window has in the image, tabulated for small windows so that no thread divides.
_ONE_OVER = """
constexpr int COUNTS = COUNTS_ALL || SIZE_H * SIZE_W > 1024 ? 1 : SIZE_H * SIZE_W + 1;
struct OneOver {
    T of[COUNTS];
    constexpr OneOver() : of() { for (int count = 1; count < COUNTS; ++count) of[count] = T(1) / T(count); }
};
__constant__ OneOver known = OneOver();
__device__ inline T one_over(int count) { return COUNTS > 1 ? known.of[max(count, 0)] : T(1) / T(count); }
"""


def _pooling(written: str, begin: str, seen: str, end: str, preamble: str = "") -> Callable[[Host], Raw]:
    """Return a decorator that makes the record of a pooling; each thread visits the positions u, v of one window."""
    source = f"""
extern "C" __global__ void NAME(const T* __restrict__ x, int top, int left, {written}, int channels, int height,
                                int width, int rows, int columns, int groups, int shift) {{
    FOR_PLACES(channels, rows, columns, groups, shift) {{
        int y_at = row * STRIDE_H - top, x_at = column * STRIDE_W - left;
        long long target = place(channel, rows, row, columns, column, groups, group);
        {begin}
        #pragma unroll UNROLLED
        for (int u = 0; u < SIZE_H; ++u)
            #pragma unroll
            for (int v = 0; v < SIZE_W; ++v) {{
                if (IS_CLIPPED && !lies_in(y_at + u, height, x_at + v, width)) continue;
                Samples seen = ((const Samples*)x)[place(channel, height, y_at + u, width, x_at + v, groups, group)];
                {seen}
            }}
        {end}
    }}
}}
"""

    def launch(x: Array, window: Window, *others: Any) -> Launch:
        arrays = _arrays_of(*others)
        channels, rows, columns, n = arrays[0].shape
        arguments = x, *window[4:], *arrays, channels, *x.shape[1:3], rows, columns
        return launch_per_pixel(window_constants(window, x, *arrays), channels, rows, columns, n, *arguments)

    def constants(x: Array, window: Window, *others: Any) -> dict[str, int]:
        arrays = _arrays_of(*others)
        is_clipped = not _lies_inside(x, arrays[0], window)
        counts_all = not is_clipped or others[0] is True
        return window_constants(window, x, *arrays) | {"IS_CLIPPED": int(is_clipped), "COUNTS_ALL": int(counts_all)}

    return raw(source, launch, preamble=PLACES + preamble, constants=constants)


_SUMS = 16  # inputs for which one thread of a gradient keeps sums
_WINDOWS = 64  # the same where windows do not overlap


def _cell(window: Window) -> tuple[int, int]:
    """Return height and width of the inputs that one thread of a gradient takes: those in the same windows, or one."""
    size_h, size_w, stride_h, stride_w, *_ = window
    are_apart = size_h <= stride_h and size_w <= stride_w
    return (stride_h, stride_w) if stride_h * stride_w <= (_WINDOWS if are_apart else _SUMS) else (1, 1)


def _pooling_gradient(read: str, given: str, share: str, mean: str = "", preamble: str = "") -> Callable[[Host], Raw]:
    """Return a decorator for a gradient; each thread adds to the inputs of a cell their shares from every window."""
    source = f"""
#define MET_H ((SIZE_H + STRIDE_H - 1) / STRIDE_H)
#define MET_W ((SIZE_W + STRIDE_W - 1) / STRIDE_W)
extern "C" __global__ void NAME({read}, int top, int left, T* __restrict__ dx, int channels, int height, int width,
                                int rows, int columns, int cells_down, int cells_across, int groups, int shift) {{
    FOR_PLACES(channels, cells_down, cells_across, groups, shift) {{
        // One thread visits every window of its inputs once, so there are no atomics.
        int y_at = row * CELL_H, x_at = column * CELL_W;
        Samples sums[CELL_H][CELL_W] = {{}};
        #pragma unroll UNROLLED
        for (int k = 0; k < MET_H; ++k)
            #pragma unroll
            for (int l = 0; l < MET_W; ++l) {{
                int i = y_at / STRIDE_H - k, j = x_at / STRIDE_W - l;
                if (!lies_in(i, rows, j, columns)) continue;
                long long from = place(channel, rows, i, columns, j, groups, group);
                Samples delta = ((const Samples*)dy)[from];
                {given}
                #pragma unroll
                for (int a = 0; a < CELL_H; ++a)
                    #pragma unroll
                    for (int b = 0; b < CELL_W; ++b) {{
                        int u = k * STRIDE_H + (CELL_H == STRIDE_H ? a : y_at % STRIDE_H);
                        int v = l * STRIDE_W + (CELL_W == STRIDE_W ? b : x_at % STRIDE_W);
                        if (u >= SIZE_H || v >= SIZE_W) continue;
                        EACH_SAMPLE(s) {share}
                    }}
            }}
        #pragma unroll
        for (int a = 0; a < CELL_H; ++a)
            #pragma unroll
            for (int b = 0; b < CELL_W; ++b) {{
                int y = y_at + a - top, x = x_at + b - left;
                if (!lies_in(y, height, x, width)) continue;
                {mean}
                ((Samples*)dx)[place(channel, height, y, width, x, groups, group)] = sums[a][b];
            }}
    }}
}}
"""

    def parts(*arguments: Any) -> tuple[list[Array], Window]:
        return _arrays_of(*arguments), next(argument for argument in arguments if isinstance(argument, tuple))

    def launch(*arguments: Any) -> Launch:
        arrays, window = parts(*arguments)
        (channels, height, width, n), (rows, columns) = arrays[-1].shape, arrays[0].shape[1:3]
        (cell_h, cell_w), (top, left) = _cell(window), window[4:]
        cells = -(-(height + top) // cell_h), -(-(width + left) // cell_w)
        given = *arrays[:-1], top, left, arrays[-1], channels, height, width, rows, columns, *cells
        return launch_per_pixel({"SAMPLES": samples(*arrays)}, channels, *cells, n, *given)

    def constants(*arguments: Any) -> dict[str, int]:
        arrays, window = parts(*arguments)
        counts_all = _lies_inside(arrays[-1], arrays[0], window) or any(argument is True for argument in arguments)
        cell_h, cell_w = _cell(window)
        return window_constants(window, *arrays) | {"CELL_H": cell_h, "CELL_W": cell_w, "COUNTS_ALL": int(counts_all)}

    return raw(source, launch, preamble=PLACES + preamble, constants=constants)


@_pooling(
    "T* __restrict__ y, unsigned char* __restrict__ choice",
    "Samples best; Choices chosen; bool has_begun = false;",
    """
                EACH_SAMPLE(s) {
                    T value = seen.of[s];
                    bool is_better = !has_begun || value > best.of[s];
                    if (is_better) chosen.of[s] = u * SIZE_W + v;
                    if (is_better || value != value) best.of[s] = value;  // a NaN stays, as no later value is larger
                }
                has_begun = true;
""",
    "((Samples*)y)[target] = best; ((Choices*)choice)[target] = chosen;",
)
@by_channels
@numba_loops.in_loops(numba_loops.max_pool)
def max_pool(x: Array, window: Window, y: Array, choice: Array) -> None:
    """y := the largest of each window, choice := its position in the window, the first of equals."""
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
        # NumPy copies strided arrays five times as fast as it computes on them.
        np.copyto(value, seen)
        np.greater(value, best, out=better[:, i, j])
        np.maximum(value, best, out=best)
        # Positions only grow, so the larger of two choices is the later one: cheaper than a masked copy.
        np.multiply(is_better, np.uint8(place), out=is_better)
        np.maximum(chosen, is_better, out=chosen)


def _set_first(choice: Array, window: Window) -> None:
    """Choose the first position of each window inside the image, for windows with nothing above -inf."""
    _, size_w, stride_h, stride_w, top, left = window
    first_u, first_v = (
        np.maximum(0, before - np.arange(count) * stride)
        for before, count, stride in ((top, choice.shape[1], stride_h), (left, choice.shape[2], stride_w))
    )
    choice[...] = (first_u[:, None] * size_w + first_v).astype(np.uint8)[:, :, None]


def _covers(dy: Array, window: Window, dx: Array) -> bool:
    """Return whether every input lies in exactly one window, and every window in the image."""
    size_h, size_w, stride_h, stride_w = window[:4]
    is_one = size_h <= stride_h and size_w <= stride_w and bool(dx.size == dy.size * size_h * size_w)
    return is_one and _lies_inside(dx, dy, window)


def _sized_for_loops(dy: Array, _: Array, window: Window, dx: Array) -> tuple[Array, ...]:
    """Return dx if loops may write it: with padding, or each input once; else sums keep the order of NumPy's passes."""
    return (dx,) if any(window[4:]) or _covers(dy, window, dx) else ()


@_pooling_gradient(
    "const T* __restrict__ dy, const unsigned char* __restrict__ choice",
    "Choices chosen = ((const Choices*)choice)[from];",
    "if (chosen.of[s] == u * SIZE_W + v) sums[a][b].of[s] += delta.of[s];",
)
@by_channels
@numba_loops.in_loops(numba_loops.max_pool_gradient, _sized_for_loops)
def max_pool_gradient(dy: Array, choice: Array, window: Window, dx: Array) -> None:
    """dx := dy at the chosen position of each window, summed where windows overlap, 0 elsewhere."""
    covers = _covers(dy, window, dx)
    if not covers:
        dx.fill(0)
    is_choice = np.empty(dy.shape, np.bool_)
    share = np.empty(dy.shape, dy.dtype)
    for place, (i, j, seen) in enumerate(_places(dx, dy, window)):
        # NumPy vectorizes a conversion and a product of equal types, but not a product of mixed types.
        np.equal(choice, place, out=is_choice)
        np.copyto(share, is_choice.view(np.int8))
        np.multiply(dy, share, out=share)
        if covers:
            np.copyto(seen, share)
        else:
            seen += share[:, i, j]


def _shares(y: Array, window: Window, counts_all: bool, height: int, width: int) -> Any:
    """Return 1/count of each mean: of all positions in a window, or of those in the image for each window."""
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
    "T* __restrict__ y",
    "Samples sum = {}; int count = 0;",
    "EACH_SAMPLE(s) sum.of[s] += seen.of[s]; ++count;",
    """
        T share = COUNTS_ALL ? T(1.0 / (SIZE_H * SIZE_W)) : one_over(count);
        EACH_SAMPLE(s) sum.of[s] *= share;
        ((Samples*)y)[target] = sum;
""",
    _ONE_OVER,
)
def average_pool(x: Array, window: Window, counts_all: bool, y: Array) -> None:
    """y := the sum of each window over its number of positions, of all if `counts_all`, else of those in x."""
    if not (lies_inside := _lies_inside(x, y, window)):
        y.fill(0)
    for place, (i, j, seen) in enumerate(_places(x, y, window)):
        if place == 0 and lies_inside:
            np.copyto(y, seen)
        else:
            np.add(y[:, i, j], seen, out=y[:, i, j])
    np.multiply(y, _shares(y, window, counts_all, *x.shape[1:3]), out=y)


@_pooling_gradient(
    "const T* __restrict__ dy",
    """
                if (!COUNTS_ALL) {
                    // The pixels of this window inside the image.
                    int first_u = max(0, top - i * STRIDE_H), end_u = min(SIZE_H, height + top - i * STRIDE_H);
                    int first_v = max(0, left - j * STRIDE_W), end_v = min(SIZE_W, width + left - j * STRIDE_W);
                    T share = one_over((end_u - first_u) * (end_v - first_v));
                    EACH_SAMPLE(s) delta.of[s] *= share;
                }
""",
    "sums[a][b].of[s] += delta.of[s];",
    "if (COUNTS_ALL) EACH_SAMPLE(s) sums[a][b].of[s] *= T(1.0 / (SIZE_H * SIZE_W));",
    _ONE_OVER,
)
def average_pool_gradient(dy: Array, window: Window, counts_all: bool, dx: Array) -> None:
    """dx := dy over the count of its mean at every position of each window, summed where they overlap, 0 elsewhere."""
    share = dy * _shares(dy, window, counts_all, *dx.shape[1:3])
    dx.fill(0)
    for i, j, seen in _places(dx, dy, window):
        seen += share[:, i, j]


@raw(
    """
extern "C" __global__ void mean_of_pixels(const T* __restrict__ x, T* __restrict__ y, T share, int pixels, int features,
                                          int groups, int shift) {
    FOR_PLACES(1, 1, features, groups, shift) {
        const Samples* first = (const Samples*)x + (long long)column * pixels * groups + group;
        Samples sum = {};
        #pragma unroll 8
        for (int pixel = 0; pixel < pixels; ++pixel) {
            Samples seen = first[(long long)pixel * groups];
            EACH_SAMPLE(s) sum.of[s] += seen.of[s];
        }
        EACH_SAMPLE(s) sum.of[s] *= share;
        ((Samples*)y)[(long long)column * groups + group] = sum;
    }
}
""",
    launch=lambda x, y: launch_per_pixel(
        {"SAMPLES": samples(x, y)}, 1, 1, len(y), y.shape[1], x, y, 1.0 / (pixels := x.size // y.size), pixels, len(y)
    ),
    preamble=PLACES,
    constants=lambda x, y: {"SAMPLES": samples(x, y)},
)
@by_channels
def mean_of_pixels(x: Array, y: Array) -> None:
    """y := the mean of each channel's pixels, (channels, batch)."""
    channels, height, width, n = x.shape
    np.add.reduce(x.reshape(channels, height * width, n), axis=1, out=y)
    np.divide(y, y.dtype.type(height * width), out=y)


@raw(
    """
extern "C" __global__ void mean_of_pixels_gradient(const T* __restrict__ dy, T* __restrict__ dx, T share, int channels,
                                                   int pixels, int groups, int shift) {
    FOR_PLACES(channels, 1, pixels, groups, shift) {
        Samples delta = ((const Samples*)dy)[(long long)channel * groups + group];
        EACH_SAMPLE(s) delta.of[s] *= share;
        ((Samples*)dx)[((long long)channel * pixels + column) * groups + group] = delta;
    }
}
""",
    launch=lambda dy, pixels, dx: launch_per_pixel(
        {"SAMPLES": samples(dy, dx)}, len(dx), 1, int(pixels), dx.shape[3], dy, dx, 1.0 / pixels, len(dx), int(pixels)
    ),
    preamble=PLACES,
    constants=lambda dy, _pixels, dx: {"SAMPLES": samples(dy, dx)},
)
def mean_of_pixels_gradient(dy: Array, pixels: float, dx: Array) -> None:
    """dx := dy/pixels for every pixel, with dy of shape (channels, 1, 1, batch)."""
    np.copyto(dx, dy / dy.dtype.type(pixels))
