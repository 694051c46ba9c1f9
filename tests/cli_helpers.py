"""Running the program in this process, as a terminal would, and what every failure of it looks like."""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent

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
def _kept_signal() -> Iterator[None]:
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)


def gpunn(*arguments: object) -> Done:
    """`gpunn ARGUMENTS` in this process."""
    from gpunn.cli import main

    out, err = io.StringIO(), io.StringIO()
    code = 0
    with redirect_stdout(out), redirect_stderr(err), _kept_signal():
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Done(code, out.getvalue(), err.getvalue())


def start(*arguments: object, cwd: Path, **environment: str) -> subprocess.Popen[str]:
    """`python -m gpunn ARGUMENTS` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "gpunn", *map(str, arguments)],
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
