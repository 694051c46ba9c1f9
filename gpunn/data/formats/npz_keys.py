"""Understand the names of arrays in a .npz file: inputs, targets or weights of a part, or the class names.

Understood are the names of Keras (x_train), scikit-learn (X, y, data, target), MedMNIST (train_images), of `np.savez`
itself (arr_0, arr_1), and their like, in any letters.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from gpunn.data.formats.parts import PART_OF
from gpunn.errors import DataError

INPUTS, TARGETS, WEIGHTS, NAMES = "inputs", "targets", "sample weights", "class names"
TRAIN, VALIDATION, TEST = "train", "validation", "test"
_KINDS = {
    TARGETS: ("y", "ys", "target", "targets", "label", "labels", "output", "outputs"),
    INPUTS: ("x", "xs", "data", "image", "images", "img", "imgs", "input", "inputs", "feature", "features"),
}
_PART_OF = PART_OF | {"tr": TRAIN, "te": TEST}
_CLASS_NAMES = re.compile(r"(class(es)?|labels?|targets?)_?names?")
_WEIGHTS = re.compile(r"samples?_?weights?")
_PLAIN, _WORD = re.compile(r"[A-Za-z0-9 ._-]{1,64}"), re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
_UNNAMED = {"arr_0": INPUTS, "arr_1": TARGETS}  # from np.savez(path, x, y)


class Meaning(NamedTuple):
    """Kind of an array, and part of the data set, "" where its name has none."""

    kind: str
    part: str = ""


def meaning(key: str) -> Meaning | None:
    """Return the meaning of an array's name, None for an unknown one."""
    if key in _UNNAMED:
        return Meaning(_UNNAMED[key])
    if not _PLAIN.fullmatch(key):
        return None
    words = "_".join(_WORD.findall(key)).lower()
    if _CLASS_NAMES.fullmatch(words):
        return Meaning(NAMES)
    left = _WEIGHTS.sub("", words)
    parts, kinds = set[str](), {WEIGHTS} if left != words else set[str]()
    for word in (word for word in left.split("_") if word and word != "set"):
        part, kind = _read(word)
        if not part and not kind:
            return None
        parts, kinds = parts | ({part} - {""}), kinds | ({kind} - {""})
    # "image_labels" are labels.
    kind = next((kind for kind in (WEIGHTS, TARGETS, INPUTS) if kind in kinds), "")
    return Meaning(kind, "".join(parts)) if kind and len(parts) <= 1 else None


def _read(word: str) -> tuple[str, str]:
    """Return part and kind in a word, "" for none: "train", "images", "xtrain", "testlabels"."""
    for kind, words in _KINDS.items():
        if word in words:
            return "", kind
        for other in words:
            for rest in (word.removeprefix(other), word.removesuffix(other)):
                if rest != word and rest in _PART_OF:
                    return _PART_OF[rest], kind
    return _PART_OF.get(word, ""), ""


def by_meaning(keys: Iterable[str]) -> dict[Meaning, list[str]]:
    """Group the names of arrays by their meaning."""
    found: dict[Meaning, list[str]] = {}
    for key in sorted(keys):
        if (told := meaning(key)) is not None:
            found.setdefault(told, []).append(key)
    return found


def one_of(keys: list[str], wanted: Meaning) -> str | None:
    """Choose the array with the wanted meaning, None if there is none; raise DataError if several could be it."""
    usual = usual_key(wanted)
    if usual in keys or len(keys) < 2:
        return usual if usual in keys else next(iter(keys), None)
    of = f" of {wanted.part}" if wanted.part else ""
    shown = ", ".join(keys[:4]) + (", ..." if len(keys) > 4 else "")
    raise DataError(f"{shown} could each be the {wanted.kind}{of}: name the one to take {usual}")


def usual_key(wanted: Meaning) -> str:
    """Return the preferred name of an array: x, y_train, sample_weight_test, class_names."""
    key = {INPUTS: "x", TARGETS: "y", WEIGHTS: "sample_weight", NAMES: "class_names"}[wanted.kind]
    return f"{key}_{wanted.part}" if wanted.part else key
