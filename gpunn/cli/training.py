"""Train networks: the commands `train`, `search` and `lr-find`."""

from typing import Any

import click

from gpunn.cli.checkout import import_benchmark
from gpunn.cli.options import allow_import, memory_limit, of_training, real, whole
from gpunn.cli.terminal import say
from gpunn.errors import OptionError
from gpunn.train.lr_finder import HIGHEST, LOWEST, STEPS, Rising


@click.command()
@of_training
@click.option("--from", "start", metavar="RUN", help="Fine-tune the network of this run, model file or checkpoint.")
@click.option("--freeze", metavar="N|all", help="With --from: epochs in which only the new layer learns; left out, 1.")
@whole("--epochs", help="Number of epochs.")
@real("--learning-rate", help="Learning rate, of a schedule the highest; `gpunn lr-find` suggests one.")
@click.option("--skip-bad-batches", is_flag=True, default=None, help="Skip batches that lead to NaN or Inf.")
@click.option("--seeds", metavar="A:B", help="Train with each seed from A up to B, in parallel, and show the mean.")
@click.option("--out", metavar="RUN", help="Run folder; left out, the next free runs/<data>-<recipe>-<n>.")
@click.option("--resume", metavar="RUN", help="Resume this run, or from this checkpoint.")
@whole("--checkpoint-every", "every", help="Steps between checkpoints; left out, none.")
@real("--checkpoint-minutes", "minutes", help="Minutes between checkpoints; left out, 1; 0: none.")
@whole("--checkpoint-keep", "keep", help="Number of newest checkpoints to keep; left out, 2.")
@click.option("--tensorboard", is_flag=True, help="Write events for TensorBoard into the run folder.")
@click.option("--profile", is_flag=True, help="Show at the end where the time of a step goes; only in a checkout.")
@memory_limit
@allow_import
def train(
    recipe: str | None,
    start: str | None,
    freeze: str | None,
    out: str | None,
    resume: str | None,
    profile: bool,
    tensorboard: bool,
    seeds: str | None,
    **options: Any,
) -> None:
    """Train a network on DATA and write a run folder.

    DATA is digits (bundled), mnist, fashion-mnist, cifar-10, cifar-100, emnist-letters, sklearn:iris, a folder of
    images (with a folder for each class, or a list), a folder with the files of a named set or four IDX files, a .npz
    file, or a table (.csv, .parquet); left out, the data of the recipe. `gpunn recipes` lists the recipes.

    --from fine-tunes a trained network: a new last layer for the classes of DATA, which learns alone at first, replaces
    the old one (unless the classes have the same names). Without --recipe, the settings are those of that run.

    --resume continues a stopped run, to the same numbers as without the stop. DATA is then the new path of its data.
    Only --epochs, --device, --skip-bad-batches and the --checkpoint options may change, and --learning-rate after a
    divergence.
    """
    from gpunn.experiments import run
    from gpunn.experiments.experiment import OF_IMAGES, OF_TABLES, read_experiment, recipe_for
    from gpunn.experiments.fine_tuning import start_from

    report = import_benchmark("profile_report", "the profiler comes").write_profile if profile else None
    options["checkpoints"] = {name: options.pop(name) for name in ("every", "minutes", "keep")}
    if resume is not None:
        own = ("batch_size", "seed", "class_weight", *OF_IMAGES, *OF_TABLES)
        of_the_run = {"recipe": recipe, "from": start, "freeze": freeze, "out": out, "seeds": seeds}
        of_the_run |= {name: options.pop(name) for name in own}
        for name, value in of_the_run.items():
            if value is not None:
                raise OptionError(f"--{name.replace('_', '-')} cannot be given with --resume: it is that of the run")
        run.resume(resume, say, report=report, tensorboard=tensorboard, **options)
        return
    if out is not None and not out.strip():
        raise OptionError("--out must name a folder, got an empty name: leave it out for the next free one in runs")
    if start is not None:
        experiment = start_from(start, options["data"], recipe, freeze, say)
    elif freeze is not None:
        raise OptionError("--freeze goes with --from RUN, the network whose layers are frozen at first")
    else:
        chosen = recipe or recipe_for(options["data"], options["target"], options["task"])
        if recipe is None and chosen != "mlp":
            say(f"recipe      {chosen} (--recipe names another)")
        experiment = read_experiment(chosen)
    experiment = experiment.with_options(**options)
    if seeds is None:
        run.train(experiment, out, say, report=report, tensorboard=tensorboard)
        return
    from gpunn.experiments.seeds import parse_seeds, train_seeds

    if options["seed"] is not None or profile:
        raise OptionError("--seeds goes neither with --seed nor with --profile: leave these out")
    train_seeds(experiment, parse_seeds(seeds), out, say, tensorboard=tensorboard)


@click.command()
@click.argument("file", metavar="FILE.toml")
@click.argument("data", required=False)
@whole("--trials", help="Total number of trials; left out, that of FILE, or 40.")
@whole("--seed", "search_seed", help="Seed of the choices; the trainings have that of FILE.")
@whole("--epochs", help="Number of epochs of each trial.")
@click.option("--device", metavar="D", help="auto, cpu, cuda or cuda:N.")
@click.option("--out", metavar="FOLDER", help="Folder of the search; left out, searches/<name of the experiment>.")
@click.option(
    "--storage", metavar="URL", help="Database for workers on several machines; left out, a file in the folder."
)
@memory_limit
@allow_import
def search(file: str, search_seed: int | None, out: str | None, storage: str | None, **options: Any) -> None:
    """Search for the best settings of FILE.toml, an experiment with ranges.

    A range, { low = 1e-3, high = 1.0, log = true } or { choices = [30, 100] }, replaces a value. Each trial trains a
    network and evaluates it on the validation samples; the test set stays closed. The same command continues a stopped
    search; started several times, it shares the work. The folder has the best trial as an experiment file.
    """
    from gpunn.experiments.search.search import search as searching

    searching(file, say, out, storage, seed=search_seed, **options)


@click.command("lr-find")
@of_training
@real("--lowest", default=LOWEST, show_default=True, help="Learning rate of the first step.")
@real("--highest", default=HIGHEST, show_default=True, help="Learning rate of the last step.")
@whole("--steps", default=STEPS, show_default=True, help="Number of steps; fewer if the loss explodes.")
@click.option("--out", metavar="FILE", help="Picture of the losses; left out, learning-rate.png.")
@memory_limit
@allow_import
def lr_find(recipe: str | None, lowest: float, highest: float, steps: int, out: str | None, **options: Any) -> None:
    """Suggest a learning rate for DATA: train some steps at rising rates, and see where the loss falls.

    DATA is as for `gpunn train`. Only training samples are used; no run folder is made, and the network is discarded.
    """
    from gpunn.experiments.experiment import read_experiment, recipe_for
    from gpunn.experiments.lr_find import command_of, find_learning_rate

    experiment = read_experiment(
        recipe or recipe_for(options["data"], options["target"], options["task"])
    ).with_options(**options)
    command = command_of(**options, recipe=recipe)
    find_learning_rate(experiment, Rising(lowest, highest, steps), out, command, say)
