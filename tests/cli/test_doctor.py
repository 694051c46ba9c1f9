"""What the doctor says for drivers, GPUs and packages that this machine need not have."""

import ctypes
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.stub_driver import stub_driver, with_driver
from support.stub_wheels import make_wheel

from gpunn.backend import driver as nvidia
from gpunn.backend.driver import Driver, Finding, Gpu, cuda_advice, fitting_extra
from gpunn.cli import doctor
from gpunn.cli.doctor import diagnose, format_findings

HOPPER = Gpu("NVIDIA H100", 80 * 2**30, (9, 0))
PASCAL = Gpu("GeForce GTX 1080", 8 * 2**30, (6, 1))
KEPLER = Gpu("Tesla K40", 12 * 2**30, (3, 5))

Machine = Callable[..., None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Makes the doctor see a driver, installed packages and CUDA libraries that cannot be loaded."""

    def pretend(driver: Driver, packages: dict[str, str], broken: dict[str, str] | None = None) -> None:
        monkeypatch.setattr(nvidia, "read_driver", lambda: driver)
        monkeypatch.setattr(nvidia, "installed", lambda package: packages.get(package, ""))
        monkeypatch.setattr(nvidia, "load_library", lambda name: ("", (broken or {}).get(name, "")))
        has_cupy = any(package.startswith("cupy") for package in packages)
        monkeypatch.setattr(
            nvidia.importlib.util, "find_spec", lambda name: object() if name != "cupy" or has_cupy else None
        )

    return pretend


def everything(cupy: str = "cupy-cuda13x") -> dict[str, str]:
    return {cupy: "14.2.0", "nvmath-python": "1.0.0"}


@pytest.mark.parametrize(
    ("version", "gpus", "extra"),
    [
        (13000, (HOPPER,), "cuda13"),
        (14010, (HOPPER,), "cuda13"),
        (12090, (HOPPER,), "cuda12"),
        (12000, (HOPPER, PASCAL), "cuda12"),
        (13000, (PASCAL,), "cuda12"),
        (13000, (HOPPER, PASCAL), "cuda12"),
        (11080, (HOPPER,), ""),
        (12020, (KEPLER,), ""),
    ],
)
def test_the_extra_fits_the_driver_and_the_oldest_gpu(version: int, gpus: tuple[Gpu, ...], extra: str) -> None:
    fit = fitting_extra(Driver(version, gpus))
    assert fit.extra == extra
    assert bool(fit.problem) == bool(fit.mend) == (not extra)


def test_a_machine_with_everything_needs_no_advice(machine: Machine) -> None:
    machine(Driver(13000, (HOPPER,)), everything())
    assert cuda_advice() == ""


def test_without_a_driver_the_advice_names_it_first(machine: Machine) -> None:
    machine(Driver(problem=nvidia.NO_DRIVER), {})
    assert cuda_advice().startswith("no NVIDIA driver was found: install one")


def test_an_old_driver_is_told_what_it_supports_and_what_is_needed(machine: Machine) -> None:
    machine(Driver(11080, (HOPPER,)), everything())
    assert cuda_advice() == (
        "the NVIDIA driver supports CUDA 11.8 at most, 12.0 is needed: update the driver to 525 or newer"
    )


def test_a_gpu_that_is_too_old_is_named(machine: Machine) -> None:
    machine(Driver(12020, (KEPLER,)), everything("cupy-cuda12x"))
    assert cuda_advice().startswith("Tesla K40, 12 GiB, compute capability 3.5 is too old")


@pytest.mark.parametrize(("version", "extra"), [(13000, "cuda13"), (12040, "cuda12")])
def test_without_cupy_the_advice_is_the_extra_that_fits(machine: Machine, version: int, extra: str) -> None:
    machine(Driver(version, (HOPPER,)), {})
    advice = cuda_advice()
    assert advice.startswith(f"CuPy is not installed: {sys.executable} -m pip install ")
    assert f"[{extra}]" in advice


def test_cupy_for_a_newer_cuda_than_the_driver_is_replaced(machine: Machine) -> None:
    machine(Driver(12040, (HOPPER,)), everything("cupy-cuda13x"))
    advice = cuda_advice()
    assert advice.startswith("CuPy is built for CUDA 13, the driver goes up to 12.4: ")
    assert "pip uninstall -y cupy-cuda13x && " in advice
    assert "[cuda12]" in advice


def test_cupy_that_has_dropped_the_gpu_is_replaced(machine: Machine) -> None:
    machine(Driver(13000, (PASCAL,)), everything("cupy-cuda13x"))
    assert cuda_advice().startswith("CuPy is built for CUDA 13, which has dropped the GeForce GTX 1080: ")


def test_cupy_for_cuda_12_is_fine_with_a_newer_driver(machine: Machine) -> None:
    machine(Driver(13000, (HOPPER,)), everything("cupy-cuda12x"))
    assert cuda_advice() == ""


def test_two_cupys_are_one_too_many(machine: Machine) -> None:
    machine(Driver(13000, (HOPPER,)), everything("cupy-cuda12x") | everything("cupy-cuda13x"))
    assert "only one may be installed" in cuda_advice()


@pytest.mark.parametrize("library", list(nvidia.LIBRARIES))
def test_a_missing_library_is_mended_by_the_extra_of_the_installed_cupy(machine: Machine, library: str) -> None:
    machine(Driver(13000, (HOPPER,)), everything("cupy-cuda13x"), {library: "not found"})
    advice = cuda_advice()
    assert advice.startswith(f"{nvidia.LIBRARIES[library]} cannot be loaded: not found: ")
    assert "[cuda13]" in advice


def test_missing_bindings_of_cublas_are_named(machine: Machine) -> None:
    machine(Driver(13000, (HOPPER,)), {"cupy-cuda13x": "14.2.0"})
    assert cuda_advice().startswith("nvmath-python is not installed: ")


def test_a_hidden_gpu_is_mended_by_showing_it(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    machine(Driver(13000, problem="the NVIDIA driver shows no GPU"), everything())
    assert cuda_advice() == "the NVIDIA driver shows no GPU: unset CUDA_VISIBLE_DEVICES"


class FakeLibrary:
    """The driver's library, which writes through the pointers it is given as the real one does."""

    def __init__(self, gpus: list[Gpu], error: int = 0) -> None:
        self.gpus = gpus
        self.error = error

    def cuDriverGetVersion(self, version: Any) -> int:
        version._obj.value = 13000
        return 0

    def cuInit(self, flags: int) -> int:
        return self.error

    def cuGetErrorString(self, code: int, text: Any) -> int:
        text._obj.value = b"no CUDA-capable device is detected"
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = len(self.gpus)
        return 0

    def cuDeviceGet(self, device: Any, index: int) -> int:
        device._obj.value = index
        return 0

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:
        name.value = self.gpus[device.value].name.encode()[: size - 1]
        return 0

    def cuDeviceTotalMem_v2(self, memory: Any, device: Any) -> int:
        memory._obj.value = self.gpus[device.value].memory
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:
        value._obj.value = self.gpus[device.value].capability[{75: 0, 76: 1}[attribute]]
        return 0


def test_the_driver_is_asked_for_its_version_and_every_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: FakeLibrary([HOPPER, PASCAL]))
    assert nvidia.read_driver() == Driver(13000, (HOPPER, PASCAL))


def test_an_error_of_the_driver_is_given_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: FakeLibrary([], error=100))
    driver = nvidia.read_driver()
    assert driver.problem == "the NVIDIA driver reports: no CUDA-capable device is detected (error 100)"
    assert not driver.gpus


def test_a_machine_without_the_library_has_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert nvidia.read_driver().problem == nvidia.NO_DRIVER


def test_what_cuda_lacks_is_no_failure_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "read_driver", lambda: Driver(problem=nvidia.NO_DRIVER))
    findings = diagnose()
    assert [finding for finding in findings if finding.status == "missing"] == []
    assert {"gpunn", "Python", "numpy", "BLAS", "data cache", "kernel cache", "NVIDIA driver", "CuPy"} <= {
        finding.name for finding in findings
    }


def test_every_finding_that_is_not_well_has_a_mend(machine: Machine) -> None:
    machine(Driver(problem=nvidia.NO_DRIVER), {}, dict.fromkeys(nvidia.LIBRARIES, "not found"))
    findings = diagnose()
    assert [finding for finding in findings if finding.status != "ok" and not finding.mend] == []
    assert any(finding.status == "missing" for finding in findings)


def test_the_blas_of_numpy_is_found_with_its_threads() -> None:
    # In a process of its own: other tests import SciPy, which brings a second one.
    code = (
        "from gpunn.cli.doctor import diagnose;"
        "print(*next((each.status, each.value) for each in diagnose() if each.name == 'BLAS'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert re.match(r"ok .*, (1 thread|[2-9] threads|\d{2,} threads),", done.stdout)


def test_a_folder_that_cannot_be_made_is_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    finding = doctor._folder_finding("kernel cache", file / "folder", "CUPY_CACHE_DIR")
    assert finding.status == "warn"
    assert finding.mend.startswith("export CUPY_CACHE_DIR=")


def test_a_folder_that_is_still_to_be_made_is_fine_and_not_made(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert doctor._folder_finding("kernel cache", folder, "CUPY_CACHE_DIR").status == "ok"
    assert list(tmp_path.iterdir()) == []


def test_a_data_folder_that_is_not_there_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUNN_DATA", str(tmp_path / "nowhere"))
    named = next(finding for finding in diagnose() if finding.name == "GPUNN_DATA")
    assert named.status == "warn"
    assert named.mend


def test_findings_with_one_mend_show_it_once() -> None:
    findings = [
        Finding("a", "warn", "1", "mend it"),
        Finding("b", "warn", "2", "mend it"),
        Finding("c", "ok", "3"),
    ]
    text = format_findings(findings)
    assert text.count("mend it") == 1
    assert [line.split()[0] for line in text.splitlines()] == ["warn", "warn", "->", "ok"]


def test_a_bare_python_runs_the_doctor_before_anything_is_installed() -> None:
    # -I -S: neither the packages that are installed nor the folder of the file can be imported.
    done = subprocess.run(
        [sys.executable, "-I", "-S", nvidia.__file__], capture_output=True, text=True, check=True, timeout=60
    )
    extra, reason = done.stdout.split("\n", 1)
    assert extra in {"cpu", "cuda12", "cuda13"}
    assert bool(reason.strip()) == (extra == "cpu")


def processor(
    monkeypatch: pytest.MonkeyPatch, threads: int, cores: int, load: float, *, shares: bool = False
) -> Finding:
    monkeypatch.setattr("gpunn.backend.blas.threads", lambda: threads)
    monkeypatch.setattr("gpunn.backend.blas.shares_cores", lambda: shares)
    monkeypatch.setattr("gpunn.kernels.cores.cores", lambda: cores)
    monkeypatch.setattr(doctor.os, "getloadavg", lambda: (load, 0.0, 0.0))
    return doctor._processor_finding()


@pytest.mark.parametrize(("threads", "cores", "load"), [(2, 2, 0.3), (1, 16, 15.0), (2, 16, 0.0), (1, 1, 0.0)])
def test_threads_with_a_core_each_are_fine(
    monkeypatch: pytest.MonkeyPatch, threads: int, cores: int, load: float
) -> None:
    assert processor(monkeypatch, threads, cores, load).status == "ok"


@pytest.mark.parametrize(("threads", "cores", "load"), [(2, 2, 1.7), (16, 2, 0.0)])
def test_a_busy_machine_needs_no_word_where_products_share_its_cores(
    monkeypatch: pytest.MonkeyPatch, threads: int, cores: int, load: float
) -> None:
    assert processor(monkeypatch, threads, cores, load, shares=True).status == "ok"
    assert processor(monkeypatch, threads, cores, load, shares=False).status == "warn"


def test_a_busy_machine_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = processor(monkeypatch, 2, 2, 1.7)
    assert finding.status == "warn"
    assert "work for 1.7 of them" in finding.value
    assert finding.mend.endswith("export OPENBLAS_NUM_THREADS=1")


@pytest.mark.parametrize("fitting", [1, 2])
def test_more_threads_than_a_container_may_use_are_said(monkeypatch: pytest.MonkeyPatch, fitting: int) -> None:
    finding = processor(monkeypatch, 16, fitting, 0.0)
    assert finding.status == "warn"
    assert finding.mend == f"export OPENBLAS_NUM_THREADS={fitting}"


# What people meet


def test_the_gpu_that_was_asked_for_is_judged(machine: Machine) -> None:
    machine(Driver(13000, (HOPPER, PASCAL)), everything("cupy-cuda13x"))
    assert cuda_advice(0) == ""
    assert cuda_advice(1).startswith("CuPy is built for CUDA 13, which has dropped the GeForce GTX 1080: ")
    machine(Driver(12040, (KEPLER, HOPPER)), everything("cupy-cuda12x"))
    assert cuda_advice(0).startswith("Tesla K40, 12 GiB, compute capability 3.5 is too old")
    assert cuda_advice(1) == ""


def test_a_gpu_that_is_too_old_does_not_keep_the_other_from_its_extra() -> None:
    assert fitting_extra(Driver(12040, (KEPLER, HOPPER))).extra == "cuda12"
    assert fitting_extra(Driver(13000, (HOPPER, KEPLER))).extra == "cuda13"


@pytest.mark.parametrize(
    ("packages", "said"),
    [
        ({"cupy-cuda11x": "13.6.0", "nvmath-python": "1.0.0"}, "CuPy is 13.6.0, 14.2 or newer is needed"),
        ({"cupy-cuda11x": "14.2.0", "nvmath-python": "1.0.0"}, "cupy-cuda11x is for no CUDA that can be used"),
        ({"cupy-cuda13x": "13.9.9", "nvmath-python": "1.0.0"}, "CuPy is 13.9.9, 14.2 or newer is needed"),
        ({"cupy-cuda13x": "14.1.1", "nvmath-python": "1.0.0"}, "CuPy is 14.1.1, 14.2 or newer is needed"),
        ({"cupy": "9.0", "nvmath-python": "1.0.0"}, "CuPy is 9.0, 14.2 or newer is needed"),
        ({"cupy-cuda13x": "14.2.0", "nvmath-python": "0.9.0"}, "nvmath-python is 0.9.0, 1.0 or newer is needed"),
        ({"cupy-cuda13x": "14.2.0", "cupy": "14.2.0"}, "only one may be installed"),
        ({"cupy-cuda13x": "14.2.0", "cupy-cuda11x": "13.0"}, "only one may be installed"),
    ],
)
def test_packages_that_are_too_old_are_refused_with_the_command(
    machine: Machine, packages: dict[str, str], said: str
) -> None:
    machine(Driver(13000, (HOPPER,)), packages)
    advice = cuda_advice()
    assert said in advice
    assert "[cuda13]" in advice


@pytest.mark.parametrize(
    ("cupy", "version", "path", "mend"),
    [
        ("cupy-cuda12x", 13000, "/x/site-packages/nvidia/cu13/lib/libcublas.so.13.1", "[cuda13]"),
        ("cupy-cuda12x", 12080, "/x/site-packages/nvidia/cu13/lib/libcublas.so.13.1", "uninstall -y nvidia-cublas "),
        ("cupy-cuda13x", 13000, "/usr/local/cuda-12.9/lib64/libcublas.so.12.9", "LD_LIBRARY_PATH"),
    ],
)
def test_libraries_of_another_cuda_than_cupys_are_said(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, cupy: str, version: int, path: str, mend: str
) -> None:
    gpu = PASCAL if cupy == "cupy-cuda13x" and version < 13000 else HOPPER
    machine(Driver(version, (gpu,)), everything(cupy) | {"nvidia-cublas": "13.1"})
    if cupy == "cupy-cuda13x":  # the newest that fits is that of CuPy
        machine(Driver(version, (HOPPER,)), everything(cupy))

    monkeypatch.setattr(nvidia, "load_library", lambda name: (path if name == "cublas" else "", ""))
    advice = cuda_advice()
    major = re.search(r"so\.(\d+)", path)
    assert major is not None
    assert advice.startswith(f"cuBLAS of CUDA {major[1]} is loaded, CuPy is built for CUDA {cupy[9:11]}: {path}: ")
    assert mend in advice


BARE = [
    ({"S_INIT": "999"}, "modprobe nvidia_uvm"),
    ({"S_INIT": "803"}, "reboot"),
    ({"S_INIT": "804"}, "compat"),
    ({"S_INIT": "34"}, "stubs"),
    ({"S_INIT": "802"}, "nvidia-fabricmanager"),
    ({"S_INIT": "100"}, "nvidia-smi"),
    ({"S_INIT": "46"}, "nvidia-smi -c 0"),
    ({"S_INIT": "4242"}, "dmesg"),
    ({"S_COUNT_CODE": "304"}, "/dev/nvidia"),
    ({"S_COUNT": "0"}, "nvidia-smi"),
    ({"S_COUNT": "0", "CUDA_VISIBLE_DEVICES": ""}, "unset CUDA_VISIBLE_DEVICES"),
    ({"S_COUNT": "0", "CUDA_VISIBLE_DEVICES": "7"}, "CUDA_VISIBLE_DEVICES is '7'"),
    ({"S_COUNT": "0", "CUDA_VISIBLE_DEVICES": "", "SLURM_JOB_ID": "1"}, "--gres=gpu:1"),
    ({"S_INIT": "100", "CUDA_VISIBLE_DEVICES": "0", "SLURM_JOB_ID": "1"}, "--gres=gpu:1"),
    ({"S_INIT": "803", "CUDA_VISIBLE_DEVICES": "0"}, "reboot"),
    ({"S_VERSION": "11080"}, "update the driver to 525 or newer"),
    ({"S_CC": "35"}, "too old for CUDA 12"),
]


@pytest.mark.parametrize(("variables", "mend"), BARE, ids=lambda value: str(value)[:60])
def test_a_bare_python_is_told_what_mends_the_driver(variables: dict[str, str], mend: str) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", nvidia.__file__],
        capture_output=True, text=True, check=True, timeout=60, env=with_driver(**variables),
    )  # fmt: skip
    extra, reason = done.stdout.split("\n", 1)
    assert extra == "cpu"
    assert mend in reason
    assert done.stderr == ""


SEEN = """
import sys
from gpunn.backend import driver
driver.DRIVER_SECONDS = 5
for finding in driver.cuda_findings(driver.read_driver(), int(sys.argv[1]), driver.in_use):
    print(f"{finding.status} {finding.name}: {finding.value} -> {finding.mend}")
print("first", driver.first_gpu(driver.read_driver()))
"""


def bare(packages: str, script: str = "", index: int = 0, python: str = "", **variables: str) -> str:
    """The same where no other packages than those in a folder are to be found."""
    # The package without what it imports, as the doctor has it before anything is installed.
    folder = Path(nvidia.__file__).parent
    own = "import sys, types\n"
    for name, path in (("gpunn", folder.parent), ("gpunn.backend", folder)):
        own += f"sys.modules[{name!r}] = types.ModuleType({name!r})\nsys.modules[{name!r}].__path__ = [{str(path)!r}]\n"
    lines = f"{own}{script or SEEN}"
    done = subprocess.run(
        [python or sys.executable, *([] if python else ["-S"]), "-c", lines, str(index)],
        capture_output=True, text=True, check=True, timeout=60,
        env=with_driver(PYTHONPATH=packages, **variables),
    )  # fmt: skip
    return done.stdout


def seen(index: int = 0, **variables: str) -> str:
    """What a process of its own finds out about the GPUs of a stub driver, whose packages may be in PYTHONPATH too."""
    path = f"{Path(nvidia.__file__).parents[2]}:{variables.pop('PYTHONPATH', '')}"
    done = subprocess.run(
        [sys.executable, "-c", SEEN, str(index)], capture_output=True, text=True, check=True, timeout=60,
        env=with_driver(PYTHONPATH=path, **variables),
    )  # fmt: skip
    return done.stdout


def test_gpus_are_shown_with_their_place_and_who_may_use_them() -> None:
    said = seen(S_COUNT="2", S_MODE="3")
    assert "PCI 0000:01:00.0" in said
    assert "PCI 0000:02:00.0" in said
    assert said.count("compute mode exclusive process") == 2
    assert said.count("-> sudo nvidia-smi -c 0") == 2
    assert "GPU order: the fastest first; that of nvidia-smi by export CUDA_DEVICE_ORDER=PCI_BUS_ID ->" in said
    said = seen(S_COUNT="2", CUDA_DEVICE_ORDER="PCI_BUS_ID", CUDA_VISIBLE_DEVICES="3,1")
    assert "that of nvidia-smi (CUDA_DEVICE_ORDER=PCI_BUS_ID); CUDA_VISIBLE_DEVICES=3,1 ->" in said
    assert "GPU order" not in seen()


@pytest.fixture
def wheels(tmp_path: Path) -> Callable[..., str]:
    """Lets the real pip install wheels with nothing in them: (packages with versions) → a folder for PYTHONPATH."""

    def install(**packages: str) -> str:
        for package, version in packages.items():
            name = package.replace("_", "-")
            make_wheel(tmp_path, name, version, files={"cupy/__init__.py": ""} if name.startswith("cupy") else {})
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", tmp_path / "to"]
        subprocess.run([*command, *tmp_path.glob("*.whl")], check=True, timeout=120)
        return str(tmp_path / "to")

    return install


WHEELS = [
    ({"cupy_cuda11x": "13.6.0"}, "CuPy is 13.6.0, 14.2 or newer is needed"),
    ({"cupy_cuda11x": "14.2.0"}, "cupy-cuda11x is for no CUDA that can be used, 12 or 13 is needed"),
    ({"cupy_cuda112": "10.6.0"}, "CuPy is 10.6.0, 14.2 or newer is needed"),
    ({"cupy_cuda117": "11.0.0"}, "CuPy is 11.0.0, 14.2 or newer is needed"),
    ({"cupy_cuda14x": "15.0.0"}, "cupy-cuda14x is for no CUDA that can be used, 12 or 13 is needed"),
    ({"cupy_rocm_4_2": "10.6.0"}, "CuPy is 10.6.0, 14.2 or newer is needed"),
    ({"cupy_cuda13x": "14.1.1"}, "CuPy is 14.1.1, 14.2 or newer is needed"),
    ({"cupy_cuda12x": "13.6.0"}, "CuPy is 13.6.0, 14.2 or newer is needed"),
    ({"cupy_cuda13x": "14.2.0", "cupy_cuda112": "10.6.0"}, "cupy-cuda13x 14.2.0, cupy-cuda112 10.6.0: only one"),
    ({"cupy_cuda13x": "14.2.0", "nvmath_python": "0.9.0"}, "nvmath-python is 0.9.0, 1.0 or newer is needed"),
]


@pytest.mark.parametrize(("packages", "said"), WHEELS, ids=lambda value: str(value)[:50])
def test_wheels_that_cannot_serve_are_refused_with_what_replaces_them(
    wheels: Callable[..., str], packages: dict[str, str], said: str
) -> None:
    line = next(line for line in bare(wheels(**packages)).splitlines() if said in line)
    assert line.startswith("missing ")
    assert "[cuda13]" in line
    assert all(name.replace("_", "-") in line for name in packages if "cupy" in name and "nvmath" not in said)


FOUND_IN = {
    "cuda13": dict.fromkeys(("cublas", "cublasLt", "nvrtc", "cudart"), "nvidia/cu13/lib"),
    "cuda12": {
        "cublas": "nvidia/cublas/lib",
        "cublasLt": "nvidia/cublas/lib",
        "nvrtc": "nvidia/cuda_nvrtc/lib",
        "cudart": "nvidia/cuda_runtime/lib",
    },
}


@pytest.mark.simulated_cuda
def test_libraries_of_cuda_13_that_others_brought_beside_cupy_for_12_are_said(tmp_path: Path) -> None:
    from cuda import pathfinder  # the real one, which decides which of two libraries is loaded

    venv.create(tmp_path / "env", symlinks=True)
    site = next((tmp_path / "env" / "lib").glob("python3.*/site-packages"))
    (site / "cuda").mkdir()
    (site / "cuda" / "pathfinder").symlink_to(Path(pathfinder.__file__).parent)
    (tmp_path / "wheels").mkdir()
    brought = {"nvidia-cublas": "13.1.0", "nvidia-cuda-nvrtc": "13.0.1", "nvidia-cuda-runtime": "13.0.1"}
    for name, version in ({"cupy-cuda12x": "14.2.0", "nvmath-python": "1.0.0"} | brought).items():
        make_wheel(tmp_path / "wheels", name, version, files={"cupy/__init__.py": ""} if "cupy" in name else {})
    for wheel in (tmp_path / "wheels").glob("*.whl"):
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(site)
    for extra, folders in FOUND_IN.items():
        for library, folder in folders.items():
            (site / folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(stub_driver() / "libnvidia-ml.so.1", site / folder / f"lib{library}.so.{extra[-2:]}")
    python = str(tmp_path / "env" / "bin" / "python")

    def lines(version: str) -> list[str]:
        said = bare("", python=python, S_VERSION=version).splitlines()
        return [next(line for line in said if f" {name}: " in line) for name in nvidia.LIBRARIES.values()]

    for line, name in zip(lines("12080"), nvidia.LIBRARIES.values(), strict=True):
        said = f"missing {name}: {name} of CUDA 13 is loaded, CuPy is built for CUDA 12: {site}/nvidia/cu13"
        assert line.startswith(said)
        assert "pip uninstall -y nvidia-cublas nvidia-cuda-nvrtc nvidia-cuda-runtime && " in line
        assert "[cuda12]" in line
    # A driver that can do both lets CuPy follow.
    assert all("pip uninstall -y cupy-cuda12x && " in line and "[cuda13]" in line for line in lines("13000"))
    shutil.rmtree(site / "nvidia" / "cu13")
    assert [line.partition(": ")[2] for line in lines("12080")] == ["found, CUDA 12 -> "] * 3


def test_the_mend_of_a_damaged_cupy_is_the_one_that_fits_the_driver(wheels: Callable[..., str]) -> None:
    script = "from gpunn.backend.driver import reinstall_command; print(reinstall_command())"
    folder = wheels(cupy_cuda11x="13.6.0")
    assert "uninstall -y cupy-cuda11x && " in bare(folder, script, S_VERSION="12080")
    assert "[cuda12]" in bare(folder, script, S_VERSION="12080")
    assert "[cuda13]" in bare(folder, script)


def test_an_older_gpu_beside_the_one_that_is_taken_is_named(wheels: Callable[..., str]) -> None:
    packages = wheels(cupy_cuda13x="14.2.0", nvmath_python="1.0.0")
    for order, old in (("61,89", 0), ("89,61", 1)):
        said = bare(packages, index=1 - old, S_COUNT="2", S_CC=order).splitlines()
        line = next(line for line in said if f" GPU {old}: " in line)
        assert line.startswith("warn ")
        assert "compute capability 6.1" in line
        assert "is too old for CUDA 13 -> take another by --device cuda:N" in line
        assert "[cuda12]" in line
        assert next(line for line in said if f" GPU {1 - old}: " in line).startswith("ok ")


@pytest.mark.parametrize(("mode", "who"), [("1", "one thread"), ("2", "nobody"), ("3", "one process")])
def test_a_compute_mode_is_said_with_what_changes_it(mode: str, who: str) -> None:
    said = next(line for line in seen(S_MODE=mode).splitlines() if "GPU 0" in line)
    assert said.startswith("warn GPU 0: Stub GPU, 8 GiB")
    assert f"which {who} may use" in said


def test_memory_that_others_use_is_said() -> None:
    said = seen(S_COUNT="2", S_USED="3072,512").splitlines()
    assert "GPU 0: Stub GPU, 8 GiB, compute capability 8.6, PCI 0000:01:00.0, 3.0 GiB in use ->" in said[1]
    assert "PCI 0000:02:00.0, 0.5 GiB in use ->" in said[2]


def test_an_instance_of_mig_is_told_from_the_whole_gpu() -> None:
    said = seen(S_COUNT="2", S_USED="10240", S_MIG="1,0").splitlines()
    divided = "10.0 GiB in use of the 40 GiB of the whole, divided by MIG: this is an instance of 8 GiB ->"
    assert divided in said[1]
    assert "MIG" not in said[2]
    # In a container the memory of the whole may be nobody's business.
    assert "01:00.0, divided by MIG: this is an instance of 8 GiB ->" in seen(S_MIG="1", S_NVML_MEMORY="4")


@pytest.mark.parametrize("variables", [{"S_NVML": "9"}, {"S_NVML_MEMORY": "4"}])
def test_without_nvml_nothing_is_said_of_memory(variables: dict[str, str]) -> None:
    assert "01:00.0 ->" in seen(**variables)


def test_a_management_library_that_hangs_is_not_waited_for() -> None:
    assert "NVML does not answer" in seen(S_NVML_HANG="1")
