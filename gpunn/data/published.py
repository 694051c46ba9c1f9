"""List the published sets of IDX files: their names, hashes and servers."""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpunn.data.formats.idx import idx_header
from gpunn.errors import DataError

DIGITS = tuple("0123456789")
FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


@dataclass(frozen=True)
class PublishedFile:
    """IDX file of a published set, with the hash of its content, or of its archive if only that is known."""

    stem: str
    shape: tuple[int, ...]
    sha256: str = ""
    archive_sha256: str = ""

    @property
    def size(self) -> int:
        """Number of bytes of the unpacked file."""
        return 4 + 4 * len(self.shape) + math.prod(self.shape)

    def find(self, folder: Path) -> Path | None:
        """Find the file in a folder, as published or like `train-images.idx3-ubyte`, with or without .gz."""
        names = (self.stem, f"{self.stem}.gz", other := self.stem.replace("-idx", ".idx"), f"{other}.gz")
        return next((path for name in names if (path := folder / name).is_file()), None)


@dataclass(frozen=True)
class PublishedSet:
    """Named data set: four IDX files, and the servers that have them as `stem.gz`."""

    name: str
    files: tuple[PublishedFile, ...]
    mirrors: tuple[str, ...]
    class_names: tuple[str, ...]

    def find(self, folder: Path) -> tuple[Path, ...] | None:
        """Find all four files in a folder."""
        found = tuple(path for file in self.files if (path := file.find(folder)) is not None)
        return found if len(found) == len(self.files) else None


def _files(kind: str, *hashes: str) -> tuple[PublishedFile, ...]:
    stems = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    shapes = ((60_000, 28, 28), (60_000,), (10_000, 28, 28), (10_000,))
    return tuple(PublishedFile(s, n, **{kind: digest}) for s, n, digest in zip(stems, shapes, hashes, strict=True))


MNIST = PublishedSet(
    "mnist",
    _files(
        "sha256",
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
    DIGITS,
)
FASHION_MNIST = PublishedSet(
    "fashion-mnist",
    _files(
        "archive_sha256",  # there is one version of each; their MD5 is in the README of Fashion-MNIST
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    ),
    ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
    FASHION,
)
PUBLISHED = {published.name: published for published in (MNIST, FASHION_MNIST)}


def check_published(published: PublishedSet, file: PublishedFile, path: Path, array: NDArray[np.uint8]) -> None:
    """Check shape and hash of a file: a name promises comparable results. Its name and its compression are free."""
    name, mend = published.name, f'get it again, or load your own version by its folder, "{path.parent}"'
    if array.shape not in (file.shape, (*file.shape, 1)):
        raise DataError(f"{path}: expected {file.shape} as {name} has it, got {array.shape}: {mend}")
    digest = hashlib.sha256(idx_header(np.uint8, file.shape))
    digest.update(np.ascontiguousarray(array).data)
    got, own = digest.hexdigest(), file.sha256
    for other in PUBLISHED:
        if other != name and any(got == known.sha256 for known in PUBLISHED[other].files):
            folders = f"let GPUNN_DATA name a folder with the subfolders {other} and {name}"
            raise DataError(f"{path}: this file is of {other}, expected {name}: {folders}")
    if own and got != own:
        hashes = f"SHA-256 of its content {got[:12]}..., expected {own[:12]}..."
        raise DataError(f"{path}: not the file that {name} was published with ({hashes}): {mend}")
