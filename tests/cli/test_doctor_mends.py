"""`gpunn doctor` in broken environments: its first line that is not ok is the cause, and the command it names mends it.

Each environment is real: a Python of its own with the real pip and the finder of libraries that CuPy uses, stand-in
wheels, libraries that can be loaded, and a stub of the driver. The commands are run as they are printed.
"""

import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from support.paths import ROOT
from support.stub_driver import stub_driver
from support.stub_wheels import CUDA_LIBRARIES, build_by_stub, make_cuda_wheels, make_wheel, offline

pytestmark = pytest.mark.simulated_cuda  # where CuPy's packages are installed, and with them the real finder

# As much of CuPy as is imported. Its device is in use by another: there these environments end.
CUPY = """
class CUDARuntimeError(RuntimeError):
    status = 46
def getDeviceCount():
    raise CUDARuntimeError("this is where the stub ends")
class cuda:
    class Device: pass
    class compiler: pass
    class runtime: pass
cuda.runtime.getDeviceCount = getDeviceCount
class ndarray: pass
class RawKernel: pass
__version__ = "14.2.0"
"""
END = ("cuda:0", "this is where the stub ends")

_OURS = re.compile(r"(cupy|cupyx|cupy_backends|nvidia|cuda|nvmath|gpunn|_editable_impl_gpunn|.*\.pth$|.*_cuda).*", re.I)


@functools.cache
def library(soname: str) -> bytes:
    """A library that has nothing in it but its name."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["g++", "-shared", "-x", "c++", "/dev/null", f"-Wl,-soname,{soname}", "-o", f"{folder}/made.so"]
        subprocess.run(command, check=True, timeout=60)
        return Path(folder, "made.so").read_bytes()


def libraries(cuda: int) -> dict[str, dict[str, bytes]]:
    """The files of the wheels of a CUDA, where they lie in the real ones."""
    suffix, made = ("", "-cu12")[cuda == 12], {}
    for name, wheel in CUDA_LIBRARIES.items():
        folder = "nvidia/cu13/lib" if cuda == 13 else f"nvidia/{wheel.removeprefix('nvidia-').replace('-', '_')}/lib"
        sonames = [f"lib{name}.so.{cuda}", *([f"libcublasLt.so.{cuda}"] if name == "cublas" else [])]
        made[f"{wheel}{suffix}"] = {f"{folder}/{soname}": library(soname) for soname in sonames}
    return made


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels") / "whole"
    bindings = {"nvmath-python": {"nvmath/__init__.py": "", "nvmath/bindings/__init__.py": "cublas = None\n"}}
    spec = importlib.util.find_spec("cuda.pathfinder")
    assert spec is not None
    assert spec.origin is not None
    found = Path(spec.origin).parent
    finder = {f"cuda/pathfinder/{path.relative_to(found)}": path.read_text("utf-8") for path in found.rglob("*.py")}
    make_cuda_wheels(folder, CUPY, {**libraries(12), **libraries(13), **bindings}, finder)
    return folder


class Line(NamedTuple):
    """A line of the doctor, and what it says below."""

    status: str
    name: str
    value: str
    mend: str


class Machine:
    """A computer with an NVIDIA GPU, a checkout of the project and an environment of its own."""

    def __init__(self, folder: Path, wheels: Path) -> None:
        self.folder, self.wheels, self.root = folder, wheels, folder / "a check out"
        shutil.copytree(ROOT / "gpunn", self.root / "gpunn", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", self.root)
        build_by_stub(self.root)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "env")], check=True, timeout=60)
        self.python = folder / "env" / "bin" / "python"
        self.site = next((folder / "env" / "lib").glob("python3*")) / "site-packages"
        plain = folder / "plain"
        plain.mkdir()
        for place in (Path(path) for path in sys.path if path.endswith("site-packages")):
            for path in place.iterdir():
                if not _OURS.fullmatch(path.name) and not (plain / path.name).exists():
                    (plain / path.name).symlink_to(path)
        (self.site / "plain.pth").write_text(str(plain))
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.state: dict[str, str] = {}  # of the driver, and what else a shell would have

    def install(self, *names: str, wheels: Path | None = None) -> None:
        """Unpack wheels, which is what pip does."""
        for name in names:
            with zipfile.ZipFile(next((wheels or self.wheels).glob(f"{name.replace('-', '_')}-*.whl"))) as wheel:
                wheel.extractall(self.site)

    def install_extra(self, cuda: int = 13) -> None:
        """What the extra of this CUDA consists of."""
        suffix = "" if cuda == 13 else "-cu12"
        names = (f"{name}{suffix}" for name in CUDA_LIBRARIES.values())
        self.install(f"cupy-cuda{cuda}x", "nvmath-python", "cuda-bindings", "cuda-toolkit", "cuda-pathfinder", *names)

    def install_own(self, name: str, version: str, files: dict[str, str] | None = None) -> None:
        """A package that is nowhere else."""
        folder = self.folder / f"own-{name}"
        folder.mkdir()
        make_wheel(folder, name, version, files=files)
        self.install(name, wheels=folder)

    def run(self, command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """A line of the shell."""
        env = {"PATH": f"{self.bin}:/usr/bin:/bin", "HOME": str(self.folder), "OPENBLAS_NUM_THREADS": "1"}
        env |= {"LD_LIBRARY_PATH": str(stub_driver()), "PYTHONPATH": str(self.root), **offline(self.wheels)}
        return subprocess.run(
            ["/bin/sh", "-c", command], cwd=self.folder, env=env | self.state | variables,
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    def doctor(self, before: str = "true") -> list[Line]:
        done = self.run(f"{before} && '{self.python}' -m gpunn doctor")
        assert "Traceback" not in done.stderr, done.stderr
        assert done.stderr == "", done.stderr
        assert done.returncode in (0, 1)  # 0 where the driver shows no GPU: then none is needed
        found: list[Line] = []
        for line in done.stdout.splitlines():
            if (parts := re.match(r"(ok|warn|missing) +(\S.*?)  +(\S.*)", line)) is not None:
                found.append(Line(parts[1], parts[2], parts[3], ""))
            else:
                mend = line.strip().removeprefix("-> ")
                names = range(len(found))
                found = [one._replace(mend=mend) if one.status != "ok" and not one.mend else one for one in found]
                assert names
        return found

    def cause(self, before: str = "true") -> Line:
        """The first line that is not ok."""
        return next(line for line in self.doctor(before) if line.status != "ok")

    def tool(self, name: str, script: str) -> None:
        """A program of the system, which changes the state of the stub."""
        (self.bin / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.bin / name).chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path, wheels: Path) -> Machine:
    return Machine(tmp_path, wheels)


def test_where_all_is_there_the_doctor_ends_with_the_gpu_itself(machine: Machine) -> None:
    machine.install_extra()
    cause = machine.cause()
    assert cause.name == END[0]
    assert END[1] in cause.value
    assert cause.mend.startswith("end the other process (nvidia-smi lists it)")


# What is broken, and how: each with the name of the line and words of it.

Breaking = Callable[[Machine], None]


def nothing_installed(machine: Machine) -> None:
    pass


def two_cupys(machine: Machine) -> None:
    machine.install_extra(12)
    machine.install_extra(13)


def cupy_of_cuda_11(machine: Machine) -> None:
    machine.install_extra()
    machine.run(f"'{machine.python}' -m pip uninstall -q -y cupy-cuda13x")
    machine.install_own("cupy-cuda11x", "13.6.0", {"cupy/__init__.py": CUPY})


def an_old_cupy(machine: Machine) -> None:
    machine.install_extra()
    machine.run(f"'{machine.python}' -m pip uninstall -q -y cupy-cuda13x")
    machine.install_own("cupy-cuda13x", "13.4.1", {"cupy/__init__.py": CUPY})


def a_driver_that_is_too_old_for_the_wheel(machine: Machine) -> None:
    machine.install_extra(13)
    machine.state["S_VERSION"] = "12080"


def a_gpu_that_is_too_old_for_the_wheel(machine: Machine) -> None:
    machine.install_extra(13)
    machine.state["S_CC"] = "61"


def old_nvmath(machine: Machine) -> None:
    machine.install_extra()
    machine.run(f"'{machine.python}' -m pip uninstall -q -y nvmath-python")
    machine.install_own("nvmath-python", "0.7.0")


def no_nvmath(machine: Machine) -> None:
    machine.install_extra()
    machine.run(f"'{machine.python}' -m pip uninstall -q -y nvmath-python")


def no_nvrtc(machine: Machine) -> None:
    machine.install_extra()
    machine.run(f"'{machine.python}' -m pip uninstall -q -y nvidia-cuda-nvrtc")


def a_cublas_whose_file_is_lost(machine: Machine) -> None:
    machine.install_extra()
    (machine.site / "nvidia/cu13/lib/libcublas.so.13").unlink()


def a_cupy_that_cannot_be_imported(machine: Machine) -> None:
    machine.install_extra()
    (machine.site / "cupy" / "__init__.py").write_text("raise ImportError('libcudart.so.13: cannot open')\n")


def a_cupy_of_which_half_is_there(machine: Machine) -> None:
    machine.install_extra()
    (machine.site / "cupy" / "__init__.py").write_text("")


def libraries_of_cuda_13_by_pytorch_and_a_newer_driver(machine: Machine) -> None:
    machine.install_extra(12)
    machine.install(*CUDA_LIBRARIES.values())


def libraries_of_cuda_13_by_pytorch_and_an_older_driver(machine: Machine) -> None:
    libraries_of_cuda_13_by_pytorch_and_a_newer_driver(machine)
    machine.state["S_VERSION"] = "12080"


BY_PIP: list[tuple[Breaking, str, str]] = [
    (nothing_installed, "CuPy", "not installed"),
    (two_cupys, "CuPy", "only one may be installed"),
    (cupy_of_cuda_11, "CuPy", "14.2 or newer is needed"),
    (an_old_cupy, "CuPy", "14.2 or newer is needed"),
    (a_driver_that_is_too_old_for_the_wheel, "CuPy", "the driver goes up to 12.8"),
    (a_gpu_that_is_too_old_for_the_wheel, "CuPy", "has dropped"),
    (old_nvmath, "nvmath", "1.0 or newer is needed"),
    (no_nvmath, "nvmath", "not installed"),
    (no_nvrtc, "NVRTC", "cannot be loaded"),
    (a_cublas_whose_file_is_lost, "cuBLAS", "cannot be loaded"),
    (a_cupy_that_cannot_be_imported, "CuPy import", "libcudart.so.13: cannot open"),
    (a_cupy_of_which_half_is_there, "CuPy import", "AttributeError"),
    (libraries_of_cuda_13_by_pytorch_and_a_newer_driver, "cuBLAS", "cuBLAS of CUDA 13 is loaded"),
    (libraries_of_cuda_13_by_pytorch_and_an_older_driver, "cuBLAS", "cuBLAS of CUDA 13 is loaded"),
]


@pytest.mark.parametrize(("broken", "name", "words"), BY_PIP, ids=lambda value: getattr(value, "__name__", ""))
def test_the_command_of_the_first_line_that_is_not_ok_mends_it(
    machine: Machine, broken: Breaking, name: str, words: str
) -> None:
    broken(machine)
    cause = machine.cause()
    assert (cause.status, cause.name) == ("missing", name), cause
    assert words in cause.value
    done = machine.run(cause.mend)
    assert done.returncode == 0, f"{cause.mend}\n{done.stdout}{done.stderr}"
    cause = machine.cause()
    assert cause.name == END[0], cause
    assert END[1] in cause.value


def test_a_toolkit_that_is_found_first_is_taken_out_of_the_way(machine: Machine) -> None:
    machine.install_extra(12)
    machine.run(f"'{machine.python}' -m pip uninstall -q -y nvidia-cublas-cu12")
    toolkit = machine.folder / "cuda-13" / "lib64"
    toolkit.mkdir(parents=True)
    for soname in ("libcublas.so.13", "libcublasLt.so.13"):
        (toolkit / soname).write_bytes(library(soname))
        (toolkit / soname.removesuffix(".13")).symlink_to(soname)
    machine.state |= {"LD_LIBRARY_PATH": f"{toolkit}:{stub_driver()}", "S_VERSION": "12080"}
    cause = machine.cause()
    assert (cause.status, cause.name) == ("missing", "cuBLAS"), cause
    assert cause.mend.startswith(f"take {toolkit} out of LD_LIBRARY_PATH")
    machine.state["LD_LIBRARY_PATH"] = str(stub_driver())
    cause = machine.cause()  # what the toolkit had stood in for
    assert cause.value.startswith("cuBLAS cannot be loaded")
    assert machine.run(cause.mend).returncode == 0
    assert machine.cause().name == END[0]


def test_a_variable_that_hides_the_gpus_is_unset(machine: Machine) -> None:
    machine.install_extra()
    machine.state |= {"S_COUNT": "0", "CUDA_VISIBLE_DEVICES": ""}
    cause = machine.cause()
    assert cause.name == "NVIDIA driver"
    assert cause.mend == "unset CUDA_VISIBLE_DEVICES"
    machine.state["S_COUNT"] = "1"  # as the driver would count then
    assert machine.cause(cause.mend).name == END[0]


def test_a_kernel_cache_of_another_user_is_left_for_one_of_ones_own(machine: Machine) -> None:
    machine.install_extra()
    cache, own = machine.folder / "cache", machine.folder / "own"
    cache.mkdir()
    (cache / "k.cubin").symlink_to("/proc/1/mem" if os.geteuid() else cache / "gone")
    machine.state["CUPY_CACHE_DIR"] = str(cache)
    cause = machine.cause()
    assert (cause.status, cause.name) == ("warn", "kernel cache"), cause
    assert machine.cause(cause.mend.split(" with ")[0].replace("FOLDER", f"'{own}'")).name == END[0]


# What only root can do to a machine is done to the stub, by programs of these names.

BY_ROOT = [
    ({"S_INIT": "999"}, "NVIDIA driver", "sudo rmmod nvidia_uvm && sudo modprobe nvidia_uvm"),
    ({"S_INIT": "802"}, "NVIDIA driver", "sudo systemctl start nvidia-fabricmanager"),
    ({"S_INIT": "803"}, "NVIDIA driver", "reboot"),
    ({"S_MODE": "2"}, "GPU 0", "sudo nvidia-smi -c 0"),
    ({"S_MODE": "3"}, "GPU 0", "sudo nvidia-smi -c 0"),
]


@pytest.mark.parametrize(("state", "name", "command"), BY_ROOT, ids=lambda value: str(value)[:24])
def test_what_root_is_to_do_is_a_command_that_mends_the_driver(
    machine: Machine, state: dict[str, str], name: str, command: str
) -> None:
    machine.install_extra()
    machine.state |= state
    done = machine.folder / "done"
    machine.tool("sudo", f'echo "$@" >> "{done}"')
    machine.tool("reboot", f'echo reboot >> "{done}"')
    cause = machine.cause()
    assert cause.name == name, cause
    assert cause.mend.startswith(command), cause.mend
    assert machine.run(command).returncode == 0
    assert done.read_text().splitlines() == [part.removeprefix("sudo ") for part in command.split(" && ")]
    for variable in state:
        del machine.state[variable]
    assert machine.cause().name == END[0]


def test_a_driver_that_is_too_old_for_all_is_named_before_all_that_it_keeps_from_working(machine: Machine) -> None:
    machine.state["S_VERSION"] = "11080"
    cause = machine.cause()
    assert cause.name == "NVIDIA driver"
    assert cause.mend == "update the driver to 525 or newer"
    machine.state["S_VERSION"] = "13000"
    assert machine.cause().name == "CuPy"
