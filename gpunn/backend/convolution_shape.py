"""Describe a convolution: its sizes, its products, and the output rows that see an input row."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from gpunn.kernels.record import Array


class ConvolutionShape(NamedTuple):
    """Sizes of a convolution: `rows`, `columns` of its output, `batch_size` in training, at most `capacity` images."""

    filters: int
    size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    channels: int
    height: int
    width: int
    rows: int
    columns: int
    capacity: int
    batch_size: int

    @property
    def met(self) -> list[int]:
        """Number of filter rows that an input row meets, by its remainder modulo the stride."""
        return [len(range(first, self.size[0], self.stride[0])) for first in range(min(self.size[0], self.stride[0]))]


class Products(Protocol):
    """Compute the matrix products of a convolution, in one of several ways."""

    def forward(self, w: Array, x: Array, z: Array) -> None:
        """Compute z (filters, rows, columns, n) from w as a matrix (filters, …) and x (channels, height, width, n)."""

    def weight_gradient(self, x: Array, delta: Array, gradient: Array, is_turned: bool = True) -> None:
        """Compute the gradient of w, in the shape of w; delta has the shape of z.

        If x `is_turned`, the last `forward` was of this x, and may have left a copy of it in another layout.
        """

    def input_gradient(self, w: Array, delta: Array, dx: Array) -> None:
        """Compute dx := ∂C/∂x."""


class Seen(NamedTuple):
    """Input row y, and the output rows that see it, `begin` to `end`."""

    y: int
    remainder: int  # of y + padding modulo the stride: the row meets the filter's rows of this remainder
    skipped: int  # filter rows that it meets whose output rows would lie above the first
    begin: int
    end: int

    def of_weights(self, step: int) -> slice:
        """Return the slice of the filter rows that it meets inside the output, of `step` numbers each."""
        return slice(self.skipped * step, (self.skipped + self.end - self.begin) * step)


def seen_rows(e: ConvolutionShape) -> Iterator[Seen]:
    """Yield the input rows that some output row sees."""
    for y in range(e.height):
        last, remainder = divmod(y + e.padding[0], e.stride[0])
        if remainder >= e.size[0]:  # in a gap between filters
            continue
        first = last + 1 - e.met[remainder]
        begin, end = max(0, first), min(e.rows, last + 1)
        if begin < end:
            yield Seen(y, remainder, begin - first, begin, end)
