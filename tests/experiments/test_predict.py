"""Predictions from files: how sure they are, and pictures of what the network saw."""

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gpunn as gn
from gpunn.errors import OptionError
from gpunn.experiments.predict import Answer, format_answers, predict_files

DIGITS = gn.load_data("digits", validation=0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    network = gn.Sequential([gn.Dense(32), gn.ReLU(), gn.Dense(10)])
    network.fit(DIGITS, epochs=8, batch_size=32, device="cpu", progress=False)
    path = tmp_path_factory.mktemp("model") / "digits.safetensors"
    network.save(path)
    return str(path)


def photograph(number: int, path: Path) -> Path:
    """A digit drawn large and dark in a part of a grey page."""
    digit = np.asarray(DIGITS.test.inputs[number, :, :, 0], np.float32) / 16
    large = np.asarray(Image.fromarray(digit).resize((120, 120), Image.Resampling.BICUBIC)).clip(0, 1)
    page = np.full((240, 320), 150.0)
    page[90:210, 170:290] -= 120 * large
    Image.fromarray(page.astype(np.uint8)).save(path)
    return path


def answers(model: str, *files: Path, **options: object) -> list[Answer]:
    return list(predict_files(model, map(str, files), "cpu", note=lambda _: None, **options))  # type: ignore[arg-type]


def test_photographs_of_the_small_digits_are_read(model: str, tmp_path: Path) -> None:
    files = [photograph(number, tmp_path / f"{number}.png") for number in range(40)]
    for prepare, least, most in ((True, 0.85, 1.0), (False, 0, 0.5)):
        labels = [int(answer.label) for answer in answers(model, *files, prepare=prepare)]
        assert least <= np.mean(labels == DIGITS.test.targets[:40]) <= most


# How sure


def test_an_answer_names_the_two_likeliest_and_whether_it_is_sure(model: str, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", DIGITS.test.inputs[:50])
    for sure in (0.0, 0.9, 1.0):
        for answer in answers(model, tmp_path / "x.npy", sure=sure):
            order = np.argsort(answer.outputs)
            assert (answer.label, answer.second_label) == (str(order[-1]), str(order[-2]))
            assert answer.second_probability == answer.outputs[order[-2]]
            assert answer.sure == (answer.probability >= sure)


@pytest.mark.parametrize("sure", [-0.1, 1.1, math.nan])
def test_a_probability_to_be_sure_of_lies_between_0_and_1(sure: float, model: str) -> None:
    with pytest.raises(OptionError, match="sure must be a probability from 0 to 1"):
        answers(model, sure=sure)


ANSWERS = [
    Answer("a.png", 0, "3", 0.9, [], (), "8", 0.06, True),
    Answer("b.png", 0, "7", 0.4, [], (), "1", 0.35, False),
    Answer("c.png", 0, "7", 0.4, []),
]


def test_every_form_says_where_it_is_not_sure() -> None:
    assert format_answers(ANSWERS, "text").splitlines() == [
        "a.png  3  90.00%",
        "b.png  7  40.00%, or 1  35.00%  (not sure)",
        "c.png  7  40.00%",
    ]
    rows = list(csv.DictReader(io.StringIO(format_answers(ANSWERS, "csv"))))
    assert [row["sure"] for row in rows] == ["true", "false", ""]
    assert rows[1]["second_label"], rows[1]["second_probability"] == ("1", "0.350000")
    table = json.loads(format_answers(ANSWERS, "json"))
    assert [each.get("sure") for each in table] == [True, False, None]
    assert "second_label" not in table[2]


# What the network saw


def test_what_the_network_saw_lies_beside_the_picture(model: str, tmp_path: Path) -> None:
    path = photograph(0, tmp_path / "photo.png")
    answers(model, path, show=True)
    with Image.open(tmp_path / "photo.seen.png") as shown:
        assert shown.size == (280, 280)
        small = np.asarray(shown)[17::35, 17::35] / 255
    saw = answers(model, path)[0].outputs
    np.save(tmp_path / "x.npy", small[None, ..., None].astype(np.float32))
    np.testing.assert_allclose(answers(model, tmp_path / "x.npy")[0].outputs, saw, atol=0.02)


def test_no_file_but_its_own_picture_is_replaced(model: str, tmp_path: Path) -> None:
    path, taken = photograph(0, tmp_path / "photo.png"), tmp_path / "photo.seen.png"
    taken.write_bytes(b"mine")
    for _ in range(2):
        answers(model, path, show=True)
    path.rename(tmp_path / "photo.bmp")  # another picture that would take the same name
    answers(model, tmp_path / "photo.bmp", show=True)
    assert taken.read_bytes() == b"mine"
    assert sorted(each.name for each in tmp_path.glob("*.seen*")) == [
        "photo.seen-2.png",
        "photo.seen-3.png",
        "photo.seen.png",
    ]


def test_an_array_has_nothing_to_show(model: str, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", DIGITS.test.inputs[:2])
    said: list[str] = []
    list(predict_files(model, [str(tmp_path / "x.npy")], "cpu", note=said.append, show=True))
    assert "nothing to show" in said[0]
    assert [each.name for each in tmp_path.iterdir()] == ["x.npy"]
