"""Find the drawing in a photograph: remove ground and shading, ruled lines, specks and anything at the edges."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.data.formats.areas import Areas, find_areas, opened, run_lengths, smoothed

Array = NDArray[Any]
LEAST_INK = 0.06  # departure from the ground, as a share of the whole range, that is ink in a photograph
# Anything wider in both directions is ground, such as a shadow or a table: shares of the shorter and the longer side.
_WIDEST, _WIDEST_OF_LONGER = 0.3, 0.25
# In standard deviations of the noise: the least departure of ink from the ground, and the least that needs no
# smoothing; and the share of the noise that is left after each smoothing.
_OVER_NOISE, _CLEAR, _LEFT = 9.0, 25.0, (1.0, 0.375, 0.273, 0.226, 0.196)
_MOST_SMOOTHINGS = len(_LEFT) - 1
_BROADEST, _FINER = (
    0.2,
    0.7,
)  # breadth of strokes, and how much finer strokes of the other kind win
_LEAST_LIGHT = 0.1
_DARK_IS_LIKELIER = 1.2
_POINTS = 48  # of the longer side, to which the ground is fitted
# Departure from the ground at which a pixel loses weight, and stiffness, of successive fits.
_ROUNDS = ((0.25, 1.0), (0.2, 0.3), (0.15, 0.1), (0.1, 0.03), (0.07, 0.01), (0.05, 0.01), (0.05, 0.01))
_STEPS = 20
_GRID = 32  # cells of the longer side in the local median
_LINE = 0.02  # of the longer side: the thickest ruled line
_LINE_COVERS = 0.6  # of the picture's width
_SLANTS = np.linspace(-0.25, 0.25, 101)  # of ruled lines
_SPECK = 0.02  # of the drawing's area: smaller parts are specks
_NEAR = 0.25  # of the drawing's size: largest gap between its parts
_LIKE = 0.5  # of the drawing's size: another area of that size is a drawing of its own


@dataclass(frozen=True)
class Ink:
    """Drawing in a photograph: amount of ink at each pixel, 0 to about 1, and mask of the drawing."""

    amount: Array
    drawing: Array
    is_dark: bool  # ink darker than its ground
    breadth: float  # of its strokes, as a share of its size
    others: int  # further drawings, left out
    had_lines: bool


def find_ink(pixels: Array, is_dark: bool | None = None) -> Ink | None:
    """Find the largest drawing in pixels from 0 to 1, (height, width, channels); None where there is none.

    `is_dark` says whether ink is darker than its ground; left out, it is detected.
    """
    signal = _along_ink(pixels - _plain_ground(pixels))
    noise, smoothings = _noise(signal), 0
    while smoothings < _MOST_SMOOTHINGS and noise * _LEFT[smoothings] * _CLEAR > float(np.abs(signal).max()):
        signal, pixels, smoothings = smoothed(signal), smoothed(pixels), smoothings + 1
    noise *= _LEFT[smoothings]
    window = max(3, round(max(_WIDEST * min(signal.shape), _WIDEST_OF_LONGER * max(signal.shape))))
    found = []
    around = _local_median(signal)
    for sign in (1, -1) if is_dark is None else (1 if is_dark else -1,):
        rise = sign * signal
        hat = rise - opened(rise, window)
        true = np.clip(sign * (signal - around), 0, hat)
        support = float(np.square(true[true > LEAST_INK / 2]).sum())
        found.append((support * (_DARK_IS_LIKELIER if sign > 0 else 1), sign, hat))
    likely: Ink | None = None
    for _, sign, hat in sorted(found, key=lambda each: -each[0]):
        drawing = _drawing(pixels, hat, noise, is_dark=sign > 0)
        # A blot may be the sheet, or the light of a lamp, with strokes of the other kind on it.
        if drawing is not None and (likely is None or drawing.breadth < _FINER * likely.breadth):
            likely = drawing
        if likely is not None and likely.breadth <= _BROADEST:
            break
    return likely


def _drawing(pixels: Array, hat: Array, noise: float, *, is_dark: bool) -> Ink | None:
    least = max(LEAST_INK, _OVER_NOISE * noise)
    is_ink = hat > least
    if np.count_nonzero(is_ink) < 2:
        return None
    if is_dark:  # light falls on ink as on its ground, so ink is the missing share of the light
        hat = hat / np.maximum(pixels.mean(axis=2) + hat, _LEAST_LIGHT)
    mask = is_ink & (hat > _otsu(hat[is_ink]) * 0.9)
    lines = _ruled_lines(mask)
    areas = find_areas(mask & ~lines)
    chosen, others = _cluster(areas, mask.shape)
    if not chosen.size:
        return None
    drawing = areas.where(chosen)
    level = float(np.quantile(hat[drawing], 0.6))
    return Ink(hat / level, drawing, is_dark, _breadth(drawing), others, bool(lines.any()))


def _breadth(drawing: Array) -> float:
    """Return the mean width of strokes, twice area over outline, as a share of the drawing's size."""
    outline = sum(np.count_nonzero(np.diff(np.pad(drawing, 1).astype(np.int8), axis=axis)) for axis in (0, 1))
    size = max(np.ptp(np.flatnonzero(drawing.any(axis=axis))) + 1 for axis in (0, 1))
    return float(2 * np.count_nonzero(drawing) / (outline * np.pi / 4) / size)


def _plain_ground(pixels: Array) -> Array:
    """Fit a quadratic surface to most of the pixels of each channel, (height, width, channels)."""
    height, width, channels = pixels.shape
    step = max(1, max(height, width) // _POINTS)
    rows, columns = (np.linspace(-1, 1, count, dtype=np.float32)[:, None] for count in (height, width))
    few = pixels[::step, ::step].reshape(-1, channels).astype(np.float64)
    y, x = (each.ravel() for each in np.broadcast_arrays(rows[::step], columns[::step].T))
    terms = np.stack([np.ones_like(y), y, x, y * y, x * y, x * x]).astype(np.float64)
    fitted = np.broadcast_to(_usual_colour(few), few.shape)
    for reach, stiff in _ROUNDS:
        share = 1 / (1 + np.square((few - fitted) / reach).sum(axis=1)) ** 2
        # Bent as little as needed, or the surface would follow broad strokes.
        stiffness = np.diag(stiff * np.asarray([1e-6, 0.3, 0.3, 1, 1, 1]) * float(share.sum()))
        products = _sums(terms * share, terms) + stiffness
        weights = _solved(products, _sums(terms * share, few.T))
        fitted = _sums(terms.T, weights.T)
    w = weights.astype(np.float32)
    across = columns.T[..., None]
    down = rows[..., None]
    return np.asarray(w[0] + down * w[1] + down**2 * w[3] + across * (w[2] + down * w[4]) + across**2 * w[5])


def _sums(left: Array, right: Array) -> Array:
    """Return the products of each row of `left` with each row of `right`."""
    # In one pass: a separate multiplication took a quarter of the time of a small picture.
    return np.asarray(np.einsum("ik,jk->ij", left, right))  # noqa: TID251 - six rows: too few for BLAS


def _solved(products: Array, right: Array) -> Array:
    """Solve a small positive definite system by elimination."""
    left, right = products.copy(), right.copy()
    size = len(left)
    for row in range(size):
        right[row] /= left[row, row]
        left[row] /= left[row, row]
        for other in range(size):
            if other != row:
                right[other] -= left[other, row] * right[row]
                left[other] -= left[other, row] * left[row]
    return right


def _usual_colour(colours: Array) -> Array:
    """Return the mean of the colours (n, channels) at the most frequent brightness."""
    brightness = colours.mean(axis=1)
    counts, edges = np.histogram(brightness, 64, (0, 1))
    wide = np.convolve(counts, np.hanning(11), "same")
    middle = edges[int(np.argmax(wide))] + 1 / 128
    return np.asarray(colours[np.abs(brightness - middle) <= 4 / 64].mean(axis=0))


def _along_ink(departs: Array) -> Array:
    """Reduce departures in colours to one number along their main direction, above 0 where it is darker."""
    if departs.shape[2] == 1:
        return -departs[..., 0]
    few = departs[::2, ::2].reshape(-1, departs.shape[2]).astype(np.float64)
    few *= np.minimum(np.sqrt(np.square(few).sum(axis=1, keepdims=True)), 0.5)
    spread = _sums(few.T, few.T)
    axis = np.ones(departs.shape[2])
    for _ in range(_STEPS):  # power iteration, from grey
        axis = (spread * axis).sum(axis=1)
        axis /= max(float(np.sqrt(np.square(axis).sum())), 1e-30)
    axis *= (-1 if axis.sum() > 0 else 1) / np.sqrt(departs.shape[2])
    return np.asarray((departs * axis.astype(np.float32)).sum(axis=2))


def _noise(signal: Array) -> float:
    """Estimate the standard deviation of noise by second differences (Immerkær 1996)."""
    rows = np.diff(signal, 2, axis=0)
    both = np.diff(rows, 2, axis=1)
    return float(np.median(np.abs(both))) / 0.6745 / 6 if both.size else 0.0


def _local_median(signal: Array) -> Array:
    """Return a coarse median over half of the picture around each pixel."""
    height, width = signal.shape
    step = max(1, -(-max(height, width) // _GRID))
    few = signal[min(step // 2, height - 1) :: step, min(step // 2, width - 1) :: step]
    reach_y, reach_x = (max(1, size // 4) for size in few.shape)
    padded = np.pad(few, ((reach_y, reach_y), (reach_x, reach_x)), mode="symmetric")
    views = np.lib.stride_tricks.sliding_window_view(padded, (2 * reach_y + 1, 2 * reach_x + 1))
    medians = np.median(views.reshape(*few.shape, -1), axis=2)
    rows, columns = (
        np.minimum(np.arange(size) // step, count - 1) for size, count in zip(signal.shape, few.shape, strict=True)
    )
    return np.asarray(medians[rows][:, columns])


def _otsu(values: Array) -> float:
    """Return the threshold between two classes of numbers (Otsu 1979), their minimum if they are one class."""
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-4:  # of the range of pixels: rounding alone, and no two classes
        return low
    counts, edges = np.histogram(values.astype(np.float64), 128, (low, high))
    middles = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * middles)
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * np.square(sums / below - (sums[-1] - sums) / above)
    return float(edges[1 + int(np.nanargmax(between[:-1]))])


def _ruled_lines(mask: Array) -> Array:
    """Return the pixels of long thin straight lines, across or down, except where strokes cross them."""
    found = np.zeros_like(mask)
    for turned, out in ((mask, found), (mask.T, found.T)):
        height, width = turned.shape
        thickest = max(2, round(_LINE * max(mask.shape)))
        lengths = run_lengths(turned)
        y, x = np.nonzero(turned & (lengths <= 2 * thickest))
        if not y.size:
            continue
        lean = round(0.25 * width) + 1
        best, at, slope = 0.0, None, 0.0
        for slant in _SLANTS:
            counts = np.bincount(
                np.rint(y - slant * (x - width / 2)).astype(np.intp) + lean, minlength=height + 2 * lean
            )
            score = float(np.square(counts.astype(np.float64)).sum())
            if score > best:
                best, at, slope = score, counts, float(slant)
        assert at is not None
        is_line = at >= _LINE_COVERS * width
        if not is_line.any():
            continue
        near = is_line.copy()
        near[1:] |= is_line[:-1]
        near[:-1] |= is_line[1:]
        place = np.rint(y - slope * (x - width / 2)).astype(np.intp) + lean
        hit = near[place]
        thick = float(np.median(lengths[y[hit], x[hit]]))
        thin = hit & (lengths[y, x] <= 1.6 * thick + 1)
        out[y[thin], x[thin]] = True
    rest = mask & ~found
    return found if rest.sum() >= 0.05 * mask.sum() else np.zeros_like(found)


def _cluster(areas: Areas, shape: tuple[int, ...]) -> tuple[Array, int]:
    """Choose the areas of the largest drawing, and count other drawings of similar size."""
    top, left, bottom, right = areas.boxes.T
    size = np.maximum(bottom - top, right - left)
    at_edge = (top == 0) | (left == 0) | (bottom == shape[0]) | (right == shape[1])
    inside = ~at_edge & (size >= 0.04 * max(shape))
    allowed = ~at_edge if inside.any() else np.ones(len(size), bool)
    if not allowed.any():
        return np.zeros(0, np.intp), 0
    main = int(np.argmax(np.where(allowed, areas.counts * size, 0)))
    box, extent = areas.boxes[main].astype(float), float(size[main])
    chosen = np.zeros(len(size), bool)
    chosen[main] = True
    total = areas.counts[main]
    is_part = allowed & (areas.counts >= _SPECK * total) & ~chosen
    for number in np.flatnonzero(is_part)[np.argsort(-areas.counts[is_part])]:
        t, le, b, r = areas.boxes[number]
        gap = max(t - box[2], box[0] - b, le - box[3], box[1] - r, 0)
        across = (min(r, box[3]) - max(le, box[1])) / min(r - le, box[3] - box[1])
        is_own = size[number] >= _LIKE * extent and across < 0.4
        if gap <= _NEAR * extent and not is_own:
            chosen[number] = True
    others = allowed & ~chosen & (size >= _LIKE * extent) & (areas.counts >= 0.25 * total)
    return np.flatnonzero(chosen), int(others.sum())
