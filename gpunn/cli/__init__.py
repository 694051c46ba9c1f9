"""The program `gpunn`: one thin function a command, which imports what it alone needs."""

from typing import NoReturn


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the program; the package imports this one first, so all else is imported only here."""
    from gpunn.cli.program import main as run

    run(arguments)
