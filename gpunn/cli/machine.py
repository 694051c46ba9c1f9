"""Look at the machine and at what comes with gpunn: the commands `doctor`, `recipes` and `bench`."""

import click

from gpunn.backend.ranks import world
from gpunn.cli.options import from_source
from gpunn.cli.terminal import say


@click.command()
def doctor() -> None:
    """Say what is installed, what is missing for a GPU and what mends it; test every kernel where there is a GPU."""
    from gpunn.backend.devices import cuda_trouble
    from gpunn.backend.driver import first_gpu, read_driver
    from gpunn.cli.doctor import diagnose, format_findings

    findings = diagnose()
    say(format_findings(findings))
    failed = any(finding.status == "missing" for finding in findings)
    index = first_gpu(read_driver())
    if world().size == 1 and not cuda_trouble(index):  # it trains, which ranks do together
        from gpunn.cli.selftest import self_test

        failed = not self_test(f"cuda:{index}", say) or failed
    raise SystemExit(int(failed))


@click.command()
def recipes() -> None:
    """List the recipes that come with gpunn."""
    from gpunn.experiments.experiment import read_experiment, recipes

    known = recipes()
    for name in known:
        experiment = read_experiment(name)
        say(f"{name:{max(map(len, known))}}  {experiment.data.source:6}  {experiment.description}")


@click.command(add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[GROUP]... [OPTIONS]")
def bench(arguments: tuple[str, ...]) -> None:
    """Time gpunn beside PyTorch, JAX, scikit-learn and CuPy, those that are installed, at the same work.

    `gpunn bench --help` lists groups and options. The benchmarks come with the source, not with the package.
    """
    # In this process, so that a signal ends it as it ends the other commands.
    raise SystemExit(from_source("bench", "the benchmarks come").main(list(arguments)))
