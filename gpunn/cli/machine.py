"""Check the machine, list recipes, run benchmarks: the commands `doctor`, `recipes` and `bench`."""

import click

from gpunn.backend.ranks import world
from gpunn.cli.checkout import import_benchmark
from gpunn.cli.terminal import say


@click.command()
def doctor() -> None:
    """Show what is installed, what a GPU still needs and how to get it; test every kernel on a GPU."""
    from gpunn.backend.devices import cuda_trouble
    from gpunn.backend.driver import first_gpu, read_driver
    from gpunn.cli.doctor import diagnose, format_findings

    findings = diagnose()
    say(format_findings(findings))
    failed = any(finding.status == "missing" for finding in findings)
    index = first_gpu(read_driver())
    if world().size == 1 and not cuda_trouble(index):  # the self-test trains, which ranks would do together
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
    """Compare the speed of gpunn with PyTorch, JAX, scikit-learn and CuPy, where these are installed.

    `gpunn bench --help` lists groups and options. The benchmarks come with the source, not with the package.
    """
    # In this process, so that signals end it like the other commands.
    raise SystemExit(import_benchmark("bench", "the benchmarks come").main(list(arguments)))
