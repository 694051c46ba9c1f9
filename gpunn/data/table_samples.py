"""Make samples from tables by the columns that a network was trained on."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gpunn.config import nearest
from gpunn.data.columns import Columns, listed, refuse_missing
from gpunn.data.formats.frame import is_frame, read_frame
from gpunn.data.formats.table import Table
from gpunn.data.samples import Samples
from gpunn.errors import DataError


def table_samples(table: Table, columns: Columns, names: Sequence[str] = ()) -> Samples:
    """Make samples from a table by the training's columns; `names` are the class names, by default its own."""
    for name in columns.targets:
        refuse_missing(table, name, None, "fill it, or leave the row out")
    inputs = columns.inputs(table)
    if not columns.classes:
        targets = np.stack([table.columns[name].values for name in columns.targets], axis=1)
        return Samples(inputs, columns.standard_targets(targets.astype(np.float64)), 1.0, 0, columns=columns)
    name, classes = columns.targets[0], tuple(names) or columns.classes
    column, known = table.columns[name], {each: place for place, each in enumerate(classes)}
    own = column.texts or ()
    places = np.array([known.get(text, -1) for text in own], np.int32)[column.values]
    if (unknown := np.flatnonzero(places < 0)).size:
        text = own[column.values[unknown[0]]]
        expected = f"expected a class of the training, {listed(classes)}, got {text!r:.60}"
        raise DataError(f"{table.at(name, int(unknown[0]))}: {expected}{nearest(text, classes)}")
    return Samples(inputs, places, 1.0, len(classes), columns=columns)


def frame_samples(frame: Any, y: Any, *, columns: Columns, names: Sequence[str] = ()) -> Samples:
    """Make samples from a data frame by the training's columns; without `y` it holds the targets too."""
    if y is None:
        return table_samples(read_frame(frame, columns.kinds | columns.target_kinds), columns, names)
    table, values = read_frame(frame, columns.kinds), np.asarray(y.to_numpy() if hasattr(y, "to_numpy") else y)
    if len(values) != table.length:
        counts = f"{table.length:,} inputs, {len(values):,} targets"
        raise DataError(f"inputs and targets differ in length: {counts}; give one target for each input")
    each = values.reshape(len(values), -1).T
    if len(each) != len(columns.targets):
        raise DataError(f"expected the targets {listed(columns.targets)}, got {len(each)} columns of them")
    targets = read_frame(dict(zip(columns.targets, each, strict=True)), columns.target_kinds)
    return table_samples(replace(table, columns={**table.columns, **targets.columns}), columns, names)


def like_table(train: Samples, x: Any, y: Any, weights: Any = None) -> Samples | None:
    """Prepare inputs and targets like the table behind `train`; None without a table, or if nothing changes.

    A data frame is standardised like the table. Arrays are features already, with targets in their own units.
    """
    if train.columns is None or (train.classes and not is_frame(x)):
        return None
    if is_frame(x):
        return replace(frame_samples(x, y, columns=train.columns), weights=weights)
    samples = Samples(x, y, train.scale, 0, weights=weights)
    return replace(samples, targets=train.columns.standard_targets(samples.targets), columns=train.columns)


def with_columns_of(samples: Samples, train: Samples) -> Samples:
    """Convert samples of another table to the columns and classes of the training table."""
    own, columns = samples.columns, train.columns
    if own is None or columns is None or own == columns:
        return samples
    inputs, targets = columns.converted(own, np.asarray(samples.inputs), samples.targets)
    if columns.classes and own.classes and own.classes != columns.classes:
        if unknown := [name for name in own.classes if name not in columns.classes]:
            raise DataError(f"{unknown[0]!r:.60} is no class of the training: expected {listed(columns.classes)}")
        targets = np.array([columns.classes.index(name) for name in own.classes], np.int32)[targets]
    return replace(samples, inputs=inputs, targets=targets, classes=train.classes, columns=columns)
