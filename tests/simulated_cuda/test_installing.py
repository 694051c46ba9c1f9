"""The simulated CUDA is what CuPy and nvmath find, and nothing of CUDA is left beside it."""

import json

import pytest

from simulated_cuda import installing
from simulated_cuda.core import Core
from simulated_cuda.processes import python


def test_the_wheels_are_the_real_ones_and_their_cuda_is_ours(cuda: Core) -> None:
    assert cuda.cupy.__version__ == installing.wheel().version
    assert cuda.cupy.cuda.runtime.getDeviceProperties(0)["name"].startswith(b"simulated device")
    before = cuda.count("cudaMalloc")
    cuda.cupy.cuda.runtime.free(cuda.cupy.cuda.runtime.malloc(1000))
    assert cuda.count("cudaMalloc") == before + 1


def test_a_function_that_is_not_simulated_says_its_name(cuda: Core, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(cuda.cupy.cuda.runtime.CUDARuntimeError, match="cudaErrorNotSupported"):
        cuda.cupy.cuda.runtime.deviceGetLimit(0)
    assert "cudaDeviceGetLimit is not implemented" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("for n, w in WHEELS.items(): WHEELS[n] = w._replace(version='14.1.9')", "is made for cupy"),
        ("for n, w in WHEELS.items(): WHEELS[n] = w._replace(functions=436)", "functions of the CUDA"),
        ("installing.functions_in = lambda path: {}", "holds 0 functions of the CUDA runtime"),
    ],
)  # fmt: skip
def test_another_wheel_is_refused_loudly(change: str, reason: str) -> None:
    imports = "from simulated_cuda import installing; from simulated_cuda.installing import WHEELS"
    done = python("-c", f"{imports}\n{change}\ninstalling.install()", PYTHONPATH=str(installing.HERE.parent))
    assert done.returncode == 1
    assert reason in done.stderr
    assert "NotSimulatedError" in done.stderr


def test_a_failure_is_given_by_function_and_place() -> None:
    code = "from gpunn.backend import select\nfor n in range(2, 6): select('cuda').empty((n << 20,), 'f4'); print(n)"
    whole, broken = python("-c", code), python("-c", code, fail="cudaMalloc:3:2:on", log=1)
    assert whole.stdout.split() == ["2", "3", "4", "5"], whole.stderr
    assert broken.returncode == 1
    assert "simulated CUDA: cudaMalloc -> 2" in broken.stderr
    # The third is of the trial of the device, so none of the arrays is made.
    assert broken.stdout == ""
    said = "gpunn.errors.DeviceError: device 'cuda' cannot be used: the GPU's memory is full (CUDA error 2"
    assert broken.stderr.splitlines()[-1].startswith(said)


def test_the_program_runs_on_it_from_a_process_of_its_own() -> None:
    done = python("-m", "gpunn", "doctor")
    assert "simulated device" in done.stdout, done.stdout + done.stderr
    assert "agree with NumPy" in done.stdout
    assert done.returncode == 0


def test_what_another_installation_compiled_is_compiled_again_with_the_headers_that_are_here(cuda: Core) -> None:
    source = '#include <cupy/complex.cuh>\nextern "C" __global__ void of_another_installation(float* x) { x[0] = 1; }'
    options = ["-I/no/such/folder/cupy/_core/include", "--std=c++17", "-ftz=true", "-arch=sm_90"]
    kept = cuda.compiler.folder / "of-another-installation.json"
    kept.write_text(json.dumps({"source": source, "options": options}), "utf-8")
    try:
        (found,) = [one for one in cuda.compiler.compiled() if one[0] == source]
        cuda.compiler.library(*found).unlink()
    finally:
        kept.unlink()
        for made in cuda.compiler.folder.glob("*.json"):
            if "of_another_installation" in made.read_text("utf-8"):
                made.unlink()
