"""Load the data sets in scikit-learn's package by name, such as sklearn:iris; nothing is downloaded."""

import warnings
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpunn.config import nearest
from gpunn.data.published import DIGITS
from gpunn.data.samples import Samples
from gpunn.errors import DataError, OptionError

PREFIX = "sklearn:"
TABLES = ("iris", "wine", "breast_cancer", "diabetes", "linnerud")
SKLEARN_NAMES = ("digits", *TABLES)
_CLASSES = ("iris", "wine", "breast_cancer")
_DOWNLOADED = (
    "20newsgroups", "20newsgroups_vectorized", "california_housing", "covtype", "kddcup99", "lfw_pairs", "lfw_people",
    "olivetti_faces", "openml", "rcv1", "species_distributions",
)  # fmt: skip


class SklearnTable(NamedTuple):
    """Table of scikit-learn: columns by name, targets, and whether these are classes."""

    columns: dict[str, NDArray[Any]]
    targets: tuple[str, ...]
    are_classes: bool


def is_sklearn_table(source: str) -> bool:
    """Return whether a source names one of the tables."""
    return source.startswith(PREFIX) and set_name(source) in TABLES


def set_name(source: str) -> str:
    """Return the name after sklearn:, in scikit-learn's spelling; raise OptionError for one that is not bundled."""
    given = source.removeprefix(PREFIX)
    name = given.lower().replace("-", "_").removeprefix("load_")
    if name in SKLEARN_NAMES:
        return name
    known = ", ".join(f"{PREFIX}{each}" for each in SKLEARN_NAMES)
    if (fetched := name.removeprefix("fetch_")) in _DOWNLOADED or name.startswith("fetch_"):
        save = f"save what sklearn.datasets.fetch_{fetched}() gives by np.savez(path, x=x, y=y), and give that file"
        raise OptionError(f"{source} is no set in scikit-learn's package, which downloads it: {save}")
    guess = nearest(name, SKLEARN_NAMES, f'did you mean "{PREFIX}{{}}"?') or "check its spelling"
    raise OptionError(f'unknown data set "{source}": expected {known}; {guess}')


def sklearn_digits() -> Samples:
    """Return the 1,797 digits, (n, 8, 8, 1) bytes from 0 to 16."""
    found = _loaded("digits")
    return Samples(found.images.astype(np.uint8), found.target.astype(np.int64), 1 / 16, len(DIGITS))


def sklearn_table(name: str) -> SklearnTable:
    """Return a table; classes are texts, their names in scikit-learn."""
    found, are_classes = _loaded(name), name in _CLASSES
    columns = {str(key): values for key, values in zip(found.feature_names, found.data.T, strict=True)}
    if are_classes:
        return SklearnTable(columns | {"target": np.asarray(found.target_names)[found.target]}, ("target",), True)
    targets = [str(key) for key in found.get("target_names", ["target"])]
    wanted = np.asarray(found.target, np.float64).reshape(len(found.target), -1).T
    return SklearnTable(columns | dict(zip(targets, wanted, strict=True)), tuple(targets), False)


def _loaded(name: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of libraries that scikit-learn imports
            datasets = import_module("sklearn.datasets")
    except ImportError as error:
        mend = "install it, pip install scikit-learn"
        raise DataError(f"{PREFIX}{name} comes with scikit-learn, which cannot be imported ({error}): {mend}") from None
    return getattr(datasets, f"load_{name}")()
