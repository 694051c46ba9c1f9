"""Every CUDA kernel executed without a GPU: a simulator of CUDA's threads, and stand-ins for CuPy and cuBLAS."""
