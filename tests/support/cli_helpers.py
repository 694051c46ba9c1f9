"""Running the program in this process, as a terminal would, and what every failure of it looks like."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tomli_w
from support.paths import ROOT

import gpunn as gn

# Two steps an epoch: enough for every line of a run.
TINY = """
name = "tiny"
[data]
source = "digits"
[training]
epochs = 2
batch_size = 700
device = "cpu"
[[layers]]
type = "Dense"
units = "outputs"
[optimizer]
type = "SGD"
learning_rate = 0.1
"""


def experiment_toml(layers: list[dict[str, Any]], optimizer: dict[str, Any], **training: Any) -> str:
    """An experiment on the digits as TOML; what else stands beside [training] is given as a table."""
    tables = {key: training.pop(key) for key, value in list(training.items()) if isinstance(value, dict)}
    layers = [*layers, {"type": "Dense", "units": "outputs"}]
    usual = {"name": "small", "data": {"source": "digits"}, "training": training, "layers": layers}
    return tomli_w.dumps(usual | {"optimizer": optimizer} | tables)


WITHOUT_GPU = {"CUDA_VISIBLE_DEVICES": "-1"}


def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own, with the tiny experiment in it; to be made a fixture of."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GPUNN_DATA", raising=False)
    monkeypatch.delenv("GPUNN_DEBUG", raising=False)
    (tmp_path / "tiny.toml").write_text(TINY)
    return tmp_path


class Done(NamedTuple):
    """How a program ended, and what it said."""

    code: int
    out: str
    err: str


@contextmanager
def _kept_signals() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def gpunn(*arguments: object) -> Done:
    """`gpunn ARGUMENTS` in this process."""
    from gpunn.backend import cuda_errors
    from gpunn.cli import main

    cuda_errors.sticky_errors.clear()  # a device that a test before has lost: the program would end this very process
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with redirect_stdout(out), redirect_stderr(err), _kept_signals():
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Done(code, out.getvalue(), err.getvalue())


PROGRAM = ("-m", "gpunn")

_UNDRAWN = """
import sys
from gpunn.experiments import results
from gpunn.cli import main
results.draw_answers = results.draw_network = lambda *_, **__: []
results.plot_curves = lambda _, path, **__: path.write_bytes(b"")
main(sys.argv[1:])
"""
WITHOUT_PICTURES = ("-c", _UNDRAWN)
"""The program, but that it draws nothing: pictures take longer than tiny trainings, and have tests of their own."""


class Started(subprocess.Popen[str]):
    """A process that ends with its `with` where a test fails inside: to wait for it might take for ever."""

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            self.kill()
        super().__exit__(kind, *rest)


def start(*arguments: object, cwd: Path, program: tuple[str, str] = PROGRAM, **environment: str) -> Started:
    """`python -m gpunn ARGUMENTS` in a process of its own."""
    return Started(
        [sys.executable, *program, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Tests that run in the background of a shell ignore Ctrl-C, and what they start would too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def program(*arguments: object, cwd: Path, **environment: str) -> Done:
    """The same, waited for."""
    with start(*arguments, cwd=cwd, **environment) as process:
        out, err = process.communicate(timeout=120)
        return Done(process.returncode, out, err)


def assert_one_line(done: Done, code: int, *words: str) -> None:
    """The program failed with this code, and said why in one line that has these words."""
    assert done.code == code, done
    lines = done.err.splitlines()
    assert len(lines) == 1, done.err
    assert lines[0].startswith("gpunn: ")
    assert len(lines[0]) < 600
    assert "Traceback" not in done.err
    assert "defect" not in done.err
    for word in words:
        assert word in lines[0], f"{word!r} is not in {lines[0]!r}"


def results_of(path: Path) -> dict[str, Any]:
    """What a run has computed, to the last bit: all that it wrote but for times and paths."""
    from gpunn.saving.checkpointer import list_checkpoints

    with (path / "history.csv").open() as file:
        history = [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]
    metrics = json.loads((path / "metrics.json").read_text())
    for key in ("seconds", "samples_per_second", "device_description"):  # the last says how many threads BLAS has
        del metrics[key]
    newest = list_checkpoints(path / "checkpoints")[0][1]
    states = {name: (newest / name).read_bytes() for name in ("model.safetensors", "best.safetensors")}
    return {"model": (path / "model.safetensors").read_bytes(), "history": history, "metrics": metrics} | states


def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs in this process draw nothing; see WITHOUT_PICTURES."""
    from gpunn.experiments import results

    for name in ("draw_answers", "draw_network"):
        monkeypatch.setattr(results, name, lambda *_, **__: [])
    monkeypatch.setattr(results, "plot_curves", lambda _, path, **__: path.write_bytes(b""))


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A disk of so many bytes ("64k") below a folder, which only root can mount."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    path = folder / "disk"
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a small disk")
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


def assert_resumes_to_the_same_bytes(folder: Path, recipe: str, samples: gn.Samples) -> None:
    """Train a recipe on arrays.npz in the current folder, then resume from step 10 as if it had been killed."""
    np.savez(folder / "arrays.npz", x_train=samples.inputs, y_train=samples.targets)
    (folder / "own.toml").write_text(recipe)
    assert (ran := gpunn("train", "--recipe", "own.toml", "--out", "run")).code == 0, ran.err
    whole = (folder / "run" / "model.safetensors").read_bytes()
    (folder / "run" / "metrics.json").unlink()
    resumed = gpunn("train", "--resume", "run/checkpoints/step-10")
    assert resumed.code == 0, resumed.err
    assert "from step 10" in resumed.out + resumed.err
    assert (folder / "run" / "model.safetensors").read_bytes() == whole
