"""Signals at random moments of runs, and what is left of them: python -m support.killing --kills 200 [--signal INT]

Each run gets one signal, at any moment from its first checkpoint to its end, and then goes on; one experiment has a
checkpoint after every step, the other after every third. A checkpoint must be there that is whole, none may be damaged,
and the run must end in the bytes of one that nothing happened to. After INT and TERM the program must have ended by
itself, with 130 or 143 and no traceback.
"""

import argparse
import itertools
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from support.cli_helpers import WITHOUT_PICTURES, experiment_toml, results_of, start

from gpunn.saving.checkpointer import list_checkpoints, newest_checkpoint

CODES = {signal.SIGKILL: -signal.SIGKILL, signal.SIGINT: 130, signal.SIGTERM: 143}

DENSE = partial(
    experiment_toml,
    [{"type": "Dense", "units": 20}, {"type": "BatchNorm"}, {"type": "ReLU"}, {"type": "Dropout", "p": 0.2}],
    {"type": "SGD", "momentum": 0.9, "learning_rate": 0.1},
    batch_size=100, device="cpu",
)  # fmt: skip
CONVOLUTIONAL = partial(
    experiment_toml,
    [{"type": "Conv2D", "filters": 4}, *({"type": kind} for kind in ("BatchNorm", "ReLU", "Flatten")),
     {"type": "Dropout", "p": 0.1}],
    {"type": "Adam", "learning_rate": {"type": "OneCycle", "peak": 0.01}},
    data={"source": "digits", "limit": 400}, augmentation={"type": "Augmentation", "shift": 1.0, "rotation": 10.0},
    batch_size=30, device="cpu", validate_every=5, recompute_statistics=True,
)  # fmt: skip


class Killing:
    """Runs of one experiment, with so many steps between checkpoints, and one of them that nothing happens to."""

    def __init__(self, folder: Path, name: str, experiment: str, every: int) -> None:
        self.folder, self.name = folder, name
        (folder / f"{name}.toml").write_text(experiment)
        self._options = ("--recipe", f"{name}.toml", "--checkpoint-every", every)
        began = time.monotonic()
        process = self._begin(f"{name}-undisturbed")
        self._wait_for_checkpoint(f"{name}-undisturbed", process)
        self.first = time.monotonic() - began
        while not (folder / f"{name}-undisturbed" / "model.safetensors").exists():
            time.sleep(0.001)
        self.trained = time.monotonic() - began - self.first
        self._finished(process)
        self.ended = time.monotonic() - began - self.first
        self.expected = results_of(folder / f"{name}-undisturbed")

    def _start(self, *options: object) -> subprocess.Popen[str]:
        return start("train", *options, cwd=self.folder, program=WITHOUT_PICTURES)

    def _begin(self, run: str) -> subprocess.Popen[str]:
        return self._start(*self._options, "--out", run)

    def _wait_for_checkpoint(self, run: str, process: subprocess.Popen[str]) -> None:
        while not list_checkpoints(self.folder / run / "checkpoints"):
            assert process.poll() is None, process.communicate()
            time.sleep(0.001)

    def _finished(self, process: subprocess.Popen[str]) -> None:
        with process:
            out, err = process.communicate(timeout=600)
        assert process.returncode == 0, (out, err)

    def kill(self, number: int, after: float, sent: signal.Signals) -> str:
        """Send a run a signal so many seconds after its first checkpoint, go on, compare, and say when that was."""
        run = f"{self.name}-{number}"
        path = self.folder / run
        with self._begin(run) as process:
            self._wait_for_checkpoint(run, process)
            time.sleep(after)
            process.send_signal(sent)
            _, err = process.communicate(timeout=600)
        assert "Traceback" not in err
        # Python that is on its way out has put its handlers away: it dies of the signal, with all done.
        is_over = process.returncode == 0 or (process.returncode == -sent and _is_finished(path))
        assert is_over or process.returncode == CODES[sent], (process.returncode, err)
        is_saving = bool(list(path.glob("checkpoints/.*.tmp")))
        damaged: list[str] = []
        checkpoint = newest_checkpoint(path / "checkpoints", damaged.append)
        assert checkpoint is not None, f"{run}: no checkpoint"
        assert not damaged, damaged
        is_trained = checkpoint.step == list_checkpoints(self.folder / f"{self.name}-undisturbed" / "checkpoints")[0][0]
        if not _is_finished(path):
            self._finished(self._start("--resume", run))
        assert results_of(path) == self.expected, f"{run}: killed at step {checkpoint.step}, ends in other bytes"
        if is_over:
            return ""
        return "while saving" if is_saving else "while writing results" if is_trained else "in the training"


def _is_finished(path: Path) -> bool:
    metrics = path / "metrics.json"
    return metrics.exists() and json.loads(metrics.read_text())["finished"]


def kill_runs(
    folder: Path, kills: int, seed: int, epochs: int, sent: signal.Signals = signal.SIGKILL, say: Any = print
) -> Counter[str]:
    """Send so many runs a signal, and count when that was."""
    rng = random.Random(seed)
    experiments = (("dense", DENSE, 1), ("convolutional", CONVOLUTIONAL, 3))
    made = [Killing(folder, name, made_of(epochs=epochs), every) for name, made_of, every in experiments]
    for each in made:
        times = f"trained {each.trained:.1f} s and ended {each.ended:.1f} s later"
        say(f"{each.name}: first checkpoint after {each.first:.1f} s, {times}")
    moments: Counter[str] = Counter()
    for number in itertools.count():
        each = made[number % len(made)]
        when = each.kill(number, rng.uniform(0, each.ended), sent)
        if when:  # else it had ended before
            moments[when] += 1
            say(f"{moments.total()}/{kills}: {sent.name} {when}, went on to the same bytes")
        if moments.total() == kills:
            break
    return moments


def main() -> None:
    """Kill, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--signal", choices=["KILL", "INT", "TERM"], default="KILL")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sent = signal.Signals[f"SIG{options.signal}"]
        moments = kill_runs(Path(folder), options.kills, options.seed, options.epochs, sent)
    when = ", ".join(f"{count} {when}" for when, count in moments.most_common())
    print(f"{moments.total()} of {options.kills} went on to the same bytes; {options.signal} came {when}")


if __name__ == "__main__":
    sys.exit(main())
