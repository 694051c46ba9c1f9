"""Every operation of gpunn as a record: its CUDA source beside its NumPy body."""

# Each puts its records into the registry, and so do the modules that they import.
from gpunn.kernels import (  # noqa: F401
    activations,
    augmentation,
    bias_normalization,
    dropout,
    grouped,
    layer_normalization,
    losses,
    normalization,
    pooling,
    rollback,
    updates,
)
from gpunn.kernels.record import Array, Elementwise, Launch, Raw, registry

__all__ = ["Array", "Elementwise", "Launch", "Raw", "registry"]
