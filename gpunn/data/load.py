"""Load data by name, from a folder or from a file; published sets are downloaded, mirror after mirror, and checked.

Source of the digits: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository, 1998, https://doi.org/10.24432/C50P49, CC BY 4.0; see digits/README.md.
"""

import hashlib
import io
import logging
import math
import os
import stat
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.data.dataset import Data, stratified_split
from gpunn.data.formats.bounded import GZIP_MAGIC, Gunzip, read_up_to
from gpunn.data.formats.idx import idx_header, read_images, read_labels
from gpunn.data.formats.inputs import kind_of_file
from gpunn.data.samples import Samples
from gpunn.errors import DataError, OptionError, OutputError
from gpunn.files import write_atomically
from gpunn.scalars import flag

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
NAMES = ("digits", *PUBLISHED)


def load_data(
    source: str | PathLike[str] | Data = "digits",
    *,
    validation: float | str = 0.1,
    limit: int | None = None,
    seed: int = 0,
    memory_map: bool | None = None,
) -> Data:
    """Load data and split them into training and validation; the test set stays closed until `.test` is read.

    Args:
        source: "digits" (bundled), "mnist" or "fashion-mnist" (GPUNN_DATA, the user's cache, or downloaded); a folder
            with the four IDX files ("./mnist" where it has the name of a set); a .npz file; or Data, given back.
        validation: Fraction (0.1) or count (5000) of samples to validate on; 0 for none; "test" for the test set.
        limit: Number of training samples to keep, before the split; left out, all.
        seed: Seed of the split, which depends on nothing else but the labels.
        memory_map: Whether the inputs stay in their file, so that they may be larger than memory: rows are read in use.
            Left out, those of 1 GiB and more do where the file is not compressed.

    Returns:
        Data with `.train`, `.validation` and `.test`.

    Raises:
        OptionError: Unknown name; validation, limit or seed out of range.
        DataError: Missing, damaged or unfit files, no network, or a compressed file that is to be memory-mapped.
        OutputError: The user's cache cannot be written.
    """
    if isinstance(source, Data):
        return source
    if memory_map is not None:
        memory_map = flag(memory_map, "memory_map")
    split: dict[str, Any] = {"validation": validation, "limit": limit, "seed": seed}
    if isinstance(source, str) and source == "digits":
        if memory_map:
            raise OptionError("the bundled digits are compressed and cannot be memory-mapped: leave memory_map out")
        return Data.from_samples(read_digits(0), test=partial(read_digits, 1), class_names=DIGITS, name=source, **split)
    if isinstance(source, str) and source in PUBLISHED:
        return _published(PUBLISHED[source], split, memory_map)
    known = ", ".join(NAMES)
    if not isinstance(source, str | PathLike) or not str(source):
        got = f"{type(source).__name__}{' (empty)' if isinstance(source, str) else ''}"
        kinds = f"a name ({known}), a folder or a .npz file"
        raise OptionError(f"data are {kinds}, got {got}: for arrays use Data.from_arrays(x, y)")
    try:
        path, given = Path(source).expanduser().absolute(), os.fspath(source)
        read = _folder if path.is_dir() else _file if path.exists() else None
    except (OSError, RuntimeError) as error:  # a name that is too long, or the home of somebody who is not known
        raise DataError(f"{source}: cannot be looked for ({error}): check the path") from None
    if read is not None:
        return read(path, split, memory_map)
    if os.sep in given or "/" in given or path.suffix:
        raise DataError(f"{path}: there is no such file or folder: check the path, or give one of {known}")
    from difflib import get_close_matches

    near = get_close_matches(given.lower().replace("_", "-"), NAMES, n=1)
    guess = f'did you mean "{near[0]}"?' if near else "check its spelling"
    expected = f"{known}, a folder with the four IDX files, or a .npz file"
    raise OptionError(f'unknown data set "{given}": expected {expected}; {guess}')


def user_cache() -> Path:
    """Return the folder of this user's cache for downloaded sets."""
    import pooch

    try:
        return Path(pooch.os_cache("gpunn"))
    except RuntimeError:  # of a user without a home: nowhere
        return Path(os.devnull, "gpunn")


def _published(published: PublishedSet, split: dict[str, Any], memory_map: bool | None) -> Data:
    """Load the four files in GPUNN_DATA, its subfolder or the cache; a folder that lacks one is passed over."""
    name, names, folders = published.name, published.class_names, list[Path]()
    if named := os.environ.get("GPUNN_DATA"):
        root = Path(named).expanduser().absolute()
        if not root.is_dir():
            log.warning("GPUNN_DATA names %s, which is no folder: it is passed over", root)
        folders = [root / name, root]
    found = (paths for folder in folders if (paths := published.find(folder)))
    paths = next(found, None) or download(published, user_cache() / name)
    train, test = (partial(_half, paths, part, memory_map, len(names), published) for part in (0, 1))
    return Data.from_samples(train(), test=test, class_names=names, name=name, **split)


def _check_published(published: PublishedSet, file: PublishedFile, path: Path, array: NDArray[np.uint8]) -> None:
    """Refuse other content: a name promises comparable results. Own wrappers and file names are welcome."""
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


def _folder(folder: Path, split: dict[str, Any], memory_map: bool | None) -> Data:
    """Load the four IDX files of a folder."""
    paths = {file.stem: path for file in MNIST.files if (path := file.find(folder)) is not None}
    if missing := ", ".join(file.stem for file in MNIST.files if file.stem not in paths):
        below = [str(folder / name) for name in PUBLISHED if PUBLISHED[name].find(folder / name)]
        mend = "put them there, or give a .npz file" + (f"; did you mean {below[0]}?" if below else "")
        raise DataError(f"{folder}: expected four IDX files, {missing} missing (each may end in .gz): {mend}")
    train = _half(tuple(paths.values()), 0, memory_map, -1)
    test = partial(_half, tuple(paths.values()), 1, memory_map, train.classes)
    return Data.from_samples(train, test=test, name=folder.name, **split)


def _half(
    paths: Sequence[Path], part: int, memory_map: bool | None, classes: int, published: PublishedSet | None = None
) -> Samples:
    """Read the images and labels of the training set (part 0) or the test set (part 1); errors name the file."""
    x, y = paths[2 * part :][:2]
    images, labels = read_images(x, memory_map), read_labels(y)
    if published is not None:
        for file, path, array in zip(published.files[2 * part :], (x, y), (images, labels), strict=False):
            _check_published(published, file, path, array)
    if len(images) != len(labels):
        counts = f"{len(images):,} images, {y.name} {len(labels):,} labels"
        raise DataError(f"{x} holds {counts}: get two files that belong together")
    try:
        return Samples(images, labels, 1 / 255, classes)
    except DataError as error:
        raise DataError(f"{y}: {error}") from None


def _file(path: Path, split: dict[str, Any], memory_map: bool | None) -> Data:
    """Load a file that is a whole data set."""
    kind = kind_of_file(path, "check the path")
    if kind.data is None:
        mend = f"give its folder, {path.parent}" if "idx" in path.name else "save it with np.savez(path, x=x, y=y)"
        raise DataError(f"{path}: expected a .npz file, got {kind.name}: {mend}")
    (x, y), test = kind.data(path, memory_map)
    try:
        return Data.from_arrays(x, y, test=test, name=path.stem, **split)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


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
