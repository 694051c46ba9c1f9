"""Read the binary versions of CIFAR-10 and CIFAR-100 from a folder or an archive, checked by size.

A sample is its labels, a byte each, and 3,072 bytes, the red, green and blue planes of 32 × 32 pixels.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009,
https://www.cs.toronto.edu/~kriz/cifar.html, which gives the MD5 of the archives.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from gpunn.backend.limits import require
from gpunn.data.formats.bounded import opened, read_up_to
from gpunn.data.formats.parts import Pair, Parts
from gpunn.data.formats.tar import read_members
from gpunn.errors import DataError

SIDE, PLANES = 32, 3
_PIXELS = PLANES * SIDE * SIDE
_SERVER = "https://www.cs.toronto.edu/~kriz/"


@dataclass(frozen=True)
class CifarSet:
    """Binary version of CIFAR: its files, and which label of a sample is the target."""

    name: str
    train_files: tuple[str, ...]
    test_file: str
    train_count: int
    test_count: int
    class_names: tuple[str, ...]
    md5: str  # of the archive; there are no published hashes of its files
    folder: str  # in the archive
    archive: str
    labels: int = 1
    label: int = 0
    mirrors: tuple[str, ...] = (_SERVER,)

    @property
    def sizes(self) -> dict[str, int]:
        """Number of bytes of each file."""
        counts = dict.fromkeys(self.train_files, self.train_count // len(self.train_files))
        counts[self.test_file] = self.test_count
        return {name: count * (self.labels + _PIXELS) for name, count in counts.items()}

    def find(self, folder: Path) -> Path | None:
        """Find the folder with all files, or the archive, in a folder."""
        for place in (folder, folder / self.folder):
            if all((place / name).is_file() for name in self.sizes):
                return place
        return archive if (archive := folder / self.archive).is_file() else None

    def parts(self, place: Path, *, is_published: bool = False) -> Parts:
        """Read the training set of a folder or archive; `is_published` checks the MD5 of an archive."""
        if place.is_dir():
            train = self._pair([_file(place, name, self.sizes[name]) for name in self.train_files])
            read_test = partial(_file, place, self.test_file, self.sizes[self.test_file])
        else:
            if is_published and (got := _md5(place)) != self.md5:
                mend = f"get it again, or load your own version by its path, {place}"
                raise DataError(f"{place}: not the archive that {self.name} was published as (MD5 {got}): {mend}")
            # All at once, since the archive must be unpacked from its beginning to find the test set.
            members = read_members(place, self.sizes)
            train = self._pair([members.pop(name) for name in self.train_files])
            read_test = partial(members.__getitem__, self.test_file)
        return Parts(train, None, lambda: self._pair([read_test()]), self.class_names)

    def _pair(self, contents: Sequence[bytes]) -> Pair:
        """Return images (n, 32, 32, 3) and labels (n,) from the contents of files."""
        size = self.labels + _PIXELS
        count = sum(map(len, contents)) // size
        require(count * _PIXELS, self.name)
        images, labels = np.empty((count, SIDE, SIDE, PLANES), np.uint8), np.empty(count, np.uint8)
        start = 0
        for content in contents:
            rows = np.frombuffer(content, np.uint8).reshape(-1, size)
            here = slice(start, start := start + len(rows))
            images[here] = rows[:, self.labels :].reshape(-1, PLANES, SIDE, SIDE).transpose(0, 2, 3, 1)
            labels[here] = rows[:, self.label]
        return images, labels


def _file(folder: Path, name: str, size: int) -> bytes:
    with opened(folder / name) as (stream, _):
        content = bytes(read_up_to(stream, size + 1))
    if len(content) != size:
        got = f"{len(content):,}" if len(content) < size else "more"
        raise DataError(f"{folder / name}: expected {size:,} bytes, got {got}: get the file again")
    return content


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).hexdigest()


CIFAR_10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_COARSE = """
    aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices
    household_furniture insects large_carnivores large_man-made_outdoor_things large_natural_outdoor_scenes
    large_omnivores_and_herbivores medium_mammals non-insect_invertebrates people reptiles small_mammals trees
    vehicles_1 vehicles_2
"""
_FINE = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
    flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
    motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
    poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm
"""
CIFAR_100_FINE, CIFAR_100_COARSE = tuple(_FINE.split()), tuple(_COARSE.split())
CIFAR_10 = CifarSet(
    "cifar-10",
    tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    "test_batch.bin",
    50_000,
    10_000,
    CIFAR_10_CLASSES,
    "c32a1d4ab5d03f1284b67883e8d87530",
    "cifar-10-batches-bin",
    "cifar-10-binary.tar.gz",
)
_OF_100 = ("03b5dce01913d631647c71ecec9e9cb8", "cifar-100-binary", "cifar-100-binary.tar.gz", 2)
_FILES_OF_100 = (("train.bin",), "test.bin", 50_000, 10_000)
CIFAR_100 = CifarSet("cifar-100", *_FILES_OF_100, CIFAR_100_FINE, *_OF_100, label=1)
CIFAR_100_BY_COARSE = CifarSet("cifar-100-coarse", *_FILES_OF_100, CIFAR_100_COARSE, *_OF_100, label=0)
CIFAR = {known.name: known for known in (CIFAR_10, CIFAR_100, CIFAR_100_BY_COARSE)}
