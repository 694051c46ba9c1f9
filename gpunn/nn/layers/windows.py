"""Count the windows of a convolution or pooling, and their padding."""

from typing import Any

from gpunn.backend.base import Shape
from gpunn.config.scalars import pair
from gpunn.errors import OptionError, ShapeError
from gpunn.nn.layers.base import Layer

Padding = tuple[int, int] | str


def check_image(layer: Layer, input_shape: Shape, mend: str = "put it before Flatten()") -> None:
    """Raise ShapeError where the input of a layer is no image."""
    if len(input_shape) != 3:
        expected = f"{layer.name}: {type(layer).__name__} expects (height, width, channels)"
        raise ShapeError(f"{expected}, got {input_shape}: {mend}")


def checked_padding(padding: Any, kind: str) -> Padding:
    """Return "valid", "same" or two numbers, for height and width; raise OptionError for any other padding."""
    if isinstance(padding, str) and padding not in ("valid", "same"):
        raise OptionError(f"padding of {kind} must be 'valid', 'same' or a number, got {padding!r}")
    return padding if isinstance(padding, str) else pair(padding, f"padding of {kind}", least=0)


def axis_padding(padding: Padding, axis: int, length: int, size: int, stride: int) -> tuple[int, int]:
    """Return the number of padded places before and after the image along one axis.

    "same" pads for ⌈length/stride⌉ windows; the larger half of an odd number comes after.
    """
    if padding == "same":
        total = max(0, (-(-length // stride) - 1) * stride + size - length)
        return total // 2, total - total // 2
    return (0, 0) if isinstance(padding, str) else (padding[axis], padding[axis])


def image_padding(
    padding: Padding, image: Shape, size: tuple[int, int], stride: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the padded rows above and below an image, and the padded columns left and right."""
    down, across = (axis_padding(padding, axis, image[axis], size[axis], stride[axis]) for axis in (0, 1))
    return down, across


def count(length: int, size: int, stride: int, padded: tuple[int, int]) -> int:
    """Return the number of windows inside the padded image: ⌊(length + padding − size)/stride⌋ + 1."""
    return (length + sum(padded) - size) // stride + 1
