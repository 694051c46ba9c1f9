"""What may be skipped, and where a skip is a failure: the rules of conftest.py, on small tests."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
from support.paths import TESTS

Outcome = Callable[..., tuple[int, str]]
OPTIONS = "[pytest]\nmarkers =\n    gpu: needs a CUDA device\nfilterwarnings = error\n"


@pytest.fixture(params=[(), ("-n", "1")], ids=["one process", "a worker"])
def outcome(request: pytest.FixtureRequest, tmp_path: Path) -> Outcome:
    """Run pytest on one file, as if in a checkout with nothing beside it: (exit code, output)."""
    return partial(_outcome, tmp_path, request.param)


def _outcome(folder: Path, processes: Sequence[str], test: str, **variables: str) -> tuple[int, str]:
    tests = folder / "checkout" / "tests"
    (tests / "support").mkdir(parents=True, exist_ok=True)
    for name in ("conftest.py", "support/harness.py"):
        shutil.copy(TESTS / name, tests / name)
    (tests / "test_it.py").write_text(f"import pytest\n\n{test}", "utf-8")
    (tests / "pytest.ini").write_text(OPTIONS, "utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GPUNN_", "CI", "PYTEST"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rs", *processes, "-p", "no:cacheprovider", tests],
        cwd=tests,
        env=kept | variables | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout


SKIPPED = 'def test_it():\n    pytest.skip("not today")\n'
ON_A_GPU = "@pytest.mark.gpu\ndef test_it():\n    raise AssertionError\n"
ON_MNIST = "def test_it(mnist_folder):\n    assert mnist_folder.is_dir()\n"


def test_a_skip_is_a_failure_where_everything_is_required(outcome: Outcome) -> None:
    code, output = outcome(SKIPPED, GPUNN_REQUIRE_ALL="1")
    assert code == 1
    assert "GPUNN_REQUIRE_ALL is set, so this must not be skipped: Skipped: not today" in output


def test_a_skip_is_a_skip_elsewhere(outcome: Outcome) -> None:
    code, output = outcome(SKIPPED)
    assert code == 0
    assert "1 skipped" in output


@pytest.mark.parametrize(
    "file",
    ['pytest.importorskip("no_such_package")\n', 'pytest.skip("all of it", allow_module_level=True)\n'],
)
def test_a_file_that_skips_itself_fails_where_everything_is_required(outcome: Outcome, file: str) -> None:
    code, output = outcome(file + "def test_it():\n    pass\n", GPUNN_REQUIRE_ALL="1")
    assert code in (1, 2)  # interrupted, or with workers a failure
    assert "GPUNN_REQUIRE_ALL is set" in output


def test_an_expected_failure_is_no_skip(outcome: Outcome) -> None:
    code, output = outcome("@pytest.mark.xfail\ndef test_it():\n    raise AssertionError\n", GPUNN_REQUIRE_ALL="1")
    assert code == 0
    assert "1 xfailed" in output


def test_a_test_for_a_gpu_is_skipped_alone_and_with_the_reason(outcome: Outcome) -> None:
    code, output = outcome(ON_A_GPU + "\n\ndef test_other():\n    pass\n", GPUNN_REQUIRE_ALL="1")
    assert code == 0
    assert "1 passed, 1 skipped" in output
    assert "CuPy cannot be imported" in output or "no CUDA device" in output


def test_a_test_for_a_gpu_fails_where_a_gpu_is_required(outcome: Outcome) -> None:
    code, _ = outcome(ON_A_GPU, GPUNN_REQUIRE_ALL="1", GPUNN_REQUIRE_GPU="1")
    assert code == 1


def test_a_missing_data_set_is_skipped_here_and_fails_in_ci(outcome: Outcome) -> None:
    code, output = outcome(ON_MNIST)
    assert code == 0
    assert "MNIST not found: set GPUNN_DATA" in output
    code, output = outcome(ON_MNIST, CI="true")
    assert code == 1
    assert "MNIST not found: set GPUNN_DATA" in output
