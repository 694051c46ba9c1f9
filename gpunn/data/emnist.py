"""Read EMNIST, handwritten letters and digits in six splits, each of four IDX files with transposed images.

Source: G. Cohen, S. Afshar, J. Tapson, A. van Schaik, "EMNIST: an extension of MNIST to handwritten letters", 2017,
https://www.nist.gov/itl/products-and-services/emnist-dataset. There are no published hashes: counts, shapes and ranges
are checked.
"""

import string
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpunn.backend.limits import require
from gpunn.data.formats.idx import check_counts, read_images, read_labels
from gpunn.data.formats.parts import Pair, Parts
from gpunn.data.published import PublishedFile
from gpunn.errors import DataError

PAGE = "https://www.nist.gov/itl/products-and-services/emnist-dataset"
SIDE = 28
_PARTS = ("train", "test")


@dataclass(frozen=True)
class EmnistSplit:
    """Split of EMNIST, with the numbers of training and test samples in its versions."""

    name: str
    class_names: tuple[str, ...]
    counts: tuple[tuple[int, int], ...]
    first_label: int = 0

    def files(self, part: str) -> tuple[PublishedFile, PublishedFile]:
        """Return the files of images and labels of a part."""
        stem = f"{self.name}-{part}"
        return PublishedFile(f"{stem}-images-idx3-ubyte", ()), PublishedFile(f"{stem}-labels-idx1-ubyte", ())

    def find(self, folder: Path) -> Path | None:
        """Find the folder with all four files: this one, or `gzip` in it, as the published zip has it."""
        return next((place for place in (folder, folder / "gzip") if self._has_all(place)), None)

    def _has_all(self, folder: Path) -> bool:
        return all(file.find(folder) for part in _PARTS for file in self.files(part))

    def parts(self, folder: Path, *, is_published: bool = False) -> Parts:
        """Read the split; `is_published` checks the numbers of samples."""
        train, test = ({counts[part] for counts in self.counts if is_published} for part in (0, 1))
        pair = self._pair(folder, "train", train)
        return Parts(pair, None, lambda: self._pair(folder, "test", test), self.class_names)

    def _pair(self, folder: Path, part: str, counts: set[int]) -> Pair:
        x, y = (path for file in self.files(part) if (path := file.find(folder)) is not None)
        images, labels = read_images(x), read_labels(y)
        if images.shape[1:] != (SIDE, SIDE, 1):
            raise DataError(f"{x}: expected images of {SIDE} × {SIDE}, got {images.shape}: get the file again")
        if counts and len(images) not in counts:
            mend = f"get it again, or load your own version by its folder, {folder}"
            raise DataError(f"{x}: expected {' or '.join(map(str, counts))} images, got {len(images)}: {mend}")
        check_counts(x, images, y, labels)
        low, high = int(labels.min()), int(labels.max())
        last = self.first_label + len(self.class_names) - 1
        if low < self.first_label or high > last:
            wrong = low if low < self.first_label else high
            raise DataError(f"{y}: expected labels from {self.first_label} to {last}, got {wrong}: get the file again")
        require(images.nbytes, f"{self.name}, upright")
        return np.ascontiguousarray(images.transpose(0, 2, 1, 3)), labels - np.uint8(self.first_label)


_DIGITS, _UPPER, _LOWER = tuple(string.digits), tuple(string.ascii_uppercase), tuple(string.ascii_lowercase)
_MERGED = (*_DIGITS, *_UPPER, *"abdefghnqrt")  # the other small letters look like capitals and are merged with them
_ALL = (*_DIGITS, *_UPPER, *_LOWER)
EMNIST = {
    split.name: split
    for split in (
        EmnistSplit("emnist-balanced", _MERGED, ((112_800, 18_800),)),
        EmnistSplit("emnist-byclass", _ALL, ((697_932, 116_323),)),
        EmnistSplit("emnist-bymerge", _MERGED, ((697_932, 116_323),)),
        EmnistSplit("emnist-digits", _DIGITS, ((240_000, 40_000),)),
        EmnistSplit("emnist-letters", _UPPER, ((124_800, 20_800), (88_800, 14_800)), first_label=1),
        EmnistSplit("emnist-mnist", _DIGITS, ((60_000, 10_000),)),
    )
}
