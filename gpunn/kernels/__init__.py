"""Every operation of gpunn as a record: its CUDA source and its NumPy twin, side by side."""

from gpunn.kernels import (
    activations,
    augmentation,
    bias,
    convolution,
    dropout,
    fused,
    gather,
    losses,
    normalization,
    pooling,
    random,
    rollback,
    updates,
)
from gpunn.kernels.record import Array, Elementwise, Launch, Raw, registry

__all__ = [
    "Array",
    "Elementwise",
    "Launch",
    "Raw",
    "activations",
    "augmentation",
    "bias",
    "convolution",
    "dropout",
    "fused",
    "gather",
    "losses",
    "normalization",
    "pooling",
    "random",
    "registry",
    "rollback",
    "updates",
]
