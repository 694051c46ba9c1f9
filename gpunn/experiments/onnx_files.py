"""Export the network of a run as an ONNX file, and import such files as model files."""

from gpunn.backend.limits import size
from gpunn.experiments.start import model_file
from gpunn.files import as_path
from gpunn.sequential import load_model


def export_run(run: str, file: str, opset: int, layout: str, *, raw: bool, logits: bool) -> str:
    """Export the network of a run or a model file; return a line about the file."""
    target = as_path(file)
    load_model(model_file(run), "cpu").export_onnx(target, opset=opset, layout=layout, raw=raw, logits=logits)
    return f"{target}  {size(target.stat().st_size)}, opset {opset}; its answers are those of the network"
