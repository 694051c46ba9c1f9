"""An ONNX graph while it is written: nodes one after another, and the numbers that they take."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from gpunn.backend.base import Shape
from gpunn.errors import OptionError
from gpunn.nn.layers import Layer


class Graph:
    """Nodes and numbers of an ONNX graph; images are (batch, channels, height, width) in it.

    Attributes:
        opset: Version of the operators.
        layer: Layer that is being written, after which its nodes are named.
        shape: Shape of a sample that comes into it, (features,) or (height, width, channels).
        nodes, initializers: What was written.
        outputs: Output of each layer by its name, those within branches too, and the shape of it for one sample.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]], opset: int) -> None:
        self.opset, self._arrays = opset, arrays
        self.nodes: list[NodeProto] = []
        self.initializers: dict[str, TensorProto] = {}
        self.outputs: dict[str, tuple[str, Shape]] = {}
        self.layer: Layer | None = None
        self.shape: Shape = ()
        self._prefix, self._written = "", 0

    def begin(self, name: str, layer: Layer | None = None, shape: Shape = ()) -> None:
        """Name the nodes that follow: `name`, name/mul2, name/add3 and so on."""
        self._prefix, self.layer, self.shape, self._written = name, layer, shape, 0

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Write a node, and return the name of its output, which is its own."""
        self._written += 1
        name = self._prefix if self._written == 1 else f"{self._prefix}/{operator.lower()}{self._written}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def weight(self, word: str, shape: tuple[int, ...] | None = None) -> str:
        """Return the name of a parameter or statistic of the layer, "w" or "mean", of its own shape or another."""
        name = f"{self._prefix}.{word}"
        if name not in self._arrays:
            raise OptionError(f"{self._prefix} ({type(self.layer).__name__}) has no parameter {word!r} to export")
        values = self._arrays[name]
        return self._keep(name, values if shape is None else values.reshape(shape))

    def per_channel(self, word: str) -> str:
        """Return the name of a parameter with one value a feature or channel, shaped to stand beside a batch."""
        return self.weight(word, (-1, 1, 1) if len(self.shape) == 3 else None)

    def constant(self, word: str, values: ArrayLike, dtype: Any = np.float32) -> str:
        """Return the name of some numbers."""
        return self._keep(f"{self._prefix}/{word}", np.asarray(values), dtype)

    def number(self, value: float, dtype: Any = np.float32) -> str:
        """Return the name of one number, which all nodes share that take it."""
        return self._keep(f"{np.dtype(dtype).name}/{value!r}", np.asarray(value), dtype)

    def _keep(self, name: str, values: NDArray[Any], dtype: Any = np.float32) -> str:
        if name not in self.initializers:
            made = np.ascontiguousarray(values, dtype).reshape(values.shape)  # a number without an axis
            self.initializers[name] = numpy_helper.from_array(made, name)
        return name

    def finish(self, x: str, name: str) -> None:
        """Give the output of the graph its name."""
        if self.nodes and self.nodes[-1].output[0] == x:
            self.nodes[-1].output[0] = name
        else:
            self.nodes.append(helper.make_node("Identity", [x], [name], name=name))
