"""From layers to what runs: the stages of a network, in the order and the grouping that is quickest."""

from __future__ import annotations

from collections.abc import Sequence

from gpunn.kernels.fused import with_bias
from gpunn.layers import Activation, Bias, BiasActivation, Conv2D, Dense, Layer, MaxPool2D


def arranged(stages: Sequence[Layer]) -> list[Layer]:
    """The stages as they run: max pooling before the bias and activation that it follows, and these two as one.

    Neither changes which of two values is the larger, so the result is the same to the last bit, on a quarter of the
    elements.
    """
    ordered: list[Layer] = []
    for stage in stages:
        at = len(ordered)
        if isinstance(stage, MaxPool2D):
            while at and (isinstance(s := ordered[at - 1], Bias) or (isinstance(s, Activation) and s.increases)):
                at -= 1
        ordered.insert(at, stage)
    fused: list[Layer] = []
    for stage in ordered:
        if (
            fused
            and isinstance(bias := fused[-1], Bias)
            and isinstance(stage, Activation)
            and stage.kernel in with_bias
        ):
            fused[-1] = BiasActivation(bias, stage)
        else:
            fused.append(stage)
    return fused


def activation_after(layers: Sequence[Layer]) -> Activation | None:
    """The activation function that a layer with weights feeds, which decides how its weights begin."""
    for layer in layers:
        if isinstance(layer, Activation):
            return layer
        if isinstance(layer, Dense | Conv2D):
            return None
    return None
