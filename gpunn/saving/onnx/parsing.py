"""Parse an ONNX file into plain operators and arrays; no other file is opened, and nothing executed."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, ValueInfoProto

from gpunn.backend.limits import require
from gpunn.errors import DataError, ModelFileError
from gpunn.files import open_regular
from gpunn.saving.onnx.bounds import MOST_BYTES, check_size

OPSETS = range(6, 29)  # for import
MOST_NODES = 2000
_TYPES = {
    TensorProto.FLOAT: "float32", TensorProto.DOUBLE: "float64", TensorProto.INT32: "int32",
    TensorProto.INT64: "int64", TensorProto.UINT8: "uint8", TensorProto.BOOL: "bool", TensorProto.INT8: "int8",
}  # fmt: skip
_FIELDS = {"float32": "float_data", "float64": "double_data", "int64": "int64_data"}  # others: int32_data


class RefusedError(ModelFileError):
    """A file or a node without equivalent among gpunn's layers."""


@dataclass
class Operator:
    """Node of a graph; readers take its attributes one by one, and `finish` refuses those left."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    opset: int

    def take(self, attribute: str, default: Any = None) -> Any:
        """Remove and return an attribute, or the default; refuse one of another type."""
        value = self.attributes.pop(attribute, default)
        kind = list if isinstance(default, list | tuple) else type(default)
        if default is not None and not isinstance(value, (kind, tuple) if kind is list else kind):
            raise self.refusal(f"{attribute} = {value!r:.40}", f"expected {_WORDS.get(kind, kind.__name__)}")
        return value

    def refusal(self, what: str, why: str) -> RefusedError:
        """Return an error that names this node, what is refused, and why."""
        return RefusedError(f"node {self.name!r:.60}, operator {self.kind:.40}: {what}: {why}")

    def finish(self) -> None:
        """Refuse attributes that no reader has taken."""
        for attribute, value in self.attributes.items():
            raise self.refusal(f"{attribute} = {value!r:.40}", "gpunn does not know this attribute")


_WORDS = {int: "a whole number", float: "a number", list: "a list", str: "a text"}


@dataclass
class OnnxFile:
    """Contents of an ONNX file.

    Attributes:
        operators: Nodes of the graph in order, without constants.
        constants: Arrays by name.
        shapes: Shape of each input that is not a constant; a size is a number, a name, or "" if unknown.
        kinds: Dtype of each of these inputs.
        outputs: Names of the outputs.
        metadata: Texts by name.
        opset: Version of the operators.
        graph: Graph as the library parsed it.
    """

    operators: list[Operator]
    constants: dict[str, NDArray[Any]]
    shapes: dict[str, tuple[int | str, ...]]
    kinds: dict[str, str]
    outputs: list[str]
    metadata: dict[str, str]
    opset: int
    graph: GraphProto = field(repr=False)


def read_file(path: Path) -> OnnxFile:
    """Read a file; raise ModelFileError with the reason if that fails."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MOST_BYTES:
                raise RefusedError(f"it has {size:,} bytes, an ONNX file has at most {MOST_BYTES:,}")
            require(3 * size, str(path))
            content = file.read()
        return read_content(content)
    except RefusedError as error:
        raise RefusedError(f"{path}: {error}") from None
    except OSError as error:
        raise ModelFileError(
            f"there is no ONNX file {path} ({error.strerror or error}): give the path of one"
        ) from None


def read_content(content: bytes) -> OnnxFile:
    """Parse the content of a file."""
    try:
        check_size(content)
        model = ModelProto.FromString(content)
    except (DataError, DecodeError) as error:
        reason = str(error) if isinstance(error, DataError) else "it is damaged, or no ONNX file"
        raise RefusedError(f"is no ONNX file: {reason}") from None
    return read_model(model)


def read_model(model: ModelProto, values: Mapping[str, NDArray[Any]] | None = None) -> OnnxFile:
    """Convert a model of the library; `values` makes constants of some inputs of the graph."""
    versions = {text_of(entry.domain): entry.version for entry in model.opset_import}
    opset = versions.get("", versions.get("ai.onnx", 0))
    if not model.HasField("graph") or opset not in OPSETS:
        known = f"{OPSETS[0]} to {OPSETS[-1]}"
        raise RefusedError(f"it has opset {opset or 'none'}, gpunn reads {known}: export it again with opset 18")
    if model.functions or model.training_info:
        raise RefusedError("it has functions or a training of its own: export the network alone, for inference")
    graph = model.graph
    if len(graph.node) > MOST_NODES:
        raise RefusedError(f"it has {len(graph.node):,} nodes, gpunn reads at most {MOST_NODES:,}")
    if graph.sparse_initializer:
        raise RefusedError("it has sparse weights: export them as dense ones")
    constants = {text_of(tensor.name): array_of(tensor) for tensor in graph.initializer}
    constants.update(values or {})
    operators = []
    for number, node in enumerate(graph.node):
        given, outputs = (tuple(map(text_of, names)) for names in (node.input, node.output))
        kind, domain = text_of(node.op_type), text_of(node.domain)
        name = text_of(node.name) or next(filter(None, outputs), f"number {number + 1}")
        if not outputs or not outputs[0]:
            raise RefusedError(f"node {name!r:.60}, operator {kind:.40}: it has no output")
        if domain not in ("", "ai.onnx"):
            mend = "gpunn knows the operators of ONNX itself alone"
            raise RefusedError(f"node {name!r:.60}, operator {kind:.40}: domain = {domain!r:.40}: {mend}")
        attributes = {text_of(entry.name): _value_of(entry, name, kind) for entry in node.attribute}
        made = Operator(name, kind, given, outputs, attributes, opset)
        if made.kind == "Constant":
            constants[outputs[0]] = _constant(made)
        else:
            operators.append(made)
    shapes, kinds = {}, {}
    for entry in graph.input:
        if (name := text_of(entry.name)) not in constants:
            shapes[name], kinds[name] = _shape_of(entry)
    metadata = {text_of(entry.key): text_of(entry.value) for entry in model.metadata_props}
    ends = [text_of(entry.name) for entry in graph.output]
    return OnnxFile(operators, constants, shapes, kinds, ends, metadata, opset, graph)


def text_of(value: str | bytes) -> str:
    """Return a text of the file, which protobuf gives as bytes if it is not UTF-8."""
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def array_of(tensor: TensorProto) -> NDArray[Any]:
    """Return a tensor as an array; refuse one whose size does not match its shape."""
    name = f"tensor {text_of(tensor.name)!r:.60}"
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        raise RefusedError(f"{name} lies in another file, which is not opened: export it with the weights inside")
    dtype = _TYPES.get(tensor.data_type)
    if dtype is None:
        words = {number: word for word, number in TensorProto.DataType.items()}
        raise RefusedError(f"{name} has numbers of the type {words.get(tensor.data_type, '?')}: export it in float32")
    shape, wide = tuple(tensor.dims), np.dtype(dtype)
    if len(shape) > 8 or any(size < 0 for size in shape):
        raise RefusedError(f"{name} has the shape {shape!s:.60}")
    count = prod(shape)
    raw = tensor.raw_data
    given = len(raw) // wide.itemsize if raw else len(getattr(tensor, _FIELDS.get(dtype, "int32_data")))
    if count != given or (raw and len(raw) % wide.itemsize):
        raise RefusedError(f"{name} of {shape!s:.60} must have {count:,} numbers, got {given:,}")
    if raw:
        return np.frombuffer(raw, wide.newbyteorder("<")).astype(wide).reshape(shape)
    values = getattr(tensor, _FIELDS.get(dtype, "int32_data"))
    return np.array(values, "int64" if dtype not in _FIELDS else dtype).astype(wide).reshape(shape)


def _value_of(entry: AttributeProto, node: str, kind: str) -> Any:
    """Return the value of an attribute."""
    if entry.type == AttributeProto.TENSOR:
        return array_of(entry.t)
    if entry.type == AttributeProto.STRING:
        return entry.s.decode("utf-8", "replace")
    if entry.type == AttributeProto.FLOAT:
        return float(str(np.float32(entry.f)))  # 0.1, not 0.10000000149
    if entry.type == AttributeProto.INT:
        return int(entry.i)
    if entry.type == AttributeProto.FLOATS:
        return list(entry.floats)
    if entry.type == AttributeProto.INTS:
        return list(entry.ints)
    raise RefusedError(
        f"node {node!r:.60}, operator {kind:.40}: {text_of(entry.name):.40}: gpunn does not know such an attribute"
    )


def _constant(node: Operator) -> NDArray[Any]:
    """Return the array of a Constant."""
    for attribute, dtype in (("value", None), ("value_float", "float32"), ("value_floats", "float32"),
                             ("value_int", "int64"), ("value_ints", "int64")):  # fmt: skip
        if attribute in node.attributes:
            value = node.attributes[attribute]
            if isinstance(value, str):
                break
            return value if isinstance(value, np.ndarray) else np.array(value, dtype)
    raise node.refusal("its value", "gpunn knows numbers alone")


def _shape_of(entry: ValueInfoProto) -> tuple[tuple[int | str, ...], str]:
    """Return shape and dtype of an input."""
    kind = entry.type.tensor_type
    if not entry.type.HasField("tensor_type") or kind.elem_type not in _TYPES:
        words = {number: word for word, number in TensorProto.DataType.items()}
        got = words.get(kind.elem_type, "?") if entry.type.HasField("tensor_type") else "no tensor"
        raise RefusedError(f"the input {text_of(entry.name)!r:.60} is {got}: gpunn takes float32, float64 or uint8")
    sizes = [dim.dim_value if dim.HasField("dim_value") else text_of(dim.dim_param) for dim in kind.shape.dim]
    return tuple(sizes), _TYPES[kind.elem_type]
