"""Files and folders that are there whole or not at all, whenever the process is killed or the power goes.

What is written goes under another name first, is synced to the disk, gets its own name in one go, and then the folder
that holds the name is synced: without the last, a crash of the machine may forget the name.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path

from gpunn.errors import OptionError, OutputError

_TEMPORARY = ".tmp"


def as_path(path: str | os.PathLike[str]) -> Path:
    """The path of a file.

    Raises:
        OptionError: it is no text and no path, or names nothing.
    """
    try:
        given = os.fspath(path)
    except TypeError:
        given = None
    if not isinstance(given, str) or "\0" in given or not Path(given).name:
        raise OptionError(f"the path of a file is a text such as 'model.safetensors', got {path!r}")
    return Path(given)


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file so that its name shows the old content or all of the new one.

    Raises:
        OptionError: that is no path.
        OutputError: it cannot be written; nothing half-written stays behind.
    """
    target = as_path(path)
    temporary = _beside(target)
    try:
        _write(temporary, content)
        temporary.replace(target)
        sync_folder(target.parent)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        # Also after Ctrl-C. A file that was renamed, or never made, is not there to be removed.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_folder(path: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Write a folder of files so that its name shows all of them, or what was there before.

    Args:
        path: of the folder; one that is there is replaced.
        files: name and content of each, written in this order.

    Raises:
        OutputError: it cannot be written; nothing half-written stays behind.
    """
    temporary, replaced = _beside(path), _beside(path)
    try:
        temporary.mkdir()
        for name, content in files:
            _write(temporary / name, content)
        sync_folder(temporary)
        # A folder that holds anything is not replaced by a rename.
        with contextlib.suppress(FileNotFoundError):
            path.rename(replaced)
        temporary.rename(path)
        sync_folder(path.parent)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        for folder in (temporary, replaced):
            shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what processes that were killed had begun to write here; for who alone may write in the folder."""
    for path in folder.iterdir():
        if path.name.startswith(".") and path.suffix == _TEMPORARY:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def remove_folder(path: Path) -> None:
    """Remove a folder so that its name never shows a part of it.

    Raises:
        OutputError: it cannot be removed.
    """
    removed = _beside(path)
    try:
        path.rename(removed)
        shutil.rmtree(removed)
    except OSError as error:
        raise OutputError(f"cannot remove {path}: {error.strerror or error}") from error


def sync_folder(path: Path) -> None:
    """Wait until the disk knows the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that know no such thing
            raise
    finally:
        os.close(descriptor)


def open_regular(path: Path, *, follow_links: bool = True) -> io.BufferedReader:
    """A regular file, opened to be read; what is none might never end, or never begin to answer.

    Args:
        path: of the file.
        follow_links: whether it may be a link; not where a folder must hold its own files.

    Raises:
        OSError: it cannot be opened, or is a folder, a pipe, a socket or a device.
    """
    # Without O_NONBLOCK the opening of a pipe waits for somebody to write.
    links = 0 if follow_links else os.O_NOFOLLOW
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | links)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise OSError(errno.EINVAL, "it is a folder" if stat.S_ISDIR(mode) else "it is no regular file", str(path))


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{_TEMPORARY}")


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        # Without it a crash of the machine may keep the name and lose the content.
        os.fsync(file.fileno())
