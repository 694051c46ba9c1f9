"""Describe the inputs of a training in its model, so that later inputs are prepared alike."""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gpunn.config import from_table
from gpunn.data.checks import LARGEST, REACH, check_finite, white_level
from gpunn.data.columns import Columns
from gpunn.data.drawings import Drawings, borders
from gpunn.data.memmap import Inputs
from gpunn.data.samples import Samples
from gpunn.errors import DataError, ShapeError

GROUNDS = ("dark", "light", "mixed")
LEAST_CONTRAST = 0.04  # of a drawing, a share of the whole range; paper alone has less
_ROWS, _NUMBERS = 1024, 1 << 18  # most rows that are sampled, and numbers in them
_FAR_OUT = 0.05  # share of samples that may lie out of range
_TIMES = 4  # factor by which later inputs may exceed those of the training before they count as of another scale


@dataclass(frozen=True)
class TrainingInputs:
    """Description of the inputs of a training.

    Attributes:
        shape: Shape of one sample as the data had it, (features,) or (height, width, channels).
        is_bytes: Whether they were bytes; later inputs that are floats are then taken as scaled already.
        scale: Factor by which they were multiplied.
        low, high: Least and largest number of each channel before scaling; one each without images.
        ground: "dark", "light" or "mixed", by the borders of the images.
        is_grey: Whether all channels of each pixel are equal.
        is_drawn: Whether every image shows a drawing; later images must then show one.
        from_files: Whether they were image files that `load_data` resized; later ones are then resized alike.
        columns: Columns of the table behind the inputs, or None.
        drawings: Description of the drawings; None without images, or from versions that did not store it.
    """

    shape: tuple[int, ...]
    is_bytes: bool
    scale: float
    low: tuple[float, ...]
    high: tuple[float, ...]
    ground: str = "mixed"
    is_grey: bool = False
    is_drawn: bool = False
    from_files: bool = False
    columns: Columns | None = None
    drawings: Drawings | None = None

    def __post_init__(self) -> None:
        if isinstance(self.columns, dict):  # from a file
            object.__setattr__(self, "columns", Columns.from_dict(self.columns))
        if self.columns is not None and self.shape != (self.columns.features,):
            raise DataError(f"columns make {self.columns.features} features, and samples are {self.shape}")
        if isinstance(self.drawings, dict):  # from a file
            object.__setattr__(self, "drawings", from_table(Drawings, self.drawings, "drawings"))
        channels = self.shape[2] if len(self.shape) == 3 else 1
        if not len(self.low) == len(self.high) == channels or not all(map(math.isfinite, (*self.low, *self.high))):
            raise DataError(f"low and high are {channels} finite numbers each, one for a channel")
        if self.ground not in GROUNDS:
            raise DataError(f"ground is {', '.join(GROUNDS)}, got {self.ground!r}")

    @classmethod
    def of(cls, samples: Samples) -> Self:
        """Describe samples by rows that are spread over them."""
        rows, shape = _spread(samples.inputs), samples.shape
        flat = rows.reshape(-1, shape[2] if len(shape) == 3 else 1)
        # NaN written since the check is found by the training, which says where it leads.
        low, high = (tuple(map(float, np.nan_to_num(f.reduce(flat, axis=0)))) for f in (np.fmin, np.fmax))
        kept: dict[str, Any] = {"from_files": samples.from_files, "columns": samples.columns}
        is_bytes = rows.dtype == np.uint8 and not samples.tokens
        made = cls(tuple(shape), is_bytes, samples.scale, low, high, **kept)
        side = math.isqrt(shape[0])
        if samples.columns is not None or samples.tokens or (len(shape) == 1 and side * side != shape[0]):
            return made
        pixels = rows.reshape(len(rows), *(shape if len(shape) == 3 else (side, side, 1)))
        black, white = (float(np.mean(bound)) for bound in made.pixel_range)
        unit = ((pixels - np.float32(black)) / np.float32(max(white - black, 1e-30))).astype(np.float32)
        light = float(np.mean(np.median(borders(unit.mean(axis=3)), axis=1) > 0.5))
        spare = 0.0 if samples.from_files else 0.1  # a file of the training must never be inverted later
        ground = "dark" if light <= spare else "light" if light >= 1 - spare else "mixed"
        is_grey = pixels.shape[3] == 1 or bool((pixels == pixels[..., :1]).all())
        drawings = Drawings.of(unit[..., 0]) if is_grey else Drawings(False)
        is_drawn = bool(are_drawn(unit).all())
        return replace(made, ground=ground, is_grey=is_grey, is_drawn=is_drawn, drawings=drawings)

    def arranged(self, x: Any) -> Any:
        """Reshape a batch like the training samples; return it unchanged if the number of features differs."""
        shape = tuple(x.shape[1:])
        if shape == self.shape or math.prod(shape) != math.prod(self.shape) or x.ndim < 2:
            return x
        if len(self.shape) == 1:
            return x.reshape(len(x), -1)
        height, width, channels = self.shape
        if len(shape) == 1:
            return x if channels == 1 else x.reshape(len(x), *self.shape)
        if shape == (height, width):
            return x.reshape(*x.shape, 1)
        mend = "x.transpose(0, 2, 3, 1)" if shape == (channels, height, width) else "prepare them alike"
        raise ShapeError(f"the network was trained on images (n, {height}, {width}, {channels}), got {x.shape}: {mend}")

    def arranged_samples(self, samples: Samples) -> Samples:
        """Reshape samples like `arranged`, not copied; convert those of another table to the training's columns."""
        if self.columns is not None and samples.columns not in (None, self.columns):
            inputs, targets = self.columns.converted(samples.columns, np.asarray(samples.inputs), samples.targets)
            return replace(samples, inputs=inputs, targets=targets, columns=self.columns)
        inputs = self.arranged(samples.inputs)
        return samples if inputs is samples.inputs else replace(samples, inputs=inputs)

    def factor(self, x: NDArray[Any]) -> float:
        """Return the scale of a batch; raise DataError for another range than that of the training."""
        is_integer = x.dtype.kind in "iu"
        factor = self.scale if not self.is_bytes or is_integer else 1.0  # floats after bytes: scaled already
        if not isinstance(x, np.ndarray):  # on a device, whose extremes the host would have to wait for
            return factor
        if not x.size or x.dtype.kind not in "biuf":
            return 1.0
        low, high = float(np.minimum.reduce(x, axis=None)), float(np.maximum.reduce(x, axis=None))
        if not (low >= -LARGEST and high <= LARGEST):
            check_finite(x, "inputs")
        if is_integer and not self.is_bytes and self.scale == 1 and self._is_unit and high > 1:
            factor = 1 / white_level(high)
        self.check_range(low, high, factor, are_whole=is_integer)
        return factor

    def check_samples(self, samples: Samples) -> None:
        """Raise a DataError unless all but a few samples lie in the training's range; see `factor`."""
        if samples.tokens:  # checked one by one
            return
        rows = _spread(samples.inputs)
        flat = rows.reshape(len(rows), -1)
        low, high = np.quantile(flat.min(axis=1), _FAR_OUT), np.quantile(flat.max(axis=1), 1 - _FAR_OUT)
        self.check_range(float(low), float(high), samples.scale, are_whole=rows.dtype == np.uint8)

    def check_range(self, low: float, high: float, factor: float, *, are_whole: bool) -> None:
        """Raise a DataError if low to high, times the factor, is far from the training's range, or of another kind."""
        if self.columns is not None:
            return  # standardised like those of the training, however far one lies
        own, lowest, highest = self._reach, min(self.low), max(self.high)
        reach, is_of_pixels = max(abs(low), abs(high)) * factor, self.is_bytes or len(self.shape) == 3
        is_other = reach > _TIMES * own and (reach > REACH or (is_of_pixels and reach > _TIMES))
        if is_of_pixels:
            is_other |= lowest >= 0 and low * factor < -own / _TIMES
            is_as_seen = self.is_bytes and factor == 1 != self.scale
            is_other |= not are_whole and not is_as_seen and highest > 12 and 0 < high <= 1
        if is_other:
            such = f", such as x / {white_level(high)}" if low >= 0 and high > 20 and self._is_unit else ""
            own_range = f"{'bytes' if self.is_bytes else 'numbers'} from {lowest:.4g} to {highest:.4g}"
            trained = f"the network was trained on {own_range}{_times(self.scale)}"
            mend = f"prepare them as the training inputs were{such}"
            raise DataError(f"inputs reach from {low:.4g} to {high:.4g}, {trained}: {mend}")

    @cached_property  # predictions ask for it in each small batch
    def _reach(self) -> float:
        return max(map(abs, (*self.low, *self.high))) * self.scale

    @property
    def _is_unit(self) -> bool:
        """Return whether the network saw numbers from 0 to 1."""
        return min(self.low) >= 0 and 0.5 < max(self.high) * self.scale <= 1 + 1e-6

    @property
    def pixel_range(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Black and white of each channel before scaling: a usual range if half of it is used, else the extremes."""
        low, high = np.array(self.low), np.array(self.high)
        for bottom, top in ((0.0, 1 / self.scale), (0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)):
            is_reached = low.min() >= bottom - 1e-6 and top / 2 < high.max() <= top * 1.000001
            if is_reached and (low.min() < -0.5 or not bottom):
                return np.full_like(low, bottom), np.full_like(high, top)
        return low, high

    def as_inputs(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Map pixels from 0 to 1, (height, width, channels), to floats in the range of the training inputs."""
        black, white = self.pixel_range
        return np.asarray((black + pixels * (white - black)) * (self.scale if self.is_bytes else 1.0), np.float32)


def are_drawn(images: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which images (n, height, width, channels), 0 to 1, show a drawing: not just paper, or one pixel."""
    departs = np.abs(images - np.median(borders(images), axis=1)[:, None, None]) >= LEAST_CONTRAST
    return np.asarray(np.count_nonzero(departs.any(axis=3), axis=(1, 2)) > 1)


def reach_beyond(inputs: Inputs, scale: float = 1.0) -> float:
    """Return the magnitude of most samples if more than a few are too large to train on, else 0."""
    rows = _spread(inputs)
    reach = np.abs(rows).reshape(len(rows), -1).max(axis=1)
    is_far = (reach > REACH / scale).mean() > _FAR_OUT
    return float(np.quantile(reach, 1 - _FAR_OUT, method="higher")) if is_far else 0.0


def check_seen(samples: Samples) -> None:
    """Raise a DataError if more than a few samples are too large to train on."""
    if samples.tokens:
        return
    if reach_beyond(samples.inputs, samples.scale):
        rows = _spread(samples.inputs)
        low, high = float(rows.min()), float(rows.max())
        as_pixels = low >= 0 and (rows.ndim == 4 or (high <= 255 and not (rows % 1).any()))
        divide = f"divide them by {white_level(high)}, or " if as_pixels else ""
        mend = f"{divide}standardise each feature, (x - x.mean(axis=0)) / x.std(axis=0), or begin with BatchNorm()"
        got = f"inputs reach from {low:.4g} to {high:.4g}{_times(samples.scale)}"
        raise DataError(f"{got}, and training needs numbers within {-REACH} to {REACH}: {mend}")


def _times(scale: float) -> str:
    return "" if scale == 1 else f" times {scale:.4g}"


def _spread(inputs: Inputs) -> NDArray[Any]:
    """Return rows that are spread evenly over the samples."""
    count = min(len(inputs), _ROWS, max(16, _NUMBERS // math.prod(inputs.shape[1:])))
    return np.asarray(inputs[np.linspace(0, len(inputs) - 1, count).astype(np.intp)])
