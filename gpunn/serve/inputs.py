"""Prepare the inputs that the page sends: a picture, values by column, tokens, or the numbers themselves."""

import math
import os
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.config import nearest
from gpunn.data.columns import MEAN, Columns
from gpunn.data.formats.image import image_shape
from gpunn.data.formats.image_pixels import read_header
from gpunn.data.formats.inputs import kind_of_file, read_inputs
from gpunn.data.formats.table import Column, Table
from gpunn.data.tokens import as_tokens
from gpunn.errors import DataError, GpunnError
from gpunn.sequential import Sequential

MOST_PIXELS = 50_000_000  # of a picture
_LARGEST = 1e30  # size of a number
_ADVICE = re.compile(r", or leave it as it is by --no-prepare| \(--invert never leaves them\)")


@dataclass(frozen=True)
class Prepared:
    """Input for the network: one sample, (1, ...), its factor, and the changes made to it."""

    batch: Any
    scale: float
    changes: tuple[str, ...] = ()


def prepared(model: Sequential, inputs: NDArray[Any], changes: Sequence[str] = ()) -> Prepared:
    """Prepare one sample as `predict_proba` does."""
    batch = model._batch(inputs, model._built())
    return Prepared(batch, model.factor_of(batch), tuple(changes))


def from_picture(model: Sequential, shape: tuple[int, ...], content: bytes) -> Prepared:
    """Prepare the bytes of an image file by the steps of `gpunn predict`."""
    changes: list[str] = []
    with _as_file(content) as path:

        def told(line: str) -> str:
            return _ADVICE.sub("", line.replace(f"{path}: ", "").replace(str(path), "the picture"))

        try:
            kind = kind_of_file(path, "send an image")
            if not kind.image:
                mend = f": {kind.mend}" if kind.mend else ""
                raise DataError(f"the body is no picture that can be read, but {kind.name}{mend}: send a PNG or JPEG")
            image_shape(path, shape)  # first: it raises if the network takes no images
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                header = read_header(path, kind.image)
            if header.height * header.width > MOST_PIXELS:
                size = f"{header.width} × {header.height} pixels are more than {MOST_PIXELS:,}"
                raise DataError(f"{size}: make the picture smaller")
            note = lambda line: changes.append(told(line))  # noqa: E731
            inputs = read_inputs(path, shape, note=note, trained_on=model.trained_on)
        except GpunnError as error:
            raise DataError(told(str(error))) from None
    return prepared(model, inputs, changes)


@contextmanager
def _as_file(content: bytes) -> Iterator[Path]:
    """Give bytes a path, in memory where the system can."""
    if hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir():
        with os.fdopen(os.memfd_create("picture", os.MFD_CLOEXEC), "wb") as file:
            file.write(content)
            file.flush()
            yield Path(f"/proc/self/fd/{file.fileno()}")
        return
    with tempfile.TemporaryDirectory(prefix="gpunn-serve-") as folder:
        path = Path(folder) / "picture"
        path.write_bytes(content)
        yield path


def from_pixels(model: Sequential, shape: tuple[int, ...], numbers: Any) -> Prepared:
    """Prepare numbers as the network sees them, such as `prepared` of an earlier answer."""
    values = _numbers(numbers, math.prod(shape), "pixels")
    if model.tokens:
        return prepared(model, np.asarray(as_tokens(_whole(values)[None], model.tokens)))
    trained_on = model.trained_on
    factor = 1.0 if trained_on is None or trained_on.is_bytes else trained_on.scale
    inputs = (values / factor).astype(model.dtype).reshape(1, *shape)
    return prepared(model, inputs)


def from_values(model: Sequential, shape: tuple[int, ...], values: Any) -> Prepared:
    """Prepare values: by column name if the network was trained on a table, else as a list in order."""
    columns = None if model.trained_on is None else model.trained_on.columns
    if columns is not None:
        return prepared(model, *_from_row(columns, values))
    if not isinstance(values, list):
        raise DataError(f"values are a list of {math.prod(shape):,} numbers, got {_kind(values)}")
    numbers = _numbers(values, math.prod(shape), "values")
    if model.tokens:
        return prepared(model, np.asarray(as_tokens(_whole(numbers)[None], model.tokens)))
    return prepared(model, numbers.astype(model.dtype).reshape(1, *shape))


def _from_row(columns: Columns, values: Any) -> tuple[NDArray[np.float32], list[str]]:
    """Return the features (1, features) of values by column, and a note on missing ones, which get their means."""
    if not isinstance(values, Mapping):
        raise DataError(f"values are a table of columns and their values, got {_kind(values)}")
    if unknown := [name for name in values if name not in columns.names]:
        expected = f"expected {', '.join(columns.names[:12])}{nearest(unknown[0], columns.names)}"
        raise DataError(f"there is no column {unknown[0]!r:.60}: {expected}")
    cells: dict[str, Column] = {}
    missing = []
    for name in columns.names:
        value = values.get(name)
        if value is None or value == "":
            missing.append(name)
        if name in columns.categories:
            if value is not None and not isinstance(value, str):
                raise DataError(f"column {name!r:.60} takes a text, got {_kind(value)}")
            cells[name] = Column(np.array([0 if value else -1], np.int64), (value or "",))
        else:
            number = math.nan if value is None or value == "" else _number(value, f"column {name!r:.60}")
            cells[name] = Column(np.array([number], np.float64))
    table = Table("values", cells, 1, lambda _: "the row")
    filling = replace(columns, missing=MEAN)
    changes = [f"missing, so the mean was taken: {', '.join(missing[:8])}{', …' * (len(missing) > 8)}"]
    return filling.inputs(table), changes if missing else []


def _numbers(values: Any, count: int, what: str) -> NDArray[np.float64]:
    if not isinstance(values, list) or len(values) != count:
        got = f"{len(values):,}" if isinstance(values, list) else _kind(values)
        raise DataError(f"{what} are a list of {count:,} numbers, got {got}")
    return np.array([_number(value, what) for value in values], np.float64)


def _number(value: Any, what: str) -> float:
    """Return a finite number from JSON; a typed text may be one too."""
    if isinstance(value, str) and len(value) < 40:
        try:
            value = float(value)
        except ValueError:
            raise DataError(f"{what}: expected a number, got {value!r}") from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_LARGEST <= value <= _LARGEST:
        got = f"{value!r:.40}" if type(value) in (int, float) else _kind(value)
        raise DataError(f"{what}: expected a finite number, got {got}")
    return float(value)


def _whole(values: NDArray[np.float64]) -> NDArray[np.int64]:
    if (wrong := np.flatnonzero((values != np.rint(values)) | (np.abs(values) > 2**31))).size:
        raise DataError(f"tokens are whole numbers, got {values[wrong[0]]:g}")
    return values.astype(np.int64)


def _kind(value: Any) -> str:
    words = {dict: "a table", list: "a list", str: "a text", bool: "true or false", type(None): "nothing"}
    return words.get(type(value), "a number")
