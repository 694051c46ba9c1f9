"""Write a network as an ONNX file."""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, ValueInfoProto, defs, helper

from gpunn.config.scalars import flag, positive_whole
from gpunn.errors import OptionError, OutputError
from gpunn.files import StrPath, as_path, write_atomically
from gpunn.nn.layers import Layer, Sigmoid, Softmax
from gpunn.nn.network import Network
from gpunn.nn.tasks import Task
from gpunn.saving.model_file import describe
from gpunn.saving.onnx import OPSETS
from gpunn.saving.onnx.checking import check_answers, check_form
from gpunn.saving.onnx.graph import Graph
from gpunn.saving.onnx.layer_writers import write_layers
from gpunn.saving.onnx.preparation import INPUT, Preparation, check_raw
from gpunn.version import __version__

LAYOUTS = ("NHWC", "NCHW")
OUTPUT_OF = "output of {}"  # name of a layer's output among the graph's
_MOST_BYTES = 2**31 - 2**20  # limit of the format


def export(model: Network, path: StrPath, opset: int, layout: str, raw: bool, logits: bool) -> None:
    """Write a network as a checked ONNX file; see `Sequential.export_onnx`."""
    target = as_path(path)
    content = checked_graph(model, opset, layout, raw, logits).SerializeToString(deterministic=True)
    write_atomically(target, content)


def checked_graph(
    model: Network, opset: int, layout: str, raw: bool, logits: bool, watched: Sequence[str] = ()
) -> ModelProto:
    """Return a network as a checked ONNX model, with the outputs of `watched` layers too."""
    raw, logits, opset = flag(raw, "raw"), flag(logits, "logits"), positive_whole(opset, "opset")
    newest = min(OPSETS[-1], defs.onnx_opset_version())
    if not OPSETS[0] <= opset <= newest:
        raise OptionError(f"opset must be from {OPSETS[0]} to {newest}, got {opset}: 18 is read by the most runtimes")
    if not isinstance(layout, str) or layout not in LAYOUTS:
        raise OptionError(f"layout must be {' or '.join(LAYOUTS)}, got {layout!r:.40}")
    model._built()
    check_raw(model, raw)
    if (size := model.parameters.size * 4) > _MOST_BYTES:
        raise OutputError(f"an ONNX file holds at most {_MOST_BYTES:,} bytes, the network has {size:,}")
    preparation = Preparation(model, raw)
    made = graph_of(model, preparation, opset, layout, logits, watched)
    check_form(made)
    given, known = preparation.samples()
    wanted = expected_outputs(model, known, logits)
    if layout == "NCHW":
        given, wanted = (x.transpose(0, 3, 1, 2) if x.ndim == 4 else x for x in (given, wanted))
    check_answers(made, np.ascontiguousarray(given), wanted)
    return made


def graph_of(
    model: Network, preparation: Preparation, opset: int, layout: str, logits: bool, watched: Sequence[str] = ()
) -> ModelProto:
    """Return a network as an ONNX model; outputs of `watched` layers, channels last, follow its own."""
    graph, shape = Graph(model.arrays(), opset), tuple(model.input_shape)
    x = preparation.write(graph, INPUT, layout)
    x, shape = write_layers(graph, layers_of(model, logits), x, shape)
    name = "logits" if logits else output_name(model)
    if not logits:
        x = _write_link(graph, model, x)
    if len(shape) == 3 and layout == "NHWC":
        graph.begin("channels_last")
        x = graph.node("Transpose", x, perm=[0, 2, 3, 1])
    seen = [_name_output(graph, layer) for layer in watched]  # before `finish` renames an output
    graph.finish(x, name)
    sides = [preparation.shape, shape]
    if layout == "NCHW":
        sides = [(s[2], s[0], s[1]) if len(s) == 3 else s for s in sides]
    inputs = helper.make_tensor_value_info(INPUT, preparation.kind, ["batch", *sides[0]])
    outputs = helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *sides[1]])
    whole = helper.make_graph(graph.nodes, "network", [inputs], [outputs, *seen], list(graph.initializers.values()))
    version = helper.make_opsetid("", opset)
    made = helper.make_model(
        whole,
        opset_imports=[version],
        ir_version=helper.find_min_ir_version_for([version]),
        producer_name="gpunn",
        producer_version=__version__,
    )
    helper.set_model_props(made, {**preparation.metadata(), **_metadata(model, layout, name)})
    return made


def _name_output(graph: Graph, layer: str) -> ValueInfoProto:
    """Write a node that makes a layer's output one of the graph's; return its description."""
    x, shape = graph.outputs[layer]
    graph.begin(name := OUTPUT_OF.format(layer))
    graph.node("Identity", x) if len(shape) == 1 else graph.node("Transpose", x, perm=[0, 2, 3, 1])
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])


def layers_of(model: Network, logits: bool) -> list[Layer]:
    """Return the layers to write; for `logits`, without the last Softmax or Sigmoid."""
    if not logits:
        return model.layers
    link = None if model.loss is None else model.loss.link
    flat = list(_in_chains(model.layers))
    if isinstance(model.last_layer, link or Softmax | Sigmoid) and len(flat) > 1:
        return flat[:-1]
    if link is None:
        raise OptionError("logits come before probabilities, and the network gives none: leave logits out")
    return flat


def _in_chains(layers: Sequence[Layer]) -> Iterator[Layer]:
    """Yield the layers in order, chains replaced by their layers."""
    for layer in layers:
        if layer.is_chain:
            yield from _in_chains(layer.branches[0])
        else:
            yield layer


def expected_outputs(model: Network, x: Any, logits: bool) -> Any:
    """Return `predict_proba` of a network, or its logits."""
    if not logits:
        return model.predict_proba(x)
    before = Network(layers_of(model, logits))  # copies of the layers with their weights
    before.trained_on, before.input_scale = model.trained_on, model.input_scale
    before.build(model.input_shape, model.batch_size, "cpu", model.dtype)
    return before.predict_proba(x)


def output_name(model: Network) -> str:
    """Return the name of the graph's output, "probabilities" or "outputs"."""
    link = None if model.loss is None else model.loss.link
    gives = link is not None or model.last_layer.gives_probability or isinstance(model.last_layer, Softmax)
    return "probabilities" if gives and model.task is not Task.REGRESSION else "outputs"


def _write_link(graph: Graph, model: Network, x: str) -> str:
    """Write the loss's link, and the scaling of outputs to the units of the targets, as `Network.linked` does."""
    link = None if model.loss is None else model.loss.link
    graph.begin("answers")
    if link is not None and not isinstance(model.last_layer, link):
        if link not in (Softmax, Sigmoid):
            mend = "export its logits"
            raise OptionError(f"{link.__name__}, the link of its loss, has no form in ONNX that is known here: {mend}")
        x = graph.node(link.__name__, x, **({"axis": 1} if link is Softmax else {}))
    columns = None if model.trained_on is None else model.trained_on.columns
    if columns is None or columns.classes or len(columns.target_means) != model.output_shape[0]:
        return x
    x = graph.node("Mul", x, graph.constant("deviations", columns.target_deviations))
    return graph.node("Add", x, graph.constant("means", columns.target_means))


def _metadata(model: Network, layout: str, name: str) -> dict[str, str]:
    """Describe a network for its users and for `load_onnx`."""
    described = {"layout": layout, "output": name}
    with suppress(OptionError):  # a layer of your own that no file can name: only its nodes are saved
        described["gpunn"] = json.dumps(describe(model))
    if model.task is not None:
        described["task"] = model.task.value
    if model.class_names:
        described["class_names"] = json.dumps(model.names_of_outputs, ensure_ascii=False)
    columns = None if model.trained_on is None else model.trained_on.columns
    if columns is not None and columns.targets:
        described["targets"] = json.dumps(columns.targets, ensure_ascii=False)
    return described
