"""Data by name, from a folder or from a file; the named sets from disk where they are, else downloaded."""

import hashlib
import logging
import os
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.data.dataset import Data
from gpunn.data.digits import CLASS_NAMES, digits_test, digits_train
from gpunn.data.formats.idx import idx_header, read_images, read_labels
from gpunn.data.formats.kinds import NPZ, kind_of_file
from gpunn.data.formats.npz import NpzFile
from gpunn.data.samples import Samples
from gpunn.data.sources import MNIST, PUBLISHED, PublishedFile, PublishedSet
from gpunn.errors import DataError, OptionError
from gpunn.scalars import flag

log = logging.getLogger(__name__)

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
        source: "digits" (bundled), "mnist" or "fashion-mnist" (GPUNN_DATA, the user's cache, or downloaded);
            a folder with the four IDX files; a .npz file; or Data, which are given back as they are. A folder
            that has the name of a set is reached as "./mnist" or as a Path.
        validation: fraction (0.1) or count (5000) of the training samples that is watched and not learned
            from; 0 for none; "test" to watch the published test set instead.
        limit: keep only the first `limit` training samples, before the split.
        seed: of the split, which depends on nothing else but the labels.
        memory_map: whether the inputs stay in their file, so that they may be larger than memory: rows are read when
            they are used. Left out, those of 1 GiB and more do where the file is not compressed.

    Returns:
        Data with `.train`, `.validation` and `.test`.

    Raises:
        OptionError: an unknown name; validation, limit or seed out of range.
        DataError: missing, damaged or unfit files, no network, or a compressed file that is to be memory-mapped.
        OutputError: the user's cache cannot be written.
    """
    if isinstance(source, Data):
        return source
    if memory_map is not None:
        memory_map = flag(memory_map, "memory_map")
    split: dict[str, Any] = {"validation": validation, "limit": limit, "seed": seed}
    if isinstance(source, str) and source in NAMES:
        if source == "digits":
            if memory_map:
                raise OptionError("the bundled digits are compressed and cannot be memory-mapped: leave memory_map out")
            return Data.from_samples(digits_train(), test=digits_test, class_names=CLASS_NAMES, name=source, **split)
        return _published(PUBLISHED[source], split, memory_map)
    if not isinstance(source, str | PathLike) or not str(source):
        raise OptionError(
            f"data are a name ({', '.join(NAMES)}), a folder or a .npz file, got "
            f"{type(source).__name__}{' (empty)' if isinstance(source, str) else ''}: for arrays use "
            "Data.from_arrays(x, y)"
        )
    try:
        path = Path(source).expanduser().absolute()
        is_folder, is_there = path.is_dir(), path.exists()
    except (OSError, RuntimeError) as error:  # a name that is too long, or the home of somebody who is not known
        raise DataError(f"{source}: cannot be looked for ({error}): check the path") from None
    if is_folder:
        return _folder(path, split, memory_map)
    if is_there:
        return _file(path, split, memory_map)
    raise _unknown(os.fspath(source), path)


def user_cache() -> Path:
    """The folder of this user's cache that downloaded sets are kept in."""
    import pooch

    return Path(pooch.os_cache("gpunn"))


def _published(published: PublishedSet, split: dict[str, Any], memory_map: bool | None) -> Data:
    paths = _locate(published)
    if paths is None:
        from gpunn.data.download import download

        paths = download(published, user_cache() / published.name)
    return Data.from_samples(
        _read_published(published, 0, paths, memory_map),
        test=partial(_read_published, published, 2, paths, memory_map),
        class_names=published.class_names,
        name=published.name,
        **split,
    )


def _read_published(published: PublishedSet, first: int, paths: tuple[Path, ...], memory_map: bool | None) -> Samples:
    """Images and labels of one part of a published set, whose first file is given by its number."""
    x, y = paths[first], paths[first + 1]
    pixels, digits = read_images(x, memory_map), read_labels(y)
    _check_published(published, published.files[first], x, pixels)
    _check_published(published, published.files[first + 1], y, digits)
    return _samples(x, pixels, y, digits, len(published.class_names))


def _locate(published: PublishedSet) -> tuple[Path, ...] | None:
    """The four files in GPUNN_DATA, its subfolder or the cache; a folder that lacks one is passed over."""
    folders = []
    if named := os.environ.get("GPUNN_DATA"):
        root = Path(named).expanduser().absolute()
        if not root.is_dir():
            log.warning("GPUNN_DATA names %s, which is no folder: it is passed over", root)
        folders = [root / published.name, root]
    for folder in folders:
        if paths := published.find(folder):
            return paths
    return published.find(user_cache() / published.name)


def _check_published(published: PublishedSet, file: PublishedFile, path: Path, array: NDArray[np.uint8]) -> None:
    """Own wrappers and names are welcome, other content is not: a name promises comparable results."""
    own = f'load your own version by its folder, "{path.parent}"'
    if array.shape not in (file.shape, (*file.shape, 1)):
        raise DataError(
            f"{path}: expected {file.shape} as {published.name} has it, got {array.shape}: get it again, or {own}"
        )
    digest = hashlib.sha256(idx_header(np.uint8, file.shape))
    digest.update(np.ascontiguousarray(array).data)
    got = digest.hexdigest()
    for other in PUBLISHED.values():
        if other.name != published.name and any(got == known.sha256 for known in other.files):
            raise DataError(
                f"{path}: this file is of {other.name}, expected {published.name}: let GPUNN_DATA name a "
                f"folder with the subfolders {other.name} and {published.name}"
            )
    if file.sha256 and got != file.sha256:
        raise DataError(
            f"{path}: not the file that {published.name} was published with (SHA-256 of its content "
            f"{got[:12]}..., expected {file.sha256[:12]}...): get it again, or {own}"
        )


def _folder(folder: Path, split: dict[str, Any], memory_map: bool | None) -> Data:
    paths = {file.stem: file.find(folder) for file in MNIST.files}
    missing = [stem for stem, path in paths.items() if path is None]
    if missing:
        below = [str(folder / name) for name in PUBLISHED if PUBLISHED[name].find(folder / name)]
        hint = f"; did you mean {below[0]}?" if below else ""
        raise DataError(
            f"{folder}: expected four IDX files, {', '.join(missing)} missing (each may end in .gz): put "
            f"them there, or give a .npz file{hint}"
        )
    images, labels, test_images, test_labels = (path for path in paths.values() if path is not None)

    train = _samples(images, read_images(images, memory_map), labels, read_labels(labels), -1)
    open_test = partial(_read_files, test_images, test_labels, memory_map, train.classes)
    return Data.from_samples(train, test=open_test, name=folder.name, **split)


def _read_files(images: Path, labels: Path, memory_map: bool | None, classes: int) -> Samples:
    return _samples(images, read_images(images, memory_map), labels, read_labels(labels), classes)


def _samples(x: Path, images: NDArray[np.uint8], y: Path, labels: NDArray[np.uint8], classes: int) -> Samples:
    """One half of a set of IDX files; errors name the file."""
    if len(images) != len(labels):
        raise DataError(
            f"{x} holds {len(images):,} images, {y.name} {len(labels):,} labels: get two files that belong together"
        )
    try:
        return Samples(images, labels, 1 / 255, classes)
    except DataError as error:
        raise DataError(f"{y}: {error}") from None


def _file(path: Path, split: dict[str, Any], memory_map: bool | None) -> Data:
    kind = kind_of_file(path, "check the path")
    if kind.reader != NPZ:
        mend = f"give its folder, {path.parent}" if "idx" in path.name else "save it with np.savez(path, x=x, y=y)"
        raise DataError(f"{path}: expected a .npz file, got {kind.name}: {mend}")
    (x, y), test = NpzFile(path, memory_map).data()
    try:
        return Data.from_arrays(x, y, test=test, name=path.stem, **split)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _unknown(given: str, path: Path) -> Exception:
    if os.sep in given or "/" in given or path.suffix:
        return DataError(f"{path}: there is no such file or folder: check the path, or give one of {', '.join(NAMES)}")
    from difflib import get_close_matches

    near = get_close_matches(given.lower().replace("_", "-"), NAMES, n=1)
    guess = f'did you mean "{near[0]}"?' if near else "check its spelling"
    return OptionError(
        f'unknown data set "{given}": expected {", ".join(NAMES)}, a folder with the four IDX files, '
        f"or a .npz file; {guess}"
    )
