"""Define the options that several commands share."""

import re
from functools import partial
from typing import Any

import click

from gpunn.backend.limits import set_memory_limit
from gpunn.backend.ranks import world
from gpunn.cli.terminal import note
from gpunn.config import outside
from gpunn.errors import OptionError


def _set_memory_limit(context: click.Context, _parameter: click.Parameter, limit: str | None) -> None:
    if limit is not None:
        set_memory_limit(limit)
        context.call_on_close(lambda: set_memory_limit(None))


def image_size(_context: click.Context, _parameter: click.Parameter, given: str | None) -> tuple[int, int] | None:
    """Parse height and width from "64" or "48x64"."""
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
        for line in lines if world().is_first else ():
            note(line)


whole = partial(click.option, type=int, metavar="N")
real = partial(click.option, type=float, metavar="X")
device = click.option("--device", default="auto", show_default=True, metavar="D", help="auto, cpu, cuda or cuda:N.")
memory_limit = click.option(
    "--memory-limit",
    metavar="SIZE",
    expose_value=False,
    callback=_set_memory_limit,
    help="Limit of memory, of the host and of the GPU each, such as 2GB; an error says what would fit.",
)
allow_import = click.option(
    "--allow-import",
    multiple=True,
    metavar="MODULE",
    expose_value=False,
    callback=_allow_imports,
    help="Module of yours to import, so that files may name its classes, as mymodule:Swish; repeatable.",
)

# Shared by `train` and `lr-find`: the best learning rate depends on all of them.
_OF_TRAINING = (
    click.argument("data", required=False),
    click.option("--recipe", metavar="NAME|FILE.toml", help="Network and settings; left out, chosen by DATA."),
    click.option(
        "--image-size",
        metavar="N|HxW",
        callback=image_size,
        help="Size to fit images of a folder to: a side, or height x width.",
    ),
    click.option("--colours", metavar="grey|rgb", help="Colours of images of a folder; left out, grey if all are."),
    click.option("--target", metavar="NAME", help="Column of a table to learn; left out, the last."),
    click.option("--ignore", metavar="NAME,...", help="Columns of a table to leave out."),
    click.option("--missing", metavar="WAY", help="Missing values of a table: refuse, or mean to fill in the mean."),
    click.option("--scaling", metavar="WAY", help="Scaling of numbers in a table: standard, or none."),
    click.option(
        "--task", metavar="KIND", help="classes, regression, or (images) reconstruction; left out, by the target."
    ),
    whole("--batch-size", help="Number of samples in a batch."),
    whole("--seed", help="Seed of the split, the initial weights and the shuffles."),
    click.option("--device", metavar="D", help="auto, cpu, cuda or cuda:N."),
    click.option(
        "--class-weight",
        type=click.Choice(["balanced"]),
        help="Give all classes the same total weight; a recipe can have a table of weights.",
    ),
)


def of_training(command: Any) -> Any:
    """Add the options shared by `train` and `lr-find` to a command."""
    for option in reversed(_OF_TRAINING):
        command = option(command)
    return command
