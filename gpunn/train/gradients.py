"""Look at a network in training through some of its training samples, which leaves the training as it is."""

from copy import copy, deepcopy

import numpy as np

from gpunn.data import Samples
from gpunn.nn.losses import Loss
from gpunn.nn.network import Network
from gpunn.nn.parameter import Arrays


def evenly_spaced(samples: Samples, most: int) -> Samples:
    """Return at most so many samples, spread over all those that count."""
    counting = np.arange(len(samples)) if samples.weights is None else np.flatnonzero(samples.weights)
    return samples.subset(counting[np.linspace(0, len(counting) - 1, min(len(counting), most)).astype(np.int64)])


def gradients_of(model: Network, loss: Loss, samples: Samples) -> Arrays:
    """Compute ∂C₀/∂w of all parameters that learn, by name, by a copy of the network, for at most a full batch."""
    network, own = deepcopy(model), copy(loss)  # built anew, so that no update is folded into the backward pass
    y = network.forward(samples.inputs[:], training=True)
    own.forward(y, samples.targets, samples.weights)
    network.backward(own.backward())
    to_host = network.parameters.backend.to_host
    return {p.name: to_host(p.grad) for p in network.parameters if p.grad is not None}
