"""ONNX files run by onnxruntime, beside the networks that they were made of."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

import gpunn as gn


def run(path: Path | bytes, *batches: NDArray[Any]) -> NDArray[Any]:
    """What onnxruntime answers to some batches."""
    session = _session(path)
    return np.concatenate([session.run(None, {"input": x})[0] for x in batches])


def outputs_of(path: Path | bytes, x: NDArray[Any]) -> list[NDArray[Any]]:
    """All outputs of a graph for a batch: the answers, and those of the layers that it was told to give."""
    return _session(path).run(None, {"input": x})


def _session(path: Path | bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    source = path if isinstance(path, bytes) else str(path)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def coloured(count: int) -> gn.Data:
    """Images of the size of CIFAR-10's."""
    images = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8)
    return gn.Data("coloured", gn.Samples(images, np.arange(count) % 10, scale=1 / 255), None, tuple("0123456789"))


def exported(model: gn.Sequential, folder: Path, **options: Any) -> Path:
    path = folder / "model.onnx"
    model.export_onnx(path, **options)
    return path


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def metadata(path: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def compare(model: gn.Sequential, path: Path, x: NDArray[Any], most: float = 1e-5) -> None:
    """Every answer within `most`, the largest at the same place; the first in batches of 1 and 7, all in 300."""
    wanted = model.predict_proba(x)
    largest = max(1.0, np.abs(wanted).max())
    for size, count in ((1, 20), (7, 70), (300, len(x))):
        answers = run(path, *(x[at : at + size] for at in range(0, min(len(x), count), size)))
        some = wanted[: len(answers)]
        assert answers.shape == some.shape
        assert np.abs(answers - some).max() <= most * largest
        if some.ndim == 2:
            assert (answers.argmax(axis=1) == some.argmax(axis=1)).all()


def graph(
    nodes: list[Any],
    shape: Any = ("batch", 4),
    weights: dict[str, Any] | None = None,
    *,
    opset: int = 18,
    kind: int = onnx.TensorProto.FLOAT,
    output: str = "output",
) -> bytes:
    """An ONNX file of nodes, from "input" to an output."""
    tensors = [numpy_helper.from_array(np.asarray(values), name) for name, values in (weights or {}).items()]
    ends = helper.make_tensor_value_info("input", kind, shape), helper.make_tensor_value_info(output, 1, None)
    made = helper.make_graph(nodes, "g", [ends[0]], [ends[1]], tensors)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8).SerializeToString()


node = helper.make_node
