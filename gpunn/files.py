"""Write files and folders whole or not at all, even if the process is killed or the power fails."""

import contextlib
import errno
import fcntl
import io
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from gpunn.errors import OptionError, OutputError

StrPath = str | os.PathLike[str]
LOCK = ".lock"
_TEMPORARY = ".tmp"


def as_path(path: StrPath) -> Path:
    """Return the path of a file; raise OptionError if the value names no file."""
    given = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(given, str) or "\0" in given or not Path(given).name:
        raise OptionError(f"the path of a file is a text such as 'model.safetensors', got {path!r}")
    return Path(given)


def is_same_file(one: Path, other: Path) -> bool:
    """Return whether two paths lead to the same file; paths without a file are compared as written."""
    with contextlib.suppress(OSError):
        return one.samefile(other)
    return one == other


def write_atomically(path: StrPath, content: bytes, *, lasts: bool = True) -> None:
    """Write a file so that its name shows the old content or all of the new; OutputError leaves nothing behind.

    Without `lasts` it does not wait for the disk, and a power failure may lose or empty the file.
    """
    target = as_path(path)
    temporary = _beside(target)
    try:
        _write(temporary, content, lasts=lasts)
        temporary.replace(target)
        if lasts:
            sync_folder(target.parent)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        # Also after Ctrl-C. After a rename, or before the file is made, there is nothing to remove.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_folder(path: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Write named files into a folder, in order, so that its name shows the old folder or all of the new one."""
    temporary, replaced = _beside(path), _beside(path)
    try:
        temporary.mkdir()
        for name, content in files:
            _write(temporary / name, content)
        sync_folder(temporary)
        # A rename cannot replace a folder that is not empty.
        with contextlib.suppress(FileNotFoundError):
            path.rename(replaced)
        temporary.rename(path)
        sync_folder(path.parent)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        # After an error or Ctrl-C between the two renames, the old folder gets its name back.
        with contextlib.suppress(OSError):
            if not path.exists():
                replaced.rename(path)
        for folder in (temporary, replaced):
            shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of killed processes; only the caller may be writing in the folder."""
    for path in folder.glob(f".*{_TEMPORARY}"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def remove_folder(path: Path) -> None:
    """Remove a folder so that its name never shows a part of it."""
    removed = _beside(path)
    try:
        path.rename(removed)
        shutil.rmtree(removed)
    except OSError as error:
        raise OutputError(f"cannot remove {path}: {error.strerror or error}") from error


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on disk, so that a crash of the machine cannot lose them."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # the file system cannot sync folders
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(folder: Path, say: Callable[[str], None], *, who: str, mend: str) -> Iterator[None]:
    """Lock a folder against other processes; the system releases the lock however the process ends.

    Args:
        folder: Existing folder.
        say: Function that shows a warning if the file system has no locks.
        who: Kind of work, for error messages.
        mend: Advice to the user, for error messages.

    Raises:
        OutputError: Another process has the lock, or it cannot be made.
    """
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror or error}: {mend}") from None
    with os.fdopen(descriptor):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(f"another {who} is at work in {folder}: wait for it, or {mend}") from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
                raise OutputError(f"cannot lock {folder}: {error.strerror or error}") from None
            say(f"the file system of {folder} knows no locks: nothing keeps a second {who} out of it")
        yield


def open_regular(path: Path, *, follow_links: bool = True) -> io.BufferedReader:
    """Open a regular file for reading; raise OSError for any other, which might never end or never answer."""
    # Without O_NONBLOCK, opening a pipe waits for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow_links else os.O_NOFOLLOW))
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise OSError(errno.EINVAL, "it is a folder" if stat.S_ISDIR(mode) else "it is no regular file", str(path))


def read_regular(path: Path, most_bytes: int, *, follow_links: bool = True) -> bytes:
    """Read a regular file of at most `most_bytes`; raise OSError for any other or larger file."""
    with open_regular(path, follow_links=follow_links) as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {most_bytes:,} bytes", str(path))
    return content


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{_TEMPORARY}")


def _write(path: Path, content: bytes, *, lasts: bool = True) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        if lasts:
            os.fsync(file.fileno())  # else a crash of the machine may keep the name and lose the content
