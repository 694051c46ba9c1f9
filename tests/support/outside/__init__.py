"""A package that is not part of gpunn, with one part of each kind in array code: what a user of gpunn would write."""

from .layers import Scale, Standardize, Swish
from .learning import Huber, Lion, Narrow, SmoothL1, Staircase

__all__ = ["Huber", "Lion", "Narrow", "Scale", "SmoothL1", "Staircase", "Standardize", "Swish"]
