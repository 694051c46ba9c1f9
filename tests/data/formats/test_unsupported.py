"""Files of other programs: each is named, with the way out, and nothing in one is executed."""

import gzip
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.data_helpers import one_line

from gpunn.data import load_data
from gpunn.errors import DataError


class Trap:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return exec, (f"open({str(self.path)!r}, 'w')",)


def refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_data(path)
    one_line(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("packed", [False, True])
def test_pickles_of_every_protocol_are_refused_and_not_loaded(tmp_path: Path, protocol: int, packed: bool) -> None:
    sprung = tmp_path / "sprung"
    for held in (Trap(sprung), (np.zeros(3), np.zeros(3)), {"data": np.zeros(3)}, [[1, 2], [3]]):
        content = pickle.dumps(held, protocol)
        content = gzip.compress(content) if packed else content
        assert "a pickle, as M. Nielsen's book has MNIST: name the data mnist" in refused(
            tmp_path / "mnist.pkl.gz", content
        )
        assert "got a pickle, which could run any program: if you trust it" in refused(tmp_path / "own.pkl", content)
        assert "a pickle of PyTorch" in refused(tmp_path / "training.pt", content)
    assert not sprung.exists()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("train_32x32.mat", b"MATLAB 5.0 MAT-file, Platform: GLNXA64", "as SVHN has them: m = scipy.io.loadmat"),
        ("emnist-letters.mat", b"MATLAB 5.0 MAT-file, Platform: GLNXA64", "the IDX files in gzip.zip"),
        ("own.mat", b"MATLAB 7.3 MAT-file, Platform: GLNXA64", "scipy.io.loadmat"),
        ("own.h5", b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file: take its arrays by h5py.File"),
        ("own.npy", b"\x93NUMPY\1\0", "without targets: save both"),
        ("own.gz", b"\x1f\x8bnothing", "the gzip stream is damaged"),
    ],
)  # fmt: skip
def test_each_kind_of_file_is_named_with_its_mend(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    assert said in refused(tmp_path / name, content)


@pytest.mark.parametrize(
    ("member", "said"),
    [
        ("archive/data.pkl", "a file of PyTorch: load it by torch.load(path, weights_only=True)"),
        ("xl/workbook.xml", "an Excel workbook: save the sheet as CSV"),
        ("gzip/emnist-letters-train-images-idx3-ubyte.gz", "a zip of other files: unpack it"),
    ],
)
def test_a_zip_without_arrays_is_told_by_what_is_in_it(tmp_path: Path, member: str, said: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(member, b"")
    assert said in refused(tmp_path / "a.zip", (tmp_path / "a.zip").read_bytes())
