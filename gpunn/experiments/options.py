"""Options that several commands have."""

import re
import sys
from functools import partial

import click

from gpunn import outside
from gpunn.backend.limits import set_memory_limit
from gpunn.errors import OptionError


def note(line: str) -> None:
    """Show a line beside the answers of a command."""
    print(line, file=sys.stderr, flush=True)


def _set_memory_limit(context: click.Context, _parameter: click.Parameter, limit: str | None) -> None:
    if limit is not None:
        set_memory_limit(limit)
        context.call_on_close(lambda: set_memory_limit(None))


def image_size(_context: click.Context, _parameter: click.Parameter, given: str | None) -> tuple[int, int] | None:
    """Return height and width from "64" or "48x64"."""
    if given is None:
        return None
    sides = re.fullmatch(r"(\d{1,6})(?: ?[x×] ?(\d{1,6}))?", given.strip(), re.IGNORECASE | re.ASCII)
    if sides is None:
        raise OptionError(f"--image-size is a side such as 64, or height x width such as 48x64, got {given!r:.80}")
    return int(sides[1]), int(sides[2] or sides[1])


def _allow_imports(context: click.Context, _option: click.Parameter, modules: tuple[str, ...]) -> None:
    if modules and not context.resilient_parsing:
        lines, undo = outside.allow(modules)
        context.call_on_close(undo)
        for line in lines:
            note(line)


whole = partial(click.option, type=int, metavar="N")
real = partial(click.option, type=float, metavar="X")
device = click.option("--device", default="auto", show_default=True, metavar="D", help="auto, cpu, cuda or cuda:N.")
memory_limit = click.option(
    "--memory-limit",
    metavar="SIZE",
    expose_value=False,
    callback=_set_memory_limit,
    help="Such as 2GB: take no more, of the host and of the GPU each, and say what would fit.",
)
allow_import = click.option(
    "--allow-import",
    multiple=True,
    metavar="MODULE",
    expose_value=False,
    callback=_allow_imports,
    help="Import this module of yours, and let files name its classes, as mymodule:Swish; may be given several times.",
)
