"""Download published data sets: mirror after mirror, checked, unpacked within bounds."""

import hashlib
import io
import logging
import math
import stat
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gpunn.data.formats.bounded import GZIP_MAGIC, Gunzip, read_up_to
from gpunn.data.formats.idx import idx_header
from gpunn.data.sources import PublishedFile, PublishedSet
from gpunn.errors import DataError, OutputError
from gpunn.files import write_atomically

log = logging.getLogger(__name__)

CONNECT_SECONDS, READ_SECONDS = 10.0, 30.0
# A server may send a file unpacked, or in a poor wrapper, but hardly more than its content.
_SPARE = 1 << 20


def download(published: PublishedSet, folder: Path, mirrors: Sequence[str] | None = None) -> tuple[Path, ...]:
    """Put the missing files of a published set into a folder.

    A file appears under its name only when it is whole and checked, against the SHA-256 of its unpacked bytes or of the
    published archive.

    Raises:
        DataError: No mirror gave a whole, right file; says where the file may be put by hand.
        OutputError: The folder cannot be written.
    """
    order = list(published.mirrors if mirrors is None else mirrors)
    try:
        _make_shared(folder)
        return tuple(file.find(folder) or _fetch(published, file, order, folder) for file in published.files)
    except OSError as error:
        reason = error.__cause__ if isinstance(error, OutputError) else error
        raise OutputError(
            f"{folder}: cannot be written ({getattr(reason, 'strerror', '') or reason}): make room or give rights "
            "there, or put the files into a folder that the environment variable GPUNN_DATA names"
        ) from None


def _make_shared(folder: Path) -> None:
    """Make a folder with the rights of its parent: in a cache that all may write to, all may write to it."""
    if folder.is_dir():
        return
    _make_shared(folder.parent)
    folder.mkdir(exist_ok=True)
    mode = folder.parent.stat().st_mode
    if mode & stat.S_IWOTH:
        folder.chmod(stat.S_IMODE(mode))


def _fetch(published: PublishedSet, file: PublishedFile, mirrors: list[str], folder: Path) -> Path:
    """Fetch a file from the first mirror that has it; a mirror that fails goes to the end of the list."""
    reasons, path = [], folder / file.stem
    for mirror in tuple(mirrors):
        try:
            content = _content(_received(f"{mirror}{file.stem}.gz", file), file)
        except DataError as error:
            reasons.append(f"{mirror} {error}")
            mirrors.remove(mirror)
            mirrors.append(mirror)
        else:
            write_atomically(path, content)
            return path
    raise DataError(
        f"{published.name} needs {file.stem}.gz, which is not on this machine and could not be downloaded "
        f"({'; '.join(reasons) or 'no mirror is known'}): put the four files into {folder}, or into a folder "
        f"that the environment variable GPUNN_DATA names, or into its subfolder {published.name}"
    )


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
    size = _size(file)
    with tqdm(total=size, desc=file.stem, unit="B", unit_scale=True, leave=False, disable=None) as bar:
        get = HTTPDownloader(progressbar=bar, chunk_size=1 << 16, timeout=(CONNECT_SECONDS, READ_SECONDS))
        try:
            get(url, received := _Bounded(size + _SPARE), None)
        except DataError:
            raise
        # What the libraries below raise: requests' errors are OSErrors, a nonsensical header is a ValueError.
        except (OSError, ValueError) as error:
            raise DataError(_reason(error)) from None
    return received.getvalue()


def _content(received: bytes, file: PublishedFile) -> bytes:
    """Unpack a received file, no further than it should be long, and check it."""
    is_packed, expected, header = received.startswith(GZIP_MAGIC), _size(file), idx_header(np.uint8, file.shape)
    stream = io.BytesIO(received)
    try:
        content = bytes(read_up_to(Gunzip(stream) if is_packed else stream, expected + 1))
    except EOFError:
        raise DataError("sent a gzip stream that is cut short") from None
    except zlib.error as error:
        raise DataError(f"sent a damaged gzip stream ({error})") from None
    if content and not content.startswith(header):
        start = content[: len(header)].hex(" ")
        raise DataError(f"sent something else (expected the start {header.hex(' ')}, got {start})")
    if len(content) != expected:
        many = f"more than {expected:,}" if len(content) > expected else f"{len(content):,}"
        raise DataError(f"sent {many} bytes (unpacked), expected {expected:,}")
    if file.sha256:
        _compare(content, file.sha256, "content")
    elif is_packed:
        _compare(received, file.archive_sha256, "archive")
    else:
        log.warning(
            "%s came unpacked: its header and size are right, but only the hash of the archive is known, so "
            "its content is not checked",
            file.stem,
        )
    return content


def _compare(content: bytes, expected: str, what: str) -> None:
    got = hashlib.sha256(content).hexdigest()
    if got != expected:
        raise DataError(f"sent a wrong {what} (SHA-256 {got[:12]}..., expected {expected[:12]}...)")


def _size(file: PublishedFile) -> int:
    return len(idx_header(np.uint8, file.shape)) + math.prod(file.shape)


def _reason(error: Exception) -> str:
    """Say shortly what failed: the libraries tell the whole chain of their classes."""
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
