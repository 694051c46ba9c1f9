"""Encode text labels as class numbers, and check class names, which a model file must be able to hold."""

import json
import logging
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpunn.backend.limits import require
from gpunn.data.checks import MAX_CLASSES
from gpunn.errors import DataError

log = logging.getLogger(__name__)

MOST_CHARACTERS = 255  # of a class name; a longer text is no label
MOST_BYTES = 1 << 20  # of all class names in a model file, whose description may be twice as long
_TEXT_BYTES = 64  # of a short text of Python's, with its place in a list


def encode_labels(y: ArrayLike, names: Sequence[str] | None) -> tuple[ArrayLike, Sequence[str] | None]:
    """Encode text labels as class numbers by `names`, by default their own; return other labels unchanged."""
    texts = _texts(y)
    if texts is None:
        return y, names
    if names is None:
        names = _own_names(texts)
    places = {name: place for place, name in enumerate(names)}
    if (unknown := next((text for text in texts if text not in places), None)) is not None:
        shown = [f"{name!r:.40}" for name in list(names)[:8]] + ["..."] * (len(names) > 8)
        known = ", ".join(shown) or "numbers"
        got = f"label {unknown!r:.80} at index {texts.index(unknown)}"
        raise DataError(f"{got} is no class: expected {known}; class_names names all")
    return np.array([places[text] for text in texts], np.int32), names


def counted_names(class_names: Sequence[str]) -> int:
    """Return the number of classes, -1 where no names are given; a string is no list of names."""
    if isinstance(class_names, str):
        raise DataError(f"class_names is a list of names, got the text {class_names!r}: write [{class_names!r}, ...]")
    is_list = isinstance(class_names, Sequence) or getattr(class_names, "ndim", 0) == 1
    if not is_list or any(isinstance(name, list | tuple | np.ndarray) for name in class_names):
        raise DataError(f"class_names is a list of names, got {type(class_names).__name__}: write ['cat', 'dog']")
    return len(class_names) or -1


def checked_names(class_names: Sequence[str] | None, classes: int) -> tuple[str, ...]:
    """Check the names of classes; left out, return the numbers of the classes."""
    if class_names is None:
        return tuple(str(k) for k in range(classes))
    counted_names(class_names)
    names = tuple(
        _decoded(name, place) if isinstance(name, bytes) else str(name) for place, name in enumerate(class_names)
    )
    if len(names) != classes:
        raise DataError(f"expected {classes} class names, one for each class, got {len(names)}")
    for place, name in enumerate(names):
        if wrong := _fault(name):
            raise DataError(f"class name {name!r:.80} at place {place} {wrong}: give another")
    if len(set(names)) != len(names):
        raise DataError("two classes have the same name: give each class a name of its own")
    if (size := sum(len(json.dumps(json.dumps(name))) for name in names)) > MOST_BYTES:
        raise DataError(f"the class names take {size:,} bytes, at most {MOST_BYTES:,}: give shorter ones")
    return names


def _own_names(texts: list[str]) -> list[str]:
    """Return the different labels, sorted; raise DataError for one that cannot be a class name."""
    names = sorted(set(texts))
    if (wrong := next((name for name in names if _fault(name)), None)) is not None:
        raise DataError(f"label {wrong!r:.80} at index {texts.index(wrong)} {_fault(wrong)}: give it another name")
    try:
        list(map(float, names))
    except ValueError:
        pass
    else:
        mend = "use y.astype(int) for classes, y.astype(float) for regression"
        raise DataError(f"labels are numbers written as texts, such as {texts[0]!r}: {mend}")
    if len(names) > MAX_CLASSES:
        got = f"{len(names):,} different texts in {len(texts):,} labels"
        raise DataError(f"labels are of at most {MAX_CLASSES:,} classes, got {got}: give categories, not identifiers")
    alike: dict[str, str] = {}
    for name in names:
        other = alike.setdefault(unicodedata.normalize("NFKC", " ".join(name.split())), name)
        if other != name:
            log.warning("labels %r and %r look alike, and are two classes: mend the texts if they are one", other, name)
            break
    return names


def _fault(name: str) -> str:
    """Return the reason why a text cannot be a class name, "" if it can."""
    if not name.strip():
        return "is empty"
    if not name.isprintable():
        return "is no text of one line that can be printed"
    if len(name) > MOST_CHARACTERS:
        return f"has {len(name):,} characters, at most {MOST_CHARACTERS}"
    return ""


def _texts(y: ArrayLike) -> list[str] | None:
    """Return labels as texts, or None if they are none."""
    if isinstance(y, np.ma.MaskedArray) and y.dtype.kind in "USO" and np.ma.is_masked(y):
        index = int(np.flatnonzero(np.ma.getmaskarray(y).ravel())[0])
        raise DataError(f"the label at index {index} is missing (masked): fill or drop such samples first")
    try:
        # NumPy would turn numbers beside texts into texts, and missing values into "nan".
        array: NDArray[Any] = np.array(y, object) if isinstance(y, list | tuple) else np.asarray(y)
    except (ValueError, TypeError, RuntimeError):
        return None  # reported where they are read as numbers
    if array.dtype.kind not in "USOT" or not array.size or not (array.ndim == 1 or array.shape[1:] == (1,)):
        return None
    require(array.size * _TEXT_BYTES, "labels as texts")
    # A file may hold code points beyond the last character, which Python cannot turn into texts.
    code_points = np.dtype(np.uint32).newbyteorder(array.dtype.byteorder)
    if array.dtype.kind == "U" and np.ascontiguousarray(array).view(code_points).max() > 0x10FFFF:
        raise DataError("labels hold what is no character: the file is damaged, get or save it again")
    values = array.ravel().tolist()
    are_texts = [isinstance(value, str | bytes) for value in values]
    if not any(are_texts):
        return None
    for index, value in enumerate(values):
        if not are_texts[index]:
            if _is_missing(value):
                wrong = f"the label at index {index} is missing ({value!r:.40})"
                raise DataError(f"{wrong}: fill or drop such samples first")
            raise DataError(f"labels are names or numbers, got {value!r:.80} at index {index} among names")
    return [_decoded(value, index) for index, value in enumerate(values)]


def _decoded(value: str | bytes, index: int) -> str:
    try:
        return value.decode() if isinstance(value, bytes) else str(value)
    except UnicodeDecodeError:
        wrong = f"label {value!r:.80} at index {index} is no text in UTF-8"
        raise DataError(f"{wrong}: y = np.char.decode(y, 'latin-1'), say, makes texts of bytes") from None


def _is_missing(value: Any) -> bool:
    """Return whether a value is None, NaN, or NA or NaT of pandas, which is not imported for it."""
    is_nan = isinstance(value, float) and value != value
    return value is None or is_nan or type(value).__name__ in ("NAType", "NaTType")
