"""Data by name, from folders and from files: where they are looked for, and what a wrong one says."""

import gzip
import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from support.data_helpers import STEMS, idx_bytes, one_line, small_set, write_set
from support.paths import ROOT

from gpunn.data import NAMES, load_data
from gpunn.data import load as load_module
from gpunn.data.load import DIGIT_IMAGES as IMAGES
from gpunn.data.load import DIGIT_LABELS as LABELS
from gpunn.data.published import MNIST, PUBLISHED
from gpunn.errors import DataError, OptionError


@pytest.fixture(autouse=True)
def nothing_of_this_machine(monkeypatch, tmp_path):
    """No GPUNN_DATA, an empty cache, and no server: a test that downloads by mistake fails."""
    monkeypatch.delenv("GPUNN_DATA", raising=False)
    monkeypatch.setattr(load_module, "user_cache", lambda: tmp_path / "cache")
    for name, published in PUBLISHED.items():
        monkeypatch.setitem(PUBLISHED, name, _without_mirrors(published))


def _without_mirrors(published):
    return type(published)(published.name, published.files, (), published.class_names)


def refused(*args, **named) -> str:
    with pytest.raises(DataError) as caught:
        load_data(*args, **named)
    one_line(caught.value)
    return str(caught.value)


def test_the_bundled_digits_are_those_that_their_readme_names():
    readme = (IMAGES.parent / "README.md").read_text()
    for path in (IMAGES, LABELS):
        digest = hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest()
        assert f"{digest}  {path.stem}" in readme
    assert "10.24432/C50P49" in readme
    assert "CC BY 4.0" in readme


def test_the_digits_are_1437_and_360_images_scaled_to_one():
    data = load_data(validation=0)
    assert (len(data.train), len(data.test)) == (1437, 360)
    assert data.train.shape == (8, 8, 1)
    assert data.train.inputs.max() * data.train.scale == 1
    assert data.class_names == tuple("0123456789")
    assert data.train.class_counts().min() >= 139
    assert set(data.test.class_counts()) <= {35, 36, 37}


def test_the_test_set_of_the_digits_is_the_same_for_every_seed_and_apart_from_training():
    prints = {load_data(seed=seed).test.sha256() for seed in (0, 1, 2)}
    assert len(prints) == 1
    data = load_data(validation=0)
    images = np.concatenate([data.train.inputs, data.test.inputs]).reshape(1797, 64)
    assert len(np.unique(images, axis=0)) == 1797


def test_the_seed_moves_the_validation_set_and_nothing_else():
    first, second, again = load_data(seed=1), load_data(seed=2), load_data(seed=1)
    assert first.train.sha256() != second.train.sha256()
    assert first.train.sha256() == again.train.sha256()
    assert first.validation.sha256() == again.validation.sha256()


def test_data_are_given_back_as_they_are():
    data = load_data()
    assert load_data(data) is data


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("as_text", [False, True])
def test_a_folder_with_the_four_files_is_a_data_set(tmp_path, packed, as_text):
    arrays = small_set()
    folder = write_set(tmp_path / "mine", arrays, packed=packed)
    data = load_data(str(folder) if as_text else folder, validation=0)
    np.testing.assert_array_equal(data.train.inputs[..., 0], arrays[STEMS[0]])
    np.testing.assert_array_equal(data.test.targets, arrays[STEMS[3]])
    assert (data.name, data.train.classes, data.train.scale) == ("mine", 4, 1 / 255)


def test_the_names_with_a_dot_are_understood(tmp_path):
    for stem, array in small_set().items():
        (tmp_path / stem.replace("-idx", ".idx")).write_bytes(idx_bytes(array))
    assert len(load_data(tmp_path, validation=0).train) == 40


@pytest.mark.parametrize("stem", STEMS)
def test_a_missing_file_is_named_before_any_training(tmp_path, stem):
    write_set(tmp_path, small_set())
    (tmp_path / stem).unlink()
    assert f"{stem} missing" in refused(tmp_path)


@pytest.mark.parametrize("stem", STEMS[2:])
def test_a_damaged_test_file_does_no_harm_until_the_test_set_is_opened(tmp_path, stem):
    write_set(tmp_path, small_set())
    (tmp_path / stem).write_bytes(b"\0\0\x08")
    data = load_data(tmp_path)
    assert len(data.train) == 36
    assert not data.test_is_open
    with pytest.raises(DataError, match=stem):
        _ = data.test
    with pytest.raises(DataError, match=stem):
        load_data(tmp_path, validation="test")


def test_the_test_set_is_found_after_the_working_folder_changed(tmp_path, monkeypatch):
    write_set(tmp_path / "mine", small_set())
    np.savez(tmp_path / "a.npz", x_train=np.eye(4), y_train=[0, 1, 0, 1], x_test=np.eye(4), y_test=[0, 1, 0, 1])
    monkeypatch.chdir(tmp_path)
    loaded = [load_data("mine"), load_data("a.npz", validation=0)]
    monkeypatch.chdir(os.sep)
    assert [len(data.test) for data in loaded] == [12, 4]


def test_more_images_than_labels_names_both_files(tmp_path):
    arrays = small_set()
    arrays[STEMS[1]] = arrays[STEMS[1]][:-1]
    message = refused(write_set(tmp_path, arrays))
    assert "40 images" in message
    assert f"{STEMS[1]} 39 labels" in message


def test_exchanged_files_are_said_to_be_exchanged(tmp_path):
    write_set(tmp_path, small_set())
    (tmp_path / STEMS[0]).rename(tmp_path / "aside")
    (tmp_path / STEMS[1]).rename(tmp_path / STEMS[0])
    (tmp_path / "aside").rename(tmp_path / STEMS[1])
    assert "expected images" in refused(tmp_path)


def test_a_label_of_the_test_set_that_was_never_learned_is_refused(tmp_path):
    arrays = small_set()
    arrays[STEMS[3]][5] = 4
    data = load_data(write_set(tmp_path, arrays))
    with pytest.raises(DataError, match=f"{STEMS[3]}.*expected 0 to 3 .*got 4 at index 5"):
        _ = data.test


def test_a_folder_above_a_set_is_told_where_the_set_is(tmp_path):
    write_set(tmp_path / "mnist", small_set())
    assert f"did you mean {tmp_path / 'mnist'}?" in refused(tmp_path)


@pytest.mark.parametrize("name", ["mnits", "Digits", "fashion_mnist", "cifar10", "mnist/"])
def test_an_unknown_name_lists_the_known_ones(name):
    with pytest.raises((OptionError, DataError)) as caught:
        load_data(name)
    one_line(caught.value)
    assert all(known in str(caught.value) for known in NAMES)
    if name in ("mnits", "Digits", "fashion_mnist"):
        assert isinstance(caught.value, OptionError)
        assert "did you mean" in str(caught.value)


@pytest.mark.parametrize("source", ["", 5, None, (np.eye(2), [0, 1])])
def test_what_is_no_name_or_path_is_pointed_to_from_arrays(source):
    with pytest.raises(OptionError, match="from_arrays"):
        load_data(source)


def test_one_idx_file_is_pointed_to_its_folder(tmp_path):
    write_set(tmp_path, small_set())
    assert f"give its folder, {tmp_path}" in refused(tmp_path / STEMS[0])


def test_mnist_is_found_where_gpunn_data_says(mnist_folder, monkeypatch, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "mnist").symlink_to(mnist_folder)
    for place in (mnist_folder, root):
        monkeypatch.setenv("GPUNN_DATA", str(place))
        data = load_data("mnist", validation=10_000)
        assert (len(data.train), len(data.validation)) == (50_000, 10_000)
        assert data.train.targets.min() >= 0
        assert not data.test_is_open
    assert len(data.test) == 10_000
    assert data.validation.class_counts().tolist() == [987, 1124, 993, 1022, 974, 904, 986, 1044, 975, 991]
    # Nielsen's curves were made with the published test set as validation set and the first 1,000 images.
    small = load_data("mnist", limit=1000, validation="test")
    assert (len(small.train), len(small.validation), small.validation_is_test) == (1000, 10_000, True)
    assert small.train.targets[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]


def test_a_folder_of_gpunn_data_that_lacks_a_file_is_passed_over(mnist_folder, monkeypatch, tmp_path):
    incomplete = tmp_path / "data" / "mnist"
    write_set(incomplete, dict(list(small_set().items())[:3]))
    monkeypatch.setenv("GPUNN_DATA", str(tmp_path / "data"))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "mnist").symlink_to(mnist_folder)
    assert len(load_data("mnist", validation=0).train) == 60_000


def test_a_gpunn_data_that_is_no_folder_is_mentioned(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("GPUNN_DATA", str(tmp_path / "typo"))
    refused("mnist")
    assert "typo" in caplog.text


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_without_files_and_network_the_error_says_what_to_put_where(monkeypatch, tmp_path, name):
    message = refused(name)
    assert "train-images-idx3-ubyte.gz" in message
    assert str(tmp_path / "cache" / name) in message
    assert "GPUNN_DATA" in message


def test_another_set_under_the_name_of_mnist_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("GPUNN_DATA", str(write_set(tmp_path / "mnist", small_set())))
    message = refused("mnist")
    assert "expected (60000, 28, 28)" in message
    assert f'"{tmp_path / "mnist"}"' in message


def test_a_changed_pixel_of_mnist_is_found(mnist_folder, monkeypatch, tmp_path):
    for stem in STEMS:
        path = next(path for suffix in ("", ".gz") if (path := mnist_folder / (stem + suffix)).is_file())
        content = path.read_bytes()
        if stem == STEMS[2]:
            plain = bytearray(gzip.decompress(content) if path.suffix == ".gz" else content)
            plain[5000] ^= 1
            (tmp_path / stem).write_bytes(plain)
        else:
            (tmp_path / path.name).write_bytes(content)
    monkeypatch.setenv("GPUNN_DATA", str(tmp_path))
    data = load_data("mnist")
    with pytest.raises(DataError, match="SHA-256"):
        _ = data.test
    # The same files without the promise of the name:
    assert len(load_data(tmp_path).test) == 10_000


def test_mnist_is_not_taken_for_fashion_mnist(mnist_folder, monkeypatch):
    monkeypatch.setenv("GPUNN_DATA", str(mnist_folder))
    assert "this file is of mnist, expected fashion-mnist" in refused("fashion-mnist")


def test_the_known_hashes_are_those_of_the_files(mnist_folder):
    listed = (mnist_folder / "SHA256SUMS").read_text() if (mnist_folder / "SHA256SUMS").is_file() else None
    for file in MNIST.files:
        path = file.find(mnist_folder)
        raw = path.read_bytes()
        assert hashlib.sha256(gzip.decompress(raw) if path.suffix == ".gz" else raw).hexdigest() == file.sha256
        assert listed is None or f"{file.sha256}  {file.stem}\n" in listed


def test_importing_the_data_brings_no_heavy_library():
    code = (
        "import sys, gpunn.data; gpunn.data.load_data(); "
        "print([m for m in ('pooch', 'requests', 'matplotlib', 'cupy') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert shown.stdout.strip() == "[]"
