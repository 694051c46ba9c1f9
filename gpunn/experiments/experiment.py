"""Experiments: everything that a run depends on, as a TOML file from which it runs the same again."""

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote_from_bytes, unquote_to_bytes

import numpy as np

from gpunn.config import from_config, to_built_config, to_config
from gpunn.data import NAMES, Data, load_data
from gpunn.errors import DataError
from gpunn.nn.tasks import Task
from gpunn.saving.checkpoint import Origin
from gpunn.saving.checkpointer import CheckpointPart
from gpunn.sequential import Sequential
from gpunn.train.arguments import PlainOptions, TrainOptions
from gpunn.train.trainer import Trainer
from gpunn.version import __version__

OUTPUTS = "outputs"  # units of a Dense that has as many as the data have classes, or float targets
LIBRARIES = {"python": ".".join(map(str, sys.version_info[:3])), "numpy": np.__version__}
"""Versions of Python and NumPy."""

_PARTS = ("loss", "optimizer", "regularizer", "augmentation")
_URI = "file://"
# Fewer samples say too little about the gradient for the learning rates of the recipes.
_LEAST_BATCH = 32


@dataclass(frozen=True)
class DataPart:
    """`[data]`: arguments of `load_data`, and shape and SHA-256 of the training samples, once they were loaded."""

    source: str = "digits"
    validation: float | int | str = 0.1
    limit: int | None = None
    shape: tuple[int, ...] = ()
    sha256: str = ""


@dataclass(frozen=True)
class TrainingPart(PlainOptions):
    """`[training]`: the plain options of `Sequential.fit`; smaller batches give an epoch `least_steps` steps."""

    batch_size: int = 128
    device: str = "auto"
    least_steps: int = 0

    def batch_size_for(self, count: int) -> int:
        """Choose the batch size for so many training samples."""
        if not self.least_steps:
            return self.batch_size
        return min(self.batch_size, max(_LEAST_BATCH, count // self.least_steps), count)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything that a run depends on; parts are tables of `gpunn.config`, a loss of None is chosen by the targets."""

    version: str = ""
    name: str
    description: str = ""
    data: DataPart = field(default_factory=DataPart)
    training: TrainingPart = field(default_factory=TrainingPart)
    layers: tuple[dict[str, Any], ...]
    loss: dict[str, Any] | None = None
    optimizer: dict[str, Any]
    regularizer: dict[str, Any] | None = None
    augmentation: dict[str, Any] | None = None
    checkpoints: CheckpointPart = field(default_factory=CheckpointPart)

    def with_options(
        self,
        *,
        data: str | None = None,
        learning_rate: float | None = None,
        batch_size: int | None = None,
        checkpoints: Mapping[str, Any] | None = None,
        **training: Any,
    ) -> Self:
        """Return a changed experiment: its data, learning rate (of a schedule, its peak), and fields of its sections.

        None leaves a value as it is; a given batch size is kept however few samples there are.
        """
        changed = _given(training)
        part = self.data if data is None else replace(self.data, source=_located(data))
        if batch_size is not None:
            changed.update(batch_size=batch_size, least_steps=0)
        if data is not None or "seed" in changed:
            part = replace(part, shape=(), sha256="")  # other samples, so these fingerprints no longer apply
        made = replace(self, data=part, training=replace(self.training, **changed))
        made = replace(made, checkpoints=replace(self.checkpoints, **_given(checkpoints or {})))
        return made if learning_rate is None else made._optimized_by(_with_rate(self.optimizer, learning_rate))

    def with_changed_rate(self, learning_rate: float, epoch: float) -> Self:
        """Return an experiment whose learning rate changes at an epoch."""
        after = _with_rate(self.optimizer, learning_rate)["learning_rate"]
        changed = {"type": "Changed", "before": self.optimizer["learning_rate"], "at": epoch, "after": after}
        return self._optimized_by({**self.optimizer, "learning_rate": changed})

    def _optimized_by(self, optimizer: dict[str, Any]) -> Self:
        from_config("optimizer", optimizer)  # which refuses a rate that cannot be
        return replace(self, optimizer=optimizer)

    def load_data(self) -> Data:
        """Load the data; raise DataError unless they are those that the experiment was written with."""
        part = self.data
        data = load_data(part.source, validation=part.validation, limit=part.limit, seed=self.training.seed)
        if self.loss and data.train.one_hot and from_config("loss", self.loss).of_targets is Task.BINARY:
            data = data.as_floats()  # as the trainer would, but the fingerprint is of what is trained on
        if part.sha256 and data.train.sha256() != part.sha256:
            raise DataError(
                f"{part.source} does not hold the training data that this experiment was made with: name the data on "
                "the command line to train on them all the same"
            )
        return data

    def model(self, data: Data) -> Sequential:
        """Make the network for some data."""
        outputs = data.train.classes or data.train.targets.shape[1]
        return Sequential(from_config("layer", with_units(layer, outputs)) for layer in self.layers)

    def trainer(self, data: Data, *, progress: bool = True) -> Trainer:
        """Make everything that trains on some data."""
        given = asdict(self.training) | {kind: getattr(self, kind) for kind in _PARTS} | {"progress": progress}
        given["batch_size"] = self.training.batch_size_for(len(data.train))
        return Trainer(self.model(data), TrainOptions.among(given), data)

    def resolved(self, trainer: Trainer) -> Self:
        """Fill in data, device, loss and initial weights from the trainer."""
        train, regularizer = trainer.data.train, trainer.options.regularizer
        return replace(
            self,
            data=replace(self.data, source=_located(self.data.source), shape=train.shape, sha256=train.sha256()),
            training=replace(
                self.training, batch_size=trainer.batch_size, device=trainer.backend.device, least_steps=0
            ),
            layers=tuple(to_built_config(layer) for layer in trainer.model.layers),
            loss=to_config(trainer.loss),
            optimizer=to_config(trainer.optimizer),
            regularizer=None if regularizer is None else to_config(regularizer),
            version=__version__,
        )

    def to_toml(self) -> str:
        """Write the experiment as a file that `read_experiment` reads."""
        import tomli_w

        return tomli_w.dumps(_plain(asdict(replace(self, data=replace(self.data, source=_written(self.data.source))))))

    def origin(self, trainer: Trainer) -> Origin:
        """Describe what a run is made of, to be written into its checkpoints."""
        return Origin(self.to_toml(), fingerprint(trainer.data, self.data.sha256), versions(trainer))


def fingerprint(data: Data, sha256: str = "") -> dict[str, Any]:
    """Return number, shape and SHA-256 of the samples of a training; that of the training samples may be known."""
    parts = {"train": (data.train, sha256), "validation": (data.validation, "")}
    return {
        name: samples and {"samples": len(samples), "shape": list(samples.shape), "sha256": known or samples.sha256()}
        for name, (samples, known) in parts.items()
    }


def versions(trainer: Trainer) -> dict[str, str]:
    """Return versions and device, on which the last bits of a training depend."""
    return {"gpunn": __version__, **LIBRARIES, "device": trainer.backend.description}


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def with_units(layer: Any, outputs: int) -> Any:
    """Return a layer's table with `units = "outputs"` replaced by a number."""
    return {**layer, "units": outputs} if isinstance(layer, dict) and layer.get("units") == OUTPUTS else layer


def _with_rate(optimizer: dict[str, Any], rate: float) -> dict[str, Any]:
    """Return an optimizer's table with another learning rate, or peak of its schedule."""
    given = optimizer.get("learning_rate")
    while isinstance(given, dict) and given["type"] == "Changed":
        given = given["after"]
    if isinstance(given, dict):
        return {**optimizer, "learning_rate": {**given, "peak" if given["type"] == "OneCycle" else "rate": rate}}
    return {**optimizer, "learning_rate": rate}


def _located(source: str) -> str:
    """Return a source that holds from every folder: names stay, paths become absolute."""
    try:
        path = Path(source).expanduser()
        return source if source in NAMES or not path.exists() else str(path.absolute())
    except (OSError, RuntimeError):
        return source  # what is wrong with it is said when the data are loaded


def _written(source: str) -> str:
    """Write a source as text: a path whose bytes are no UTF-8 becomes a URI."""
    is_text = source == source.encode(errors="replace").decode()
    return source if is_text else _URI + quote_from_bytes(os.fsencode(Path(source).absolute()))


def read_source(written: str) -> str:
    """Read a source that `to_toml` has written."""
    return os.fsdecode(unquote_to_bytes(written.removeprefix(_URI))) if written.startswith(_URI) else written


def _plain(value: Any) -> Any:
    """Convert to TOML's types: no None, nothing empty, tuples as lists."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items() if inner is not None and inner not in ("", ())}
    return [_plain(inner) for inner in value] if isinstance(value, tuple | list) else value
