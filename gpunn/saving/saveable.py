"""Add the methods that save a network: `save`, `state_dict` and `export_onnx`."""

from collections.abc import Sequence

from gpunn.files import StrPath
from gpunn.nn.locking import explains_shortage, locked
from gpunn.nn.network import Network
from gpunn.nn.parameter import Arrays
from gpunn.saving.model_file import save_model
from gpunn.saving.onnx import OPSET, require_onnx
from gpunn.saving.state_dict import state_dict


class SaveableNetwork(Network):
    """Save a network as a model file, as a state dict of PyTorch, or as ONNX."""

    @locked
    def save(self, path: StrPath) -> None:
        """Write architecture and weights to one safetensors file."""
        save_model(self, path)

    @locked
    def state_dict(self, names: Sequence[str] | None = None) -> Arrays:
        """Return copies of weights and statistics with the names and shapes of PyTorch's modules.

        The names are those of `torch.nn.Sequential` with the same layers: "0.weight", "1.running_mean". Nested layers
        have dotted names, "2.0.weight", and a Residual's projection is "2.projection.weight". See docs/coming-from.md.

        Args:
            names: Module names to use instead of numbers, one for each layer with weights, such as ["conv1", "fc"].

        Raises:
            GpunnError: The network is not built.
            OptionError: The number of names differs from the number of layers with weights.
        """
        return state_dict(self, names)

    @explains_shortage
    def export_onnx(
        self, path: StrPath, *, opset: int = OPSET, layout: str = "NHWC", raw: bool = False, logits: bool = False
    ) -> None:
        """Write the network as an ONNX file for other runtimes; needs the extra `onnx`.

        The graph computes `predict_proba` for batches of any size. Its metadata say which preparation of the inputs it
        includes and which is left to you. Before the file is saved, `onnx.reference` runs the graph, and its outputs
        are compared with the network's. See docs/onnx.md.

        Args:
            path: Path of the file, such as "model.onnx".
            opset: Version of the operators, 13 to 28; runtimes of 2023 and later read 18.
            layout: Axes of input images: "NHWC", (batch, height, width, channels) as in gpunn, which adds a Transpose
                to the graph, or "NCHW".
            raw: Whether the graph takes unscaled inputs: bytes of images, or the columns of a table.
            logits: Whether to leave out the last Softmax or Sigmoid.

        Raises:
            OptionError: A layer has no form in ONNX, an argument is invalid, or the extra is missing.
            GpunnError: The network is not built, or the outputs of the graph differ from the network's.
            OutputError: The file cannot be written, or would be larger than 2 GB.
        """
        require_onnx()
        from gpunn.saving.onnx.export import export

        export(self, path, opset, layout, raw, logits)
