"""What the pages say of GPUs is what the JSON of scripts/gpu-check.sh says, and none of it is of the simulated CUDA."""

import copy
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.paths import ROOT

STEP = {"date": "2026-12-01", "commit": "c0ffee"}
CHECK: dict[str, Any] = {
    "gpu": {
        "name": "NVIDIA T1000", "memory_gib": 3.8, "capability": "7.5", "driver": "580.65.06", "cuda_driver": "13.0",
        "cuda_runtime": "13.1", "cupy": "14.2.0",
    },
    "machine": {"processor": "a processor", "cores": 4, "python": "3.12.1", "numpy": "2.4.6"},
    "steps": {
        "doctor": STEP | {"seconds": 4.5},
        "tests": STEP | {"seconds": 300.0, "tests": {"passed": 1095, "not_passed": 2}, "failed": "exit code 1"},
        "sanitizer-memcheck": STEP | {"missing": "compute-sanitizer is not on the PATH"},
        "bytes": STEP
        | {"seconds": 20.0, "kernels": [{"kernel": "relu", "launches": 3, "read": 4e6, "written": 5e6, "arrays": 6e6}]},
        "accuracy-mnist-mlp": STEP | {"seconds": 9.0, "mean_test_accuracy": 0.9831, "mean_on_cpu": 0.983},
        "questions": STEP | {"seconds": 9.0, "answers": [{"what": "a copy", "value": 300.0, "unit": "GB/s"}]},
        "benchmarks-dense": STEP
        | {
            "seconds": 9.0,
            "workloads": [
                {
                    "name": "784-30-10", "kind": "steps", "absent": {"JAX jit": "not installed"},
                    "rows": [
                        {"peer": "gpunn", "version": "0.1.0", "precision": "float32", "median_seconds": 2e-5,
                         "times_gpunn": 1.0, "agrees": True},
                        {"peer": "PyTorch eager", "version": "2.13.0+cu130", "precision": "float32",
                         "median_seconds": 9e-5, "times_gpunn": 4.5, "agrees": False},
                    ],
                }
            ],
        },
        "benchmarks-conv": STEP | {"seconds": 1.0, "small": True},
    },
}  # fmt: skip


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gpu_page

    return gpu_page


def test_the_pages_are_made_of_the_json(page: ModuleType) -> None:
    checks = page.read_checks()
    for path, made in page.PAGES:
        text = path.read_text("utf-8")
        assert text == page.replaced(text, made(checks)), f"{path.name}: run python benchmarks/gpu_page.py"


def test_the_first_screen_of_the_readme_says_it(page: ModuleType) -> None:
    assert page.sentence(page.read_checks()) in (ROOT / "README.md").read_text("utf-8").splitlines()[:20]


def test_without_json_nothing_has_been_run(page: ModuleType, tmp_path: Path) -> None:
    assert page.read_checks(tmp_path) == []
    assert page.section([]).startswith("None yet:")
    assert "none yet" in page.sentence([])


def test_every_figure_of_whole_steps_is_on_the_page(page: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "nvidia-t1000.json").write_text(json.dumps(CHECK))
    checks = page.read_checks(tmp_path)
    text = page.section(checks)
    for line in (
        "### NVIDIA T1000",
        "| doctor | passed | 4.5 s | 2026-12-01 | c0ffee |",
        "| tests | failed: exit code 1; 1,095 tests passed, 2 did not | 300.0 s | 2026-12-01 | c0ffee |",
        "| sanitizer-memcheck | not done: compute-sanitizer is not on the PATH |  | 2026-12-01 | c0ffee |",
        "| relu | 3 | 4.000 MB | 5.000 MB | 6.000 MB |",
        "| mnist-mlp | 98.31% | 98.30% |",
        "| a copy | 300 GB/s |",
        "| 784-30-10 | gpunn 0.1.0 | float32 | 20 µs | 1.00 | JAX jit |",
        "| 784-30-10 | PyTorch eager 2.13.0 | float32 | 90 µs | 4.50 LOSS OR ACCURACY DIFFERS |  |",
    ):
        assert line in text.splitlines()
    for version in ("driver 580.65.06", "CUDA 13.1", "CuPy 14.2.0", "NumPy 2.4.6", "Python 3.12.1"):
        assert version in text
    assert "benchmarks-conv" not in text  # a little of it was run
    said = page.sentence(checks)
    assert "NVIDIA T1000 (2026-12-01: 5 steps passed, failed: tests)" in said
    assert "none yet" not in said


def test_json_of_the_simulated_cuda_is_refused(page: ModuleType, tmp_path: Path) -> None:
    simulated = copy.deepcopy(CHECK)
    simulated["machine"]["simulated"] = True
    (tmp_path / "nvidia-t1000.json").write_text(json.dumps(simulated))
    with pytest.raises(SystemExit, match="figures of the simulated CUDA are of no GPU"):
        page.read_checks(tmp_path)


def test_no_result_that_is_kept_is_of_the_simulated_cuda() -> None:
    for path in (ROOT / "benchmarks" / "results").rglob("*.json"):
        text = path.read_text("utf-8")
        assert "simulated device" not in text
        assert not json.loads(text).get("machine", {}).get("simulated")
