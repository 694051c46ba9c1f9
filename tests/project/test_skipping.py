"""What may be skipped, and where a skip is a failure: the rules of conftest.py, on small tests."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import TESTS

OPTIONS = "[pytest]\nmarkers =\n    gpu: needs a CUDA device\nfilterwarnings = error\n"


def outcome(folder: Path, test: str, **variables: str) -> tuple[int, str]:
    """The exit code and the output of pytest on one file, as if in a checkout with nothing beside it."""
    tests = folder / "checkout" / "tests"
    (tests / "support").mkdir(parents=True)
    for name in ("conftest.py", "support/harness.py"):
        shutil.copy(TESTS / name, tests / name)
    (tests / "test_it.py").write_text(f"import pytest\n\n{test}", "utf-8")
    (tests / "pytest.ini").write_text(OPTIONS, "utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GPUNN_", "CI", "PYTEST"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider", tests],
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


def test_a_skip_is_a_failure_where_everything_is_required(tmp_path: Path) -> None:
    code, output = outcome(tmp_path, SKIPPED, GPUNN_REQUIRE_ALL="1")
    assert code == 1
    assert "GPUNN_REQUIRE_ALL is set, so this must not be skipped: Skipped: not today" in output


def test_a_skip_is_a_skip_elsewhere(tmp_path: Path) -> None:
    code, output = outcome(tmp_path, SKIPPED)
    assert code == 0
    assert "1 skipped" in output


@pytest.mark.parametrize(
    "file",
    ['pytest.importorskip("no_such_package")\n', 'pytest.skip("all of it", allow_module_level=True)\n'],
)
def test_a_file_that_skips_itself_fails_where_everything_is_required(tmp_path: Path, file: str) -> None:
    code, output = outcome(tmp_path, file + "def test_it():\n    pass\n", GPUNN_REQUIRE_ALL="1")
    assert code == 2
    assert "GPUNN_REQUIRE_ALL is set" in output


def test_an_expected_failure_is_no_skip(tmp_path: Path) -> None:
    code, output = outcome(
        tmp_path, "@pytest.mark.xfail\ndef test_it():\n    raise AssertionError\n", GPUNN_REQUIRE_ALL="1"
    )
    assert code == 0
    assert "1 xfailed" in output


def test_a_test_for_a_gpu_is_skipped_alone_and_with_the_reason(tmp_path: Path) -> None:
    code, output = outcome(tmp_path, ON_A_GPU + "\n\ndef test_other():\n    pass\n", GPUNN_REQUIRE_ALL="1")
    assert code == 0
    assert "1 passed, 1 skipped" in output
    assert "CuPy cannot be imported" in output or "no CUDA device" in output


def test_a_test_for_a_gpu_fails_where_a_gpu_is_required(tmp_path: Path) -> None:
    code, _ = outcome(tmp_path, ON_A_GPU, GPUNN_REQUIRE_ALL="1", GPUNN_REQUIRE_GPU="1")
    assert code == 1


def test_a_missing_data_set_is_skipped_here_and_fails_in_ci(tmp_path: Path) -> None:
    code, output = outcome(tmp_path / "here", ON_MNIST)
    assert code == 0
    assert "MNIST not found: set GPUNN_DATA" in output
    code, output = outcome(tmp_path / "ci", ON_MNIST, CI="true")
    assert code == 1
    assert "MNIST not found: set GPUNN_DATA" in output
