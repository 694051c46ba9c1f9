"""Convolutions and poolings of any shape, for Hypothesis; and what they compute, from their definitions."""

from typing import Any, NamedTuple

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from numpy.typing import NDArray

Pair = tuple[int, int]


class Convolution(NamedTuple):
    """What Conv2D is made with, and what it is given."""

    filters: int
    size: Pair
    stride: Pair
    padding: Any
    shape: tuple[int, int, int]
    n: int
    seed: int
    groups: Any = 1

    @property
    def pads(self) -> tuple[Pair, Pair]:
        """Zeros before and after, down and across; of "same" the larger half comes after."""
        if self.padding == "same":
            places = [-(-length // step) for length, step in zip(self.shape, self.stride, strict=False)]
            totals = [
                max(0, (count - 1) * step + size - length)
                for count, step, size, length in zip(places, self.stride, self.size, self.shape, strict=False)
            ]
            return (totals[0] // 2, -(-totals[0] // 2)), (totals[1] // 2, -(-totals[1] // 2))
        down, across = (0, 0) if self.padding == "valid" else np.broadcast_to(self.padding, 2).tolist()
        return (down, down), (across, across)

    @property
    def fits(self) -> bool:
        lengths = [length + sum(pad) for length, pad in zip(self.shape, self.pads, strict=False)]
        return lengths[0] >= self.size[0] and lengths[1] >= self.size[1]

    def inputs(self, rng: np.random.Generator) -> NDArray[np.float64]:
        return rng.normal(size=(self.n, *self.shape))


def small(least: int, most: int) -> st.SearchStrategy[Pair]:
    return st.tuples(st.integers(least, most), st.integers(least, most))


@st.composite
def convolutions(draw: st.DrawFn, *, longest: int = 7, grouped: bool = False) -> Convolution:
    """Any that fits: 1×1, as large as the image, strides above the size, padding above the size; or in groups."""
    padding = st.one_of(st.sampled_from(["valid", "same"]), st.integers(0, 4), small(0, 6))
    groups = draw(st.sampled_from([1, 2, 3, "depthwise"])) if grouped else 1
    channels = draw(st.integers(1, 3)) * (1 if isinstance(groups, str) else groups)
    made = Convolution(
        filters=draw(st.integers(1, 3)) * (channels if isinstance(groups, str) else groups),
        size=draw(small(1, 5)),
        stride=draw(small(1, 4)),
        padding=draw(padding),
        shape=(draw(st.integers(1, longest)), draw(st.integers(1, longest)), channels),
        n=draw(st.integers(1, 4)),
        seed=draw(st.integers(0, 999)),
        groups=groups,
    )
    assume(made.fits)
    return made


class Transposed(NamedTuple):
    """What ConvTranspose2D is made with, and what it is given."""

    filters: int
    size: Pair
    stride: Pair
    padding: Any
    output_padding: Pair
    shape: tuple[int, int, int]
    n: int
    seed: int

    @property
    def cuts(self) -> tuple[Pair, Pair]:
        """Rows and columns cut off before and after what the filters cover; below 0 are added."""
        if self.padding == "same":
            totals = [size - stride for size, stride in zip(self.size, self.stride, strict=True)]
            before = [max(0, total) // 2 for total in totals]
            return (before[0], totals[0] - before[0]), (before[1], totals[1] - before[1])
        down, across = (0, 0) if self.padding == "valid" else np.broadcast_to(self.padding, 2).tolist()
        return (down, down - self.output_padding[0]), (across, across - self.output_padding[1])

    def inputs(self, rng: np.random.Generator) -> NDArray[np.float64]:
        return rng.normal(size=(self.n, *self.shape))


@st.composite
def transposed(draw: st.DrawFn, *, longest: int = 5) -> Transposed:
    """Any that leaves something: gaps between the filters, padding above the size, a row added."""
    stride, padding = (
        draw(small(1, 4)),
        draw(st.one_of(st.sampled_from(["valid", "same"]), st.integers(0, 2), small(0, 3))),
    )
    more = (0, 0) if padding == "same" else tuple(draw(st.integers(0, step - 1)) for step in stride)
    made = Transposed(
        filters=draw(st.integers(1, 3)),
        size=draw(small(1, 5)),
        stride=stride,
        padding=padding,
        output_padding=(more[0], more[1]),
        shape=(draw(st.integers(1, longest)), draw(st.integers(1, longest)), draw(st.integers(1, 3))),
        n=draw(st.integers(1, 4)),
        seed=draw(st.integers(0, 999)),
    )
    each = zip(made.shape, made.stride, made.size, made.cuts, strict=False)
    assume(min((length - 1) * step + size - sum(cut) for length, step, size, cut in each) > 0)
    return made


def convolve_transposed(x: NDArray[Any], w: NDArray[Any], b: NDArray[Any], made: Transposed) -> NDArray[Any]:
    """Each pixel lays its filter down, and what lies over the edges is cut off, from the definition."""
    (n, height, width, _), (down, across), (rows, columns) = x.shape, made.stride, made.size
    z = np.zeros((n, height * down + rows + down, width * across + columns + across, made.filters))
    for i in range(height):
        for j in range(width):
            z[:, i * down : i * down + rows, j * across : j * across + columns] += np.einsum(
                "nc,cfuv->nuvf", x[:, i, j], w
            )
    (top, bottom), (left, right) = made.cuts
    ends = (height - 1) * down + rows - bottom, (width - 1) * across + columns - right
    return z[:, top : ends[0], left : ends[1]] + b


class Pooling(NamedTuple):
    """What a pooling layer is made with, and what it is given."""

    size: Pair
    stride: Pair
    shape: tuple[int, int, int]
    n: int
    seed: int
    padding: Any = "valid"

    @property
    def pads(self) -> tuple[Pair, Pair]:
        """Rows and columns of padding before and after, as around a convolution's image."""
        return Convolution(1, self.size, self.stride, self.padding, self.shape, 1, 0).pads

    def inputs(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """No two of them nearer than 0.1, so that central differences see one maximum."""
        x = rng.permutation(self.n * int(np.prod(self.shape))) / 10
        return x.reshape(self.n, *self.shape)


@st.composite
def poolings(draw: st.DrawFn, *, longest: int = 7, padded: bool = False) -> Pooling:
    """Any that fits: overlapping, with gaps between, with what is left over at the edges; on request with padding."""
    size = draw(small(1, 4))
    number = st.tuples(*(st.integers(0, each - 1) for each in size))
    padding = draw(st.one_of(st.sampled_from(["valid", "same"]), number)) if padded else "valid"
    least = (1, 1) if padding == "same" else size
    if not isinstance(padding, str):
        least = max(1, size[0] - 2 * padding[0]), max(1, size[1] - 2 * padding[1])
    return Pooling(
        size=size,
        stride=draw(small(1, 5)),
        shape=(draw(st.integers(least[0], longest)), draw(st.integers(least[1], longest)), draw(st.integers(1, 3))),
        n=draw(st.integers(1, 4)),
        seed=draw(st.integers(0, 999)),
        padding=padding,
    )


def padded(x: NDArray[Any], pads: tuple[Pair, Pair]) -> NDArray[Any]:
    return np.pad(x, ((0, 0), *pads, (0, 0)))


def places(length: int, size: int, stride: int) -> list[int]:
    """Where windows begin that lie wholly inside, counted one by one."""
    return [begin for begin in range(0, length, stride) if begin + size <= length]


def windows(x: NDArray[Any], size: Pair, stride: Pair) -> Any:
    """For every window: its row and column, and what is seen through it, (n, size, size, channels)."""
    for i, top in enumerate(places(x.shape[1], size[0], stride[0])):
        for j, left in enumerate(places(x.shape[2], size[1], stride[1])):
            yield i, j, x[:, top : top + size[0], left : left + size[1]]


def convolve(x: NDArray[Any], w: NDArray[Any], b: NDArray[Any], made: Convolution) -> NDArray[Any]:
    """z[f] = Σ_{c,u,v} w[f, c, u, v] a[c, ...] + b[f] at every place, from the definition, group by group."""
    x, groups, parts = padded(x, made.pads), x.shape[3] // w.shape[1], []
    for some, filters in zip(np.split(x, groups, axis=3), np.split(w, groups), strict=True):
        seen = windows(some, made.size, made.stride)
        parts.append(as_image({(i, j): np.einsum("nuvc,fcuv->nf", each, filters) for i, j, each in seen}))
    return np.concatenate(parts, axis=3) + b


def as_image(values: dict[Pair, NDArray[Any]]) -> NDArray[Any]:
    """(n, rows, columns, channels) from the values (n, channels) of each row and column."""
    rows, columns = (1 + max(at) for at in zip(*values, strict=True))
    return np.stack([np.stack([values[i, j] for j in range(columns)], axis=1) for i in range(rows)], axis=1)
