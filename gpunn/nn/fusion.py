"""From layers to what runs: the stages of a network, in the order and the grouping that is quickest."""

from __future__ import annotations

from collections.abc import Sequence

from gpunn.nn.layers import Activation, Layer


def arranged(stages: Sequence[Layer]) -> list[Layer]:
    """The stages as they run: max pooling before the bias and activation that it follows, and these two as one.

    Neither changes which of two values is the larger, so the result is the same to the last bit, on a quarter of the
    elements.
    """
    ordered: list[Layer] = []
    for stage in stages:
        at = len(ordered)
        while stage.picks_largest and at and ordered[at - 1].increases:
            at -= 1
        ordered.insert(at, stage)
    fused: list[Layer] = []
    for stage in ordered:
        both = fused[-1].fused_with(stage) if fused else None
        fused[len(fused) - (both is not None) :] = [both or stage]
    return fused


def activation_after(layers: Sequence[Layer]) -> Activation | None:
    """The activation function that a layer with weights feeds, which decides how its weights begin."""
    for layer in layers:
        if isinstance(layer, Activation):
            return layer
        if layer.has_weights:
            return None
    return None
