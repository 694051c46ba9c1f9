"""Execute the chapters of the lecture: minutes, so only where GPUNN_LECTURE=1 asks for it, as `.ci/run` does."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.paths import ROOT
from support.percent import CHAPTERS, LECTURE, cells_of

pytestmark = pytest.mark.skipif(
    os.environ.get("GPUNN_LECTURE") != "1", reason="it executes the lecture, which takes minutes: set GPUNN_LECTURE=1"
)

MOST_SECONDS = 600  # for all chapters once, on two cores
TINY = """# %% [markdown]
# # 1. A tiny chapter

# %% alt="A line"
import matplotlib.pyplot as plt
import numpy as np
plt.plot([1, 2])
print("first", np.arange(3))

# %% [markdown] tags=["exercise"]
# Say why.

# %% [markdown] tags=["solution"]
# Because.

# %% tags=["solution"]
assert 1 + 1 == 2

# %% [markdown] tags=["exercise"]
# Say it again.

# %% tags=["solution"]
LAST
"""


def lecture(*arguments: object, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "lecture" / "run.py"), *map(str, arguments)]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=timeout
    )


def tiny(folder: Path, last: str) -> Path:
    path = folder / "01_tiny.py"
    path.write_text(TINY.replace("LAST", last), "utf-8")
    return path


@pytest.mark.parametrize(
    ("last", "words"),
    [
        ("print(1 / 0)", "failed: ZeroDivisionError: division by zero"),
        ("assert 1 + 1 == 3, 'one\\nand one'", "failed: AssertionError: one and one"),
        ("raise SystemExit(3)", "failed: SystemExit: 3"),
        ("import os; os._exit(1)", "ended the kernel: too little memory, or a crash"),
        (
            "np.log(np.zeros(1))",
            "warns, which readers would see: .*: RuntimeWarning: divide by zero encountered in log",
        ),
        ("import socket; print(socket.nosuch)", "failed: AttributeError: module 'socket' has no attribute 'nosuch'"),
    ],
    ids=["exception", "assert", "exit", "crash", "warning", "attribute"],
)
def test_a_cell_that_fails_is_named_in_one_line(last: str, words: str, tmp_path: Path) -> None:
    done = lecture(tiny(tmp_path, last), "--markdown", tmp_path / "out")
    assert done.returncode == 1
    assert re.fullmatch(rf"lecture: chapter 01_tiny, cell 7, line 22 {words}\n", done.stderr), done.stderr
    assert not (tmp_path / "out" / "01_tiny.md").exists()


def test_a_number_that_is_another_the_second_time_is_found(tmp_path: Path) -> None:
    path = tiny(tmp_path, "print('seed', np.random.default_rng().integers(1 << 60))")
    assert lecture(path).returncode == 0
    done = lecture(path, "--check")
    assert done.returncode == 1
    assert re.fullmatch(r"lecture: chapter 01_tiny, cell 7, line 22 prints .*fix its seed\n", done.stderr), done.stderr
    assert lecture(tiny(tmp_path, "print('the same'); object()"), "--check").returncode == 0


def test_markdown_has_what_was_printed_and_drawn_and_folded_solutions(tmp_path: Path) -> None:
    done = lecture(tiny(tmp_path, "assert True\n'`' * 3"), "--markdown", tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "01_tiny.md").read_text("utf-8")
    assert "```text\nfirst [0 1 2]\n```\n\n![A line](01_tiny_files/02-1.png)\n" in text
    assert "<matplotlib" not in text
    assert (tmp_path / "01_tiny_files" / "02-1.png").read_bytes().startswith(b"\x89PNG")
    folded = '<details class="solution" markdown="1">\n<summary>Solution</summary>\n\n'
    assert f"Say why.\n\n{folded}Because.\n\n```python\nassert 1 + 1 == 2\n```\n\n</details>\n\nSay it again." in text
    assert text.count("<details") == text.count("</details>") == 2


def test_notebooks_for_students_have_an_empty_cell_for_each_solution(tmp_path: Path) -> None:
    import nbformat

    path = tiny(tmp_path, "assert True")
    assert lecture(path, "--notebooks", tmp_path / "whole").returncode == 0
    assert lecture(path, "--notebooks", tmp_path / "students", "--without-solutions").returncode == 0
    whole, students = (nbformat.read(tmp_path / name / "01_tiny.ipynb", as_version=4) for name in ("whole", "students"))
    for notebook in (whole, students):
        nbformat.validate(notebook)
        assert not any(cell.get("outputs") for cell in notebook.cells)
    assert [cell.cell_type[0] for cell in whole.cells] == list("mcmmcmc")
    assert [cell.source.strip() for cell in students.cells][2:] == [
        "Say why.", "# Your answer", "Say it again.", "# Your answer"
    ]  # fmt: skip
    first = (tmp_path / "whole" / "01_tiny.ipynb").read_bytes()
    assert lecture(path, "--notebooks", tmp_path / "whole").returncode == 0
    assert (tmp_path / "whole" / "01_tiny.ipynb").read_bytes() == first


def test_what_cannot_be_is_refused_in_one_line(tmp_path: Path) -> None:
    done = lecture("99")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "there is no chapter 99" in done.stderr
    assert lecture("--without-solutions").returncode == 2
    (tmp_path / "file").write_text("")
    done = lecture(CHAPTERS[0], "--notebooks", tmp_path / "file")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_jupytext_reads_the_cells_that_the_other_tests_read(path: Path) -> None:
    import jupytext

    cells = jupytext.reads(path.read_text("utf-8"), fmt="py:percent").cells
    assert [
        (cell.cell_type == "code", tuple(cell.metadata.get("tags", ())), cell.source.strip()) for cell in cells
    ] == [(cell.is_code, cell.tags, cell.text) for cell in cells_of(path)]


def test_all_chapters_run_to_their_end_and_print_the_same_twice() -> None:
    """The whole lecture, which is long: all of it is the point."""
    before = set(LECTURE.rglob("*"))
    began = time.perf_counter()
    done = lecture("--check", timeout=3 * MOST_SECONDS)
    seconds = time.perf_counter() - began
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    assert f"{len(CHAPTERS)} of {len(CHAPTERS)} chapters ran to their end" in done.stdout
    assert seconds <= 2 * MOST_SECONDS
    left = {path for path in set(LECTURE.rglob("*")) - before if "__pycache__" not in path.parts}
    assert left == set()
