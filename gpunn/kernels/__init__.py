"""Every operation of gpunn as a record: its CUDA source and its NumPy twin, side by side."""

from gpunn.kernels import (
    activations,
    augmentation,
    batches,
    convolution,
    dropout,
    finite,
    fused,
    linear,
    losses,
    normalization,
    pooling,
    random,
    sgd,
)
from gpunn.kernels.kernel import Array, Elementwise, Launch, Raw, registry

__all__ = [
    "Array",
    "Elementwise",
    "Launch",
    "Raw",
    "activations",
    "augmentation",
    "batches",
    "convolution",
    "dropout",
    "finite",
    "fused",
    "linear",
    "losses",
    "normalization",
    "pooling",
    "random",
    "registry",
    "sgd",
]
