"""Labels that are texts: in whatever array they come, and which of them can be names of classes."""

import logging
from typing import Any

import numpy as np
import pytest
from support.data_helpers import one_line

import gpunn as gn
from gpunn.data import Data
from gpunn.data.labels import MOST_BYTES, MOST_CHARACTERS
from gpunn.errors import DataError

WORDS = ["né", "a", "b", "a"]
X = np.arange(8, dtype=np.float32).reshape(4, 2)


class Missing:
    """Stands for the NA of pandas, which compares to nothing."""

    def __eq__(self, other: object) -> Any:
        raise TypeError("boolean value of NA is ambiguous")

    __hash__ = None  # type: ignore[assignment]


Missing.__name__ = "NAType"


class Column:
    """A column of a data frame, as pandas and polars give it to NumPy."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.array(WORDS, object)


def refused(labels: Any, **named: Any) -> str:
    with pytest.raises(DataError) as caught:
        Data.from_arrays(X, labels, validation=0, **named)
    one_line(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "labels",
    [
        WORDS,
        tuple(WORDS),
        [[word] for word in WORDS],
        np.array(WORDS),
        np.array(WORDS).astype(">U2"),
        np.array(WORDS)[:, None],
        np.array(WORDS, object),
        np.char.encode(WORDS, "utf-8"),
        [word.encode() for word in WORDS],
        [np.str_(word) for word in WORDS],
        np.array(WORDS, np.dtypes.StringDType()),
        np.ma.array(WORDS, mask=[0, 0, 0, 0]),
        Column(),
    ],
)  # fmt: skip
def test_texts_of_all_kinds_are_the_same_labels(labels: Any) -> None:
    data = Data.from_arrays(X, labels, validation=0)
    assert data.class_names == ("a", "b", "né")
    assert {type(name) for name in data.class_names} == {str}
    assert data.train.targets.tolist() == [2, 0, 1, 0]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["a", None, "b", "a"], "label at index 1 is missing (None)"),
        (["a", float("nan"), "b", "a"], "label at index 1 is missing (nan)"),
        (np.array(["a", Missing(), "b", "a"], object), "label at index 1 is missing ("),
        (np.ma.array(WORDS, mask=[0, 1, 0, 0]), "label at index 1 is missing (masked)"),
        (["a", "b", "", "a"], "at index 2 is empty"),
        (["a", "b", " ", "a"], "at index 2 is empty"),
        (["a", 1, "b", "a"], "names or numbers, got 1 at index 1"),
        (["a", "c\nd", "b", "a"], r"label 'c\nd' at index 1 is no text of one line"),
        (["a", "c\0d", "b", "a"], r"label 'c\x00d' at index 1 is no text of one line"),
        (["a", "b", "\ud800", "a"], r"label '\ud800' at index 2 is no text of one line"),
        (["a", "b", "x" * 300, "a"], "at index 2 has 300 characters, at most 255"),
        ([b"a", b"b", b"\xe9", b"a"], r"label b'\xe9' at index 2 is no text in UTF-8"),
        (np.array([0x110000, 97, 98, 97], np.uint32).view("U1"), "no character"),
    ],
)  # fmt: skip
def test_a_label_that_can_be_no_class_is_named_with_its_place(labels: Any, said: str) -> None:
    assert said in refused(labels)


def test_labels_of_the_other_parts_that_are_not_learned_are_named() -> None:
    data: dict[str, Any] = {part: (X[:2], ["a", "new"]) for part in ("validation", "test")}
    with pytest.raises(DataError, match="validation set of arrays: label 'new' at index 1 is no class: expected 'a'"):
        Data.from_arrays(X, WORDS, **data)
    with pytest.raises(DataError, match="test set of arrays: label 'new' at index 1 is no class: expected 'a'"):
        _ = Data.from_arrays(X, WORDS, test=data["test"]).test


def test_two_names_that_look_alike_are_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Data.from_arrays(X, ["a", "a ", "b", "a"], validation=0)
        Data.from_arrays(X, ["a", "A", "b", "a"], validation=0)
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "labels 'a' and 'a ' look alike, and are two classes"
    ]


def test_every_name_that_is_taken_comes_back_from_a_model_file(tmp_path: Any) -> None:
    each = MOST_BYTES // 4096 - 16
    names = [f"{place:04}" + "é\"\\ '😀"[place % 6] * (each // 7 - 2) for place in range(4096)]
    assert max(map(len, names)) <= MOST_CHARACTERS
    data = Data.from_arrays(np.zeros((4096, 1), np.float32), names, validation=0)
    model = gn.Sequential([gn.Dense(4096)]).build(1, device="cpu")
    model.class_names = data.class_names
    model.save(tmp_path / "names.safetensors")
    assert gn.load_model(tmp_path / "names.safetensors", device="cpu").class_names == tuple(sorted(names))


def test_names_that_no_model_file_can_hold_are_refused() -> None:
    names = [f"{place:06}" + "é" * 200 for place in range(1000)]
    with pytest.raises(DataError, match=r"the class names take 1,4.* at most 1,048,576"):
        Data.from_arrays(np.zeros((1000, 1), np.float32), names, validation=0)
    many = [f"id {place}" for place in range(70_000)]
    with pytest.raises(DataError, match="at most 65,536 classes, got 70,000 different texts in 70,000 labels"):
        Data.from_arrays(np.zeros((70_000, 1), np.float32), many)
    assert "class name '' at place 1 is empty" in refused([0, 1, 0, 1], class_names=["a", ""])
    assert r"class name 'b\n' at place 1 is no text of one line" in refused([0, 1, 0, 1], class_names=["a", "b\n"])
