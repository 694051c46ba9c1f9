"""What a network remembers of the inputs of its training, and how later inputs and pictures are brought to them."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from support.harness import one_line

import gpunn as gn
from gpunn.data.memmap import is_mapped
from gpunn.data.training_inputs import TrainingInputs
from gpunn.errors import DataError, ShapeError
from gpunn.experiments.predict import predict_files

KW: dict[str, Any] = {"progress": False, "device": "cpu"}
DIGITS = gn.load_data("digits", validation=0).train
BYTES = np.asarray(DIGITS.inputs) * 15  # 0 to 240
LABELS = DIGITS.targets


def colourful() -> NDArray[np.uint8]:
    """The digits in colours of their own, (n, 8, 8, 3)."""
    tint = np.random.default_rng(0).uniform(0.4, 1, (len(BYTES), 1, 1, 3))
    return (BYTES * tint).astype(np.uint8)


def trained(x: Any, y: Any = LABELS, *layers: gn.Layer, epochs: int = 6, **fit: Any) -> gn.Sequential:
    model = gn.Sequential([*(layers or (gn.Dense(24), gn.ReLU())), gn.Dense(10)])
    model.fit(gn.Data.from_arrays(x, y, validation=0), epochs=epochs, batch_size=64, **KW, **fit)
    return model


# The order of flat rows


@pytest.mark.parametrize("trained_on", ["images", "rows"])
@pytest.mark.parametrize("saved", [False, True])
def test_flat_rows_are_read_in_numpy_s_order(trained_on: str, saved: bool, tmp_path: Path) -> None:
    images = colourful()
    rows = images.reshape(len(images), -1)
    model = trained(images if trained_on == "images" else rows)
    if saved:
        model.save(tmp_path / "model")
        model = gn.load_model(tmp_path / "model", "cpu")
    wanted = model.predict_proba(images if trained_on == "images" else rows)
    assert (wanted.argmax(axis=1) == LABELS).mean() > 0.9
    for other in (images, rows, images.astype(np.int64), rows / 255):
        np.testing.assert_allclose(model.predict_proba(other), wanted, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(model.forward(images[:9]), model.forward(rows[:9]), rtol=1e-6)
    results = [model.evaluate(gn.Samples(x, LABELS, 1 / 255, 10)) for x in (images, rows)]
    assert results[0] == results[1]


@pytest.mark.parametrize("kind", ["array", "memory map", "rows of a memory map"])
def test_a_training_goes_on_with_the_other_form_to_the_same_bits(tmp_path: Path, kind: str) -> None:
    images = colourful()[:400]
    rows: Any = images.reshape(len(images), -1)
    if kind != "array":
        np.save(tmp_path / "x.npy", rows)
        rows = np.load(tmp_path / "x.npy", mmap_mode="r")
    validation = 0.2 if kind == "rows of a memory map" else 0
    weights = []
    for again in (images, rows):
        model = trained(images, LABELS[:400], epochs=1)
        data = gn.Data.from_arrays(again, LABELS[:400], validation=validation)
        assert is_mapped(data.train.inputs) == (again is rows and kind != "array")
        model.fit(data, epochs=1, batch_size=64, **KW)
        weights.append(model.arrays())
    for name, array in weights[0].items():
        np.testing.assert_array_equal(weights[1][name], array)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_another_order_of_axes_are_refused(channels: int) -> None:
    images = colourful()[..., :channels]
    model = trained(images, epochs=1)
    with pytest.raises(ShapeError, match=r"x\.transpose\(0, 2, 3, 1\)"):
        model.predict(images.transpose(0, 3, 1, 2))
    with pytest.raises(ShapeError, match="was trained on images"):
        model.evaluate(gn.Samples(images.reshape(-1, 4, 16, channels), LABELS, 1 / 255))
    with pytest.raises(ShapeError, match="was trained on images"):
        model.fit((images.reshape(-1, 4, 16, channels), LABELS), epochs=1, **KW)


def test_a_network_that_was_not_trained_reads_images_channel_by_channel() -> None:
    """As the weights of other libraries have them."""
    x = np.random.default_rng(0).normal(size=(5, 2, 2, 3)).astype(np.float32)
    model = gn.Sequential([gn.Dense(4)]).build((12,), device="cpu")
    np.testing.assert_array_equal(model.predict_proba(x), model.predict_proba(x.transpose(0, 3, 1, 2).reshape(5, 12)))


# Ranges


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64, np.uint16, np.uint64, ">i4"])
@pytest.mark.parametrize("flat", [False, True])
def test_whole_numbers_of_any_width_are_scaled_as_bytes_are(
    dtype: Any, flat: bool, caplog: pytest.LogCaptureFixture
) -> None:
    x = BYTES.reshape(len(BYTES), -1) if flat else BYTES
    as_bytes = trained(x, epochs=1)
    with caplog.at_level(logging.WARNING):
        model = trained(x.astype(dtype), epochs=1)
    assert caplog.messages == [
        "inputs are whole numbers from 0 to 240: divided by 255, as bytes are (scale=1 keeps them)"
    ]
    for name, array in as_bytes.arrays().items():
        np.testing.assert_array_equal(model.arrays()[name], array)
    for other in (np.uint8, dtype, np.int64):
        np.testing.assert_array_equal(model.predict_proba(x.astype(other)), as_bytes.predict_proba(x))


@pytest.mark.parametrize(("times", "most"), [(4, 1023), (16, 4095), (64, 16_383), (257, 65_535)])
@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64])
def test_pixels_of_more_bits_are_divided_by_the_most_of_them(times: int, most: int, dtype: Any) -> None:
    deep = BYTES.astype(dtype) * times
    data = gn.Data.from_arrays(deep, LABELS)
    assert data.train.scale == 1 / most
    model = trained(deep)
    assert (model.predict(deep) == LABELS).mean() > 0.85
    np.testing.assert_allclose(model.predict_proba(deep.astype(np.float64)), model.predict_proba(deep), rtol=1e-4)


def test_small_whole_numbers_booleans_and_an_explicit_scale_are_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    for given, scale in ((x, None), (x.astype(bool), None), (x - 5, None), (x * 100, 0.5)):
        train = gn.Data.from_arrays(given, [0, 1, 1, 0], validation=0, scale=scale).train
        np.testing.assert_array_equal(train.inputs, given)
        assert train.scale == (scale or 1)
    assert not caplog.messages


def test_bytes_of_0_and_1_are_not_divided_by_255() -> None:
    masks = (BYTES > 100).astype(np.uint8)
    np.testing.assert_array_equal(trained(masks).predict(masks), trained(masks > 0).predict(masks > 0))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_of_another_range_are_refused_with_how_to_scale(dtype: Any) -> None:
    with pytest.raises(DataError) as caught:
        trained(BYTES.astype(dtype))
    assert "inputs reach from 0 to 240" in one_line(caught.value)
    assert "divide them by 255" in str(caught.value)
    table = np.random.default_rng(0).normal(1000, 300, (90, 4)).astype(dtype)
    with pytest.raises(DataError, match=r"\(x - x\.mean\(axis=0\)\) / x\.std\(axis=0\)"):
        gn.Sequential([gn.Dense(1)]).fit((table, table[:, :1]), epochs=1, batch_size=32, **KW)
    model = trained((BYTES / 255).astype(dtype))
    assert (model.predict((BYTES / 255).astype(dtype)) == LABELS).mean() > 0.85


def test_a_network_that_standardises_its_inputs_itself_takes_any_range() -> None:
    model = trained(BYTES.astype(np.float32), LABELS, gn.BatchNorm(), gn.Flatten(), gn.Dense(24), gn.ReLU())
    assert (model.predict(BYTES.astype(np.float32)) == LABELS).mean() > 0.8
    np.testing.assert_array_equal(model.predict(BYTES), model.predict(BYTES.astype(np.float32)))


def test_a_few_outliers_do_not_make_another_range() -> None:
    x = np.random.default_rng(0).normal(size=(400, 4))
    x[7, 2] = 90
    gn.Sequential([gn.Dense(2), gn.ReLU(), gn.Dense(1)]).fit((x, x[:, :1] / 90), epochs=1, **KW)


OTHERS: dict[str, Callable[[NDArray[np.uint8]], NDArray[Any]]] = {
    "floats to 255": lambda x: x.astype(np.float32),
    "halves to 255": lambda x: x.astype(np.float16),
    "16 bits": lambda x: x.astype(np.uint16) * 257,
    "12 bits": lambda x: x.astype(np.int32) * 16,
    "minus 1 to 1": lambda x: x / 127.5 - 1,
}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("as_floats", [False, True])
def test_inputs_of_another_range_than_in_training_are_refused(other: str, as_floats: bool) -> None:
    model = trained(BYTES / 255 if as_floats else BYTES, epochs=1)
    x = OTHERS[other](BYTES)
    if as_floats and x.dtype.kind in "iu":
        assert (model.predict(x) == model.predict(BYTES / 255)).mean() > 0.99
        return
    for ask in (model.predict, lambda x: model.evaluate(gn.Samples(x, LABELS[:200], 1.0, 10)), model.forward):
        with pytest.raises(DataError, match="the network was trained on") as caught:
            ask(x[:200])
        one_line(caught.value)


def test_floats_to_1_for_a_network_that_was_trained_on_floats_to_255_are_refused() -> None:
    data = gn.Data.from_arrays(BYTES.astype(np.float32), LABELS, scale=1 / 255, validation=0)
    model = gn.Sequential([gn.Dense(24), gn.ReLU(), gn.Dense(10)])
    model.fit(data, epochs=6, batch_size=64, **KW)
    assert (model.predict(BYTES.astype(np.float32)) == LABELS).mean() > 0.85
    np.testing.assert_array_equal(model.predict(BYTES), model.predict(BYTES.astype(np.float32)))
    with pytest.raises(DataError, match="from 0 to 240 times"):
        model.predict(BYTES / 255)


def test_samples_that_are_scaled_twice_are_refused() -> None:
    model = trained(BYTES, epochs=1)
    assert model.evaluate(gn.Samples(BYTES / 255, LABELS, 1.0, 10)).total == len(LABELS)
    with pytest.raises(DataError, match="the network was trained on bytes"):
        model.evaluate(gn.Samples(BYTES / 255, LABELS, 1 / 255, 10))
    data = gn.Data.from_arrays(BYTES, LABELS, test=(BYTES / 255, LABELS))
    with pytest.raises(DataError, match="the network was trained on bytes"):
        model.evaluate(data.test)
    assert model.predict(np.zeros((1, 8, 8, 1), np.uint8)).shape == (1,)  # a dark image is one


# Pictures


SETS: dict[str, Callable[[NDArray[np.uint8]], NDArray[Any]]] = {
    "bytes": lambda x: x,
    "light ground": lambda x: 255 - x,
    "whole numbers": lambda x: x.astype(np.int64),
    "floats to 1": lambda x: x / 255,
    "floats to 1, light ground": lambda x: 1 - x / 255,
    "minus 1 to 1": lambda x: x / 127.5 - 1,
    "standardised": lambda x: (x - x.mean()) / x.std(),
    "standardised, light ground": lambda x: -(x - x.mean()) / x.std(),
    "16 bits": lambda x: x.astype(np.uint16) * 257,
    "grey as RGB": lambda x: np.repeat(x, 3, axis=3),
    "RGB on a light ground": lambda x: (255 - x * np.array([1, 0.7, 0.4])).astype(np.uint8),
    "RGB on a dark ground": lambda x: (x * np.array([1, 0.7, 0.4])).astype(np.uint8),
    "RGB, each channel standardised": lambda x: (x * np.array([1, 0.7, 0.4]) - (30, 20, 10)) / (60, 50, 40),
    "flat": lambda x: x.reshape(len(x), -1),
    "flat, light ground": lambda x: 255 - x.reshape(len(x), -1),
}


def pictures(folder: Path, x: NDArray[Any], count: int = 60) -> list[str]:
    """Training images as PNG files, stretched to bytes over their whole range."""
    x = x.reshape(-1, 8, 8, 1) if x.ndim == 2 else x
    low, high = x.min(axis=(0, 1, 2)).astype(float), x.max(axis=(0, 1, 2)).astype(float)
    if x.dtype != np.uint8:
        x = ((x - low) / (high - low) * 255).round().astype(np.uint8)
    for number, image in enumerate(x[:count]):
        Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(folder / f"{number}.png")
    return [str(folder / f"{number}.png") for number in range(count)]


@pytest.mark.parametrize("name", SETS)
def test_training_images_as_files_are_recognised_as_in_python(name: str, tmp_path: Path) -> None:
    whole = np.clip(np.asarray(DIGITS.inputs).astype(int) * 16, 0, 255).astype(np.uint8)
    x = SETS[name](whole)
    model = trained(x, epochs=20, optimizer=gn.SGD(0.02, 0.9))
    model.save(tmp_path / "model")
    notes: list[str] = []
    answers = [a.label for a in predict_files(str(tmp_path / "model"), pictures(tmp_path, x), "cpu", note=notes.append)]
    wanted = model.predict(x[:60])
    assert (wanted == LABELS[:60]).mean() > 0.8
    assert answers == [str(label) for label in wanted]
    assert not notes


def test_a_dark_picture_for_a_network_of_light_ones_is_turned_and_said(tmp_path: Path) -> None:
    whole = np.clip(np.asarray(DIGITS.inputs).astype(int) * 16, 0, 255).astype(np.uint8)
    model = trained(255 - whole)
    model.save(tmp_path / "model")
    notes: list[str] = []
    files = pictures(tmp_path, whole)
    answers = [a.label for a in predict_files(str(tmp_path / "model"), files, "cpu", note=notes.append)]
    assert answers == [str(label) for label in model.predict(255 - whole[:60])]
    assert "dark background, in training it was light, so dark and light are exchanged" in notes[0]


def test_where_grounds_are_mixed_nothing_is_exchanged(tmp_path: Path) -> None:
    whole = np.clip(np.asarray(DIGITS.inputs).astype(int) * 16, 0, 255).astype(np.uint8)
    whole[::2] = 255 - whole[::2]
    model = trained(whole)
    model.save(tmp_path / "model")
    answers = [a.label for a in predict_files(str(tmp_path / "model"), pictures(tmp_path, whole), "cpu")]
    assert answers == [str(label) for label in model.predict(whole[:60])]


def test_patches_of_one_colour_are_no_blank_pictures_where_they_were_learned(tmp_path: Path) -> None:
    x = np.zeros((60, 6, 6, 3), np.uint8)
    x[np.arange(60), ..., np.arange(60) % 3] = 200
    model = gn.Sequential([gn.Dense(3)])
    model.fit((x, np.arange(60) % 3), epochs=9, batch_size=10, **KW)
    model.save(tmp_path / "model")
    for channel in range(3):
        Image.fromarray(x[channel]).save(tmp_path / f"{channel}.png")
        (answer,) = predict_files(str(tmp_path / "model"), [str(tmp_path / f"{channel}.png")], "cpu")
        assert answer.label == str(channel)


def test_whole_numbers_in_a_file_are_scaled_as_in_python(tmp_path: Path) -> None:
    model = trained(BYTES)
    model.save(tmp_path / "model")
    np.save(tmp_path / "x.npy", BYTES[:60].astype(np.int64))
    answers = [a.label for a in predict_files(str(tmp_path / "model"), [str(tmp_path / "x.npy")], "cpu")]
    assert answers == [str(label) for label in model.predict(BYTES[:60])]


# The record


def test_a_record_is_judged_by_images_that_are_spread_over_all() -> None:
    made = TrainingInputs.of(gn.Samples(255 - colourful(), LABELS, 1 / 255))
    assert (made.shape, made.is_bytes, made.ground, made.is_grey, made.is_drawn) == (
        (8, 8, 3), True, "light", False, True,
    )  # fmt: skip
    assert made.high == (255.0, 255.0, 255.0)
    assert TrainingInputs.of(gn.Samples(np.repeat(BYTES, 3, axis=3), LABELS, 1 / 255)).is_grey


def test_a_table_has_a_record_without_images() -> None:
    made = TrainingInputs.of(gn.Samples(np.random.default_rng(0).normal(size=(50, 5)), np.arange(50) % 2))
    assert (made.shape, made.ground, made.is_drawn) == ((5,), "mixed", False)
