"""Train several seeds of an experiment in parallel processes, and report mean and deviation of the results."""

import csv
import io
import json
import re
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gpunn.backend.limits import memory_limit
from gpunn.backend.ranks import world
from gpunn.config.outside import allowing
from gpunn.errors import GpunnError, OptionError, OutputError
from gpunn.experiments.experiment import Experiment
from gpunn.experiments.folder import EXPERIMENT, METRICS
from gpunn.files import StrPath, write_atomically
from gpunn.kernels.cores import cores
from gpunn.saving.checkpointer import Say

SEEDS = "seeds.csv"
_MOST = 1000
_FIGURES = tuple(f"{part}_{name}" for part in ("test", "validation") for name in ("accuracy", "loss", "rmse", "r2"))


def parse_seeds(text: str) -> list[int]:
    """Parse "0:8", the seeds 0 to 7, or "0,3,5"; raise OptionError for anything else."""
    if found := re.fullmatch(r"(\d{1,10}):(\d{1,10})", text.strip(), re.ASCII):
        seeds = list(range(int(found[1]), min(int(found[2]), int(found[1]) + _MOST + 1)))
    elif re.fullmatch(r"\d{1,10}(, ?\d{1,10})+", text.strip(), re.ASCII):
        seeds = [int(word) for word in text.split(",")]
    else:
        raise OptionError(
            f"--seeds must be first:end, such as 0:8 for 0 to 7, or a list such as 0,3,5, got {text!r:.60}"
        )
    if not 2 <= len(seeds) <= _MOST:
        raise OptionError(f"--seeds must name 2 to {_MOST:,} seeds, got {text!r:.60}: --seed takes one")
    if len(set(seeds)) < len(seeds):
        raise OptionError(f"--seeds must name each seed once, got {text!r:.60}")
    return seeds


def train_seeds(
    experiment: Experiment, seeds: Sequence[int], out: StrPath | None, say: Say, *, tensorboard: bool = False
) -> Path:
    """Train an experiment with each seed, as many in parallel as there are cores, and show mean and deviation.

    Args:
        experiment: Experiment to train.
        seeds: Seeds, each with a run folder seed-<n>; finished ones are not trained again.
        out: Folder for all seeds; None for runs/<recipe>-seeds.
        say: Function that shows a line.
        tensorboard: Whether each run writes events for TensorBoard.

    Returns:
        The folder; `seeds.csv` in it has a row for each seed.

    Raises:
        GpunnError: A training failed; the others are done, and the same call trains the missing ones.
    """
    if (ranks := world().size) > 1:
        raise OptionError(f"--seeds starts processes of its own, got {ranks} by mpiexec: start it without")
    folder = Path("runs") / f"{experiment.name}-seeds" if out is None else Path(out)
    written = experiment.to_toml().encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / EXPERIMENT).exists() and (folder / EXPERIMENT).read_bytes() != written:
            raise OutputError(f"{folder} holds seeds of another experiment: give another folder by --out")
        write_atomically(folder / EXPERIMENT, written)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror or error}: give another folder by --out") from None
    waiting = [seed for seed in seeds if not _results(folder, seed)]
    if len(waiting) < len(seeds):
        say(f"goes on     {len(seeds) - len(waiting)} of {len(seeds)} seeds are trained already")
    at_once = max(1, cores()) if experiment.training.device in ("auto", "cpu") else 2
    options = [*shlex.split(allowing()), *(["--tensorboard"] if tensorboard else [])]
    if (limit := memory_limit()) is not None:
        options += ["--memory-limit", str(limit // at_once)]
    say(f"folder      {folder}; {min(at_once, max(1, len(waiting)))} trainings side by side")
    failed: dict[int, str] = {}
    with _processes() as running:
        while waiting or running:
            while waiting and len(running) < at_once:
                seed = waiting.pop(0)
                running[seed] = _begun(folder, seed, options)
            time.sleep(0.05)
            for seed, process in list(running.items()):
                if process.poll() is not None:
                    del running[seed]
                    if results := _results(folder, seed):
                        say(f"seed {seed:<6} {_in_words(results)}")
                    else:
                        failed[seed] = _last_line(folder, seed) or f"ended by {process.returncode}"
                        say(f"seed {seed:<6} failed: {failed[seed]}")
    rows = {seed: results for seed in seeds if (results := _results(folder, seed))}
    _write(folder, rows)
    if failed:
        seed = min(failed, key=list(seeds).index)
        raise GpunnError(
            f"{len(failed)} of {len(seeds)} seeds failed, seed {seed}: {failed[seed]}; the same command goes on"
        )
    for name in _FIGURES:
        if len(values := [row[name] for row in rows.values() if row.get(name) is not None]) > 1:
            mean, deviation = statistics.fmean(values), statistics.stdev(values)
            factor, unit = (100, " %") if name.endswith("accuracy") else (1, "")
            words = f"{factor * mean:.4g} ± {factor * deviation:.2g}{unit}"
            say(f"{name.replace('_', ' '):<20} {words} ({factor * min(values):.4g} to {factor * max(values):.4g})")
    say(f"table       {folder / SEEDS}; mean ± standard deviation of {len(rows)} seeds")
    return folder


def _begun(folder: Path, seed: int, options: Sequence[str]) -> "subprocess.Popen[bytes]":
    """Start a training, or resume an interrupted one."""
    run, words = folder / f"seed-{seed}", [sys.executable, "-m", "gpunn", "train"]
    if (run / EXPERIMENT).exists():
        words += ["--resume", str(run), *options]
    else:
        words += ["--recipe", str(folder / EXPERIMENT), "--seed", str(seed), "--out", str(run), *options]
    with (folder / f"seed-{seed}.log").open("wb") as log:
        return subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )


@contextmanager
def _processes() -> Iterator[dict[int, "subprocess.Popen[bytes]"]]:
    """Hold the running processes; at the end, let them write a checkpoint and stop."""
    running: dict[int, subprocess.Popen[bytes]] = {}
    try:
        yield running
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()


def _results(folder: Path, seed: int) -> dict[str, Any]:
    """Return the metrics of a finished seed, else an empty table."""
    try:
        metrics = json.loads((folder / f"seed-{seed}" / METRICS).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(metrics, dict) or metrics.get("finished") is not True:
        return {}
    return {name: metrics[name] for name in (*_FIGURES, "epochs", "seconds") if metrics.get(name) is not None}


def _in_words(results: dict[str, Any]) -> str:
    shown = [name for name in _FIGURES if name in results and name.split("_")[0] == next(iter(results)).split("_")[0]]
    return ", ".join(
        f"{name.replace('_', ' ')} {100 * results[name]:.2f} %"
        if name.endswith("accuracy")
        else f"{name.replace('_', ' ')} {results[name]:.4g}"
        for name in shown
    )


def _last_line(folder: Path, seed: int) -> str:
    try:
        lines = (folder / f"seed-{seed}.log").read_text("utf-8", "replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1].removeprefix("gpunn: ") if lines else ""


def _write(folder: Path, rows: dict[int, dict[str, Any]]) -> None:
    names = [name for name in (*_FIGURES, "epochs") if any(name in row for row in rows.values())]
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["seed", *names])
    writer.writerows([seed, *(row.get(name, "") for name in names)] for seed, row in rows.items())
    write_atomically(folder / SEEDS, table.getvalue().encode())
