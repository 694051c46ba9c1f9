"""Activations and losses from their equations: text → tree → derivative → CUDA source and NumPy body."""

from gpunn.nn.equations import activation, loss  # which enter the registry

__all__ = ["activation", "loss"]
