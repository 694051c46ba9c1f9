"""Look at a mask by its runs of pixels: connected areas, lengths of runs, and openings by a square."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Areas:
    """The connected areas of a mask: pixels of each, its bounding box (top, left, bottom, right), and its runs."""

    counts: Array
    boxes: Array
    shape: tuple[int, ...]
    runs: Array  # row, first column, last column + 1
    area_of_run: Array

    def where(self, chosen: Array) -> Array:
        """Return the mask of some areas."""
        steps = np.zeros((self.shape[0], self.shape[1] + 1), np.int8)
        rows, starts, ends = self.runs[np.isin(self.area_of_run, chosen)].T
        steps[rows, starts] += 1  # runs of a row do not touch, so no place is met twice
        steps[rows, ends] -= 1
        return np.asarray(np.cumsum(steps, axis=1, dtype=np.int8)[:, :-1] > 0)


def find_areas(mask: Array) -> Areas:
    """Find the areas whose pixels touch each other, corners too."""
    runs = _runs(mask)
    rows, starts, ends = runs.T
    area = np.arange(len(runs))
    # Each run and those of the row above that touch it: their ends are sorted within a row, and rows are sorted.
    wide = mask.shape[1] + 2
    first = np.searchsorted(rows * wide + ends, (rows - 1) * wide + starts)
    last = np.searchsorted(rows * wide + starts, (rows - 1) * wide + ends, side="right")
    counts = np.maximum(last - first, 0)
    below = np.repeat(area, counts)
    above = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first, counts)
    while True:  # the least number of those that touch, then of those that this one names
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
    """Return of each True the length of its run down its column; 0 elsewhere."""
    columns, starts, ends = _runs(mask.T).T
    steps = np.zeros((mask.shape[1], mask.shape[0] + 1), np.int32)
    steps[columns, starts] += (ends - starts).astype(np.int32)
    steps[columns, ends] -= (ends - starts).astype(np.int32)
    return np.cumsum(steps, axis=1, dtype=np.int32)[:, :-1].T


def opened(values: Array, window: int) -> Array:
    """Take away what is above 0 and narrower than a square window (morphological opening); 0 lies around it."""
    window += 1 - window % 2
    padded = np.pad(values, window)
    for reduce in (np.minimum, np.maximum):
        for axis in (0, 1):
            padded = _extreme(padded, window, axis, reduce)
    return padded[window:-window, window:-window]


def _extreme(values: Array, window: int, axis: int, reduce: Any) -> Array:
    """Take the least or largest of a window around each place, in passes that double it."""
    turned = np.moveaxis(values, axis, 0)
    length, done = len(turned), 1
    out = np.pad(turned, ((window // 2, window // 2), (0, 0)), mode="edge")
    while done < window:
        step = min(done, window - done)
        out = reduce(out[:-step], out[step:])
        done += step
    return np.moveaxis(out[:length], 0, axis)


def smoothed(values: Array) -> Array:
    """Take means over each place (height, width, ...) and its neighbours, weighted 1 2 1 down and across."""
    for axis in (0, 1):
        ends = [(int(each == axis), int(each == axis)) for each in range(values.ndim)]
        turned = np.moveaxis(np.pad(values, ends, mode="edge"), axis, 0)
        values = np.moveaxis((turned[:-2] + 2 * turned[1:-1] + turned[2:]) / 4, 0, axis)
    return values
