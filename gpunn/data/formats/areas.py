"""Find connected areas, run lengths and openings of a mask by its runs of pixels."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Areas:
    """Connected areas of a mask: pixels of each, its bounding box (top, left, bottom, right), and its runs."""

    counts: Array
    boxes: Array
    shape: tuple[int, ...]
    runs: Array  # row, first column, last column + 1
    area_of_run: Array

    def where(self, chosen: Array) -> Array:
        """Return the mask of the chosen areas."""
        steps = np.zeros((self.shape[0], self.shape[1] + 1), np.int8)
        rows, starts, ends = self.runs[np.isin(self.area_of_run, chosen)].T
        steps[rows, starts] += 1  # runs of a row do not touch, so no place is met twice
        steps[rows, ends] -= 1
        return np.asarray(np.cumsum(steps, axis=1, dtype=np.int8)[:, :-1] > 0)


def find_areas(mask: Array) -> Areas:
    """Find the areas of pixels that touch each other, corners included (8-connected)."""
    runs = _runs(mask)
    rows, starts, ends = runs.T
    area = np.arange(len(runs))
    # Pairs of a run and a run of the row above that touch; rows are sorted, and so are the ends within a row.
    wide = mask.shape[1] + 2
    first = np.searchsorted(rows * wide + ends, (rows - 1) * wide + starts)
    last = np.searchsorted(rows * wide + starts, (rows - 1) * wide + ends, side="right")
    counts = np.maximum(last - first, 0)
    below = np.repeat(area, counts)
    above = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first, counts)
    while True:  # the least number among touching runs, then the number that it points to
        before = area.copy()
        np.minimum.at(area, area[below], area[above])
        np.minimum.at(area, area[above], area[below])
        area = area[area]
        if np.array_equal(before, area) and np.array_equal(area[below], area[above]):
            break
    _, area = np.unique(area, return_inverse=True)
    count = int(area.max()) + 1 if len(area) else 0
    boxes = np.zeros((count, 4), np.intp)
    boxes[:, :2] = max(mask.shape)
    for column, (reduce, values) in enumerate(
        ((np.minimum, rows), (np.minimum, starts), (np.maximum, rows + 1), (np.maximum, ends))
    ):
        reduce.at(boxes[:, column], area, values)
    return Areas(np.bincount(area, ends - starts, count), boxes, mask.shape, runs, area)


def _runs(mask: Array) -> Array:
    """Return the runs of True along the rows, (n, 3): row, first column, last column + 1."""
    steps = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(steps > 0)
    return np.stack([rows, starts, np.nonzero(steps < 0)[1]], axis=1)


def run_lengths(mask: Array) -> Array:
    """Return the length of the vertical run through each True; 0 elsewhere."""
    columns, starts, ends = _runs(mask.T).T
    steps = np.zeros((mask.shape[1], mask.shape[0] + 1), np.int32)
    steps[columns, starts] += (ends - starts).astype(np.int32)
    steps[columns, ends] -= (ends - starts).astype(np.int32)
    return np.cumsum(steps, axis=1, dtype=np.int32)[:, :-1].T


def opened(values: Array, window: int) -> Array:
    """Remove structures above 0 and narrower than a square window (morphological opening); 0 lies around."""
    window += 1 - window % 2
    padded = np.pad(values, window)
    for reduce in (np.minimum, np.maximum):
        for axis in (0, 1):
            padded = _extreme(padded, window, axis, reduce)
    return padded[window:-window, window:-window]


def _extreme(values: Array, window: int, axis: int, reduce: Any) -> Array:
    """Return the minimum or maximum of a window around each place, in passes that double it."""
    turned = np.moveaxis(values, axis, 0)
    length, done = len(turned), 1
    out = np.pad(turned, ((window // 2, window // 2), (0, 0)), mode="edge")
    while done < window:
        step = min(done, window - done)
        out = reduce(out[:-step], out[step:])
        done += step
    return np.moveaxis(out[:length], 0, axis)


def smoothed(values: Array) -> Array:
    """Smooth values (height, width, ...) over neighbours, weighted 1 2 1 down and across."""
    for axis in (0, 1):
        ends = [(int(each == axis), int(each == axis)) for each in range(values.ndim)]
        turned = np.moveaxis(np.pad(values, ends, mode="edge"), axis, 0)
        values = np.moveaxis((turned[:-2] + 2 * turned[1:-1] + turned[2:]) / 4, 0, axis)
    return values
