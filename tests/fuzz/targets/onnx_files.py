"""ONNX files."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import gpunn as gn
from fuzz.harness import Target
from fuzz.targets.models import a_model, limited
from gpunn.saving.onnx.export import checked_graph

CONTENT, NODES, WORDS = b"\0", b"\1", b"\2"


@cache
def _exported() -> bytes:
    return bytes(checked_graph(a_model(), 18, "NHWC", False, False).SerializeToString(deterministic=True))


@cache
def _residual() -> bytes:
    layers = [gn.Residual([gn.Conv2D(2, padding="same"), gn.ReLU()]), gn.Concatenate([gn.Conv2D(1, 1)], [])]
    model = gn.Sequential([*layers, gn.GlobalAveragePool2D(), gn.Dense(2), gn.Softmax()])
    model.build((4, 5, 2), 4, "cpu", seed=1)
    return bytes(checked_graph(model, 18, "NCHW", False, True).SerializeToString(deterministic=True))


def foreign(*nodes: Any, shape: Any = ("n", 2, 5, 6), opset: int = 18, **arrays: Any) -> bytes:
    """A file without a description, of nodes from "x" to "y"."""
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape), helper.make_tensor_value_info("y", 1, None)]
    made = helper.make_graph(list(nodes), "g", ends[:1], ends[1:], tensors)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return bytes(model.SerializeToString())


def _convolutional() -> bytes:
    w, b, v = np.ones((3, 2, 3, 3), np.float32), np.ones((3, 1, 1), np.float32), np.ones((27, 2), np.float32)
    node = helper.make_node
    return foreign(
        node("Conv", ["x", "w"], ["a"], strides=[2, 2], pads=[1, 1, 1, 1]), node("Add", ["a", "b"], ["c"]),
        node("Sigmoid", ["c"], ["d"]), node("Mul", ["c", "d"], ["e"]), node("Relu", ["e"], ["f"]),
        node("Add", ["f", "e"], ["g"]), node("Reshape", ["g", "s"], ["h"]), node("MatMul", ["h", "v"], ["y"]),
        w=w, b=b, v=v, s=np.array([-1, 27]),
    )  # fmt: skip


def _without_description(content: bytes) -> bytes:
    model = onnx.ModelProto.FromString(content)
    del model.metadata_props[:]
    return bytes(model.SerializeToString())


def _in_graph(data: bytes) -> bytes:
    """A file whose graph is any bytes."""
    opset = b"\x42\x02\x10\x12"  # field 8: version 18
    return b"\x08\x08" + opset + b"\x3a" + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    made = b""
    while number > 127:
        made, number = made + bytes([number & 127 | 128]), number >> 7
    return made + bytes([number])


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _as_description(data: bytes) -> bytes:
    """An exported file whose description is any text."""
    model = onnx.ModelProto.FromString(_exported())
    for entry in model.metadata_props:
        if entry.key == "gpunn":
            entry.value = data.decode("utf-8", "replace")
    return bytes(model.SerializeToString())


def _seeds() -> dict[str, bytes]:
    model = onnx.ModelProto.FromString(_convolutional())
    described = onnx.ModelProto.FromString(_exported())
    text = next(entry.value for entry in described.metadata_props if entry.key == "gpunn")
    return {
        "of gpunn": CONTENT + _exported(),
        "residual": CONTENT + _without_description(_residual()),
        "convolutional": CONTENT + _convolutional(),
        "a graph": NODES + bytes(model.graph.SerializeToString()),
        "a description": WORDS + text.encode(),
    }


def _changed(change: Callable[[Any], object]) -> bytes:
    model = onnx.ModelProto.FromString(_convolutional())
    change(model.graph)
    return bytes(model.SerializeToString())


def _huge(*dims: int) -> Callable[[], bytes]:
    def change(graph: Any) -> None:
        graph.initializer[0].ClearField("raw_data")
        del graph.initializer[0].dims[:]
        graph.initializer[0].dims.extend(dims)

    return lambda: _changed(change)


def _sized(kind: str, shape: Any = ("n", 1, 512, 512), **attributes: Any) -> Callable[[], bytes]:
    return lambda: foreign(helper.make_node(kind, ["x", "w"][: 2 if "Conv" in kind else 1], ["y"], **attributes),
                           shape=shape, w=np.ones((1, 1, 1, 1), np.float32))  # fmt: skip


def _deep(levels: int) -> bytes:
    graph = b""
    for _ in range(levels):  # a graph in an attribute of a node of a graph
        graph = _field(1, _field(5, _field(6, graph)))
    return _in_graph(graph)


def _broadcast() -> bytes:
    nodes = [helper.make_node("Mul", ["a", "b"], ["c"]), helper.make_node("MatMul", ["x", "c"], ["y"])]
    return foreign(*nodes, shape=("n", 9), a=np.ones((200_000, 1), np.float32), b=np.ones((1, 200_000), np.float32))


def _squared(times: int) -> bytes:
    """Shapes that double by a Concat of a constant with itself."""
    nodes = [helper.make_node("Concat", [f"c{n}", f"c{n}"], [f"c{n + 1}"], axis=0) for n in range(times)]
    last = helper.make_node("Mul", ["x", f"c{times}"], ["y"])
    return foreign(*nodes, last, shape=("n", 9), c0=np.ones(1000, np.float32))


def _formula(length: int) -> bytes:
    """An activation that takes itself twice in each node."""
    nodes = [helper.make_node("Mul", [f"z{n}" if n else "x"] * 2, [f"z{n + 1}"]) for n in range(length)]
    nodes.append(helper.make_node("Relu", [f"z{length}"], ["y"]))
    return foreign(*nodes, shape=("n", 9))


TARGET = Target(
    name="onnx",
    read=limited(lambda path: gn.load_onnx(Path(path), "cpu")),
    seeds=_seeds,
    hostile={
        "a million nodes": lambda: _in_graph(_field(1, b"") * 1_000_000),
        "fifty thousand nodes": lambda: _in_graph(_field(1, b"") * 50_000),
        "a million constants": lambda: _in_graph(_field(5, b"") * 1_000_000),
        "a million attributes": lambda: _in_graph(_field(1, _field(5, b"") * 1_000_000)),
        "a million numbers of a byte": lambda: _in_graph(_field(5, _field(7, bytes(4_000_000)))),
        "a million texts": lambda: _in_graph(_field(1, _field(5, _field(9, b"") * 1_000_000))),
        "graphs in graphs": lambda: _deep(3),
        "a hundred graphs in graphs": lambda: _deep(100),
        "ten thousand graphs in graphs": lambda: _deep(10_000),
        "weights of sixteen gigabytes": _huge(65_536, 65_536),
        "weights beyond all numbers": _huge(2**40, 2**40),
        "weights below 0": _huge(-1, 4),
        "weights of nothing": _huge(0, 4),
        "a length beyond the file": lambda: b"\x3a\xff\xff\xff\xff\x0f",
        "a length beyond all numbers": lambda: b"\x3a" + b"\xff" * 12,
        "two numbers that make forty billion": _broadcast,
        "a constant that doubles thirty times": lambda: _squared(30),
        "a formula that doubles sixty times": lambda: _formula(60),
        "a formula of five nodes": lambda: _formula(5),
        "two thousand layers": lambda: foreign(*(
            helper.make_node("Relu", ["x" if not n else f"a{n}"], ["y" if n == 1999 else f"a{n + 1}"])
            for n in range(2000)
        )),
        "a window of a million": _sized("MaxPool", kernel_shape=[1_000_000, 1_000_000]),
        "a stride of a million": _sized("Conv", strides=[1_000_000, 1_000_000]),
        "padding of a million": _sized("Conv", pads=[1_000_000] * 4),
        "output of gigabytes": _sized("ConvTranspose", strides=[1000, 1000]),
        "samples of gigabytes": _sized("Conv", shape=("n", 1, 60_000, 60_000)),
        "samples beyond all numbers": _sized("Relu", shape=("n", 2**40, 2**40, 2**40)),
        "attributes beyond all numbers": _sized("Conv", group=2**62),
        "names for a terminal": lambda: foreign(helper.make_node("\x1b[31m\n", ["x"], ["y"], name="\x07" * 5000)),
        "a description of brackets": lambda: _as_description(b"[" * 100_000),
        "a description of a network of gigabytes": lambda: _as_description(
            b'{"format": 1, "dtype": "float32", "layers": [{"type": "Dense", "units": 65536}], "input_shape": [65536],'
            b' "loss": null, "class_names": [], "input_scale": 1.0}'
        ),
    },
    wraps=(bytes, _in_graph, _as_description),
    words=(b"Conv", b"Gemm", b"MatMul", b"Relu", b"Add", b"Concat", b"Reshape", b"Flatten", b"Gather", b"Transpose",
           b"pads", b"strides", b"group", b"axis", b"perm", b"kernel_shape", b"auto_pad", b"SAME_UPPER", b"transB",
           b"BatchNormalization", b"AveragePool", b"Softmax", b"\x0a\x01x", b"\x12\x01y", b"\x08\x01", b"\xa0\x01\x07"),
)  # fmt: skip
