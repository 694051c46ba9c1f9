"""Find published sets on this machine by name, and read EMNIST and CIFAR."""

import logging
import os
from pathlib import Path

from gpunn.data.cifar import CIFAR, CIFAR_10, CIFAR_100, CifarSet
from gpunn.data.download import download_archive
from gpunn.data.emnist import EMNIST, PAGE, EmnistSplit
from gpunn.data.formats.parts import Parts, ReadOptions
from gpunn.data.formats.tar import first_of
from gpunn.errors import DataError

log = logging.getLogger(__name__)

NAMED = (*EMNIST, *CIFAR)
FILES_OF_SETS = {*CIFAR_10.sizes, *CIFAR_100.sizes}  # none of which is a whole set


def own_folders(*names: str) -> list[Path]:
    """Return the subfolders of GPUNN_DATA with these names, then GPUNN_DATA itself; none if it is not set."""
    if not (named := os.environ.get("GPUNN_DATA")):
        return []
    root = Path(named).expanduser().absolute()
    if not root.is_dir():
        log.warning("GPUNN_DATA names %s, which is no folder: it is passed over", root)
    return [*(root / name for name in names), root]


def named_parts(name: str, cache: Path, options: ReadOptions) -> Parts:
    """Read EMNIST or CIFAR by name: from GPUNN_DATA, from the user's cache, or downloaded into it."""
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
    """Read the EMNIST or CIFAR set in a folder or an archive; None if there is none."""
    cifar, found = (CIFAR_10, CIFAR_100), list[tuple[CifarSet | EmnistSplit, Path]]()
    if path.is_dir():
        found += [(known, place) for known in cifar if (place := known.find(path))][:1]
        found = found or [(split, place) for split in EMNIST.values() if (place := split.find(path))]
    else:
        first = first_of(path, {name for known in cifar for name in known.sizes})
        found += [(known, path) for known in cifar if first in known.sizes]
    if not found:
        return None
    if len(found) > 1:
        names = [known.name for known, _ in found]
        mend = f"let GPUNN_DATA name it, and load one by its name, GPUNN_DATA={path} gpunn train {min(names)}"
        raise DataError(f"{path}: holds several sets, {', '.join(names)}: {mend}")
    _check_memory_map(str(path), options)
    ((known, place),) = found
    return known.parts(place)


def _check_memory_map(what: str, options: ReadOptions) -> None:
    if options.memory_map:
        wrong = "its pixels lie in another order than a network takes them, and cannot be memory-mapped"
        raise DataError(f"{what}: {wrong}: leave memory_map out")
