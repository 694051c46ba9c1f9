"""Find the sets that have a name in the folders of this machine, and read those that are not four IDX files."""

import logging
import os
from pathlib import Path

from gpunn.data.cifar import CIFAR, CIFAR_10, CIFAR_100
from gpunn.data.download import download_archive
from gpunn.data.emnist import EMNIST, PAGE
from gpunn.data.formats.parts import Parts, ReadOptions
from gpunn.data.formats.tar import first_of
from gpunn.errors import DataError

log = logging.getLogger(__name__)

NAMED = (*EMNIST, *CIFAR)
FILES_OF_SETS = {*CIFAR_10.sizes, *CIFAR_100.sizes}  # which are no set alone


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
    _check_memory_map(name, options)
    if name in EMNIST:
        folders = (*own_folders(name, "emnist"), cache / name, cache / "emnist")
        found = next(filter(None, map(EMNIST[name].find, folders)), None)
        if found is None:
            files = ", ".join(file.stem for part in ("train", "test") for file in EMNIST[name].files(part))
            wrong = f"{name} needs {files}, which are not on this machine"
            where = f"put them into {folders[-1]}, or into a folder that the environment variable GPUNN_DATA names"
            raise DataError(f"{wrong}: they are in gzip.zip of {PAGE}; {where}")
        return EMNIST[name].parts(found, is_published=True)
    known, folder = CIFAR[name], name.removesuffix("-coarse")
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
    splits = {name: place for name, split in EMNIST.items() if path.is_dir() and (place := split.find(path))}
    if len(splits) > 1:
        mend = f"let GPUNN_DATA name it, and load one by its name, GPUNN_DATA={path} gpunn train {min(splits)}"
        raise DataError(f"{path}: holds several sets, {', '.join(splits)}: {mend}")
    for name, place in splits.items():
        _check_memory_map(str(path), options)
        return EMNIST[name].parts(place)
    return None


def _check_memory_map(what: str, options: ReadOptions) -> None:
    if options.memory_map:
        wrong = "its pixels lie in another order than a network takes them, and cannot be memory-mapped"
        raise DataError(f"{what}: {wrong}: leave memory_map out")
