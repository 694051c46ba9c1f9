"""The program `gpunn`: one thin function a command, which imports what it alone needs."""

import os
import signal
import sys
import traceback
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import click
from click.core import ParameterSource

from gpunn.backend import cuda_errors
from gpunn.backend.ranks import world
from gpunn.errors import GpunnError, OptionError, in_one_line
from gpunn.experiments import starting, terminal
from gpunn.experiments.options import allow_import, device, memory_limit, note, of_training, real, whole
from gpunn.experiments.search.command import search
from gpunn.saving.signals import Terminated
from gpunn.train.finder import HIGHEST, LOWEST, STEPS, Rising
from gpunn.version import __version__

# Past click, which writes UTF-8 to a stream of ASCII; and at once, to keep its place between lines of progress.
_say = partial(print, flush=True)


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
        _say(context.get_help())


def _from_source(module: str, what_comes: str) -> Any:
    """Import a module of `benchmarks/`, which an installed package lacks."""
    folder = Path(__file__).resolve().parent.parent / "benchmarks"
    if not (folder / f"{module}.py").is_file():
        mend = "clone the repository, pip install -e . in it, and run the command again"
        raise GpunnError(f"{what_comes} with the source, not with the package: {mend}")
    sys.path.insert(0, str(folder))
    return import_module(module)


@cli.command()
@of_training
@click.option("--from", "start", metavar="RUN", help="Take the layers of this run, model file or checkpoint.")
@click.option("--freeze", metavar="N|all", help="With --from: epochs in which only the new layer learns; left out, 1.")
@whole("--epochs", help="Number of epochs.")
@real("--learning-rate", help="The highest where the recipe has a schedule; `gpunn lr-find` suggests one.")
@click.option("--skip-bad-batches", is_flag=True, default=None, help="Skip batches that lead to NaN or infinity.")
@click.option("--seeds", metavar="A:B", help="Train with each seed from A up to B, side by side, and say the mean.")
@click.option("--out", metavar="RUN", help="The run folder; left out, the next free runs/<data>-<recipe>-<n>.")
@click.option("--resume", metavar="RUN", help="Go on with this run, or from this checkpoint of one.")
@whole("--checkpoint-every", "every", help="Steps between checkpoints; left out, none.")
@real("--checkpoint-minutes", "minutes", help="Minutes between checkpoints; left out, 1; 0: none.")
@whole("--checkpoint-keep", "keep", help="How many of the newest are kept; left out, 2.")
@click.option("--tensorboard", is_flag=True, help="Write events into the run folder, which TensorBoard shows.")
@click.option("--profile", is_flag=True, help="Show, at the end, where the time of a step goes; in a checkout.")
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
    images (one inside for each class, or a list), a folder with the files of a named set or four IDX files, a .npz
    file, or a table (.csv, .parquet); left out, what the recipe names. `gpunn recipes` lists the recipes.

    With --from a network that has learned before is fine-tuned: its last layer is replaced by a new one for the classes
    of DATA (and kept where these have the same names), which learns alone at first. What is not given by --recipe is as
    in that run.

    A run that was stopped goes on by --resume, to the same numbers as if it had not been. Then DATA says where its data
    are now, and only --epochs, --device, --skip-bad-batches and how often there are checkpoints may be changed; of a
    run that has diverged --learning-rate too.
    """
    from gpunn.experiments import run
    from gpunn.experiments.experiment import OF_IMAGES, OF_TABLES, read_experiment, recipe_for
    from gpunn.experiments.tuning import start_from

    report = _from_source("profile_report", "the profiler comes").write_profile if profile else None
    options["checkpoints"] = {name: options.pop(name) for name in ("every", "minutes", "keep")}
    if resume is not None:
        own = ("batch_size", "seed", "class_weight", *OF_IMAGES, *OF_TABLES)
        of_the_run = {"recipe": recipe, "from": start, "freeze": freeze, "out": out, "seeds": seeds}
        of_the_run |= {name: options.pop(name) for name in own}
        for name, value in of_the_run.items():
            if value is not None:
                raise OptionError(f"--{name.replace('_', '-')} cannot be given with --resume: it is that of the run")
        run.resume(resume, _say, report=report, tensorboard=tensorboard, **options)
    elif out is not None and not out.strip():
        raise OptionError("--out must name a folder, got an empty name: leave it out for the next free one in runs")
    else:
        if start is not None:
            experiment = start_from(start, options["data"], recipe, freeze, _say)
        elif freeze is not None:
            raise OptionError("--freeze goes with --from RUN, the network whose layers are frozen at first")
        else:
            chosen = recipe or recipe_for(options["data"], options["target"], options["task"])
            if recipe is None and chosen != "mlp":
                _say(f"recipe      {chosen} (--recipe names another)")
            experiment = read_experiment(chosen)
        experiment = experiment.with_options(**options)
        if seeds is None:
            run.train(experiment, out, _say, report=report, tensorboard=tensorboard)
            return
        from gpunn.experiments.seeds import parse_seeds, train_seeds

        if options["seed"] is not None or profile:
            raise OptionError("--seeds goes neither with --seed nor with --profile: leave these out")
        train_seeds(experiment, parse_seeds(seeds), out, _say, tensorboard=tensorboard)


cli.add_command(search)


@cli.command("lr-find")
@of_training
@real("--lowest", default=LOWEST, show_default=True, help="Learning rate of the first step.")
@real("--highest", default=HIGHEST, show_default=True, help="Learning rate of the last step.")
@whole("--steps", default=STEPS, show_default=True, help="Number of steps; fewer are done where the loss explodes.")
@click.option("--out", metavar="FILE", help="Picture of the losses; left out, learning-rate.png.")
@memory_limit
@allow_import
def lr_find(recipe: str | None, lowest: float, highest: float, steps: int, out: str | None, **options: Any) -> None:
    """Suggest a learning rate for DATA: train some steps at rising rates, and see where the loss falls.

    DATA is as for `gpunn train`. Only training samples are looked at, no run is made, and the network is thrown away.
    """
    from gpunn.experiments.experiment import read_experiment, recipe_for
    from gpunn.experiments.finding import command_of, find_learning_rate

    experiment = read_experiment(
        recipe or recipe_for(options["data"], options["target"], options["task"])
    ).with_options(**options)
    command = command_of(**options, recipe=recipe)
    find_learning_rate(experiment, Rising(lowest, highest, steps), out, command, _say)


@cli.command()
@click.argument("run")
@click.argument("data", required=False)
@device
@memory_limit
@allow_import
def evaluate(run: str, data: str | None, device: str) -> None:
    """Measure the network of a run on the test set of DATA, by default of the data it was trained on.

    The figures stand in a line, and below it those of each class or output in a table.

    RUN is a run folder or a model file. Data without a test set are measured as a whole.
    """
    from gpunn.backend.compiling import columns_of
    from gpunn.experiments.predict import evaluate_run

    _say(evaluate_run(run, data, device, columns_of(sys.stdout)))


@cli.command()
@click.argument("run")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--format", "form", type=click.Choice(["text", "csv", "json"]), default="text", show_default=True)
@click.option(
    "--invert",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="Exchange dark and light of images: auto where their background is not that of the training images.",
)
@click.option(
    "--prepare/--no-prepare",
    default=True,
    help="Find the drawing in a photograph where the training images are drawings (the default), or only fit it.",
)
@click.option("--show", is_flag=True, help="Write what the network saw of photo.jpg beside it, as photo.seen.png.")
@click.option(
    "--sure",
    type=click.FloatRange(0, 1),
    default=0.6,
    show_default=True,
    help="Say 'not sure', and the two likeliest, where the probability is below.",
)
@device
@memory_limit
@allow_import
def predict(run: str, files: tuple[str, ...], form: str, device: str, **options: Any) -> None:
    """Say what the network of a run sees in each FILE: file, label and probability, one line a sample.

    A network that was trained on float targets answers 0 or 1 for each output, or numbers.

    A FILE is an image, a .npy, .npz or IDX file, or a table, whose columns are found by name. Images become grey (or
    RGB), are fitted into the size of the network's input, and are brought to the range and the background of the
    training images. Where those are drawings in strokes, such as MNIST's digits, the largest drawing in a photograph is
    found, whatever its light, ink and paper, and brought into their box and middle. What cannot be read is named, and
    the rest answered; the exit code is then 1.
    """
    from gpunn.experiments.predict import format_answers, predict_files

    refused: list[str] = []
    answers = list(predict_files(run, files, device, options.pop("invert"), note, refused.append, **options))
    if answers or form != "text":
        _say(format_answers(answers, form, sys.stdout.encoding or "utf-8"))
    for line in refused:
        _fail(line, 1)
    raise SystemExit(int(bool(refused)))


@cli.command()
@click.argument("run")
@click.argument("file", required=False, metavar="FILE.onnx")
@whole("--opset", default=18, show_default=True, help="Version of ONNX's operators, 13 to 28.")
@click.option("--layout", default="NHWC", show_default=True, metavar="L", help="Axes of images: NHWC or NCHW.")
@click.option("--raw", is_flag=True, help="Take bytes of images, or the columns of a table, and scale them within.")
@click.option("--logits", is_flag=True, help="Leave the last Softmax or Sigmoid out.")
@click.option("--page", metavar="DIR", help="Write a page to draw on for any web space, instead of a file.")
@click.option("--runtime", metavar="DIR|TGZ", help="With --page: onnxruntime-web, which is else downloaded once.")
@allow_import
@memory_limit
@click.pass_context
def export(
    context: click.Context, /, run: str, file: str | None, page: str | None, runtime: str | None, **options: Any
) -> None:
    """Write the network of RUN as an ONNX file for other runtimes, or as a page that runs it in the browser.

    RUN is a run folder or a model file. The file is compared with the network before it gets its name.
    """
    if (file is None) == (page is None):
        raise OptionError("name FILE.onnx to write, or a folder for a page by --page, one of them")
    if page is None:
        if runtime is not None:
            raise OptionError("--runtime goes with --page, whose network it runs: an ONNX file needs none")
        from gpunn.experiments.onnx_files import export_run

        _say(export_run(run, str(file), **options))
        return
    for name in options:
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise OptionError(f"--{name} is for an ONNX file: a page has a network of its own form, leave it out")
    from gpunn.serve.static import export_page

    _say(export_page(run, page, runtime, note))


@cli.command("import")
@click.argument("file", metavar="FILE.onnx")
@click.argument("out", required=False, metavar="MODEL.safetensors")
@allow_import
@memory_limit
def import_(file: str, out: str | None) -> None:
    """Make a model file of an ONNX file, to evaluate, predict, and train on by --from.

    The model file gets the name of FILE where none is given. What gpunn has no layer for is named, and nothing written.
    """
    from gpunn.experiments.onnx_files import import_file

    _say(import_file(file, out))


@cli.command()
@click.argument("run")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any that is free.")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen at; others than this machine's are open."
)
@click.option("--open", "opens", is_flag=True, help="Open the page in a browser.")
@device
@memory_limit
@allow_import
def serve(run: str, port: int, host: str, device: str, opens: bool) -> None:
    """Serve a page of RUN on 127.0.0.1: draw, and see what every layer answers; Ctrl-C ends it.

    RUN is a run folder, also of a run that is being trained, whose curves are then live, or a model file.
    """
    from gpunn.serve.requirements import require_web

    require_web()
    from gpunn.serve.server import serve as serving

    serving(run, host, port, device, _say, opens=opens)


@cli.command()
def doctor() -> None:
    """Say what is installed, what is missing for a GPU and what mends it; test every kernel where there is a GPU."""
    from gpunn.backend.devices import cuda_trouble
    from gpunn.backend.driver import first_gpu, read_driver
    from gpunn.tools.doctor import diagnose, format_findings

    findings = diagnose()
    _say(format_findings(findings))
    failed = any(finding.status == "missing" for finding in findings)
    index = first_gpu(read_driver())
    if world().size == 1 and not cuda_trouble(index):  # it trains, which ranks do together
        from gpunn.tools.selftest import self_test

        failed = not self_test(f"cuda:{index}", _say) or failed
    raise SystemExit(int(failed))


@cli.command()
def recipes() -> None:
    """List the recipes that come with gpunn."""
    from gpunn.experiments.experiment import read_experiment, recipes

    known = recipes()
    for name in known:
        experiment = read_experiment(name)
        _say(f"{name:{max(map(len, known))}}  {experiment.data.source:6}  {experiment.description}")


@cli.command(add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[GROUP]... [OPTIONS]")
def bench(arguments: tuple[str, ...]) -> None:
    """Time gpunn beside PyTorch, JAX, scikit-learn and CuPy, those that are installed, at the same work.

    `gpunn bench --help` lists groups and options. The benchmarks come with the source, not with the package.
    """
    # In this process, so that a signal ends it as it ends the other commands.
    raise SystemExit(_from_source("bench", "the benchmarks come").main(list(arguments)))


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the program; it ends with 0, 1 (failed, one line says why), 2 (wrong usage) or 128 + a signal."""
    terminal.prepare_streams()
    terminal.install_signals()
    cuda_errors.silence_destructors()
    is_program = starting.is_leaving()
    try:
        if is_program:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        code = _run(sys.argv[1:] if arguments is None else arguments)
        with suppress(GpunnError):  # where it is the ranks that could not begin
            world().leave(code, is_asked=code > 128)
    except KeyboardInterrupt as error:  # while an error was told
        code = _interrupted(error)
    finally:
        if is_program:  # what Python still has to do needs no order either
            signal.signal(signal.SIGINT, starting.leave)
    if cuda_errors.lost:
        # CUDA refuses everything now: each of CuPy's objects would say so when it is taken down.
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
        return _fail(f"{error.format_message().rstrip('.')}: see {command} --help", error.exit_code)
    except (KeyboardInterrupt, click.Abort) as error:
        return _interrupted(error)
    except SystemExit as error:
        return terminal.code_of(error)
    except Exception as error:  # noqa: BLE001 - the last place where an error can be told in a line
        if "--debug" in arguments or os.environ.get("GPUNN_DEBUG", "") not in ("", "0"):
            traceback.print_exc()
        error = cuda_errors.translated(error) or error  # of a call that went through no gate
        return _fail(terminal.line_of(error), terminal.code_of(error))
    return 0


def _interrupted(error: BaseException) -> int:
    # click makes its own Abort of whatever interrupts it.
    cause = error if isinstance(error, Terminated) else error.__cause__
    return 128 + (cause.number if isinstance(cause, Terminated) else signal.SIGINT)


def _fail(line: str, code: int) -> int:
    said = in_one_line(" ".join(line.split()))
    with suppress(GpunnError):
        said = world().fail(said, code)
    if said:
        note(f"gpunn: {said}")
    return code
