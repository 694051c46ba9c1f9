"""Data sets with a name: the bundled digits, and where published sets are, how large, with which hashes.

Source of the digits: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository, 1998, https://doi.org/10.24432/C50P49, CC BY 4.0; see digits/README.md.
"""

from dataclasses import dataclass
from pathlib import Path

from gpunn.data.formats.idx import read_images, read_labels
from gpunn.data.samples import Samples
from gpunn.data.split import stratified_split

DIGITS = tuple("0123456789")
FASHION = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
DIGIT_IMAGES, DIGIT_LABELS = (
    Path(__file__).parent / "digits" / f"digits-{name}-ubyte.gz" for name in ("images-idx3", "labels-idx1")
)
# Not the user's seed: results are comparable only if all are measured on the same images.
_TEST_COUNT, _TEST_SEED = 360, 1797


def read_digits(part: int) -> Samples:
    """Return the 1,437 digits to learn from (part 0) or the 360 of the test set (part 1), (n, 8, 8, 1)."""
    labels = read_labels(DIGIT_LABELS)
    indices = stratified_split(labels, _TEST_COUNT, _TEST_SEED)[part]
    return Samples(read_images(DIGIT_IMAGES)[indices], labels[indices], 1 / 16, len(DIGITS))


@dataclass(frozen=True)
class PublishedFile:
    """One IDX file of a published set.

    Attributes:
        stem: Published name without .gz.
        shape: Sizes in its header.
        sha256: Hash of the unpacked file, or "" where only that of the archive is known.
        archive_sha256: Hash of the published .gz, or "" where copies differ in their wrapper.
    """

    stem: str
    shape: tuple[int, ...]
    sha256: str = ""
    archive_sha256: str = ""

    def find(self, folder: Path) -> Path | None:
        """Find the file in a folder, as published or like `train-images.idx3-ubyte`, with or without .gz."""
        names = (self.stem, self.stem.replace("-idx", ".idx"))
        paths = (folder / (name + suffix) for name in names for suffix in ("", ".gz"))
        return next((path for path in paths if path.is_file()), None)


@dataclass(frozen=True)
class PublishedSet:
    """A data set with a name: four IDX files, and the servers that have them as `stem.gz`."""

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
    rows = zip(stems, shapes, hashes, strict=True)
    return tuple(PublishedFile(stem, shape, **{kind: digest}) for stem, shape, digest in rows)


MNIST = PublishedSet(
    "mnist",
    _files(
        "sha256",
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
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
