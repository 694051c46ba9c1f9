"""What is known of the published data sets: where they are, how large, their hashes, whose they are."""

from dataclasses import dataclass
from pathlib import Path

FASHION_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


@dataclass(frozen=True)
class PublishedFile:
    """One IDX file of a published set.

    Attributes:
        stem: its published name, without .gz.
        shape: what its header says.
        sha256: of the unpacked file, or "" where it is not known.
        archive_sha256: of the published .gz, or "" where everybody has a wrapper of their own.
    """

    stem: str
    shape: tuple[int, ...]
    sha256: str = ""
    archive_sha256: str = ""

    def find(self, folder: Path) -> Path | None:
        """The file in a folder, under its name or `train-images.idx3-ubyte`, with or without .gz; or None."""
        head, _, tail = self.stem.rpartition("-idx")
        for name in (self.stem, f"{head}.idx{tail}"):
            for suffix in ("", ".gz"):
                path = folder / (name + suffix)
                if path.is_file():
                    return path
        return None


@dataclass(frozen=True)
class PublishedSet:
    """A data set with a name: four IDX files, and the servers that have them as `stem.gz`."""

    name: str
    files: tuple[PublishedFile, PublishedFile, PublishedFile, PublishedFile]
    mirrors: tuple[str, ...]
    class_names: tuple[str, ...]

    def find(self, folder: Path) -> tuple[Path, ...] | None:
        """All four files in a folder, or None."""
        found = [file.find(folder) for file in self.files]
        present = tuple(path for path in found if path is not None)
        return present if len(present) == len(self.files) else None


TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"

# Hashes of the unpacked files, since copies of MNIST differ in their gzip wrappers.
MNIST = PublishedSet(
    name="mnist",
    files=(
        PublishedFile(
            TRAIN_IMAGES,
            (60_000, 28, 28),
            sha256="ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ),
        PublishedFile(
            TRAIN_LABELS,
            (60_000,),
            sha256="65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
        PublishedFile(
            TEST_IMAGES,
            (10_000, 28, 28),
            sha256="0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        ),
        PublishedFile(
            TEST_LABELS,
            (10_000,),
            sha256="ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    class_names=tuple("0123456789"),
)

# Hashes of the archives, of which there is one version (their MD5 is in the README of Fashion-MNIST).
FASHION_MNIST = PublishedSet(
    name="fashion-mnist",
    files=(
        PublishedFile(
            TRAIN_IMAGES,
            (60_000, 28, 28),
            archive_sha256="3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        ),
        PublishedFile(
            TRAIN_LABELS,
            (60_000,),
            archive_sha256="a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        ),
        PublishedFile(
            TEST_IMAGES,
            (10_000, 28, 28),
            archive_sha256="346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        ),
        PublishedFile(
            TEST_LABELS,
            (10_000,),
            archive_sha256="67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
    ),
    mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
    class_names=FASHION_NAMES,
)

PUBLISHED = {MNIST.name: MNIST, FASHION_MNIST.name: FASHION_MNIST}
