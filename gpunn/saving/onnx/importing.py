"""Import an ONNX file: restore the network that gpunn exported, or make layers that compute the same."""

import os
from collections.abc import Collection, Sequence
from contextlib import suppress
from math import prod
from typing import TypeVar

from gpunn.backend.base import Backend, Shape
from gpunn.backend.devices import select
from gpunn.config import custom_classes
from gpunn.config.scalars import positive_whole
from gpunn.errors import GpunnError, MemoryShortageError, ModelFileError
from gpunn.files import as_path
from gpunn.nn.arguments import as_shape
from gpunn.nn.layers.chain import MOST_LAYERS
from gpunn.nn.network import Network
from gpunn.saving.model_file import MOST_INPUTS, read_description, restore_network
from gpunn.saving.onnx.export import LAYOUTS, graph_of
from gpunn.saving.onnx.folding import fold
from gpunn.saving.onnx.graph_reader import GraphReader
from gpunn.saving.onnx.parsing import OnnxFile, Operator, RefusedError, read_file
from gpunn.saving.onnx.preparation import Preparation
from gpunn.saving.onnx.reader_state import ReaderState

Model = TypeVar("Model", bound=Network)

_FLOATS = {1: "float32", 11: "float64"}
_TOKENS = ("int32", "int64")
_FEW = (1, 3, 4)  # usual numbers of channels


def load(
    kind: type[Model],
    path: str | os.PathLike[str],
    device: str,
    batch_size: int,
    input_shape: Sequence[int] | None,
    custom: Collection[type],
) -> Model:
    """Read an ONNX file as a network of class `kind`; see `gpunn.load_onnx`."""
    backend, batch_size, path = select(device), positive_whole(batch_size, "batch size"), as_path(path)
    wanted = None if input_shape is None else as_shape(input_shape)
    file = read_file(path)
    try:
        with custom_classes(custom):
            return network_of(kind, file, backend, batch_size, wanted)
    except MemoryShortageError:
        raise
    except MemoryError as error:
        raise MemoryShortageError(f"{path}: memory ran out ({error}): take a smaller batch_size") from error
    except GpunnError as error:
        raise ModelFileError(f"{path}: {error}") from None
    except (LookupError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise ModelFileError(f"{path} is damaged: its nodes do not fit their operators ({error})") from None


def network_of(
    kind: type[Model], file: OnnxFile, backend: Backend, batch_size: int, input_shape: Shape | None = None
) -> Model:
    """Make a network from a parsed file."""
    if "gpunn" in file.metadata and input_shape is None:
        # If the description cannot be loaded, or is not of this graph, the graph decides.
        with suppress(GpunnError, KeyError, TypeError, ValueError, ArithmeticError, RecursionError):
            model = _restore_described(kind, file, backend, batch_size)
            if model is not None:
                return model
    state, begin = _input_of(file, input_shape)
    reader = GraphReader(file, fold(file))
    if len(file.outputs) != 1:
        raise RefusedError(f"it has {len(file.outputs)} outputs, a network here has one: export it with one")
    nodes = reader.needed(file.outputs[0])
    begin, scale = _skip_scaling(file, nodes, begin)
    _assume_channels_last(state, nodes, begin, is_given=input_shape is not None)
    shape = state.shape
    GraphReader(file, nodes).layers(state, begin, file.outputs[0])
    has_tokens = bool(state.layers) and state.layers[0].tokens > 0
    if has_tokens != (file.kinds[next(iter(file.kinds))] in _TOKENS):
        raise RefusedError("its inputs must be integers if it begins with an embedding, and floats otherwise")
    if state.flat is not None:
        raise RefusedError("its outputs are images flattened with channels last, in gpunn channels come first")
    if state.is_row:
        raise RefusedError("its outputs are (length, features), gpunn has these as images of height 1")
    if not 0 < len(state.layers) <= MOST_LAYERS:
        raise RefusedError(f"it has {len(state.layers)} layers, gpunn reads 1 to {MOST_LAYERS:,}")
    model = kind(state.layers)
    model.build(shape, batch_size, backend, state.dtype)
    model.input_scale = scale
    return model


def _input_of(file: OnnxFile, input_shape: Shape | None) -> tuple[ReaderState, str]:
    """Return the state at the input of the graph, and the name of that input."""
    if len(file.shapes) != 1:
        names = ", ".join(file.shapes) or "none"
        raise RefusedError(f"it has the inputs {names:.80}, a network here has one: export it with the weights inside")
    ((name, axes),) = file.shapes.items()
    if (kind := file.kinds[name]) not in ("float32", "float64", "uint8", *_TOKENS):
        raise RefusedError(f"the input {name!r:.60} is {kind}: gpunn takes float32, float64 or uint8")
    got = ", ".join(map(str, axes))
    if len(axes) not in (2, 4):
        raise RefusedError(f"the input {name!r:.60} is ({got:.60}): expected (batch, features) or images of 4 axes")
    sizes = axes[1:]
    if input_shape is not None:
        sizes = input_shape if len(input_shape) == 1 else (input_shape[2], *input_shape[:2])
        if len(sizes) != len(axes) - 1:
            raise RefusedError(f"input_shape {input_shape} must have {len(axes) - 1} sizes, as the inputs of the file")
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        mend = "say how large samples are, input_shape=(height, width, channels)"
        raise RefusedError(f"the input {name!r:.60} has no fixed size, ({got:.60}): {mend}")
    whole = [size for size in sizes if isinstance(size, int)]
    if prod(whole) > max(MOST_INPUTS, sum(array.size for array in file.constants.values())):
        raise RefusedError(f"a sample of {whole!s:.60} does not fit the numbers of the file")
    shape = (whole[0],) if len(whole) == 1 else (whole[1], whole[2], whole[0])
    return ReaderState(shape, "float64" if kind == "float64" else "float32"), name


def _skip_scaling(file: OnnxFile, nodes: list[Operator], x: str) -> tuple[str, float]:
    """Skip the nodes that turn bytes into floats; return the name of their output, and the factor of bytes."""
    kind = file.kinds[x]
    while len(users := [node for node in nodes if x in node.inputs]) == 1 and users[0].kind == "Cast":
        to = users[0].take("to", 1)
        users[0].attributes.pop("saturate", None)
        if to not in _FLOATS and not (kind in _TOKENS and to in (6, 7)):
            raise users[0].refusal(f"to = {to}", "expected float32")
        x = users[0].outputs[0]
    if kind != "uint8":
        return x, 1.0
    if x in file.kinds:
        raise RefusedError(f"the input {x!r:.60} is uint8, and no node converts it to floats")
    if len(users) == 1 and users[0].kind in ("Mul", "Div"):
        others = [file.constants[name] for name in users[0].inputs if name in file.constants]
        if len(others) == 1 and others[0].size == 1 and not (users[0].kind == "Div" and users[0].inputs[0] != x):
            factor = float(others[0].reshape(-1)[0])
            factor = factor if users[0].kind == "Mul" else 1 / factor if factor else 0.0
            if 0 < factor < float("inf"):
                return users[0].outputs[0], factor
    return x, 1.0


def _assume_channels_last(state: ReaderState, nodes: list[Operator], x: str, *, is_given: bool) -> None:
    """Assume images (height, width, channels) if the file transposes them first, or flattens them with few channels."""
    users = [node for node in nodes if x in node.inputs and node.kind != "Shape"]
    if len(state.shape) != 3 or len(users) != 1:
        return
    height, width, channels = state.shape[2], state.shape[0], state.shape[1]  # if channels come last
    is_turned = users[0].kind == "Transpose" and users[0].attributes.get("perm") == [0, 3, 1, 2]
    goes_flat = users[0].kind in ("Flatten", "Reshape") and any(node.kind in ("Gemm", "MatMul") for node in nodes)
    goes_flat &= channels in _FEW and height not in _FEW
    if is_turned or goes_flat:
        state.channels_last = True
        if not is_given:
            state.shape = height, width, channels


def _restore_described(kind: type[Model], file: OnnxFile, backend: Backend, batch_size: int) -> Model | None:
    """Return the network described in a file of gpunn; None if its graph is of another network."""
    description = read_description(file.metadata)
    description["dtype"] = "float32"
    arrays = {
        name: values.reshape(-1) if values.ndim == 3 and values.shape[1:] == (1, 1) else values
        for name, values in file.constants.items()
        if "." in name and "/" not in name
    }
    layout, (output,), (given,) = file.metadata.get("layout", ""), file.outputs, file.kinds.values()
    if layout not in LAYOUTS:
        return None
    model = restore_network(kind, description, arrays, batch_size, backend)
    preparation = Preparation(model, raw=given != "float32")
    made = graph_of(model, preparation, file.opset, layout, logits=output == "logits").graph
    same = made.SerializeToString(deterministic=True) == file.graph.SerializeToString(deterministic=True)
    return model if same else None
