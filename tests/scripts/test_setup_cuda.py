"""scripts/setup.sh with the real pip, stand-in wheels and a stub of the driver: one CuPy, the one that fits today."""

import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.stub_driver import stub_driver
from support.stub_wheels import build_by_stub, folder_of_pip, make_cuda_wheels, make_wheel, offline

from scripts.test_scripts import Checkout

PYTHON = """#!/bin/sh
[ "$1 $2" = "-m venv" ] || exec PYTHON "$@"
PYTHON -m venv --without-pip "$3"
echo 'PIP' > "$3/lib/python3.MINOR/site-packages/pip.pth"
printf '#!/bin/sh\\necho "[trained]"\\n' > "$3/bin/gpunn"
chmod +x "$3/bin/gpunn"
"""


class CudaCheckout(Checkout):
    """A checkout whose environment is real and bare, on a machine whose driver is a stub."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.wheels, self.version = folder / "wheels", folder / "version"
        make_cuda_wheels(self.wheels)
        pip = str(folder_of_pip(folder / "pip"))
        python = PYTHON.replace("PYTHON", sys.executable).replace("MINOR", str(sys.version_info[1])).replace("PIP", pip)
        self.write(self.bin / "python3", python)
        build_by_stub(self.root)
        setup = self.root / "scripts" / "setup.sh"
        setup.write_text(setup.read_text("utf-8").replace("/proc/driver/nvidia", str(folder)), "utf-8")

    def train(self, extra: str = "auto", **variables: str) -> subprocess.CompletedProcess[str]:
        done = self.run("train.sh", GPUNN_EXTRA=extra, **offline(self.wheels), **variables)
        assert done.stdout == "[trained]\n", done.stdout + done.stderr
        return done

    def packages(self) -> set[str]:
        site = self.root / ".venv" / f"lib/python3.{sys.version_info[1]}/site-packages"
        return {re.split(r"-\d", path.name)[0].replace("_", "-") for path in site.glob("*.dist-info")} - {"pip"}

    def built_for(self) -> str:
        python = self.root / ".venv" / "bin" / "python"
        done = subprocess.run(
            [python, "-c", "import cupy; print(cupy.built_for)"], capture_output=True, text=True, timeout=60
        )
        return done.stdout.strip() or done.stderr


@pytest.fixture
def machine(tmp_path: Path) -> CudaCheckout:
    return CudaCheckout(tmp_path)


def test_a_driver_that_is_updated_gets_its_cupy_and_the_other_goes(machine: CudaCheckout) -> None:
    driver = {"LD_LIBRARY_PATH": str(stub_driver())}
    machine.version.write_text("NVRM version: 570.1\n")
    machine.train(**driver, S_VERSION="12080")
    assert machine.built_for() == "12"
    machine.version.write_text("NVRM version: 580.1\n")
    done = machine.train(**driver, S_VERSION="13000")
    assert "removing cupy-cuda12x, which cuda13 cannot be beside" in done.stderr
    assert machine.built_for() == "13"  # files that both wheels have are there, too
    assert machine.train(**driver, S_VERSION="13000").stderr == ""
    # An older GPU is added. The libraries of CUDA 13 would be found before those of CUDA 12: they go as well.
    information = machine.version.parent / "gpus" / "0000:01:00.0" / "information"
    information.parent.mkdir(parents=True)
    information.write_text("Model: \t\t NVIDIA GeForce GTX 1080\nIRQ: 1\n")
    machine.train(**driver, S_CC="61")
    assert machine.built_for() == "12"
    newer = {"cupy-cuda13x", "nvidia-cublas", "nvidia-cuda-nvrtc", "nvidia-cuda-runtime"}
    assert machine.packages() & newer == set()
    assert "nvidia-cublas-cu12" in machine.packages()
    # Without a GPU nothing is removed.
    machine.train("cpu")
    assert machine.built_for() == "12"


def test_a_driver_that_is_put_back_gets_back_its_cupy_and_one_that_goes_costs_nothing(machine: CudaCheckout) -> None:
    driver = {"LD_LIBRARY_PATH": str(stub_driver())}
    machine.version.write_text("NVRM version: 580.1\n")
    machine.train(**driver, S_VERSION="13000")
    for number, version, cuda in ((570, "12080", "12"), (580, "13000", "13"), (570, "12080", "12")):
        machine.version.write_text(f"NVRM version: {number}.1\n")
        machine.train(**driver, S_VERSION=version)
        assert machine.built_for() == cuda
        assert len([name for name in machine.packages() if name.startswith("cupy")]) == 1
    machine.version.unlink()
    assert "installing for the CPU: no NVIDIA driver was found" in machine.train().stderr
    assert machine.built_for() == "12"
    assert machine.train().stderr == ""


@pytest.mark.parametrize("order", list(itertools.permutations(("cuda12", "cuda13", "cpu"))), ids="-".join)
def test_the_extra_may_be_changed_by_hand_in_any_order(machine: CudaCheckout, order: tuple[str, ...]) -> None:
    last = ""
    for extra in order:
        machine.train(extra)
        last = last if extra == "cpu" else extra
        assert not last or machine.built_for() == last[-2:]
    assert machine.train(order[-1]).stderr == ""


@pytest.mark.parametrize("by_hand", [False, True], ids=["", "made by hand"])
def test_a_removal_or_an_installation_that_breaks_off_is_done_again(machine: CudaCheckout, by_hand: bool) -> None:
    machine.train("cuda13")
    if by_hand:
        (machine.root / ".venv" / "gpunn-made").unlink()
    whole = machine.wheels.rename(machine.wheels.with_name("away"))
    with pytest.raises(AssertionError, match="check the network, then run this again"):
        machine.train("cuda12")  # what was there is removed by now
    whole.rename(machine.wheels)
    machine.train("cuda12")
    assert machine.built_for() == "12"
    assert not machine.packages() & {"cupy-cuda13x", "nvidia-cublas"}
    # pip is killed while it removes, CuPy last.
    machine.train("cuda13")
    python = machine.root / ".venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "uninstall", "-q", "-y", "nvidia-cublas"], check=True, timeout=60)
    machine.train("cuda12")
    assert machine.built_for() == "12"
    assert not machine.packages() & {"cupy-cuda13x", "nvidia-cublas", "nvidia-cuda-nvrtc", "nvidia-cuda-runtime"}


def test_any_other_cupy_goes_and_a_package_for_cupy_stays(machine: CudaCheckout) -> None:
    machine.train("cpu")
    python = machine.root / ".venv" / "bin" / "python"
    others = ["cupy-cuda11x", "cupy", "cupy-rocm-5-0", "cupy-xarray"]
    for other in others:
        make_wheel(machine.wheels, other, "13.6.0", files={f"{other[:5]}/__init__.py": "built_for = 'other'\n"})
    command = [python, "-m", "pip", "install", "-q", "--no-deps"]
    subprocess.run([*command, *sorted(machine.wheels.glob("*-13.6.0-*.whl"))], check=True, timeout=120)
    machine.train("cuda13")
    assert machine.built_for() == "13"
    assert {name for name in machine.packages() if name.startswith("cupy")} == {"cupy-cuda13x", "cupy-xarray"}


def test_a_driver_that_appears_later_is_noticed(machine: CudaCheckout) -> None:
    driver = {"LD_LIBRARY_PATH": str(stub_driver())}
    assert "installing for the CPU: no NVIDIA driver was found" in machine.train().stderr
    for not_yet in ({}, {**driver, "S_INIT": "999"}, {**driver, "S_COUNT": "0"}):
        assert machine.train(**not_yet).stderr == ""
    assert machine.packages() == {"gpunn"}
    assert "installing for the GPU with the extra cuda13" in machine.train(**driver).stderr
    assert machine.built_for() == "13"


def test_a_driver_that_never_answers_is_not_waited_for_for_ever(machine: CudaCheckout) -> None:
    doctor = machine.root / "gpunn" / "backend" / "driver.py"
    doctor.write_text(doctor.read_text("utf-8").replace("DRIVER_SECONDS = 60", "DRIVER_SECONDS = 1"), "utf-8")
    done = machine.train(LD_LIBRARY_PATH=str(stub_driver()), S_HANG="1")
    assert "installing for the CPU: the NVIDIA driver has not answered for 1 s" in done.stderr
