"""scripts/gpu-check.sh on the simulated CUDA: its steps, the tools of the CUDA toolkit, and the JSON that it leaves."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from simulated_cuda.processes import ROOT, environment

pytestmark = pytest.mark.simulated_cuda

ONE_TEST = ("--", "-k", "test_a_kernel_computes_its_equation and im2col-float32-7")
TOOLS = ("memcheck", "racecheck", "synccheck")

# As NVIDIA's do: options with a value each, then a program, whose exit code is theirs unless they found something.
SANITIZER = """#!/bin/sh
printf '%s\\n' "$@" > "$STUBS/arguments-$2"
while [ "${1#--}" != "$1" ]; do
    [ "$1" != --tool ] || tool=$2
    [ "$1" != --error-exitcode ] || code=$2
    shift 2
done
echo "========= COMPUTE-SANITIZER"
"$@"
status=$?
case $tool in
    racecheck) echo "========= RACECHECK SUMMARY: $FOUND hazards displayed ($FOUND errors, 0 warnings)" ;;
    *) echo "========= ERROR SUMMARY: $FOUND errors" ;;
esac
[ $status -ne 0 ] || [ "$FOUND" = 0 ] || exit "$code"
exit $status
"""
NCU = r"""#!/bin/sh
printf '%s\n' "$@" > "$STUBS/arguments-ncu"
while [ "${1#--}" != "$1" ]; do
    case $1 in
        --csv) shift ;;
        --log-file) log=$2; shift 2 ;;
        *) shift 2 ;;
    esac
done
exec 3> "$log"
echo "==PROF== Connected to process 7 (python)" >&3
"$@" || exit
for last; do :; done
quoted() { printf '"%s",' "$@" | sed 's/,$/\n/' >&3; }
quoted ID "Process ID" "Process Name" "Host Name" "Kernel Name" Context Stream "Block Size" "Grid Size" Device CC \
    "Section Name" "Metric Name" "Metric Unit" "Metric Value"
for name in $(sed -n 's/^  "\(.*\)": .*/\1/p' "$last") a_kernel_of_cublas; do
    for metric in "read.sum 2,816" "write.sum 512"; do
        quoted 0 7 python 127.0.0.1 "$name" 1 7 "(256, 1, 1)" "(1, 1, 1)" 0 9.0 "Command line profiler metrics" \
            "dram__bytes_${metric% *}" byte "${metric#* }"
    done
done
echo "==PROF== Disconnected from process 7" >&3
"""
DENIED = """#!/bin/sh
while [ "$1" != --log-file ]; do shift; done
echo "==ERROR== ERR_NVGPUCTRPERM - The user does not have permission to access NVIDIA GPU Performance Counters on the \
target device 0." > "$2"
exit 1
"""

# A plugin of pytest.
PROBE = """
import cupy


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"CuPy's pool holds {cupy.get_default_memory_pool().total_bytes()} bytes")
"""


def check(
    folder: Path, *arguments: str, stubs: dict[str, str] | None = None, **variables: str
) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """Run the script with stubs in the place of NVIDIA's tools; what it said, and the steps of its JSON."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    for name, text in (stubs or {}).items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    env = environment(
        GPUNN_PYTHON=sys.executable, GPUNN_SIMULATED_CUDA=1, OUT=folder / "out", STUBS=folder, CUDA_HOME=folder
    )
    env["PYTHONPATH"] += f":{folder}"
    env |= {"FOUND": "0", "CUDA_HOME": str(folder), **variables, "PATH": f"{programs}:{env['PATH']}"}
    command = [ROOT / "scripts" / "gpu-check.sh", *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
    path = folder / "out" / "simulated-device.json"
    return done, json.loads(path.read_text("utf-8")) if path.is_file() else {}


def test_the_sanitizers_run_the_tests_of_the_kernels(tmp_path: Path) -> None:
    (tmp_path / "probe.py").write_text(PROBE)
    arguments = (*ONE_TEST, "-p", "probe")
    done, result = check(tmp_path, "sanitizer", *arguments, stubs={"compute-sanitizer": SANITIZER})
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("\nall passed\n")
    assert result["machine"]["simulated"] is True
    for tool in TOOLS:
        given = (tmp_path / f"arguments-{tool}").read_text().splitlines()
        assert given[:2] == ["--tool", tool]
        assert given[given.index("--error-exitcode") + 1] == "9"
        assert "tests/kernels/test_kernels.py" in given
        step = result["steps"][f"sanitizer-{tool}"]
        assert (step["found"], step["tests"]) == (0, {"passed": 1, "not_passed": 0})
        assert step["arguments"] == [*arguments[1:]]
        assert f"-- passed, {step['seconds']} s" in done.stdout
    # An array that is cut off a block of the pool has no bounds that a sanitizer knows of.
    assert done.stdout.count("CuPy's pool holds 0 bytes") == 3


def test_what_a_sanitizer_finds_fails_its_step_by_name(tmp_path: Path) -> None:
    stubs = {"compute-sanitizer": SANITIZER, "ncu": DENIED}
    done, result = check(tmp_path, "sanitizer-racecheck", "bytes", *ONE_TEST, stubs=stubs, FOUND="2")
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.endswith("\nfailed: sanitizer-racecheck\n")
    assert result["steps"]["sanitizer-racecheck"]["failed"] == "racecheck found 2"
    # Counters that only root may read are no failure, and one line.
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("-- not done")]
    assert "ncu may not read the counters of this GPU (ERR_NVGPUCTRPERM)" in line


def test_a_tool_that_breaks_off_fails_its_step(tmp_path: Path) -> None:
    stubs = {"compute-sanitizer": "#!/bin/sh\n", "ncu": "#!/bin/sh\n"}
    done, result = check(tmp_path, "sanitizer-memcheck", "bytes", stubs=stubs)
    assert done.returncode == 1
    assert done.stdout.endswith("\nfailed: sanitizer-memcheck bytes\n")
    assert result["steps"]["bytes"]["failed"] == "no figures: No such file or directory"
    assert result["steps"]["sanitizer-memcheck"]["failed"] == "no figures: memcheck gave no summary"


def test_the_bytes_of_each_kernel_are_those_of_ncu(tmp_path: Path) -> None:
    done, result = check(tmp_path, "bytes", stubs={"ncu": NCU})
    assert done.returncode == 0, done.stdout + done.stderr
    given = (tmp_path / "arguments-ncu").read_text().splitlines()
    assert given[given.index("--metrics") + 1] == "dram__bytes_read.sum,dram__bytes_write.sum"
    assert given[given.index("--print-units") + 1] == "base"
    kernels = {each["kernel"]: each for each in result["steps"]["bytes"]["kernels"]}
    assert {"im2col", "normalize", "momentum_sgd"} <= set(kernels)
    assert "a_kernel_of_cublas" not in kernels
    for each in kernels.values():
        assert (each["launches"], each["read"], each["written"]) == (1, 2816, 512)
        assert each["arrays"] > 0


def test_tools_that_are_missing_are_said_and_steps_are_added_to_the_json(tmp_path: Path) -> None:
    done, _ = check(tmp_path, "sanitizer")
    assert done.returncode == 0, done.stdout + done.stderr
    line = "-- not done: compute-sanitizer is not on the PATH: it comes with the CUDA toolkit"
    assert done.stdout.splitlines().count(line) == 3
    assert done.stdout.endswith("\nall passed; 3 not done\n")
    done, result = check(tmp_path, "bytes")
    assert "-- not done: ncu is not on the PATH: it comes with the CUDA toolkit" in done.stdout.splitlines()
    assert set(result["steps"]) == {*(f"sanitizer-{tool}" for tool in TOOLS), "bytes"}


@pytest.mark.parametrize("name", ["simulated device", "NVIDIA H100 80GB HBM3"])
def test_the_simulated_cuda_never_counts_as_a_gpu(tmp_path: Path, name: str) -> None:
    kept = ROOT / "benchmarks" / "results" / "gpu"
    before = sorted(kept.glob("*"))
    done, _ = check(tmp_path, "bytes", OUT=str(kept), FAKECUDA_NAME=name)
    assert done.returncode == 1
    assert "figures of the simulated CUDA are of no GPU" in done.stderr
    assert sorted(kept.glob("*")) == before


def test_an_unknown_step_is_refused_with_those_there_are(tmp_path: Path) -> None:
    done, _ = check(tmp_path, "speed")
    assert done.returncode == 2
    assert "unknown step speed: expected doctor, tests, sanitizer-memcheck" in done.stderr
