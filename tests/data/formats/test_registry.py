"""Data formats from outside: read by name, trained on and predicted from, and no reader of gpunn is replaced."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.harness import one_line

import gpunn as gn
from gpunn.data.formats.inputs import read_inputs
from gpunn.data.formats.registry import READERS
from gpunn.errors import DataError, OptionError


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    """What a test registers is forgotten after it."""
    before = dict(READERS)
    yield
    READERS.clear()
    READERS.update(before)


X, Y = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32), np.arange(20) % 2


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "some.POINTS"
    path.write_text("content")
    return path


@pytest.mark.parametrize(
    "given",
    [
        lambda: (X, Y),
        lambda: (X, Y, np.ones(20)),
        lambda: gn.Samples(X, Y, classes=2),
        lambda: gn.Data.from_arrays(X, Y),
    ],
    ids=["pair", "weighted", "samples", "data"],
)
def test_a_file_of_an_own_format_is_loaded_and_predicted_from(path: Path, given: Any) -> None:
    seen: list[Path] = []

    @gn.register_format(".points")
    def read(path: Path) -> Any:
        seen.append(path)
        return given()

    data = gn.load_data(path, validation=0.1)
    assert (len(data.train), len(data.validation or ())) == (18, 2)
    assert read_inputs(path, (3,)).shape[1:] == (3,)
    assert seen == [path, path]


def test_the_longest_end_is_the_one_that_counts(tmp_path: Path) -> None:
    gn.register_format(".b")(lambda path: (X, Y))
    gn.register_format(".a.b")(lambda path: (X[:10], Y[:10]))
    (tmp_path / "x.a.b").touch()
    assert len(gn.load_data(tmp_path / "x.a.b", validation=0).train) == 10


@pytest.mark.parametrize("given", [None, X, (X,), (X, Y, Y, Y), [X, Y], {"x": X}], ids=lambda each: type(each).__name__)
def test_what_is_no_data_is_said_in_a_line(path: Path, given: Any) -> None:
    gn.register_format(".points")(lambda path: given)
    with pytest.raises(DataError, match=r"its reader must return \(x, y\)") as caught:
        gn.load_data(path)
    one_line(caught.value)


def test_arrays_that_cannot_be_trained_on_are_refused_by_the_name_of_the_file(path: Path) -> None:
    gn.register_format(".points")(lambda path: (X[:3], Y))
    with pytest.raises(DataError, match=r"some\.POINTS"):
        gn.load_data(path)


@pytest.mark.parametrize("options", [{"target": "a"}, {"memory_map": True}, {"scaling": "none"}])
def test_options_of_other_files_are_refused(path: Path, options: dict[str, Any]) -> None:
    gn.register_format(".points")(lambda path: (X, Y))
    with pytest.raises(OptionError, match="code of yours"):
        gn.load_data(path, **options)


def test_a_file_that_is_not_there_is_missing_as_any_other(tmp_path: Path) -> None:
    gn.register_format(".points")(lambda path: (X, Y))
    with pytest.raises(DataError, match="no such file"):
        gn.load_data(tmp_path / "none.points")


@pytest.mark.parametrize("suffix", [".csv", ".NPZ", ".png", "points", ".", "", ".a/b", None, 3, ".a\n"], ids=repr)
def test_an_end_that_cannot_be_is_refused(suffix: Any) -> None:
    with pytest.raises(OptionError) as caught:
        gn.register_format(suffix)
    one_line(caught.value)


def test_an_end_is_of_one_module(path: Path) -> None:
    def read(path: Path) -> Any:
        return X, Y

    gn.register_format(".points")(read)
    gn.register_format(".points")(lambda path: (X[:10], Y[:10]))  # a cell that is run again
    assert len(gn.load_data(path, validation=0).train) == 10

    def other(path: Path) -> Any:
        return X, Y

    other.__module__ = "elsewhere"
    with pytest.raises(OptionError, match=r"read by .*test_registry already"):
        gn.register_format(".points")(other)
    with pytest.raises(OptionError, match="above a function"):
        gn.register_format(".more")(3)  # type: ignore[type-var]
