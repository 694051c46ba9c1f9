"""What the names of arrays in a .npz file mean: inputs, targets or weights of a part, or the names of the classes.

Understood are the names of Keras (x_train), scikit-learn (X, y, data, target), MedMNIST (train_images), of `np.savez`
itself (arr_0, arr_1), and their like, in any letters.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from gpunn.errors import DataError

INPUTS, TARGETS, WEIGHTS, NAMES = "inputs", "targets", "sample weights", "class names"
TRAIN, VALIDATION, TEST = "train", "validation", "test"
_PARTS = {
    TRAIN: ("train", "training", "tr"),
    VALIDATION: ("validation", "valid", "val", "dev"),
    TEST: ("test", "testing", "te"),
}
_KINDS = {
    TARGETS: ("y", "ys", "target", "targets", "label", "labels", "output", "outputs"),
    INPUTS: ("x", "xs", "data", "image", "images", "img", "imgs", "input", "inputs", "feature", "features"),
}
_PART_OF = {word: part for part, words in _PARTS.items() for word in words}
_CLASS_NAMES = re.compile(r"(class(es)?|labels?|targets?)_?names?")
_WEIGHTS = re.compile(r"samples?_?weights?")
_PLAIN, _WORD = re.compile(r"[A-Za-z0-9 ._-]{1,64}"), re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
_UNNAMED = {"arr_0": INPUTS, "arr_1": TARGETS}  # what np.savez(path, x, y) writes


class Meaning(NamedTuple):
    """What an array is: its kind, and the part of the data set, "" where its name has none."""

    kind: str
    part: str = ""


def meaning(key: str) -> Meaning | None:
    """Tell what an array of this name is, or None for any other."""
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
    # The labels of images are labels.
    kind = next((kind for kind in (WEIGHTS, TARGETS, INPUTS) if kind in kinds), "")
    return Meaning(kind, "".join(parts)) if kind and len(parts) <= 1 else None


def _read(word: str) -> tuple[str, str]:
    """Return part and kind that a word says: "train", "images", "xtrain", "testlabels"."""
    for kind, words in _KINDS.items():
        if word in words:
            return "", kind
        for other in words:
            for rest in (word.removeprefix(other), word.removesuffix(other)):
                if rest != word and rest in _PART_OF:
                    return _PART_OF[rest], kind
    return _PART_OF.get(word, ""), ""


def by_meaning(keys: Iterable[str]) -> dict[Meaning, list[str]]:
    """Sort the names of arrays by what they mean."""
    found: dict[Meaning, list[str]] = {}
    for key in sorted(keys):
        if (told := meaning(key)) is not None:
            found.setdefault(told, []).append(key)
    return found


def one_of(keys: list[str], wanted: Meaning) -> str | None:
    """Return the one of the arrays that could be wanted, None of none; raise DataError where it is not clear."""
    usual = usual_key(wanted)
    if usual in keys or len(keys) < 2:
        return usual if usual in keys else next(iter(keys), None)
    of = f" of {wanted.part}" if wanted.part else ""
    shown = ", ".join(keys[:4]) + (", ..." if len(keys) > 4 else "")
    raise DataError(f"{shown} could each be the {wanted.kind}{of}: name the one to take {usual}")


def usual_key(wanted: Meaning) -> str:
    """Return the name that goes before all others: x, y_train, sample_weight_test, class_names."""
    key = {INPUTS: "x", TARGETS: "y", WEIGHTS: "sample_weight", NAMES: "class_names"}[wanted.kind]
    return f"{key}_{wanted.part}" if wanted.part else key
