"""Models as files: safetensors for the numbers, JSON in its header for the architecture. Nothing is ever executed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpunn.config import from_config, to_config
from gpunn.errors import GpunnError, ModelFileError
from gpunn.history import write_atomically

if TYPE_CHECKING:
    from gpunn.model import Sequential

FORMAT = 1
_MAX_PARAMETERS = 2**31


def save_model(model: Sequential, path: str | os.PathLike[str]) -> None:
    """Write architecture and weights to one file, replaced in one go.

    Raises:
        OutputError: the file cannot be written.
    """
    from safetensors.numpy import save

    model._built()
    description = {
        "format": FORMAT,
        "layers": [to_config(layer) for layer in model.layers],
        "loss": None if model.loss is None else to_config(model.loss),
        "input_shape": model.input_shape,
        "input_scale": model.input_scale,
        "class_names": model.class_names,
        "dtype": model.dtype,
    }
    write_atomically(path, save(model.arrays(), metadata={"gpunn": json.dumps(description)}))


def load_model(path: str | os.PathLike[str], device: str = "auto", batch_size: int = 32) -> Sequential:
    """Read a model that `save` wrote, ready to predict or to go on training.

    Args:
        path: of the file.
        device: to build it on.
        batch_size: of the largest training batch.

    Raises:
        ModelFileError: the file is missing, damaged, or not one of gpunn's.
        DeviceError: the device cannot be used.
    """
    from safetensors import SafetensorError, safe_open

    from gpunn.model import DTYPES, Sequential

    path = Path(path)
    if not path.is_file():
        raise ModelFileError(f"there is no model file {path}: give the path that save or gpunn train wrote")
    try:
        with safe_open(path, framework="numpy") as file:
            description = _description(path, file.metadata())
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"{path} is damaged or no model file: {error}") from None
    try:
        layers = [from_config("layer", layer) for layer in description["layers"]]
        model = Sequential(layers)
        if description["dtype"] not in DTYPES:
            raise ModelFileError(f"unknown dtype {description['dtype']!r}")
        expected = sum(array.size for array in arrays.values())
        _check_sizes(description, expected)
        model.build(description["input_shape"], batch_size, device, description["dtype"])
        model.loss = None if description["loss"] is None else from_config("loss", description["loss"])
        model.class_names = tuple(str(name) for name in description["class_names"])
        model.input_scale = float(description["input_scale"])
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from None
    except (GpunnError, KeyError, TypeError, ValueError) as error:
        from gpunn.errors import DeviceError

        if isinstance(error, DeviceError):
            raise
        raise ModelFileError(f"{path} describes no network that can be made: {error}") from None
    _check_arrays(path, model, arrays)
    model.load_arrays(arrays)
    return model


def _description(path: Path, metadata: Any) -> dict[str, Any]:
    try:
        description = json.loads((metadata or {})["gpunn"])
    except KeyError:
        raise ModelFileError(
            f"{path} holds tensors but no network of gpunn: was it saved by another library?"
        ) from None
    except (ValueError, RecursionError):
        raise ModelFileError(f"{path} is damaged: its description is no JSON") from None
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise ModelFileError(f"{path} has a format that this version does not know (expected {FORMAT}): update gpunn")
    return description


def _check_sizes(description: dict[str, Any], expected: int) -> None:
    """Refuse a description that would take far more memory than the file has numbers for."""
    shape = description["input_shape"]
    layers = [layer for layer in description["layers"] if isinstance(layer, dict)]
    numbers = [value for layer in layers for key in ("units", "filters", "size") for value in _flat(layer.get(key, 1))]
    for size in (*shape, *numbers):
        if not isinstance(size, int) or not 0 < size <= max(expected, 2**16):
            raise ModelFileError(f"a size of {size!r} does not fit the {expected} numbers of the file")


def _flat(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _check_arrays(path: Path, model: Sequential, arrays: dict[str, Any]) -> None:
    wanted = {p.name: p.shape for p in model.parameters}
    wanted |= {name: tuple(array.shape) for name, array in model.statistics.items()}
    if set(arrays) != set(wanted):
        missing = ", ".join(sorted(set(wanted) - set(arrays))) or "none"
        extra = ", ".join(sorted(set(arrays) - set(wanted))[:5]) or "none"
        raise ModelFileError(f"{path} does not fit its network: missing {missing}; not expected {extra}")
    for name, shape in wanted.items():
        if arrays[name].shape != shape or arrays[name].dtype != np.dtype(model.dtype):
            raise ModelFileError(
                f"{path}: {name} must be {model.dtype} {shape}, got {arrays[name].dtype} {arrays[name].shape}"
            )
