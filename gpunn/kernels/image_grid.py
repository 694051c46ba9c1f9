"""Map threads to the pixels of images: each takes some samples of one pixel, and no index is divided by a size.

Samples and columns lie along blockIdx.x, rows along blockIdx.y, channels along blockIdx.z. The samples of a pixel take
a power of two of threads, some of them idle, so shifts separate column and samples. Beyond 65,535 rows or channels a
thread takes several. Windows and strides are compile-time constants, so their loops unroll; a network has few of them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from gpunn.kernels.record import Array, Launch

Geometry: TypeAlias = tuple[int, int, int, int, int, int]  # size_h, size_w, stride_h, stride_w, pad_top, pad_left

_BYTES = 16  # bytes that a thread reads or writes at once
_MOST_THREADS, _LEAST_THREADS = 256, 32
ENOUGH_BLOCKS = 264  # two for each of the 132 multiprocessors of an H100
_MOST_BLOCKS = 65_535  # along blockIdx.y or z

PLACES = """
struct alignas(SAMPLES * sizeof(T)) Samples { T of[SAMPLES]; };
struct alignas(SAMPLES) Choices { unsigned char of[SAMPLES]; };
#define EACH_SAMPLE(s) for (int s = 0; s < SAMPLES; ++s)

// Loop over the (channel, row, column) of a thread, for its samples from group · SAMPLES on.
#define FOR_PLACES(channels, rows, columns, groups, shift)                                                 \\
    long long thread_at = (long long)blockIdx.x * blockDim.x + threadIdx.x;                                \\
    int group = thread_at & ((1 << shift) - 1), column = thread_at >> shift;                               \\
    if (group >= groups || column >= columns) return;                                                      \\
    for (int channel = blockIdx.z; channel < channels; channel += gridDim.z)                               \\
        for (int row = blockIdx.y; row < rows; row += gridDim.y)

// Return the index of the samples of a pixel, counted in groups.
__device__ inline long long place(long long channel, int height, int y, int width, int x, int groups, int group) {
    return ((channel * height + y) * width + x) * groups + group;
}

__device__ inline bool lies_in(int y, int height, int x, int width) {
    return (unsigned)y < (unsigned)height && (unsigned)x < (unsigned)width;
}
"""


def window_constants(geometry: Sequence[int], *arrays: Array) -> dict[str, int]:
    """Return the constants of a kernel: size and stride of its windows, samples of a thread, and rows to unroll."""
    names = "SIZE_H", "SIZE_W", "STRIDE_H", "STRIDE_W"
    constants = dict(zip(names, geometry, strict=False)) | {"SAMPLES": samples(*arrays)}
    taps = geometry[0] * geometry[1]
    return constants | {"UNROLLED": geometry[0] if taps <= 64 else 1}


def samples(*arrays: Array) -> int:
    """Return the samples that a thread takes at once: 16 bytes of the first array, or 1 if any array is unaligned."""
    count = _BYTES // arrays[0].itemsize
    fits = arrays[0].shape[-1] % count == 0 and all(_address(a) % (count * a.itemsize) == 0 for a in arrays)
    return count if fits else 1


def _address(array: Array) -> int:
    pointer: int = array.data.ptr if hasattr(array.data, "ptr") else array.ctypes.data
    return pointer


def launch_per_pixel(
    constants: Mapping[str, int], channels: int, rows: int, columns: int, n: int, *arguments: Any
) -> Launch:
    """Launch a thread for some samples of each pixel; `groups` and `shift` become the last arguments of the kernel."""
    groups = n // constants["SAMPLES"]
    shift = (groups - 1).bit_length()
    down, deep = min(rows, _MOST_BLOCKS), min(channels, _MOST_BLOCKS)
    threads = _MOST_THREADS
    # Use smaller blocks where these would leave threads or multiprocessors idle.
    while threads > _LEAST_THREADS and (
        threads >= 2 * (columns << shift) or -(-(columns << shift) // threads) * down * deep < ENOUGH_BLOCKS
    ):
        threads //= 2
    across = -(-(columns << shift) // threads)
    return Launch((across, down, deep), threads, (*arguments, groups, shift))
