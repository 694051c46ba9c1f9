"""Describe how training images are drawn (box, centre, strokes), and place another drawing alike."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gpunn.errors import DataError

Array = NDArray[Any]
_FAINT = 0.02  # of the darkest ink: where a drawing ends
_MOST_GREY = 1.6  # grey pixels for each pixel of outline: strokes have fewer, since only their edges are grey
_WIDEST_STROKE = 0.3  # of the box
_OFF_SIZE, _OFF_MIDDLE, _MOST_ALIKE = 1.5, 1.0, 0.8  # tolerances in pixels, and share of drawings within
_BLURRED = 1.3  # factor by which resizing may widen or narrow strokes
_FEWEST = 10  # images that a description needs
_LEAST_RANGE = 0.1  # of brightness from ground to ink
_MOST_SIDE, _CANVAS = 1024, 160  # largest side of an image, and smallest box while strokes are widened, in pixels


@dataclass(frozen=True)
class Drawings:
    """Description of drawings such as digits; all lengths in pixels.

    Attributes:
        are_strokes: Whether they are strokes on a plain ground, of one size and in one place; else the rest means
            nothing.
        box: Usual length of a drawing's longer side.
        centre: Row and column of its middle, from the top left corner.
        is_by_mass: Whether the middle is the centre of mass; else that of its box.
        thinnest, thickest: Width of the strokes of nearly all drawings.
        ground, ink: Usual brightness of the ground and of full ink, 0 to 1.
    """

    are_strokes: bool
    box: float = 0.0
    centre: tuple[float, float] = (0.0, 0.0)
    is_by_mass: bool = False
    thinnest: float = 0.0
    thickest: float = 0.0
    ground: float = 0.0
    ink: float = 1.0

    def __post_init__(self) -> None:
        if self.are_strokes:
            numbers = (self.box, *self.centre, self.thinnest, self.thickest)
            if len(self.centre) != 2 or not all(0 < number <= _MOST_SIDE for number in numbers):
                raise DataError(f"box, centre and strokes of drawings are numbers above 0, got {self}")
            if not (0 <= self.ground <= 1 and 0 <= self.ink <= 1 and abs(self.ink - self.ground) >= _LEAST_RANGE):
                raise DataError(f"ground and ink of drawings are numbers from 0 to 1 that differ, got {self}")

    @classmethod
    def of(cls, images: Array) -> Self:
        """Describe images (n, height, width) from 0 to 1."""
        if len(images) < _FEWEST or max(images.shape[1:]) > _MOST_SIDE:
            return cls(False)
        grounds, departs = _departures(images)
        peaks = np.abs(departs).max(axis=(1, 2))
        is_light = departs.max(axis=(1, 2)) >= peaks
        is_inked = (peaks > _LEAST_RANGE) & (is_light == (np.mean(is_light) > 0.5))
        is_one_ground = np.ptp(np.quantile(grounds, (0.05, 0.95))) <= 0.1
        if np.mean(is_inked) < 0.9 or not is_one_ground:
            return cls(False)
        peaks = peaks[is_inked]
        ink = np.abs(departs[is_inked]) / peaks[:, None, None]
        boxes, masses, strokes = boxes_of(ink), centres_of_mass(ink), stroke_widths(ink)
        sizes = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
        box = float(np.median(sizes))
        grey, inked = (np.count_nonzero((ink > 0.2) & (ink < most), axis=(1, 2)) for most in (0.8, 2))
        grey = grey / np.maximum(inked, 1)
        are_strokes = np.median(grey * strokes) <= _MOST_GREY and np.median(strokes) <= _WIDEST_STROKE * box
        if not are_strokes or box < 4:
            return cls(False)
        middles = (boxes[:, :2] + boxes[:, 2:]) / 2
        is_by_mass = bool(masses.std(axis=0).sum() < middles.std(axis=0).sum())
        middles = masses if is_by_mass else middles
        row, column = map(float, np.median(middles, axis=0))
        off = np.abs(middles - (row, column)).max(axis=1)
        if np.mean((np.abs(sizes - box) <= _OFF_SIZE) & (off <= _OFF_MIDDLE)) < _MOST_ALIKE:
            return cls(False)  # drawn anywhere, in any size: there is no usual place
        thinnest, thickest = map(float, np.quantile(strokes, (0.1, 0.9)))
        ground, sign = float(np.median(grounds)), 1 if np.mean(is_light) > 0.5 else -1
        ground, full = (min(max(each, 0.0), 1.0) for each in (ground, ground + sign * float(np.median(peaks))))
        if abs(full - ground) < _LEAST_RANGE:
            return cls(False)
        return cls(True, box, (row, column), is_by_mass, thinnest, thickest, ground, full)

    def are_like(self, image: Array) -> bool:
        """Return whether an image, or its inverse, matches these in contrast, box and centre."""
        grounds, departs = _departures(image[None])
        ground, ink = float(grounds[0]), np.abs(departs[0])
        peak = float(ink.max())
        is_same = min(abs(ground - self.ground), abs(1 - ground - self.ground)) <= 0.1
        if not is_same or peak < 0.85 * abs(self.ink - self.ground):
            return False
        drawn = ink[None] / peak
        box, mass = boxes_of(drawn)[0], centres_of_mass(drawn)[0]
        middle = mass if self.is_by_mass else (box[:2] + box[2:]) / 2
        size = max(box[2] - box[0], box[3] - box[1])
        return abs(size - self.box) <= _OFF_SIZE and bool(np.abs(middle - self.centre).max() <= _OFF_MIDDLE)

    def have_strokes_of(self, image: Array) -> bool:
        """Return whether the strokes of an image are about as wide as these; resizing blurs them a little."""
        ink = np.abs(_departures(image[None])[1])
        width = float(stroke_widths(ink / max(float(ink.max()), 1e-12))[0])
        return self.thinnest / _BLURRED <= width <= self.thickest * _BLURRED

    def placed(self, amount: Array, drawing: Array, height: int, width: int) -> Array:
        """Place ink (rows, columns), 0 to about 1, in the usual box and centre of an image (height, width).

        `drawing` is the mask of the drawing's own pixels.
        """
        canvas, scale = self._canvas(amount, drawing)
        found = self._in_place(canvas, scale, height, width)
        stroke = float(stroke_widths(found[None])[0])
        if not self.thinnest <= stroke <= self.thickest:
            wanted = self.thinnest if stroke < self.thinnest else self.thickest
            canvas = grown(canvas, (wanted - stroke) / 2 * scale)
            found = self._in_place(canvas, scale, height, width)
        return np.asarray(self.ground + found * (self.ink - self.ground), np.float32)

    def _canvas(self, amount: Array, drawing: Array) -> tuple[Array, float]:
        """Cut out and enlarge the drawing, ink 1 and ground 0 with soft edges; return it with its scale."""
        from PIL import Image

        top, left, bottom, right = boxes_of(drawing[None].astype(np.float32))[0]
        size = max(bottom - top, right - left)
        scale = max(8.0, np.ceil(_CANVAS / self.box))
        times = scale * self.box / size
        margin = int(np.ceil(size * 0.1)) + 1
        region = drawing
        for _ in range(max(1, round(size / 80))):
            region = around(region)
        ink = np.pad(np.where(region, amount, 0), margin).astype(np.float32)
        ink = ink[int(top) : int(bottom) + 2 * margin, int(left) : int(right) + 2 * margin]
        shape = [max(1, round(length * times)) for length in ink.shape]
        method = Image.Resampling.BOX if times < 1 else Image.Resampling.BICUBIC
        large = np.asarray(Image.fromarray(ink).resize((shape[1], shape[0]), method))
        return ((large - 0.25) / 0.4).clip(0, 1), scale

    def _in_place(self, canvas: Array, scale: float, height: int, width: int) -> Array:
        from PIL import Image

        top, left, bottom, right = boxes_of(np.where(canvas > 0.5, canvas, 0)[None])[0]
        times = self.box / max(bottom - top, right - left)
        image = Image.fromarray(canvas[int(top) : int(bottom), int(left) : int(right)].astype(np.float32))
        rows, columns = (max(1, round(float(length) * times)) for length in (bottom - top, right - left))
        small = np.asarray(image.resize((columns, rows), Image.Resampling.BOX))
        middle = centres_of_mass(small[None])[0] if self.is_by_mass else np.asarray((rows, columns)) / 2
        out = np.zeros((height, width), np.float32)
        y, x = (round(float(place - own)) for place, own in zip(self.centre, middle, strict=True))
        y, x = min(max(y, 0), max(0, height - rows)), min(max(x, 0), max(0, width - columns))
        out[y : y + rows, x : x + columns] = small[: height - y, : width - x]
        return out


def _departures(images: Array) -> tuple[Array, Array]:
    """Return the ground of each image (n, height, width), the median of its border, and the pixels minus it."""
    grounds = np.median(borders(images), axis=1)
    return grounds, images - grounds[:, None, None]


def borders(images: Array) -> Array:
    """Return the pixels along the four sides of images (n, height, width, ...): (n, pixels, ...)."""
    return np.concatenate((images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]), axis=1)


def boxes_of(ink: Array) -> Array:
    """Return the bounding boxes of ink (n, height, width): top, left, bottom, right."""
    is_ink: Array = ink > _FAINT
    found = []
    for axis in (2, 1):
        there: Array = np.asarray(is_ink.any(axis=axis))
        found.append((there.argmax(axis=1), there.shape[1] - there[:, ::-1].argmax(axis=1)))
    return np.stack([found[0][0], found[1][0], found[0][1], found[1][1]], axis=1).astype(np.float64)


def centres_of_mass(ink: Array) -> Array:
    """Return the centres of mass of ink (n, height, width), in pixels from the top left corner: (n, 2)."""
    total = np.maximum(ink.sum(axis=(1, 2)), 1e-12)
    sums = [(ink.sum(axis=axis) * (np.arange(ink.shape[3 - axis]) + 0.5)).sum(axis=1) for axis in (2, 1)]
    return np.asarray(np.stack(sums, axis=1) / total[:, None])


def stroke_widths(ink: Array) -> Array:
    """Return the mean widths of strokes of ink (n, height, width), 0 to 1: twice the area over the outline's length."""
    padded = np.pad(ink, ((0, 0), (1, 1), (1, 1)))
    down, across = np.diff(padded, axis=1)[:, :, :-1], np.diff(padded, axis=2)[:, :-1]
    return np.asarray(2 * ink.sum(axis=(1, 2)) / np.maximum(np.hypot(down, across).sum(axis=(1, 2)), 1e-12))


def around(mask: Array) -> Array:
    """Dilate a mask by one pixel."""
    out = mask.copy()
    out[1:] |= mask[:-1]
    out[:-1] |= mask[1:]
    wide = out.copy()
    wide[:, 1:] |= out[:, :-1]
    wide[:, :-1] |= out[:, 1:]
    return wide


def grown(ink: Array, by: float) -> Array:
    """Thicken strokes by `by` pixels on each side, or thin them if it is negative."""
    reach = round(abs(by))
    if not reach:
        return ink
    ink = np.pad(ink, reach if by > 0 else 0)
    reduce = np.maximum if by > 0 else np.minimum
    padded = np.pad(ink, reach)
    out = ink.copy()
    height, width = ink.shape
    for y in range(-reach, reach + 1):
        x = int(np.sqrt(reach * reach - y * y))
        for shift in range(-x, x + 1):
            reduce(out, padded[reach + y : reach + y + height, reach + shift : reach + shift + width], out=out)
    return out
