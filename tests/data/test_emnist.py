"""EMNIST's splits: found by their file names, brought upright, and their letters named."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.data_helpers import one_line, write_set

from gpunn.data import load as load_module
from gpunn.data import load_data
from gpunn.data.emnist import EMNIST
from gpunn.errors import DataError, OptionError


@pytest.fixture(autouse=True)
def small_sets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GPUNN_DATA", raising=False)
    monkeypatch.setattr(load_module, "user_cache", lambda: tmp_path / "cache")
    for name, split in list(EMNIST.items()):
        monkeypatch.setitem(EMNIST, name, replace(split, counts=((124, 62),)))


def arrays(name: str) -> dict[str, NDArray[np.uint8]]:
    split, found = EMNIST[name], {}
    for part, count in (("train", 124), ("test", 62)):
        images = np.zeros((count, 28, 28), np.uint8)
        images[:, 3, :] = 200  # a column, as the files have it
        found[f"{name}-{part}-images-idx3-ubyte"] = images
        labels = np.arange(count) % len(split.class_names) + split.first_label
        found[f"{name}-{part}-labels-idx1-ubyte"] = labels.astype(np.uint8)
    return found


def refused(source: object) -> str:
    with pytest.raises(DataError) as caught:
        load_data(source, validation=0)  # type: ignore[arg-type]
    one_line(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", EMNIST)
def test_a_folder_with_the_files_of_a_split_is_that_split(tmp_path: Path, name: str) -> None:
    for folder, packed in ((tmp_path / "plain", False), (tmp_path / "above" / "gzip", True)):
        write_set(folder, arrays(name), packed=packed)
        data = load_data(folder if not packed else folder.parent, validation=0)
        assert data.test is not None
        assert (len(data.train), len(data.test), data.train.shape) == (124, 62, (28, 28, 1))
        assert (data.train.inputs[:, :, 3] == 200).all()
        assert (data.test.inputs[:, :, 4] == 0).all()
        assert data.class_names == EMNIST[name].class_names
        np.testing.assert_array_equal(data.train.targets, np.arange(124) % len(data.class_names))


def test_the_classes_are_those_of_the_paper() -> None:
    sizes = {name.removeprefix("emnist-"): len(split.class_names) for name, split in EMNIST.items()}
    assert sizes == {"balanced": 47, "byclass": 62, "bymerge": 47, "digits": 10, "letters": 26, "mnist": 10}
    assert EMNIST["emnist-balanced"].class_names[36:] == tuple("abdefghnqrt")


def test_a_name_is_found_where_gpunn_data_says_or_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = refused("emnist-letters")
    assert "emnist-letters-train-images-idx3-ubyte" in message
    assert "GPUNN_DATA" in message
    write_set(tmp_path / "cache" / "emnist" / "gzip", arrays("emnist-letters"), packed=True)
    assert load_data("emnist-letters").class_names[0] == "A"
    write_set(tmp_path / "data", arrays("emnist-digits"))
    write_set(tmp_path / "data", arrays("emnist-balanced"))
    monkeypatch.setenv("GPUNN_DATA", str(tmp_path / "data"))
    assert load_data("emnist-digits").train.classes == 10
    assert "holds several sets, emnist-balanced, emnist-digits" in refused(tmp_path / "data")


def test_wrong_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUNN_DATA", str(tmp_path))
    name = "emnist-letters"
    images, labels = f"{name}-train-images-idx3-ubyte", f"{name}-train-labels-idx1-ubyte"
    whole = arrays(name)
    zero = whole[labels].copy()
    zero[5] = 0
    for changed, said in (
        ({labels: zero}, f"{labels}: expected labels from 1 to 26, got 0"),
        ({labels: zero + 3}, f"{labels}: expected labels from 1 to 26, got 29"),
        ({labels: zero[1:]}, f"{labels} 123 labels"),
        ({images: whole[images][1:], labels: zero[1:]}, f"{images}: expected 124 images, got 123"),
        ({images: whole[images][:, 1:]}, f"{images}: expected images of 28 × 28, got (124, 27, 28, 1)"),
    ):
        write_set(tmp_path, whole | changed)
        assert said in refused(name)


def test_a_name_half_written_is_not_taken_for_another() -> None:
    with pytest.raises(OptionError, match='did you mean "emnist-balanced" or "emnist-byclass"'):
        load_data("emnist")
    with pytest.raises(OptionError, match='did you mean "cifar-10"'):
        load_data("cifar10")
    with pytest.raises(OptionError, match='did you mean "cifar-10" or "cifar-100"'):
        load_data("cifar")
