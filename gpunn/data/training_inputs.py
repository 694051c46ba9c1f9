"""The inputs of a training as its network remembers them, so that later inputs are brought to the same form."""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gpunn.config import from_table
from gpunn.data.checks import LARGEST, REACH, bit_depth, check_finite
from gpunn.data.columns import Columns
from gpunn.data.drawings import Drawings
from gpunn.data.memmap import Inputs
from gpunn.data.samples import Samples
from gpunn.errors import DataError, ShapeError

GROUNDS = ("dark", "light", "mixed")
LEAST_CONTRAST = 0.04  # of a drawing, as a share of the whole range; paper alone has less
_ROWS, _NUMBERS = 1024, 1 << 18  # rows that are looked at, and numbers in them: as many as show what all are like
_FAR_OUT = 0.05  # share of the samples that may be out of range without making the whole a set of another range
_TIMES = 4  # how far later inputs may go beyond those of the training before they are taken for ones of another scale


@dataclass(frozen=True)
class TrainingInputs:
    """Description of the inputs of a training.

    Attributes:
        shape: Shape of one sample as the data had it, (features,) or (height, width, channels).
        is_bytes: Whether they were bytes; floats of later inputs are then taken as already scaled.
        scale: Factor by which they were multiplied.
        low, high: Least and largest number of each channel before that; one of each where there are no images.
        ground: "dark", "light" or "mixed", by the surroundings of the drawing in an image.
        is_grey: Whether all channels of each pixel are equal.
        is_drawn: Whether every image has a drawing, so that a later picture must have one.
        from_files: Whether they were image files that `load_data` fitted; later ones are then fitted in the same way.
        columns: Columns of the table that the inputs were made of, or None.
        drawings: How they are drawn; None where there are no images, or the version did not remember it.
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
        if isinstance(self.columns, dict):  # of a file
            object.__setattr__(self, "columns", Columns.read(self.columns))
        if self.columns is not None and self.shape != (self.columns.features,):
            raise DataError(f"columns make {self.columns.features} features, and samples are {self.shape}")
        if isinstance(self.drawings, dict):  # of a file
            object.__setattr__(self, "drawings", from_table(Drawings, self.drawings, "drawings"))
        channels = self.shape[2] if len(self.shape) == 3 else 1
        if not len(self.low) == len(self.high) == channels or not all(map(math.isfinite, (*self.low, *self.high))):
            raise DataError(f"low and high are {channels} finite numbers each, one for a channel")
        if self.ground not in GROUNDS:
            raise DataError(f"ground is {', '.join(GROUNDS)}, got {self.ground!r}")

    @classmethod
    def of(cls, samples: Samples) -> Self:
        """Describe samples, judged by rows that are spread over them."""
        rows, shape = _spread(samples.inputs), samples.shape
        flat = rows.reshape(-1, shape[2] if len(shape) == 3 else 1)
        # Numbers that were spoilt since they were checked are found by the training, which says where they lead.
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
        """Return a batch in the shape of the training samples, or as it is where the number of features differs."""
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
        """Return `arranged` samples, not copied; those of another table by the columns of the training."""
        if self.columns is not None and samples.columns not in (None, self.columns):
            inputs, targets = self.columns.converted(samples.columns, np.asarray(samples.inputs), samples.targets)
            return replace(samples, inputs=inputs, targets=targets, columns=self.columns)
        inputs = self.arranged(samples.inputs)
        return samples if inputs is samples.inputs else replace(samples, inputs=inputs)

    def factor(self, x: NDArray[Any]) -> float:
        """Return the factor of a batch before the network sees it; refuse another range than the training's."""
        is_integer = x.dtype.kind in "iu"
        factor = self.scale if not self.is_bytes or is_integer else 1.0  # floats after bytes: as the network saw these
        if not isinstance(x, np.ndarray):  # on a device, where nobody waits for its extremes
            return factor
        if not x.size or x.dtype.kind not in "biuf":
            return 1.0
        low, high = float(np.minimum.reduce(x, axis=None)), float(np.maximum.reduce(x, axis=None))
        if not (low >= -LARGEST and high <= LARGEST):
            check_finite(x, "inputs")
        if is_integer and not self.is_bytes and self.scale == 1 and self._is_unit and high > 1:
            factor = 1 / bit_depth(high)
        self.check_range(low, high, factor, are_whole=is_integer)
        return factor

    def check_samples(self, samples: Samples) -> None:
        """Raise a DataError unless these are of the training's range, but for a few that are far out; see `factor`."""
        if samples.tokens:  # each of which was checked
            return
        rows = _spread(samples.inputs)
        flat = rows.reshape(len(rows), -1)
        low, high = np.quantile(flat.min(axis=1), _FAR_OUT), np.quantile(flat.max(axis=1), 1 - _FAR_OUT)
        self.check_range(float(low), float(high), samples.scale, are_whole=rows.dtype == np.uint8)

    def check_range(self, low: float, high: float, factor: float, *, are_whole: bool) -> None:
        """Raise a DataError if low to high, times the factor, is far from the training's range, or of another kind."""
        if self.columns is not None:
            return  # standardised as those of the training, however far one lies
        own, lowest, highest = self._reach, min(self.low), max(self.high)
        reach, is_of_pixels = max(abs(low), abs(high)) * factor, self.is_bytes or len(self.shape) == 3
        is_other = reach > _TIMES * own and (reach > REACH or (is_of_pixels and reach > _TIMES))
        if is_of_pixels:
            is_other |= lowest >= 0 and low * factor < -own / _TIMES
            is_as_seen = self.is_bytes and factor == 1 != self.scale
            is_other |= not are_whole and not is_as_seen and highest > 12 and 0 < high <= 1
        if is_other:
            such = f", such as x / {bit_depth(high)}" if low >= 0 and high > 20 and self._is_unit else ""
            own_range = f"{'bytes' if self.is_bytes else 'numbers'} from {lowest:.4g} to {highest:.4g}"
            trained = f"the network was trained on {own_range}{_times(self.scale)}"
            mend = f"prepare them as the training inputs were{such}"
            raise DataError(f"inputs reach from {low:.4g} to {high:.4g}, {trained}: {mend}")

    @cached_property  # predictions ask for it in each small batch
    def _reach(self) -> float:
        return max(map(abs, (*self.low, *self.high))) * self.scale

    @property
    def _is_unit(self) -> bool:
        """Whether the network saw numbers from 0 to 1."""
        return min(self.low) >= 0 and 0.5 < max(self.high) * self.scale <= 1 + 1e-6

    @property
    def pixel_range(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Black and white of each channel before scaling: a usual range, if half used, else least and largest."""
        low, high = np.array(self.low), np.array(self.high)
        for bottom, top in ((0.0, 1 / self.scale), (0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)):
            is_reached = low.min() >= bottom - 1e-6 and top / 2 < high.max() <= top * 1.000001
            if is_reached and (low.min() < -0.5 or not bottom):
                return np.full_like(low, bottom), np.full_like(high, top)
        return low, high

    def as_inputs(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Return pixels from 0 to 1, (height, width, channels), as floats that `factor` takes for this range."""
        black, white = self.pixel_range
        return np.asarray((black + pixels * (white - black)) * (self.scale if self.is_bytes else 1.0), np.float32)


def borders(images: NDArray[Any]) -> NDArray[Any]:
    """Return the pixels along the four sides of images (n, height, width, ...): (n, pixels, ...)."""
    return np.concatenate((images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]), axis=1)


def are_drawn(images: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell which images (n, height, width, channels) from 0 to 1 have a drawing: more than paper, or one pixel."""
    departs = np.abs(images - np.median(borders(images), axis=1)[:, None, None]) >= LEAST_CONTRAST
    return np.asarray(np.count_nonzero(departs.any(axis=3), axis=(1, 2)) > 1)


def reach_beyond(inputs: Inputs, scale: float = 1.0) -> float:
    """Return how far most samples reach if more than a few are too large to train on; 0 if they are not."""
    rows = _spread(inputs)
    reach = np.abs(rows).reshape(len(rows), -1).max(axis=1)
    is_far = (reach > REACH / scale).mean() > _FAR_OUT
    return float(np.quantile(reach, 1 - _FAR_OUT, method="higher")) if is_far else 0.0


def check_seen(samples: Samples) -> None:
    """Raise a DataError where more than a few samples are too large to train on."""
    if samples.tokens:
        return
    if reach_beyond(samples.inputs, samples.scale):
        rows = _spread(samples.inputs)
        low, high = float(rows.min()), float(rows.max())
        as_pixels = low >= 0 and (rows.ndim == 4 or (high <= 255 and not (rows % 1).any()))
        divide = f"divide them by {bit_depth(high)}, or " if as_pixels else ""
        mend = f"{divide}standardise each feature, (x - x.mean(axis=0)) / x.std(axis=0), or begin with BatchNorm()"
        got = f"inputs reach from {low:.4g} to {high:.4g}{_times(samples.scale)}"
        raise DataError(f"{got}, and training needs numbers within {-REACH} to {REACH}: {mend}")


def _times(scale: float) -> str:
    return "" if scale == 1 else f" times {scale:.4g}"


def _spread(inputs: Inputs) -> NDArray[Any]:
    """Return rows that are spread evenly over the samples."""
    count = min(len(inputs), _ROWS, max(16, _NUMBERS // math.prod(inputs.shape[1:])))
    return np.asarray(inputs[np.linspace(0, len(inputs) - 1, count).astype(np.intp)])
