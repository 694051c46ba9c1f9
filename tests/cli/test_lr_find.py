"""`gpunn lr-find`: one line that can be pasted, a picture, and nothing else."""

import io
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.cli_helpers import TINY, assert_one_line, gpunn, own_folder, without_pictures

from gpunn.experiments.lr_find import command_of

folder = pytest.fixture(autouse=True)(own_folder)
DEAD = """
[[layers]]
type = "Dense"
units = 5
bias = -100.0
[[layers]]
type = "ReLU"
[[layers]]
type = "Dense"
units = "outputs"
bias = false
"""


def test_the_line_is_a_command_that_trains_well(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_pictures(monkeypatch)  # of the training
    done = gpunn("lr-find", "digits", "--recipe", "tiny.toml", "--seed", 3)
    assert done.code == 0, done.err
    assert done.err == ""
    (line,) = done.out.splitlines()
    said, command = line.removesuffix(" (losses drawn in learning-rate.png)").split(": ", 1)
    rate = said.removeprefix("suggested learning rate ")
    assert command == f"gpunn train digits --seed 3 --recipe tiny.toml --learning-rate {rate}"
    assert 0.01 < float(rate) < 10
    assert sorted(path.name for path in folder.iterdir()) == ["learning-rate.png", "tiny.toml"]
    words = shlex.split(command)
    trained = gpunn(*words[1:], "--epochs", 12, "--batch-size", 50, "--out", "run")
    assert trained.code == 0, trained.err
    assert float(trained.out.split("test accuracy  ")[1].partition("%")[0]) > 90
    assert f"learning_rate = {rate}" in (folder / "run" / "experiment.toml").read_text()


def test_the_picture_is_where_out_says_and_the_same_twice(folder: Path) -> None:
    for name in ("one.png", "two words.png"):
        assert gpunn("lr-find", "--recipe", "tiny.toml", "--out", folder / name).code == 0
    assert (folder / "one.png").read_bytes() == (folder / "two words.png").read_bytes()
    assert gpunn("lr-find", "--recipe", "tiny.toml", "--out", "three.png", "--seed", 1).code == 0
    assert (folder / "one.png").read_bytes() != (folder / "three.png").read_bytes()
    with Image.open(folder / "one.png") as picture:
        assert picture.size == (1050, 675)


def test_the_rate_found_is_the_peak_of_a_recipe_with_a_schedule(folder: Path) -> None:
    done = gpunn("lr-find", "--device", "cpu", "--batch-size", 64)
    assert done.code == 0, done.err
    assert "gpunn train --device cpu --batch-size 64 --learning-rate 0." in done.out


def test_a_test_set_that_is_watched_by_the_recipe_stays_closed(folder: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 4)), np.arange(200) % 2
    np.savez(folder / "a.npz", x_train=x, y_train=y, x_test=rng.normal(size=(9, 7)), y_test=y[:9])
    (folder / "watching.toml").write_text(TINY.replace('source = "digits"', 'source = "a.npz"\nvalidation = "test"'))
    assert_one_line(gpunn("train", "--recipe", "watching.toml"), 1, "expected inputs of shape (4,)")
    done = gpunn("lr-find", "--recipe", "watching.toml", "--steps", 30)
    assert "a.npz" not in done.err
    assert (folder / "learning-rate.png").exists()


def test_a_loss_that_does_not_fall_is_said_and_drawn(folder: Path) -> None:
    head, _, tail = TINY.partition("[[layers]]")
    (folder / "dead.toml").write_text(head + DEAD + tail[tail.index("[optimizer]") :])
    done = gpunn("lr-find", "--recipe", "dead.toml")
    assert_one_line(done, 1, "no suggestion: the loss of 2.303 fell at no rate", "learning-rate.png")
    assert done.out == ""
    assert (folder / "learning-rate.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--recipe", "mlpp"], 2, "did you mean mlp?"),
        (["nowhere.npz"], 1, "nowhere.npz"),
        (["--steps", "3"], 2, "steps must be a whole number of at least 20"),
        (["--lowest", "1", "--highest", "0.5"], 2, "the lowest rate must be below the highest"),
        (["--lowest", "nan"], 2, "lowest rate must be above 0"),
        (["--batch-size", "0"], 2, "batch size"),
        (["--recipe", "tiny.toml", "--out", "missing/a.png"], 1, "missing"),
        (["--learning-rate", "1"], 2, "lr-find --help"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_one_line(arguments: list[str], code: int, words: str) -> None:
    assert_one_line(gpunn("lr-find", *arguments), code, words)


def test_data_that_are_too_few_are_one_line(folder: Path) -> None:
    np.savez(folder / "one.npz", x=np.ones((1, 4)), y=np.array([0]))
    assert_one_line(gpunn("lr-find", "one.npz"), 1, "at least 2 training samples, got 1")


def test_a_terminal_has_one_line_of_progress_that_is_wiped(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpunn.experiments import lr_find

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    with lr_find._progress(200) as show:
        assert show is not None
        show(1, 1e-6, 123.456)
        show(2, 2e-6, 1.0)
    written = sys.stderr.getvalue()
    assert "\rstep 1/200: learning rate 1e-06, loss 123.5\rstep 2/200: learning rate 2e-06, loss 1 " in written
    assert written.endswith("\r")
    assert "\n" not in written
    monkeypatch.setattr(sys, "stderr", None)  # a program without a console
    with lr_find._progress(200) as show:
        assert show is None


def test_words_with_spaces_are_quoted_in_the_command() -> None:
    assert command_of("my data/a.npz", recipe=None, seed=3) == "gpunn train 'my data/a.npz' --seed 3"
    assert command_of(image_size=(8, 9), recipe="b.toml") == "gpunn train --image-size 8x9 --recipe b.toml"


def test_a_folder_of_images_is_that_of_the_training(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_pictures(monkeypatch)
    rng = np.random.default_rng(0)
    for number in range(60):
        (folder / "photos" / f"class{number % 2}").mkdir(parents=True, exist_ok=True)
        pixels = (rng.integers(0, 100, (12, 12)) + 100 * (number % 2)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"class{number % 2}" / f"{number}.png")
    done = gpunn("lr-find", "photos", "--image-size", "8", "--colours", "grey", "--recipe", "tiny.toml", "--steps", 60)
    assert done.code == 0, done.err
    line = done.out.splitlines()[-1]
    assert ": gpunn train photos --image-size 8x8 --colours grey --recipe tiny.toml --learning-rate " in line
    words = shlex.split(line.split(": ", 1)[1].partition(" (")[0])
    assert gpunn(*words[1:], "--epochs", 1, "--out", "run").code == 0
