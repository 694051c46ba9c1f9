"""Arrays that stay in their file: the same samples as read into memory, and next to no memory."""

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from support.data_helpers import STEMS, one_line, small_set, write_set

from gpunn.data import Data, Samples, load_data
from gpunn.data.formats.idx import idx_header
from gpunn.data.memmap import Rows, in_blocks, is_mapped
from gpunn.errors import DataError, OptionError


def npz(path: Path, x: np.ndarray, y: np.ndarray) -> Path:
    """A file whose arrays are not compressed."""
    np.savez(path, x=x, y=y)
    return path


def floats(path: Path, n: int = 40, dtype: str = "float32") -> tuple[np.ndarray, np.ndarray, Path]:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(n, 5)).astype(dtype), np.arange(n) % 3
    return x, y, npz(path, x, y)


def assert_same(ours: Samples | None, theirs: Samples | None) -> None:
    assert ours is not None
    assert theirs is not None
    np.testing.assert_array_equal(ours.inputs[:], theirs.inputs[:])
    np.testing.assert_array_equal(ours.targets, theirs.targets)
    assert (ours.shape, ours.classes, ours.scale) == (theirs.shape, theirs.classes, theirs.scale)
    assert ours.inputs.dtype == theirs.inputs.dtype
    assert ours.inputs.nbytes == theirs.inputs.nbytes
    assert ours.sha256() == theirs.sha256()


# The same samples


def test_a_folder_whose_images_stay_in_their_files_has_the_same_split_and_the_same_samples(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "mine", small_set())
    mapped, read = (load_data(folder, validation=0.25, seed=3, memory_map=kept) for kept in (True, False))
    assert isinstance(mapped.train.inputs, Rows)
    assert isinstance(mapped.validation.inputs, Rows)
    assert is_mapped(mapped.test.inputs)
    assert not is_mapped(read.train.inputs)
    for ours, theirs in ((mapped.train, read.train), (mapped.validation, read.validation), (mapped.test, read.test)):
        assert_same(ours, theirs)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_arrays_of_a_file_that_is_not_compressed_stay_in_it(tmp_path: Path, dtype: str) -> None:
    _, _, path = floats(tmp_path / "mine.npz", dtype=dtype)
    mapped, read = (load_data(path, seed=1, memory_map=kept) for kept in (True, False))
    assert isinstance(mapped.train.inputs, Rows)
    assert_same(mapped.train, read.train)
    assert_same(mapped.validation, read.validation)


def test_columns_that_lie_together_in_a_file_are_read_right(tmp_path: Path) -> None:
    x, y, _ = floats(tmp_path / "plain.npz")
    path = npz(tmp_path / "turned.npz", np.asfortranarray(x), y)
    np.testing.assert_array_equal(load_data(path, validation=0, memory_map=True).train.inputs, x)


def test_a_map_of_ones_own_stays_one(tmp_path: Path) -> None:
    x, y, _ = floats(tmp_path / "mine.npz")
    np.save(tmp_path / "x.npy", x)
    data = Data.from_arrays(np.load(tmp_path / "x.npy", mmap_mode="r"), y)
    assert isinstance(data.train.inputs, Rows)
    assert_same(data.train, Data.from_arrays(x, y).train)


def test_some_of_some_rows_are_not_read_until_they_are_asked_for(tmp_path: Path) -> None:
    x, _, path = floats(tmp_path / "mine.npz")
    train = load_data(path, validation=0, memory_map=True).train
    some = train.subset([5, 3, 8, 30]).subset(np.array([True, False, True, True])).first(2)
    assert isinstance(some.inputs, Rows)
    np.testing.assert_array_equal(some.inputs[:], x[[5, 8]])
    np.testing.assert_array_equal(some.inputs[1], x[8])
    np.testing.assert_array_equal(np.asarray(some.inputs, np.float64), x[[5, 8]].astype(np.float64))
    assert (len(some.inputs), some.inputs.shape, some.inputs.ndim) == (2, (2, 5), 2)
    np.testing.assert_array_equal(train.subset([-1]).inputs[0], x[-1])
    with pytest.raises(DataError, match="an index is out of range: there are 2 samples"):
        some.subset([2])


def test_blocks_are_all_of_it_in_order() -> None:
    x = np.arange(35, dtype=np.float32).reshape(7, 5)
    for most, sizes in ((1, [1] * 7), (40, [2, 2, 2, 1]), (10**6, [7])):
        parts = list(in_blocks(x, most))
        assert [len(rows) for _, rows in parts] == sizes
        assert [start for start, _ in parts] == [sum(sizes[:at]) for at in range(len(sizes))]
        np.testing.assert_array_equal(np.concatenate([rows for _, rows in parts]), x)


# When


def test_large_files_stay_on_the_disk_without_being_asked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_set(tmp_path / "plain", small_set())
    packed = write_set(tmp_path / "packed", small_set(), packed=True)
    _, _, path = floats(tmp_path / "mine.npz")
    assert not any(is_mapped(load_data(source).train.inputs) for source in (folder, packed, path))
    monkeypatch.setattr("gpunn.data.formats.bounded.MAPPED_FROM", 100)
    assert is_mapped(load_data(folder).train.inputs)
    assert is_mapped(load_data(path).train.inputs)
    assert not is_mapped(load_data(packed).train.inputs)  # nothing else can be done with it
    assert not is_mapped(load_data(folder, memory_map=False).train.inputs)


def test_what_is_compressed_cannot_be_mapped(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "packed", small_set(), packed=True)
    x, y, _ = floats(tmp_path / "mine.npz")
    np.savez_compressed(tmp_path / "small.npz", x=x, y=y)
    for source in (folder, tmp_path / "small.npz"):
        with pytest.raises(DataError, match=r"what is compressed cannot be memory-mapped: unpack it") as caught:
            load_data(source, memory_map=True)
        one_line(caught.value)
    with pytest.raises(OptionError, match="the bundled digits are compressed") as caught:
        load_data("digits", memory_map=True)
    one_line(caught.value)


# What is wrong is found as in memory


def test_a_number_that_is_not_finite_is_found_wherever_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, _ = floats(tmp_path / "mine.npz")
    x[17, 2], x[33] = np.nan, np.inf
    path = npz(tmp_path / "wrong.npz", x, y)
    monkeypatch.setattr("gpunn.data.memmap._BLOCK", 100)
    for kept in (True, False):
        with pytest.raises(DataError, match=r"got NaN in sample 17 at position \(2,\) \(6 such values\)"):
            load_data(path, memory_map=kept)


def test_a_file_that_is_cut_short_is_refused_before_it_is_mapped(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "mine", small_set())
    images = folder / STEMS[0]
    images.write_bytes(images.read_bytes()[:-1])
    with pytest.raises(DataError, match="cut short by 1 bytes"):
        load_data(folder, memory_map=True)
    _, _, path = floats(tmp_path / "mine.npz")
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match=r"mine\.npz"):
        load_data(path, memory_map=True)


# Memory


def test_data_that_stay_in_their_file_take_no_memory(tmp_path: Path) -> None:
    """Labels and split of 256 MiB of images, most of them a hole in the file."""
    n, shape = 1 << 16, (64, 64)
    folder = write_set(tmp_path / "large", small_set() | {STEMS[1]: np.arange(n, dtype=np.uint8) % 4})
    images = folder / STEMS[0]
    images.write_bytes(idx_header(np.uint8, (n, *shape)))
    os.truncate(images, 16 + n * 64 * 64)
    with images.open("r+b") as file:
        file.seek(16 + 4096 * 1000)
        file.write(bytes(range(256)) * 16)
    tracemalloc.start()
    try:
        data = load_data(folder, memory_map=True)
        data.train.sha256()
        place = int(np.flatnonzero(data.train.inputs.numbers == 1000)[0])
        assert bytes(data.train.inputs[place].ravel()[:256]) == bytes(range(256))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert data.train.inputs.nbytes > 200 << 20
    assert peak < 48 << 20
