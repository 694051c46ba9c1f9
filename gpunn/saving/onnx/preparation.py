"""Write the preparation of inputs into an exported graph, and describe it in the file."""

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
_CHECKED = 5  # samples on which graph and network are compared


class Preparation:
    """Prepare inputs in a graph: scaled ones as the network takes them, or `raw` bytes of images or columns of a table.

    Attributes:
        kind: TensorProto type of the input.
        shape: Shape of an input sample, (features,) or (height, width, channels).
        inside, outside: Sentences on the preparation within the graph, and before it.
    """

    def __init__(self, model: Network, raw: bool) -> None:
        self._model, self._raw = model, raw
        trained_on = model.trained_on
        # Images stay images, even if the first layer takes them flat.
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
        sentences = list(self._sentences(columns))
        self.inside = [inside for inside, _ in sentences if inside]
        self.outside = [outside for _, outside in sentences if outside]

    def _reach_of_bytes(self) -> tuple[int, int]:
        """Return the least and greatest byte of the training images, else 0 and 255."""
        trained_on = self._model.trained_on
        if trained_on is None or not trained_on.is_bytes:
            return 0, 255
        return int(min(trained_on.low)), int(max(trained_on.high))

    def _factor_of_bytes(self) -> float:
        """Return the factor of bytes; raise DataError if their range is not that of the training."""
        if self._columns is not None:
            return 1.0
        return self._model.factor_of(np.array([self._reach_of_bytes()], np.uint8))

    def _sentences(self, columns: Columns | None) -> Iterator[tuple[str, str]]:
        """Yield pairs of sentences: a step done in the graph, and a step left to do; "" for none."""
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
        if trained_on is not None and trained_on.from_files:
            yield "", "fit image files to the size and colours of the input, as gpunn predict does"

    def write(self, graph: Graph, x: str, layout: str) -> str:
        """Write the nodes between the input and the first layer; return their output."""
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
        """Draw some inputs of the graph, and the same samples for `predict_proba`."""
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
    """Yield the columns in order: (begin, end, None) for adjacent numbers, (begin, end, name) for one of categories."""
    begin = 0
    for place, name in enumerate((*columns.names, None)):
        if name is None or name in columns.categories:
            if begin < place:
                yield begin, place, None
            if name is not None:
                yield place, place + 1, name
            begin = place + 1


def check_raw(model: Network, raw: bool) -> None:
    """Raise OptionError if the network has no raw inputs."""
    if raw and not model.tokens and model.trained_on is None and len(model.input_shape) == 1 and model.input_scale == 1:
        raise OptionError("raw inputs are bytes or a table's columns, and the network was trained on neither")
