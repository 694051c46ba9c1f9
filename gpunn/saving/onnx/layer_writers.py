"""The layers as ONNX operators, each by a function of its own."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from gpunn.backend.base import Shape
from gpunn.errors import OptionError
from gpunn.nn.equations.activation import Equation
from gpunn.nn.layers import (
    AveragePool2D,
    BatchNorm,
    Chain,
    Concatenate,
    Conv2D,
    ConvTranspose2D,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    GlobalAveragePool2D,
    Layer,
    LayerNorm,
    LeakyReLU,
    MaxPool2D,
    ReLU,
    Residual,
    Sigmoid,
    Softmax,
    Softplus,
    Tanh,
)
from gpunn.saving.onnx.equation_writer import write_equation
from gpunn.saving.onnx.graph import Graph

Writer = Callable[[Graph, Any, str], str]  # writes the nodes of a layer on an input, and returns their output
Function = TypeVar("Function", bound=Writer)

WRITERS: dict[type[Layer], Writer] = {
    ReLU: lambda graph, _, x: graph.node("Relu", x),
    Sigmoid: lambda graph, _, x: graph.node("Sigmoid", x),
    Tanh: lambda graph, _, x: graph.node("Tanh", x),
    Softplus: lambda graph, _, x: graph.node("Softplus", x),
    Softmax: lambda graph, _, x: graph.node("Softmax", x, axis=1),
    LeakyReLU: lambda graph, layer, x: graph.node("LeakyRelu", x, alpha=layer.alpha),
    Embedding: lambda graph, _, x: _embedding(graph, x),
    Dropout: lambda _graph, _, x: x,
    Flatten: lambda graph, _, x: graph.node("Flatten", x, axis=1),
    GlobalAveragePool2D: lambda graph, _, x: graph.node("Flatten", graph.node("GlobalAveragePool", x), axis=1),
}


def writes(kind: type[Layer]) -> Callable[[Function], Function]:
    """Let a function write the layers of a class."""

    def keep(writer: Function) -> Function:
        WRITERS[kind] = writer
        return writer

    return keep


def write_layer(graph: Graph, layer: Layer, x: str) -> str:
    """Write a layer on the input x, and return its output; a class of somebody's own has a method `to_onnx` for it."""
    own = getattr(layer, "to_onnx", None)
    if own is not None:
        made = own(graph, x)
        if not isinstance(made, str):
            raise OptionError(f"to_onnx of {type(layer).__name__} must return the name of its output, got {made!r:.60}")
        return made
    # Not of a subclass, which may compute something else.
    writer = WRITERS.get(type(layer))
    if writer is None:
        mend = "give its class a method to_onnx(graph, x), see docs/onnx.md, or take layers that ONNX has"
        raise OptionError(f"{layer.name} ({type(layer).__name__}) has no form in ONNX: {mend}")
    return writer(graph, layer, x)


def write_layers(graph: Graph, layers: Sequence[Layer], x: str, shape: Shape) -> tuple[str, Shape]:
    """Write layers one after another on an input of a shape; return the output and its shape."""
    for layer in layers:
        graph.begin(layer.name, layer, shape)
        x, shape = write_layer(graph, layer, x), layer.output_shape(shape)
        graph.outputs[layer.name] = x, shape
    return x, shape


@writes(Dense)
def _dense(graph: Graph, layer: Dense, x: str) -> str:
    return graph.node("Gemm", x, *_weights(graph, layer), transB=1)


def _weights(graph: Graph, layer: Dense | Conv2D | ConvTranspose2D) -> list[str]:
    return [graph.weight("w")] + ([] if layer.bias is False else [graph.weight("b")])


@writes(Conv2D)
def _convolution(graph: Graph, layer: Conv2D, x: str) -> str:
    given = _window(graph, layer)
    if (groups := layer.groups_of(graph.shape[2])) > 1:
        given["group"] = groups
    return graph.node("Conv", x, *_weights(graph, layer), **given)


@writes(ConvTranspose2D)
def _transposed(graph: Graph, layer: ConvTranspose2D, x: str) -> str:
    given, rows_and_columns = _window(graph, layer), layer.output_shape(graph.shape)
    covered = [
        (length - 1) * stride + size - sum(cut)
        for length, stride, size, cut in zip(
            graph.shape, layer.stride, layer.size, layer.pads(graph.shape), strict=False
        )
    ]
    given["output_padding"] = [made - length for made, length in zip(rows_and_columns, covered, strict=False)]
    return graph.node("ConvTranspose", x, *_weights(graph, layer), **given)


@writes(MaxPool2D)
def _max_pool(graph: Graph, layer: MaxPool2D, x: str) -> str:
    return graph.node("MaxPool", x, **_window(graph, layer))


@writes(AveragePool2D)
def _average_pool(graph: Graph, layer: AveragePool2D, x: str) -> str:
    return graph.node("AveragePool", x, **_window(graph, layer), count_include_pad=int(layer.count_include_pad))


def _embedding(graph: Graph, x: str) -> str:
    rows = graph.node("Transpose", graph.node("Gather", graph.weight("w"), x, axis=0), perm=[0, 2, 1])
    return graph.node("Unsqueeze", rows, graph.constant("axes", [2], np.int64))


def _window(graph: Graph, layer: Conv2D | ConvTranspose2D | MaxPool2D | AveragePool2D) -> dict[str, Any]:
    (top, bottom), (left, right) = layer.pads(graph.shape)
    sizes = {"kernel_shape": list(layer.size), "strides": list(layer.stride)}
    return {**sizes, "pads": [top, left, bottom, right]}


@writes(BatchNorm)
def _batch_norm(graph: Graph, layer: BatchNorm, x: str) -> str:
    words = map(graph.weight, ("gamma", "beta", "mean", "variance"))
    return graph.node("BatchNormalization", x, *words, epsilon=layer.epsilon)


@writes(LayerNorm)
def _layer_norm(graph: Graph, layer: LayerNorm, x: str) -> str:
    if len(graph.shape) == 1 and graph.opset >= 17:
        given = {"axis": -1, "epsilon": layer.epsilon}
        return graph.node("LayerNormalization", x, graph.weight("gamma"), graph.weight("beta"), **given)
    # Of an image the channels, which come first here, so that no transposing is needed.
    centred = graph.node("Sub", x, _mean(graph, x))
    variance = _mean(graph, graph.node("Mul", centred, centred))
    root = graph.node("Sqrt", graph.node("Add", variance, graph.number(layer.epsilon)))
    scaled = graph.node("Mul", graph.node("Div", centred, root), graph.per_channel("gamma"))
    return graph.node("Add", scaled, graph.per_channel("beta"))


def _mean(graph: Graph, x: str) -> str:
    """Write the mean over the channels; opset 18 made an input of the attribute."""
    if graph.opset >= 18:
        return graph.node("ReduceMean", x, graph.constant("axes", [1], np.int64), keepdims=1)
    return graph.node("ReduceMean", x, axes=[1], keepdims=1)


@writes(Equation)
def _equation(graph: Graph, layer: Equation, x: str) -> str:
    names = list(layer.parameters or {})
    return write_equation(graph, layer.equation, x, {name: graph.per_channel(name) for name in names})


@writes(Chain)
def _chain(graph: Graph, layer: Chain, x: str) -> str:
    return write_layers(graph, layer.layers, x, graph.shape)[0]


@writes(Residual)
def _residual(graph: Graph, layer: Residual, x: str) -> str:
    shape = graph.shape
    ends = [write_layers(graph, branch, x, shape)[0] for branch in layer.branches]
    graph.begin(layer.name, layer, shape)
    return graph.node("Add", *ends, *([x] if len(ends) == 1 else []))


@writes(Concatenate)
def _concatenate(graph: Graph, layer: Concatenate, x: str) -> str:
    shape = graph.shape
    ends = [write_layers(graph, branch, x, shape)[0] for branch in layer.branches]
    graph.begin(layer.name, layer, shape)
    return graph.node("Concat", *ends, axis=1)
