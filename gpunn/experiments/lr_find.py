"""Find a learning rate for an experiment: plot the loss at rising rates, and suggest one."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from gpunn.config.outside import allowing
from gpunn.errors import GpunnError
from gpunn.experiments.experiment import Experiment
from gpunn.experiments.fine_tuning import prepare
from gpunn.files import StrPath
from gpunn.reports.learning_rates import CURVE, LearningRateCurve
from gpunn.saving.checkpointer import Say
from gpunn.train.lr_finder import Rising, Show, try_rates


def find_learning_rate(experiment: Experiment, rise: Rising, out: StrPath | None, command: str, say: Say) -> None:
    """Try rising rates with the network, the optimizer and the training samples of an experiment.

    Args:
        experiment: Experiment to train; its learning rate is ignored.
        rise: Rates to try.
        out: Path of the picture; None for learning-rate.png.
        command: Command that trains the experiment; the suggestion completes it.
        say: Function that shows the line with the suggestion.

    Raises:
        GpunnError: There is no suggestion; the picture is written nevertheless.
    """
    if experiment.data.validation == "test":  # the test set stays closed here, so all other samples train
        experiment = replace(experiment, data=replace(experiment.data, validation=0))
    experiment, data = prepare(experiment)
    options = experiment.options(data, progress=False)
    with _progress(rise.steps) as show:
        curve = LearningRateCurve.of(try_rates(experiment.model(data), options, data, None, rise, show))
    picture = curve.plot(CURVE if out is None else out, title=f"{experiment.name} on {data.name}")
    if curve.suggestion is None:
        raise GpunnError(f"{curve}; the losses are drawn in {picture}")
    say(f"{curve}: {command} --learning-rate {curve.suggestion:g} (losses drawn in {picture})")


@contextmanager
def _progress(steps: int) -> Iterator[Show | None]:
    """Give a function that updates one line of a terminal, cleared at the end; None without a terminal."""
    stream = sys.stderr
    if stream is None or not stream.isatty():
        yield None
        return
    length = 0

    def show(done: int, rate: float, loss: float) -> None:
        nonlocal length
        line = f"step {done}/{steps}: learning rate {rate:.2g}, loss {loss:.4g}"
        print(f"\r{line:{length}}", end="", file=stream, flush=True)
        length = max(length, len(line))

    try:
        yield show
    finally:
        print(f"\r{'':{length}}\r", end="", file=stream, flush=True)


def command_of(data: str | None = None, **options: Any) -> str:
    """Return the `gpunn train` command for some options, such as `image_size`, without those that are None."""
    words = ["gpunn", "train", *([data] if data else [])]
    for name, value in options.items():
        text = "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
        words += [] if value is None else [f"--{name.replace('_', '-')}", text]
    return shlex.join(words) + allowing()
