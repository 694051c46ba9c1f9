"""A compiler or a CuPy that fails, before a training or in the middle of it, and the driver of WSL2."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.stub_driver import stub_driver

from backend.test_compiling import SMALL
from backend.test_gpu_failures import program
from gpunn.backend import cuda_errors
from gpunn.backend import driver as nvidia
from gpunn.backend.driver import Driver, fitting_extra

simulated = pytest.mark.simulated_cuda


def train(folder: Path, device: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A training whose kernels are all to be compiled."""
    (folder / "small.toml").write_text(SMALL)
    cache = {"CUPY_CACHE_DIR": str(folder / "cache")}
    return program(
        folder, "train", "--recipe", "small.toml", "--device", device, "--out", f"run-{device}", **cache | variables
    )


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that is said, but for that of compiling."""
    lines = [line for line in done.stderr.splitlines() if not line.startswith("compiling kernels (")]
    assert done.returncode == 1, done.stderr
    assert len(lines) == 1, done.stderr
    return lines[0]


# The first program is empty, and the second is that of the kernel by which a device is tried.
@simulated
@pytest.mark.parametrize("device", ["auto", "cuda"])
@pytest.mark.parametrize(
    ("failure", "said"),
    [
        ("4:6:on", "NVRTC could not compile a kernel (NVRTC error 6)"),  # its log is empty
        ("6:6", "NVRTC could not compile a kernel (NVRTC error 6)"),
        ("5:1:on", "NVRTC got no memory of the host (NVRTC error 1)"),
        ("6:7:on", "NVRTC lacks its builtins, libnvrtc-builtins, of its very version (NVRTC error 7)"),
        ("7:11", "NVRTC failed inside (NVRTC error 11)"),
    ],
)
def test_a_compiler_that_fails_in_the_middle_is_one_line_with_what_to_do(
    tmp_path: Path, device: str, failure: str, said: str
) -> None:
    done = train(tmp_path, device, FAKECUDA_FAIL=f"nvrtcCompileProgram:{failure}")
    if device == "auto":
        assert done.returncode == 0, done.stderr
        (line,) = (line for line in done.stderr.splitlines() if not line.startswith(("compiling kernels (", "epoch ")))
        assert line.startswith(f"going on with the CPU: {said}: ")
    else:
        line = last_line(done)
        assert line.startswith(f"gpunn: {said}: ")
    assert "run gpunn doctor" in line or "end other programs" in line


@simulated
@pytest.mark.parametrize("failure", ["1:6:on", "2:6:on", "2:7:on", "2:1:on"])
def test_a_compiler_that_fails_at_once_lets_auto_go_on_with_the_cpu(tmp_path: Path, failure: str) -> None:
    done = train(tmp_path, "auto", FAKECUDA_FAIL=f"nvrtcCompileProgram:{failure}")
    assert done.returncode == 0, done.stderr
    assert "(no CUDA: NVRTC " in done.stdout.splitlines()[0]
    assert "or take --device cpu" in last_line(train(tmp_path, "cuda", FAKECUDA_FAIL=f"nvrtcCompileProgram:{failure}"))


@simulated
def test_the_real_nvrtc_without_its_builtins_is_known_by_its_log(tmp_path: Path) -> None:
    from simulated_cuda.installing import real_nvrtc

    alone = tmp_path / "alone" / real_nvrtc().name
    alone.parent.mkdir()
    try:
        os.link(real_nvrtc(), alone)
    except OSError:  # another disk
        alone.write_bytes(real_nvrtc().read_bytes())
    done = train(tmp_path, "auto", FAKECUDA_NVRTC=str(alone), LD_LIBRARY_PATH="")
    device = done.stdout.splitlines()[0]
    assert done.returncode == 0, done.stderr
    assert "no CUDA: NVRTC lacks its builtins, libnvrtc-builtins, of its very version (NVRTC error 7" in device


BROKEN = """
import sys
from simulated_cuda.installing import install
install()
class Loader:
    def find_spec(self, name, path=None, target=None):
        if name == "cupy._core":
            raise ImportError("/lib/libstdc++.so.6: version `{}' not found (required by /site/cupy/_core/core.so)")
sys.meta_path.insert(0, Loader())
from gpunn.cli import main
main(sys.argv[1:])
"""


@simulated
@pytest.mark.parametrize(
    ("version", "mend"),
    [
        ("GLIBCXX_3.4.30", "older libstdc++"),
        ("CXXABI_1.3.13", "older libstdc++"),
        ("GLIBC_2.34", "this system is older"),
    ],
)
def test_a_cupy_that_finds_an_older_library_of_the_system_is_told_from_one_that_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, mend: str
) -> None:
    monkeypatch.setattr("backend.test_gpu_failures.PROGRAM", BROKEN.replace("{}", version))
    done = train(tmp_path, "auto")
    assert done.returncode == 0, done.stderr
    device = done.stdout.splitlines()[0]
    assert "no CUDA: CuPy cannot be imported (ImportError: /lib/libstdc++.so.6: version" in device
    assert version in device
    assert mend in device
    line = last_line(train(tmp_path, "cuda"))
    assert line.startswith("gpunn: device 'cuda' cannot be used: CuPy cannot be imported")
    assert version in line
    assert mend in line
    found = [line for line in program(tmp_path, "doctor").stdout.splitlines() if line.startswith("missing")]
    assert len(found) == 1
    assert "CuPy import" in found[0]


# WSL2

ASK = "import sys\nfrom gpunn.backend import driver\ndriver.WSL_DRIVER = sys.argv[1]\nprint(driver.read_driver())"


def test_the_library_that_windows_brings_is_found_where_the_loader_does_not_look() -> None:
    kept = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
    environment = kept | {"PYTHONPATH": str(Path(nvidia.__file__).parents[2]), "S_VERSION": "12060"}
    for folder, found in ((stub_driver(), "version=12060"), (Path("/nowhere"), "no NVIDIA driver was found")):
        command = [sys.executable, "-c", ASK, str(folder / "libcuda.so.1")]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env=environment)
        assert found in done.stdout


@pytest.mark.parametrize("code", [35, 36, 100, 304, 500, 803, 999])
def test_under_wsl2_the_driver_is_mended_in_windows(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(cuda_errors, "is_wsl", lambda: True)
    assert cuda_errors.meaning("CUDA", code).mend == cuda_errors.WSL_MEND
    for driver in (Driver(12000, problem="it says no", code=code), Driver(problem=nvidia.NO_DRIVER)):
        assert fitting_extra(driver).mend.startswith("under WSL2 the driver is that of Windows")
