"""Compile activations and losses from their equations: text → tree → derivative → CUDA source and NumPy body."""

from gpunn.nn.equations import activation, loss  # imported to register both parts

__all__ = ["activation", "loss"]
