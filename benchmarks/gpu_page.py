"""Write the GPU runs into docs/gpu.md and README.md, from the JSON of benchmarks/results/gpu.

scripts/gpu-check.sh && python benchmarks/gpu_page.py
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gpu_check import KEPT, in_words
from machine import ROOT, read_result
from profile_report import duration
from write_docs import markdown

BEGIN, END = "<!-- written by benchmarks/gpu_page.py -->", "<!-- until here -->"
NONE_YET = """None yet: the machines that gpunn was built on have no GPU. [Without a GPU](#without-a-gpu) lists the
tests that stand in, and [what waits for a GPU](#what-waits-for-a-gpu) the checks still to run."""

Check = dict[str, Any]


def read_checks(folder: Path = KEPT) -> list[Check]:
    """Read the JSON of each device, without small steps."""
    checks = [read_result(path) for path in sorted(folder.glob("*.json"))]
    whole = [
        check | {"steps": {name: step for name, step in check["steps"].items() if not step.get("small")}}
        for check in checks
    ]
    return [check for check in whole if check["steps"]]


def outcome(name: str, step: dict[str, Any]) -> str:
    """Describe the outcome of a step in words."""
    words = in_words(step)
    if tests := step.get("tests"):
        words += f"; {tests['passed']:,} tests passed, {tests['not_passed']} did not"
    if arguments := step.get("arguments"):
        words += f" (of those by `{' '.join(arguments)}`)"
    return words


def sentence(checks: Sequence[Check]) -> str:
    """Write the README's line: each device and the outcome of its steps."""
    if not checks:
        return "Run on GPUs so far: none yet. [Tests that stand in, and checks that wait for a GPU](docs/gpu.md)."
    devices = []
    for check in checks:
        steps = check["steps"].values()
        failed = [name for name, step in check["steps"].items() if "failed" in step]
        passed = sum("failed" not in step and "missing" not in step for step in steps)
        words = f"{passed} steps passed" + (f", failed: {', '.join(failed)}" if failed else "")
        devices.append(f"{check['gpu']['name']} ({max(step['date'] for step in steps)}: {words})")
    return f"Run on GPUs so far: {'; '.join(devices)}. [What came out](docs/gpu.md#what-has-been-run-on-which-gpu)."


def section(checks: Sequence[Check]) -> str:
    """Write the section of docs/gpu.md."""
    return "\n".join(line for check in checks for line in of_device(check)).strip() if checks else NONE_YET


def of_device(check: Check) -> Iterator[str]:
    """Write the lines about one device."""
    gpu, machine, steps = check["gpu"], check["machine"], check["steps"]
    yield from ("", f"### {gpu['name']}", "")
    yield (
        f"{gpu['memory_gib']} GiB, compute capability {gpu['capability']}; driver {gpu['driver'] or 'unknown'}, for "
        f"CUDA up to {gpu['cuda_driver']}; CUDA {gpu['cuda_runtime']}, CuPy {gpu['cupy']}, NumPy {machine['numpy']}, "
        f"Python {machine['python']}; {machine['processor']}, {machine['cores']} cores."
    )
    rows = [
        (name, outcome(name, step), f"{step['seconds']} s" if "seconds" in step else "", step["date"], step["commit"])
        for name, step in steps.items()
    ]
    yield from ("", *markdown([("step", "outcome", "time", "date", "commit"), *rows]))
    rows = [
        (name.partition("-")[2], f"{step['mean_test_accuracy']:.2%}", f"{step['mean_on_cpu']:.2%}")
        for name, step in steps.items()
        if "mean_on_cpu" in step
    ]
    if rows:
        yield from ("", *markdown([("test accuracy, mean of the seeds", "here", "on the CPU"), *rows]))
    for step in steps.values():
        if "kernels" in step:
            yield from ("", "A step of `lenet-bn` by ncu, and the arrays that its kernels are given:", "")
            yield from markdown([("kernel", "launches", "read", "written", "arrays"), *map(_kernel, step["kernels"])])
        if "answers" in step:
            answers = [(each["what"], f"{each['value']:.4g} {each['unit']}".strip()) for each in step["answers"]]
            yield from ("", *markdown([("question", "answer"), *answers]))
    work = [each for step in steps.values() for each in step.get("workloads", ())]
    if work:
        rows = [row for each in work for row in _peers(each)]
        yield from ("", *markdown([("workload", "", "precision", "time", "times gpunn's", "not measured"), *rows]))


def _kernel(each: dict[str, Any]) -> tuple[str, ...]:
    sizes = (f"{each[key] / 1e6:.3f} MB" for key in ("read", "written", "arrays"))
    return each["kernel"], str(each["launches"]), *sizes


def _peers(workload: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    absent = ", ".join(workload["absent"])
    for row in workload["rows"]:
        ratio = f"{row['times_gpunn']:.2f}" if "times_gpunn" in row else ""
        ratio += "" if row["agrees"] else " LOSS OR ACCURACY DIFFERS"
        yield (
            workload["name"], f"{row['peer']} {row['version'].split('+')[0]}", row["precision"],
            duration(row["median_seconds"]), ratio.strip(), absent,
        )  # fmt: skip
        absent = ""


def replaced(page: str, words: str) -> str:
    """Replace the words between the two comments of a page."""
    before, _, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"expected {BEGIN} and {END} on the page")
    return f"{before}{BEGIN}\n{words}\n{END}{after}"


PAGES = ((ROOT / "docs" / "gpu.md", section), (ROOT / "README.md", sentence))


def main() -> None:
    checks = read_checks()
    for path, made in PAGES:
        path.write_text(replaced(path.read_text("utf-8"), made(checks)), "utf-8")


if __name__ == "__main__":
    main()
