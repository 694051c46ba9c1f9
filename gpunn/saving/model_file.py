"""Save and load a network as one safetensors file, its architecture as JSON in the header; nothing is executed."""

import json
import os
from collections.abc import Collection, Iterator
from dataclasses import asdict, replace
from math import prod
from typing import Any, TypeVar

import numpy as np

from gpunn.backend.base import Backend
from gpunn.backend.devices import select
from gpunn.config import custom_classes, custom_classes_of, from_config, from_table, to_built_config, to_config
from gpunn.config.scalars import checked_seed, positive_whole
from gpunn.data.training_inputs import TrainingInputs
from gpunn.errors import DataError, GpunnError, ModelFileError
from gpunn.files import as_path, open_regular, write_atomically
from gpunn.nn.arguments import DTYPES
from gpunn.nn.footprint import count_network, shortage_error
from gpunn.nn.layers.chain import MOST_LAYERS, check_tables
from gpunn.nn.layout import fed_shape
from gpunn.nn.network import Network
from gpunn.nn.tasks import Task
from gpunn.saving.safetensors import read_header, read_values, to_bytes
from gpunn.train.record import Weights

Model = TypeVar("Model", bound=Network)

FORMAT = 1
MOST_INPUTS = 2**20  # features of a sample, or units of a layer, accepted from a file of any size
_SIZES = ("units", "filters", "size", "stride", "padding", "tokens", "features")  # keys on which memory depends
_MOST_SIZE = 1024  # side of a filter accepted from a file of any size
_MOST_HEADER = 2 << 20  # bytes: enough for the names of 65,536 classes and the columns of a table


def save_model(model: Network, path: str | os.PathLike[str]) -> None:
    """Write architecture and weights to one file atomically; refuse a network that could not be loaded again."""
    description, arrays = describe(model), model.arrays()
    check_tables(description["layers"])
    with custom_classes_of(model.layers):
        layers = [from_config("layer", layer) for layer in description["layers"]]
    _check_sizes(description, arrays)
    count_network(layers, model.input_shape, model.batch_size, model._built(), model.dtype, arrays)
    write_atomically(path, model_bytes(model))


def model_bytes(model: Network, weights: Weights | None = None) -> bytes:
    """Return the content of a model file, with the current weights or with `weights` from earlier."""
    arrays, trained = (model.arrays(), None) if weights is None else (weights.arrays, weights.trained)
    return to_bytes(arrays, {"gpunn": json.dumps(describe(model, trained))})


def describe(model: Network, trained: tuple[int, int] | None = None) -> dict[str, Any]:
    """Describe a model without its weights, as JSON will hold it."""
    model._built()
    return {
        "format": FORMAT,
        "layers": [to_built_config(layer) for layer in model.layers],
        "loss": None if model.loss is None else to_config(model.loss),
        "task": None if model.task is None else model.task.value,
        "input_shape": model.input_shape,
        "input_scale": model.input_scale,
        "class_names": model.class_names,
        "dtype": model.dtype,
        "seed": model.seed,
        "trained": trained or (model.epochs_trained, model.steps_trained),
        **({} if model.trained_on is None else {"trained_on": _remembered(model.trained_on)}),
    }


def _remembered(trained_on: TrainingInputs) -> dict[str, Any]:
    """Describe the training inputs; leave out missing columns, a key that earlier versions do not know."""
    return {name: value for name, value in asdict(trained_on).items() if name != "columns" or value is not None}


def read_model(
    kind: type[Model], path: str | os.PathLike[str], device: str, batch_size: int, custom: Collection[type] = ()
) -> Model:
    """Read a model file as a network of some class; see `gpunn.load_model`."""
    with custom_classes(custom):
        return _read(kind, path, device, batch_size)


def _read(kind: type[Model], path: str | os.PathLike[str], device: str, batch_size: int) -> Model:
    backend, batch_size, path = select(device), positive_whole(batch_size, "batch size"), as_path(path)
    try:
        with open_regular(path) as file:
            metadata, layout = read_header(file, _MOST_HEADER)
            description = read_description(metadata)
            arrays = read_values(file, layout, str(path))
    except ModelFileError as error:
        raise ModelFileError(f"{path} {error}") from None
    except DataError as error:
        if path.suffix.lower() == ".onnx":
            mend = f"gpunn import {path}, or gn.load_onnx in Python"
            raise ModelFileError(f"{path} is no model file; if it is an ONNX file, import it first: {mend}") from None
        raise ModelFileError(f"{path} is damaged or no model file: {error}") from None
    except OSError as error:
        raise ModelFileError(
            f"there is no model file {path} ({error.strerror or error}): give the path that save or gpunn train wrote"
        ) from None
    try:
        model = restore_network(kind, description, arrays, batch_size, backend)
    except MemoryError as error:
        free = backend.free_bytes()
        layers = [from_config("layer", layer) for layer in description["layers"]]
        shape, dtype = description["input_shape"], description["dtype"]

        def nbytes(count: int) -> int:
            return count_network(layers, shape, count, backend, dtype).nbytes

        raise shortage_error(error, nbytes, batch_size, backend, 0, free) from None
    except (GpunnError, KeyError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise ModelFileError(f"{path} describes no network that can be made: {reason}") from None
    return model


def restore_network(
    kind: type[Model], description: dict[str, Any], arrays: dict[str, Any], batch_size: int, backend: Backend
) -> Model:
    """Make a network from its description and arrays; a bad description raises errors of many classes."""
    shape, dtype, loss = description["input_shape"], description["dtype"], description["loss"]
    check_tables(description["layers"])
    model = kind([from_config("layer", layer) for layer in description["layers"]])
    _check_values(description)
    _check_sizes(description, arrays)
    model.build_with(arrays, shape, batch_size, backend, dtype, checked_seed(description.get("seed", 0)))
    model.count_on(*description.get("trained", (0, 0)))
    model.loss = None if loss is None else from_config("loss", loss)
    model.class_names = tuple(description["class_names"])
    if (task := description.get("task")) is not None:
        model.task = Task(task)
    elif model.loss:  # earlier versions have class names for labels only
        model.task = model.loss.task(bool(model.class_names))
    model.input_scale = float(description["input_scale"])
    model.trained_on = _trained_on(description.get("trained_on"), model)
    return model


def read_description(metadata: dict[str, str]) -> dict[str, Any]:
    """Parse the description in the metadata of a file; raise ModelFileError if there is none."""
    try:
        description = json.loads(metadata["gpunn"])
    except KeyError:
        raise ModelFileError("holds tensors but no network of gpunn: was it saved by another library?") from None
    except (ValueError, RecursionError):
        raise ModelFileError("is damaged: its description is no JSON") from None
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise ModelFileError(f"has a format that this version does not know (expected {FORMAT}): update gpunn")
    if description.get("dtype") not in DTYPES:
        raise ModelFileError(f"has an unknown dtype: expected {' or '.join(DTYPES)}")
    layers = description.get("layers")
    if not isinstance(layers, list) or len(layers) > MOST_LAYERS:
        raise ModelFileError(f"is damaged: 'layers' must be a list of at most {MOST_LAYERS:,}")
    return description


def _check_values(description: dict[str, Any]) -> None:
    """Raise ModelFileError for invalid class names, counts, task or scale."""
    names, trained, scale = description["class_names"], description.get("trained", [0, 0]), description["input_scale"]
    if not isinstance(names, list) or not all(isinstance(name, str) and name.isprintable() for name in names):
        raise ModelFileError("class_names must be texts of one line")
    are_counts = isinstance(trained, list) and all(type(count) is int and 0 <= count < 2**31 for count in trained)
    if not are_counts or len(trained) != 2:
        raise ModelFileError("trained must be its epochs and steps, two whole numbers below 2³¹")
    if description.get("task") not in (tasks := [None, *(task.value for task in Task)]):
        raise ModelFileError(f"task must be {', '.join(map(str, tasks[1:]))}, got {description['task']!r:.40}")
    if type(scale) not in (int, float) or not 0 < scale < float("inf"):
        raise ModelFileError(f"input_scale must be a number above 0, got {scale!r}")


def _trained_on(table: Any, model: Network) -> TrainingInputs | None:
    """Read the description of the training inputs; None in files of earlier versions, which lack it."""
    if table is None:
        return None
    found: TrainingInputs = from_table(TrainingInputs, table, "trained_on")
    shape = tuple(positive_whole(size, "shape of trained_on") for size in found.shape)
    if len(shape) not in (1, 3) or not found.scale > 0:
        raise ModelFileError("trained_on must have a shape of 1 or 3 sizes, and a scale above 0")
    if fed_shape(model.layers, shape) != model.input_shape:
        raise ModelFileError(f"trained_on is of samples {shape}, the network of {model.input_shape}")
    return replace(found, shape=shape)


def _tables_in(value: Any) -> Iterator[dict[str, Any]]:
    """Yield the tables in a value: the value itself, or those in a list."""
    if isinstance(value, dict):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _tables_in(each)


def _check_sizes(description: dict[str, Any], arrays: dict[str, Any]) -> None:
    """Refuse a description that would take far more memory than its file has weights."""
    expected = sum(array.size for array in arrays.values())
    tables = [layer for layer in description["layers"] if isinstance(layer, dict)]
    for table in tables:  # grows in the loop: inner tables are appended
        tables += [each for value in table.values() for each in _tables_in(value)]
    shape = [positive_whole(size, "input shape") for size in description["input_shape"]]
    values = [table.get(key, 1) for table in tables for key in _SIZES]
    sizes = (size for value in values for size in (value if isinstance(value, list) else [value]))
    for size in (*shape, prod(shape), *sizes):
        if isinstance(size, int) and not size <= max(expected, MOST_INPUTS):
            raise ModelFileError(f"a size of {size!r} does not fit the {expected} numbers of the file")
    filters = [table.get("size", 1) for table in tables if "filters" in table]
    for length in (each for size in filters for each in (size if isinstance(size, list) else [size])):
        if isinstance(length, int) and length > max(expected, _MOST_SIZE):  # a filter has weights for each row
            raise ModelFileError(f"filters of size {length!r} do not fit the {expected} numbers of the file")
    for name, array in arrays.items():
        if array.dtype != np.dtype(description["dtype"]):
            raise ModelFileError(f"{name!r} must be {description['dtype']}, got {array.dtype}")
