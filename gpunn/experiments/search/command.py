"""The command `gpunn search`."""

from functools import partial
from typing import Any

import click

from gpunn.experiments.options import allow_import, memory_limit, whole


@click.command()
@click.argument("file", metavar="FILE.toml")
@click.argument("data", required=False)
@whole("--trials", help="Number of trials in all; left out, as FILE says, else 40.")
@whole("--seed", "search_seed", help="Of what is chosen; the trainings have that of FILE.")
@whole("--epochs", help="Number of epochs of each trial.")
@click.option("--device", metavar="D", help="auto, cpu, cuda or cuda:N.")
@click.option("--out", metavar="FOLDER", help="Folder of the search; left out, searches/<name of the experiment>.")
@click.option(
    "--storage", metavar="URL", help="Database for workers on several machines; left out, a file in the folder."
)
@memory_limit
@allow_import
def search(file: str, search_seed: int | None, out: str | None, storage: str | None, **options: Any) -> None:
    """Look for the best settings of FILE.toml, an experiment with ranges.

    A range is { low = 1e-3, high = 1.0, log = true } or { choices = [30, 100] } in the place of a value. Each trial
    trains a network and is measured on the validation samples; the test set stays closed. The same command goes on with
    a search that was stopped, and shares the work where it is started several times. The best trial is an experiment
    file in the folder.
    """
    from gpunn.experiments.search.search import search as searching

    searching(file, partial(print, flush=True), out, storage, seed=search_seed, **options)
