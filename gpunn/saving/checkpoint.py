"""Write and read a checkpoint: the complete training state at a step, as a folder of safetensors and JSON.

    model.safetensors   the network, a model file like any other
    best.safetensors    the network at its lowest monitored loss so far
    state.safetensors   optimizer, running sums, history, and the weights to restore after a divergence
    callbacks.json      the states of the callbacks; only where there are any
    manifest.json       all else, with size and SHA-256 of every file; written last

A folder is whole if its files match the manifest. Nothing in it is executed, and no name in it leads outside.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpunn.errors import CheckpointError, DataError, OptionError
from gpunn.files import open_regular, read_regular, write_folder
from gpunn.nn.network import Network
from gpunn.nn.parameter import Arrays
from gpunn.saving.model_file import model_bytes
from gpunn.saving.safetensors import Layout, read_header, read_values, strict_json, to_bytes
from gpunn.train.history import History, columns_of
from gpunn.train.record import COLUMNS, State, Weights, is_metric_name, record_of

FORMAT = 1
MANIFEST, MODEL, BEST, STATE = "manifest.json", "model.safetensors", "best.safetensors", "state.safetensors"
CALLBACKS = "callbacks.json"
ALGORITHMS = "algorithms of products"  # key among the versions
MOST_OF_CALLBACKS = 16 << 20  # bytes

_COLUMNS: tuple[str, ...] = ("step", "epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy")
_COLUMNS += ("learning_rate", "seconds")  # in every version; other columns of the records have an array of their own
_MOST_BYTES = 1 << 19  # room for the largest experiment file, 64 KiB, with every character escaped
_HEADER_BYTES, _DESCRIPTION_BYTES = 1 << 10, 1 << 20  # limits of a header: for each array, and for the architecture

_NUMBERS = {"samples": int, "stopped": str, "skipped": int, "untrained_cost": (float, None), "seconds": float}
_FIELDS = {"untrained_cost": "untrained_loss"}  # names in `State` that differ from those in files
_SAMPLES = {"samples": int, "shape": list, "sha256": str}
_FILE = {"bytes": int, "sha256": str}
# Types of a manifest: a type, a table of types, or (type, None) for an optional value.
_MANIFEST = {
    "format": int,
    "step": int,
    "experiment": str,
    "data": {"train": _SAMPLES, "validation": (_SAMPLES, None)},
    "versions": dict,
    "position": {"last": int, "good": int, "best": (int, None), "records": int, "figures": (list, None), **_NUMBERS},
    "files": {MODEL: _FILE, STATE: _FILE, BEST: (_FILE, None), CALLBACKS: (_FILE, None)},
}


class DamagedCheckpointError(CheckpointError):
    """A checkpoint differs from what was written; an older one may be whole."""


@dataclass(frozen=True)
class Origin:
    """Experiment, data and versions of a run, compared before it resumes."""

    experiment: str  # TOML
    data: dict[str, Any]  # number, shape and SHA-256 of the training and the validation samples
    versions: dict[str, str]


@dataclass(frozen=True)
class Checkpoint:
    """Checkpoint of one step, checked against its manifest."""

    path: Path
    step: int
    origin: Origin
    _position: dict[str, Any]
    has_callbacks: bool = False  # whether it contains states of callbacks

    def callbacks(self) -> dict[str, Any]:
        """Read the states of callbacks, by name."""
        if not self.has_callbacks:
            return {}
        try:  # Python's JSON, since a state may contain NaN and Infinity
            states = json.loads(read_regular(self.path / CALLBACKS, MOST_OF_CALLBACKS, follow_links=False))
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointError(f"{self.path / CALLBACKS} cannot be read: {error}") from None
        if not isinstance(states, dict):
            raise CheckpointError(f"{self.path / CALLBACKS} holds no table of states")
        return states

    def state(self, like: State) -> State:
        """Read the training state; raise CheckpointError unless its arrays have the shapes of `like`, a fresh state."""
        position, network = self._position, _layout_of(like.now.arrays)
        weights = {self.step: self._read(MODEL, network)}
        if position["best"] is not None:
            weights[position["best"]] = self._read(BEST, network)
        figures = position.get("figures") or []
        layout = _layout_of({**_prefixed("optimizer", like.optimizer), "totals": like.totals})
        for name, columns in (("records", len(_COLUMNS)), ("figures", len(figures))):
            if columns:
                layout[name] = ((position["records"], columns), "float64")
        beside = {position["last"], position["good"]} - set(weights)
        for step in beside:
            layout |= _prefixed(step, network)
        arrays = self._read(STATE, layout)
        weights |= {step: {name: arrays[f"{step}/{name}"] for name in network} for step in beside}
        at = {step: Weights(step, arrays) for step, arrays in weights.items()}
        rows = np.hstack([arrays[name] for name in ("records", "figures") if name in arrays])
        try:
            names = [*_COLUMNS[1:], *figures]
            records = tuple(History(record_of(names, row[1:], int(row[0])) for row in rows.tolist()))
        except (ValueError, OverflowError) as error:
            raise CheckpointError(f"{self.path / STATE} holds no history: {error}") from None
        return State(
            now=at[self.step],
            last=at[position["last"]],
            good=at[position["good"]],
            best=at.get(position["best"]),
            optimizer={name: arrays[f"optimizer/{name}"] for name in like.optimizer},
            totals=arrays["totals"],
            records=records,
            **{_FIELDS.get(name, name): position[name] for name in _NUMBERS},
        )

    def _read(self, name: str, layout: Layout) -> Arrays:
        """Read the arrays of a file, which must match `layout`; compare sizes before allocating memory."""
        path = self.path / name
        try:
            with open_regular(path, follow_links=False) as file:
                _, found = read_header(file, _DESCRIPTION_BYTES + _HEADER_BYTES * len(layout))
                if difference := _different(found, layout):
                    raise DataError(difference)
                return read_values(file, found, str(path))
        except (DataError, OSError) as error:
            reason = getattr(error, "strerror", None) or error
            raise CheckpointError(f"{path} does not fit this network and its optimizer: {reason}") from None


def _layout_of(arrays: Arrays) -> Layout:
    return {name: (tuple(array.shape), str(array.dtype)) for name, array in arrays.items()}


def _prefixed(prefix: object, entries: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}/{name}": entry for name, entry in entries.items()}


def _different(found: Layout, wanted: Layout) -> str:
    """Describe the first differences between the arrays found and wanted; "" if there are none."""
    there, expected = (
        {name: f"{dtype} ({', '.join(map(str, shape))})" for name, (shape, dtype) in layout.items()}
        for layout in (found, wanted)
    )
    names = [name for name in sorted(there.keys() | expected) if there.get(name) != expected.get(name)][:5]
    return "; ".join(f"{n[:80]} is {there.get(n, 'missing')}, expected {expected.get(n, 'none')}" for n in names)


def write_checkpoint(
    path: Path, state: State, origin: Origin, model: Network, callbacks: Mapping[str, Any] | None = None
) -> None:
    """Write a checkpoint atomically: the training state, and the architecture of its network.

    Raises:
        OutputError: The checkpoint cannot be written.
        OptionError: The states of callbacks are too large.
    """
    states = json.dumps(callbacks).encode("ascii") if callbacks else b""
    if len(states) > MOST_OF_CALLBACKS:
        most = f"more than the {MOST_OF_CALLBACKS:,} that a checkpoint takes: keep what is large in a file of your own"
        raise OptionError(f"the states of {', '.join(callbacks or ())} are {len(states):,} bytes, {most}")
    write_folder(path, _files(state, origin, model, states))


def _files(state: State, origin: Origin, model: Network, callbacks: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each file, the manifest last."""
    arrays = {**_prefixed("optimizer", state.optimizer), "totals": state.totals}
    # Columns that earlier versions do not know.
    figures = [name for name in columns_of(state.records) if name not in _COLUMNS]
    for name, columns in (("records", _COLUMNS), ("figures", figures)):
        if columns:
            rows = [[record.number(column) for column in columns] for record in state.records]
            arrays[name] = np.array(rows, np.float64).reshape(-1, len(columns))
    models = {MODEL: state.now} if state.best is None else {MODEL: state.now, BEST: state.best}
    for weights in (state.last, state.good):
        if weights.step not in {written.step for written in models.values()}:
            arrays |= _prefixed(weights.step, weights.arrays)
    listed = {}
    for name in (*models, STATE, *([CALLBACKS] if callbacks else [])):
        content = callbacks if name == CALLBACKS else b""
        content = content or (model_bytes(model, models[name]) if name in models else to_bytes(arrays))
        listed[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        yield name, content
    position = {
        "last": state.last.step,
        "good": state.good.step,
        "best": None if state.best is None else state.best.step,
        "records": len(state.records),
        "figures": figures,
        **{name: getattr(state, _FIELDS.get(name, name)) for name in _NUMBERS},
    }
    manifest = {"format": FORMAT, "step": state.now.step, **asdict(origin), "position": position, "files": listed}
    if model.backend is not None and (algorithms := model.backend.algorithms()):  # those used so far
        manifest["versions"] = {**origin.versions, ALGORITHMS: algorithms}
    manifest["sha256"] = _fingerprint(manifest)
    yield MANIFEST, json.dumps(manifest, indent=2, allow_nan=False).encode("ascii")


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a checkpoint; raise DamagedCheckpointError unless all files match its manifest."""
    try:
        if path.is_symlink():
            raise DamagedCheckpointError(f"{path} is a link: a checkpoint is a folder in its run")
        manifest = _manifest(path / MANIFEST)
        for name, entry in manifest["files"].items():
            if entry is None:
                continue
            with open_regular(path / name, follow_links=False) as file:
                if (size := os.fstat(file.fileno()).st_size) != entry["bytes"]:
                    raise DamagedCheckpointError(f"{path / name} has {size:,} bytes, {entry['bytes']:,} were written")
                if hashlib.file_digest(file, "sha256").hexdigest() != entry["sha256"]:
                    raise DamagedCheckpointError(f"{path / name} is not what was written: its SHA-256 differs")
    except OSError as error:
        raise DamagedCheckpointError(f"{error.filename or path}: {error.strerror or error}") from None
    origin = Origin(manifest["experiment"], manifest["data"], manifest["versions"])
    has_callbacks = manifest["files"].get(CALLBACKS) is not None
    return Checkpoint(path, manifest["step"], origin, manifest["position"], has_callbacks)


def _manifest(path: Path) -> dict[str, Any]:
    """Read a manifest and validate types and ranges of its values."""
    content = read_regular(path, _MOST_BYTES, follow_links=False)
    try:
        manifest = strict_json(content)
    except (ValueError, RecursionError):
        raise DamagedCheckpointError(f"{path} is no JSON") from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("format"), int):
        raise DamagedCheckpointError(f"{path} is no manifest")
    # First: a newer format may have other rules for damage, and a whole checkpoint must not be skipped as damaged.
    if manifest["format"] != FORMAT:
        raise CheckpointError(f"{path} has format {manifest['format']!s:.20}, this gpunn knows {FORMAT}: update gpunn")
    if manifest.pop("sha256", None) != _fingerprint(manifest):
        raise DamagedCheckpointError(f"{path} is not what was written: its SHA-256 differs")
    try:
        _check(manifest, _MANIFEST)
        position, step = manifest["position"], manifest["step"]
        if (position["best"] is None) != (manifest["files"].get(BEST) is None):
            raise ValueError(f"{BEST} must be there if and only if a step is the best")
        steps = [position["last"], position["good"], position["records"], position["best"] or 0]
        if not all(0 <= number <= step for number in steps) or step >= 2**31:
            raise ValueError(f"its steps must lie from 0 to {step}, got {steps}")
        for name in ("samples", "skipped", "seconds"):
            if not 0 <= position[name] < math.inf:
                raise ValueError(f"{name} must be at least 0, got {position[name]!r:.40}")
        figures = position.get("figures") or []
        are_columns = all(name not in _COLUMNS if name in COLUMNS else is_metric_name(name) for name in figures)
        if not are_columns or len(set(figures)) < len(figures):
            raise ValueError(f"figures must be columns of a history, got {figures!r:.40}")
        if not all(type(size) is int for entry in manifest["data"].values() if entry for size in entry["shape"]):
            raise ValueError("the shape of its samples must be whole numbers")
        if not all(isinstance(text, str) for text in manifest["versions"].values()):
            raise ValueError("its versions must be texts")
    except ValueError as error:
        raise DamagedCheckpointError(f"{path}: {error}") from None
    return manifest


def _fingerprint(manifest: Any) -> str:
    """Return the SHA-256 of a manifest, independent of its layout."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode("ascii")).hexdigest()


def _check(value: Any, wanted: Any, where: str = "") -> None:
    """Raise ValueError unless a value has the wanted types; see `_MANIFEST`."""
    if isinstance(wanted, tuple):
        if value is not None:
            _check(value, wanted[0], where)
    elif isinstance(wanted, Mapping):
        if not isinstance(value, dict) or not value.keys() <= wanted.keys():
            raise ValueError(f"{where or 'it'} must be a table of {', '.join(wanted)}")
        for key, inner in wanted.items():
            _check(value.get(key), inner, f"{where}.{key}" if where else key)
    elif type(value) is not wanted:
        raise ValueError(f"{where} must be of type {wanted.__name__}, got {value!r:.40}")
