"""Recognise unsupported files, which would run code or need another library, and say what to do instead."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from gpunn.data.formats.bounded import opened, read_up_to
from gpunn.data.formats.tar import MAGIC
from gpunn.errors import DataError


class Unsupported(NamedTuple):
    """Kind of file, recognised by patterns of its first bytes, unpacked, and of its path."""

    start: bytes
    path: str
    name: str
    mend: str


_PICKLE = rb"\x80[\1-\5]|[}\])]q\0|\(?\(?c[A-Za-z_.0-9]+\n[A-Za-z_]+\n(?:p\d+\n|q|\()|\([ld]p\d+\n"
_SAVE = "np.savez(path, x=x, y=y)"
_CIFAR = "get the binary version, cifar-{0}-binary.tar.gz, or name the data cifar-{0}, which gets it"
UNSUPPORTED = (
    Unsupported(
        _PICKLE, r"mnist[^/]*$", "a pickle, as M. Nielsen's book has MNIST", "name the data mnist, the same digits"
    ),
    Unsupported(_PICKLE, r"(data_batch_\d|test_batch|batches\.meta)$", "a pickle of CIFAR-10", _CIFAR.format(10)),
    Unsupported(_PICKLE, r"cifar-100-python", "a pickle of CIFAR-100", _CIFAR.format(100)),
    Unsupported(_PICKLE, r"\.pth?$", "a pickle of PyTorch", f"save its tensors by {_SAVE}"),
    Unsupported(
        _PICKLE, "", "a pickle, which could run any program", f"if you trust it, load it and save its arrays, {_SAVE}"
    ),
    Unsupported(
        rb"MATLAB",
        r"_32x32\.mat$",
        "a MATLAB file, as SVHN has them",
        "m = scipy.io.loadmat(path); np.savez(path, x=np.moveaxis(m['X'], 3, 0), y=m['y'] % 10)",
    ),
    Unsupported(rb"MATLAB", r"emnist", "a MATLAB file of EMNIST", "get its binary version, the IDX files in gzip.zip"),
    Unsupported(rb"MATLAB", "", "a MATLAB file", f"load it by scipy.io.loadmat and save its arrays, {_SAVE}"),
    Unsupported(rb"\x89HDF", "", "an HDF5 file", f"take its arrays by h5py.File(path)[key][:] and save them, {_SAVE}"),
    Unsupported(rb"\x93NUMPY", "", "an array of NumPy (.npy), without targets", f"save both, {_SAVE}"),
)
_IN_ZIP = {
    "data.pkl": ("a file of PyTorch", f"load it by torch.load(path, weights_only=True) and save its tensors, {_SAVE}"),
    "workbook.xml": ("an Excel workbook", "save the sheet as CSV"),
}
_PYTHON_CIFAR = re.compile(r"cifar-(10|100)-(?:batches-py|python)")


def unsupported_file(path: Path) -> tuple[str, str] | None:
    """Return the name and the mend of an unsupported file; None for an unknown one."""
    try:
        with opened(path) as (stream, _):
            start = bytes(read_up_to(stream, 512))
    except DataError:
        return None  # damaged gzip
    if start[MAGIC[0]].startswith(MAGIC[1]):
        found = _PYTHON_CIFAR.search(start[:100].decode("latin-1") + path.name)
        mend = _CIFAR.format(found[1]) if found else "unpack it, and give its folder"
        return f"an archive of {'pickles' if found else 'other files'}", mend
    kinds = (kind for kind in UNSUPPORTED if re.match(kind.start, start) and re.search(kind.path, path.as_posix()))
    return next(((kind.name, kind.mend) for kind in kinds), None)


def unsupported_folder(folder: Path) -> tuple[str, str] | None:
    """Return the name and the mend of a folder of pickles; None for any other."""
    is_100 = all((folder / name).is_file() for name in ("meta", "train", "test"))
    if (folder / "data_batch_1").is_file() or is_100:
        return "the python version of CIFAR, which is pickles", _CIFAR.format(100 if is_100 else 10)
    return None


def unsupported_zip(names: Collection[str]) -> tuple[str, str] | None:
    """Return the name and the mend of a zip without arrays, by the names in it."""
    for ending, found in _IN_ZIP.items():
        if any(name.endswith(ending) for name in names):
            return found
    return ("a zip of other files", "unpack it, and give its folder") if names else None
