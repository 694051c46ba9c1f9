"""Run the program `gpunn` by `python -m gpunn`."""

from gpunn.cli import main

if __name__ == "__main__":
    main()
