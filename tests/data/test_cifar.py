"""CIFAR's binary versions: from folders, archives and a server, and that wrong ones are refused."""

import gzip
import hashlib
import io
import os
import pickle
import tarfile
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.data_helpers import fails, one_line, sends, server

from gpunn.data import load as load_module
from gpunn.data import load_data, named_sets
from gpunn.data.cifar import CIFAR, CIFAR_10, CIFAR_100, CIFAR_100_BY_COARSE, CifarSet
from gpunn.data.download import download_archive
from gpunn.data.formats import tar
from gpunn.errors import DataError, OutputError

TEN = replace(CIFAR_10, train_count=50, test_count=10, mirrors=())
HUNDRED = replace(CIFAR_100, train_count=50, test_count=10, mirrors=())
COARSE = replace(CIFAR_100_BY_COARSE, train_count=50, test_count=10, mirrors=())


@pytest.fixture(autouse=True)
def small_sets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Sets of 60 samples, an empty cache, and no server."""
    for variable in [name for name in os.environ if name.lower().endswith("_proxy")] + ["GPUNN_DATA"]:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(load_module, "user_cache", lambda: tmp_path / "cache")
    monkeypatch.setattr(named_sets, "CIFAR_10", TEN)
    monkeypatch.setattr(named_sets, "CIFAR_100", HUNDRED)
    for known in (TEN, HUNDRED, COARSE):
        monkeypatch.setitem(CIFAR, known.name, known)


def samples(count: int, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 32, 32, 3)).astype(np.uint8), (np.arange(count) % 10).astype(np.uint8)


def files(known: CifarSet) -> dict[str, bytes]:
    """The files of a set, written from the words of its page: labels, then 1,024 bytes of red, of green and of blue."""
    found = {}
    for seed, (name, size) in enumerate(known.sizes.items()):
        images, labels = samples(size // (known.labels + 3072), seed)
        rows = []
        for image, label in zip(images, labels, strict=True):
            planes = b"".join(image[:, :, colour].tobytes() for colour in range(3))
            rows.append((bytes([label % 20]) if known.labels == 2 else b"") + bytes([label]) + planes)
        found[name] = b"".join(rows)
    return found


def written(folder: Path, known: CifarSet) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files(known).items():
        (folder / name).write_bytes(content)
    return folder


def packed(members: dict[str, bytes], folder: str = "cifar-10-batches-bin", mode: str = "w:gz") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        archive.addfile(directory := tarfile.TarInfo(folder))
        directory.type = tarfile.DIRTYPE
        for name, content in {"readme.html": b"<html>", **members}.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def check(data: Any, known: CifarSet) -> None:
    first, last = samples(known.train_count // len(known.train_files), 0), samples(10, len(known.train_files))
    np.testing.assert_array_equal(data.train.inputs[: len(first[0])], first[0])
    np.testing.assert_array_equal(data.train.targets[: len(first[1])], first[1])
    np.testing.assert_array_equal(data.test.inputs, last[0])
    assert (len(data.train), data.train.classes, data.train.scale) == (50, len(known.class_names), 1 / 255)
    assert data.class_names == known.class_names


def refused(source: Any, **named_too: Any) -> str:
    with pytest.raises(DataError) as caught:
        load_data(source, validation=0, **named_too)
    one_line(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("known", [TEN, HUNDRED], ids=lambda known: known.name)
def test_folders_and_archives_hold_the_same_images(tmp_path: Path, known: CifarSet) -> None:
    check(load_data(written(tmp_path / "mine", known), validation=0), known)
    written(tmp_path / "above" / known.folder, known)
    check(load_data(tmp_path / "above", validation=0), known)
    for name, mode in (("a.tar.gz", "w:gz"), ("b.tar", "w")):
        (tmp_path / name).write_bytes(packed(files(known), known.folder, mode))
        check(load_data(tmp_path / name, validation=0), known)


def test_the_published_sizes_are_those_of_the_page() -> None:
    assert set(CIFAR_10.sizes.values()) == {30_730_000}
    assert len(CIFAR_10.sizes) == 6
    assert CIFAR_100.sizes == {"train.bin": 153_700_000, "test.bin": 30_740_000}
    assert (len(set(CIFAR_100.class_names)), len(set(CIFAR_100_BY_COARSE.class_names))) == (100, 20)


def test_a_name_is_found_where_gpunn_data_says_or_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "cache" / "cifar-100", HUNDRED)
    check(load_data("cifar-100", validation=0), HUNDRED)
    coarse = load_data("cifar-100-coarse", validation=0)
    assert (coarse.train.classes, coarse.class_names[0]) == (20, "aquatic_mammals")
    written(tmp_path / "data" / "cifar-10", TEN)
    monkeypatch.setenv("GPUNN_DATA", str(tmp_path / "data"))
    check(load_data("cifar-10", validation=0), TEN)


def test_a_published_archive_is_checked_by_its_hash_and_an_own_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = packed(files(TEN))
    (path := tmp_path / "cifar-10-binary.tar.gz").write_bytes(content)
    monkeypatch.setenv("GPUNN_DATA", str(tmp_path))
    assert "not the archive that cifar-10 was published as (MD5" in refused("cifar-10")
    check(load_data(path, validation=0), TEN)
    monkeypatch.setitem(CIFAR, "cifar-10", replace(TEN, md5=hashlib.md5(content).hexdigest()))
    check(load_data("cifar-10", validation=0), TEN)


def test_an_archive_is_downloaded_checked_and_unpacked_into_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = packed(files(TEN))
    with server(fails(404)) as (broken, _), server(sends({TEN.archive: content})) as (address, asked):
        known = replace(TEN, md5=hashlib.md5(content).hexdigest(), mirrors=(broken, address))
        monkeypatch.setitem(CIFAR, "cifar-10", known)
        for _ in range(2):
            check(load_data("cifar-10", validation=0), TEN)
        assert asked == [TEN.archive]
    folder = tmp_path / "cache" / "cifar-10"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files(TEN)


def test_a_download_that_fails_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    for answer, said in (
        (fails(500), "answered 500"),
        (sends({TEN.archive: b"<html>"}), "sent a wrong archive (MD5"),
        (sends({TEN.archive: bytes(3 << 20)}), "more than the file holds"),
    ):
        with server(answer) as (address, _), pytest.raises(DataError) as caught:
            download_archive(TEN, tmp_path / "new", [address])
        one_line(caught.value)
        assert said in str(caught.value)
        assert "GPUNN_DATA" in str(caught.value)
        assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="GPUNN_DATA"):
        download_archive(TEN, tmp_path / "file" / "cifar-10", [])


def test_wrong_files_are_named(tmp_path: Path) -> None:
    folder = written(tmp_path / "mine", TEN)
    whole = (folder / "data_batch_3.bin").read_bytes()
    for content, said in ((whole[:-1], "expected 30,730 bytes, got 30,729"), (whole + b"\0", "got more")):
        (folder / "data_batch_3.bin").write_bytes(content)
        assert f"{folder / 'data_batch_3.bin'}: expected 30,730 bytes" in (message := refused(folder))
        assert said in message
    (folder / "data_batch_3.bin").write_bytes(b"\x63" + whole[1:])
    assert f"{folder}: labels out of range: expected 0 to 9 (10 classes), got 99 at index 20" in refused(folder)
    assert f"give its folder, {folder}" in refused(folder / "test_batch.bin")
    assert "leave memory_map out" in refused(folder, memory_map=True)


def hostile(size: int, content: bytes = b"") -> bytes:
    """An archive whose long header claims so many bytes."""
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, size
    return header.tobuf(tarfile.GNU_FORMAT) + content


def test_damaged_and_hostile_archives_are_one_line_within_bounded_memory(tmp_path: Path) -> None:
    content, plain = packed(files(TEN)), packed(files(TEN), mode="w")
    short = packed({name: data[:-1] for name, data in files(TEN).items()})
    missing = packed(dict(list(files(TEN).items())[:-1]))
    many = packed({f"{number}.bin": b"" for number in range(100)} | files(TEN))
    cases = [
        (content[:-100], "it is cut short"),
        (content[:5000] + b"\0" * 100 + content[5100:], "damaged"),
        (plain[:40_000], "cut short"),
        (short, "data_batch_1.bin has a wrong size, expected 30,730 bytes, got 30,729"),
        (missing, "test_batch.bin missing"),
        (many, "got an archive of other files"),
        (hostile(1 << 40), "far more than the files of a data set"),
        (gzip.compress(hostile(1 << 30, bytes(64 << 20)), 1), "far more than the files of a data set"),
    ]
    for number, (given, said) in enumerate(cases):
        (path := tmp_path / f"cifar-{number}.tar.gz").write_bytes(given)
        tracemalloc.start()
        try:
            assert said in refused(path), number
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
        finally:
            tracemalloc.stop()


def test_no_more_is_unpacked_than_a_data_set_can_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar, "_MOST_BYTES", 1 << 20)
    (path := tmp_path / "a.tar.gz").write_bytes(packed({"other": bytes(8 << 20)} | files(TEN)))
    assert "far more than the files of a data set" in refused(path)


def test_links_and_paths_in_an_archive_lead_nowhere(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name in TEN.sizes:
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(link)
    (tmp_path / "a.tar.gz").write_bytes(out.getvalue())
    assert "test_batch.bin missing" in refused(tmp_path / "a.tar.gz")
    (tmp_path / "b.tar.gz").write_bytes(packed(files(TEN), "/../.."))
    check(load_data(tmp_path / "b.tar.gz", validation=0), TEN)


def test_the_python_version_is_refused_and_the_binary_one_named(tmp_path: Path) -> None:
    for name in ("data_batch_1", "test_batch"):
        (tmp_path / name).write_bytes(pickle.dumps({"data": 1}))
        message = refused(tmp_path / name)
        assert "a pickle of CIFAR-10" in message
        assert "cifar-10-binary.tar.gz" in message
    assert "python version of CIFAR, which is pickles: get the binary version, cifar-10-binary" in refused(tmp_path)
    (tmp_path / "c.tar.gz").write_bytes(packed({"data_batch_1": b""}, "cifar-10-batches-py"))
    assert "an archive of pickles: get the binary version, cifar-10-binary" in refused(tmp_path / "c.tar.gz")
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name in ("train", "test", "meta"):
        (folder / name).write_bytes(pickle.dumps(1))
    assert "cifar-100-binary.tar.gz" in refused(folder)
    assert "cifar-100-binary.tar.gz" in refused(folder / "train")
