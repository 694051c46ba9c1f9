"""Start from a pretrained network: the section `[start]` of an experiment, and the copying of its layers."""

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from gpunn.config import to_config
from gpunn.config.scalars import positive_whole
from gpunn.errors import ModelFileError, OptionError
from gpunn.experiments.folder import model_file
from gpunn.files import open_regular
from gpunn.nn.layers import Layer
from gpunn.sequential import Sequential, load_model


@dataclass(frozen=True)
class StartPart:
    """Settings under `[start]`: the pretrained network of a run; see `docs/fine-tuning.md`.

    Attributes:
        network: Path of a run folder, a model file or a checkpoint.
        layers: Number of first layers to take from it; 0 before the data have decided.
        trainable: Whether these layers learn after the epochs of `training.freeze`.
        sha256: Hash of the model file; "" before it was read.
    """

    network: str = ""
    layers: int = 0
    trainable: bool = True
    sha256: str = ""

    def __post_init__(self) -> None:
        if not self.network:
            raise OptionError("network of [start] must name a run folder, a model file or a checkpoint, got ''")
        positive_whole(self.layers, "layers of [start]", least=0)

    def read(self) -> tuple[Sequential, Self]:
        """Load the network; return it and this section with path and hash; refuse a network with another hash."""
        path = model_file(self.network)
        try:
            with open_regular(path) as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ModelFileError(f"{path} cannot be read ({error.strerror or error}): check the path") from None
        if self.sha256 and sha256 != self.sha256:
            mend = "begin anew with it by --from, or put the old one back"
            raise ModelFileError(f"{path} is not the network that this experiment began with: {mend}")
        return load_model(path, "cpu"), replace(self, network=str(path.absolute()), sha256=sha256)

    def model(self, layers: Sequence[Layer], *, begins: bool) -> Sequential:
        """Make a network of `layers`; with `begins`, the first ones take the weights of the pretrained network."""
        made = list(layers)
        if self.layers > len(made):
            raise OptionError(f"layers of [start] must be at most the {len(made)} that there are, got {self.layers}")
        if begins:
            network = self.read()[0]
            for number, layer in enumerate(made[: self.layers]):
                other = network.layers[number] if number < len(network.layers) else None
                if other is None or _table(layer) != _table(other):
                    wrong = f"layer {number + 1} is {layer!r}, and {other!r} in {self.network}"
                    raise OptionError(f"{wrong}: layers of [start] must be those that both have alike")
                made[number] = copy.copy(other)
                made[number].trainable = layer.trainable
        model = Sequential(made)
        model.inherited = frozenset(range(self.layers))
        return model


def _table(layer: Layer) -> dict[str, Any]:
    """Describe a layer without its initial weights and `trainable`."""
    return {key: value for key, value in to_config(layer).items() if key not in ("weights", "trainable")}
