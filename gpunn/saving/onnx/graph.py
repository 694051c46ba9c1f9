"""Build an ONNX graph, node by node."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from gpunn.backend.base import Shape
from gpunn.errors import OptionError
from gpunn.nn.layers import Layer


class Graph:
    """Build the nodes and initializers of an ONNX graph, in which images are (batch, channels, height, width).

    Attributes:
        opset: Version of the operators.
        layer: Layer being written, which names its nodes.
        shape: Input shape of that layer for one sample, (features,) or (height, width, channels).
        nodes, initializers: Nodes, and constants by name.
        outputs: Name and shape of each layer's output, those within branches too; shapes of one sample.
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
        """Set the names of the following nodes: `name`, name/mul2, name/add3 and so on."""
        self._prefix, self.layer, self.shape, self._written = name, layer, shape, 0

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Append a node; return its name, which is also that of its output."""
        self._written += 1
        name = self._prefix if self._written == 1 else f"{self._prefix}/{operator.lower()}{self._written}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def weight(self, word: str, shape: tuple[int, ...] | None = None) -> str:
        """Add a parameter or statistic of the layer, such as "w" or "mean", reshaped if asked; return its name."""
        name = f"{self._prefix}.{word}"
        if name not in self._arrays:
            raise OptionError(f"{self._prefix} ({type(self.layer).__name__}) has no parameter {word!r} to export")
        values = self._arrays[name]
        return self._keep(name, values if shape is None else values.reshape(shape))

    def per_channel(self, word: str) -> str:
        """Add a parameter of one value per feature or channel, shaped to broadcast over a batch; return its name."""
        return self.weight(word, (-1, 1, 1) if len(self.shape) == 3 else None)

    def constant(self, word: str, values: ArrayLike, dtype: Any = np.float32) -> str:
        """Add a constant array; return its name."""
        return self._keep(f"{self._prefix}/{word}", np.asarray(values), dtype)

    def number(self, value: float, dtype: Any = np.float32) -> str:
        """Add a constant number, shared by all nodes; return its name."""
        return self._keep(f"{np.dtype(dtype).name}/{value!r}", np.asarray(value), dtype)

    def _keep(self, name: str, values: NDArray[Any], dtype: Any = np.float32) -> str:
        if name not in self.initializers:
            made = np.ascontiguousarray(values, dtype).reshape(
                values.shape
            )  # ascontiguousarray adds an axis to a number
            self.initializers[name] = numpy_helper.from_array(made, name)
        return name

    def finish(self, x: str, name: str) -> None:
        """Name the output of the graph."""
        if self.nodes and self.nodes[-1].output[0] == x:
            self.nodes[-1].output[0] = name
        else:
            self.nodes.append(helper.make_node("Identity", [x], [name], name=name))
