"""Track the activations while nodes are read: their shape, the order of their axes, and the layers so far."""

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

MOST_SIZE = 2**20  # of windows, strides and padding


@dataclass
class ReaderState:
    """Layers from the input up to a node, and their output.

    Attributes:
        shape: Shape of a sample in gpunn, (features,) or (height, width, channels).
        channels_last: Whether images are (batch, height, width, channels) in the file here.
        flat: Shape of images flattened in the order height, width, channels; None for gpunn's order.
        is_row: Whether images of height 1 lack that axis in the file: (batch, length, features).
        layers: Layers so far.
        dtype: Dtype of the numbers.
        whole: Last average pooling over whole images.
    """

    shape: Shape
    dtype: str
    channels_last: bool = False
    flat: Shape | None = None
    is_row: bool = False
    layers: list[Layer] = field(default_factory=list)
    whole: Layer | None = None

    def within(self) -> "ReaderState":
        """Return a new state for a branch that begins here."""
        return ReaderState(self.shape, self.dtype, self.channels_last, self.flat, self.is_row)

    @property
    def axes(self) -> Shape:
        """Shape of a sample in the file."""
        if len(self.shape) == 1:
            return self.shape
        places = self.shape[1:2] if self.is_row else self.shape[:2]
        return (*places, self.shape[2]) if self.channels_last else (self.shape[2], *places)

    @property
    def order(self) -> tuple[bool, Shape | None, bool]:
        """Order of axes and features in the file."""
        return self.channels_last, self.flat, self.is_row

    def add(self, node: Operator, layer: Layer, **values: NDArray[Any] | None) -> None:
        """Append a layer with its initial values."""
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
        """Return one value per feature or channel, in gpunn's order, from an array that broadcasts over the batch.

        Return None if the array has other axes.
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
        """Reorder (…, features) to gpunn's order."""
        if self.flat is None:
            return values
        images = values.reshape(*values.shape[:-1], *self.flat)
        return np.moveaxis(images, -1, -3).reshape(values.shape)

    def need_channels_first(self, node: Operator) -> None:
        """Refuse a node on anything but images with channels first."""
        if len(self.shape) != 3:
            raise node.refusal(f"an input {self.axes} of each sample", "expected images, (channels, height, width)")
        if self.is_row:
            raise node.refusal(f"an input {self.axes} of each sample", "expected images with rows and columns")
        if self.channels_last:
            raise node.refusal("axes (batch, height, width, channels)", "expected (batch, channels, height, width)")

    def flatten(self, node: Operator, layer: Layer) -> None:
        """Flatten images by a new layer."""
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


def make_layer(node: Operator, what: str, kind: type[Layer], *given: Any, **named: Any) -> Layer:
    """Make a layer of a node; let an error about its arguments name the node and `what` of it."""
    try:
        return kind(*given, **named)
    except GpunnError as error:
        raise node.refusal(what, str(error)) from None


def numbers(node: Operator, values: NDArray[Any] | None, what: str) -> NDArray[Any]:
    """Return weights; refuse missing or computed ones."""
    if values is None:
        raise node.refusal(what, "expected weights that the file holds, not ones that are computed or missing")
    if values.dtype.kind != "f":
        raise node.refusal(f"{what} of {values.dtype}", "expected float32 or float64")
    return values


def known_inputs(node: Operator, constants: Mapping[str, NDArray[Any]], x: str) -> list[NDArray[Any] | None]:
    """Return the constant inputs of a node behind x; None for one left out."""
    if node.inputs[:1] != (x,) or any(name and name not in constants for name in node.inputs[1:]):
        raise node.refusal("its inputs", "expected activations first, and constants behind them")
    return [constants[name] if name else None for name in node.inputs[1:]]
