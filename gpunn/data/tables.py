"""Make data from a table: choose the target, tell classes from numbers and pixels from columns, and split."""

import logging
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.config import nearest
from gpunn.data.checks import scaled_as_pixels
from gpunn.data.columns import (
    MEAN,
    REFUSE,
    Columns,
    has_too_many,
    learn_columns,
    listed,
    moments,
    refuse_missing,
)
from gpunn.data.dataset import Data
from gpunn.data.formats.parts import PART_OF, ReadOptions
from gpunn.data.formats.table import Column, Table, written
from gpunn.data.samples import Samples
from gpunn.errors import DataError, OptionError

log = logging.getLogger(__name__)

TASKS = ("classes", "regression")
RECONSTRUCTION = "reconstruction"  # of images or arrays, as an autoencoder learns it
SCALINGS = "standard", "none"
MOST_WHOLE_CLASSES = 20  # different whole numbers that are taken for classes where `task` is left out
_TARGETS = ("target", "label")  # usual names of a target column
_PIXEL = re.compile(r"(?:pixels?|px|p)?[ _.-]?(\d+)(?:[ _.x-](\d+))?", re.IGNORECASE)
_LEAST_PIXELS = 16
_DATE = re.compile(r"\d{4}-\d\d?-\d\d?(?:[T ].*)?|\d\d?([./-])\d\d?\1\d{2,4}(?: .*)?")
_DECORATED = re.compile(r"[^\w\s]{0,3}\s?\d[\d.,' ]*\s?(?:[%‰$€£]|EUR|USD)?")
_PART_FILE = re.compile(rf"({'|'.join(PART_OF)})\.(?:csv|tsv|parquet)(?:\.gz)?", re.IGNORECASE)
_INDEX = re.compile(r"|unnamed: ?0|index|row(?:_?(?:names?|id|number|nr))?|.*[ _-]id|.*[a-z]Id|id", re.IGNORECASE)


def tables_in(folder: Path) -> dict[str, Path]:
    """Return the tables of a folder by part (train, validation, test); none without one to train on."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        match = _PART_FILE.fullmatch(path.name)
        if match and path.is_file():
            found.setdefault(PART_OF[match[1].lower()], path)
    return found if "train" in found else {}


def names_in(given: str | Sequence[str] | None, what: str, names: Sequence[str] = ()) -> tuple[str, ...]:
    """Return names of columns given as a list, or as a text with commas."""
    if given is None:
        return ()
    if isinstance(given, str):
        given = [given] if given in names else [name.strip() for name in given.split(",")]
    if not isinstance(given, list | tuple) or not all(isinstance(name, str) for name in given):
        raise OptionError(f"{what} is the name of a column, or a list of them, got {given!r:.80}")
    return tuple(dict.fromkeys(given))


def checked_options(options: ReadOptions) -> None:
    """Check the options of tables; raise OptionError for an invalid value."""
    names_in(options.target, "target")
    names_in(options.ignore, "ignore")
    for what, known in (("missing", (REFUSE, MEAN)), ("task", TASKS), ("scaling", SCALINGS)):
        value = getattr(options, what)
        if value is not None and (not isinstance(value, str) or value not in known):
            *first, last = (f'"{each}"' for each in (*known, RECONSTRUCTION)[: 3 if what == "task" else 2])
            raise OptionError(f"{what} is {', '.join(first)} or {last}, got {value!r:.80}")
    if options.scaling == "none" and options.missing == MEAN:
        mend = "leave one of them out, or fill the table before"
        raise OptionError(f'missing "mean" needs the means that scaling "none" does without: {mend}')


def table_data(table: Table, options: ReadOptions, split: dict[str, Any], name: str) -> Data:
    """Make data from a table; means and deviations of its columns are those of the training samples."""
    # A delimiter at the end of each line makes an empty column without a name.
    names = [name for name, column in table.columns.items() if name or not column.is_missing.all()]
    notes = list[str]()
    if table.length < 2:
        raise DataError(f"{table.name}: has one row, and nothing can be learned from that: give more")
    targets = _targets(table, names, options, notes)
    split = dict(split)
    if (tokens := split.pop("tokens", 0)) and options.scaling == "standard":
        mend = "leave scaling out"
        raise OptionError(f'scaling "standard" makes other numbers of tokens, which an Embedding looks up: {mend}')
    features = [column for column in names if column not in targets]
    for column in targets:
        refuse_missing(table, column, None, "fill it, or leave the row out")
    is_pixels = len(targets) == 1 and pixel_shape(table, features) is not None
    labels, classes = _labels(table, targets, options, notes, is_pixels=is_pixels)
    if not is_pixels:
        features = _useful(table, features, notes)
    if notes:
        log.warning("%s: %s", table.name, "; ".join(notes))
    try:
        rows = Samples(np.arange(table.length, dtype=np.float64)[:, None], labels, 1.0, len(classes))
        chosen = Data.from_samples(rows, class_names=classes or None, name=name, **split)
    except DataError as error:
        raise DataError(f"{table.name}: column {targets[0]!r:.60}: {error}") from None
    if is_pixels:
        images, scale = scaled_as_pixels(pixels(table, features))

        def made_of_pixels(some: Samples) -> Samples:
            return replace(some, inputs=images[_rows(some)], scale=scale).as_tokens(tokens)

        return chosen.mapped(made_of_pixels, chosen.class_names)
    train = _rows(chosen.train)
    learned = [moments(table.columns[column].values[train]) for column in targets] if not classes else []
    columns = learn_columns(
        table,
        features,
        train,
        options.missing or REFUSE,
        scales=options.scaling != "none" and not tokens,
        targets=targets,
        classes=classes,
        target_means=tuple(mean for mean, _ in learned),
        target_deviations=tuple(deviation for _, deviation in learned),
    )

    def made(some: Samples) -> Samples:
        wanted = some.targets if classes else columns.standard_targets(some.targets)
        inputs = columns.inputs(table, _rows(some))
        return replace(some, inputs=inputs, targets=wanted, columns=columns).as_tokens(tokens)

    return chosen.mapped(made, chosen.class_names)


def _rows(samples: Samples) -> NDArray[np.intp]:
    """Return the numbers of the rows, which stand for the inputs while they are split."""
    return np.asarray(samples.inputs[:, 0]).astype(np.intp)


def _targets(table: Table, names: list[str], options: ReadOptions, notes: list[str]) -> tuple[str, ...]:
    """Choose the target columns."""
    if len(names) < 2:
        mend = "columns are separated by commas, semicolons, tabs or '|'"
        mend = "ignore fewer" if options.ignore else mend
        raise DataError(f"{table.name}: has one column, {names[0]!r:.60}, and nothing to learn it from: {mend}")
    if chosen := names_in(options.target, "target", names):
        if unknown := [name for name in chosen if name not in names]:
            expected = f"it has {listed(names, 12)}{nearest(unknown[0], names)}"
            raise DataError(f"{table.name}: has no column {unknown[0]!r:.60} to learn: {expected}")
        if len(chosen) == len(names):
            raise DataError(f"{table.name}: all its columns are targets, and none is left to learn from")
        return chosen
    known = [name for name in names if name.lower() in _TARGETS]
    others = [name for name in names if not _PIXEL.fullmatch(name)]
    if len(others) == 1 and pixel_shape(table, [name for name in names if name != others[0]]):
        known = others
    if len(known) == 1 and known[0] != names[-1]:
        notes.append(f"the target is the column {known[0]!r:.60}")
        return (known[0],)
    notes.append(f"the target is the last column, {names[-1]!r:.60} (target names another)")
    return (names[-1],)


def _labels(
    table: Table, targets: Sequence[str], options: ReadOptions, notes: list[str], *, is_pixels: bool
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Return the targets as labels with class names, or as floats (n, targets) with none."""
    columns = [table.columns[name] for name in targets]
    if len(targets) > 1:
        if texts := [name for name, column in zip(targets, columns, strict=True) if column.texts is not None]:
            raise DataError(
                f"{table.name}: several targets are numbers, got texts in {texts[0]!r:.60}: name one target"
            )
        if options.task == "classes":
            raise DataError(f"{table.name}: classes are of one column, got {len(targets)} targets: name one")
    name, column = targets[0], columns[0]
    is_classes = len(targets) == 1 and (
        column.texts is not None
        or options.task == "classes"
        or (options.task != "regression" and (is_pixels or _are_classes(column)))
    )
    if is_classes and column.texts is not None and options.task == "regression":
        raise DataError(f"{table.name}: regression needs numbers, and the column {name!r:.60} holds texts")
    for each, given in zip(targets, columns, strict=True):
        if (given.values == given.values[0]).all() and not given.has_too_many:
            got = repr(given.texts[0])[:60] if given.texts else written(float(given.values[0]))
            raise DataError(
                f"{table.name}: the column {each!r:.60} holds {got} in every row, and nothing is to be learned"
            )
    if not is_classes:
        return np.stack([column.values.astype(np.float64) for column in columns], axis=1), ()
    if column.has_too_many:
        raise DataError(f"{table.name}: the column {name!r:.60} holds too many different texts to be classes")
    if column.texts is not None:
        return column.values, column.texts
    found, places = np.unique(column.values, return_inverse=True)
    if options.task != "classes" and not is_pixels:
        notes.append(
            f'the numbers in {name!r:.60} are taken for {len(found)} classes (task "regression" learns numbers)'
        )
    return places.astype(np.int32), tuple(written(value) for value in found.tolist())


def _are_classes(column: Column) -> bool:
    """Return whether numbers are classes: few whole ones, each in two rows or more on average."""
    values = column.values
    if values.dtype.kind == "f" and not (values == np.round(values)).all():
        return False
    count = len(np.unique(values))
    return count <= MOST_WHOLE_CLASSES and 2 * count <= max(4, len(values))


def _useful(table: Table, features: list[str], notes: list[str]) -> list[str]:
    """Leave out useless columns: empty ones, numbers of rows, dates, texts that differ in each row."""
    kept, left = [], []
    for name in features:
        column = table.columns[name]
        if column.is_missing.all() and not column.has_too_many:
            left.append(f"{name!r:.60} (empty)")
        elif column.texts is None and _INDEX.fullmatch(name) and _are_row_numbers(column.values):
            left.append(f"{name!r:.60} (the number of the row)")
        elif column.texts and all(map(_DATE.fullmatch, column.texts)):
            left.append(f"{name!r:.60} (dates: make numbers of them, such as days, to learn from them)")
        elif column.texts and len(column.texts) > 2 and all(map(_DECORATED.fullmatch, column.texts)):
            mend = "write digits and a decimal point alone, or ignore the column"
            got = f"holds numbers that are written with more, such as {column.texts[0]!r:.40}"
            raise DataError(f"{table.name}: column {name!r:.60} {got}: {mend}")
        elif column.texts is not None and has_too_many(column):
            count = "too many" if column.has_too_many else f"{len(column.texts):,}"
            left.append(f"{name!r:.60} ({count} different texts)")
        else:
            kept.append(name)
    if left:
        shown = ", ".join(left[:8]) + (f" and {len(left) - 8} more" if len(left) > 8 else "")
        notes.append(f"left out {shown}")
    if not kept:
        raise DataError(f"{table.name}: no column is left to learn from: {'; '.join(notes)}")
    return kept


def _are_row_numbers(values: NDArray[Any]) -> bool:
    """Return whether all numbers are whole and differ, like those of rows."""
    return bool((values == np.round(values)).all()) and len(np.unique(values)) == len(values)


def pixel_shape(table: Table, names: Sequence[str]) -> tuple[int, int, int] | None:
    """Return (height, width, channels) of the images if these columns are their pixels, else None."""
    found = [_PIXEL.fullmatch(name) for name in names]
    if len(names) < _LEAST_PIXELS or not all(found):
        return None
    if any(table.columns[name].values.dtype != np.uint8 or table.columns[name].texts is not None for name in names):
        return None
    places = [(int(match[1]), match[2]) for match in found if match]
    if all(second is not None for _, second in places):
        rows, columns = (set(each) for each in zip(*((a, int(b or 0)) for a, b in places), strict=True))
        shape = (max(rows) - min(rows) + 1, max(columns) - min(columns) + 1, 1)
    else:
        for channels in (1, 3):
            side = math.isqrt(len(names) // channels)
            shape = (side, side, channels)
            if math.prod(shape) == len(names):
                break
    return shape if math.prod(shape) == len(names) == len(set(places)) else None


def are_pixels(names: Sequence[str]) -> bool:
    """Return whether columns are pixels by their names; one of them may be the target."""
    count = sum(_PIXEL.fullmatch(name) is not None for name in names)
    return count >= _LEAST_PIXELS and count >= len(names) - 1


def pixels(table: Table, names: Sequence[str]) -> NDArray[np.uint8]:
    """Make images (n, height, width, channels) from columns of pixels, in the order of their numbers."""
    shape = pixel_shape(table, names)
    assert shape is not None

    def order(name: str) -> tuple[int, int]:
        match = _PIXEL.fullmatch(name)
        assert match is not None
        return int(match[1]), int(match[2] or 0)

    made = np.empty((table.length, len(names)), np.uint8)
    for place, name in enumerate(sorted(names, key=order)):
        made[:, place] = table.columns[name].values
    return made.reshape(table.length, *shape)


def table_inputs(read: Callable[..., Table], columns: Columns | None) -> NDArray[Any]:
    """Read a table, and return its inputs: by the training's columns, or its pixels, or all of its numbers."""
    if columns is not None:
        return columns.inputs(read(columns.kinds))
    table = read()
    names = list(table.columns)
    known = [name for name in names if _PIXEL.fullmatch(name)]
    if known and len(names) - len(known) <= 1 and pixel_shape(table, known):
        return pixels(table, known)
    for name in names:
        if table.columns[name].texts is not None:
            raise DataError(
                f"{table.name}: column {name!r:.60} holds texts, and the network was trained on arrays of numbers: "
                "leave it out"
            )
        refuse_missing(table, name, None, "fill it, or leave the row out")
    return np.stack([table.columns[name].values.astype(np.float32) for name in names], axis=1)
