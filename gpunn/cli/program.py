"""Run the commands of `gpunn`; turn every error into one line and an exit code."""

import os
import signal
import sys
import traceback
from contextlib import suppress
from typing import NoReturn

import click

from gpunn.backend import cuda_errors
from gpunn.backend.ranks import world
from gpunn.cli import early_interrupt, machine, networks, terminal, training
from gpunn.cli.terminal import fail, say
from gpunn.errors import GpunnError, OptionError
from gpunn.experiments.failure import code_of, line_of
from gpunn.saving.signals import Terminated
from gpunn.version import __version__


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
@click.version_option(__version__, message="gpunn %(version)s")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error (also: GPUNN_DEBUG=1).")
@click.pass_context
def cli(context: click.Context) -> None:
    """Train neural networks straight from their equations, on CUDA GPUs and on CPUs."""
    name = context.invoked_subcommand
    if world().size > 1 and name not in (None, "train", "doctor"):
        raise OptionError(f"gpunn {name} is done by one process, got {world().size}: start it without mpiexec")
    if name is None:
        say(context.get_help())


for _command in (
    *(training.train, training.search, training.lr_find),
    *(networks.evaluate, networks.predict, networks.export, networks.import_, networks.serve),
    *(machine.doctor, machine.recipes, machine.bench),
):
    cli.add_command(_command)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the program; exit with 0, 1 (failed, one line says why), 2 (wrong usage) or 128 + a signal."""
    terminal.prepare_streams()
    terminal.install_signals()
    cuda_errors.silence_destructors()
    is_program = early_interrupt.exits_at_once()
    try:
        if is_program:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        code = _run(sys.argv[1:] if arguments is None else arguments)
        with suppress(GpunnError):  # if the ranks could not start
            world().leave(code, is_asked=code > 128)
    except KeyboardInterrupt as error:  # while an error was being shown
        code = _interrupted(error)
    finally:
        if is_program:  # the shutdown of Python needs no cleanup
            signal.signal(signal.SIGINT, early_interrupt.leave)
    if cuda_errors.sticky_errors:
        # After a fatal CUDA error, each CuPy object would print an error on its destruction.
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    """Run a command, and return its exit code."""
    try:
        if not world().is_first:
            terminal.hush()
        cli.main(arguments, prog_name="gpunn", standalone_mode=False)
    except click.ClickException as error:
        command = getattr(getattr(error, "ctx", None), "command_path", "gpunn")
        return fail(f"{error.format_message().rstrip('.')}: see {command} --help", error.exit_code)
    except (KeyboardInterrupt, click.Abort) as error:
        return _interrupted(error)
    except SystemExit as error:
        return code_of(error)
    except Exception as error:  # noqa: BLE001 - the last place to turn an error into a line
        if "--debug" in arguments or os.environ.get("GPUNN_DEBUG", "") not in ("", "0"):
            traceback.print_exc()
        error = cuda_errors.translated(error) or error  # of a call outside the guarded ones
        return fail(line_of(error), code_of(error))
    return 0


def _interrupted(error: BaseException) -> int:
    # click turns any interrupt into its own Abort.
    cause = error if isinstance(error, Terminated) else error.__cause__
    return 128 + (cause.number if isinstance(cause, Terminated) else signal.SIGINT)
