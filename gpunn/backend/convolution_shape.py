"""The sizes of a convolution, and which rows of its output an input row is seen from."""

from collections.abc import Iterator
from typing import NamedTuple


class ConvolutionShape(NamedTuple):
    """The sizes of a convolution, with `rows` and `columns` of its output; training has batches of `batch_size`."""

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
        """Rows of the filter that an input row meets, by the remainder of its number by the stride."""
        return [len(range(first, self.size[0], self.stride[0])) for first in range(min(self.size[0], self.stride[0]))]


class Seen(NamedTuple):
    """An input row, and the rows of the output that it is seen from, `begin` to `end`."""

    y: int
    remainder: int  # of its number, with the padding, by the stride: it meets the filter's rows of this remainder
    skipped: int  # of the rows that it meets, those whose output rows would lie above the image
    begin: int
    end: int

    def of_weights(self, step: int) -> slice:
        """Return the place of the filter's rows that count, among those that it meets, of `step` numbers each."""
        return slice(self.skipped * step, (self.skipped + self.end - self.begin) * step)


def seen_rows(e: ConvolutionShape) -> Iterator[Seen]:
    """Yield the input rows that are seen at all."""
    for y in range(e.height):
        last, remainder = divmod(y + e.padding[0], e.stride[0])
        if remainder >= e.size[0]:  # in a gap between filters
            continue
        first = last + 1 - e.met[remainder]
        begin, end = max(0, first), min(e.rows, last + 1)
        if begin < end:
            yield Seen(y, remainder, begin - first, begin, end)
