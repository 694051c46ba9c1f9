"""Runs on folders of images: trained, gone on with, evaluated on others, asked about files, by the program."""

import json
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.cli_helpers import TINY, assert_one_line, gpunn, own_folder, without_pictures
from support.image_folders import class_folders, picture, put_image
from support.paths import ROOT

import gpunn as gn
from gpunn.data import images
from gpunn.experiments.experiment import read_experiment, recipe_for

folder = pytest.fixture(autouse=True)(own_folder)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow.toml").write_text(TINY.replace("0.1", "0.001"))  # for images of noise
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module", autouse=True)
def _plain() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        without_pictures(patch)
        yield


def test_a_run_keeps_size_and_colours_and_finds_its_images_again(tmp_path: Path) -> None:
    class_folders(tmp_path / "set" / "train", ("2", "10", "7"), each=8, height=70, width=90)
    class_folders(tmp_path / "set" / "test", ("2", "10", "7"), each=2, height=20, width=30)
    done = gpunn("train", "set", "--recipe", "slow.toml", "--image-size", "6x8", "--colours", "grey", "--out", "run")
    assert done.code == 0, done.err
    assert "30 images (24 train, 6 test), 3 classes, 90 × 70, grey: fitted to 6 × 8 × 1" in done.out
    kept = tomllib.loads(Path("run/experiment.toml").read_text())["data"]
    assert (kept["image_size"], kept["colours"], kept["shape"]) == ([6, 8], "grey", [6, 8, 1])

    done = gpunn("train", "--resume", "run", "--epochs", "3")
    assert done.code == 0, done.err
    (tmp_path / "set").rename(tmp_path / "moved")
    done = gpunn("train", "moved", "--resume", "run", "--epochs", "4")
    assert done.code == 0, done.err
    done = gpunn("evaluate", "run")
    assert done.code == 0, done.err
    assert "test set (6)" in done.out

    # Another folder is fitted to the network's inputs, and its classes are known by their names.
    class_folders(tmp_path / "other", ("10", "7"), each=3, height=33, width=20)
    done = gpunn("evaluate", "run", "other")
    assert done.code == 0, done.err
    model = gn.load_model("run/model.safetensors", "cpu")
    data = gn.load_data("other", image_size=(6, 8), colours="grey", validation=0)
    answers = [model.class_names[k] for k in model.predict(data.train.inputs)]
    right = np.mean([answer == data.class_names[k] for answer, k in zip(answers, data.train.targets, strict=True)])
    assert f"accuracy {right:.2%}" in done.out

    done = gpunn("predict", "run", *sorted(Path("moved/train").rglob("*.png")), "--format", "json")
    train = gn.load_data("moved", image_size=(6, 8), colours="grey", validation=0).train
    expected = model.predict_proba(np.asarray(train.inputs))
    np.testing.assert_allclose([answer["outputs"] for answer in json.loads(done.out)], expected, atol=1e-5)


def test_a_run_with_the_size_left_out_begins_again_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class_folders(tmp_path / "set", each=12)
    assert gpunn("train", "set", "--recipe", "slow.toml", "--out", "run").code == 0
    monkeypatch.setattr(images, "read_pixels", None)
    assert gpunn("train", "set", "--recipe", "slow.toml", "--out", "again").code == 0
    assert gpunn("evaluate", "run").code == 0
    of_images = read_experiment("run/experiment.toml")
    assert (of_images.data.image_size, of_images.data.colours) == ((12, 12), "rgb")
    assert of_images.with_options(data="digits").data.image_size == ()  # other data than images


def test_numbers_are_learned_from_images(tmp_path: Path) -> None:
    lines = ["file_name,x,y"]
    for number in range(24):
        put_image(tmp_path / "set" / f"{number}.png", picture(number))
        lines.append(f"{number}.png,{number / 10},{number % 3}")
    (tmp_path / "set" / "answers.csv").write_text("\n".join(lines))
    done = gpunn("train", "set", "--recipe", "slow.toml", "--out", "run")
    assert done.code == 0, done.err
    assert "2 float targets" in done.out
    assert gpunn("predict", "run", "set/3.png").code == 0


def test_folders_of_images_have_a_recipe_of_their_own(tmp_path: Path) -> None:
    class_folders(tmp_path / "set")
    (tmp_path / "empty").mkdir()
    assert [recipe_for(source) for source in ("set", "empty", "digits", "mnist", None)] == ["images", *["mlp"] * 4]
    done = gpunn("train", "set", "--epochs", "1", "--device", "cpu", "--out", "run")
    assert done.code == 0, done.err
    assert "recipe      images" in done.out
    assert read_experiment("run/experiment.toml").name == "images"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("set", "--image-size", "large"), 2, "--image-size is a side such as 64, or height x width such as 48x64"),
        (("set", "--image-size", "0"), 2, "image_size is a side, or (height, width), each from 1 to 4,096"),
        (("set", "--colours", "blue"), 2, "colours are grey or rgb, got 'blue'"),
        (("digits", "--image-size", "8"), 2, "for a folder of images, got digits"),
        (("damaged",), 1, "damaged/cat/1.png: the image is damaged"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path: Path, arguments: tuple[str, ...], code: int, words: str) -> None:
    class_folders(tmp_path / "set")
    class_folders(tmp_path / "damaged")
    (tmp_path / "damaged" / "cat" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    assert_one_line(gpunn("train", *arguments, "--recipe", "slow.toml"), code, words)


def test_the_size_of_a_run_cannot_be_changed_when_it_is_resumed() -> None:
    assert_one_line(gpunn("train", "--resume", "run", "--image-size", "8"), 2, "--image-size cannot be given")


def test_the_example_is_what_its_script_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import runpy

    shapes = ROOT / "examples" / "shapes"
    (tmp_path / "make.py").write_text((shapes / "make.py").read_text())
    runpy.run_path(str(tmp_path / "make.py"), run_name="__main__")
    drawn, kept = (gn.load_data(path, validation=0) for path in (tmp_path, shapes))
    assert drawn.train.targets.tolist() == kept.train.targets.tolist()
    difference = np.asarray(drawn.train.inputs, float) - kept.train.inputs
    assert np.abs(difference).mean() < 2  # another Pillow may choose another palette
    assert (len(kept.train), kept.train.shape, kept.class_names) == (120, (32, 32, 3), ("circle", "square", "triangle"))
    assert kept.test is not None
    assert len(kept.test) == 60


def test_images_that_leave_a_batch_of_one_to_batchnorm_are_learned_in_another_batch_size(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class_folders(tmp_path / "set", ("a", "b"), each=17, height=8, width=8)
    recipe = read_experiment("images").with_options(data="set")
    small = replace(recipe, data=replace(recipe.data, validation=1), training=replace(recipe.training, epochs=1))
    Path("small.toml").write_text(small.to_toml())
    done = gpunn("train", "set", "--recipe", "small.toml", "--out", "run")
    assert done.code == 0, done.err
    assert "batches of 17 samples: 33 in batches of 16 leave a batch of one, which BatchNorm cannot" in caplog.text
    assert tomllib.loads(Path("run/experiment.toml").read_text())["training"]["batch_size"] == 17
    caplog.clear()
    done = gpunn("train", "--recipe", "run/experiment.toml", "--out", "again")
    assert done.code == 0, done.err
    assert "batch of one" not in caplog.text
    assert Path("run/model.safetensors").read_bytes() == Path("again/model.safetensors").read_bytes()


def test_numbers_of_images_have_a_recipe_that_learns_them_and_a_line_where_they_are_large(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(0)
    rows = ["file_name,light"]
    for number in range(33):
        light = int(rng.integers(20, 230))
        put_image(tmp_path / "set" / f"{number}.png", np.full((8, 8), light, np.uint8))
        rows.append(f"{number}.png,{(light - 125) / 60:.4f}")
    listed = tmp_path / "set" / "light.csv"
    listed.write_text("\n".join(rows))
    assert recipe_for("set") == "image-numbers"
    assert recipe_for("set", task="classes") == "images"
    done = gpunn("train", "set", "--epochs", "6", "--device", "cpu", "--out", "run")
    assert done.code == 0, done.err
    assert "recipe      image-numbers" in done.out
    assert "are learned as they are" not in caplog.text
    assert json.loads(Path("run/metrics.json").read_text())["validation_loss"] < 1

    listed.write_text("\n".join([rows[0], *(f"{number}.png,{number}.5" for number in range(33))]))
    gn.load_data("set")
    assert "have mean 16.5 and deviation 9.52, and are learned as they are: write (number - 16.5) / 9.52" in caplog.text
