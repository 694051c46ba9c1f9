"""Folders of images as data: which are found, how they are fitted, and the cache of decoded ones."""

import csv
import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.harness import one_line
from support.image_folders import class_folders, picture, put_image

import gpunn as gn
from gpunn.backend import limits
from gpunn.data import Data, images, load_data
from gpunn.data.formats.inputs import read_inputs
from gpunn.data.memmap import is_mapped
from gpunn.data.training_inputs import TrainingInputs
from gpunn.errors import DataError, MemoryShortageError, OptionError
from gpunn.train.arguments import renumbered


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gpunn" / "images"


def refused(folder: Path, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        load_data(folder, **options)  # type: ignore[arg-type]
    return one_line(caught.value)


def whole(folder: Path, **options: object) -> Data:
    return load_data(folder, validation=0, **options)  # type: ignore[arg-type]


# What is found


def test_classes_are_folders_in_alphabetical_order_and_images_lie_in_natural_order(tmp_path: Path) -> None:
    for name in ("dog/10.png", "dog/9.png", "Cat/a.png", "dog/deeper/still/1.png"):
        put_image(tmp_path / "set" / name, picture(len(name)))
    data = whole(tmp_path / "set")
    assert data.class_names == ("Cat", "dog")
    assert data.train.targets.tolist() == [0, 1, 1, 1]
    expected = [picture(len(name)) for name in ("Cat/a.png", "dog/9.png", "dog/10.png", "dog/deeper/still/1.png")]
    np.testing.assert_array_equal(data.train.inputs, expected)


@pytest.mark.parametrize("suffix", [".png", ".BMP", ".ppm", ".gif", ".webp", ".jpeg", ""])
def test_every_format_is_found_by_its_ending_or_by_its_first_bytes(tmp_path: Path, suffix: str) -> None:
    pixels = np.full((12, 12), 85, np.uint8)
    for place in ("a/1", "b/1"):
        path = put_image(tmp_path / "set" / f"{place}{suffix or '.png'}", pixels)
        path.rename(path.with_suffix(suffix))
    data = whole(tmp_path / "set", colours="grey")
    assert data.train.shape == (12, 12, 1)
    np.testing.assert_allclose(data.train.inputs, 85, atol=1)


def test_hidden_names_are_no_classes_and_other_files_are_counted_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = class_folders(tmp_path / "set")
    for name in (".DS_Store", "cat/Thumbs.db", "cat/.ipynb_checkpoints/0.png", "__MACOSX/cat/._0.png", "desktop.ini"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"\x89PNG nothing")
    (folder / "cat" / "README.txt").write_text("cats")
    (folder / "dog" / "a.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (folder / "dog" / "b\x1b[2J\n.txt").write_text("")
    data = whole(folder)
    assert (len(data.train), data.class_names) == (6, ("cat", "dog"))
    (line,) = [record.getMessage() for record in caplog.records]
    assert "3 files skipped that are no images (cat/README.txt, dog/a.heic, dog/b\\x1b[2J\\n.txt)" in line
    assert "a HEIC photograph: convert it to PNG or JPEG" in line


def test_an_empty_class_folder_is_named_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = class_folders(tmp_path / "set")
    (folder / "bird").mkdir()
    assert whole(folder).class_names == ("cat", "dog")
    assert "no images are in bird" in caplog.text


@pytest.mark.parametrize("names", [("train", "test"), ("Train", "val", "TEST"), ("training", "dev"), ("train",)])
def test_folders_of_parts_are_the_parts(tmp_path: Path, names: tuple[str, ...]) -> None:
    for number, name in enumerate(names):
        class_folders(tmp_path / "set" / name, each=2 + number, height=8 + number if name == "x" else 8)
    data = load_data(tmp_path / "set", validation=0.5)
    has_own = any(name in ("val", "dev") for name in names)
    assert data.has_test == any(name.lower() == "test" for name in names)
    assert not data.test_is_open
    assert len(data.train) == (4 if has_own else 2)
    if data.has_test:
        assert data.test is not None
        assert len(data.test) == 2 * (2 + len(names) - 1)


def test_classes_may_be_called_as_parts_are(tmp_path: Path) -> None:
    assert whole(class_folders(tmp_path / "set", ("train", "car"))).class_names == ("car", "train")
    assert whole(class_folders(tmp_path / "other", ("train", "test", "bus"))).class_names == ("bus", "test", "train")


def test_a_class_that_is_not_in_train_is_refused_before_anything_is_learned(tmp_path: Path) -> None:
    class_folders(tmp_path / "set" / "train")
    class_folders(tmp_path / "set" / "test", ("cat", "fox"))
    assert "class fox has no images in train" in refused(tmp_path / "set")


def test_images_of_the_test_set_that_were_learned_from_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class_folders(tmp_path / "set" / "train")
    class_folders(tmp_path / "set" / "test", each=1)
    assert load_data(tmp_path / "set").test is not None
    assert "2 images of test are in train too" in caplog.text


def test_a_link_back_is_followed_once(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "set")
    (folder / "cat" / "again").symlink_to(folder / "cat")
    (folder / "cat" / "nowhere.png").symlink_to("nothing")
    (folder / "dog2").symlink_to(class_folders(tmp_path / "elsewhere", ("dog",)) / "dog")
    assert np.bincount(whole(folder).train.targets).tolist() == [3, 3, 3]


def test_a_link_to_a_folder_above_brings_no_images_of_other_classes(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "set")
    (folder / "cat" / "all").symlink_to(folder)
    (folder / "dog" / "deep").mkdir()
    (folder / "dog" / "deep" / "all").symlink_to("../..")
    assert np.bincount(whole(folder).train.targets).tolist() == [3, 3]


# Lists


def listed(folder: Path, rows: list[tuple[object, ...]], name: str = "metadata.csv") -> Path:
    """A folder of four images with a list."""
    for number in range(4):
        put_image(folder / "images" / f"{number}.png", picture(number))
    with (folder / name).open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_metadata_of_hugging_face_names_images_and_labels(
    tmp_path: Path, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [("file_name", "label"), *((f"images/{number}.png", "ab"[number % 2]) for number in (2, 0, 1))]
    folder = listed(tmp_path / "set", rows)
    if form == "jsonl":
        (folder / "metadata.csv").unlink()
        lines = [json.dumps(dict(zip(rows[0], row, strict=True))) for row in rows[1:]]
        (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    data = whole(folder)
    assert (data.class_names, data.train.targets.tolist()) == (("a", "b"), [0, 0, 1])
    np.testing.assert_array_equal(data.train.inputs, [picture(number) for number in (2, 0, 1)])
    assert "1 image is not listed" in caplog.text


def test_metadata_may_lie_in_each_part_or_name_the_parts(tmp_path: Path) -> None:
    rows = [("file_name", "label"), ("images/0.png", 3), ("images/1.png", 7), ("images/2.png", 10)]
    for part in ("train", "test"):
        listed(tmp_path / "set" / part, rows)
    data = whole(tmp_path / "set")
    assert (data.class_names, data.train.targets.tolist(), data.has_test) == (("3", "7", "10"), [0, 1, 2], True)
    for part in ("train", "test"):
        put_image(tmp_path / "other" / part / "0.png", picture(0))
        put_image(tmp_path / "other" / part / "1.png", picture(1))
    names = [f"{part}/{number}.png" for part in ("test", "train") for number in (0, 1)]
    with (tmp_path / "other" / "metadata.csv").open("w") as file:
        csv.writer(file).writerows([("file_name", "label"), *((name, f"is {name[-5]}") for name in names)])
    data = whole(tmp_path / "other")
    assert (len(data.train), data.has_test, data.class_names) == (2, True, ("is 0", "is 1"))


@pytest.mark.parametrize("targets", [1, 2])
@pytest.mark.parametrize("has_names", [True, False])
def test_a_list_of_numbers_beside_images_is_regression(tmp_path: Path, targets: int, has_names: bool) -> None:
    rows: list[tuple[object, ...]] = [(f"{number}.png", *[number + 0.5] * targets) for number in range(4)]
    heads = [("image", "width", "height")[: 1 + targets]] if has_names else []
    data = whole(listed(tmp_path / "set", [*heads, *rows], "answers.csv"))
    assert (data.train.classes, data.train.targets.shape, data.class_names) == (0, (4, targets), ())
    assert data.train.targets[:, -1].tolist() == [0.5, 1.5, 2.5, 3.5]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([("file_name", "label"), ("../0.png", "a")], "row 2: '../0.png' leads out of the folder"),
        ([("file_name", "label"), ("/etc/0.png", "a")], "row 2: '/etc/0.png' leads out of the folder"),
        ([("file_name", "label"), ("0.png", "a"), ("9.png", "b")], "row 3: 9.png is not in the folder"),
        ([("file_name", "label"), ("0.png", "a"), ("0.png", "b")], "row 3: 0.png stands in row 2 too"),
        ([("file_name", "label"), ("0.png", "a"), ("1.png", "")], "row 3, column label: nothing is there"),
        ([("file_name", "label"), ("0.png",)], "row 2 has 1 cells, the first row has 2"),
        ([("file_name", "age"), ("0.png", 1.5), ("1.png", 2.5), ("2.png", "old")], "row 4, column age: 'old' is no"),
        ([("file_name", "age"), ("0.png", 1.5), ("1.png", "nan")], "row 3, column age: 'nan' is no number"),
        ([("file_name", "size", "text"), ("0.png", 1, "x")], "row 2, column text: 'x' is no number: of several"),
        ([("file_name",), ("0.png",)], "names images and nothing else"),
        ([("label", "kind"), ("a", "b")], "expected a column file_name, got label, kind"),
        ([("file_name", "label")], "lists no images"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_list_is_said_with_row_and_column(
    tmp_path: Path, rows: list[tuple[object, ...]], said: str
) -> None:
    assert said in refused(listed(tmp_path / "set", rows))


def test_names_in_a_list_may_lack_their_ending(tmp_path: Path) -> None:
    data = whole(listed(tmp_path / "set", [("id", "breed"), ("3", "pug"), ("1", "boxer")], "labels.csv"))
    np.testing.assert_array_equal(data.train.inputs, [picture(3), picture(1)])
    assert data.class_names == ("boxer", "pug")


def test_the_target_of_a_list_may_be_chosen_and_how_it_is_learned(tmp_path: Path) -> None:
    rows = [("file_name", "age", "kind", "height"), *((f"{k}.png", 20 + k, "ab"[k % 2], k / 2) for k in range(4))]
    folder = listed(tmp_path / "set", rows)
    assert whole(folder, target="kind").class_names == ("a", "b")
    assert whole(folder, target="age").class_names == ("20", "21", "22", "23")
    assert whole(folder, target="age", task="regression").train.targets.ravel().tolist() == [20, 21, 22, 23]
    assert whole(folder, target=["height", "age"]).train.targets.tolist()[1] == [0.5, 21]
    assert "has no column 'size' of targets: expected one of age, kind, height" in refused(folder, target="size")
    assert "leave target and task out" in refused(class_folders(tmp_path / "classes"), target="kind")
    with pytest.raises(OptionError, match="ignore and missing are for tables"):
        whole(folder, missing="mean")


# Sizes and colours


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(8, 8)], (8, 8)),
        ([(28, 20)], (28, 20)),
        ([(480, 640)], (48, 64)),
        ([(10, 640)], (64, 64)),
        ([(30, 40), (20, 10)], (40, 40)),
        ([(480, 640), (640, 480)], (64, 64)),
    ],
)
def test_the_size_is_that_of_the_images_or_suits_them(
    tmp_path: Path, sizes: list[tuple[int, int]], expected: tuple[int, int]
) -> None:
    for number, (height, width) in enumerate(sizes * 2):
        put_image(tmp_path / "set" / "ab"[number // len(sizes)] / f"{number}.png", picture(number, height, width))
    assert whole(tmp_path / "set").train.shape == (*expected, 3)
    assert whole(tmp_path / "set", image_size=(6, 5), colours="grey").train.shape == (6, 5, 1)
    assert whole(tmp_path / "set", image_size=7).train.shape == (7, 7, 3)


def test_images_without_colours_are_grey_however_they_are_kept(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "set", channels=1)
    grey = np.asarray(whole(folder).train.inputs)
    assert grey.shape[1:] == (12, 12, 1)
    for path in folder.rglob("*.png"):
        with Image.open(path) as image:
            (image.convert("RGB") if "cat" in str(path) else image.convert("P")).save(path)
    np.testing.assert_array_equal(whole(folder).train.inputs, grey)
    np.testing.assert_array_equal(whole(folder, colours="rgb").train.inputs, np.repeat(grey, 3, axis=3))


def test_one_coloured_image_among_many_grey_ones_makes_all_coloured(tmp_path: Path) -> None:
    for number in range(images._PROBED * 2):
        put_image(tmp_path / "set" / "ab"[number % 2] / f"{number}.png", np.repeat(picture(number)[..., :1], 3, axis=2))
    assert whole(tmp_path / "set").train.shape == (12, 12, 1)
    put_image(tmp_path / "set" / "b" / "3.png", picture(1))  # none of those that are looked at first
    assert whole(tmp_path / "set").train.shape == (12, 12, 3)


@pytest.mark.parametrize("mode", ["1", "I;16", "LA", "P", "RGBA", "CMYK", "EXIF"])
def test_images_of_every_kind_become_bytes(tmp_path: Path, mode: str) -> None:
    grey = picture(0, channels=1)
    exif = Image.Exif()
    exif[274] = 6
    image, expected, suffix = Image.fromarray(grey), grey, ".png"
    if mode == "1":
        image, expected = image.point(lambda v: 255 * (v > 127)).convert("1"), np.where(grey > 127, 255, 0)
    elif mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    elif mode in ("LA", "RGBA"):  # half is transparent, and lies on white
        image.putalpha(Image.fromarray(np.repeat([[0], [255]], 6, axis=0).astype(np.uint8).repeat(12, axis=1)))
        image, expected = image.convert(mode), np.where(np.arange(12)[:, None] < 6, 255, grey)
    elif mode == "P":
        image = image.convert("P")
    elif mode == "CMYK":
        image, suffix = Image.new("CMYK", (12, 12), (0, 0, 0, 100)), ".jpg"
        expected = np.full((12, 12), 155)
    elif mode == "EXIF":
        expected = np.rot90(grey, -1)
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        image.save(tmp_path / "set" / name / f"0{suffix}", exif=exif if mode == "EXIF" else b"")
    found = whole(tmp_path / "set", colours="grey").train.inputs[0, ..., 0]
    np.testing.assert_allclose(np.asarray(found, int), expected, atol=2 if mode == "CMYK" else 0)


def test_an_image_keeps_its_proportions_and_its_border_goes_on(tmp_path: Path) -> None:
    pixels = np.full((10, 20, 3), (10, 200, 30), np.uint8)
    pixels[3:7, 8:12] = (255, 0, 0)
    for name in ("a", "b"):
        put_image(tmp_path / "set" / name / "0.png", pixels)
    found = whole(tmp_path / "set", image_size=20).train.inputs[0]
    np.testing.assert_array_equal(found[5:15], pixels)
    np.testing.assert_array_equal(np.unique(found[[*range(5), *range(15, 20)]].reshape(-1, 3), axis=0), [[10, 200, 30]])


@pytest.mark.parametrize("channels", [1, 3])
def test_a_prediction_sees_the_pixels_that_the_training_saw(tmp_path: Path, channels: int) -> None:
    folder = class_folders(tmp_path / "set", each=2, height=90, width=70, channels=channels)
    strange = Image.fromarray(np.full((300, 200, 4), (250, 250, 250, 90), np.uint8))
    strange.putpixel((100, 150), (0, 0, 0, 255))
    strange.save(folder / "cat" / "0.png")
    samples = whole(folder, image_size=(32, 48), colours="grey" if channels == 1 else "rgb").train
    trained_on = TrainingInputs.of(samples)
    for place, path in enumerate(sorted(folder.rglob("*.png"))):
        found = read_inputs(path, samples.shape, trained_on=trained_on)
        np.testing.assert_array_equal(found[0], samples.inputs[place])
        assert trained_on.factor(found) == 1 / 255


def drawings(folder: Path, light: int = 0) -> gn.Samples:
    """Strokes on dark ground, but for some on light ground."""
    for number in range(30):
        pixels = np.zeros((16, 16), np.uint8)
        pixels[4:12, 5 + number % 3] = 255
        put_image(folder / "ab"[number % 2] / f"{number}.png", 255 - pixels if number < light else pixels)
    return whole(folder).train


def test_a_drawing_whose_ground_is_not_that_of_the_training_is_inverted(tmp_path: Path) -> None:
    samples = drawings(tmp_path / "set")
    other = put_image(tmp_path / "other.png", 255 - np.asarray(samples.inputs[0, ..., 0]))
    found = read_inputs(other, samples.shape, trained_on=TrainingInputs.of(samples))
    np.testing.assert_allclose(found[0], samples.inputs[0] / 255, atol=1e-6)


def test_a_file_of_the_training_is_never_inverted(tmp_path: Path) -> None:
    samples = drawings(tmp_path / "set", light=1)
    found = read_inputs(tmp_path / "set" / "a" / "0.png", samples.shape, trained_on=TrainingInputs.of(samples))
    np.testing.assert_array_equal(found[0], samples.inputs[0])


def test_classes_of_another_folder_are_known_by_their_names_even_if_these_are_numbers() -> None:
    samples = gn.Samples(np.zeros((2, 4, 4, 1), np.uint8), [0, 1], from_files=True)
    assert renumbered(samples, ("0", "1"), ("-1", "0", "1")).targets.tolist() == [1, 2]


@pytest.mark.parametrize("given", [0, -1, 5000, 2.5, True, (1,), (8, 8, 3), "64"])
def test_a_size_that_cannot_be_is_refused(tmp_path: Path, given: object) -> None:
    with pytest.raises(OptionError, match="image_size is a side, or"):
        load_data(class_folders(tmp_path / "set"), image_size=given)  # type: ignore[arg-type]


def test_options_for_images_are_refused_with_other_data(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="colours are grey or rgb, got 'blue'"):
        load_data(class_folders(tmp_path / "set"), colours="blue")
    with pytest.raises(OptionError, match="for a folder of images, got digits"):
        load_data("digits", image_size=8)


# The split, and what is damaged


def test_the_split_holds_every_class_in_its_proportion(tmp_path: Path) -> None:
    data = load_data(class_folders(tmp_path / "set", ("a", "b", "c"), each=10), validation=0.3)
    assert data.validation is not None
    assert data.validation.class_counts().tolist() == [3, 3, 3]


DAMAGED = {
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-200]),
    "empty": lambda path: path.write_bytes(b""),
    "another file": lambda path: path.write_text("no image at all"),
    "a photograph that is not read": lambda path: path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(40)),
    "random bytes": lambda path: path.write_bytes(path.read_bytes()[:60] + np.random.default_rng(0).bytes(500)),
    "a promise of many pixels": lambda path: path.write_bytes(
        b"BM" + bytes(12) + (40).to_bytes(4, "little") + (60000).to_bytes(4, "little") * 2 + b"\1\0\x18\0" + bytes(24)
    ),
}


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize("options", [{}, {"image_size": 8, "colours": "rgb"}], ids=["chosen", "given"])
def test_one_damaged_file_is_named_in_one_line_with_the_mend(
    tmp_path: Path, damage: str, options: dict[str, object]
) -> None:
    folder = class_folders(tmp_path / "set", each=20)
    DAMAGED[damage](folder / "dog" / "7.png")
    line = refused(folder, **options)
    assert line.startswith(f"{folder / 'dog' / '7.png'}: ")
    assert any(mend in line for mend in ("get it again", "convert it", "make it smaller"))
    assert not list((tmp_path / "cache").rglob("*.tmp"))


def test_random_bytes_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "set")
    path, rng = folder / "cat" / "1.png", np.random.default_rng(0)
    content = path.read_bytes()
    for number in range(60):
        changed = bytearray(content)
        for place in rng.integers(0, len(content), 1 + number % 4):
            changed[place] = rng.integers(256)
        path.write_bytes(changed[: rng.integers(1, len(content))] if number % 3 == 0 else changed)
        try:
            assert len(whole(folder).train) == 6
        except DataError as error:
            one_line(error)


def test_folders_that_hold_no_data_say_what_is_expected(tmp_path: Path) -> None:
    put_image(tmp_path / "heap" / "0.png", picture(0))
    assert "nothing says what they are: give a folder for each class" in refused(tmp_path / "heap")
    class_folders(tmp_path / "one", ("cat",))
    assert "only one class, cat, has images" in refused(tmp_path / "one")
    class_folders(tmp_path / "outer" / "inner")
    assert f"did you mean {tmp_path / 'outer' / 'inner'}?" in refused(tmp_path / "outer")
    class_folders(tmp_path / "unlabelled" / "train")
    put_image(tmp_path / "unlabelled" / "test" / "0.png", picture(0))
    assert "its images lie in no folders of classes: put some into" in refused(tmp_path / "unlabelled")
    assert "give the folder of all images" in refused(tmp_path / "heap" / "0.png")
    class_folders(tmp_path / "parts" / "test")
    class_folders(tmp_path / "parts" / "val")
    assert "but no train" in refused(tmp_path / "parts")


# The cache


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Paths of the images that are decoded from now on."""
    paths: list[Path] = []
    read = images.read_pixels

    def counting(path: Path, *rest: object) -> object:
        paths.append(path)
        return read(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(images, "read_pixels", counting)
    return paths


def test_images_are_decoded_once_and_again_only_when_a_file_or_an_option_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    folder = class_folders(tmp_path / "set", height=90, width=90)
    first = whole(folder)
    decoded = counted(monkeypatch)
    assert whole(folder).train.sha256() == first.train.sha256()
    assert whole(folder, image_size=64, colours="rgb").train.sha256() == first.train.sha256()
    assert decoded == []
    assert str(next(cache.rglob("*.images"))) in first.source_note
    assert whole(folder, image_size=16).train.shape == (16, 16, 3)
    assert len(decoded) >= 6
    assert len(list(cache.rglob("*.images"))) == 2
    del decoded[:]
    put_image(folder / "cat" / "0.png", picture(77, 90, 90))
    assert whole(folder).train.sha256() != first.train.sha256()
    assert len(decoded) >= 6
    assert len(list(cache.rglob("*.images"))) == 1  # those of the old files are gone
    del decoded[:]
    os.utime(folder / "cat" / "0.png", (1, 1))  # of the same size, perhaps with other content
    whole(folder)
    assert len(decoded) >= 6


@pytest.mark.parametrize("damage", ["cut", "content", "header", "link"])
def test_a_damaged_cache_is_made_again(tmp_path: Path, cache: Path, damage: str) -> None:
    folder = class_folders(tmp_path / "set")
    expected = whole(folder).train.sha256()
    (path,) = cache.rglob("*.images")
    content = path.read_bytes()
    if damage == "link":
        path.unlink()
        path.symlink_to("/dev/zero")
    else:
        changed = {"cut": content[:-1], "content": content[:-1] + b"\1", "header": b"[" * 4096 + content[4096:]}
        path.write_bytes(changed[damage])
    assert whole(folder).train.sha256() == expected
    assert path.read_bytes() == content


def test_without_a_cache_that_can_be_written_all_works_and_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = class_folders(tmp_path / "set")
    expected = whole(folder).train.sha256()
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    assert whole(folder).train.sha256() == expected
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "cannot be written" in caplog.text


def test_what_a_killed_process_left_is_removed_later(tmp_path: Path, cache: Path) -> None:
    folder = class_folders(tmp_path / "set")
    whole(folder)
    (path,) = cache.rglob("*.images")
    (old, new) = (path.with_name(f".{name}.tmp") for name in ("old", "new"))
    old.touch()
    new.touch()
    os.utime(old, (0, 0))
    whole(folder, image_size=5)
    assert (old.exists(), new.exists()) == (False, True)


def test_two_that_load_the_same_folder_at_once_get_the_same(tmp_path: Path, cache: Path) -> None:
    folder = class_folders(tmp_path / "set", each=20, height=60, width=60)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: whole(folder).train.sha256(), range(4)))
    assert set(found) == {whole(folder).train.sha256()}
    assert len(list(cache.rglob("*"))) == 2  # the folder and its file


def test_decoded_images_may_stay_in_their_file_to_the_same_data(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "set")
    mapped, read = (load_data(folder, memory_map=choice) for choice in (True, False))
    assert (is_mapped(mapped.train.inputs), is_mapped(read.train.inputs)) == (True, False)
    assert mapped.train.sha256() == read.train.sha256()


def test_images_beyond_the_memory_limit_stay_in_their_file_or_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = class_folders(tmp_path / "set", each=2)
    whole(folder, image_size=512, memory_map=False)
    monkeypatch.setattr(limits, "free_bytes", lambda: 2 << 20)
    monkeypatch.setattr(images, "free_bytes", lambda: 2 << 20)
    with pytest.raises(MemoryShortageError, match="MiB of memory"):
        whole(folder, image_size=512, memory_map=False)
    assert whole(folder, image_size=512).train.shape == (512, 512, 3)


def test_a_network_learns_from_a_folder_and_its_file_remembers_it(tmp_path: Path) -> None:
    data = whole(class_folders(tmp_path / "set"))
    model = gn.Sequential([gn.Flatten(), gn.Dense(2)])
    model.fit(data, epochs=1, device="cpu", progress=False)
    model.save(tmp_path / "model.safetensors")
    loaded = gn.load_model(tmp_path / "model.safetensors", "cpu")
    assert loaded.trained_on is not None
    assert loaded.trained_on.from_files
    assert loaded.class_names == ("cat", "dog")
