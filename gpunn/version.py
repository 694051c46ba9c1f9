"""Hold the version of gpunn, which its files and its program name."""

__version__ = "0.1.0"
