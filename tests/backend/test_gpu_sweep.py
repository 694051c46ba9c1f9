"""Every function of CUDA that a training calls, failing at its first, a later and every call, by the codes of CUDA.

Whatever fails where: the training goes on or ends at once, in one line that names the cause and what to do, and leaves
nothing else on standard error. Which failure meets which place is drawn anew each time; `SWEEP_SEED` draws it again.
"""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT, TESTS

from backend.test_compiling import SMALL

pytestmark = pytest.mark.simulated_cuda

# A process that has imported everything is forked for each case, before CUDA begins: that takes half a second less.
SWEEP = """
import json, os, sys, tempfile, time
from simulated_cuda.installing import install
install()
import cupy
from nvmath.bindings import cublas
import gpunn.cli, gpunn.experiments.run, gpunn.saving.checkpointer, gpunn.cli.doctor
from gpunn.experiments import results
results.draw_answers = results.draw_network = lambda *_, **__: []
results.plot_curves = lambda _, path, **__: path.write_bytes(b"")

def tried(variables, device, number):
    folder = f"case-{number}"
    os.mkdir(folder)
    child = os.fork()
    if not child:
        for stream, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{folder}/{name}", os.O_CREAT | os.O_WRONLY | os.O_APPEND), stream)
        os.environ.update(variables)
        gpunn.cli.main(["train", "--recipe", "small.toml", "--device", device, "--out", f"{folder}/run"])
    end, code = time.monotonic() + 100, None
    while code is None and time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        code = os.waitstatus_to_exitcode(status) if done else time.sleep(0.01)
    if code is None:
        os.kill(child, 9)
        os.waitpid(child, 0)
    return code, *(open(f"{folder}/{name}").read() for name in ("out", "err"))

for number, (variables, device) in enumerate(json.load(sys.stdin)):
    print(json.dumps(tried(variables, device, number)), flush=True)
"""

CUDA = (1, 2, 3, 46, 100, 201, 214, 222, 304, 700, 719, 801, 802, 803, 804, 999)
CUBLAS = (1, 3, 7, 8, 11, 13, 14, 15)
NVRTC = (1, 2, 3, 4, 5, 6, 7, 11)

# How often each is called by the training of SMALL.
CALLS = {
    "cuLaunchKernel": 100, "cuModuleGetFunction": 9, "cuModuleLoadData": 9, "cublasCreate_v2": 1,
    "cublasLtCreate": 1, "cublasLtMatmul": 30, "cublasLtMatmulAlgoCheck": 17, "cublasLtMatmulAlgoGetHeuristic": 17,
    "cublasLtMatmulDescCreate": 17, "cublasLtMatrixLayoutCreate": 51, "cublasSetStream_v2": 1,
    "cublasSetWorkspace_v2": 1, "cudaEventCreateWithFlags": 15, "cudaEventDestroy": 15,
    "cudaEventQuery": 15, "cudaEventRecord": 15, "cudaFree": 3, "cudaGetDevice": 900, "cudaGraphDestroy": 2,
    "cudaGraphInstantiate": 2, "cudaGraphLaunch": 3, "cudaHostAlloc": 8, "cudaMalloc": 16, "cudaMemGetInfo": 6,
    "cudaMemcpyAsync": 50, "cudaMemsetAsync": 30, "cudaSetDevice": 250, "cudaStreamBeginCapture": 2,
    "cudaStreamCreateWithPriority": 2, "cudaStreamEndCapture": 2, "cudaStreamIsCapturing": 45,
    "cudaStreamSynchronize": 60, "nvrtcCompileProgram": 9,
}  # fmt: skip


def swept(folder: Path, cases: list[tuple[dict[str, str], str]]) -> list[tuple[int | None, str, str]]:
    """Exit code, output and errors of each case."""
    (folder / "small.toml").write_text(SMALL)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FAKECUDA_", "CUDA_", "SLURM"))}
    paths = {"PYTHONPATH": os.pathsep.join([str(TESTS), str(ROOT)]), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SWEEP], input=json.dumps(cases), cwd=folder, env=kept | paths, capture_output=True,
        text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def wrong(code: int | None, out: str, err: str) -> str:
    """What is wrong with how a case ended; "" where nothing is."""
    # What goes more slowly is said when it begins, whatever comes then.
    slower = ("cublasLt ", "training kernel by kernel, ", "training with a graph a step, ", "going on with the CPU: ")
    going_on = ("epoch ", "compiling kernels (", *slower)
    lines = [line for line in err.splitlines() if not line.startswith(going_on)]
    if code not in (0, 1):
        return "it hangs" if code is None else f"it ends with {code}"
    for word in ("Traceback", "Exception ignored", "a defect of gpunn"):
        if word in err:
            return f"it says {word!r}"
    if code == 1:
        if len(lines) != 1 or not lines[0].startswith("gpunn: "):
            return f"it ends with {len(lines)} lines"
        if not any(f"({library} error " in lines[0] for library in ("CUDA", "cuBLAS", "NVRTC")):
            return "" if "memory" in lines[0] else "it names no error"
        return "" if ": " in lines[0].rpartition("error ")[2] else "it says nothing of what to do"
    if lines:
        return "it goes on and says something else"
    return "" if "test accuracy" in out else "it has trained nothing"


def test_whatever_fails_where_is_one_line_that_names_it(tmp_path: Path) -> None:
    seed = int(os.environ.get("SWEEP_SEED", random.randrange(10**6)))
    draw = random.Random(seed)
    cases: list[tuple[dict[str, str], str]] = []
    for function, calls in CALLS.items():
        codes = CUBLAS if function.startswith("cublas") else NVRTC if function.startswith("nvrtc") else CUDA
        for place in ("1:{}:on", f"{draw.randint(1, calls)}:{{}}{draw.choice(('', ':on'))}"):
            fresh = {"CUPY_CACHE_DIR": str(tmp_path / f"cache-{len(cases)}")} if function.startswith("nvrtc") else {}
            failure = f"{function}:{place.format(draw.choice(codes))}"
            cases.append(({"FAKECUDA_FAIL": failure, **fresh}, draw.choice(("cuda", "auto"))))
    ended = swept(tmp_path, cases)
    assert len(ended) == len(cases)
    found = [f"{case}: {what}\n{one[2]}" for case, one in zip(cases, ended, strict=True) if (what := wrong(*one))]
    assert not found, f"SWEEP_SEED={seed}\n" + "\n".join(found)
    assert {code for code, _, _ in ended} == {0, 1}
