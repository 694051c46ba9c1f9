"""Find the images of a folder and their targets: by class folders, folders of parts, or a list."""

import os
import re
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpunn.data.formats.image_list import listed_targets, read_list
from gpunn.data.formats.inputs import kind_of_file
from gpunn.data.formats.parts import PART_OF, PARTS
from gpunn.errors import DataError

_SUFFIXES = frozenset(
    (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".pbm", ".pgm", ".ppm", ".pnm", ".gif", ".webp")
)
_HIDDEN = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "lost+found"))
_LISTS = ("metadata.csv", "metadata.jsonl")
_ENDINGS = (".jpg", ".png", ".jpeg", ".JPG", ".PNG", ".JPEG", ".bmp", ".webp")  # that names in a list may lack
_MOST_FILES, _MOST_FOLDERS, _LONGEST_NAME = 1 << 22, 1 << 18, 4096
_MOST_LOOKED, _DEEPEST = 10_000, 8  # names and nested folders that are searched for a first image
_SHOWN = 3  # names in a line about many


@dataclass(frozen=True)
class ImageFile:
    """Image file by its name in the folder; size and time show whether it has changed."""

    name: str
    nbytes: int
    time: int


@dataclass(frozen=True)
class ImagePart:
    """Images of one part of a data set, their targets, and the folder of their names."""

    folder: Path
    files: Sequence[ImageFile]
    targets: NDArray[Any]


@dataclass
class ImageFolder:
    """Images by part ("train", and perhaps "validation" and "test"), class names, and notes for the user."""

    parts: dict[str, ImagePart] = field(default_factory=dict)
    class_names: tuple[str, ...] | None = None
    notes: list[str] = field(default_factory=list)
    has_list: bool = False


class _Scan:
    """Scan folders for images; count files and folders, and note files that are no images."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.files, self.folders = folder, 0, 0
        self.skipped: list[str] = []
        self.mends: dict[str, str] = {}

    def entries(self, folder: Path) -> tuple[list[os.DirEntry[str]], list[os.DirEntry[str]]]:
        """Return the folders and the files in a folder, without hidden ones, in natural order."""
        self.folders += 1
        try:
            with os.scandir(folder) as found:
                there = [entry for entry in found if not _is_hidden(entry.name)]
            there.sort(key=lambda entry: _natural(entry.name))
            folders, files = list[os.DirEntry[str]](), list[os.DirEntry[str]]()
            for entry in there:
                (folders if entry.is_dir() else files).append(entry)
        except OSError as error:
            raise DataError(f"{folder}: cannot be read ({error.strerror or error}): check its rights") from None
        self.files += len(files)
        if self.files > _MOST_FILES or self.folders > _MOST_FOLDERS:
            raise DataError(f"{self.folder}: more than {_MOST_FILES:,} files or {_MOST_FOLDERS:,} folders: give a part")
        return folders, files

    def images(self, folder: Path) -> list[ImageFile]:
        """Return the images in a folder and below it; a link back to a folder above is not followed."""
        found: list[ImageFile] = []
        above = (path.stat() for path in folder.parents if path.is_relative_to(self.folder))
        seen = {(status.st_dev, status.st_ino) for status in above}
        stack = [folder]
        while stack:
            here = stack.pop()
            try:
                status = here.stat()
            except OSError as error:
                raise DataError(f"{here}: cannot be read ({error.strerror or error}): check its rights") from None
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            folders, files = self.entries(here)
            found += [image for entry in files if (image := self.image(Path(entry.path))) is not None]
            stack += [Path(entry.path) for entry in reversed(folders)]
        return found

    def image(self, path: Path) -> ImageFile | None:
        """Return a file if it is an image, by its ending or its first bytes; else None."""
        try:
            status = path.stat()
        except OSError:
            status = None
        is_image = status is not None and stat.S_ISREG(status.st_mode)
        if is_image and path.suffix.lower() not in _SUFFIXES:
            kind = kind_of_file(path, "check its rights, or remove it")
            is_image = bool(kind.image)
            if kind.mend and not is_image:
                self.mends.setdefault(kind.name, kind.mend)
        name = path.relative_to(self.folder).as_posix()
        if not is_image or status is None:
            self.skipped.append(name)
            return None
        return ImageFile(name, status.st_size, status.st_mtime_ns)


class _Asked(NamedTuple):
    """Target columns that are asked for, and whether they are float targets."""

    targets: Sequence[str]
    are_floats: bool | None


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "~")) or name.lower() in _HIDDEN


def _natural(name: str) -> tuple[list[Any], str]:
    """Return a sort key that puts img2 before img10."""
    pieces = re.split(r"(\d+)", name)
    return [int(piece) if number % 2 else piece for number, piece in enumerate(pieces)], name


def counted(count: int, one: str, many: str) -> str:
    """Write a count with its noun."""
    return f"{count:,} {one if count == 1 else many}"


def shown(names: Sequence[str]) -> str:
    """Write the first few of many names."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more:,} more" if more > 0 else "")


def holds_images(folder: Path) -> bool:
    """Return whether a folder has an image, by a quick search."""
    stack, looked = [(folder, 0)], 0
    while stack and looked < _MOST_LOOKED:
        here, depth = stack.pop()
        with suppress(OSError, DataError), os.scandir(here) as found:
            for entry in found:
                if _is_hidden(entry.name):
                    continue
                suffix, looked = Path(entry.name).suffix.lower(), looked + 1
                if entry.is_dir():
                    stack += [(Path(entry.path), depth + 1)] if depth < _DEEPEST else []
                elif suffix in _SUFFIXES or (not suffix and kind_of_file(Path(entry.path), "").image):
                    return True
                if looked >= _MOST_LOOKED:
                    break
    return False


def learns_numbers(folder: Path, targets: Sequence[str] = (), task: str | None = None) -> bool:
    """Return whether the images of a folder have a list of float targets; False if it cannot be read."""
    with suppress(OSError, DataError):
        if any(_is_list(path) for path in (*folder.iterdir(), *folder.glob("[Tt][Rr][Aa][Ii][Nn]*/metadata.*"))):
            found = find_images(folder, targets, task)
            return found.has_list and found.class_names is None
    return False


def find_images(folder: Path, targets: Sequence[str] = (), task: str | None = None) -> ImageFolder:
    """Find the images of a folder with their labels or float targets; raise DataError for an unknown layout."""
    scan, found = _Scan(folder), ImageFolder()
    asked = _Asked(targets, {"regression": True, "classes": False}.get(task or ""))
    folders, files = scan.entries(folder)
    parts = _parts_of(folder, scan, folders)
    if parts:
        others = [entry.name for entry in folders if entry.name not in {path.name for path in parts.values()}]
        if others:
            found.notes.append(f"{folder}: {shown(others)}: left out beside the folders {_names(parts.values())}")
        _read_parts(found, scan, parts, asked)
    elif listed := _list_in(folder, files) or _other_list(folder, folders, files):
        _read_list(found, scan, {"": listed}, asked)
    elif folders:
        _read_classes(found, scan, {"train": (folder, folders)})
        if stray := [entry.name for entry in files if Path(entry.name).suffix.lower() in _SUFFIXES]:
            found.notes.append(f"{folder}: {shown(stray)}: left out, they lie in no class folder")
    else:
        raise _no_labels(folder, scan)
    if (targets or task) and not found.has_list:
        raise DataError(f"{folder}: its folders are the classes, and no list has columns: leave target and task out")
    if scan.skipped:
        mends = "".join(f"; {name}: {mend}" for name, mend in list(scan.mends.items())[:_SHOWN])
        count = counted(len(scan.skipped), "file skipped that is no image", "files skipped that are no images")
        found.notes.append(f"{folder}: {count} ({shown(scan.skipped)}){mends}")
    return found


def _names(paths: Any) -> str:
    return ", ".join(path.name for path in paths)


def _parts_of(folder: Path, scan: _Scan, folders: Sequence[os.DirEntry[str]]) -> dict[str, Path]:
    """Return the folders of the parts, train and perhaps others; none if the folder has no such layout."""
    by_part: dict[str, list[Path]] = {}
    for entry in folders:
        if part := PART_OF.get(entry.name.lower()):
            by_part.setdefault(part, []).append(Path(entry.path))
    named = sum(map(len, by_part.values()))
    if "train" not in by_part or (len(by_part) == 1 and len(folders) > 1):
        if named and named == len(folders):
            there = ", ".join(entry.name for entry in folders)
            raise DataError(f"{folder}: holds {there}, but no train: call the folder to learn from train")
        return {}
    if named < len(folders):  # perhaps classes with these names
        inner, files = scan.entries(by_part["train"][0])
        if not inner and not _list_in(by_part["train"][0], files):
            return {}
    for part, paths in by_part.items():
        if len(paths) > 1:
            raise DataError(f"{folder}: {_names(paths)} are all folders of the {part} set: keep one of them")
    return {part: by_part[part][0] for part in PARTS if part in by_part}


def _list_in(folder: Path, files: Sequence[os.DirEntry[str]]) -> Path | None:
    there = [entry.name for entry in files if entry.name.lower() in _LISTS]
    if len(there) > 1:
        raise DataError(f"{folder}: holds {' and '.join(there)}: keep one of them")
    return folder / there[0] if there else None


def _is_list(path: Path) -> bool:
    return path.suffix.lower() in (".csv", ".tsv", ".jsonl") and not _is_hidden(path.name)


def _other_list(folder: Path, folders: Sequence[os.DirEntry[str]], files: Sequence[os.DirEntry[str]]) -> Path | None:
    """Return the only CSV file beside images that lie in the folder or in its only subfolder."""
    lists = [entry.name for entry in files if _is_list(Path(entry.name))]
    if not lists or len(folders) > 1:
        return None
    if len(lists) > 1:
        raise DataError(f"{folder}: holds several lists, {shown(lists)}: keep one, or call it metadata.csv")
    return folder / lists[0]


def _no_labels(folder: Path, scan: _Scan) -> DataError:
    images = scan.images(folder)
    layouts = "a folder for each class, or a list with the columns file_name and label (metadata.csv)"
    if not images:
        return DataError(f"{folder}: no images are in it: give {layouts}")
    return DataError(
        f"{folder}: {counted(len(images), 'image', 'images')}, but nothing says what they are: give {layouts}"
    )


def _read_parts(found: ImageFolder, scan: _Scan, parts: dict[str, Path], asked: _Asked) -> None:
    inside = {part: (path, *scan.entries(path)) for part, path in parts.items()}
    lists = {part: _list_in(path, files) for part, (path, _, files) in inside.items()}
    if lists["train"] is None and not inside["train"][1]:
        if listed := _list_in(scan.folder, scan.entries(scan.folder)[1]):
            return _read_list(found, scan, {"": listed}, asked)
        raise _no_labels(parts["train"], scan)
    if lists["train"] is None:
        return _read_classes(found, scan, {part: (path, folders) for part, (path, folders, _) in inside.items()})
    if without := [parts[part] for part, path in lists.items() if path is None]:
        raise DataError(f"{without[0]}: has no metadata.csv as {parts['train']} has: add one")
    return _read_list(found, scan, {part: path for part, path in lists.items() if path is not None}, asked)


def _read_classes(found: ImageFolder, scan: _Scan, parts: dict[str, tuple[Path, Sequence[os.DirEntry[str]]]]) -> None:
    """Read the images of class folders; the classes are the folders of train that have images."""
    for part, (path, folders) in parts.items():
        by_class = {entry.name: scan.images(Path(entry.path)) for entry in folders}
        empty = sorted(name for name, files in by_class.items() if not files)
        if part == "train":
            found.class_names = tuple(sorted(name for name, files in by_class.items() if files))
            if not found.class_names:
                raise _no_labels(path, scan)
            if len(found.class_names) == 1:
                raise _one_class(path, found.class_names[0], empty, scan)
        known = found.class_names or ()
        if unknown := sorted(name for name, files in by_class.items() if files and name not in known):
            mend = "put images of it there too, or remove the folder"
            raise DataError(f"{path / unknown[0]}: class {unknown[0]} has no images in train: {mend}")
        if not any(by_class.values()):
            wrong = "its images lie in no folders of classes" if scan.images(path) else "no images are in it"
            raise DataError(f"{path}: {wrong}: put some into a folder for each class, or move the folder away")
        if empty:
            found.notes.append(f"{path}: no images are in {shown(empty)}: {'left out' if part == 'train' else 'none'}")
        files = [file for name in known for file in by_class.get(name, ())]
        counts = [len(by_class.get(name, ())) for name in known]
        found.parts[part] = ImagePart(scan.folder, files, np.repeat(np.arange(len(known), dtype=np.int32), counts))


def _one_class(path: Path, name: str, empty: Sequence[str], scan: _Scan) -> DataError:
    inner = [entry.name for entry in scan.entries(path / name)[0]]
    if len(inner) > 1:
        return DataError(f"{path}: all images are in {name}: did you mean {path / name}?")
    others = f" ({shown(empty)} {'are' if len(empty) > 1 else 'is'} empty)" if empty else ""
    return DataError(f"{path}: only one class, {name}, has images{others}: give a folder for each class")


def _read_list(found: ImageFolder, scan: _Scan, lists: dict[str, Path], asked: _Asked) -> None:
    """Read the images of lists by part, or of one list whose names may begin with the part."""
    are_floats, found.has_list = asked.are_floats, True
    for part, path in lists.items():
        roots = [path.parent, *(Path(entry.path) for entry in scan.entries(path.parent)[0][:1])]
        listed = read_list(path, asked.targets, lambda text, roots=roots: _file_of(text, roots) is not None)  # type: ignore[misc]
        targets, names = listed_targets(listed, found.class_names, are_floats=are_floats)
        are_floats, found.class_names = names is None, names
        files, groups = [], []
        for number, name in enumerate(listed.names):
            file = _file_of(name, roots)
            image = None if file is None else scan.image(file)
            if image is None:
                wrong = "is not in the folder" if file is None else "is no image"
                raise DataError(f"{listed.where(number)}: {name} {wrong}: mend the name, or remove the row")
            files.append(image)
            groups.append(PART_OF.get(name.split("/")[0].lower(), "") if "/" in name and not part else "")
        if "train" in groups and "" not in groups:
            for group in PARTS:
                chosen = [number for number, own in enumerate(groups) if own == group]
                if chosen:
                    found.parts[group] = ImagePart(scan.folder, [files[n] for n in chosen], targets[chosen])
        else:
            found.parts[part or "train"] = ImagePart(scan.folder, files, targets)
        unlisted = {image.name for image in scan.images(path.parent)} - {image.name for image in files}
        if unlisted:
            those = counted(len(unlisted), "image is not listed", "images are not listed")
            found.notes.append(f"{path}: {those}: left out ({shown(sorted(unlisted))})")
        own = path.relative_to(scan.folder).as_posix()
        scan.skipped = [name for name in scan.skipped if name != own]


def _file_of(name: str, roots: Sequence[Path]) -> Path | None:
    """Return the file of a name in a list, which may lack its ending."""
    if not name or "\0" in name or len(name) > _LONGEST_NAME:
        return None
    endings = ("",) if Path(name).suffix.lower() in _SUFFIXES else ("", *_ENDINGS)
    for root in roots:
        for ending in endings:
            with suppress(OSError, ValueError):
                if (root / f"{name}{ending}").is_file():
                    return root / f"{name}{ending}"
    return None
