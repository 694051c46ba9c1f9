"""scripts/setup.sh with the real pip, stand-in wheels and a stub of the driver: one CuPy, the one that fits today."""

import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.stub_driver import stub_driver
from support.stub_wheels import build_by_stub, folder_of_pip, make_cuda_wheels, offline

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
        self.wheels = folder / "wheels"
        make_cuda_wheels(self.wheels)
        pip = str(folder_of_pip(folder / "pip"))
        python = PYTHON.replace("PYTHON", sys.executable).replace("MINOR", str(sys.version_info[1])).replace("PIP", pip)
        self.write(self.bin / "python3", python)
        build_by_stub(self.root)

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
    machine.train(**driver, S_VERSION="12080")
    assert machine.built_for() == "12"
    done = machine.train(**driver, S_VERSION="13000")
    assert "making .venv anew: cuda13 cannot be beside what it has, cuda12" in done.stderr
    assert machine.built_for() == "13"
    assert machine.train(**driver, S_VERSION="13000").stderr == ""
    # An older GPU is added. The libraries of CUDA 13 would be found before those of CUDA 12: they go as well.
    machine.train(**driver, S_VERSION="13000", S_CC="61")
    assert machine.built_for() == "12"
    newer = {"cupy-cuda13x", "nvidia-cublas", "nvidia-cuda-nvrtc", "nvidia-cuda-runtime"}
    assert machine.packages() & newer == set()
    assert "nvidia-cublas-cu12" in machine.packages()
    # Without a GPU nothing is removed.
    machine.train("cpu")
    assert machine.built_for() == "12"


def test_a_driver_that_is_put_back_gets_back_its_cupy_and_one_that_goes_costs_nothing(machine: CudaCheckout) -> None:
    driver = {"LD_LIBRARY_PATH": str(stub_driver())}
    machine.train(**driver, S_VERSION="13000")
    for version, cuda in (("12080", "12"), ("13000", "13"), ("12080", "12")):
        machine.train(**driver, S_VERSION=version)
        assert machine.built_for() == cuda
        assert len([name for name in machine.packages() if name.startswith("cupy")]) == 1
    # A driver that is gone costs nothing.
    assert machine.train().stderr == ""


@pytest.mark.parametrize("order", list(itertools.permutations(("cuda12", "cuda13", "cpu"))), ids="-".join)
def test_the_extra_may_be_changed_by_hand_in_any_order(machine: CudaCheckout, order: tuple[str, ...]) -> None:
    last = ""
    for extra in order:
        machine.train(extra)
        last = last if extra == "cpu" else extra
        assert not last or machine.built_for() == last[-2:]
    assert machine.train(order[-1]).stderr == ""


def test_an_installation_that_breaks_off_is_done_again(machine: CudaCheckout) -> None:
    machine.train("cuda13")
    whole = machine.wheels.rename(machine.wheels.with_name("away"))
    with pytest.raises(AssertionError, match="check the network, then run this again"):
        machine.train("cuda12")  # what was there is gone by now
    whole.rename(machine.wheels)
    machine.train("cuda12")
    assert machine.built_for() == "12"
    assert not machine.packages() & {"cupy-cuda13x", "nvidia-cublas"}


def test_an_environment_made_by_hand_is_not_made_anew_for_another_cuda(machine: CudaCheckout) -> None:
    machine.train("cuda13")
    (machine.root / ".venv" / "gpunn-made").unlink()
    with pytest.raises(AssertionError, match="extras cuda13,web, needs cuda12, and was not made by this script"):
        machine.train("cuda12")
    assert machine.built_for() == "13"


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
