"""Find the sets that have a name in the folders of this machine, and read those that are not four IDX files."""

import logging
import os
from pathlib import Path

from gpunn.data.cifar import CIFAR, CIFAR_10, CIFAR_100
from gpunn.data.download import download_archive
from gpunn.data.formats.parts import Parts, ReadOptions
from gpunn.data.formats.tar import first_of
from gpunn.errors import DataError

log = logging.getLogger(__name__)

NAMED = tuple(CIFAR)


def own_folders(*names: str) -> list[Path]:
    """Return the folder that GPUNN_DATA names, after its subfolders of these names; none where it names none."""
    if not (named := os.environ.get("GPUNN_DATA")):
        return []
    root = Path(named).expanduser().absolute()
    if not root.is_dir():
        log.warning("GPUNN_DATA names %s, which is no folder: it is passed over", root)
    return [*(root / name for name in names), root]


def named_parts(name: str, cache: Path, options: ReadOptions) -> Parts:
    """Read a set by its name: from GPUNN_DATA, the user's cache, or downloaded into that."""
    known, folder = CIFAR[name], name.removesuffix("-coarse")
    _check_memory_map(name, options)
    places = (known.find(place) for place in (*own_folders(folder), cache / folder))
    place = next(filter(None, places), None) or download_archive(known, cache / folder)
    return known.parts(place, is_published=True)


def parts_in(path: Path, options: ReadOptions) -> Parts | None:
    """Read the set that a folder or an archive holds; None where it holds none that is known."""
    sets = (CIFAR_10, CIFAR_100)
    first = None if path.is_dir() else first_of(path, {name for known in sets for name in known.sizes})
    for known in sets:
        place = known.find(path) if path.is_dir() else path if first in known.sizes else None
        if place is not None:
            _check_memory_map(str(path), options)
            return known.parts(place)
    return None


def _check_memory_map(what: str, options: ReadOptions) -> None:
    if options.memory_map:
        wrong = "its pixels lie in another order than a network takes them, and cannot be memory-mapped"
        raise DataError(f"{what}: {wrong}: leave memory_map out")
