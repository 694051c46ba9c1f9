"""A checkpoint: everything that a run needs to go on from a step, as a folder of safetensors and JSON.

    model.safetensors   the network as it is, a model file like any other
    best.safetensors    the network at the lowest watched cost so far, likewise
    state.safetensors   what the optimizer remembers, sums, history, and the weights that a divergence falls back to
    manifest.json       the rest, and size and SHA-256 of the other files and of itself; written last

A folder whose manifest fits is whole; nothing in one is executed, and no name in one leads out of it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpunn.errors import CheckpointError, DataError
from gpunn.files import open_regular, write_folder
from gpunn.nn.network import Network
from gpunn.nn.parameter import Arrays
from gpunn.saving.model_file import model_bytes
from gpunn.saving.safetensors import Layout, read_header, read_values, to_bytes
from gpunn.train.history import History, columns_of
from gpunn.train.record import COLUMNS, Record
from gpunn.train.state import State, Weights

FORMAT = 1
MANIFEST, MODEL, BEST, STATE = "manifest.json", "model.safetensors", "best.safetensors", "state.safetensors"

_COLUMNS: tuple[str, ...] = ("step", "epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy")
_COLUMNS += ("learning_rate", "seconds")
"""Of the records, since the first version; the others that a record has a number for lie beside them."""

# An experiment of 64 KiB, which is the largest that is read, with every character escaped, and the rest.
_MOST_BYTES = 1 << 19
_CHUNK = 1 << 20
# What name, type and place of one array take in the header of a file, and what the description of a network takes.
_HEADER_BYTES, _DESCRIPTION_BYTES = 1 << 10, 1 << 20


class DamagedCheckpointError(CheckpointError):
    """A checkpoint that is not what was written: an older one may be whole."""


@dataclass(frozen=True)
class Origin:
    """What a run was made of, to be compared before another goes on from it.

    Attributes:
        experiment: as TOML.
        data: number, shape and SHA-256 of the training samples, and of those for validation.
        versions: of gpunn and of what it computes with: other ones may round otherwise.
    """

    experiment: str
    data: dict[str, Any]
    versions: dict[str, str]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files are those that its manifest lists.

    Attributes:
        path: the folder.
        step: steps done.
        origin: of the run.
    """

    path: Path
    step: int
    origin: Origin
    _position: dict[str, Any]

    def state(self, like: State) -> State:
        """The state of the training.

        Args:
            like: of a training that has not begun, whose arrays say which there must be.

        Raises:
            CheckpointError: the arrays are those of another network or optimizer; the message shows the difference.
        """
        position = self._position
        network = _layout_of(like.now.arrays)
        weights = {self.step: self._read(MODEL, network)}
        if position["best"] is not None:
            weights[position["best"]] = self._read(BEST, network)
        layout: Layout = {f"optimizer/{name}": entry for name, entry in _layout_of(like.optimizer).items()}
        layout["totals"] = _layout_of({"": like.totals})[""]
        layout["records"] = ((position["records"], len(_COLUMNS)), "float64")
        if figures := position.get("figures"):
            layout["figures"] = ((position["records"], len(figures)), "float64")
        beside = {position["last"], position["good"]} - set(weights)
        layout |= {f"{step}/{name}": entry for step in beside for name, entry in network.items()}
        arrays = self._read(STATE, layout)
        weights |= {step: _part(arrays, f"{step}/") for step in beside}

        def at(step: int) -> Weights:
            return Weights(step, weights[step])

        return State(
            now=at(self.step),
            last=at(position["last"]),
            good=at(position["good"]),
            best=None if position["best"] is None else at(position["best"]),
            optimizer=_part(arrays, "optimizer/"),
            totals=arrays["totals"],
            samples=position["samples"],
            records=self._records(arrays["records"], arrays.get("figures"), figures or []),
            stopped=position["stopped"],
            skipped=position["skipped"],
            untrained_cost=position["untrained_cost"],
            seconds=position["seconds"],
        )

    def _read(self, name: str, layout: Layout) -> Arrays:
        """Read the arrays of a file that must hold these and no others: sizes are compared before memory is taken."""
        path = self.path / name
        try:
            with open_regular(path, follow_links=False) as file:
                header = read_header(file, _DESCRIPTION_BYTES + _HEADER_BYTES * len(layout))
                if difference := _different(header.layout, layout):
                    raise DataError(difference)
                return read_values(file, header.layout, str(path))
        except (DataError, OSError) as error:
            reason = error.strerror or error if isinstance(error, OSError) else error
            raise CheckpointError(f"{path} does not fit this network and its optimizer: {reason}") from None

    def _records(self, rows: Any, more: Any, figures: list[str]) -> tuple[Record, ...]:
        rows = rows if more is None else np.hstack([rows, more])
        names = [*_COLUMNS, *figures]
        try:
            values = (dict(zip(names, map(float, row), strict=True)) for row in rows)
            return tuple(History(Record(**{**value, "step": int(value["step"])}) for value in values))  # type: ignore[arg-type]
        except (ValueError, OverflowError) as error:
            raise CheckpointError(f"{self.path / STATE} holds no history: {error}") from None


def _layout_of(arrays: Arrays) -> Layout:
    return {name: (tuple(array.shape), str(array.dtype)) for name, array in arrays.items()}


def _different(found: Layout, wanted: Layout) -> str:
    """Describe the first differences between the arrays that are there and those that are wanted; "" if none."""

    def described(layout: Layout, name: str) -> str:
        shape, dtype = layout[name]
        return f"{dtype} ({', '.join(map(str, shape))})"

    changed = [name for name in wanted if name in found and found[name] != wanted[name]]
    words = [f"{name} {described(wanted, name)} is missing" for name in sorted(wanted.keys() - found.keys())[:3]]
    words += [
        f"{name[:80]!r} {described(found, name)} is not expected" for name in sorted(found.keys() - wanted.keys())[:3]
    ]
    words += [f"{name} is {described(found, name)}, expected {described(wanted, name)}" for name in changed[:3]]
    return "; ".join(words[:5])


def write_checkpoint(path: Path, state: State, origin: Origin, model: Network) -> None:
    """Write a checkpoint; it is there whole or not at all.

    Args:
        path: of the folder.
        state: of the training.
        origin: of the run.
        model: that is trained: its architecture is written beside the weights.

    Raises:
        OutputError: it cannot be written; what was there before still is.
    """
    write_folder(path, _files(state, origin, model))


def _files(state: State, origin: Origin, model: Network) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files, the manifest last."""
    listed = {}
    for name, content in _arrays(state, model):
        listed[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        yield name, content
    manifest = {
        "format": FORMAT,
        "step": state.now.step,
        **asdict(origin),
        "position": {
            "last": state.last.step,
            "good": state.good.step,
            "best": None if state.best is None else state.best.step,
            "samples": state.samples,
            "records": len(state.records),
            "figures": _figures(state),
            "stopped": state.stopped,
            "skipped": state.skipped,
            "untrained_cost": state.untrained_cost,
            "seconds": state.seconds,
        },
        "files": listed,
    }
    manifest["sha256"] = _fingerprint(manifest)
    yield MANIFEST, json.dumps(manifest, indent=2, allow_nan=False).encode("ascii")


def _figures(state: State) -> list[str]:
    """The columns of the records that are written beside the first ones."""
    return [name for name in columns_of(state.records) if name not in _COLUMNS]


def _arrays(state: State, model: Network) -> Iterator[tuple[str, bytes]]:
    yield MODEL, model_bytes(model, state.now)
    written = {state.now.step}
    if state.best is not None:
        yield BEST, model_bytes(model, state.best)
        written.add(state.best.step)
    arrays = {f"optimizer/{name}": array for name, array in state.optimizer.items()}
    arrays["totals"] = state.totals
    for name, columns in (("records", _COLUMNS), ("figures", _figures(state))):
        if columns:
            rows = [[getattr(record, column) for column in columns] for record in state.records]
            arrays[name] = np.array(rows, np.float64).reshape(-1, len(columns))
    for weights in (state.last, state.good):
        if weights.step not in written:
            arrays |= {f"{weights.step}/{name}": array for name, array in weights.arrays.items()}
            written.add(weights.step)
    yield STATE, to_bytes(arrays)


def open_checkpoint(path: Path) -> Checkpoint:
    """A checkpoint, all of whose files were compared with its manifest.

    Raises:
        DamagedCheckpointError: a file is missing, or not what was written.
        CheckpointError: another version of gpunn wrote it.
    """
    try:
        if path.is_symlink():
            raise DamagedCheckpointError(f"{path} is a link: a checkpoint is a folder in its run")
        manifest = _manifest(path)
        for name, entry in manifest["files"].items():
            if entry is not None:
                _compare(path / name, entry["bytes"], entry["sha256"])
    except OSError as error:
        raise DamagedCheckpointError(f"{error.filename or path}: {error.strerror or error}") from None
    origin = Origin(manifest["experiment"], manifest["data"], manifest["versions"])
    return Checkpoint(path, manifest["step"], origin, manifest["position"])


def _manifest(path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint, every value of the type that it must have."""
    path /= MANIFEST
    with open_regular(path, follow_links=False) as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise DamagedCheckpointError(f"{path} is larger than {_MOST_BYTES:,} bytes: it is no manifest")
    try:
        manifest = json.loads(content.decode("ascii"), parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise DamagedCheckpointError(f"{path} is no JSON") from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("format"), int):
        raise DamagedCheckpointError(f"{path} is no manifest")
    # First: how another format tells its damage is not known here, and what is not damaged must not be passed over.
    if manifest["format"] != FORMAT:
        raise CheckpointError(
            f"{path} has format {str(manifest['format'])[:20]}, this gpunn knows {FORMAT}: update gpunn"
        )
    if manifest.pop("sha256", None) != _fingerprint(manifest):
        raise DamagedCheckpointError(f"{path} is not what was written: its SHA-256 differs")
    try:
        _check(manifest, _MANIFEST, "")
        _check_values(manifest)
    except ValueError as error:
        raise DamagedCheckpointError(f"{path}: {error}") from None
    return manifest


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _fingerprint(manifest: Any) -> str:
    """SHA-256 of a manifest, however it is laid out."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode("ascii")).hexdigest()


_SAMPLES = {"samples": int, "shape": list, "sha256": str}
_FILE = {"bytes": int, "sha256": str}
_MANIFEST = {
    "format": int,
    "step": int,
    "experiment": str,
    "data": {"train": _SAMPLES, "validation": (_SAMPLES, None)},
    "versions": dict,
    "position": {
        "last": int,
        "good": int,
        "best": (int, None),
        "samples": int,
        "records": int,
        "figures": (list, None),
        "stopped": str,
        "skipped": int,
        "untrained_cost": (float, None),
        "seconds": float,
    },
    "files": {MODEL: _FILE, STATE: _FILE, BEST: (_FILE, None)},
}
"""What a manifest must be: for each key a type, a table of such, or a pair of one and None where there may be none."""


def _check(value: Any, wanted: Any, where: str) -> None:
    """Raise ValueError unless a value is as wanted; see `_MANIFEST`."""
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


def _check_values(manifest: dict[str, Any]) -> None:
    """Raise ValueError where a value of the right type cannot be."""
    position, step = manifest["position"], manifest["step"]
    has_best = position["best"] is not None
    if has_best != (manifest["files"].get(BEST) is not None):
        raise ValueError(f"{BEST} must be there if and only if a step is the best")
    steps = [position["last"], position["good"], position["records"], position["best"] if has_best else 0]
    if not all(0 <= number <= step for number in steps) or step >= 2**31:
        raise ValueError(f"its steps must lie from 0 to {step}, got {steps}")
    for name in ("samples", "skipped", "seconds"):
        if not 0 <= position[name] < math.inf:
            raise ValueError(f"{name} must be at least 0, got {position[name]!r:.40}")
    figures = position.get("figures") or []
    if not all(name in COLUMNS and name not in _COLUMNS for name in figures) or len(set(figures)) < len(figures):
        raise ValueError(f"figures must be columns of a history, got {figures!r:.40}")
    for entry in (manifest["data"]["train"], manifest["data"]["validation"]):
        if entry is not None and not all(type(size) is int for size in entry["shape"]):
            raise ValueError("the shape of its samples must be whole numbers")
    if not all(isinstance(text, str) for text in manifest["versions"].values()):
        raise ValueError("its versions must be texts")


def _compare(path: Path, size: int, sha256: str) -> None:
    """Raise DamagedCheckpointError unless a file has this size and these bytes."""
    digest = hashlib.sha256()
    with open_regular(path, follow_links=False) as file:
        found = os.fstat(file.fileno()).st_size
        if found != size:
            raise DamagedCheckpointError(f"{path} has {found:,} bytes, {size:,} were written")
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != sha256:
        raise DamagedCheckpointError(f"{path} is not what was written: its SHA-256 differs")


def _part(arrays: Arrays, prefix: str) -> Arrays:
    """The arrays whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
