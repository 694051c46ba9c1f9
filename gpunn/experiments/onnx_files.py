"""Export the network of a run as an ONNX file, and import ONNX files as model files."""

from gpunn.backend.limits import size
from gpunn.errors import OptionError
from gpunn.experiments.folder import model_file
from gpunn.files import as_path, is_same_file
from gpunn.sequential import load_model, load_onnx


def export_run(run: str, file: str, opset: int, layout: str, *, raw: bool, logits: bool) -> str:
    """Export the network of a run or a model file; return a line about the file."""
    source, target = model_file(run), as_path(file)
    if is_same_file(source, target):
        raise OptionError(f"{target} would be written over: name another file, such as {target.with_suffix('.onnx')}")
    load_model(source, "cpu").export_onnx(target, opset=opset, layout=layout, raw=raw, logits=logits)
    return f"{target}  {size(target.stat().st_size)}, opset {opset}; its answers are those of the network"


def import_file(file: str, out: str | None) -> str:
    """Write the network of an ONNX file as a model file, by default beside it; return its summary."""
    source = as_path(file)
    target = source.with_suffix(".safetensors") if out is None else as_path(out)
    if is_same_file(source, target):
        raise OptionError(f"{target} would be written over: name another file for the network")
    if out is None and target.exists():  # perhaps a network that has been trained further
        raise OptionError(f"{target} is there already: name the file to write, gpunn import {file} NAME.safetensors")
    model = load_onnx(source, "cpu")
    model.save(target)
    return f"{model.summary()}\n\n{target}  {size(target.stat().st_size)}: gpunn evaluate {target} DATA"
