"""Read lists of image files with labels or numbers: metadata.csv, metadata.jsonl (Hugging Face) or another CSV.

Source: Hugging Face, "Create an image dataset" (ImageFolder), https://huggingface.co/docs/datasets/image_dataset.
"""

import csv
import io
import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpunn.errors import DataError
from gpunn.files import read_regular

_MOST_BYTES, _MOST_ROWS, _MOST_COLUMNS = 256 << 20, 1 << 22, 1000
_NAMES = ("file_name", "filename", "file", "image", "image_path", "image_name", "path", "name", "image_id", "id")
_TARGETS = ("label", "labels", "class", "target")  # preferred among several columns
_WHOLE, _DECIMAL = re.compile(r"[+-]?\d{1,18}"), re.compile(r"[+-]?\d+,\d+")


class ImageList(NamedTuple):
    """Names of image files in a list, the numbers of their rows, and the target columns."""

    path: Path
    names: list[str]
    rows: list[int]
    columns: list[str]
    values: list[list[str]]  # for each image

    def where(self, number: int, column: str = "") -> str:
        """Return the place of an entry for an error."""
        return f"{self.path}: row {self.rows[number]}" + (f", column {column}" if column else "")


def read_list(path: Path, targets: Sequence[str] = (), has_image: Callable[[str], bool] = lambda _: False) -> ImageList:
    """Read a list; `has_image` tells whether a text names an image, and so whether a CSV has a header."""
    try:
        text = read_regular(path, _MOST_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}): check the path") from None
    except UnicodeDecodeError as error:
        wrong = f"byte {error.start:,} is no UTF-8 text"
        raise DataError(f"{path}: {wrong}: save it again as CSV in UTF-8") from None
    is_json = path.suffix.lower() == ".jsonl"
    header, rows = _json_rows(path, text) if is_json else _csv_rows(path, text, has_image)
    if not rows:
        raise DataError(f"{path}: lists no images: give a line of names, and one line for each image")
    place = next((header.index(name) for name in _NAMES if name in header), None)
    if place is None:
        known = [place for place, value in enumerate(rows[0][1]) if has_image(value)]
        if not known:
            expected = f"expected a column file_name, got {', '.join(header[:8])}"
            raise DataError(f"{path}: {expected}: name the column of the image files so")
        place = known[0]
    chosen = _chosen(path, header, place, targets, rows)
    for number, row in rows:
        for column in (place, *chosen):
            if not row[column].strip():
                mend = "fill it in, or remove the row"
                raise DataError(f"{path}: row {number}, column {header[column]}: nothing is there: {mend}")
    names = [_inside(path, number, row[place].strip()) for number, row in rows]
    first: dict[str, int] = {}
    for name, (number, _) in zip(names, rows, strict=True):
        if first.setdefault(name, number) != number:
            raise DataError(f"{path}: row {number}: {name} stands in row {first[name]} too: remove one of them")
    values = [[row[column].strip() for column in chosen] for _, row in rows]
    return ImageList(path, names, [number for number, _ in rows], [header[column] for column in chosen], values)


def _csv_rows(path: Path, text: str, has_image: Callable[[str], bool]) -> tuple[list[str], list[tuple[int, list[str]]]]:
    first = next((line for line in text[: 1 << 16].splitlines() if line.strip()), "")
    delimiter = max(",;\t|", key=first.count)
    rows: list[tuple[int, list[str]]] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for cells in reader:
            if not any(map(str.strip, cells)):
                continue
            if delimiter != ",":
                cells = [cell.replace(",", ".") if _DECIMAL.fullmatch(cell.strip()) else cell for cell in cells]
            if rows and len(cells) != len(rows[0][1]):
                wrong = f"{len(cells)} cells, the first row has {len(rows[0][1])}"
                raise DataError(f"{path}: row {reader.line_num} has {wrong}: give each row as many")
            rows.append((reader.line_num, cells))
            if len(rows) > _MOST_ROWS or len(cells) > _MOST_COLUMNS:
                limits = f"{_MOST_ROWS:,} rows and {_MOST_COLUMNS:,} columns"
                raise DataError(f"{path}: is larger than {limits}: split it up")
    except csv.Error as error:
        raise DataError(f"{path}: row {reader.line_num} is no CSV ({error}): save it again as CSV") from None
    if rows and any(map(has_image, rows[0][1])):  # no header
        return [f"column {number}" for number in range(1, 1 + len(rows[0][1]))], rows
    return [cell.strip() for cell in rows[0][1]] if rows else [], rows[1:]


def _json_rows(path: Path, text: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    header: list[str] = []
    rows: list[tuple[int, list[str]]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            table = json.loads(line)
        except (ValueError, RecursionError):
            raise DataError(f"{path}: row {number} is no JSON: give one object a line") from None
        header = header or (list(table) if isinstance(table, dict) else [])
        if not isinstance(table, dict) or set(table) != set(header) or len(header) > _MOST_COLUMNS:
            expected = f"expected an object with {', '.join(header[:8]) or 'file_name'}"
            raise DataError(f"{path}: row {number}: {expected}: give one object with these keys a line")
        if len(rows) >= _MOST_ROWS:
            raise DataError(f"{path}: is larger than {_MOST_ROWS:,} rows: split it up")
        rows.append((number, [_cell(table[key]) for key in header]))
    return header, rows


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def _chosen(
    path: Path, header: list[str], place: int, targets: Sequence[str], rows: list[tuple[int, list[str]]]
) -> list[int]:
    """Choose the target columns: those in `targets`, `label`, the only one, or all if all are numbers."""
    for name in targets:
        if name not in header or header.index(name) == place:
            others = ", ".join(name for column, name in enumerate(header) if column != place)
            raise DataError(f"{path}: has no column {name!r:.80} of targets: expected one of {others[:200]}")
    if targets:
        return [header.index(name) for name in targets]
    columns = [column for column in range(len(header)) if column != place]
    if not columns:
        raise DataError(f"{path}: names images and nothing else: add a column of labels or numbers")
    for name in _TARGETS if len(columns) > 1 else ():
        if name in header and header.index(name) != place:
            return [header.index(name)]
    if len(columns) > 1:
        for column in columns:
            wrong = next(((number, row[column]) for number, row in rows if _number(row[column]) is None), None)
            if wrong is not None:
                got = f"row {wrong[0]}, column {header[column]}: {wrong[1]!r:.60} is no number"
                mend = f"of several columns all are numbers, or one is label, or is chosen by --target {header[column]}"
                raise DataError(f"{path}: {got}: {mend}")
    return columns


def _inside(path: Path, number: int, name: str) -> str:
    """Return the name of an image as a relative path inside the folder; raise DataError for any other."""
    pure = PurePosixPath(name.replace("\\", "/"))
    parts = [part for part in pure.parts if part != "."]
    if pure.is_absolute() or ".." in parts or not parts or "\0" in name or re.match("[A-Za-z]:", name):
        mend = "give paths relative to the list"
        raise DataError(f"{path}: row {number}: {name!r:.200} leads out of the folder: {mend}")
    return "/".join(parts)


def _number(text: str) -> float | None:
    try:
        return float(text) if "_" not in text else math.nan
    except ValueError:
        return None


def listed_targets(
    listed: ImageList, class_names: Sequence[str] | None = None, *, are_floats: bool | None = None
) -> tuple[NDArray[Any], tuple[str, ...] | None]:
    """Return the targets of a list: labels with class names, or floats (n, columns); by default chosen by the values.

    One column of whole numbers or of texts is labels; everything else must be finite numbers.
    """
    several, texts = len(listed.columns) > 1, [row[0] for row in listed.values]
    numbers = None if several else [_number(text) for text in texts]
    if are_floats is None and numbers is not None:
        are_whole = all(map(_WHOLE.fullmatch, texts))
        pairs = zip(texts, numbers, strict=True)
        with_point = sum(number is not None and not _WHOLE.fullmatch(text) for text, number in pairs)
        are_floats = not are_whole and with_point > len(texts) / 2
    if several or are_floats:
        rows = [[_finite(listed, i, column, text) for column, text in zip(listed.columns, row, strict=True)]
                for i, row in enumerate(listed.values)]  # fmt: skip
        return np.array(rows, np.float32), None
    if all(map(_WHOLE.fullmatch, texts)):
        texts = [str(int(text)) for text in texts]
    if class_names is None:
        are_whole = all(map(_WHOLE.fullmatch, texts))
        class_names = [str(n) for n in sorted(map(int, set(texts)))] if are_whole else sorted(set(texts))
    places = {name: place for place, name in enumerate(class_names)}
    for number, text in enumerate(texts):
        if text not in places:
            known = ", ".join(list(class_names)[:8])
            raise DataError(f"{listed.where(number, listed.columns[0])}: {text!r:.60} is no class of train ({known})")
    return np.array([places[text] for text in texts], np.int32), tuple(class_names)


def _finite(listed: ImageList, number: int, column: str, text: str) -> float:
    value = _number(text)
    if value is None or not abs(value) <= np.finfo(np.float32).max:
        mend = "give a finite number, or remove the row"
        raise DataError(f"{listed.where(number, column)}: {text!r:.60} is no number: {mend}")
    return value
