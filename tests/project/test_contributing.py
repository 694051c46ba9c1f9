"""CONTRIBUTING.md is true: its walk through a new activation works as it stands, and every file it names is there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT

PAGE = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
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
    """Apply blocks of edits: files after `+++`, hunks after `@@`, all of `+` for a file's end or a new file."""
    for edit in re.split(r"^\+\+\+ ", edits, flags=re.MULTILINE)[1:]:
        name, *hunks = re.split(r"\n@@$", edit.rstrip("\n"), flags=re.MULTILINE)
        text = (root / name).read_text("utf-8") if (root / name).exists() else ""
        for hunk in hunks:
            lines = hunk.removeprefix("\n").split("\n")
            old, new = ("".join(line[1:] + "\n" for line in lines if line[0] in signs) for signs in (" -", " +"))
            if not old:
                text += new
                continue
            places = [found.start() for found in re.finditer(f"^(?={re.escape(old)})", text, re.MULTILINE)]
            assert len(places) == 1, f"{name} must hold these lines once, not {len(places)} times:\n{old}"
            text = text[: places[0]] + new + text[places[0] + len(old) :]
        (root / name).write_text(text, "utf-8")


READ_A_FORMAT = """
import sys
from pathlib import Path
import numpy as np
import gpunn as gn
from gpunn.data.formats.inputs import read_inputs
from gpunn.errors import DataError
assert gn.__file__.startswith(sys.argv[1])
path, values = Path("a"), np.arange(6, dtype="<f4").reshape(2, 3)
content = b"F32\\n" + np.array([2, 3], "<u4").tobytes() + values.tobytes()
path.write_bytes(content)
np.testing.assert_array_equal(read_inputs(path, (3,)), values)
for length in range(4, len(content)):
    path.write_bytes(content[:length])
    try:
        read_inputs(path, (3,))
    except DataError:
        continue
    raise AssertionError(length)
"""


def copied(root: Path, edits: str) -> Path:
    for folder in ("gpunn", "tests"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    apply(edits, root)
    return root


@pytest.fixture(scope="module")
def copy_with_softsign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(tmp_path_factory.mktemp("copy"), "".join(re.findall(r"^```diff\n(.*?)^```", PAGE, re.M | re.S)))


def run_in(root: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(root), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *arguments], cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_activation_of_the_page_trains_and_is_saved_and_loaded(copy_with_softsign: Path) -> None:
    run_in(copy_with_softsign, "-W", "error", "-c", TRAIN_SAVE_LOAD, str(copy_with_softsign))


def test_the_file_format_of_the_page_is_read_and_refused_where_it_is_damaged(copy_with_softsign: Path) -> None:
    run_in(copy_with_softsign, "-W", "error", "-c", READ_A_FORMAT, str(copy_with_softsign))


def test_the_activation_of_the_page_passes_the_tests_that_ask_for_it(copy_with_softsign: Path) -> None:
    asked = [
        "kernels/test_kernels.py::test_a_kernel_computes_its_equation[cpu-softsign-float32-7]",
        "kernels/test_kernels.py::test_a_kernel_computes_its_equation[cpu-softsign_gradient-float64-7]",
        "cli/test_selftest.py::test_every_kernel_is_tested",
        "config/test_tables.py::test_every_part_that_a_file_may_name_is_tried_above[layer]",
        "config/test_tables.py::test_a_part_comes_back_from_its_dictionary[layer-Softsign()]",
        "project/test_public_api.py::test_everything_public_is_tried",
        "nn/test_gradients.py::test_back_propagation_through_an_activation[cpu-Softsign-SoftmaxCrossEntropy]",
        "nn/test_gradients.py::test_back_propagation_from_a_last_activation[cpu-Softsign]",
    ]
    tests = [f"tests/{test}" for test in asked]
    out = run_in(copy_with_softsign, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests)
    assert f"{len(asked)} passed" in out


# What the table under the walk says of two other kinds of parts: two files, and nothing else.

ABSOLUTE_ERROR = """
+++ gpunn/kernels/losses.py
@@
+
+
+_ABSOLUTE = \"\"\"
+            loss += abs(v - y);
+            gradient[at] = w * T((v > y) - (v < y)) / T(of);
+\"\"\"
+
+
+@_loss("T", _WITH_TARGETS % _ABSOLUTE, more=", bool each")
+def mean_absolute_error(a, bias, targets, gradient, losses, of, each):
+    error = a + bias - targets
+    losses[...] = np.abs(error).sum(axis=0)
+    gradient[...] = np.sign(error) / of
+    return np.zeros(1)
+++ gpunn/nn/losses.py
@@
-__all__ = ["BinaryCrossEntropy", "Loss", "MeanSquaredError", "SoftmaxCrossEntropy"]
+__all__ = ["BinaryCrossEntropy", "Loss", "MeanAbsoluteError", "MeanSquaredError", "SoftmaxCrossEntropy"]
@@
+
+
+@register
+class MeanAbsoluteError(Loss):
+    kernel = kernels.mean_absolute_error
+    weighted_kernel = kernels.weighted[kernel]
"""
SIGNS = """
+++ gpunn/kernels/updates.py
@@
+
+
+@elementwise("T gradient, raw T rates", "T value, raw int32 clock", "value -= rates[clock[0]] * T(sign(gradient));")
+def sign_sgd(gradient, rates, value, clock):
+    value -= rates[int(clock[STEP])] * np.sign(gradient)
+++ gpunn/train/optimizers.py
@@
-__all__ = ["L1", "L2", "SGD", "Adam", "AdamW", "Optimizer", "Regularizer"]
+__all__ = ["L1", "L2", "SGD", "Adam", "AdamW", "Optimizer", "Regularizer", "SignSGD"]
@@
+
+
+@register
+class SignSGD(Optimizer):
+    def __init__(self, learning_rate: float | Schedule = 0.01) -> None:
+        super().__init__(learning_rate)
+
+    def _build(self) -> None:
+        pass
+
+    def update(self, rates: Array, clock: Array) -> None:
+        self._run(kernels.sign_sgd, self.parameters.gradients, rates, self.parameters.learned, clock)
"""
LEARNS = """
import sys
import numpy as np
import gpunn as gn
from gpunn.backend.cpu import NumpyBackend
from gpunn.kernels import registry
from gpunn.cli.selftest import self_test
assert gn.__file__.startswith(sys.argv[1])
x = np.random.default_rng(0).normal(size=(200, 3))
model = gn.Sequential([gn.Dense(2)])
history = model.fit(x, x[:, :2] - x[:, 1:], epochs=20, device="cpu", progress=False, {options})
assert history[-1].validation_loss < 0.2 * history[0].validation_loss
model.save("model.safetensors")
assert type(gn.load_model("model.safetensors").loss) is type(model.loss)
said = []
assert self_test(NumpyBackend(), said.append)
assert said == [f"ok       self-test on cpu: {{len(registry)}} kernels and the matrix product agree with NumPy"], said
"""


@pytest.mark.parametrize(
    ("edits", "options"),
    [(ABSOLUTE_ERROR, "loss=gn.MeanAbsoluteError()"), (SIGNS, "optimizer=gn.SignSGD(gn.Cosine(0.05))")],
    ids=["loss", "optimizer"],
)
def test_a_loss_and_an_optimizer_are_two_files_each(edits: str, options: str, tmp_path: Path) -> None:
    root = copied(tmp_path / "copy", edits)
    run_in(root, "-W", "error", "-c", LEARNS.format(options=options), str(root))


def test_an_edit_whose_place_is_gone_or_twice_there_is_found(tmp_path: Path) -> None:
    for text, times in (("a\nb\n", 0), ("a\nc\nc\n", 2)):
        (tmp_path / "a.py").write_text(text, "utf-8")
        with pytest.raises(AssertionError, match=f"once, not {times} times"):
            apply("+++ a.py\n@@\n c\n+d\n", tmp_path)


def test_every_file_that_the_page_names_is_there() -> None:
    named = set(re.findall(r"`((?:gpunn|tests|benchmarks|scripts|\.ci)/[\w./]*)`", PAGE))
    assert len(named) > 20
    assert sorted(name for name in named if not (ROOT / name).exists()) == []
