"""Augment images while a batch is gathered: transform, mirror and partly erase each at random.

Philox draws by (seed, step, sample), and each float32 operation is rounded by itself, so CPU and GPU get the same bits.
"""

from typing import Any, TypeAlias

import numpy as np

from gpunn.kernels.gather import BEGIN_STEP, COUNT, begin_on_host, launch_tiles
from gpunn.kernels.random import PHILOX, Purpose, random_words
from gpunn.kernels.record import Array, Launch, raw

# Largest shift in pixels, tan of half the angle, change of scale, and shear, each drawn between minus and plus its
# limit. A number drawn between −1 and 1 mirrors an image if it is below the fifth. The last is the side of the cutout.
Limits: TypeAlias = tuple[float, float, float, float, float, int]

_BLOCK = 32  # samples at once: their coordinates stay in the cache from pass to pass


def transforms(n: int, seed: int, step: int, limits: Limits, first: int = 0) -> Array:
    """Draw affine maps from output pixels to input pixels for n samples, float32 (6, n).

    `first` is the index of the first sample in the batch of all ranks.

    With x and y from the middle: x' = m₀ x + m₁ y + m₂, y' = m₃ x + m₄ y + m₅. A rotation by θ is written with
    t = tan(θ/2): cos θ = (1 − t²)/(1 + t²), sin θ = 2t/(1 + t²), so it needs no function that devices round
    differently. A mirrored image starts from −x.
    """
    unit = (_words(n, seed, step, first) >> np.uint32(8)).astype(np.float32).T * np.float32(2**-23) - np.float32(1)
    shift, half_tangent, scale, shear, flip = (np.float32(limit) for limit in limits[:5])
    t = unit[2] * half_tangent
    square = t * t
    below = np.float32(1) / (square + np.float32(1))
    size = unit[3] * scale + np.float32(1)
    cosine = (np.float32(1) - square) * below * size
    sine = (t + t) * below * size
    sheared = unit[4] * shear * size - sine
    maps = np.stack([cosine, sheared, unit[0] * shift, sine, cosine, unit[1] * shift])
    is_mirrored = unit[5] < flip
    maps[0, is_mirrored], maps[3, is_mirrored] = -maps[0, is_mirrored], -maps[3, is_mirrored]
    return maps


def _words(n: int, seed: int, step: int, first: int) -> Array:
    return random_words(8 * n, seed=seed, purpose=Purpose.AUGMENTATION, step=step, first=2 * first).reshape(n, 8)


def holes(n: int, seed: int, step: int, side: int, height: int, width: int, first: int = 0) -> Array:
    """Draw the top left corners of the squares to cut out of n images, int64 (n, 2).

    Their centres are drawn uniformly from all pixels, so some squares lie partly outside.
    """
    return (_words(n, seed, step, first)[:, 6:].astype(np.int64) * (height, width) >> 32) - side // 2


def _sample(framed: Array, m: Array, scale: np.float32, pictures: Array) -> None:
    """Write framed images under their maps m to pictures (n, channels, height, width), by bilinear interpolation."""
    n, channels, frame_height, line = framed.shape
    height, width, frame = frame_height - 4, line - 4, frame_height * line
    m = m[:, :, None, None]
    down = (np.arange(height, dtype=np.float32) - np.float32((height - 1) / 2))[:, None]
    across = np.arange(width, dtype=np.float32) - np.float32((width - 1) / 2)
    at_x = (m[0] * across + m[1] * down) + (m[2] + np.float32((width - 1) / 2))
    at_y = (m[3] * across + m[4] * down) + (m[5] + np.float32((height - 1) / 2))
    left, top = np.floor(at_x), np.floor(at_y)
    part_x, part_y = np.subtract(at_x, left, out=at_x), np.subtract(at_y, top, out=at_y)
    for place, last in ((left, width), (top, height)):
        np.minimum(np.maximum(place, -2, out=place), last, out=place)
    corner = top.astype(np.int32)
    corner *= np.int32(line)
    corner += left.astype(np.int32)
    corner = corner + (np.arange(n)[:, None, None] * (channels * frame) + 2 * line + 2)
    flat = framed.reshape(-1)
    for channel in range(channels):
        above = _between(flat[channel * frame :], corner, part_x)
        values = _between(flat[channel * frame + line :], corner, part_x)
        values -= above
        values *= part_y
        values += above
        values *= scale
        pictures[:, channel] = values


def _between(flat: Array, at: Array, part: Array) -> Array:
    """Return a + (b − a) · part for neighbouring values a and b."""
    # No index lies outside; "wrap" is only NumPy's fastest mode.
    a, b = flat.take(at, mode="wrap"), flat[1:].take(at, mode="wrap")
    b -= a
    b *= part
    b += a
    return b


def augment(images: Array, seed: int, step: int, limits: Limits, scale: float, pictures: Array, first: int = 0) -> None:
    """Write the augmented images of a step, times `scale`, to pictures; both are (n, channels, height, width)."""
    n, channels, height, width = images.shape
    # The border of zeros is wide enough to look up the right and lower neighbour of every pixel.
    framed = np.zeros((n, channels, height + 4, width + 4), np.float32)
    framed[:, :, 2:-2, 2:-2] = images
    m = transforms(n, seed, step, limits, first)
    for start in range(0, n, _BLOCK):
        at = slice(start, start + _BLOCK)
        _sample(framed[at], m[:, at], np.float32(scale), pictures[at])
    if side := limits[5]:
        corners = holes(n, seed, step, side, height, width, first)
        for picture, (top, left) in zip(pictures, corners, strict=True):
            picture[:, max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = 0


def _launch(*given: Any) -> Launch:
    *batch, scale, seed, first, limits, shape, x, t = given
    numbers = np.float32(scale), np.uint32(seed), first, *map(np.float32, limits[:5]), np.int32(limits[5]), *shape
    return launch_tiles(*batch, *numbers, x, t)


@raw(
    """
__device__ inline float pixel(const D* image, int y, int x, int height, int width) {
    return y < 0 || y >= height || x < 0 || x >= width ? 0.0f : float(image[y * width + x]);
}

__device__ inline float unit(unsigned word) { return float(word >> 8) * 1.1920928955078125e-07f - 1.0f; }

struct Map { float cosine, sheared, x, sine, y; int is_mirrored, left, top, unused; };  // nine words: no bank conflicts

extern "C" __global__ void gather_augmented(const D* data, const S* targets, const int* order, int* clock,
                                            int batch_size, float scale, unsigned seed, int first, float shift,
                                            float half_tangent, float stretch, float shear, float flip, int side,
                                            int channels, int height, int width, T* x, S* t, int n, int features,
                                            int row_stride, int column_stride, int outputs) {
    __shared__ Map maps[32];  // drawn once for each sample of the tile
    begin_step(targets, order, clock, batch_size, t, n, outputs);
    float middle_x = (width - 1) / 2.0f, middle_y = (height - 1) / 2.0f;
    if (threadIdx.x < 32) {
        unsigned at = 2 * (first + blockIdx.x % ((n + 31) / 32) * 32 + threadIdx.x);
        uint4 a = philox4x32(make_uint4(at, clock[3], 0, 0), seed, PURPOSE);
        uint4 b = philox4x32(make_uint4(at + 1, clock[3], 0, 0), seed, PURPOSE);
        float tangent = unit(a.z) * half_tangent;
        float square = tangent * tangent;
        float below = 1.0f / (square + 1.0f);
        float size = unit(a.w) * stretch + 1.0f;
        Map& m = maps[threadIdx.x];
        m.cosine = (1.0f - square) * below * size;
        m.sine = (tangent + tangent) * below * size;
        m.sheared = unit(b.x) * shear * size - m.sine;
        m.x = unit(a.x) * shift + middle_x;
        m.y = unit(a.y) * shift + middle_y;
        m.is_mirrored = unit(b.y) < flip;
        m.left = (int)__umulhi(b.w, width) - side / 2;
        m.top = (int)__umulhi(b.z, height) - side / 2;
    }
    __syncthreads();
    Tile tile(n, column_stride);
    for (int k = threadIdx.x / 32; k < 32; k += blockDim.x / 32, tile.next()) {
        int j = tile.j, f = tile.f;
        if (j >= n || f >= features) return;
        const Map& m = maps[j % 32];
        T& out = x[(long long)j * row_stride + (long long)f * column_stride];
        int pixel_x = f % width, pixel_y = f / width % height;
        int beyond_x = pixel_x - m.left, beyond_y = pixel_y - m.top;
        if (beyond_x >= 0 && beyond_x < side && beyond_y >= 0 && beyond_y < side) {
            out = T(0);
            continue;
        }
        float across = float(pixel_x) - middle_x, down = float(pixel_y) - middle_y;
        if (m.is_mirrored) across = -across;
        float at_x = (m.cosine * across + m.sheared * down) + m.x;
        float at_y = (m.sine * across + m.cosine * down) + m.y;
        float left = floorf(at_x), top = floorf(at_y);
        float part_x = at_x - left, part_y = at_y - top;
        // Coordinates far outside may overflow an int; all from two pixels beyond the image on are equivalent.
        int column = (int)fminf(fmaxf(left, -2.0f), float(width)), row = (int)fminf(fmaxf(top, -2.0f), float(height));
        const D* image = data + (long long)order[clock[2] * batch_size + j] * features
                         + (long long)(f / (height * width)) * height * width;
        float p = pixel(image, row, column, height, width), q = pixel(image, row + 1, column, height, width);
        float upper = p + (pixel(image, row, column + 1, height, width) - p) * part_x;
        float lower = q + (pixel(image, row + 1, column + 1, height, width) - q) * part_x;
        out = T((upper + (lower - upper) * part_y) * scale);
    }
}
""",
    launch=_launch,
    types={"D": 0, "S": 1, "T": 10},
    preamble=f"const int PURPOSE = {int(Purpose.AUGMENTATION)};\n{PHILOX}{BEGIN_STEP}",
    options=("--fmad=false",),
)
def gather_augmented(
    data: Array, targets: Array, order: Array, clock: Array, batch_size: int, scale: float, seed: int, first: int,
    limits: Limits, shape: tuple[int, int, int], x: Array, t: Array,
) -> None:  # fmt: skip
    """Gather a batch like `gather`, each image under a map from `transforms` and with a square from `holes` set to 0.

    Values between pixels are interpolated bilinearly. `first` is the first sample's index in the batch of all ranks.
    """
    n = len(x)
    images = begin_on_host(data, targets, order, clock, batch_size, t).reshape(n, *shape)
    augment(images, seed, int(clock[COUNT]), limits, scale, x.reshape(n, *shape), first)
