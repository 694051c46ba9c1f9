"""Run the program `gpunn`; each command is a thin function that imports its own needs."""

from typing import NoReturn


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the program; imports wait until here, since `import gpunn` imports this package first."""
    from gpunn.cli.program import main as run

    run(arguments)
