"""A network that is written to files: its own, PyTorch's names, ONNX."""

from collections.abc import Sequence

from gpunn.files import StrPath
from gpunn.nn.network import Network, alone, explained
from gpunn.nn.parameter import Arrays
from gpunn.saving.model_file import save_model
from gpunn.saving.onnx import OPSET, require_onnx
from gpunn.saving.state_dict import state_dict


class SaveableNetwork(Network):
    """The methods of a network that write it."""

    @alone
    def save(self, path: StrPath) -> None:
        """Write architecture and weights to one safetensors file."""
        save_model(self, path)

    @alone
    def state_dict(self, names: Sequence[str] | None = None) -> Arrays:
        """Return copies of weights and statistics by the names and in the shapes of PyTorch's modules.

        They are those of `torch.nn.Sequential` with the same layers, "0.weight", "1.running_mean"; layers within layers
        have dotted places, "2.0.weight", and a Residual's projection "2.projection.weight". See docs/coming-from.md.

        Args:
            names: Names of the modules instead of the places, one for each layer with weights, such as ["conv1", "fc"].

        Raises:
            GpunnError: The network is not built.
            OptionError: Another number of names than there are layers with weights.
        """
        return state_dict(self, names)

    @explained
    def export_onnx(
        self, path: StrPath, *, opset: int = OPSET, layout: str = "NHWC", raw: bool = False, logits: bool = False
    ) -> None:
        """Write the network as an ONNX file, which other runtimes compute; needs the extra `onnx`.

        The file gives the answers of `predict_proba` to batches of any size, and says in its metadata what is done to
        inputs within it and what is to be done before. Before it gets its name it is run by `onnx.reference`, and its
        answers are compared with the network's. See docs/onnx.md.

        Args:
            path: Path of the file, such as "model.onnx".
            opset: Version of the operators, 13 to 28; 18 is read by runtimes of 2023 and later.
            layout: Axes of images that come in: "NHWC" as here, (batch, height, width, channels), by one transposition
                in the graph; or "NCHW" by none.
            raw: Whether the graph takes what comes before any scaling: bytes of images, or the columns of a table.
            logits: Whether the last Softmax or Sigmoid is left out.

        Raises:
            OptionError: A layer that has no form in ONNX, an argument that cannot be, or the extra is missing.
            GpunnError: The network is not built, or the graph gives other answers than the network.
            OutputError: The file cannot be written, or would be larger than 2 GB.
        """
        require_onnx()
        from gpunn.saving.onnx.export import export

        export(self, path, opset, layout, raw, logits)
