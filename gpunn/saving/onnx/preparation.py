"""The preparation of inputs within an exported graph, and what a file says of it."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from gpunn.data.columns import MEAN, Columns
from gpunn.data.formats.table import Column, Table
from gpunn.errors import OptionError
from gpunn.nn.network import Network
from gpunn.saving.onnx.graph import Graph

INPUT = "input"
_CHECKED = 5  # samples that a graph is compared with the network on


class Preparation:
    """What comes in: numbers as the network sees them, or `raw` ones, bytes of images or numbers of a table's columns.

    Attributes:
        kind: TensorProto type of the input.
        shape: Shape of a sample of it, (features,) or (height, width, channels).
        inside, outside: Sentences about what the graph does to inputs, and what is to be done before.
    """

    def __init__(self, model: Network, raw: bool) -> None:
        self._model, self._raw = model, raw
        trained_on = model.trained_on
        # Images that go flat into a first layer of features come as they are.
        self.shape = tuple(model.input_shape if trained_on is None else trained_on.shape)
        columns = None if trained_on is None else trained_on.columns
        self._columns: Columns | None = columns if raw else None
        if model.tokens:
            self.kind, self.shape = TensorProto.INT64, tuple(model.input_shape)
        elif self._columns is not None:
            self.kind, self.shape = TensorProto.DOUBLE, (len(self._columns.names),)
        else:
            self.kind = TensorProto.UINT8 if raw else TensorProto.FLOAT
        self._factor = self._factor_of_bytes() if raw and not model.tokens else 1.0
        if not raw and not model.tokens and trained_on is not None and not trained_on.is_bytes:
            self._factor = trained_on.scale
        self.inside, self.outside = map(list, zip(*self._sentences(columns), strict=True))
        self.inside, self.outside = ([text for text in texts if text] for texts in (self.inside, self.outside))

    def _reach_of_bytes(self) -> tuple[int, int]:
        """Return the least and largest byte of the training, or of all where it had none."""
        trained_on = self._model.trained_on
        if trained_on is None or not trained_on.is_bytes:
            return 0, 255
        return int(min(trained_on.low)), int(max(trained_on.high))

    def _factor_of_bytes(self) -> float:
        """Return the factor of bytes; raise DataError where they are of another range than the training's."""
        if self._columns is not None:
            return 1.0
        return self._model.factor_of(np.array([self._reach_of_bytes()], np.uint8))

    def _sentences(self, columns: Columns | None) -> Iterator[tuple[str, str]]:
        """Give what is done in the graph, and what is left to do, each "" where there is none."""
        model, trained_on = self._model, self._model.trained_on
        if model.tokens:
            yield "", f"texts to tokens, whole numbers from 0 to {model.tokens - 1}"
        elif self._columns is not None:
            missing = ", missing ones (NaN) filled by the mean" if self._columns.missing == MEAN else ""
            yield f"numbers standardised by column{missing}; categories, given by their number, as one feature each", ""
        elif columns is not None:
            yield "", "standardise each feature, (x - mean) / deviation, and give categories as 1 and 0: see columns"
        elif self._raw:
            yield f"bytes times {self._factor:.9g}", ""
        elif self._factor != 1:
            yield f"numbers times {self._factor:.9g}", ""
        elif (scale := model.input_scale if trained_on is None else trained_on.scale) != 1:
            yield "", f"bytes to float, times {scale:.9g}"
        else:
            yield "", ""
        if trained_on is not None and trained_on.from_files:
            yield "", "fit image files to the size and colours of the input, as gpunn predict does"

    def write(self, graph: Graph, x: str, layout: str) -> str:
        """Write the nodes that make of the input what the first layer takes."""
        graph.begin("prepared")
        if self._columns is not None:
            return self._write_columns(graph, self._columns, x)
        if self._model.tokens:
            return x
        if self._raw:
            x = graph.node("Cast", x, to=TensorProto.FLOAT)
        if self._factor != 1:
            x = graph.node("Mul", x, graph.number(self._factor))
        if len(self.shape) == 1:
            return x
        is_flat = len(self._model.input_shape) == 1
        if layout == "NHWC" and not (is_flat and self.shape[2] == 1):
            graph.begin("channels_first")
            x = graph.node("Transpose", x, perm=[0, 3, 1, 2])
        graph.begin("rows")
        return graph.node("Flatten", x, axis=1) if is_flat else x

    def _write_columns(self, graph: Graph, columns: Columns, x: str) -> str:
        """Write features of columns: (x − mean)/deviation in float64, or a feature for each category."""
        parts: list[str] = []
        for begin, end, name in _runs(columns):
            picked = graph.constant(f"columns{begin}", np.arange(begin, end) if name is None else begin, np.int64)
            part = graph.node("Gather", x, picked, axis=1)
            if name is None:
                means, deviations = (
                    graph.constant(f"{word}{begin}", values[begin:end], np.float64)
                    for word, values in (("means", columns.means), ("deviations", columns.deviations))
                )
                part = graph.node("Div", graph.node("Sub", part, means), deviations)
                if columns.missing == MEAN:
                    part = graph.node("Where", graph.node("IsNaN", part), graph.number(0.0, np.float64), part)
                parts.append(graph.node("Cast", part, to=TensorProto.FLOAT))
                continue
            categories = columns.categories[name]
            if columns.missing == MEAN:
                filled = categories.index(fill) if (fill := columns.fills.get(name)) in categories else 0
                part = graph.node("Where", graph.node("IsNaN", part), graph.number(float(filled), np.float64), part)
            depth = graph.constant(f"depth{begin}", len(categories), np.int64)
            marks = graph.constant("marks", [0.0, 1.0])
            parts.append(graph.node("OneHot", graph.node("Cast", part, to=TensorProto.INT64), depth, marks, axis=-1))
        return parts[0] if len(parts) == 1 else graph.node("Concat", *parts, axis=1)

    def samples(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Make some inputs of the graph, and those that `predict_proba` is given for the same answers."""
        model, chance = self._model, np.random.Generator(np.random.Philox(0))
        trained_on, shape = model.trained_on, (_CHECKED, *self.shape)
        if model.tokens:
            tokens = chance.integers(0, model.tokens, shape)
            return tokens, tokens
        if self._columns is not None:
            return self._rows(self._columns, chance)
        if self._raw:
            pixels = chance.integers(*self._reach_of_bytes(), shape, np.uint8, endpoint=True)
            return pixels, pixels
        numbers = chance.normal(size=shape)
        if trained_on is not None and trained_on.columns is None:
            low, high = (np.array(bound) for bound in (trained_on.low, trained_on.high))
            numbers = chance.uniform(size=shape) * (high - low) + low
            numbers *= trained_on.scale if trained_on.is_bytes else 1.0
        inputs = numbers.astype(np.float32)
        return inputs, inputs

    def _rows(self, columns: Columns, chance: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
        rows = np.array(columns.means) + np.array(columns.deviations) * chance.normal(size=(_CHECKED, *self.shape))
        cells = {}
        for place, name in enumerate(columns.names):
            categories = columns.categories.get(name)
            if categories is not None:
                rows[:, place] = chance.integers(0, len(categories), _CHECKED)
            values = rows[:, place] if categories is None else rows[:, place].astype(np.intp)
            cells[name] = Column(values, categories)
        table = Table("the table", cells, _CHECKED, lambda row: f"row {row}")
        return rows, columns.inputs(table)

    def metadata(self) -> dict[str, str]:
        """Describe inputs and preparation."""
        described = {"preparation": json.dumps({"inside": self.inside, "outside": self.outside}, ensure_ascii=False)}
        trained_on = self._model.trained_on
        if trained_on is not None and trained_on.columns is not None:
            columns = trained_on.columns
            names = {"columns": columns.names, "features": columns.feature_names, "categories": columns.categories}
            scales = {"means": columns.means, "deviations": columns.deviations}
            described["columns"] = json.dumps({**names, **scales}, ensure_ascii=False)
        else:
            described["input_scale"] = repr(self._model.input_scale if trained_on is None else trained_on.scale)
        return described


def _runs(columns: Columns) -> Iterator[tuple[int, int, str | None]]:
    """Give the columns in order: begin, end and None of numbers side by side, or one of categories and its name."""
    begin = 0
    for place, name in enumerate((*columns.names, None)):
        if name is None or name in columns.categories:
            if begin < place:
                yield begin, place, None
            if name is not None:
                yield place, place + 1, name
            begin = place + 1


def check_raw(model: Network, raw: bool) -> None:
    """Raise OptionError where there are no raw inputs that the network could be given."""
    if raw and not model.tokens and model.trained_on is None and len(model.input_shape) == 1 and model.input_scale == 1:
        raise OptionError("raw inputs are bytes or a table's columns, and the network was trained on neither")
