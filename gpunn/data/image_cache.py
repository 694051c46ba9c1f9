"""Keep decoded images in the user's cache, so that the next run starts at once.

A file is a line of JSON, padded to a page, and the bytes of all images of a part (n, height, width, channels).
"""

import hashlib
import json
import logging
import math
import os
import re
import secrets
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpunn.backend.limits import size
from gpunn.data.download import make_shared, user_cache
from gpunn.data.formats.image_folder import ImagePart
from gpunn.files import open_regular

log = logging.getLogger(__name__)

_FORMAT = 1  # to be raised when the same files and options give other bytes
_HEADER = 4096  # bytes, of whole pages
_MOST_BYTES, _LEFT_FREE = 32 << 30, 1 << 30  # of the whole cache, and free space that stays on the disk
_PIECE = 1 << 20
_KEPT = 4  # shapes of the same images
_OLD = 24 * 3600  # seconds after which temporary files of a killed process are removed
_ENDING, _TEMPORARY = ".images", ".tmp"


class Kept(NamedTuple):
    """Memory map of cached images, and facts about them."""

    images: NDArray[np.uint8]
    facts: dict[str, Any]


class ImageCache:
    """Find and write the decoded images of one part of a folder; their file is named by part, listing and shape.

    Args:
        folder: Folder of the images.
        part: "train", "validation" or "test".
        images: Images of the part.
        asked: Size and channels that were asked for, each None where the images decide.
    """

    def __init__(self, folder: Path, part: str, images: ImagePart, asked: tuple[Any, int | None]) -> None:
        listing = hashlib.sha256(f"{_FORMAT}\n".encode())
        for file in images.files:
            listing.update(f"{file.name!r} {file.nbytes} {file.time}\n".encode())
        name = re.sub(r"[^\w.-]+", "_", folder.name, flags=re.ASCII)[:40].lstrip(".") or "images"
        place = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:12]
        self.place, self.path = user_cache() / "images" / f"{name}-{place}", Path()
        self.count, self._of_files = len(images.files), f"{part}-{listing.hexdigest()[:16]}-"
        self._size, self._channels = asked
        self._asked = [self._size and list(self._size), self._channels]

    def _path(self, shape: tuple[int, ...]) -> Path:
        return self.place / f"{self._of_files}{'x'.join(map(str, shape))}{_ENDING}"

    def find(self) -> Kept | None:
        """Return the cached images; None if there are none, or the file is damaged."""
        if self._size and self._channels:
            return self._read(self._path((*self._size, self._channels)))
        there = sorted(self.place.glob(f"{self._of_files}*{_ENDING}")) if self.place.is_dir() else ()
        return next((kept for path in there if (kept := self._read(path, self._asked)) is not None), None)

    def _read(self, path: Path, asked: Any = None) -> Kept | None:
        try:
            with open_regular(path, follow_links=False) as file:
                table = json.loads(file.read(_HEADER))
                if asked is not None and table["asked"] != asked:
                    return None
                shape = tuple(table["shape"])
                is_whole = len(shape) == 4 and all(type(length) is int and length > 0 for length in shape)
                if not is_whole or shape[0] != self.count or path != self._path(shape[1:]):
                    raise ValueError("it is of other images")
                nbytes = os.fstat(file.fileno()).st_size
                if nbytes != _HEADER + math.prod(shape) or not isinstance(table["facts"], dict):
                    raise ValueError("its size is another")
                if _checksum(file) != table["crc"]:
                    raise ValueError("its content has changed")
                images = np.asarray(np.memmap(file, np.uint8, "r", _HEADER, shape))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            if not isinstance(error, NotADirectoryError):  # the cache of a user without a home
                reason = getattr(error, "strerror", None) or ("it is damaged" if isinstance(error, KeyError) else error)
                log.warning("%s cannot be used (%s): the images are decoded again", path, reason)
            return None
        with suppress(OSError):
            os.utime(path)  # the least recently used is removed first
        self.path = path
        return Kept(images, table["facts"])

    @contextmanager
    def writing(self, shape: tuple[int, int, int]) -> Iterator[Callable[[NDArray[np.uint8]], None]]:
        """Yield a function that writes images piece by piece; raise OSError if they cannot be written.

        At the end `facts` is written with them. The file gets its name only when it is complete.
        """
        nbytes, self.facts = self.count * math.prod(shape), dict[str, Any]()
        make_shared(self.place)
        self.path = self._path(shape)
        if shutil.disk_usage(self.place).free < nbytes + _LEFT_FREE:
            raise OSError(f"{size(nbytes)} are more than its disk has free")
        temporary, crc, written = self.place / f".{self.path.name}.{secrets.token_hex(4)}{_TEMPORARY}", 0, 0
        try:
            with temporary.open("xb") as file:
                file.write(bytes(_HEADER))

                def write(images: NDArray[np.uint8]) -> None:
                    nonlocal crc, written
                    content = np.ascontiguousarray(images).data.cast("B")
                    file.write(content)
                    crc, written = zlib.crc32(content, crc), written + len(images)

                yield write
                table = {"format": _FORMAT, "shape": [written, *shape], "crc": crc, "facts": self.facts}
                table["asked"] = self._asked
                file.seek(0)
                file.write(json.dumps(table).encode().ljust(_HEADER - 1) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        finally:
            temporary.unlink(missing_ok=True)
        with suppress(OSError):  # another process may remove the same
            self._remove_old()

    def _remove_old(self) -> None:
        """Remove images of older listings, all but a few shapes of this one, and the least recently used of all."""
        # By the clock of the disk, like the times of all these files.
        now, part = self.path.stat().st_mtime, self._of_files.split("-")[0]
        for path in self.place.glob(f".*{_TEMPORARY}"):
            if path.stat().st_mtime < now - _OLD:
                path.unlink(missing_ok=True)
        ours = list(self.place.glob(f"{part}-*{_ENDING}"))
        same = sorted((path for path in ours if path.name.startswith(self._of_files)), key=_used, reverse=True)
        for path in {*ours} - {*same[:_KEPT]}:
            path.unlink(missing_ok=True)
        left = _MOST_BYTES
        for path in sorted(self.place.parent.glob(f"*/*{_ENDING}"), key=_used, reverse=True):
            left -= path.stat().st_size
            if left < 0 and path != self.path:
                path.unlink(missing_ok=True)
                with suppress(OSError):  # the folder may hold others
                    path.parent.rmdir()


def _used(path: Path) -> int:
    return path.stat().st_mtime_ns


def _checksum(file: BinaryIO) -> int:
    """Return the checksum of the rest of a file, by reads: pages of a map would count as memory of the process."""
    crc = 0
    while piece := file.read(_PIECE):
        crc = zlib.crc32(piece, crc)
    return crc
