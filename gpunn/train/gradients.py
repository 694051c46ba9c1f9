"""Compute the gradients of a network on some of its training samples, without any effect on the training."""

from copy import copy, deepcopy

import numpy as np

from gpunn.data import Samples
from gpunn.nn.losses import Loss
from gpunn.nn.network import Network
from gpunn.nn.parameter import Arrays


def evenly_spaced(samples: Samples, most: int) -> Samples:
    """Return at most `most` samples, evenly spaced over those of positive weight."""
    counting = np.arange(len(samples)) if samples.weights is None else np.flatnonzero(samples.weights)
    return samples.subset(counting[np.linspace(0, len(counting) - 1, min(len(counting), most)).astype(np.int64)])


def gradients_of(model: Network, loss: Loss, samples: Samples) -> Arrays:
    """Compute ∂C₀/∂w of all trainable parameters, by name, with a copy of the network, on at most a full batch."""
    network, own = deepcopy(model), copy(loss)  # the copy has no update folded into its backward pass
    y = network.forward(samples.inputs[:], training=True)
    own.forward(y, samples.targets, samples.weights)
    network.backward(own.backward())
    to_host = network.parameters.backend.to_host
    return {p.name: to_host(p.grad) for p in network.parameters if p.grad is not None}
