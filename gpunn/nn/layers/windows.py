"""Windows that go over an image, of convolution and pooling: their padding, and how many there are."""

from typing import Any

from gpunn.backend.base import Shape
from gpunn.config.scalars import pair
from gpunn.errors import OptionError

Padding = tuple[int, int] | str


def checked_padding(padding: Any, kind: str) -> Padding:
    """Return "valid", "same" or two numbers, down and across; raise OptionError for others."""
    if isinstance(padding, str) and padding not in ("valid", "same"):
        raise OptionError(f"padding of {kind} must be 'valid', 'same' or a number, got {padding!r}")
    return padding if isinstance(padding, str) else pair(padding, f"padding of {kind}", least=0)


def added(padding: Padding, axis: int, length: int, size: int, stride: int) -> tuple[int, int]:
    """Return the numbers of places that padding adds before and after an image of some length along an axis.

    "same" adds as many as ⌈length/stride⌉ windows need; of an odd number the larger half comes after.
    """
    if padding == "same":
        total = max(0, (-(-length // stride) - 1) * stride + size - length)
        return total // 2, total - total // 2
    return (0, 0) if isinstance(padding, str) else (padding[axis], padding[axis])


def around(
    padding: Padding, image: Shape, size: tuple[int, int], stride: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the rows added above and below an image, and the columns added left and right of it."""
    down, across = (added(padding, axis, image[axis], size[axis], stride[axis]) for axis in (0, 1))
    return down, across


def count(length: int, size: int, stride: int, padded: tuple[int, int]) -> int:
    """Return the number of windows that lie wholly inside: ⌊(length + padding − size)/stride⌋ + 1."""
    return (length + sum(padded) - size) // stride + 1
