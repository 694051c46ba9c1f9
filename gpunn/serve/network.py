"""Describe the network that is served, and compute its answers and the outputs of its layers."""

import io
import re
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.data.columns import Columns
from gpunn.data.tables import RECONSTRUCTION
from gpunn.errors import DataError, GpunnError
from gpunn.experiments.experiment import Experiment
from gpunn.experiments.predict import SURE
from gpunn.nn.layers import Layer
from gpunn.nn.tasks import Task, by_class
from gpunn.reports.filters import shape_of_images
from gpunn.sequential import Sequential
from gpunn.serve.arrays import encoded, finite
from gpunn.serve.inputs import Prepared, from_picture, from_pixels, from_values, prepared
from gpunn.serve.probes import ProbedLayer, ProbedNetwork

MOST_OF_LAYER = 1 << 17  # numbers of a layer's output in an answer; of a larger output, the first feature maps
_SIGMAS = 3  # to each side of a column's mean, the range without data
_WEIGHTS = re.compile(r"(?:, )?weights=\w+\([^()]*\)")  # an initializer says nothing about the learned weights
_ARTICLES = {"table": "a table", "vector": "a vector", "image": "images of other channels than 1 or 3"}


class ServedNetwork:
    """Answer inputs by a built network, with the outputs of its layers; threads may share it."""

    def __init__(self, model: Sequential, experiment: Experiment | None, path: Path, version: int = 0) -> None:
        self.model, self.experiment, self.path, self.version = model, experiment, path, version
        trained_on = model.trained_on
        shape = trained_on.shape if trained_on else (experiment and experiment.data.shape) or model.input_shape
        if prod(shape) != prod(model.input_shape):
            raise DataError(f"{path}: its experiment is of samples {shape}, its network of {model.input_shape}")
        self.shape = tuple(shape)
        self.columns: Columns | None = None if trained_on is None else trained_on.columns
        self.probed = ProbedNetwork(model)
        self.shown_shape = self._find_shown_shape()
        self.task = self._task()
        self._reading = threading.Lock()  # decodes one picture at a time: each may take much memory

    def _find_shown_shape(self) -> tuple[int, ...]:
        """Return the shape that the page shows: an image if the input is one."""
        if self.columns is not None or self.model.tokens:
            return self.shape
        image = self.shape if len(self.shape) == 3 else shape_of_images(self.model)
        return tuple(image) if prod(image) == prod(self.shape) else self.shape

    def _task(self) -> str:
        model = self.model
        if self.experiment is not None and self.experiment.data.task == RECONSTRUCTION:
            return RECONSTRUCTION
        if model.task is Task.CLASSES or (model.task is None and model.class_names):
            return "classification"
        if model.task is Task.BINARY:
            return "binary"
        is_same = self.columns is None and prod(model.output_shape) == prod(model.input_shape)
        return RECONSTRUCTION if is_same and len(self.shown_shape) == 3 else "regression"

    @property
    def classes(self) -> list[str]:
        """Names of the classes; [] for another task."""
        return self.model.names_of_outputs if self.task == "classification" else []

    @property
    def targets(self) -> list[str]:
        """Names of the outputs of regression or of binary labels; [] for another task."""
        if self.task not in ("binary", "regression"):
            return []
        count = prod(self.model.output_shape)
        names = self.columns.targets if self.columns is not None else ()
        return list(names) if len(names) == count else [f"output {number + 1}" for number in range(count)]

    def describe(self, ranges: dict[str, tuple[float, float]]) -> dict[str, Any]:
        """Describe input, answers and layers for the page; see `docs/serve.md`."""
        model = self.model
        return {
            "version": self.version,
            "task": self.task,
            "input": self._input(ranges),
            "classes": self.classes,
            "targets": self.targets,
            "sure": SURE,
            "layers": [self._layer(index, probed) for index, probed in enumerate(self.probed.layers)],
            "parameters": model.parameters.size,
            "device": model._built().device,
            "steps_trained": model.steps_trained,
            "epochs_trained": model.epochs_trained,
        }

    def _input(self, ranges: dict[str, tuple[float, float]]) -> dict[str, Any]:
        model, trained_on, shape = self.model, self.model.trained_on, list(self.shown_shape)
        if model.tokens:
            return {"kind": "tokens", "shape": shape, "tokens": model.tokens, "columns": []}
        if self.columns is not None:
            return {"kind": "table", "shape": shape, "columns": list(_columns(self.columns, ranges))}
        if len(shape) != 3:
            return {"kind": "vector", "shape": shape, "columns": []}
        low, high = 0.0, 1.0
        if trained_on is not None:
            black, white = trained_on.pixel_range
            low, high = (float(np.mean(bound)) * trained_on.scale for bound in (black, white))
        drawings = None if trained_on is None else trained_on.drawings
        return {
            "kind": "image",
            "shape": shape,
            "columns": [],
            "low": low,
            "high": high,
            "takes_pictures": shape[2] in (1, 3),
            "is_drawing": drawings is not None and drawings.are_strokes,
            "is_grey": shape[2] == 1 or (trained_on is not None and trained_on.is_grey),
        }

    def _layer(self, index: int, probed: ProbedLayer) -> dict[str, Any]:
        layer = probed.layer
        begins = f"{layer.name}."
        count = sum(p.size for p in self.model.parameters if p.name.startswith(begins))
        kind = _kind_of(layer)
        return {
            "index": index,
            "title": type(layer).__name__ if layer.branches else _WEIGHTS.sub("", repr(layer)),
            "name": layer.name,
            "depth": probed.depth,
            "kind": kind,
            "shape": list(probed.shape),
            "shown": self._shown(probed),
            "parameters": count,
            "has_units": not layer.only_reshapes,
            "units": probed.units,
            "weights_of": probed.weighted,
        }

    def _shown(self, probed: ProbedLayer) -> int:
        """Count the units of a layer in an answer: at least one, and fewer if the output is large."""
        return min(probed.units, max(1, MOST_OF_LAYER * probed.units // max(1, prod(probed.shape))))

    def picture(self, content: bytes) -> Prepared:
        """Prepare a picture as `gpunn predict` does."""
        if len(self.shown_shape) != 3 or self.shown_shape[2] not in (1, 3):
            kind = self._input({})["kind"]
            raise DataError(f"the network takes no pictures, its input is {_ARTICLES.get(kind, kind)}: send JSON")
        with self._reading:
            return from_picture(self.model, self.shape, content)

    def given(self, body: Any) -> Prepared:
        """Prepare a JSON body, {"values": ...} or {"pixels": [...]}."""
        if not isinstance(body, dict) or len(body.keys() & {"values", "pixels"}) != 1:
            raise DataError('expected {"values": ...} or {"pixels": [...]}')
        if "pixels" in body:
            return from_pixels(self.model, self.shape, body["pixels"])
        return from_values(self.model, self.shape, body["values"])

    def answer(self, sample: Prepared, layers: Iterable[int] | None = None) -> dict[str, Any]:
        """Answer a sample, with the outputs of all layers or of some."""
        began = time.perf_counter()
        outputs = self.proba(sample)
        chosen = list(range(len(self.probed.layers))) if layers is None else list(layers)
        if any(not 0 <= index < len(self.probed.layers) for index in chosen):
            raise DataError(f"layers are numbers from 0 to {len(self.probed.layers) - 1}, got {chosen[:8]}")
        seen = self.probed.outputs(sample.batch, sample.scale, chosen) if chosen else []
        shown = [self._shown(self.probed.layers[index]) for index in chosen]
        activations = [
            {"index": index, "activations": encoded(values[0][..., :count])}
            for index, values, count in zip(chosen, seen, shown, strict=True)
        ]
        return {
            "prepared": encoded(self.seen(np.asarray(sample.batch)[0], sample.scale)),
            "changes": list(sample.changes),
            **self.answers(outputs[0]),
            "layers": activations,
            "milliseconds": round(1000 * (time.perf_counter() - began), 2),
        }

    def proba(self, sample: Prepared) -> NDArray[Any]:
        """Return the outputs (n, outputs), as `predict_proba` does."""
        model = self.model
        with model.lock:
            y = model._built().to_host(model._forward(sample.batch, scale=sample.scale))
        return model.linked(np.array(y.reshape(-1, y.shape[-1]).T, order="C"))

    def seen(self, row: NDArray[Any], scale: float) -> NDArray[Any]:
        """Return the numbers that the network sees, an input times its factor, in the shape that the page shows."""
        return self._as_shown(np.multiply(row, scale, dtype=np.float32))

    def _as_shown(self, values: NDArray[Any]) -> NDArray[Any]:
        """Reshape an input or an output to the shape that the page shows; flat images are in the order of `Flatten`."""
        if len(self.shown_shape) == 3 and values.ndim == 1:
            height, width, channels = self.shown_shape
            return values.reshape(channels, height, width).transpose(1, 2, 0)
        return values.reshape(self.shown_shape)

    def answers(self, outputs: NDArray[Any]) -> dict[str, Any]:
        """Describe the outputs for one sample as answers of the task."""
        task = self.task
        if task == "classification":
            shares = by_class(outputs[None], self.model.classes)[0]
            best = int(Task.CLASSES.answers(outputs[None], self.model.classes)[0])
            names, share = self.classes, finite(shares[best])
            answers = [{"name": n, "probability": finite(p)} for n, p in zip(names, shares.tolist(), strict=True)]
            is_sure = share is not None and share >= SURE
            return {"answers": answers, "best": {"name": names[best], "probability": share, "sure": is_sure}}
        if task == "binary":
            pairs = zip(self.targets, outputs.tolist(), strict=True)
            answers = [{"name": name, "probability": finite(p), "value": int(p >= 0.5)} for name, p in pairs]
            return {"answers": answers, "best": None}
        if task == RECONSTRUCTION:
            return {"answers": [], "best": None, "reconstruction": encoded(self._as_shown(outputs))}
        pairs = zip(self.targets, outputs.tolist(), strict=True)
        return {
            "answers": [],
            "best": None,
            "values": [{"name": name, "value": finite(value), "unit": ""} for name, value in pairs],
        }

    def unit(self, layer: int, unit: int) -> tuple[NDArray[Any] | None, float | None]:
        """Return weights and bias of a unit; raise DataError if there is no such unit."""
        layers = self.probed.layers
        if not 0 <= layer < len(layers):
            raise DataError(f"layer is a number from 0 to {len(layers) - 1}, got {layer}")
        if not 0 <= unit < layers[layer].units:
            raise DataError(f"unit of layer {layer} is a number from 0 to {layers[layer].units - 1}, got {unit}")
        return self.probed.weights_of(layer, unit)

    def warm_up(self) -> None:
        """Answer once to import, compile and plan everything before the first request."""
        dtype = np.uint8 if self.model.trained_on is not None and self.model.trained_on.is_bytes else self.model.dtype
        with suppress(GpunnError):
            self.answer(prepared(self.model, np.zeros((1, *self.shape), dtype)))
            self.answer(self.picture(_stroke()))


def _kind_of(layer: Layer) -> str:
    """Name the kind of a layer; the page colours its card by it."""
    if layer.branches:
        return "other"
    if layer.has_weights:
        return "dense" if layer.takes_rows else "convolution"
    return layer.role


def _stroke() -> bytes:
    """Draw a stroke like those of the page, as a PNG."""
    from PIL import Image

    pixels, held = np.full((280, 280), 255, np.uint8), io.BytesIO()
    pixels[60:220, 130:152] = 0
    Image.fromarray(pixels).save(held, "PNG")
    return held.getvalue()


def _columns(columns: Columns, ranges: dict[str, tuple[float, float]]) -> Iterable[dict[str, Any]]:
    """Describe each column of a table."""
    for name, mean, deviation in zip(columns.names, columns.means, columns.deviations, strict=True):
        if name in columns.categories:
            names = list(columns.categories[name])
            yield {"name": name, "kind": "category", "categories": names, "usual": columns.fills.get(name, names[0])}
            continue
        low, high = ranges.get(name, (mean - _SIGMAS * deviation, mean + _SIGMAS * deviation))
        numbers = {"min": low, "max": high, "mean": mean, "deviation": deviation}
        yield {"name": name, "kind": "number", **{key: finite(value) for key, value in numbers.items()}}
