"""Convolution as matrix products: patches of the input become columns, and columns are added back into an input.

Arrays are samples-last: images (channels, height, width, batch), columns (channels · size · size, rows · width_out ·
batch). In that layout every copy runs over whole rows of samples. Work goes by blocks of output rows, so that a block's
columns stay in the cache (CPU) and never take many times the memory of the input (GPU).

`geometry` is (size_h, size_w, stride_h, stride_w, pad_top, pad_left) throughout.
"""

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
from numpy.lib.stride_tricks import as_strided

from gpunn.kernels.record import Array, per_element, raw

Geometry: TypeAlias = tuple[int, int, int, int, int, int]

PLACE = """
struct Place { int channel, y, x, sample; };

// Where an element of an array of images (channels, height, width, n) lies.
__device__ inline Place place_of(long long at, int height, int width, int n) {
    return Place{int(at / n / width / height), int(at / n / width % height), int(at / n % width), int(at % n)};
}
"""


def taps(geometry: Geometry, rows: range, width_out: int, height: int, width: int) -> Iterator[tuple[slice, ...]]:
    """Yield for every place in the filter the rows and columns within the block, and those of the input it sees."""
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
    """Return first and end of the positions p of a range for which 0 <= p · stride + offset < size."""
    first = max(positions.start, -(offset // stride))
    return first, max(first, min(positions.stop, (size - 1 - offset) // stride + 1))


@raw(
    """
extern "C" __global__ void im2col(const T* x, int first_row, int width_out, int size_h, int size_w, int stride_h,
                                  int stride_w, int top, int left, T* columns, int taps, int length, int height,
                                  int width, int n) {
    long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= (long long)taps * length) return;
    // Neighbouring threads take neighbouring samples: reads and writes both run along the batch.
    int tap = at / length;
    int place = at % length;
    int j = place % n;
    int column = place / n % width_out;
    int row = first_row + place / n / width_out;
    int y = row * stride_h + tap / size_w % size_h - top;
    int x_at = column * stride_w + tap % size_w - left;
    int channel = tap / (size_w * size_h);
    bool inside = y >= 0 && y < height && x_at >= 0 && x_at < width;
    columns[at] = inside ? x[(((long long)channel * height + y) * width + x_at) * n + j] : T(0);
}
""",
    launch=lambda x, first_row, width_out, geometry, columns: per_element(
        columns.size, x, first_row, width_out, *geometry, columns, *columns.shape, *x.shape[1:]
    ),
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
        # Nothing but the image is seen: all patches are one strided view, copied in one go.
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


@raw(
    """
extern "C" __global__ void col2im(const T* columns, int first_row, int rows, int width_out, int size_h, int size_w,
                                  int stride_h, int stride_w, int top, int left, bool adds, T* dx, int channels,
                                  int height, int width, int n) {
    long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= (long long)channels * height * width * n) return;
    // One thread gathers all that one input gave to the block, in an order that never changes: no atomics.
    Place of = place_of(at, height, width, n);
    T sum = T(0);
    for (int u = 0; u < size_h; ++u) {
        int down = of.y + top - u;
        if (down < 0 || down % stride_h) continue;
        int row = down / stride_h - first_row;
        if (row < 0 || row >= rows) continue;
        for (int v = 0; v < size_w; ++v) {
            int across = of.x + left - v;
            if (across < 0 || across % stride_w) continue;
            int column = across / stride_w;
            if (column >= width_out) continue;
            long long tap = ((long long)of.channel * size_h + u) * size_w + v;
            sum += columns[((tap * rows + row) * width_out + column) * n + of.sample];
        }
    }
    dx[at] = adds ? dx[at] + sum : sum;
}
""",
    launch=lambda columns, first_row, rows, width_out, geometry, adds, dx: per_element(
        dx.size, columns, first_row, rows, width_out, *geometry, adds, dx, *dx.shape
    ),
    preamble=PLACE,
)
def col2im(
    columns: Array, first_row: int, rows: int, width_out: int, geometry: Geometry, adds: bool, dx: Array
) -> None:
    """dx[c, i·stride + u − pad, j·stride + v − pad, sample] += columns[(c, u, v), (i, j, sample)], for places inside.

    Without `adds`, dx begins as 0.
    """
    if not adds:
        dx.fill(0)
    channels, height, width, n = dx.shape
    blocks = columns.reshape(channels, -1, rows, width_out, n)
    seen = taps(geometry, range(first_row, first_row + rows), width_out, height, width)
    for place, (i, j, y, x_at) in enumerate(seen):
        dx[:, y, x_at] += blocks[:, place, i, j]
