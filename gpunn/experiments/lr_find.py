"""Find a learning rate for an experiment: the picture of the losses at rising rates, and one line to go on with."""

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
        experiment: What would be trained; its learning rate is left aside.
        rise: Rates to try.
        out: Path of the picture; None for learning-rate.png.
        command: Command that trains it, to which the rate is added.
        say: Takes the line with the suggestion.

    Raises:
        GpunnError: No rate is suggested; the picture is written all the same.
    """
    if experiment.data.validation == "test":  # which stays closed here: all other samples are for training
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
    """Give a function that keeps one line of a terminal up to date, which is wiped at the end; None without one."""
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
    """Write the command that trains with some options, such as `image_size`; those of None are left out."""
    words = ["gpunn", "train", *([data] if data else [])]
    for name, value in options.items():
        text = "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
        words += [] if value is None else [f"--{name.replace('_', '-')}", text]
    return shlex.join(words) + allowing()
