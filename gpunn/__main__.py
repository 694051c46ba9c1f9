"""`python -m gpunn` is `gpunn`."""

from gpunn.cli import main

if __name__ == "__main__":
    main()
