"""What kernels must not do, looked for in every kernel as CuPy generates it, under random orders of its threads."""
