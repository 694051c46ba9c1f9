"""Define the steps of gpu_check.py: the command of each, and its figures."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from workloads import workloads

SANITIZERS = ("memcheck", "racecheck", "synccheck")
KERNELS = "tests/kernels/test_kernels.py"
REPORT = "report.xml"
METRICS = ("dram__bytes_read.sum", "dram__bytes_write.sum")
DIGITS_SPREAD = 0.005
"""Standard deviation of the accuracy on the 360 digits that are tested, where the images differ in the last bit.

A device that rounds in another way is such a run: `mlp` twelve times for each of three seeds had 0.44 to 0.58 points.
"""


@dataclass(frozen=True)
class Step:
    """Something to be shown.

    Attributes:
        name: of the step; steps whose names begin with the same word before "-" belong together.
        command: what does it.
        figures: reads what is to be kept from the log and from files; a reason too why it "failed" or is "missing".
        variables: of the environment.
        missing: why it cannot be done here; it then has not failed.
    """

    name: str
    command: list[str]
    figures: Callable[[str], dict[str, Any]] = lambda log: {}
    variables: dict[str, str] = field(default_factory=dict)
    missing: str = ""


def steps(folder: Path, small: bool, tests: list[str]) -> list[Step]:
    """All steps.

    Args:
        folder: where the commands write, each in one of its step's name.
        small: whether to do a little of each.
        tests: arguments of pytest.
    """
    python = sys.executable
    little = ["--small"] if small else []
    pytest = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu"]
    others = [f"--ignore=tests/{name}" for name in ("oracle", "simulated_cuda", "simulator", "kernels/test_compile.py")]
    required = {"GPUNN_REQUIRE_ALL": "1", "GPUNN_REQUIRE_GPU": "1"}
    found = [
        Step("doctor", [python, "-m", "gpunn", "doctor"]),
        Step("tests", [*pytest, *others, f"--junitxml={folder / 'tests' / REPORT}", *tests],
             partial(_counts, folder / "tests" / REPORT, tests), required),
    ]  # fmt: skip
    sanitizer, why = _tool("compute-sanitizer")
    for tool in SANITIZERS:
        report = folder / (name := f"sanitizer-{tool}") / REPORT
        command = [sanitizer, "--tool", tool, "--error-exitcode", "9", "--target-processes", "application-only",
                   "--launch-timeout", "120", *pytest, f"--junitxml={report}", KERNELS, *tests]  # fmt: skip
        # Without CuPy's pool each array has bounds that the tool knows of.
        variables = required | {"GPUNN_NO_POOL": "1"}
        found.append(Step(name, command, partial(_hazards, tool, report, tests), variables, why))
    ncu, why = _tool("ncu")
    target = folder / "bytes"
    command = [ncu, "--csv", "--print-units", "base", "--print-kernel-base", "function", "--metrics", ",".join(METRICS),
               "--target-processes", "application-only", "--log-file", str(target / "ncu.csv"),
               python, "benchmarks/kernel_bytes.py", *little, str(target / "arrays.json")]  # fmt: skip
    found.append(Step("bytes", command, partial(_bytes, target), missing=why))
    found += _accuracies(folder, small)
    target = folder / "questions"
    command = [python, "benchmarks/gpu_questions.py", *little, str(target)]
    found.append(Step("questions", command, partial(_only, target / "gpu-questions.json", ("answers",))))
    groups = ["start"] if small else list(dict.fromkeys(each.group for each in workloads()))
    less = ["--quick", "--peers", "gpunn"] if small else ["--rounds", "3"]
    for group in groups:
        target = folder / (name := f"benchmarks-{group}")
        command = [python, "benchmarks/bench.py", group, "--device", "cuda", "--out", str(target), *less]
        found.append(Step(name, command, partial(_workloads, target / "benchmarks.json")))
    return found


def _tool(name: str) -> tuple[str, str]:
    """Where a tool of the CUDA toolkit is, or why it cannot be used."""
    folders = [os.environ.get("PATH", ""), os.environ.get("CUDA_HOME", "/usr/local/cuda") + "/bin"]
    path = shutil.which(name, path=os.pathsep.join(folders))
    return path or name, "" if path else f"{name} is not on the PATH: it comes with the CUDA toolkit"


def _accuracies(folder: Path, small: bool) -> Iterator[Step]:
    which = [("mlp", "digits")] if small else [("mlp", "digits"), ("lenet-digits", "digits")]
    mnist = [] if small else [(recipe, "mnist") for recipe in ("mlp", "lenet", "lenet-bn")]
    why = "" if os.environ.get("GPUNN_DATA") else "GPUNN_DATA names no folder of MNIST"
    for recipe, data in [*which, *mnist]:
        target = folder / (name := f"accuracy-{data}-{recipe}")
        command = [sys.executable, "benchmarks/accuracy.py", recipe, data, "--device", "cuda", "--out", str(target)]
        command += ["--seeds", "0"] if small else []
        # Three standard deviations of the difference of two means.
        alike = 3 * DIGITS_SPREAD * math.sqrt(2 / (1 if small else 3))
        command += ["--alike", f"{alike:.4f}"] if data == "digits" else []
        read = partial(_only, target / f"{name}-cuda.json", ("mean_test_accuracy", "mean_on_cpu"))
        yield Step(name, command, read, missing=why if data == "mnist" else "")


def _only(path: Path, names: tuple[str, ...], log: str) -> dict[str, Any]:
    result = json.loads(path.read_text("utf-8"))
    return {name: result[name] for name in names if name in result}


def _counts(report: Path, arguments: list[str], log: str) -> dict[str, Any]:
    """How many tests passed and failed, and by which arguments they were chosen."""
    suites = list(ElementTree.parse(report).getroot().iter("testsuite"))
    tests, failures, errors, skipped = (
        sum(int(suite.get(name, 0)) for suite in suites) for name in ("tests", "failures", "errors", "skipped")
    )
    found = {"passed": tests - failures - errors - skipped, "not_passed": failures + errors + skipped}
    return {"tests": found, **({"arguments": arguments} if arguments else {})}


_SUMMARY = re.compile(r"ERROR SUMMARY: (\d+) error|RACECHECK SUMMARY: (\d+) hazard")


def _hazards(tool: str, report: Path, arguments: list[str], log: str) -> dict[str, Any]:
    """What compute-sanitizer found, which it says in its last lines and by its exit code."""
    summaries = [int(one or other) for one, other in _SUMMARY.findall(log)]
    if not summaries:
        raise ValueError(f"{tool} gave no summary")
    found: dict[str, Any] = {"found": sum(summaries)} | _counts(report, arguments, log)
    return found | ({"failed": f"{tool} found {sum(summaries)}"} if sum(summaries) else {})


def _bytes(folder: Path, log: str) -> dict[str, Any]:
    """Bytes that each kernel moved between memory and chip, beside those of the arrays that it was given."""
    said = (folder / "ncu.csv").read_text("utf-8") if (folder / "ncu.csv").is_file() else ""
    if "ERR_NVGPUCTRPERM" in said + log:
        mend = "NVIDIA's page of that name says how it may"
        return {"missing": f"ncu may not read the counters of this GPU (ERR_NVGPUCTRPERM): {mend}"}
    kernels = json.loads((folder / "arrays.json").read_text("utf-8"))
    moved = {name: [0, 0] for name in kernels}
    launches = dict.fromkeys(kernels, 0)
    # What is no line of the table, ncu's own words and those of the program, has no quotes.
    for row in csv.DictReader(line for line in said.splitlines() if line.startswith('"')):
        name, metric = row["Kernel Name"].partition("(")[0], row["Metric Name"]
        if name in moved and metric in METRICS:
            moved[name][METRICS.index(metric)] += int(float(row["Metric Value"].replace(",", "")))
            launches[name] += metric == METRICS[0]
    if not any(launches.values()):
        raise ValueError("ncu counted the bytes of no kernel")
    return {
        "kernels": [
            {"kernel": name, "launches": launches[name], "read": read, "written": written, "arrays": kernels[name]}
            for name, (read, written) in sorted(moved.items())
            if launches[name]
        ]
    }


def _workloads(path: Path, log: str) -> dict[str, Any]:
    """Each workload with the rows of its table, without rounds and profile."""
    kept = ("peer", "version", "precision", "median_seconds", "times_gpunn", "agrees")
    found = json.loads(path.read_text("utf-8"))["workloads"]
    return {
        "workloads": [
            {
                "name": each["name"],
                "kind": each["kind"],
                "rows": [{key: row[key] for key in kept if key in row} for row in each["results"]],
                "absent": each["absent"],
            }
            for each in found
        ]
    }
