"""The line that says how many kernels are compiled: true, once, and only where they are not in the cache."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from support.cli_helpers import experiment_toml

from backend.test_gpu_failures import program
from gpunn.backend.compiling import CompileProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_one_line_renews_itself_and_goes() -> None:
    stream = Terminal()
    with CompileProgress(stream=stream) as show:
        for number in (1, 2, 10):
            show(number, 10)
    lines = stream.getvalue().split("\r")
    assert lines[1:4] == [f"compiling kernels (only once, {number} of 10)" for number in (1, 2, 10)]
    assert lines[4:] == [" " * len(lines[3]), ""]
    assert "\n" not in stream.getvalue()


def test_in_a_log_it_is_one_line() -> None:
    stream = io.StringIO()
    with CompileProgress(stream=stream) as show:
        for number in range(1, 11):
            show(number, 10)
    assert stream.getvalue() == "compiling kernels (only once, 10 of them)\n"


def test_where_nothing_is_compiled_or_to_be_shown_there_is_no_line() -> None:
    stream = Terminal()
    with CompileProgress(stream=stream):
        pass
    with CompileProgress(shown=False, stream=stream) as show:
        show(1, 2)
    assert stream.getvalue() == ""


def test_of_a_temporary_cache_nobody_is_promised_that_it_is_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpunn.backend.compiling._instead", [Path("/tmp/gone")])
    stream = io.StringIO()
    with CompileProgress(stream=stream) as show:
        show(1, 3)
    assert stream.getvalue() == "compiling kernels (3 of them)\n"


SMALL = experiment_toml(
    [{"type": "Dense", "units": 8}, {"type": "ReLU"}], {"type": "SGD", "learning_rate": 0.1}, epochs=1, batch_size=128
)

# Every compilation and every kernel that is run, in their order, and the line as it is on a terminal.
TRACED = """
import sys
from simulated_cuda.installing import install
library = install()
from gpunn.backend.cuda import CupyBackend
from gpunn.cli import main
class Terminal:
    def __init__(self, stream): self.stream = stream
    def __getattr__(self, name): return getattr(self.stream, name)
    def isatty(self): return True
sys.stderr = Terminal(sys.stderr)
ahead = CupyBackend.compile_ahead
def count(name): return library.simulated_count(name.encode())
def traced(self, work, show):
    before = count("nvrtcCompileProgram"), count("cuLaunchKernel")
    ahead(self, work, show)
    print("ahead", count("nvrtcCompileProgram") - before[0], count("cuLaunchKernel") - before[1], flush=True)
CupyBackend.compile_ahead = traced
from gpunn.train.step import Step
compute = Step.compute
def computed(self, n):
    before = count("nvrtcCompileProgram")
    compute(self, n)
    print("step", count("nvrtcCompileProgram") - before, flush=True)
Step.compute = computed
main(sys.argv[1:])
"""


@pytest.mark.simulated_cuda
def test_kernels_are_counted_before_they_are_compiled_and_none_is_left_for_the_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.test_gpu_failures.PROGRAM", TRACED)
    (tmp_path / "small.toml").write_text(SMALL)
    cache = {"CUPY_CACHE_DIR": str(tmp_path / "cache")}
    arguments = ("train", "--recipe", "small.toml", "--device", "cuda", "--out")
    first = program(tmp_path, *arguments, "first", **cache)
    assert first.returncode == 0, first.stderr
    shown = re.findall(r"compiling kernels \(only once, (\d+) of (\d+)\)", first.stderr)
    numbers, counts = zip(*((int(number), int(count)) for number, count in shown), strict=True)
    ahead = [tuple(map(int, line.split()[1:])) for line in first.stdout.splitlines() if line.startswith("ahead")]
    assert counts[0] > 3
    assert numbers[: counts[0]] == tuple(range(1, counts[0] + 1))  # N of M, each once and to the end
    assert set(counts[: counts[0]]) == {counts[0]}
    assert ahead[0] == (counts[0], 0)  # so many were compiled, and none was run
    assert sum(compiled for compiled, _ in ahead) == len(numbers)
    steps = [int(line.split()[1]) for line in first.stdout.splitlines() if line.startswith("step")]
    assert len(steps) > 2
    assert set(steps) == {0}

    again = program(tmp_path, *arguments, "again", **cache)
    assert again.returncode == 0, again.stderr
    assert "compiling" not in again.stderr
    weights = [(tmp_path / run / "model.safetensors").read_bytes() for run in ("first", "again")]
    assert weights[0] == weights[1]

    np.save(tmp_path / "digit.npy", np.zeros((3, 8, 8), np.uint8))
    for command in (("evaluate", "first"), ("predict", "first", "digit.npy")):
        fresh = {"CUPY_CACHE_DIR": str(tmp_path / command[0])}
        done = program(tmp_path, *command, "--device", "cuda", **fresh)
        assert done.returncode == 0, done.stderr
        assert re.search(r"compiling kernels \(only once, 1 of \d+\)", done.stderr)
        done = program(tmp_path, *command, "--device", "cuda", **fresh)
        assert "compiling" not in done.stderr


@pytest.mark.simulated_cuda
def test_a_layer_that_reads_from_the_device_sees_what_was_computed_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = """
from simulated_cuda.installing import install
install()
import numpy as np
import gpunn as gn
from gpunn.nn.layers import BatchNorm
data = gn.load_data("digits")
def network():
    return gn.Sequential([gn.Dense(8), gn.BatchNorm(), gn.ReLU(), gn.Dense(10)])
means = []
for device in ("cuda", "cpu"):
    model = network()
    model.fit(data, epochs=1, device=device, recompute_statistics=True, progress=False)
    means.append(model.arrays()["batchnorm1.mean"])
assert np.allclose(*means, rtol=1e-4, atol=1e-5), means
"""
    monkeypatch.setattr("backend.test_gpu_failures.PROGRAM", script)
    done = program(tmp_path, CUPY_CACHE_DIR=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("compiling") <= 1
