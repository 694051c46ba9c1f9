"""Write layers as ONNX operators, one function for each class."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from gpunn.backend.base import Shape
from gpunn.errors import OptionError
from gpunn.nn import layers as nn
from gpunn.nn.equations.activation import Equation
from gpunn.saving.onnx.equation_writer import write_equation
from gpunn.saving.onnx.graph import Graph

Writer = Callable[[Graph, Any, str], str]  # writes a layer with the given input; returns its output
Function = TypeVar("Function", bound=Writer)

WRITERS: dict[type[nn.Layer], Writer] = {
    nn.ReLU: lambda graph, _, x: graph.node("Relu", x),
    nn.Sigmoid: lambda graph, _, x: graph.node("Sigmoid", x),
    nn.Tanh: lambda graph, _, x: graph.node("Tanh", x),
    nn.Softplus: lambda graph, _, x: graph.node("Softplus", x),
    nn.Softmax: lambda graph, _, x: graph.node("Softmax", x, axis=1),
    nn.LeakyReLU: lambda graph, layer, x: graph.node("LeakyRelu", x, alpha=layer.alpha),
    nn.Dropout: lambda _graph, _, x: x,
    nn.Flatten: lambda graph, _, x: graph.node("Flatten", x, axis=1),
    nn.GlobalAveragePool2D: lambda graph, _, x: graph.node("Flatten", graph.node("GlobalAveragePool", x), axis=1),
}


def writes(kind: type[nn.Layer]) -> Callable[[Function], Function]:
    """Register a function as the writer of a class of layers."""

    def keep(writer: Function) -> Function:
        WRITERS[kind] = writer
        return writer

    return keep


def write_layer(graph: Graph, layer: nn.Layer, x: str) -> str:
    """Write a layer with input x, by its method `to_onnx` if it has one; return its output."""
    own = getattr(layer, "to_onnx", None)
    if own is not None:
        made = own(graph, x)
        if not isinstance(made, str):
            raise OptionError(f"to_onnx of {type(layer).__name__} must return the name of its output, got {made!r:.60}")
        return made
    # By the exact class: a subclass may compute something else.
    writer = WRITERS.get(type(layer))
    if writer is None:
        mend = "give its class a method to_onnx(graph, x), see docs/onnx.md, or take layers that ONNX has"
        raise OptionError(f"{layer.name} ({type(layer).__name__}) has no form in ONNX: {mend}")
    return writer(graph, layer, x)


def write_layers(graph: Graph, layers: Sequence[nn.Layer], x: str, shape: Shape) -> tuple[str, Shape]:
    """Write layers one after another; return the output and its shape."""
    for layer in layers:
        graph.begin(layer.name, layer, shape)
        x, shape = write_layer(graph, layer, x), layer.output_shape(shape)
        graph.outputs[layer.name] = x, shape
    return x, shape


@writes(nn.Dense)
def _dense(graph: Graph, layer: nn.Dense, x: str) -> str:
    return graph.node("Gemm", x, *_weights(graph, layer), transB=1)


def _weights(graph: Graph, layer: nn.Dense | nn.Conv2D | nn.ConvTranspose2D) -> list[str]:
    return [graph.weight("w")] + ([] if layer.bias is False else [graph.weight("b")])


@writes(nn.Conv2D)
def _convolution(graph: Graph, layer: nn.Conv2D, x: str) -> str:
    given = _window(graph, layer)
    if (groups := layer.groups_of(graph.shape[2])) > 1:
        given["group"] = groups
    return graph.node("Conv", x, *_weights(graph, layer), **given)


@writes(nn.ConvTranspose2D)
def _transposed(graph: Graph, layer: nn.ConvTranspose2D, x: str) -> str:
    given, rows_and_columns = _window(graph, layer), layer.output_shape(graph.shape)
    covered = [
        (length - 1) * stride + size - sum(cut)
        for length, stride, size, cut in zip(
            graph.shape, layer.stride, layer.size, layer.pads(graph.shape), strict=False
        )
    ]
    given["output_padding"] = [made - length for made, length in zip(rows_and_columns, covered, strict=False)]
    return graph.node("ConvTranspose", x, *_weights(graph, layer), **given)


@writes(nn.MaxPool2D)
def _max_pool(graph: Graph, layer: nn.MaxPool2D, x: str) -> str:
    return graph.node("MaxPool", x, **_window(graph, layer))


@writes(nn.AveragePool2D)
def _average_pool(graph: Graph, layer: nn.AveragePool2D, x: str) -> str:
    return graph.node("AveragePool", x, **_window(graph, layer), count_include_pad=int(layer.count_include_pad))


@writes(nn.Embedding)
def _embedding(graph: Graph, _: nn.Embedding, x: str) -> str:
    rows = graph.node("Transpose", graph.node("Gather", graph.weight("w"), x, axis=0), perm=[0, 2, 1])
    return graph.node("Unsqueeze", rows, graph.constant("axes", [2], np.int64))


def _window(graph: Graph, layer: nn.Conv2D | nn.ConvTranspose2D | nn.MaxPool2D | nn.AveragePool2D) -> dict[str, Any]:
    (top, bottom), (left, right) = layer.pads(graph.shape)
    sizes = {"kernel_shape": list(layer.size), "strides": list(layer.stride)}
    return {**sizes, "pads": [top, left, bottom, right]}


@writes(nn.BatchNorm)
def _batch_norm(graph: Graph, layer: nn.BatchNorm, x: str) -> str:
    words = map(graph.weight, ("gamma", "beta", "mean", "variance"))
    return graph.node("BatchNormalization", x, *words, epsilon=layer.epsilon)


@writes(nn.LayerNorm)
def _layer_norm(graph: Graph, layer: nn.LayerNorm, x: str) -> str:
    if len(graph.shape) == 1 and graph.opset >= 17:
        given = {"axis": -1, "epsilon": layer.epsilon}
        return graph.node("LayerNormalization", x, graph.weight("gamma"), graph.weight("beta"), **given)
    # Over the channels of an image, which come first in the graph: written out, it needs no Transpose.
    centred = graph.node("Sub", x, _mean(graph, x))
    variance = _mean(graph, graph.node("Mul", centred, centred))
    root = graph.node("Sqrt", graph.node("Add", variance, graph.number(layer.epsilon)))
    scaled = graph.node("Mul", graph.node("Div", centred, root), graph.per_channel("gamma"))
    return graph.node("Add", scaled, graph.per_channel("beta"))


def _mean(graph: Graph, x: str) -> str:
    """Write the mean over the channels; from opset 18 on, axes are an input, no attribute."""
    if graph.opset >= 18:
        return graph.node("ReduceMean", x, graph.constant("axes", [1], np.int64), keepdims=1)
    return graph.node("ReduceMean", x, axes=[1], keepdims=1)


@writes(Equation)
def _equation(graph: Graph, layer: Equation, x: str) -> str:
    names = list(layer.parameters or {})
    return write_equation(graph, layer.equation, x, {name: graph.per_channel(name) for name in names})


@writes(nn.Chain)
def _chain(graph: Graph, layer: nn.Chain, x: str) -> str:
    return write_layers(graph, layer.layers, x, graph.shape)[0]


@writes(nn.Residual)
def _residual(graph: Graph, layer: nn.Residual, x: str) -> str:
    shape = graph.shape
    ends = [write_layers(graph, branch, x, shape)[0] for branch in layer.branches]
    graph.begin(layer.name, layer, shape)
    return graph.node("Add", *ends, *([x] if len(ends) == 1 else []))


@writes(nn.Concatenate)
def _concatenate(graph: Graph, layer: nn.Concatenate, x: str) -> str:
    shape = graph.shape
    ends = [write_layers(graph, branch, x, shape)[0] for branch in layer.branches]
    graph.begin(layer.name, layer, shape)
    return graph.node("Concat", *ends, axis=1)
