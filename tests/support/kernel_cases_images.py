"""What the kernels of convolution, pooling, normalisation, dropout and augmentation must compute: see kernel_cases.py.

Written from the definitions, window by window; the samples of a batch lie last.
"""

import math
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from support.kernel_cases import (
    ACTIVATIONS,
    Case,
    case,
    dropout_bits,
    each,
    flushed,
    gradient_of,
    numbers,
    philox,
    shared_rows,
    unset,
)

GEOMETRIES = [
    # height, width, (size, stride, padding before: each down and across), rows and columns that come out
    (5, 6, (3, 3, 1, 1, 0, 0), 3, 4),
    (5, 6, (3, 2, 1, 1, 1, 1), 5, 7),
    (7, 5, (3, 3, 2, 2, 1, 1), 4, 3),
    (4, 4, (1, 1, 1, 1, 0, 0), 4, 4),
    (6, 6, (2, 2, 3, 3, 0, 0), 2, 2),
]
WINDOWS = [
    # height, width, (size, stride, padding before: each down and across), rows and columns that come out
    (6, 6, (2, 2, 2, 2, 0, 0), 3, 3),
    (7, 5, (2, 2, 2, 2, 0, 0), 3, 2),  # a row and a column are left over
    (7, 7, (3, 3, 2, 2, 0, 0), 3, 3),  # windows overlap
    (5, 6, (2, 3, 3, 1, 0, 0), 2, 4),  # some inputs lie in no window
    (4, 5, (4, 5, 1, 1, 0, 0), 1, 1),
    (5, 6, (3, 2, 2, 2, 1, 1), 3, 4),  # padding on all sides
    (5, 4, (3, 2, 2, 2, 0, 0), 3, 2),  # padding below alone
    (4, 4, (2, 2, 3, 3, 0, 0), 2, 2),  # the same, with as many places in the windows as pixels
    (1, 2, (4, 3, 1, 2, 3, 1), 3, 1),  # windows larger than the image
]


def some(n: int) -> int:
    """A smaller batch: an image has many numbers. More than a warp, and one that vectors of four divide."""
    return min(n, 36)


def taps(
    geometry: tuple[int, ...], first: int, rows: int, across: int
) -> Iterator[tuple[int, int, int, int, int, int]]:
    """Output row within the block, output column, place in the filter, and the input that it sees."""
    size_h, size_w, stride_h, stride_w, top, left = geometry
    for i in range(rows):
        for j in range(across):
            for u in range(size_h):
                for v in range(size_w):
                    yield i, j, u, v, (first + i) * stride_h + u - top, j * stride_w + v - left


@case("im2col")
def _im2col(dtype: str, rng: np.random.Generator, n: int) -> list[Case]:
    n, cases = some(n), []
    for height, width, geometry, rows, across in GEOMETRIES:
        x = rng.normal(size=(2, height, width, n)).astype(dtype)
        for first in (0, 1):
            columns = np.zeros((2, *geometry[:2], rows - first, across, n))
            for i, j, u, v, y, at in taps(geometry, first, rows - first, across):
                if 0 <= y < height and 0 <= at < width:
                    columns[:, u, v, i, j] = x[:, y, at]
            flat = columns.reshape(2 * geometry[0] * geometry[1], -1)
            cases.append(Case((x, first, across, geometry, unset(flat.shape, dtype)), {0: x, 4: flat}))
    return cases


@case("col2im")
def _col2im(dtype: str, rng: np.random.Generator, n: int) -> list[Case]:
    n, cases = some(n), []
    for height, width, geometry, rows, across in GEOMETRIES:
        for first, last in sorted({(0, rows), (0, 1), (1, rows), (1, min(2, rows))}):
            columns = rng.normal(size=(2, *geometry[:2], last - first, across, n)).astype(dtype)
            dx = rng.normal(size=(2, height, width, n)).astype(dtype)
            # Rows that blocks before have not given to are zero on the host and not set on a GPU, and so left by both.
            before = first or last
            reached = min(max(0, (before - 1) * geometry[2] + geometry[0] - geometry[4]), height)
            dx[:, height if before == rows else reached :] = 0
            expected = dx.astype(np.float64) * (first > 0)
            for i, j, u, v, y, at in taps(geometry, first, last - first, across):
                if 0 <= y < height and 0 <= at < width:
                    expected[:, y, at] += columns[:, u, v, i, j]
            flat = columns.reshape(2 * geometry[0] * geometry[1], -1)
            arguments = (flat, first, last - first, rows, across, geometry, dx)
            cases.append(Case(arguments, {0: flat, 6: expected}, 10.0))
    return cases


def _grouped(dtype: str, rng: np.random.Generator, n: int) -> Iterator[tuple[Any, ...]]:
    """Geometry, x, w and z of two groups of two channels and three filters, and the pairs of places that meet."""
    for height, width, geometry, rows, across in GEOMETRIES:
        x = rng.normal(size=(2, 2, height, width, n)).astype(dtype)
        w = rng.normal(size=(2, 3, 2, *geometry[:2])).astype(dtype)
        z = rng.normal(size=(2, 3, rows, across, n)).astype(dtype)
        met = [(i, j, u, v, y, at) for i, j, u, v, y, at in taps(geometry, 0, rows, across)
               if 0 <= y < height and 0 <= at < width]  # fmt: skip
        yield geometry, x, w, z, met


def _grouped_sums(first: str, second: str, into: str, bound: float) -> Callable[..., list[Case]]:
    """Sum products of two of x, w and z (or dz) into the third, over all places that meet and all channels."""

    def cases(dtype: str, rng: np.random.Generator, n: int) -> list[Case]:
        made = []
        for geometry, x, w, z, met in _grouped(dtype, rng, some(n)):
            arrays = {"x": x, "w": w, "z": z}
            a, b, expected = arrays[first], arrays[second], np.zeros(arrays[into].shape)
            for i, j, u, v, y, at in met:
                for g, f, c in np.ndindex(2, 3, 2):
                    place = {"x": (g, c, y, at), "w": (g, f, c, u, v), "z": (g, f, i, j)}
                    products = a[place[first]].astype(np.float64) * b[place[second]]
                    expected[place[into]] += math.fsum(products) if into == "w" else products
            made.append(Case((a, b, geometry, unset(expected.shape, dtype)), {0: a, 1: b, 3: expected}, bound))
        return made

    return cases


case("convolve_groups")(_grouped_sums("x", "w", "z", 20.0))
case("convolve_groups_input_gradient")(_grouped_sums("z", "w", "x", 40.0))
case("convolve_groups_weight_gradient")(_grouped_sums("x", "z", "w", 200.0))


def windows(
    window: tuple[int, ...], rows: int, across: int, height: int, width: int
) -> Iterator[tuple[int, int, list[tuple[int, int, int]]]]:
    """Each window, with those of its places that lie in the image: their numbers in the window, y and x."""
    size_h, size_w, stride_h, stride_w, top, left = window
    for i in range(rows):
        for j in range(across):
            places = [(u * size_w + v, i * stride_h + u - top, j * stride_w + v - left)
                      for u in range(size_h) for v in range(size_w)]  # fmt: skip
            yield i, j, [(at, y, x) for at, y, x in places if 0 <= y < height and 0 <= x < width]


@case("max_pool")
def _max_pool(dtype: str, rng: np.random.Generator, n: int) -> list[Case]:
    n, cases = some(n), []
    for height, width, window, rows, across in WINDOWS:
        x = rng.integers(-2, 3, (2, height, width, n)).astype(dtype)  # so few values that there are ties
        x[:, :, :, ::2] -= 5  # all below the zeros that padding could be
        y, choice = np.zeros((2, rows, across, n)), np.zeros((2, rows, across, n), np.uint8)
        for i, j, places in windows(window, rows, across, height, width):
            for c in range(2):
                for s in range(n):
                    seen = [float(x[c, p, q, s]) for _, p, q in places]
                    y[c, i, j, s], choice[c, i, j, s] = max(seen), places[seen.index(max(seen))][0]
        written = unset(y.shape, dtype), unset(y.shape, np.uint8)
        cases.append(Case((x, window, *written), {0: x, 2: y, 3: choice}))
    return cases


@case("max_pool_gradient")
def _max_pool_gradient(dtype: str, rng: np.random.Generator, n: int) -> list[Case]:
    n, cases = some(n), []
    for height, width, window, rows, across in WINDOWS:
        dy = rng.normal(size=(2, rows, across, n)).astype(dtype)
        choice = np.zeros(dy.shape, np.uint8)
        dx = np.zeros((2, height, width, n))
        for i, j, places in windows(window, rows, across, height, width):
            for c in range(2):
                for s in range(n):
                    choice[c, i, j, s], p, q = places[rng.integers(len(places))]
                    dx[c, p, q, s] += float(dy[c, i, j, s])
        cases.append(Case((dy, choice, window, unset(dx.shape, dtype)), {0: dy, 1: choice, 3: dx}, 10.0))
    return cases


@case("average_pool")
def _average_pool(dtype: str, rng: np.random.Generator, n: int) -> list[Case]:
    n, cases = some(n), []
    for height, width, window, rows, across in WINDOWS:
        x = rng.normal(size=(2, height, width, n)).astype(dtype)
        for counts_all in (False, True):
            y = np.zeros((2, rows, across, n))
            for i, j, places in windows(window, rows, across, height, width):
                count = window[0] * window[1] if counts_all else len(places)
                y[:, i, j] = sum(x[:, p, q].astype(np.float64) for _, p, q in places) / count
            cases.append(Case((x, window, counts_all, unset(y.shape, dtype)), {0: x, 3: y}, 4.0))
    return cases


@case("average_pool_gradient")
def _average_pool_gradient(dtype: str, rng: np.random.Generator, n: int) -> list[Case]:
    n, cases = some(n), []
    for height, width, window, rows, across in WINDOWS:
        dy = rng.normal(size=(2, rows, across, n)).astype(dtype)
        for counts_all in (False, True):
            dx = np.zeros((2, height, width, n))
            for i, j, places in windows(window, rows, across, height, width):
                count = window[0] * window[1] if counts_all else len(places)
                for _, p, q in places:
                    dx[:, p, q] += dy[:, i, j].astype(np.float64) / count
            cases.append(Case((dy, window, counts_all, unset(dx.shape, dtype)), {0: dy, 3: dx}, 4.0))
    return cases


@case("mean_of_pixels")
def _mean_of_pixels(dtype: str, rng: np.random.Generator, n: int) -> list[Case]:
    n, cases = some(n), []
    for height, width in ((1, 1), (3, 4), (7, 5)):
        x = rng.normal(1, 2, (3, height, width, n)).astype(dtype)
        means = [[math.fsum(float(v) for v in x[c, :, :, s].ravel()) for s in range(n)] for c in range(3)]
        cases.append(Case((x, unset((3, n), dtype)), {0: x, 1: np.array(means) / (height * width)}, 10.0))
    return cases


@case("mean_of_pixels_gradient")
def _mean_of_pixels_gradient(dtype: str, rng: np.random.Generator, n: int) -> list[Case]:
    n, cases = some(n), []
    for height, width in ((1, 1), (4, 5), (7, 11)):
        dy, pixels = rng.normal(size=(3, 1, 1, n)).astype(dtype), float(height * width)
        dx = np.repeat(np.repeat(dy.astype(np.float64) / pixels, height, axis=1), width, axis=2)
        cases.append(Case((dy, pixels, unset(dx.shape, dtype)), {0: dy, 2: dx}))
    return cases


# Batch normalisation


def _moments_of(x: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Means and variances of the rows."""
    rows = [[float(v) for v in row.ravel()] for row in x]
    means = [math.fsum(row) / len(row) for row in rows]
    variances = [math.fsum((v - m) ** 2 for v in row) / len(row) for row, m in zip(rows, means, strict=True)]
    return np.array(means), np.array(variances)


def _remembered(
    moments: tuple[NDArray[Any], NDArray[Any]], running: list[NDArray[Any]], size: int, momentum: float
) -> list[NDArray[Any]]:
    of_batch = moments[0], moments[1] * size / (size - 1)
    return [
        (1 - momentum) * old.astype(np.float64) + momentum * new for old, new in zip(running, of_batch, strict=True)
    ]


def _statistics(dtype: str, rng: np.random.Generator) -> list[NDArray[Any]]:
    """Of three channels, as they are remembered."""
    return [rng.normal(size=3).astype(dtype), rng.uniform(0.5, 2, 3).astype(dtype)]


@case("normalize")
def _normalize(dtype: str, rng: np.random.Generator, n: int) -> list[Case]:
    cases = []
    for shape in ((3, n + 1), (3, 2, 2, some(n))):
        x = rng.normal(3, 2, shape).astype(dtype)
        gamma, beta = (rng.normal(size=3).astype(dtype) for _ in range(2))
        running, (means, variances) = _statistics(dtype, rng), _moments_of(x)
        m, v, g, b = (a.reshape(3, *[1] * (x.ndim - 1)).astype(np.float64) for a in (means, variances, gamma, beta))
        y = g * (x - m) / np.sqrt(v + 1e-3) + b
        written = [unset(s, dtype) for s in ((3,), (3,), shape)]
        remembered = _remembered((means, variances), running, x[0].size, 0.25)
        arguments = (x, gamma, beta, 1e-3, 0.25, *written[:2], *running, *written[2:])
        expected = {0: x, 1: gamma, 2: beta, 5: means, 6: variances, 7: remembered[0], 8: remembered[1], 9: y}
        cases.append(Case(arguments, expected, 100.0))
    return cases


SHARED = (((3, 1), 0), ((3, 2, 2), 2), ((3, 19), 4))
"""Shapes without samples, and for how many blocks a row there is room; from n = 28 on several share the last."""


@case("moments")
def _moments(dtype: str, rng: np.random.Generator, n: int) -> list[Case]:
    cases = []
    for shape, parts in SHARED:
        x = rng.normal(3, 2, (*shape, n + 1)).astype(dtype)
        running, moments = _statistics(dtype, rng), _moments_of(x)
        scratch = shared_rows(3, 2 * parts, dtype)
        remembered = _remembered(moments, running, x[0].size, 0.25)
        arguments = (x, 0.25, unset(3, dtype), unset(3, dtype), *running, *scratch)
        expected = {0: x, 2: moments[0], 3: moments[1], 4: remembered[0], 5: remembered[1], 7: 0 * scratch[1]}
        cases.append(Case(arguments, expected, 20.0))
    return cases


@case("merge_moments")
def _merge_moments(dtype: str, rng: np.random.Generator, n: int) -> list[Case]:
    """The shares of three ranks, of which the last have none where n < 3."""
    cases = []
    for values in (2, 20):
        of_ranks, parts = np.full((3, 2, 5), np.nan, dtype), []  # NaN where there is no share
        for rank in range(min(n, 3)):
            of_ranks[rank] = rng.normal(3, 2, 5), rng.uniform(0.5, 2, 5)
            parts.append(((n // 3 + (rank < n % 3)) * values, *of_ranks[rank].astype(np.float64)))
        running = [rng.normal(size=5).astype(dtype), rng.uniform(0.5, 2, 5).astype(dtype)]
        means = np.array([math.fsum(count * m[c] for count, m, _ in parts) / (n * values) for c in range(5)])
        squares = [math.fsum(count * (v[c] + (m[c] - means[c]) ** 2) for count, m, v in parts) for c in range(5)]
        moments = means, np.array(squares) / (n * values)
        remembered = _remembered(moments, running, n * values, 0.25)
        arguments = (of_ranks.copy(), 0.25, n, values, unset(5, dtype), unset(5, dtype), *running)
        cases.append(Case(arguments, dict(zip((4, 5, 6, 7), (*moments, *remembered), strict=True)), 20.0))
    return cases


def _gradient_of_batch(
    dtype: str, rng: np.random.Generator, shape: tuple[int, ...], share: float, given: NDArray[Any] | None = None
) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """dy, x, γ, mean and variance; the gradients by γ, β and x. `given` is x, which else is drawn."""
    dy, x, gamma = (rng.normal(size=s).astype(dtype) for s in (shape, shape, 3))
    x = x if given is None else given
    mean, variance = _statistics(dtype, rng)
    by_gamma, by_beta, dx = np.zeros(3), np.zeros(3), np.zeros(shape)
    for c in range(3):
        root = math.sqrt(float(variance[c]) + 1e-3)
        d, h = dy[c].astype(np.float64), (x[c].astype(np.float64) - float(mean[c])) / root
        by_gamma[c], by_beta[c] = math.fsum((d * h).ravel()), math.fsum(d.ravel())
        dx[c] = float(gamma[c]) / root * (d - by_beta[c] * share - h * by_gamma[c] * share)
    return [dy, x, gamma, mean, variance], [by_gamma, by_beta, dx]


@case("normalize_gradient")
def _normalize_gradient(dtype: str, rng: np.random.Generator, n: int) -> list[Case]:
    cases = []
    for shape in ((3, n + 1), (3, 2, 2, some(n))):
        for share in (3 / math.prod(shape), 0.0):
            given, (by_gamma, by_beta, dx) = _gradient_of_batch(dtype, rng, shape, share)
            for out in (unset(shape, dtype), given[0]):
                arguments = (*given, 1e-3, share, unset(3, dtype), unset(3, dtype), out)
                cases.append(Case(arguments, {1: given[1], 7: by_gamma, 8: by_beta, 9: dx}, 100.0))
    return cases


@case("normalize_sums")
def _normalize_sums(dtype: str, rng: np.random.Generator, n: int) -> list[Case]:
    cases = []
    for shape, parts in SHARED:
        (dy, x, _, *moments), (by_gamma, by_beta, _) = _gradient_of_batch(dtype, rng, (*shape, n), 0.0)
        scratch = shared_rows(3, 2 * parts, dtype)
        arguments = (dy, x, *moments, 1e-3, unset(3, dtype), unset(3, dtype), *scratch)
        cases.append(Case(arguments, {0: dy, 1: x, 5: by_gamma, 6: by_beta, 8: 0 * scratch[1]}, 400.0))
    return cases


@case("normalize_gradient_by_sums")
def _normalize_gradient_by_sums(dtype: str, rng: np.random.Generator, n: int) -> list[Case]:
    cases = []
    for share in (1 / n, 0.0):
        given, (by_gamma, by_beta, dx) = _gradient_of_batch(dtype, rng, (3, n), share)
        dy, x, *columns = given
        sums = [sum_.astype(dtype).reshape(3, 1) for sum_ in (by_gamma, by_beta)]
        for out in (unset(dy.shape, dtype), dy):
            arguments = (dy, x, *(c.reshape(3, 1) for c in columns), 1e-3, share, *sums, out)
            cases.append(Case(arguments, {1: x, 9: dx}, 100.0))
    return cases


@case("normalize_as_remembered")
def _normalize_as_remembered(dtype: str, rng: np.random.Generator, n: int) -> list[Case]:
    x, variance = rng.normal(size=(3, n)).astype(dtype), rng.uniform(0.5, 2, (3, 1)).astype(dtype)
    gamma, beta, mean = (rng.normal(size=(3, 1)).astype(dtype) for _ in range(3))
    y = each(lambda v, g, b, m, s: g * (v - m) / math.sqrt(s + 1e-3) + b, x, gamma, beta, mean, variance)
    return [Case((x, gamma, beta, mean, variance, 1e-3, unset(x.shape, dtype)), {0: x, 6: y}, 10.0)]


# Layer normalisation


def _columns(
    dtype: str, rng: np.random.Generator, n: int, counts: tuple[int, ...] = (2, 7, 45)
) -> Iterator[list[NDArray[Any]]]:
    """x, γ, β and dy of few and many features, and the means and 1/√(σ² + ε) of the columns of x."""
    for features in counts:
        x = rng.normal(3, 2, (features, n)).astype(dtype)
        gamma, beta = (rng.normal(size=features).astype(dtype) for _ in range(2))
        means = np.array([math.fsum(float(v) for v in column) / features for column in x.T])
        squares = (math.fsum((float(v) - m) ** 2 for v in x[:, j]) for j, m in enumerate(means))
        scale = np.array([1 / math.sqrt(square / features + 1e-3) for square in squares])
        yield [x, gamma, beta, rng.normal(size=x.shape).astype(dtype), means, scale]


@case("normalize_columns")
def _normalize_columns(dtype: str, rng: np.random.Generator, n: int) -> list[Case]:
    cases = []
    for x, gamma, beta, _, means, scale in _columns(dtype, rng, n):
        y = gamma[:, None].astype(np.float64) * (x - means) * scale + beta[:, None]
        written = unset(n, dtype), unset(n, dtype), unset(x.shape, dtype)
        expected = {0: x, 1: gamma, 2: beta, 4: means, 5: scale, 6: y}
        cases.append(Case((x, gamma, beta, 1e-3, *written), expected, 1000.0))
    return cases


@case("normalize_columns_sums")
def _normalize_columns_sums(dtype: str, rng: np.random.Generator, n: int) -> list[Case]:
    cases = []
    for pixels, parts in ((1, 0), (19, 4)):  # of the second, blocks share a row from n = 28 on
        for x, _, _, dy, *columns in _columns(dtype, rng, n * pixels, (2, 7, 45) if pixels == 1 else (3,)):
            mean, scale = (column.astype(dtype) for column in columns)
            normalized = (x - mean.astype(np.float64)) * scale
            sums = [np.array([math.fsum(row) for row in rows]) for rows in (dy * normalized, dy.astype(np.float64))]
            scratch = shared_rows(len(x), 2 * parts, dtype)
            arguments = (dy, x, mean, scale, unset(len(x), dtype), unset(len(x), dtype), *scratch)
            expected = {0: dy, 1: x, 4: sums[0], 5: sums[1], 7: 0 * scratch[1]}
            cases.append(Case(arguments, expected, 1000.0 * pixels))
    return cases


@case("normalize_columns_gradient")
def _normalize_columns_gradient(dtype: str, rng: np.random.Generator, n: int) -> list[Case]:
    cases = []
    for x, gamma, _, dy, *columns in _columns(dtype, rng, n):
        mean, scale = (column.astype(dtype) for column in columns)
        dx, features = np.zeros(x.shape), len(x)
        for j in range(n):
            normalized = [(float(v) - float(mean[j])) * float(scale[j]) for v in x[:, j]]
            g = [float(k) * float(d) for k, d in zip(gamma, dy[:, j], strict=True)]
            all_g = math.fsum(g) / features
            along = math.fsum(a * b for a, b in zip(g, normalized, strict=True)) / features
            dx[:, j] = [float(scale[j]) * (a - all_g - b * along) for a, b in zip(g, normalized, strict=True)]
        for out in (unset(x.shape, dtype), dy):
            cases.append(Case((dy, x, gamma, mean, scale, out), {1: x, 2: gamma, 3: mean, 4: scale, 5: dx}, 5000.0))
    return cases


# Drawing


@case("dropout")
def _dropout(dtype: str, rng: np.random.Generator, n: int) -> list[Case]:
    """Of some samples within a larger batch; features fill groups of 16, or leave a part of one."""
    cases, n = [], some(n)
    for p, shape, first in ((0.0, (3,), 0), (0.25, (2, 3, 3), 2**31 - 1 - n), (0.5, (20,), 5), (0.5, (33,), 32)):
        x, count = rng.normal(size=(*shape, n)).astype(dtype), np.array([5], np.int32)
        kept = (dropout_bits(x.size // n, n, 5, 2, 7, first) >= p * 2**16).reshape(x.shape)
        expected = np.where(kept, x.astype(np.float64) / (1 - p), 0.0)
        drawn = (7, 2, first, count, int(p * 2**16), 1 / (1 - p))
        cases += [Case((x, *drawn, unset(x.shape, dtype)), {0: x, 7: expected}), Case((x, *drawn, x), {7: expected})]
    return cases


@case("gather_augmented")
def _gather_augmented(dtype: str, rng: np.random.Generator, n: int) -> list[Case]:
    """Each place of a picture is looked up in its image, at a place moved by the sample's own map."""
    n, (channels, height, width) = some(n), (2, 5, 4)
    features, cases = channels * height * width, []
    size = 2 * n + 1
    order, labels = rng.permutation(size).astype(np.int32), rng.integers(0, 10, size).astype(np.int32)
    pixels = rng.integers(0, 256, (size, features)).astype(np.uint8)
    sources = (pixels, 1 / 256), (rng.normal(size=(size, features)).astype(np.float32).astype(dtype), 1.0)
    ways = (
        ((0.0, 0.0, 0.0, 0.0, -1.0, 0), 0),
        ((2.0, 0.125, 0.25, 0.125, -1.0, 0), 2**30),
        ((0.5, 0.125, 0.25, 0.0, 0.25, 3), 7),
    )
    for (data, factor), (limits, first) in product(sources, ways):
        expected = np.zeros((n, channels, height, width))
        for s in range(n):
            number = 2 * (first + s)
            words = philox((number, 9, 0, 0), (3, 4)) + philox((number + 1, 9, 0, 0), (3, 4))
            drawn = [(word >> 8) * 2.0**-23 - 1 for word in words]
            angle = 2 * math.atan(drawn[2] * limits[1])
            stretch, shear = 1 + drawn[3] * limits[2], drawn[4] * limits[3]
            image = data[order[n + s]].reshape(channels, height, width).astype(np.float64)
            for i in range(height):
                for j in range(width):
                    x, y = j - (width - 1) / 2, i - (height - 1) / 2
                    x = -x if drawn[5] < limits[4] else x
                    across = stretch * (math.cos(angle) * x + (shear - math.sin(angle)) * y) + drawn[0] * limits[0]
                    down = stretch * (math.sin(angle) * x + math.cos(angle) * y) + drawn[1] * limits[0]
                    expected[s, :, i, j] = _between(image, down + (height - 1) / 2, across + (width - 1) / 2)
                    top, left = ((words[k] * size >> 32) - limits[5] // 2 for k, size in ((6, height), (7, width)))
                    if top <= i < top + limits[5] and left <= j < left + limits[5]:
                        expected[s, :, i, j] = 0
        t, after = labels[order[n : 2 * n]], np.array([1, 9, 1, 9])
        wanted = expected.reshape(n, features) * factor
        for out in (unset((n, features), dtype), unset((features, n), dtype).T):
            # Computed in float32 whatever the network's dtype, so that every device sees the same pictures.
            scale = 1.0 if dtype == "float32" else float(np.finfo(np.float32).eps / np.finfo(np.float64).eps)
            arguments = (data, labels, order, np.array([0, 8, 1, 9], np.int32), n, factor, 3, first, limits)
            written = ((channels, height, width), out, unset(n, np.int32))
            cases.append(Case((*arguments, *written), {0: data, 3: after, 10: wanted, 11: t}, 4 * scale))
    return cases


def _between(image: NDArray[np.float64], y: float, x: float) -> NDArray[np.float64]:
    """Bilinear interpolation of each channel, 0 outside."""
    value = np.zeros(len(image))
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < image.shape[1] and 0 <= column < image.shape[2]:
                value += image[:, row, column] * (1 - abs(y - row)) * (1 - abs(x - column))
    return value


# Bias and activation in one pass, and their gradients

for _name, (_function, _slope) in ACTIVATIONS.items():

    @case(f"bias_{_name}")
    def _with_bias(dtype: str, rng: Any, n: int, function: Any = _function) -> list[Case]:
        z, b = numbers(dtype, rng, n), numbers(dtype, rng, 1, far=False)
        moved = (z + b).astype(dtype)  # the sum is rounded before the activation sees it
        return [Case((b, z), {0: b, 1: each(function, moved)})]

    @case(f"{gradient_of(_name)}_and_sums")
    def _with_sums(dtype: str, rng: Any, n: int, function: Any = _function, slope: Any = _slope) -> list[Case]:
        cases = []
        for rows, size, parts in ((5, n, 0), (2, 9 * n, 3)):  # of the second, blocks share a row from n = 57 on
            a = each(function, numbers(dtype, rng, size, rows=rows)).astype(dtype)
            da = numbers(dtype, rng, size, rows=rows, far=False)
            dz, device_dz = (each(lambda d, v: d * slope(v), da, seen) for seen in (a, flushed(a)))
            db, device_db = (np.array([math.fsum(row) for row in gradient]) for gradient in (dz, device_dz))
            for out in (unset(da.shape, dtype), da):
                arguments = (da, a, out, unset(rows, dtype), *shared_rows(rows, parts, dtype))
                cases += [
                    Case(arguments, {1: a, 2: dz}, on_device={2: device_dz}),
                    Case(
                        arguments, {3: db, 5: np.zeros(rows)}, 40.0 if parts == 0 else 150.0, on_device={3: device_db}
                    ),
                ]
        return cases


# Bias and activation in one pass with the batch normalisation behind them

for _name, (_function, _slope) in ACTIVATIONS.items():

    @case(f"bias_{_name}_and_moments")
    def _with_moments(dtype: str, rng: Any, n: int, function: Any = _function) -> list[Case]:
        cases = []
        for shape, parts in SHARED:
            z, b = rng.normal(0.5, 2, (*shape, n + 1)).astype(dtype), rng.normal(size=3).astype(dtype)
            moved = (z + b.reshape(3, *[1] * len(shape))).astype(dtype)
            a = each(function, moved)
            running, moments = _statistics(dtype, rng), _moments_of(a)
            scratch = shared_rows(3, 2 * parts, dtype)
            remembered = _remembered(moments, running, z[0].size, 0.25)
            arguments = (z, b, 0.25, unset(3, dtype), unset(3, dtype), *running, *scratch)
            expected = {1: b, 3: moments[0], 4: moments[1], 5: remembered[0], 6: remembered[1], 8: 0 * scratch[1]}
            cases += [Case(arguments, {0: a}), Case(arguments, expected, 20.0)]
        return cases

    @case(f"normalize_{gradient_of(_name)}_and_sums")
    def _normalize_with_sums(
        dtype: str, rng: Any, n: int, function: Any = _function, slope: Any = _slope
    ) -> list[Case]:
        cases = []
        for shape, parts in SHARED:
            for share in (3 / (math.prod(shape) * n), 0.0):
                a = each(function, rng.normal(size=(*shape, n)).astype(dtype)).astype(dtype)
                (dy, _, *given), sums = _gradient_of_batch(dtype, rng, (*shape, n), share, a)
                by_gamma, by_beta = (sum_.astype(dtype) for sum_ in sums[:2])
                dz = sums[2] * each(slope, a)
                db = np.array([math.fsum(row.ravel()) for row in dz])
                for out in (unset(dy.shape, dtype), dy):
                    scratch = shared_rows(3, parts, dtype)
                    arguments = (dy, a, *given, 1e-3, share, by_gamma, by_beta, out, unset(3, dtype), *scratch)
                    cases.append(Case(arguments, {1: a, 9: dz, 10: db, 12: 0 * scratch[1]}, 400.0))
        return cases


# Embedding


def _tokens(dtype: str, rng: np.random.Generator, n: int) -> Iterator[tuple[Any, ...]]:
    """Tokens (length, n) as rows of samples and the other way round, and a table with more features than a block."""
    for tokens, features, length in ((5, 3, 4), (1, 1, 1), (60, 18, 2), (2, 33, 7)):
        x = rng.integers(0, tokens, (n, length)).astype(np.int32)
        w = numbers(dtype, rng, features, rows=tokens, far=False)
        dy = rng.normal(size=(features, 1, length, n)).astype(dtype)
        yield x.T, w, dy
        yield np.ascontiguousarray(x.T), w, dy


@case("embed")
def _embed(dtype: str, rng: np.random.Generator, n: int) -> list[Case]:
    cases = []
    for x, w, dy in _tokens(dtype, rng, some(n)):
        y = np.zeros(dy.shape)
        for f, _, t, j in np.ndindex(y.shape):
            y[f, 0, t, j] = w[x[t, j], f]
        cases.append(Case((x, w, unset(y.shape, dtype)), {0: x, 1: w, 2: y}))
    beyond = np.array([[-1, -(2**31), 5, 2**31 - 1]], np.int32)  # no memory beside the table is read
    w = rng.normal(size=(5, 2)).astype(dtype)
    nearest = np.stack([w[0], w[0], w[4], w[4]], axis=1)[:, None, None]
    return [*cases, Case((beyond, w, unset(nearest.shape, dtype)), {2: nearest})]


@case("embed_gradient")
def _embed_gradient(dtype: str, rng: np.random.Generator, n: int) -> list[Case]:
    cases = []
    for x, w, dy in _tokens(dtype, rng, some(n)):
        dw = np.zeros(w.shape)
        for v, f in np.ndindex(w.shape):
            places = np.argwhere(x == v)
            dw[v, f] = math.fsum(float(dy[f, 0, t, j]) for t, j in places)
        scale = float(np.abs(dy).sum(axis=(1, 2, 3)).max())
        cases.append(Case((x, dy, unset(w.shape, dtype)), {0: x, 1: dy, 2: dw}, scale))
    return cases
