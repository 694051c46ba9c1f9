"""Neural networks trained straight from their equations, on CUDA through CuPy and on CPUs through NumPy."""

__version__ = "0.1.0"
