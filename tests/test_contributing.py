"""The walk through a new activation in CONTRIBUTING.md works as it stands, and the files beside it are right."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gpunn

ROOT = Path(__file__).resolve().parent.parent
TRAIN_SAVE_LOAD = """
import sys
import numpy as np
import gpunn as gn
assert gn.__file__.startswith(sys.argv[1])
model = gn.Sequential([gn.Dense(32), gn.Softsign(), gn.Dense(10)])
data = gn.load_data("digits")
model.fit(data, epochs=5, device="cpu", progress=False)
model.save("model.safetensors")
again = gn.load_model("model.safetensors")
assert repr(again.layers[1]) == "Softsign()"
x = data.validation.inputs
np.testing.assert_array_equal(again.predict(x), model.predict(x))
assert model.evaluate(data.validation).accuracy > 0.9
"""


def apply(edits: str, root: Path) -> None:
    """Apply blocks of edits: files after `+++`, hunks after `@@`; one that is all `+` goes to the end of the file."""
    for edit in re.split(r"^\+\+\+ ", edits, flags=re.MULTILINE)[1:]:
        name, *hunks = re.split(r"\n@@$", edit.rstrip("\n"), flags=re.MULTILINE)
        text = (root / name).read_text("utf-8")
        for hunk in hunks:
            lines = hunk.removeprefix("\n").split("\n")
            old, new = ("".join(line[1:] + "\n" for line in lines if line[0] in signs) for signs in (" -", " +"))
            assert not old or text.count("\n" + old) == 1, f"{name} has not once, but {text.count(old)} times:\n{old}"
            text = text.replace("\n" + old, "\n" + new) if old else text + new
        (root / name).write_text(text, "utf-8")


@pytest.fixture(scope="module")
def copy_with_softsign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("copy")
    for folder in ("gpunn", "tests"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    for block in re.findall(r"^```diff\n(.*?)^```", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.M | re.S):
        apply(block, root)
    return root


def run_in(root: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(root), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *arguments], cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_activation_of_the_page_trains_and_is_saved_and_loaded(copy_with_softsign: Path) -> None:
    run_in(copy_with_softsign, "-W", "error", "-c", TRAIN_SAVE_LOAD, str(copy_with_softsign))


def test_the_activation_of_the_page_passes_the_tests_that_ask_for_it(copy_with_softsign: Path) -> None:
    files = [f"tests/test_{name}.py" for name in ("kernels", "selftest", "config", "public_api", "gradients")]
    wanted = "softsign or every_kernel_is_tested or every_part or everything_public or gradients_and_differences"
    out = run_in(copy_with_softsign, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not gpu", *files, "-k", wanted)
    assert "test_every_kernel" in out or "passed" in out
