"""Options that several commands have, and the modules of a checkout that two of them use."""

import re
import sys
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from gpunn.backend.limits import set_memory_limit
from gpunn.backend.ranks import world
from gpunn.cli.terminal import note
from gpunn.config import outside
from gpunn.errors import GpunnError, OptionError


def from_source(module: str, what_comes: str) -> Any:
    """Import a module of `benchmarks/`, which an installed package lacks."""
    folder = Path(__file__).resolve().parent.parent.parent / "benchmarks"
    if not (folder / f"{module}.py").is_file():
        mend = "clone the repository, pip install -e . in it, and run the command again"
        raise GpunnError(f"{what_comes} with the source, not with the package: {mend}")
    sys.path.insert(0, str(folder))
    return import_module(module)


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

# On which the best learning rate depends.
_OF_TRAINING = (
    click.argument("data", required=False),
    click.option("--recipe", metavar="NAME|FILE.toml", help="What to train and how; left out, as suits DATA."),
    click.option(
        "--image-size",
        metavar="N|HxW",
        callback=image_size,
        help="Size that images of a folder are fitted to: a side, or height x width.",
    ),
    click.option("--colours", metavar="grey|rgb", help="Of images of a folder; left out, grey where all are."),
    click.option("--target", metavar="NAME", help="The column of a table to learn; left out, the last."),
    click.option("--ignore", metavar="NAME,...", help="Columns of a table to leave out."),
    click.option("--missing", metavar="WAY", help="Missing values of a table: refuse, or mean to fill them by it."),
    click.option("--scaling", metavar="WAY", help="Numbers of a table: standard, or none to take them as they are."),
    click.option(
        "--task", metavar="KIND", help="classes, regression, of images reconstruction; left out, by the target."
    ),
    whole("--batch-size", help="Number of samples in a batch."),
    whole("--seed", help="Of the split, the initial weights and the order of samples."),
    click.option("--device", metavar="D", help="auto, cpu, cuda or cuda:N."),
    click.option(
        "--class-weight",
        type=click.Choice(["balanced"]),
        help="Let all classes count alike, however many samples they have; a table of weights goes into a recipe.",
    ),
)


def of_training(command: Any) -> Any:
    """Give a command the options of a training that decide on its best learning rate."""
    for option in reversed(_OF_TRAINING):
        command = option(command)
    return command
