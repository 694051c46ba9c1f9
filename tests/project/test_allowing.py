"""Files that name classes from outside: refused, unless they are given for the call or their module is allowed."""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cli_helpers import assert_one_line, experiment_toml, gpunn, own_folder, program, without_pictures
from support.harness import one_line

import gpunn as gn
from gpunn.config import PARTS, from_config, to_config
from gpunn.errors import ModelFileError, OptionError

folder = pytest.fixture(own_folder)


class Gain(gn.Layer):
    """y = factor x, registered nowhere."""

    def __init__(self, factor: float = 2.0) -> None:
        self.factor = factor

    def build(self, context: Any, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        self._y, self._dx = context.buffer(input_shape), context.buffer(input_shape)
        return input_shape

    def forward(self, x: Any, training: bool) -> Any:
        return np.multiply(x, self.factor, out=self._y[x.shape[-1]])

    def backward(self, dy: Any) -> Any:
        return np.multiply(dy, self.factor, out=self._dx[dy.shape[-1]])


class Other:
    """Another class of the name of a layer."""

    Gain = type("Gain", (gn.ReLU,), {})
    ReLU = type("ReLU", (Gain,), {"__module__": "elsewhere"})


# The file of a user: it says when it is imported, and what it holds is registered nowhere.
MODULE = """
import numpy as np
import gpunn as gn

print("side effect")

class Gain(gn.Layer):
    def __init__(self, factor: float = 2.0) -> None:
        self.factor = factor

    def build(self, context, input_shape):
        self._y, self._dx = context.buffer(input_shape), context.buffer(input_shape)
        return input_shape

    def forward(self, x, training):
        return np.multiply(x, self.factor, out=self._y[x.shape[-1]])

    def backward(self, dy):
        return np.multiply(dy, self.factor, out=self._dx[dy.shape[-1]])

class ReLU(Gain):
    pass

class Broken(Gain):
    def forward(self, x, training):
        raise KeyError("own mistake")

def no_class():
    pass
"""


@pytest.fixture
def own_module(folder: Path) -> Iterator[str]:
    """A module in the folder, under a name that nothing else has; it is forgotten afterwards."""
    name = "own_doors"
    (folder / f"{name}.py").write_text(MODULE)
    (folder / "own.toml").write_text(
        experiment_toml(
            [{"type": "Flatten"}, {"type": f"{name}:Gain", "factor": 0.5}, {"type": f"{name}:ReLU"}],
            {"type": "SGD", "learning_rate": 0.1},
            epochs=2,
            batch_size=700,
            device="cpu",
            checkpoints={"every": 1, "keep": 9},
        )
    )
    yield name
    sys.modules.pop(name, None)


def saved(path: Path, *layers: gn.Layer) -> Path:
    model = gn.Sequential([gn.Dense(3), *layers, gn.Dense(2)]).build((4,), 8, "cpu")
    from gpunn.config import custom_classes

    with custom_classes([type(layer) for layer in layers]):
        model.save(path)
    return path


def test_a_class_that_is_given_for_the_call_is_known_to_that_call_alone(tmp_path: Path) -> None:
    path = saved(tmp_path / "file", Gain(3.0))
    model = gn.load_model(path, "cpu", custom=[Gain])
    assert isinstance(model.layers[1], Gain)
    assert model.layers[1].factor == 3.0
    assert "Gain" not in PARTS["layer"]
    with pytest.raises(ModelFileError, match=r"custom=\[Gain\]") as caught:
        gn.load_model(path, "cpu")
    one_line(caught.value)
    assert "--allow-import" in str(caught.value)


def test_a_network_with_such_classes_is_saved_again(tmp_path: Path) -> None:
    model = gn.load_model(saved(tmp_path / "file", Gain(3.0)), "cpu", custom=[Gain])
    model.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "file").read_bytes()
    assert to_config(model.layers[1]) == {"type": f"{__name__}:Gain", "factor": 3.0}


@pytest.mark.parametrize(
    ("custom", "word"),
    [
        ([Gain, Other.Gain], "two classes 'Gain'"),
        ([int], "int"),
        (["Gain"], "'Gain'"),
        ([gn.Layer], "Layer"),
        (Gain, r"\[Swish\]"),
        ({"Gain": Gain}, "list of classes"),
        (None, "list of classes"),
    ],
    ids=["two", "int", "text", "base", "class", "dict", "None"],
)
def test_what_is_no_list_of_classes_is_refused(tmp_path: Path, custom: Any, word: str) -> None:
    with pytest.raises(OptionError, match=word) as caught:
        gn.load_model(tmp_path / "none", "cpu", custom=custom)
    one_line(caught.value)


def test_a_class_of_the_name_of_a_bundled_one_does_not_shadow_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    gn.Sequential([gn.Dense(3), gn.ReLU(), gn.Dense(2)]).build((4,), 8, "cpu").save(path)
    assert type(gn.load_model(path, "cpu", custom=[Other.ReLU]).layers[1]) is gn.ReLU
    own = saved(tmp_path / "own", Other.ReLU())
    assert type(gn.load_model(own, "cpu", custom=[Other.ReLU]).layers[1]) is Other.ReLU
    with pytest.raises(ModelFileError, match="elsewhere:ReLU"):
        gn.load_model(own, "cpu")


def test_another_thread_does_not_know_what_this_one_was_given(tmp_path: Path) -> None:
    from gpunn.config import custom_classes

    found: list[str] = []

    def look() -> None:
        try:
            from_config("layer", f"{__name__}:Gain")
        except OptionError as error:
            found.append(str(error))

    with custom_classes([Gain]):
        assert isinstance(from_config("layer", f"{__name__}:Gain"), Gain)
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
    assert len(found) == 1


def test_nothing_that_a_file_names_is_imported(folder: Path, own_module: str) -> None:
    done = gpunn("train", "--recipe", "own.toml", "--out", "run")
    assert_one_line(done, 2, f"{own_module}:Gain", f"--allow-import {own_module}")
    assert own_module not in sys.modules
    assert "side effect" not in done.out
    assert not (folder / "run").exists()
    assert_one_line(gpunn("lr-find", "--recipe", "own.toml"), 2, f"--allow-import {own_module}")


def test_an_allowed_module_is_not_any_other(folder: Path, own_module: str) -> None:
    (folder / "harmless.py").write_text("")
    done = gpunn("train", "--recipe", "own.toml", "--out", "run", "--allow-import", "harmless")
    assert done.code == 2
    assert f"--allow-import {own_module}" in done.err
    assert own_module not in sys.modules


def test_a_run_of_allowed_classes_resumes_and_predicts(
    folder: Path, own_module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_pictures(monkeypatch)
    allow = ("--allow-import", own_module)
    done = gpunn("train", "--recipe", "own.toml", "--out", "run", *allow)
    assert done.code == 0, done.err
    assert f"imported {own_module} ({folder / own_module}.py)" in done.err
    assert f"{own_module}:Gain" in (folder / "run" / "experiment.toml").read_text()
    whole = (folder / "run" / "model.safetensors").read_bytes()
    (folder / "run" / "metrics.json").unlink()  # as if it had been killed
    resume = ("train", "--resume", "run/checkpoints/step-2")
    assert f"--allow-import {own_module}" in gpunn(*resume).err
    resumed = gpunn(*resume, *allow)
    assert resumed.code == 0, resumed.err
    assert (folder / "run" / "model.safetensors").read_bytes() == whole
    assert_one_line(gpunn("evaluate", "run"), 1, f"--allow-import {own_module}")
    assert gpunn("evaluate", "run", *allow).code == 0
    np.save(folder / "x.npy", np.zeros((1, 8, 8), np.uint8))
    again = program("predict", "run", "x.npy", "--format", "json", *allow, cwd=folder)  # a fresh process
    assert again.code == 0, again.err
    assert "imported" not in again.out
    tuned = gpunn("train", "digits", "--from", "run", "--epochs", "1", "--out", "tuned", *allow)
    assert tuned.code == 0, tuned.err
    assert sys.path[0] != str(folder)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such_module", ["no module no_such_module"]),
        ("own_doors.py", ["such as own_doors"]),
        ("own doors", ["name of a module"]),
        ("failing", ["ZeroDivisionError"]),
        ("leaving", ["SystemExit"]),
        ("needing", ["needs no_such_library"]),
        ("", ["name of a module"]),
    ],
)
def test_a_module_that_cannot_be_imported_is_said_in_a_line(
    folder: Path, own_module: str, name: str, words: list[str]
) -> None:
    (folder / "failing.py").write_text("1 / 0")
    (folder / "leaving.py").write_text("raise SystemExit(0)")
    (folder / "needing.py").write_text("import no_such_library")
    done = gpunn("train", "--recipe", "own.toml", "--allow-import", name)
    assert_one_line(done, 2, *words)


@pytest.mark.parametrize(("name", "word"), [("Missing", "no class"), ("no_class", "no class"), ("np", "no class")])
def test_what_is_no_class_of_an_allowed_module_is_said(folder: Path, own_module: str, name: str, word: str) -> None:
    text = (folder / "own.toml").read_text().replace(f"{own_module}:ReLU", f"{own_module}:{name}")
    (folder / "own.toml").write_text(text)
    done = gpunn("train", "--recipe", "own.toml", "--allow-import", own_module)
    assert done.code == 2
    assert word in done.err


def test_a_class_of_another_kind_is_refused(folder: Path, own_module: str) -> None:
    text = (folder / "own.toml").read_text().replace('"SGD"', f'"{own_module}:Gain"')
    (folder / "own.toml").write_text(text)
    done = gpunn("train", "--recipe", "own.toml", "--allow-import", own_module)
    assert done.code == 2
    assert "is no optimizer, but a layer" in done.err


def test_an_error_in_the_code_of_a_user_is_not_called_a_defect_of_gpunn(folder: Path, own_module: str) -> None:
    text = (folder / "own.toml").read_text().replace(f"{own_module}:ReLU", f"{own_module}:Broken")
    (folder / "own.toml").write_text(text)
    done = gpunn("train", "--recipe", "own.toml", "--out", "run", "--allow-import", own_module)
    assert done.code == 1
    assert f"{own_module}.py, line" in done.err
    assert "own mistake" in done.err
    assert "defect" not in done.err


@pytest.mark.parametrize(
    "name",
    [
        "a; reboot:Gain",
        "a\nb:Gain",
        f"{'a' * 10_000}:Gain",
        "a:b:Gain",
        ":Gain",
        "a:",
        "../a:Gain",
        "a:Gain()",
        ":",
    ],
)
def test_a_name_that_no_module_has_is_not_put_into_a_command(folder: Path, name: str) -> None:
    text = experiment_toml([{"type": name}], {"type": "SGD"}, epochs=1)
    (folder / "own.toml").write_text(text)
    done = gpunn("train", "--recipe", "own.toml")
    assert_one_line(done, 2, "unknown layer")
    assert "--allow-import" not in done.err
