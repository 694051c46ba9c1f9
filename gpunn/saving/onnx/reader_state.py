"""What is known of the activations while the nodes of a file are read: shape, order of axes, and the layers so far."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.backend.base import Shape
from gpunn.errors import GpunnError
from gpunn.nn.layers import GlobalAveragePool2D, Layer
from gpunn.saving.onnx.parsing import Operator

MOST_SIZE = 2**20  # of a window, stride or padding


@dataclass
class ReaderState:
    """The way from the input up to a node.

    Attributes:
        shape: Shape of a sample, (features,) or (height, width, channels), whatever the order of axes in the file.
        channels_last: Whether the file has images as (batch, height, width, channels) here.
        flat: Shape of the images whose features lie in the order height, width, channels; None for gpunn's order.
        is_row: Whether images of one row lack the axis of their height in the file: (batch, length, features).
        layers: Layers so far.
        dtype: Dtype of the numbers.
        whole: The last mean of whole images.
    """

    shape: Shape
    dtype: str
    channels_last: bool = False
    flat: Shape | None = None
    is_row: bool = False
    layers: list[Layer] = field(default_factory=list)
    whole: Layer | None = None

    def within(self) -> "ReaderState":
        """Return the state at the beginning of a branch."""
        return ReaderState(self.shape, self.dtype, self.channels_last, self.flat, self.is_row)

    @property
    def axes(self) -> Shape:
        """Shape of a sample as the file has it."""
        if len(self.shape) == 1:
            return self.shape
        places = self.shape[1:2] if self.is_row else self.shape[:2]
        return (*places, self.shape[2]) if self.channels_last else (self.shape[2], *places)

    @property
    def order(self) -> tuple[bool, Shape | None, bool]:
        """The order of axes and features in the file."""
        return self.channels_last, self.flat, self.is_row

    def add(self, node: Operator, layer: Layer, **values: NDArray[Any] | None) -> None:
        """Put a layer behind the others, beginning with some values."""
        layer.name = layer.name_prefix
        try:
            self.shape = layer.output_shape(self.shape)
        except GpunnError as error:
            raise node.refusal(f"an input {self.axes} of each sample", str(error)) from None
        layer.begins_with = {
            word: np.ascontiguousarray(array, self.dtype) for word, array in values.items() if array is not None
        }
        self.layers.append(layer)

    def per_channel(self, node: Operator, values: NDArray[Any], what: str) -> NDArray[Any] | None:
        """Return one value a feature or channel, as gpunn orders them, of an array that stands beside the batch.

        None where it is no such array.
        """
        shape, axes = values.shape, self.axes
        sizes = (1,) * (len(axes) + 1 - len(shape)) + shape
        at = len(axes) if len(axes) == 1 or self.channels_last else 1
        if len(sizes) != len(axes) + 1 or any(size != 1 for place, size in enumerate(sizes) if place != at):
            return None
        if sizes[at] not in (1, channels := axes[at - 1]):
            raise node.refusal(f"{what} of shape {shape}", f"expected one number for each of {channels}")
        return self.ordered(np.broadcast_to(values.reshape(-1), (channels,)))

    def ordered(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return features (…, features) in gpunn's order."""
        if self.flat is None:
            return values
        images = values.reshape(*values.shape[:-1], *self.flat)
        return np.moveaxis(images, -1, -3).reshape(values.shape)

    def need_channels_first(self, node: Operator) -> None:
        """Refuse a node on images whose axes the file has turned to another order."""
        if len(self.shape) != 3:
            raise node.refusal(f"an input {self.axes} of each sample", "expected images, (channels, height, width)")
        if self.is_row:
            raise node.refusal(f"an input {self.axes} of each sample", "expected images with rows and columns")
        if self.channels_last:
            raise node.refusal("axes (batch, height, width, channels)", "expected (batch, channels, height, width)")

    def flatten(self, node: Operator, layer: Layer) -> None:
        """Put images in a row by a new layer."""
        if len(self.shape) == 1:
            return
        if self.layers and self.layers[-1] is self.whole:
            self.layers[-1] = GlobalAveragePool2D()
            self.shape, self.channels_last, self.is_row = self.shape[2:], False, False
            return
        is_turned = self.channels_last and self.shape[2] > 1 and prod(self.shape[:2]) > 1
        shape = self.shape
        self.add(node, layer)
        self.flat, self.channels_last, self.is_row = (shape if is_turned else None), False, False


def numbers(node: Operator, values: NDArray[Any] | None, what: str) -> NDArray[Any]:
    """Return weights, or raise the error that says that they are computed or missing."""
    if values is None:
        raise node.refusal(what, "expected weights that the file holds, not ones that are computed or missing")
    if values.dtype.kind != "f":
        raise node.refusal(f"{what} of {values.dtype}", "expected float32 or float64")
    return values


def known_inputs(node: Operator, constants: Mapping[str, NDArray[Any]], x: str) -> list[NDArray[Any] | None]:
    """Return the arrays of a node's inputs behind the first, which is x; None where one is left out."""
    if node.inputs[:1] != (x,) or any(name and name not in constants for name in node.inputs[1:]):
        raise node.refusal("its inputs", "expected activations first, and constants behind them")
    return [constants[name] if name else None for name in node.inputs[1:]]
