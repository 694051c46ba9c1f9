"""Photographs of digits become what the training images are: found, cut out, in their box and middle."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from support.paths import ROOT

import gpunn as gn
from gpunn.data.drawings import Drawings, centres_of_mass
from gpunn.data.formats.ink import find_ink
from gpunn.data.formats.inputs import read_inputs
from gpunn.data.training_inputs import TrainingInputs
from gpunn.errors import DataError

sys.path.insert(0, str(ROOT / "benchmarks"))
import photograph_kinds as kinds

DIGITS = (0, 1, 3, 4, 15, 61)  # a 7, 2, 0, 4, 5, 8
SHAPE = (28, 28, 1)
PHOTOGRAPHS = (
    "grey paper 140, ink 30", "in a corner", "tight crop", "light from one side", "a lamp's spot", "a shadow's edge",
    "red ink on green paper", "pencil", "yellow chalk on a green board", "thin pen", "thick pen",
    "lines as dark as the ink", "squared paper, dark lines", "noise", "strong JPEG", "paper on a table",
    "a finger at the edge", "white on transparent", "16 bits", "turned by EXIF", "small file, 56 pixels",
    "a small sheet on a large table", "a lamp's small spot", "grey paper, 28 pixels",
)  # fmt: skip


class Mnist:
    def __init__(self, folder: Path) -> None:
        self.data = gn.load_data(str(folder))
        self.images = np.asarray(self.data.test.inputs[:100, :, :, 0])
        self.trained_on = TrainingInputs.of(self.data.train)


@pytest.fixture(scope="module")
def mnist(mnist_folder: Path) -> Mnist:
    return Mnist(mnist_folder)


def seen(path: Path, mnist: Mnist, note: Callable[[str], None] = lambda _: None, **options: Any) -> NDArray[Any]:
    return read_inputs(path, SHAPE, note=note, trained_on=mnist.trained_on, **options)[0, ..., 0]


def photograph(kind: str, digit: NDArray[Any], folder: Path, seed: int = 0) -> Path:
    picture = kinds.KINDS[kind](digit, np.random.default_rng(seed))
    exif = picture.getexif()
    path = folder / ("a.jpg" if exif else "a.png")
    picture.save(path, **({"exif": exif, "quality": 90} if exif else {}))
    return path


def likeness(one: NDArray[Any], other: NDArray[Any]) -> float:
    """The best correlation of two images, one of them moved by at most a pixel."""
    moved = (np.roll(one, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1))
    return max(float(np.corrcoef(each.ravel(), other.ravel())[0, 1]) for each in moved)


# What the training images are like


def test_box_and_middle_of_mnist_are_learned_from_its_images(mnist: Mnist) -> None:
    drawings = mnist.trained_on.drawings
    assert drawings is not None
    assert (drawings.are_strokes, drawings.is_by_mass, drawings.box) == (True, True, 20)
    np.testing.assert_allclose(drawings.centre, 14.5, atol=0.1)
    assert (drawings.ground, drawings.ink) == (0, 1)
    exchanged = Drawings.of(1 - mnist.images / 255)
    assert (exchanged.ground, exchanged.ink, exchanged.box) == (1, 0, 20)


def test_the_small_digits_are_placed_by_their_box() -> None:
    drawings = TrainingInputs.of(gn.load_data("digits").train).drawings
    assert drawings is not None
    assert (drawings.are_strokes, drawings.is_by_mass, drawings.box) == (True, False, 8)


def test_pictures_that_are_not_drawn_in_strokes_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    down, across = np.mgrid[0:28, 0:28]
    shaded = [np.where(abs(across - 14) < rng.integers(6, 13), rng.uniform(0.2, 1, (28, 28)), 0) for _ in range(30)]
    for images in (np.stack(shaded), rng.uniform(size=(30, 28, 28)), np.zeros((30, 28, 28)), np.ones((3, 28, 28))):
        assert not Drawings.of(images).are_strokes
    grounds = np.repeat(np.linspace(0, 1, 30)[:, None, None], 28, axis=1).repeat(28, axis=2)
    assert not Drawings.of(np.where((abs(across - 14) < 2) & (down > 5), 0.5, grounds)).are_strokes


# Kinds of photographs


@pytest.mark.parametrize("kind", PHOTOGRAPHS)
def test_a_photographed_digit_becomes_its_training_image(kind: str, mnist: Mnist, tmp_path: Path) -> None:
    number = DIGITS[PHOTOGRAPHS.index(kind) % len(DIGITS)]
    said: list[str] = []
    found = seen(photograph(kind, mnist.images[number], tmp_path), mnist, said.append)
    assert likeness(found, mnist.images[number] / 255) > (0.75 if "pen" in kind else 0.85)  # of another width
    assert len(said) == 1
    assert "drawing found" in said[0]


def test_originals_and_those_with_dark_and_light_exchanged_are_left_alone(mnist: Mnist, tmp_path: Path) -> None:
    for number, digit in enumerate(mnist.images):
        Image.fromarray(255 - digit if number % 2 else digit).save(tmp_path / "a.png")
        np.testing.assert_allclose(seen(tmp_path / "a.png", mnist), digit / 255, atol=1e-6)


def test_a_digit_of_the_right_size_in_the_wrong_place_is_brought_to_its_own(mnist: Mnist, tmp_path: Path) -> None:
    Image.fromarray(np.roll(mnist.images[1], (4, -3), (0, 1))).save(tmp_path / "a.png")
    found = seen(tmp_path / "a.png", mnist)
    np.testing.assert_allclose(centres_of_mass(found[None])[0], 14.5, atol=0.6)


def test_a_digit_in_two_parts_stays_whole(mnist: Mnist, tmp_path: Path) -> None:
    page = np.full((300, 300), 240, np.uint8)
    page[60:80, 120:200] = 30  # the bar of a 5, apart
    page[100:220, 120:140] = page[120:140, 140:190] = page[120:220, 180:200] = page[205:225, 110:190] = 30
    Image.fromarray(page).save(tmp_path / "a.png")
    found = seen(tmp_path / "a.png", mnist)
    rows = np.flatnonzero(found.max(axis=1) > 0.5)
    assert rows[-1] - rows[0] == 19
    assert (found.max(axis=1) < 0.1)[rows[0] : rows[-1]].any()


def test_of_two_digits_the_largest_is_read_and_that_is_said(mnist: Mnist, tmp_path: Path) -> None:
    small, large = kinds.ink(mnist.images[3], 300, 200, 160), kinds.ink(mnist.images[1], 300, 300, 260)
    kinds.image(kinds.on(kinds.GREY, (20,) * 3, np.hstack([small, large]))).save(tmp_path / "a.png")
    said: list[str] = []
    assert likeness(seen(tmp_path / "a.png", mnist, said.append), mnist.images[1] / 255) > 0.85
    assert "the largest of 2" in said[0]


def blank(kind: str) -> NDArray[Any]:
    rng = np.random.default_rng(0)
    down, across = kinds.grid(300, 400)
    light = {"shaded": 0.4 + 0.6 * across, "vignette": 1 - 0.8 * ((down - 0.5) ** 2 + (across - 0.5) ** 2)}
    page = 220 * light.get(kind, np.ones((300, 400)))
    return page + rng.normal(0, 12, page.shape) if kind == "noise" else page


@pytest.mark.parametrize("kind", ["plain", "shaded", "vignette", "noise"])
def test_a_blank_page_is_refused(kind: str, mnist: Mnist, tmp_path: Path) -> None:
    kinds.image(blank(kind)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="nothing is drawn"):
        seen(tmp_path / "a.png", mnist)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (2, 3), (3, 2000), (29, 28)])
@pytest.mark.parametrize("value", ["flat", "noise"])
def test_pictures_of_any_form_are_answered_or_refused(
    size: tuple[int, int], value: str, mnist: Mnist, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, size) if value == "noise" else np.full(size, 90)
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "a.png")
    try:
        found = seen(tmp_path / "a.png", mnist)
    except DataError as error:
        assert "nothing is drawn" in str(error)  # noqa: PT017
    else:
        assert found.shape == (28, 28)
        assert 0 <= found.min() <= found.max() <= 1


# What is left as it is


def test_without_preparation_a_picture_is_fitted_in_whole(mnist: Mnist, tmp_path: Path) -> None:
    path = photograph("small on the page", mnist.images[0], tmp_path)
    said: list[str] = []
    fitted = seen(path, mnist, said.append, prepare=False)
    assert "fitted into 28 × 28" in said[0]
    assert np.flatnonzero(fitted.max(axis=1) > 0.3).size < 12
    assert np.flatnonzero(seen(path, mnist).max(axis=1) > 0.3).size >= 18


def test_invert_says_whether_ink_is_darker_than_its_ground(mnist: Mnist, tmp_path: Path) -> None:
    page = np.full((200, 200), 128, np.uint8)
    page[40:160, 60:75], page[40:160, 120:135] = 30, 250
    Image.fromarray(page).save(tmp_path / "a.png")
    said: list[str] = []
    for invert in ("always", "never"):
        seen(tmp_path / "a.png", mnist, said.append, invert=invert)
    assert ["dark drawing" in said[0], "light drawing" in said[1]] == [True, True]


def test_a_network_that_does_not_remember_drawings_fits_and_says_so(mnist: Mnist, tmp_path: Path) -> None:
    path = photograph("black on white", mnist.images[0], tmp_path)
    old = TrainingInputs((28, 28, 1), True, 1 / 255, (0.0,), (255.0,), "dark", is_grey=True, is_drawn=True)
    said: list[str] = []
    found = read_inputs(path, SHAPE, note=said.append, trained_on=old)[0, ..., 0]
    np.testing.assert_array_equal(found, seen(path, mnist, prepare=False))
    assert "train it again" in said[0]


def test_an_enlarged_image_of_the_data_is_read_as_before_and_not_as_a_photograph(tmp_path: Path) -> None:
    data = gn.load_data("digits")
    trained_on, said = TrainingInputs.of(data.train), list[str]()
    for number, image in enumerate(np.asarray(data.test.inputs[:20, :, :, 0])):
        path = tmp_path / f"{number}.png"
        Image.fromarray((image * 15.9).astype(np.uint8)).resize((28, 28), Image.Resampling.BICUBIC).save(path)
        options: dict[str, Any] = {"note": said.append, "trained_on": trained_on}
        prepared, plain = (read_inputs(path, (8, 8, 1), prepare=way, **options) for way in (True, False))
        np.testing.assert_array_equal(prepared, plain)
    assert not any("drawing found" in line for line in said)


def test_ink_of_one_darkness_but_for_rounding_is_found() -> None:
    page = np.full((100, 120, 1), 0.75, np.float32)
    page[20:80, 50:56] = 0.25
    page[40:44, 50:56] = np.nextafter(np.float32(0.25), np.float32(1))
    ink = find_ink(page)
    assert ink is not None
    assert ink.is_dark
    assert ink.drawing[20:80, 50:56].mean() > 0.9
