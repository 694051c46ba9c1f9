"""Turn convolution into matrix products: copy patches of the input to columns, and add columns back into an input.

Arrays are samples-last: images (channels, height, width, batch), columns (channels · size · size, rows · width_out ·
batch). In this layout every copy runs over whole rows of samples. Work goes by blocks of output rows, so the columns of
a block stay in the cache (CPU) and never take many times the memory of the input (GPU).

`geometry` is (size_h, size_w, stride_h, stride_w, pad_top, pad_left) throughout.
"""

from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import as_strided

from gpunn.kernels.image_grid import PLACES, Geometry, launch_per_pixel, window_constants
from gpunn.kernels.record import Array, Launch, raw


def taps(geometry: Geometry, rows: range, width_out: int, height: int, width: int) -> Iterator[tuple[slice, ...]]:
    """Yield for each filter position its rows and columns in the block, and those that it sees in the input."""
    size_h, size_w, stride_h, stride_w, top, left = geometry
    for u in range(size_h):
        first, last = _inside(u - top, stride_h, height, rows)
        for v in range(size_w):
            begin, end = _inside(v - left, stride_w, width, range(width_out))
            y, x = first * stride_h + u - top, begin * stride_w + v - left
            yield (
                slice(first - rows.start, last - rows.start),
                slice(begin, end),
                slice(max(y, 0), max(y + (last - first - 1) * stride_h + 1, 0), stride_h),
                slice(max(x, 0), max(x + (end - begin - 1) * stride_w + 1, 0), stride_w),
            )


def _inside(offset: int, stride: int, size: int, positions: range) -> tuple[int, int]:
    """Return first and end of the positions p in a range with 0 <= p · stride + offset < size."""
    first = max(positions.start, -(offset // stride))
    return first, max(first, min(positions.stop, (size - 1 - offset) // stride + 1))


def _launch_im2col(x: Array, first_row: int, width_out: int, geometry: Geometry, columns: Array) -> Launch:
    """Launch a thread for each pixel of the image and its padding in the block's patches."""
    size_h, size_w, stride_h, stride_w, top, left = geometry
    channels, height, width, n = x.shape
    rows = columns.shape[1] // (width_out * n)
    seen = (rows - 1) * stride_h + size_h, (width_out - 1) * stride_w + size_w
    arguments = x, first_row, rows, width_out, top, left, columns, channels, height, width, *seen
    return launch_per_pixel(window_constants(geometry, x, columns), channels, *seen, n, *arguments)


@raw(
    """
extern "C" __global__ void im2col(const T* __restrict__ x, int first_row, int rows, int width_out, int top, int left,
                                  T* __restrict__ columns, int channels, int height, int width, int seen_down,
                                  int seen_across, int groups, int shift) {
    long long step = (long long)rows * width_out * groups;
    FOR_PLACES(channels, seen_down, seen_across, groups, shift) {
        // A thread reads one pixel of the image once, and writes it for every tap that sees it.
        int y = first_row * STRIDE_H - top + row, x_at = column - left;
        Samples seen = {};
        if (lies_in(y, height, x_at, width))
            seen = ((const Samples*)x)[place(channel, height, y, width, x_at, groups, group)];
        #pragma unroll UNROLLED
        for (int u = 0; u < SIZE_H; ++u) {
            unsigned down = row - u;  // a negative row wraps to beyond the end of the block
            if (down / STRIDE_H >= rows || down % STRIDE_H) continue;
            #pragma unroll
            for (int v = 0; v < SIZE_W; ++v) {
                unsigned across = column - v;
                if (across / STRIDE_W >= width_out || across % STRIDE_W) continue;
                long long tap = ((long long)channel * SIZE_H + u) * SIZE_W + v;
                int position = down / STRIDE_H * width_out + across / STRIDE_W;
                ((Samples*)columns)[tap * step + (long long)position * groups + group] = seen;
            }
        }
    }
}
""",
    launch=_launch_im2col,
    preamble=PLACES,
    constants=lambda *given: window_constants(given[3], given[0], given[4]),
)
def im2col(x: Array, first_row: int, width_out: int, geometry: Geometry, columns: Array) -> None:
    """columns[(c, u, v), (i, j, sample)] := x[c, i·stride + u − pad, j·stride + v − pad, sample], 0 outside x."""
    channels, height, width, n = x.shape
    size_h, size_w, stride_h, stride_w, top, left = geometry
    rows = columns.shape[1] // (width_out * n)
    blocks = columns.reshape(channels, size_h, size_w, rows, width_out, n)
    down, across = x.strides[1:3]
    reaches = (first_row + rows - 1) * stride_h + size_h - top <= height
    if first_row * stride_h >= top and left == 0 and reaches and (width_out - 1) * stride_w + size_w <= width:
        # Without padding all patches are one strided view, copied in one go.
        patches = as_strided(
            x[:, first_row * stride_h - top :],
            (channels, size_h, size_w, rows, width_out, n),
            (x.strides[0], down, across, down * stride_h, across * stride_w, x.strides[3]),
            writeable=False,
        )
        np.copyto(blocks, patches)
        return
    blocks = blocks.reshape(channels, -1, rows, width_out, n)
    seen = taps(geometry, range(first_row, first_row + rows), width_out, height, width)
    for place, (i, j, y, x_at) in enumerate(seen):
        block = blocks[:, place]
        block[:, : i.start] = 0
        block[:, i.stop :] = 0
        block[:, i, : j.start] = 0
        block[:, i, j.stop :] = 0
        block[:, i, j] = x[:, y, x_at]


def _reached(row: int, rows_out: int, geometry: Geometry, height: int) -> int:
    """Return the number of leading image rows that receive gradient from the output rows before `row`."""
    size, stride, top = geometry[0], geometry[2], geometry[4]
    if row in (0, rows_out):
        return height if row else 0
    return min(max(0, (row - 1) * stride + size - top), height)


def _launch_col2im(
    columns: Array, first_row: int, rows: int, rows_out: int, width_out: int, geometry: Geometry, dx: Array
) -> Launch:
    """Launch a thread for each pixel of the image that this block adds to, or that no block has set."""
    channels, height, width, n = dx.shape
    _, _, stride, _, top, left = geometry
    given = _reached(first_row, rows_out, geometry, height)
    begin = min(given, max(0, first_row * stride - top))
    end = _reached(first_row + rows, rows_out, geometry, height)
    arguments = columns, first_row, rows, width_out, top, left, begin, given, dx, channels, height, width, end - begin
    return launch_per_pixel(window_constants(geometry, dx, columns), channels, end - begin, width, n, *arguments)


@raw(
    """
extern "C" __global__ void col2im(const T* __restrict__ columns, int first_row, int rows, int width_out, int top,
                                  int left, int begin, int given, T* __restrict__ dx, int channels, int height,
                                  int width, int seen_down, int groups, int shift) {
    long long step = (long long)rows * width_out * groups;
    FOR_PLACES(channels, seen_down, width, groups, shift) {
        // One thread sums the gradient of one input from the block in a fixed order, without atomics.
        int y = begin + row;
        Samples sum = {};
        #pragma unroll UNROLLED
        for (int u = 0; u < SIZE_H; ++u) {
            unsigned down = y + top - first_row * STRIDE_H - u;  // a negative row wraps to beyond the end of the block
            if (down / STRIDE_H >= rows || down % STRIDE_H) continue;
            #pragma unroll
            for (int v = 0; v < SIZE_W; ++v) {
                unsigned across = column + left - v;
                if (across / STRIDE_W >= width_out || across % STRIDE_W) continue;
                long long tap = ((long long)channel * SIZE_H + u) * SIZE_W + v;
                int position = down / STRIDE_H * width_out + across / STRIDE_W;
                Samples share = ((const Samples*)columns)[tap * step + (long long)position * groups + group];
                EACH_SAMPLE(s) sum.of[s] += share.of[s];
            }
        }
        Samples& target = ((Samples*)dx)[place(channel, height, y, width, column, groups, group)];
        if (y < given) {
            Samples before = target;
            EACH_SAMPLE(s) sum.of[s] = before.of[s] + sum.of[s];
        }
        target = sum;
    }
}
""",
    launch=_launch_col2im,
    preamble=PLACES,
    constants=lambda *given: window_constants(given[5], given[6], given[0]),
)
def col2im(
    columns: Array, first_row: int, rows: int, _rows_out: int, width_out: int, geometry: Geometry, dx: Array
) -> None:
    """dx[c, i·stride + u − pad, j·stride + v − pad, sample] += columns[(c, u, v), (i, j, sample)], inside the image.

    Blocks of `rows` output rows follow one another. The first, from row 0 on, finds dx uninitialized. Each leaves the
    rows of dx that no block has reached yet 0 or uninitialized.
    """
    if first_row == 0:
        dx.fill(0)
    channels, height, width, n = dx.shape
    blocks = columns.reshape(channels, -1, rows, width_out, n)
    seen = taps(geometry, range(first_row, first_row + rows), width_out, height, width)
    for place, (i, j, y, x_at) in enumerate(seen):
        dx[:, y, x_at] += blocks[:, place, i, j]
