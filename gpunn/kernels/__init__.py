"""Collect every operation of gpunn as a record: CUDA source beside a NumPy body."""

# Each module registers its kernels when it is imported, and imports the others that hold some.
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
