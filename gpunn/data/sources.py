"""Data sets with a name: the bundled digits, and published sets, downloaded mirror after mirror and checked.

Source of the digits: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository, 1998, https://doi.org/10.24432/C50P49, CC BY 4.0; see digits/README.md.
"""

import hashlib
import io
import logging
import math
import stat
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpunn.data.dataset import stratified_split
from gpunn.data.formats.bounded import GZIP_MAGIC, Gunzip, read_up_to
from gpunn.data.formats.idx import idx_header, read_images, read_labels
from gpunn.data.samples import Samples
from gpunn.errors import DataError, OutputError
from gpunn.files import write_atomically

log = logging.getLogger(__name__)

CONNECT_SECONDS, READ_SECONDS = 10.0, 30.0
_SPARE = 1 << 20  # bytes that a server may send beyond the content of a file, unpacked or in a poor wrapper

DIGITS = tuple("0123456789")
FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
_FOLDER = Path(__file__).parent / "digits"
DIGIT_IMAGES, DIGIT_LABELS = _FOLDER / "digits-images-idx3-ubyte.gz", _FOLDER / "digits-labels-idx1-ubyte.gz"
# Not the user's seed: results are comparable only if all are measured on the same images.
_TEST_COUNT, _TEST_SEED = 360, 1797


def read_digits(part: int) -> Samples:
    """Return the 1,437 digits to learn from (part 0) or the 360 of the test set (part 1), (n, 8, 8, 1)."""
    labels = read_labels(DIGIT_LABELS)
    indices = stratified_split(labels, _TEST_COUNT, _TEST_SEED)[part]
    return Samples(read_images(DIGIT_IMAGES)[indices], labels[indices], 1 / 16, len(DIGITS))


@dataclass(frozen=True)
class PublishedFile:
    """One IDX file of a published set, with the hash of its content, or of the archive where only that is known."""

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


def download(published: PublishedSet, folder: Path, mirrors: Sequence[str] | None = None) -> tuple[Path, ...]:
    """Put the missing files of a published set into a folder, each only when it is whole and checked."""
    order = list(published.mirrors if mirrors is None else mirrors)
    try:
        _make_shared(folder)
        return tuple(file.find(folder) or _fetch(published, file, order, folder) for file in published.files)
    except OSError as error:
        reason = error.__cause__ if isinstance(error, OutputError) else error
        wrong = f"cannot be written ({getattr(reason, 'strerror', '') or reason}): make room or give rights there"
        mend = "put the files into a folder that the environment variable GPUNN_DATA names"
        raise OutputError(f"{folder}: {wrong}, or {mend}") from None


def _make_shared(folder: Path) -> None:
    """Make a folder with the rights of its parent: in a cache that all may write to, all may write to it."""
    if folder.is_dir():
        return
    _make_shared(folder.parent)
    folder.mkdir(exist_ok=True)
    if (mode := folder.parent.stat().st_mode) & stat.S_IWOTH:
        folder.chmod(stat.S_IMODE(mode))


def _fetch(published: PublishedSet, file: PublishedFile, mirrors: list[str], folder: Path) -> Path:
    """Fetch a file from the first mirror that has it; a mirror that fails goes to the end of the list."""
    reasons = []
    for mirror in tuple(mirrors):
        try:
            content = _content(_received(f"{mirror}{file.stem}.gz", file), file)
        except DataError as error:
            reasons.append(f"{mirror} {error}")
            mirrors.append(mirrors.pop(mirrors.index(mirror)))
        else:
            write_atomically(folder / file.stem, content)
            return folder / file.stem
    name, why = published.name, "; ".join(reasons) or "no mirror is known"
    mend = f"that the environment variable GPUNN_DATA names, or into its subfolder {name}"
    wrong = f"{name} needs {file.stem}.gz, which is not on this machine and could not be downloaded ({why})"
    raise DataError(f"{wrong}: put the four files into {folder}, or into a folder {mend}")


class _Bounded(io.BytesIO):
    """Memory that takes no more than a file should hold."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def write(self, chunk: bytes, /) -> int:  # type: ignore[override]
        if self.tell() + len(chunk) > self._limit:
            raise DataError("sent more than the file holds")
        return super().write(chunk)


def _received(url: str, file: PublishedFile) -> bytes:
    from pooch import HTTPDownloader
    from tqdm import tqdm

    log.info("downloading %s", url)
    with tqdm(total=file.size, desc=file.stem, unit="B", unit_scale=True, leave=False, disable=None) as bar:
        get = HTTPDownloader(progressbar=bar, chunk_size=1 << 16, timeout=(CONNECT_SECONDS, READ_SECONDS))
        try:
            get(url, received := _Bounded(file.size + _SPARE), None)
        except DataError:
            raise
        except (OSError, ValueError) as error:  # requests' errors are OSErrors, a nonsensical header is a ValueError
            if (response := getattr(error, "response", None)) is not None:
                raise DataError(f"answered {response.status_code} {response.reason}") from None
            kind = type(error).__name__
            raise DataError(_REASONS.get(kind, f"failed ({kind})").format(CONNECT_SECONDS, READ_SECONDS)) from None
    return received.getvalue()


# Short reasons by the classes of requests' errors, whose texts tell the whole chain below them.
_REASONS = {
    "ConnectionError": "cannot be reached",
    "ConnectTimeout": "did not answer within {0:g} s",
    "ReadTimeout": "fell silent for {1:g} s",
    "ChunkedEncodingError": "broke off",
    "SSLError": "has no valid certificate",
    "ProxyError": "cannot be reached through the proxy",
}


def _content(received: bytes, file: PublishedFile) -> bytes:
    """Unpack a received file, no further than it should be long, and check it."""
    is_packed, expected, header = received.startswith(GZIP_MAGIC), file.size, idx_header(np.uint8, file.shape)
    stream = io.BytesIO(received)
    try:
        content = bytes(read_up_to(Gunzip(stream) if is_packed else stream, expected + 1))
    except (EOFError, zlib.error) as error:
        raise DataError(f"sent a damaged gzip stream ({error})") from None
    if content and not content.startswith(header):
        start = content[: len(header)].hex(" ")
        raise DataError(f"sent something else (expected the start {header.hex(' ')}, got {start})")
    if len(content) != expected:
        many = f"more than {expected:,}" if len(content) > expected else f"{len(content):,}"
        raise DataError(f"sent {many} bytes (unpacked), expected {expected:,}")
    if not file.sha256 and not is_packed:
        unchecked = "its header and size are right, but only the hash of the archive is known"
        log.warning("%s came unpacked: %s, so its content is not checked", file.stem, unchecked)
        return content
    what, known = ("content", file.sha256) if file.sha256 else ("archive", file.archive_sha256)
    if (got := hashlib.sha256(content if file.sha256 else received).hexdigest()) != known:
        raise DataError(f"sent a wrong {what} (SHA-256 {got[:12]}..., expected {known[:12]}...)")
    return content
