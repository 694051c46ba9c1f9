"""Every operation of gpunn as a record: its CUDA source beside its NumPy body."""

from gpunn.kernels import (  # noqa: F401 - each puts its records into the registry
    activations,
    augmentation,
    bias,
    convolution,
    dropout,
    gather,
    losses,
    normalization,
    pooling,
    random,
    rollback,
    updates,
)
from gpunn.kernels.record import Array, Elementwise, Launch, Raw, registry

__all__ = ["Array", "Elementwise", "Launch", "Raw", "registry"]
