"""Load data by name, from a folder or from a file; published sets from the disk where they are, else downloaded."""

import hashlib
import logging
import os
from collections.abc import Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.data.dataset import Data
from gpunn.data.formats.idx import idx_header, read_images, read_labels
from gpunn.data.formats.inputs import kind_of_file
from gpunn.data.samples import Samples
from gpunn.data.sources import DIGITS, MNIST, PUBLISHED, PublishedFile, PublishedSet, download, read_digits
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
        validation: Fraction (0.1) or count (5000) of the training samples to validate on and not to learn from; 0 for
            none; "test" for the published test set instead.
        limit: Number of training samples to keep, before the split; left out, all.
        seed: Seed of the split, which depends on nothing else but the labels.
        memory_map: Whether the inputs stay in their file, so that they may be larger than memory: rows are read when
            they are used. Left out, those of 1 GiB and more do where the file is not compressed.

    Returns:
        Data with `.train`, `.validation` and `.test`.

    Raises:
        OptionError: Unknown name; validation, limit or seed out of range.
        DataError: Missing, damaged or unfit files, no network, or a compressed file that is to be memory-mapped.
        OutputError: The user's cache cannot be written.
    """
    if isinstance(source, Data):
        return source
    if memory_map is not None:
        memory_map = flag(memory_map, "memory_map")
    split: dict[str, Any] = {"validation": validation, "limit": limit, "seed": seed}
    if isinstance(source, str) and source == "digits":
        if memory_map:
            raise OptionError("the bundled digits are compressed and cannot be memory-mapped: leave memory_map out")
        return Data.from_samples(read_digits(0), test=partial(read_digits, 1), class_names=DIGITS, name=source, **split)
    if isinstance(source, str) and source in PUBLISHED:
        return _published(PUBLISHED[source], split, memory_map)
    known = ", ".join(NAMES)
    if not isinstance(source, str | PathLike) or not str(source):
        got = f"{type(source).__name__}{' (empty)' if isinstance(source, str) else ''}"
        kinds = f"a name ({known}), a folder or a .npz file"
        raise OptionError(f"data are {kinds}, got {got}: for arrays use Data.from_arrays(x, y)")
    try:
        path, given = Path(source).expanduser().absolute(), os.fspath(source)
        read = _folder if path.is_dir() else _file if path.exists() else None
    except (OSError, RuntimeError) as error:  # a name that is too long, or the home of somebody who is not known
        raise DataError(f"{source}: cannot be looked for ({error}): check the path") from None
    if read is not None:
        return read(path, split, memory_map)
    if os.sep in given or "/" in given or path.suffix:
        raise DataError(f"{path}: there is no such file or folder: check the path, or give one of {known}")
    from difflib import get_close_matches

    near = get_close_matches(given.lower().replace("_", "-"), NAMES, n=1)
    guess = f'did you mean "{near[0]}"?' if near else "check its spelling"
    expected = f"{known}, a folder with the four IDX files, or a .npz file"
    raise OptionError(f'unknown data set "{given}": expected {expected}; {guess}')


def user_cache() -> Path:
    """Return the folder of this user's cache for downloaded sets."""
    import pooch

    return Path(pooch.os_cache("gpunn"))


def _published(published: PublishedSet, split: dict[str, Any], memory_map: bool | None) -> Data:
    """Load the four files in GPUNN_DATA, its subfolder or the cache; a folder that lacks one is passed over."""
    name, names, folders = published.name, published.class_names, list[Path]()
    if named := os.environ.get("GPUNN_DATA"):
        root = Path(named).expanduser().absolute()
        if not root.is_dir():
            log.warning("GPUNN_DATA names %s, which is no folder: it is passed over", root)
        folders = [root / name, root]
    found = (paths for folder in folders if (paths := published.find(folder)))
    paths = next(found, None) or download(published, user_cache() / name)
    train, test = (partial(_half, paths, part, memory_map, len(names), published) for part in (0, 1))
    return Data.from_samples(train(), test=test, class_names=names, name=name, **split)


def _check_published(published: PublishedSet, file: PublishedFile, path: Path, array: NDArray[np.uint8]) -> None:
    """Refuse other content: a name promises comparable results. Own wrappers and file names are welcome."""
    name, mend = published.name, f'get it again, or load your own version by its folder, "{path.parent}"'
    if array.shape not in (file.shape, (*file.shape, 1)):
        raise DataError(f"{path}: expected {file.shape} as {name} has it, got {array.shape}: {mend}")
    digest = hashlib.sha256(idx_header(np.uint8, file.shape))
    digest.update(np.ascontiguousarray(array).data)
    got, own = digest.hexdigest(), file.sha256
    for other in PUBLISHED:
        if other != name and any(got == known.sha256 for known in PUBLISHED[other].files):
            folders = f"let GPUNN_DATA name a folder with the subfolders {other} and {name}"
            raise DataError(f"{path}: this file is of {other}, expected {name}: {folders}")
    if own and got != own:
        hashes = f"SHA-256 of its content {got[:12]}..., expected {own[:12]}..."
        raise DataError(f"{path}: not the file that {name} was published with ({hashes}): {mend}")


def _folder(folder: Path, split: dict[str, Any], memory_map: bool | None) -> Data:
    """Load the four IDX files of a folder."""
    paths = {file.stem: path for file in MNIST.files if (path := file.find(folder)) is not None}
    if missing := ", ".join(file.stem for file in MNIST.files if file.stem not in paths):
        below = [str(folder / name) for name in PUBLISHED if PUBLISHED[name].find(folder / name)]
        mend = "put them there, or give a .npz file" + (f"; did you mean {below[0]}?" if below else "")
        raise DataError(f"{folder}: expected four IDX files, {missing} missing (each may end in .gz): {mend}")
    train = _half(tuple(paths.values()), 0, memory_map, -1)
    test = partial(_half, tuple(paths.values()), 1, memory_map, train.classes)
    return Data.from_samples(train, test=test, name=folder.name, **split)


def _half(
    paths: Sequence[Path], part: int, memory_map: bool | None, classes: int, published: PublishedSet | None = None
) -> Samples:
    """Read the images and labels of the training set (part 0) or the test set (part 1); errors name the file."""
    x, y = paths[2 * part :][:2]
    images, labels = read_images(x, memory_map), read_labels(y)
    if published is not None:
        for file, path, array in zip(published.files[2 * part :], (x, y), (images, labels), strict=False):
            _check_published(published, file, path, array)
    if len(images) != len(labels):
        counts = f"{len(images):,} images, {y.name} {len(labels):,} labels"
        raise DataError(f"{x} holds {counts}: get two files that belong together")
    try:
        return Samples(images, labels, 1 / 255, classes)
    except DataError as error:
        raise DataError(f"{y}: {error}") from None


def _file(path: Path, split: dict[str, Any], memory_map: bool | None) -> Data:
    """Load a file that is a whole data set."""
    kind = kind_of_file(path, "check the path")
    if kind.data is None:
        mend = f"give its folder, {path.parent}" if "idx" in path.name else "save it with np.savez(path, x=x, y=y)"
        raise DataError(f"{path}: expected a .npz file, got {kind.name}: {mend}")
    (x, y), test = kind.data(path, memory_map)
    try:
        return Data.from_arrays(x, y, test=test, name=path.stem, **split)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
