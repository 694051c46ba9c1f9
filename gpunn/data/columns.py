"""Turn the columns of a table into features: numbers standardised, texts one-hot.

Means, deviations and categories go into the model file, and are applied to later tables by the names of the columns.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gpunn.backend.limits import require
from gpunn.config import nearest
from gpunn.data.formats.table import MOST_COLUMNS, Column, Table
from gpunn.errors import DataError

REFUSE, MEAN = "refuse", "mean"
MOST_CATEGORIES = 100  # of a column; texts that differ in each row teach nothing
_MOST_BYTES = 900_000  # of the description in a model file; class names may take as much
_LEAST_DEVIATION = 1e-30  # of values that are not constant


@dataclass(frozen=True)
class Columns:
    """Description of the columns that a network was trained on.

    A column of numbers is one feature, (x − mean) / deviation. A column of texts is one-hot, a feature
    for each category. Float targets are standardised too, and outputs turned back into their units.

    Attributes:
        names: Names of the columns, in the order of the features.
        means, deviations: Mean and standard deviation of each column over the training samples; 0 and 1 for texts.
        categories: Categories of each column of texts, sorted.
        missing: "refuse", or "mean": missing numbers are filled by the mean, missing texts by `fills`.
        fills: Most frequent category of each column of texts.
        targets: Names of the target columns.
        classes: Names of the classes; empty where the targets are numbers.
        target_means, target_deviations: Mean and standard deviation of each target; empty for classes.
    """

    names: tuple[str, ...]
    means: tuple[float, ...]
    deviations: tuple[float, ...]
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    missing: str = REFUSE
    fills: Mapping[str, str] = field(default_factory=dict)
    targets: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    target_means: tuple[float, ...] = ()
    target_deviations: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        numbers = (*self.means, *self.deviations, *self.target_means, *self.target_deviations)
        texts = [*self.names, *self.targets, *self.classes, *self.fills.values(), self.missing]
        texts += [text for each in self.categories.values() for text in each]
        if not all(isinstance(text, str) for text in texts) or not all(map(_is_finite, numbers)):
            raise DataError("columns have names of text, and finite means and deviations")
        if not all(deviation > 0 for deviation in (*self.deviations, *self.target_deviations)):
            raise DataError("deviations of columns are above 0")
        if not len(self.means) == len(self.deviations) == len(self.names) == len(set(self.names)):
            raise DataError("columns have a name of their own, a mean and a deviation each")
        if not len(self.target_means) == len(self.target_deviations) == (0 if self.classes else len(self.targets)):
            raise DataError("targets that are numbers have a mean and a deviation each")
        if not {*self.categories, *self.fills} <= set(self.names) or not all(self.categories.values()):
            raise DataError("columns with categories are among the columns, and have one at least")
        if not 0 < self.features <= MOST_COLUMNS:
            raise DataError(f"columns make 1 to {MOST_COLUMNS:,} features, got {self.features:,}: leave some out")

    @classmethod
    def from_dict(cls, table: Any) -> Self:
        """Make columns from the description that `as_dict` returns; raise DataError if it is invalid."""
        try:
            lists: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value for name, value in table.items()
            }
            for name in ("categories", "fills"):
                lists[name] = {k: tuple(v) if isinstance(v, list) else v for k, v in lists.get(name, {}).items()}
            if not isinstance(lists.get("missing", REFUSE), str):
                raise DataError("missing is a text")
            return cls(**lists)
        except (TypeError, AttributeError) as error:
            raise DataError(f"columns cannot be made from their description: {error}") from None

    def as_dict(self) -> dict[str, Any]:
        """Return the description in JSON's types."""
        return asdict(self)

    @property
    def features(self) -> int:
        """Number of features that the columns make."""
        return sum(len(self.categories.get(name, (None,))) for name in self.names)

    @property
    def feature_names(self) -> list[str]:
        """Name of each feature: that of the column, or "column=category"."""
        return [
            feature
            for name in self.names
            for feature in ([f"{name}={each}" for each in self.categories[name]] if name in self.categories else [name])
        ]

    def _begins(self) -> list[int]:
        """Return the index of the first feature of each column."""
        counts = [len(self.categories.get(name, "1")) for name in self.names]
        return list(accumulate([0, *counts[:-1]]))

    @property
    def kinds(self) -> dict[str, bool]:
        """Columns to read from a later table, and whether each holds texts."""
        return {name: name in self.categories for name in self.names}

    @property
    def target_kinds(self) -> dict[str, bool]:
        """Targets to read from a later table, and whether each holds texts."""
        return dict.fromkeys(self.targets, bool(self.classes))

    @property
    def are_as_given(self) -> bool:
        """Return whether the features are plain numbers of the table, neither scaled nor one-hot."""
        return not self.categories and not any(self.means) and all(deviation == 1 for deviation in self.deviations)

    @property
    def unit(self) -> float:
        """Factor from an error of the outputs to the units of the only target; 1 for several."""
        return self.target_deviations[0] if len(self.target_deviations) == 1 else 1.0

    def inputs(self, table: Table, rows: NDArray[np.intp] | None = None) -> NDArray[np.float32]:
        """Return the features of a table's rows, by default all of them, (n, features)."""
        count = table.length if rows is None else len(rows)
        require(count * self.features * 4, f"{table.name}: {count:,} rows of {self.features:,} features")
        made, at = np.zeros((count, self.features), np.float32), 0
        for name, mean, deviation in zip(self.names, self.means, self.deviations, strict=True):
            column = table.columns[name]
            values = column.values if rows is None else column.values[rows]
            if self.missing != MEAN:
                refuse_missing(table, name, rows)
            if (categories := self.categories.get(name)) is None:
                standard = (values.astype(np.float64) - mean) / deviation
                made[:, at] = np.nan_to_num(standard, nan=0.0, posinf=np.inf, neginf=-np.inf)
                at += 1
                continue
            places = self._places(table, name, values, categories, rows)
            made[np.arange(count), at + places] = 1
            at += len(categories)
        return made

    def _places(
        self, table: Table, name: str, values: NDArray[Any], categories: Sequence[str], rows: NDArray[np.intp] | None
    ) -> NDArray[np.intp]:
        """Return the category number of each cell of a column of texts."""
        own = table.columns[name].texts or ()
        known = {category: place for place, category in enumerate(categories)}
        filled = known.get(self.fills.get(name, ""), 0)
        to = np.array([*(known.get(text, -1) for text in own), filled], np.intp)
        places: NDArray[np.intp] = to[values]
        if (unknown := np.flatnonzero(places < 0)).size:
            at = int(unknown[0])
            text, row = own[values[at]], at if rows is None else int(rows[at])
            mend = "train on a table that has it, or give another"
            raise DataError(
                f"{table.at(name, row)}: {text!r:.60} is none of the categories of the training, "
                f"{listed(categories)}{nearest(text, categories)}: {mend}"
            )
        return places

    def converted(
        self, others: "Columns", inputs: NDArray[Any], targets: NDArray[Any]
    ) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """Convert inputs and targets from the features of another table's columns to those of these."""
        made, at = np.zeros((len(inputs), self.features), np.float32), 0
        begins = dict(zip(others.names, others._begins(), strict=True))
        for name, mean, deviation in zip(self.names, self.means, self.deviations, strict=True):
            own, other = self.categories.get(name), others.categories.get(name)
            if name not in begins or (own is None) != (other is None):
                kind = "numbers" if own is None else "texts"
                got = "has none that is learned from" if name not in begins else "holds the other kind"
                raise DataError(f"the network was trained on a column of {kind}, {name!r:.60}, and this table {got}")
            begin = begins[name]
            if own is None or other is None:
                raw = inputs[:, begin].astype(np.float64) * others.deviations[others.names.index(name)]
                made[:, at] = (raw + others.means[others.names.index(name)] - mean) / deviation
                at += 1
                continue
            for place, text in enumerate(other):
                rows = inputs[:, begin + place] == 1
                if text in own:
                    made[rows, at + own.index(text)] = 1
                elif rows.any():
                    got = f"row {int(np.argmax(rows))} has {text!r:.60}"
                    raise DataError(f"the column {name!r:.60} was trained on {listed(own)}, {got}{nearest(text, own)}")
            at += len(own)
        if self.classes or not others.target_means:
            return made, targets
        if self.targets != others.targets:
            raise DataError(
                f"the network was trained on the targets {listed(self.targets)}, got {listed(others.targets)}"
            )
        raw = targets * np.array(others.target_deviations) + np.array(others.target_means)
        return made, self.standard_targets(raw)

    def standard_targets(self, targets: NDArray[Any]) -> NDArray[np.float32]:
        """Standardise float targets (n, targets)."""
        return np.asarray((targets - np.array(self.target_means)) / np.array(self.target_deviations), np.float32)

    def answers(self, outputs: NDArray[Any]) -> NDArray[Any]:
        """Return outputs (n, outputs) in the units of the targets; those of a classifier unchanged."""
        if self.classes or not self.target_means or outputs.shape[1] != len(self.target_means):
            return outputs
        return np.asarray(outputs * np.array(self.target_deviations) + np.array(self.target_means), outputs.dtype)


def learn_columns(
    table: Table, names: Sequence[str], rows: NDArray[np.intp], missing: str, *, scales: bool = True, **targets: Any
) -> Columns:
    """Learn means, deviations and fills of columns from the training rows, and categories from all rows.

    Without `scales`, numbers have mean 0 and deviation 1.
    """
    means, deviations = [], []
    categories: dict[str, tuple[str, ...]] = {}
    fills: dict[str, str] = {}
    for name in names:
        column = table.columns[name]
        if column.texts is None:
            mean, deviation = moments(column.values[rows]) if scales else (0.0, 1.0)
        else:
            mean, deviation, categories[name] = 0.0, 1.0, column.texts
            seen = column.values[rows]
            if missing == MEAN and (counts := np.bincount(seen[seen >= 0], minlength=len(column.texts))).any():
                fills[name] = column.texts[int(np.argmax(counts))]
        means.append(mean)
        deviations.append(deviation)
    made = Columns(tuple(names), tuple(means), tuple(deviations), categories, missing, fills, **targets)
    if (size := len(json.dumps(json.dumps(made.as_dict())))) > _MOST_BYTES:
        mend = "leave columns out, or give them shorter names"
        raise DataError(f"{table.name}: names and categories of its columns take {size:,} bytes: {mend}")
    return made


def moments(values: NDArray[Any]) -> tuple[float, float]:
    """Return mean and standard deviation of numbers, ignoring NaN; the deviation of a constant is 1."""
    there = values[~np.isnan(values)].astype(np.float64)
    if not there.size:
        return 0.0, 1.0
    largest = float(np.abs(there).max()) or 1.0
    mean, deviation = float(np.mean(there / largest)) * largest, float(np.std(there / largest)) * largest
    varies = there.min() < there.max() and deviation > _LEAST_DEVIATION
    # The last bits of a sum depend on the processor, and the fingerprint of the samples must not.
    return (_rounded(mean), _rounded(deviation)) if varies else (float(there[0]), 1.0)


def _rounded(value: float) -> float:
    return float(f"{value:.13g}")


def refuse_missing(table: Table, name: str, rows: NDArray[np.intp] | None = None, mend: str = "") -> None:
    """Raise DataError with the place of the first missing value of a column."""
    lost = table.columns[name].is_missing
    places = np.flatnonzero(lost if rows is None else lost[rows])
    if places.size:
        row = int(places[0]) if rows is None else int(rows[places[0]])
        mend = mend or 'fill it, or train with missing "mean", which fills numbers by the mean of their column'
        count = f" ({int(lost.sum()):,} in this column)" if lost.sum() > 1 else ""
        raise DataError(f"{table.at(name, row)}: the value is missing{count}: {mend}")


def listed(names: Sequence[str], most: int = 6) -> str:
    """Write names for an error, the first few of many."""
    return ", ".join(f"{name!r:.40}" for name in list(names)[:most]) + (", ..." if len(names) > most else "")


def has_too_many(column: Column) -> bool:
    """Return whether a column has too many different texts to be one of categories."""
    texts, length = column.texts or (), int(np.count_nonzero(~column.is_missing))
    return column.has_too_many or len(texts) > MOST_CATEGORIES or (len(texts) > 20 and len(texts) > length / 2)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
