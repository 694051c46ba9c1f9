"""A GPU that misbehaves, at a given call by a given code: the training goes on, or ends in one line that mends it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT, TESTS

from gpunn.backend import cuda_errors
from gpunn.backend.cuda_errors import CUBLAS, CUDA, NVRTC, meaning, message

PROGRAM = """
import sys
from simulated_cuda.installing import install
install()
from gpunn.cli import main
main(sys.argv[1:])
"""


def program(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The program on the simulated CUDA, whose failures environment variables plan."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FAKECUDA_", "CUDA_", "SLURM"))}
    paths = {"PYTHONPATH": os.pathsep.join([str(TESTS), str(ROOT)]), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], cwd=folder, env=kept | paths | variables,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    assert "a defect of gpunn" not in done.stderr
    return done


def train(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return program(folder, "train", "--epochs", "1", *arguments, **variables)


simulated = pytest.mark.simulated_cuda

# Devices that cannot be used, and what is said of each.
UNUSABLE = [
    ({"FAKECUDA_CONTEXT": "46"}, "nvidia-smi -c 0"),
    ({"FAKECUDA_CONTEXT": "214"}, "nvidia-smi -r"),
    ({"FAKECUDA_CONTEXT": "2"}, "the GPU's memory is full"),
    ({"FAKECUDA_CONTEXT": "102"}, "licence server"),
    ({"FAKECUDA_FAIL": "cublasCreate_v2:1:1:on"}, "cuBLAS could not be started"),
    ({"FAKECUDA_FAIL": "cublasCreate_v2:1:3:on"}, "the GPU's memory is full"),
    ({"FAKECUDA_MEMORY": "20000000"}, "the GPU's memory is full"),  # no room for the workspace of cuBLAS
    ({"FAKECUDA_FAIL": "cudaMemGetInfo:1:999:on"}, "modprobe nvidia_uvm"),
    ({"FAKECUDA_FAIL": "cublasLtMatmul:1:13:on"}, "a kernel of cuBLAS failed"),
    ({"FAKECUDA_STICKY": "1:719"}, "fallen off its bus"),
]


@simulated
@pytest.mark.parametrize(("failure", "said"), UNUSABLE, ids=lambda value: str(value)[:40])
def test_auto_goes_on_with_the_cpu_and_says_why(tmp_path: Path, failure: dict[str, str], said: str) -> None:
    done = train(tmp_path, **failure)
    assert done.returncode == 0, done.stderr
    device = done.stdout.splitlines()[0]
    assert re.match(r"device +CPU, .*\(no CUDA: ", device)
    assert said in device


@simulated
@pytest.mark.parametrize(("failure", "said"), UNUSABLE[:1] + UNUSABLE[-1:], ids=lambda value: str(value)[:40])
def test_cuda_ends_with_the_mend_of_that_very_code(tmp_path: Path, failure: dict[str, str], said: str) -> None:
    done = train(tmp_path, "--device", "cuda", **failure)
    assert done.returncode == 1
    assert said in done.stderr.splitlines()[-1]
    assert "or take --device cpu" in done.stderr.splitlines()[-1]


@simulated
@pytest.mark.parametrize(
    ("failure", "name"),
    [
        ({"FAKECUDA_CONTEXT": "46"}, "cuda:0"),
        ({"FAKECUDA_FAIL": "cublasCreate_v2:1:1:on"}, "cuBLAS handle"),
        ({"FAKECUDA_FAIL": "cuLaunchKernel:1:700:on"}, "kernel"),
        ({"FAKECUDA_FAIL": "cublasLtMatmul:1:13:on"}, "product"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_the_first_line_of_the_doctor_that_is_missing_is_the_true_cause(
    tmp_path: Path, failure: dict[str, str], name: str
) -> None:
    done = program(tmp_path, "doctor", **failure)
    assert done.returncode == 1
    found = [line for line in done.stdout.splitlines() if line.startswith("missing")]
    assert len(found) == 1
    assert found[0].split(maxsplit=1)[1].startswith(name), done.stdout
    assert "    -> " in done.stdout


@simulated
def test_a_device_that_is_lost_leaves_the_weights_of_the_last_record_and_the_way_to_go_on(tmp_path: Path) -> None:
    done = train(tmp_path, "--out", "run", FAKECUDA_STICKY="200:700")
    assert done.returncode == 1
    assert len([line for line in done.stderr.splitlines() if not line.startswith("epoch")]) == 1  # no destructors
    assert "--resume" in done.stderr
    assert "gpunn train --resume run goes on from there" in done.stdout
    assert (tmp_path / "run" / "model.safetensors").is_file()
    again = program(tmp_path, "train", "--resume", "run", "--device", "cpu")
    assert again.returncode == 0, again.stderr


@simulated
@pytest.mark.parametrize(
    ("failure", "said"),
    [
        ("cudaStreamBeginCapture:1:801:on", "training kernel by kernel, not by graph: "),
        ("cudaStreamEndCapture:1:901", "training kernel by kernel, not by graph: "),
        ("cudaGraphInstantiate:1:2:on", "training kernel by kernel, not by graph: "),
        ("cudaGraphLaunch:3:2", "its replay was refused"),
        ("cudaGraphLaunch:1:801:on", "its replay was refused"),
    ],
)
def test_where_a_graph_is_refused_the_training_goes_on_kernel_by_kernel_to_the_same_numbers(
    tmp_path: Path, failure: str, said: str
) -> None:
    done = train(tmp_path, "--device", "cuda", "--out", "run", FAKECUDA_FAIL=failure)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(said) == 1
    whole = train(tmp_path, "--device", "cuda", "--out", "whole")
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("run", "whole")]
    assert whole.returncode == 0
    assert weights[0] == weights[1]


STREAMED = """
from simulated_cuda.installing import install
install()
import gpunn as gn
data = gn.load_data("digits")
model = gn.Sequential([gn.Dense(32), gn.ReLU(), gn.Dense(10)])
model.fit(data, epochs=1, batch_size=128, device="cuda", data_on="host")
"""


@simulated
@pytest.mark.parametrize("code", ["2", "304", "801"])
def test_where_pinned_memory_is_refused_data_are_streamed_without(
    tmp_path: Path, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "PROGRAM", STREAMED)
    done = program(tmp_path, FAKECUDA_FAIL=f"cudaHostAlloc:1:{code}:on")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("pinned memory was refused") == 1
    assert "Warning" not in done.stderr


@simulated
@pytest.mark.parametrize("where", ["nowhere", "a file", "full"])
def test_a_kernel_cache_that_cannot_be_used_is_named_once_and_the_training_goes_on(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").touch()
    cache = {"nowhere": "/proc/nowhere", "a file": str(tmp_path / "file"), "full": "/dev/full/cache"}[where]
    done = train(tmp_path, "--device", "cuda", CUPY_CACHE_DIR=cache)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(f"the kernel cache {cache} cannot be used") == 1
    assert "export CUPY_CACHE_DIR=FOLDER" in done.stderr


def test_a_user_without_a_home_compiles_into_a_temporary_folder(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpunn.backend import compiling
    from gpunn.cli.doctor import _folder_findings

    def nobody(_uid: int) -> None:
        raise KeyError

    monkeypatch.setattr("pwd.getpwuid", nobody)
    monkeypatch.setattr(compiling, "_instead", [])
    monkeypatch.delenv("HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(compiling.VARIABLE, "")
    assert [found.status for found in _folder_findings() if found.name == "kernel cache"] == ["warn"]
    compiling.prepare_cache()
    assert [Path(os.environ[compiling.VARIABLE])] == compiling._instead
    assert "export CUPY_CACHE_DIR=FOLDER" in caplog.text


def test_a_cache_that_fails_later_moves_to_a_temporary_folder(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    from gpunn.backend.compiling import tolerate

    monkeypatch.setattr("gpunn.backend.compiling._instead", [])  # to no other test the cache has moved

    class Disk:
        def __init__(self, folder: str) -> None:
            self._cache_dir = folder

        def _path(self, name: str) -> Path:
            if self._cache_dir == str(tmp_path):
                raise PermissionError(13, "Permission denied")
            return Path(self._cache_dir) / name

        def load(self, name: str) -> bytes | None:
            return self._path(name).read_bytes() if self._path(name).exists() else None

        def save(self, name: str, cubin: bytes, source: str) -> None:
            self._path(name).write_bytes(cubin)

    compiler = SimpleNamespace(_kernel_cache_backend=Disk(str(tmp_path)))
    compiler._set_kernel_cache_backend = lambda backend: setattr(compiler, "_kernel_cache_backend", backend)
    tolerate(compiler)
    cache = compiler._kernel_cache_backend
    assert cache.load("k") is None
    cache.save("k", b"1", "")
    assert cache.load("k") == b"1"
    assert len(caplog.records) == 1
    tolerate(compiler)
    assert compiler._kernel_cache_backend is cache


# Codes


@pytest.mark.parametrize("code", [1, 2, 3, 34, 46, 100, 214, 222, 700, 719, 802, 803, 804, 999, 12345])
def test_every_code_is_one_line_with_what_to_do(code: int) -> None:
    for library in ("CUDA", "cuBLAS", "NVRTC"):
        said = message(library, code, "in its own words")
        assert "\n" not in said
        assert f"({library} error {code}, in its own words): " in said
        assert len(said) < 560  # beside "device 'cuda' cannot be used", none of it is cut


@pytest.mark.parametrize("code", [700, 702, 714, 715, 716, 717, 718, 719, 214, 999, 710])
def test_errors_that_stay_are_known_to_stay(code: int) -> None:
    assert meaning("CUDA", code).is_sticky
    assert "--resume" in meaning("CUDA", code).mend


@pytest.mark.parametrize("code", [2, 46, 100, 801, 802, 803, 804, 900, 901])
def test_errors_that_pass_are_known_to_pass(code: int) -> None:
    assert not meaning("CUDA", code).is_sticky


@pytest.mark.parametrize("scheduler", ["SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID"])
def test_under_a_scheduler_nobody_is_told_to_unset_what_it_set(monkeypatch: pytest.MonkeyPatch, scheduler: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert meaning("CUDA", 100).mend == "unset CUDA_VISIBLE_DEVICES"
    monkeypatch.setenv(scheduler, "7")
    for code in (*CUDA, 12345):
        assert "unset CUDA_VISIBLE_DEVICES" not in meaning("CUDA", code).mend


def test_the_table_on_the_page_is_that_of_the_code() -> None:
    page = (ROOT / "docs" / "gpu.md").read_text("utf-8")
    assert cuda_errors.table() in page
    assert len(CUDA) + len(CUBLAS) + len(NVRTC) > 80


FOREIGN = """
from simulated_cuda.installing import install
install()
import cupy
import numpy as np
import gpunn as gn

class Tensor:  # as one of PyTorch on a CUDA device, which wants a gradient
    def __init__(self, array, wants=True):
        self.array, self.wants, self.shape, self.dtype, self.ndim = array, wants, array.shape, array.dtype, array.ndim
    def detach(self):
        return Tensor(self.array, False)
    @property
    def __cuda_array_interface__(self):
        if self.wants:
            raise RuntimeError("Can't get __cuda_array_interface__ on Variable that requires grad")
        return self.array.__cuda_array_interface__
    def __array__(self, *arguments, **options):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")
    def __len__(self):
        return len(self.array)

data = gn.load_data("digits")
x, y = (np.asarray(array) for array in (data.train.inputs, data.train.targets))
found = []
for wrapped in (lambda a: a, cupy.asarray, lambda a: Tensor(cupy.asarray(a))):
    model = gn.Sequential([gn.Dense(8), gn.ReLU(), gn.Dense(10)])
    model.fit((wrapped(x), wrapped(y)), epochs=1, device="cuda", progress=False)
    found.append((model.predict(wrapped(x[:50])), model.predict_proba(wrapped(x[:50]))))
assert all(np.array_equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))
"""

FORKED = """
import os
from simulated_cuda.installing import install
install()
import gpunn as gn
from gpunn.errors import GpunnError

data = gn.load_data("digits")

def fit(device):
    model = gn.Sequential([gn.Dense(8), gn.ReLU(), gn.Dense(10)])
    model.fit(data, epochs=1, device=device, progress=False)
    return model

model = fit("cuda")
for attempt in (lambda: fit("cuda"), lambda: model.predict(data.train.inputs[:3]), lambda: fit("auto").backend.reason):
    child = os.fork()
    if not child:
        try:
            print(attempt(), flush=True)
        except GpunnError as error:
            print(error, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


@simulated
def test_arrays_of_cupy_and_of_pytorch_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "PROGRAM", FOREIGN)
    done = program(tmp_path)
    assert done.returncode == 0, done.stderr


@simulated
def test_a_forked_process_is_told_to_be_spawned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "PROGRAM", FORKED)
    done = program(tmp_path)
    lines = done.stdout.splitlines()
    assert len(lines) == 3, done.stdout + done.stderr
    assert all("multiprocessing.get_context('spawn')" in line for line in lines), lines
    assert lines[2].startswith("no CUDA: ")
