"""Download published sets, mirror after mirror; keep a file only when it is complete and checked."""

import fcntl
import hashlib
import io
import logging
import os
import stat
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np

from gpunn.data.cifar import CifarSet
from gpunn.data.formats.bounded import GZIP_MAGIC, Gunzip, read_up_to
from gpunn.data.formats.idx import idx_header
from gpunn.data.formats.tar import members_of
from gpunn.data.published import PublishedFile, PublishedSet
from gpunn.errors import DataError, OutputError
from gpunn.files import write_atomically

log = logging.getLogger(__name__)

_OR_NAMED = "or into a folder that the environment variable GPUNN_DATA names"
CONNECT_SECONDS, READ_SECONDS = 10.0, 30.0
_offline: ContextVar[bool] = ContextVar("offline", default=False)
_SPARE = 1 << 20  # bytes that a server may send beyond the content of a file, unpacked or in a poor wrapper


def user_cache() -> Path:
    """Return the folder of this user's cache for downloaded sets."""
    try:
        return Path(_pooch().os_cache("gpunn"))
    except RuntimeError:  # of a user without a home: nowhere
        return Path(os.devnull, "gpunn")


def _pooch() -> Any:
    """Import pooch without the warning that a notebook lacks widgets for its progress bar, which is never shown."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        import pooch
    return pooch


@contextmanager
def offline() -> Iterator[None]:
    """Forbid downloads in this thread: data that are not on this machine raise a DataError."""
    token = _offline.set(True)
    try:
        yield
    finally:
        _offline.reset(token)


def _check_allowed(name: str) -> None:
    if _offline.get():
        mend = "let GPUNN_DATA name the folder that has them"
        raise DataError(f"the data {name} are not on this machine, and nothing is downloaded here: {mend}")


def download(published: PublishedSet, folder: Path, mirrors: Sequence[str] | None = None) -> tuple[Path, ...]:
    """Download the missing files of a published set into a folder, each only when complete and checked."""
    _check_allowed(published.name)
    order = list(published.mirrors if mirrors is None else mirrors)
    with _writing(folder), _alone(folder):
        return tuple(file.find(folder) or _fetch(published, file, order, folder) for file in published.files)


def download_archive(known: CifarSet, folder: Path, mirrors: Sequence[str] | None = None) -> Path:
    """Download a published archive, check it, and unpack its files into a folder."""
    _check_allowed(known.name)
    archive, order = known.archive, list(known.mirrors if mirrors is None else mirrors)

    def fetch(mirror: str) -> bytes:
        received = receive(f"{mirror}{archive}", archive, sum(known.sizes.values()))
        if (got := hashlib.md5(received, usedforsecurity=False).hexdigest()) != known.md5:
            raise DataError(f"sent a wrong archive (MD5 {got[:12]}..., expected {known.md5[:12]}...)")
        return received

    mend = f"put it, or its files, into {folder}, {_OR_NAMED}"
    with _writing(folder), _alone(folder):
        if (place := known.find(folder)) is not None:  # another process has downloaded it meanwhile
            return place
        received = _from_mirrors(order, fetch, f"{known.name} needs {archive}", mend)
        for name, content in members_of(Gunzip(io.BytesIO(received)), known.sizes, Path(archive)).items():
            write_atomically(folder / name, content)
    return folder


def _from_mirrors(mirrors: list[str], fetch: Callable[[str], bytes], needs: str, mend: str) -> bytes:
    """Fetch bytes from the first mirror that has them; move a mirror that fails to the end of the list."""
    reasons = []
    for mirror in tuple(mirrors):
        try:
            return fetch(mirror)
        except DataError as error:
            reasons.append(f"{mirror} {error}")
            mirrors.append(mirrors.pop(mirrors.index(mirror)))
    wrong = f"{needs}, which is not on this machine and could not be downloaded"
    raise DataError(f"{wrong} ({'; '.join(reasons) or 'no mirror is known'}): {mend}")


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Make the folder; say in an OutputError how to mend one that cannot be written."""
    try:
        make_shared(folder)
        yield
    except OSError as error:
        reason = error.__cause__ if isinstance(error, OutputError) else error
        wrong = f"cannot be written ({getattr(reason, 'strerror', '') or reason}): make room or give rights there"
        mend = "put the files into a folder that the environment variable GPUNN_DATA names"
        raise OutputError(f"{folder}: {wrong}, or {mend}") from None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process, such as another rank, downloads into a folder; go on at once if it has no locks."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.warning("another process downloads into %s: waiting for it", folder)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def make_shared(folder: Path) -> None:
    """Make a folder, writable by all users if its parent is."""
    if folder.is_dir():
        return
    make_shared(folder.parent)
    folder.mkdir(exist_ok=True)
    if (mode := folder.parent.stat().st_mode) & stat.S_IWOTH:
        folder.chmod(stat.S_IMODE(mode))


def _fetch(published: PublishedSet, file: PublishedFile, mirrors: list[str], folder: Path) -> Path:
    """Download a file of a published set into a folder."""

    def fetch(mirror: str) -> bytes:
        return _content(receive(f"{mirror}{file.stem}.gz", file.stem, file.size), file)

    name, needs = published.name, f"{published.name} needs {file.stem}.gz"
    mend = f"put the four files into {folder}, {_OR_NAMED}, or into its subfolder {name}"
    write_atomically(folder / file.stem, _from_mirrors(mirrors, fetch, needs, mend))
    return folder / file.stem


class _Bounded(io.BytesIO):
    """Collect bytes, no more than a file should hold."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def write(self, chunk: bytes, /) -> int:  # type: ignore[override]
        if self.tell() + len(chunk) > self._limit:
            raise DataError("sent more than the file holds")
        return super().write(chunk)


def receive(url: str, name: str, size: int) -> bytes:
    """Download from a URL, at most a little more than `size` bytes; raise DataError with a short reason."""
    from tqdm import tqdm

    log.info("downloading %s", url)
    with tqdm(total=size, desc=name, unit="B", unit_scale=True, leave=False, disable=None) as bar:
        get = _pooch().HTTPDownloader(progressbar=bar, chunk_size=1 << 16, timeout=(CONNECT_SECONDS, READ_SECONDS))
        try:
            get(url, received := _Bounded(size + _SPARE), None)
        except DataError:
            raise
        except (OSError, ValueError) as error:  # requests' errors are OSErrors, a nonsensical header is a ValueError
            if (response := getattr(error, "response", None)) is not None:
                response.close()
                raise DataError(f"answered {response.status_code} {response.reason}") from None
            kind = type(error).__name__
            raise DataError(_REASONS.get(kind, f"failed ({kind})").format(CONNECT_SECONDS, READ_SECONDS)) from None
    return received.getvalue()


# Short reasons by class of requests' errors, whose own texts tell the whole chain of causes.
_REASONS = {
    "ConnectionError": "cannot be reached",
    "ConnectTimeout": "did not answer within {0:g} s",
    "ReadTimeout": "fell silent for {1:g} s",
    "ChunkedEncodingError": "broke off",
    "SSLError": "has no valid certificate",
    "ProxyError": "cannot be reached through the proxy",
}


def _content(received: bytes, file: PublishedFile) -> bytes:
    """Unpack a received file, at most to its expected length, and check it."""
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
