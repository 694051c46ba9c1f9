"""Choose the layers that fine-tuning freezes at first."""

from gpunn.errors import OptionError
from gpunn.nn.network import Network


def frozen_at_first(model: Network) -> frozenset[int]:
    """Return the indices of layers for `fit(freeze=…)`: transferred ones, else all before the last with weights.

    Raises:
        OptionError: The network has no trained layers.
    """
    weighted = [number for number, layer in enumerate(model.layers) if layer.has_weights]
    if not weighted or not (model.inherited or model.steps_trained or model.loss):
        mend = "take layers from a trained network, Sequential([*trained.layers[:-1], Dense(5)]), or leave freeze out"
        raise OptionError(f"freeze needs trained layers, and this network has none: {mend}")
    return model.inherited if set(weighted) - model.inherited and model.inherited else frozenset(range(weighted[-1]))
