"""Published data sets from their servers: mirror after mirror, checked, unpacked within bounds."""

import hashlib
import logging
import math
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from gpunn.data.formats.bounded import opened
from gpunn.data.formats.idx import idx_header
from gpunn.data.sources import PublishedFile, PublishedSet
from gpunn.errors import DataError, OutputError

log = logging.getLogger(__name__)

CONNECT_SECONDS, READ_SECONDS = 10.0, 30.0
_CHUNK = 1 << 16
# A server may send a file unpacked, or in a poor wrapper, but hardly more than its content.
_SPARE = 1 << 20


def download(published: PublishedSet, folder: Path, mirrors: Sequence[str] | None = None) -> tuple[Path, ...]:
    """Put the files of a published set into a folder, those that are not there yet.

    A file appears under its name only when it is whole and checked: against the SHA-256 of its unpacked bytes
    or of the published archive. Where only the archive's is known and a server hands the file over unpacked,
    its header and size are checked, and a warning is logged.

    Args:
        published: the set.
        folder: made if need be.
        mirrors: addresses that end in "/", instead of the set's own.

    Returns:
        The four paths, in the order of the set's files.

    Raises:
        DataError: no mirror gave a whole, right file; says where the file may be put by hand.
        OutputError: the folder cannot be written.
    """
    order = list(published.mirrors if mirrors is None else mirrors)
    try:
        _make_shared(folder)
        # In the folder itself, so that putting a file in place is a rename.
        with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as scratch:
            return tuple(
                file.find(folder) or _fetch(published, file, order, folder, Path(scratch)) for file in published.files
            )
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise _unwritable(folder, error) from None


def _make_shared(folder: Path) -> None:
    """Make a folder that is open to whom its parent is: of a cache that all may write to, so is what is made in it."""
    if folder.is_dir():
        return
    _make_shared(folder.parent)
    folder.mkdir(exist_ok=True)
    mode = folder.parent.stat().st_mode
    if mode & stat.S_IWOTH:
        folder.chmod(stat.S_IMODE(mode))


def _fetch(published: PublishedSet, file: PublishedFile, mirrors: list[str], folder: Path, scratch: Path) -> Path:
    """One file from the first mirror that has it; a mirror that fails goes to the end of the list."""
    reasons = []
    for mirror in tuple(mirrors):
        received, unpacked = scratch / "received", scratch / "unpacked"
        try:
            _receive(mirror + file.stem + ".gz", received, file)
            _check(received, unpacked, file)
        except (DataError, _RefusedError) as error:
            reasons.append(f"{mirror} {error}".replace(f"{received}: ", ""))
            mirrors.remove(mirror)
            mirrors.append(mirror)
            continue
        return unpacked.replace(folder / file.stem)
    raise DataError(
        f"{published.name} needs {file.stem}.gz, which is not on this machine and could not be downloaded "
        f"({'; '.join(reasons) or 'no mirror is known'}): put the four files into {folder}, or into a folder "
        f"that the environment variable GPUNN_DATA names, or into its subfolder {published.name}"
    )


class _RefusedError(Exception):
    """A server that did not hand over the file."""


class _Bounded:
    """A file that takes no more than it should, so that a server cannot fill the disk."""

    def __init__(self, file: BinaryIO, limit: int, folder: Path) -> None:
        self._file = file
        self._left = limit
        self._folder = folder

    def write(self, chunk: bytes) -> None:
        self._left -= len(chunk)
        if self._left < 0:
            raise _RefusedError("sent more than the file holds")
        try:
            self._file.write(chunk)
        except OSError as error:
            raise _unwritable(self._folder, error) from None

    def flush(self) -> None:
        """Nothing to do: the file is closed, and so flushed, before it is read."""


def _receive(url: str, target: Path, file: PublishedFile) -> None:
    from pooch import HTTPDownloader
    from tqdm import tqdm

    size = _size(file)
    log.info("downloading %s", url)
    with target.open("wb") as raw:
        bar = tqdm(total=size, desc=file.stem, unit="B", unit_scale=True, leave=False, disable=None)
        get = HTTPDownloader(progressbar=bar, chunk_size=_CHUNK, timeout=(CONNECT_SECONDS, READ_SECONDS))
        try:
            get(url, _Bounded(raw, size + _SPARE, target.parent), None)
        except OutputError:
            raise
        # What the libraries below raise: requests' errors are OSErrors, a nonsensical header is a ValueError.
        except (OSError, ValueError) as error:
            raise _RefusedError(_reason(error)) from None
        finally:
            bar.close()


def _check(received: Path, unpacked: Path, file: PublishedFile) -> None:
    """Unpack what came, no further than the file is long, and compare it with what is known of the file."""
    expected = _size(file)
    header = idx_header(np.uint8, file.shape)
    digest = hashlib.sha256()
    size = 0
    # In this order: a disk that turns out to be full at the closing is no fault of the file that is read.
    with unpacked.open("wb") as out, opened(received) as (stream, plain_size):
        while size <= expected and (chunk := stream.read(_CHUNK)):
            if not size and not chunk.startswith(header):
                raise DataError(
                    f"sent something else (expected the start {header.hex(' ')}, got {chunk[: len(header)].hex(' ')})"
                )
            size += len(chunk)
            digest.update(chunk)
            try:
                out.write(chunk)
            except OSError as error:
                raise _unwritable(unpacked.parent, error) from None
    if size != expected:
        many = f"more than {expected:,}" if size > expected else f"{size:,}"
        raise DataError(f"sent {many} bytes (unpacked), expected {expected:,}")
    if file.sha256:
        _compare(digest.hexdigest(), file.sha256, "content")
    elif plain_size is None:
        with received.open("rb") as raw:
            _compare(hashlib.file_digest(raw, "sha256").hexdigest(), file.archive_sha256, "archive")
    else:
        log.warning(
            "%s came unpacked: its header and size are right, but only the hash of the archive is known, so "
            "its content is not checked",
            file.stem,
        )


def _compare(got: str, expected: str, what: str) -> None:
    if got != expected:
        raise DataError(f"sent a wrong {what} (SHA-256 {got[:12]}..., expected {expected[:12]}...)")


def _size(file: PublishedFile) -> int:
    return 4 + 4 * len(file.shape) + math.prod(file.shape)


def _reason(error: Exception) -> str:
    """The short of it: the libraries tell the whole chain of their classes."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"answered {response.status_code} {response.reason}"
    kind = type(error).__name__
    return {
        "ConnectionError": "cannot be reached",
        "ConnectTimeout": f"did not answer within {CONNECT_SECONDS:g} s",
        "ReadTimeout": f"fell silent for {READ_SECONDS:g} s",
        "ChunkedEncodingError": "broke off",
        "SSLError": "has no valid certificate",
        "ProxyError": "cannot be reached through the proxy",
    }.get(kind, f"failed ({kind})")


def _unwritable(folder: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{folder}: cannot be written ({error.strerror or error}): make room or give rights there, or put "
        "the files into a folder that the environment variable GPUNN_DATA names"
    )
