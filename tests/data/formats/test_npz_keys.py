"""The names that people give the arrays of a .npz file: understood, or refused where they may mean two things."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.data_helpers import one_line

from gpunn.data import load_data
from gpunn.data.formats.npy import NpzFile
from gpunn.data.formats.npz_keys import INPUTS, NAMES, TARGETS, TEST, TRAIN, VALIDATION, WEIGHTS, Meaning, meaning
from gpunn.errors import DataError

X = np.arange(60, dtype=np.float32).reshape(20, 3)
Y = np.arange(20) % 2


def saved(path: Path, **arrays: Any) -> Path:
    np.savez(path / "set.npz", **arrays)
    return path / "set.npz"


def refused(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_data(path)
    one_line(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "names",
    ["x y", "X y", "X Y", "data target", "images labels", "features targets", "Inputs label", "x_train y_train",
     "X_train y_train", "train_images train_labels", "trainX trainY", "Xtrain ytrain", "train_set_x train_set_y",
     "train_data train_targets", "TRAIN_IMAGES TRAIN_LABELS", "x labels", "image_data image_labels",
     "inputs outputs", "Xs ys"],
)  # fmt: skip
def test_a_pair_to_learn_from_is_found_by_many_names(tmp_path: Path, names: str) -> None:
    x, y = names.split()
    data = load_data(saved(tmp_path, **{x: X, y: Y, "ids": Y}), validation=0)
    np.testing.assert_array_equal(data.train.inputs, X)
    np.testing.assert_array_equal(data.train.targets, Y)


@pytest.mark.parametrize("form", ["x_{}", "X_{}", "{}_images", "{}X", "x{}", "images-{}", "{}.data"])
def test_all_parts_are_found(tmp_path: Path, form: str) -> None:
    y = form.replace("x", "y").replace("X", "Y").replace("images", "labels").replace("data", "labels")
    for val in ("val", "valid", "validation", "dev"):
        sizes = {"train": 20, val: 6, "test": 4}
        arrays = {form.format(part): X[:size] for part, size in sizes.items()}
        arrays |= {y.format(part): Y[:size] for part, size in sizes.items()}
        data = load_data(saved(tmp_path, **arrays))
        assert data.validation is not None
        assert data.test is not None
        assert [len(part) for part in (data.train, data.validation, data.test)] == [20, 6, 4]


def test_arrays_saved_without_names_are_inputs_and_targets(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, X, Y)
    assert len(load_data(path, validation=0).train) == 20
    np.savez(path, X, Y, X, Y)
    assert "holds 4 arrays without names, in an unknown order" in refused(path)


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("label_names", Meaning(NAMES)),
        ("targetNames", Meaning(NAMES)),
        ("sample_weight", Meaning(WEIGHTS)),
        ("val_sample_weights", Meaning(WEIGHTS, VALIDATION)),
        ("xtest", Meaning(INPUTS, TEST)),
        ("testlabels", Meaning(TARGETS, TEST)),
        ("XTrain", Meaning(INPUTS, TRAIN)),
        *((key, None) for key in ("feature_names", "x_mean", "ids", "x1", "x_train_test", "weights", "/x", "")),
        ("x" * 100, None),
    ],
)  # fmt: skip
def test_names_are_told_and_others_mean_nothing(key: str, told: Meaning | None) -> None:
    assert meaning(key) == told


def test_arrays_that_could_be_the_same_are_named(tmp_path: Path) -> None:
    assert "X_train, train_images could each be the inputs of train: name the one to take x_train" in refused(
        saved(tmp_path, train_images=X, X_train=X, y_train=Y)
    )
    assert "label, target could each be the targets: name the one to take y" in refused(
        saved(tmp_path, x=X, label=Y, target=Y)
    )
    # The usual names go before all others, as they always did.
    assert load_data(saved(tmp_path, x=X, y=Y, data=X, X=X), validation=0).train.inputs.tolist() == X.tolist()
    assert len(load_data(saved(tmp_path, x_train=X, y_train=Y, x=X[:4], y=Y[:4]), validation=0).train) == 20


def test_half_of_a_part_is_refused_by_its_own_name(tmp_path: Path) -> None:
    path = saved(tmp_path, train_images=X, train_labels=Y, val_images=X)
    assert "has val_images but not its other half: give x_validation and y_validation" in refused(path)


def test_classes_are_named_by_an_array_of_texts(tmp_path: Path) -> None:
    for key in ("class_names", "label_names", "target_names"):
        data = load_data(saved(tmp_path, X=X, y=Y, **{key: ["no", "yes"]}))
        assert data.class_names == ("no", "yes")
    assert load_data(saved(tmp_path, X=X, y=Y, target_names=[b"no", "né".encode()])).class_names == ("no", "né")
    assert load_data(saved(tmp_path, X=X, y=X / 3, target_names=["a", "b", "c"])).class_names == ()
    assert "array target_names must be texts" in refused(saved(tmp_path, X=X, y=Y, target_names=[0, 1]))
    assert "expected 3 classes" not in (said := refused(saved(tmp_path, X=X, y=Y, target_names=["a"])))
    assert "expected 0 to 0 (1 classes), got 1" in said


def test_samples_are_weighed_by_an_array_beside_them(tmp_path: Path) -> None:
    weights = np.arange(20) / 4
    data = load_data(saved(tmp_path, x=X, y=Y, sample_weight=weights), validation=0)
    np.testing.assert_array_equal(data.train.weights, weights)
    arrays = {f"{name}_{part}": values for part in ("train", "test") for name, values in (("x", X), ("y", Y))}
    data = load_data(saved(tmp_path, **arrays, sample_weight_train=weights, sample_weight_test=weights[::-1]))
    assert data.test is not None
    assert data.train.weights is not None
    np.testing.assert_array_equal(data.test.weights, weights[::-1])
    assert load_data(saved(tmp_path, x=X, y=Y, weights=weights)).train.weights is None
    assert "sample weights are (20,), one for each sample" in refused(saved(tmp_path, x=X, y=Y, sample_weight=Y[:3]))


def test_a_set_of_medmnist_is_read(tmp_path: Path) -> None:
    images, labels = np.zeros((20, 28, 28, 3), np.uint8), (np.arange(20)[:, None] % 3).astype(np.uint8)
    arrays = {f"{part}_images": images for part in ("train", "val", "test")}
    data = load_data(saved(tmp_path, **arrays, **{f"{part}_labels": labels for part in ("train", "val", "test")}))
    assert (data.train.shape, data.train.classes, data.train.scale) == ((28, 28, 3), 3, 1 / 255)
    assert data.validation is not None
    assert data.validation.targets.tolist() == labels[:, 0].tolist()
    several = (np.arange(20)[:, None] >> np.arange(4) & 1).astype(np.uint8)
    data = load_data(saved(tmp_path, **arrays, **{f"{part}_labels": several for part in ("train", "val", "test")}))
    np.testing.assert_array_equal(data.train.targets, several)


@pytest.mark.parametrize("names", ["X y", "test_images train_images", "images labels", "X_test X_val", "pictures"])
def test_a_prediction_takes_the_inputs_by_the_same_names(tmp_path: Path, names: str) -> None:
    arrays = {name: X + place for place, name in enumerate(names.split())}
    np.testing.assert_array_equal(NpzFile(saved(tmp_path, **arrays)).inputs(), X)
