"""Use a trained network: the commands `evaluate`, `predict`, `export`, `import` and `serve`."""

import sys
from typing import Any

import click
from click.core import ParameterSource

from gpunn.cli.options import allow_import, device, memory_limit, whole
from gpunn.cli.terminal import fail, note, say
from gpunn.errors import OptionError


@click.command()
@click.argument("run")
@click.argument("data", required=False)
@device
@memory_limit
@allow_import
def evaluate(run: str, data: str | None, device: str) -> None:
    """Evaluate the network of a run on the test set of DATA, by default of its training data.

    The first line shows loss and accuracy, the table below it the metrics of each class or output.

    RUN is a run folder or a model file. Data without a test set are evaluated as a whole.
    """
    from gpunn.backend.compiling import columns_of
    from gpunn.experiments.predict import evaluate_run

    say(evaluate_run(run, data, device, columns_of(sys.stdout)))


@click.command()
@click.argument("run")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--format", "form", type=click.Choice(["text", "csv", "json"]), default="text", show_default=True)
@click.option(
    "--invert",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="Invert images: auto, if their background differs from that of the training images.",
)
@click.option(
    "--prepare/--no-prepare",
    default=True,
    help="Find the drawing in a photograph if the training images are drawings (the default), or only resize it.",
)
@click.option("--show", is_flag=True, help="Write the network's input for photo.jpg beside it, as photo.seen.png.")
@click.option(
    "--sure",
    type=click.FloatRange(0, 1),
    default=0.6,
    show_default=True,
    help="Probability below which the two likeliest classes are shown, with 'not sure'.",
)
@device
@memory_limit
@allow_import
def predict(run: str, files: tuple[str, ...], form: str, device: str, **options: Any) -> None:
    """Predict every FILE with the network of a run: file, label and probability, one line a sample.

    A network trained on float targets predicts 0 or 1 for each output, or numbers.

    A FILE is an image, a .npy, .npz or IDX file, or a table, whose columns are matched by name. Images become grey (or
    RGB), and get the size, the range and the background of the training images. If those are drawings in strokes, such
    as MNIST's digits, the largest drawing in a photograph is found in any light, ink and paper, and scaled and centred
    like them. Files that cannot be read are named, and the others predicted; the exit code is then 1.
    """
    from gpunn.experiments.predict import format_answers, predict_files

    refused: list[str] = []
    answers = list(predict_files(run, files, device, options.pop("invert"), note, refused.append, **options))
    if answers or form != "text":
        say(format_answers(answers, form, sys.stdout.encoding or "utf-8"))
    for line in refused:
        fail(line, 1)
    raise SystemExit(int(bool(refused)))


@click.command()
@click.argument("run")
@click.argument("file", required=False, metavar="FILE.onnx")
@whole("--opset", default=18, show_default=True, help="Version of ONNX's operators, 13 to 28.")
@click.option("--layout", default="NHWC", show_default=True, metavar="L", help="Axes of images: NHWC or NCHW.")
@click.option("--raw", is_flag=True, help="Take bytes of images, or columns of a table, and scale them in the graph.")
@click.option("--logits", is_flag=True, help="Leave the last Softmax or Sigmoid out.")
@click.option("--page", metavar="DIR", help="Write a page to draw on, for any web server, instead of a file.")
@click.option("--runtime", metavar="DIR|TGZ", help="With --page: onnxruntime-web; left out, downloaded once.")
@allow_import
@memory_limit
@click.pass_context
def export(
    context: click.Context, /, run: str, file: str | None, page: str | None, runtime: str | None, **options: Any
) -> None:
    """Write the network of RUN as an ONNX file for other runtimes, or as a page that runs it in the browser.

    RUN is a run folder or a model file. The outputs of the file are compared with the network's before it is saved.
    """
    if (file is None) == (page is None):
        raise OptionError("name FILE.onnx to write, or a folder for a page by --page, one of them")
    if page is None:
        if runtime is not None:
            raise OptionError("--runtime goes with --page, whose network it runs: an ONNX file needs none")
        from gpunn.experiments.onnx_files import export_run

        say(export_run(run, str(file), **options))
        return
    for name in options:
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise OptionError(f"--{name} is for an ONNX file: a page has a network of its own form, leave it out")
    from gpunn.serve.static import export_page

    say(export_page(run, page, runtime, note))


@click.command("import")
@click.argument("file", metavar="FILE.onnx")
@click.argument("out", required=False, metavar="MODEL.safetensors")
@allow_import
@memory_limit
def import_(file: str, out: str | None) -> None:
    """Convert an ONNX file to a model file, to evaluate, predict, and fine-tune by --from.

    By default the model file gets the name of FILE. An operator without a layer in gpunn is an error, and no file is
    written.
    """
    from gpunn.experiments.onnx_files import import_file

    say(import_file(file, out))


@click.command()
@click.argument("run")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="Port; 0 for any that is free."
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen at; any but this machine's is open to others.",
)
@click.option("--open", "opens", is_flag=True, help="Open the page in a browser.")
@device
@memory_limit
@allow_import
def serve(run: str, port: int, host: str, device: str, opens: bool) -> None:
    """Serve a page of RUN on 127.0.0.1: draw, and see the output of every layer; Ctrl-C ends it.

    RUN is a model file or a run folder. While the run is training, its curves are live.
    """
    from gpunn.serve.requirements import require_web

    require_web()
    from gpunn.serve.server import serve as serving

    serving(run, host, port, device, say, opens=opens)
