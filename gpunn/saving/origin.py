"""Describe network, options, data and versions of a training, and compare them before it resumes."""

import json
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from gpunn.backend.ranks import world
from gpunn.config import to_built_config, to_config
from gpunn.data import Data
from gpunn.errors import CheckpointError
from gpunn.saving.checkpoint import ALGORITHMS, Checkpoint, Origin
from gpunn.train.arguments import PlainOptions
from gpunn.train.distributed import first_text
from gpunn.train.stopping import BestWeights
from gpunn.train.trainer import Trainer
from gpunn.version import __version__

LIBRARIES = {"python": ".".join(map(str, sys.version_info[:3])), "numpy": np.__version__}
CHANGEABLE = frozenset({"epochs", "device", "data_on", "skip_bad_batches"})  # options that may change on resuming
_MASKS = "Dropout's masks"  # key of the way their units are numbered, on which the masks depend
_OF_FIT = "{"  # first character of the origin of `fit`, which is JSON; that of `gpunn train` is TOML


def fingerprint(data: Data, sha256: str = "") -> dict[str, Any]:
    """Return number, shape and SHA-256 of training and validation samples; the first hash may be given."""
    parts = {"train": (data.train, sha256), "validation": (data.validation, "")}
    return {
        name: samples and {"samples": len(samples), "shape": list(samples.shape), "sha256": known or samples.sha256()}
        for name, (samples, known) in parts.items()
    }


def versions(trainer: Trainer) -> dict[str, str]:
    """Return the versions, device and ranks on which the last bits of a training depend."""
    made = {"gpunn": __version__, **LIBRARIES, "device": trainer.backend.description, "ranks": str(world().size)}
    drops = any(layer.drops_units for layer, _ in trainer.model.every_layer)
    return {**made, _MASKS: "numbered by sample"} if drops else made


def version_changes(was: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    """Describe differences between the `versions` of a checkpoint and of now."""
    was = {"ranks": "1", **was}  # a key that earlier versions lack
    was.pop(ALGORITHMS, None)  # restored by `repeat_algorithms`
    if _MASKS in now:
        was = {_MASKS: "numbered by batch", **was}
    return differences(_numbered(was), _numbered(now))


def repeat_algorithms(trainer: Trainer, was: Mapping[str, str]) -> str:
    """Restore the GEMM algorithms of a checkpoint; return why others are chosen, on any rank, or ""."""
    why = trainer.backend.repeat(was.get(ALGORITHMS, ""))
    return first_text(world(), why and f"algorithms of products are chosen anew: {why}")


def _numbered(versions: Mapping[str, str]) -> dict[str, str | int]:
    return {name: int(text) if text.isdecimal() else text for name, text in versions.items()}


def parts_of(trainer: Trainer) -> dict[str, Any]:
    """Return network and options of a training by name, as tables of `gpunn.config`."""
    options, layers = trainer.options, [to_built_config(layer) for layer in trainer.model.layers]
    parts = {name: getattr(options, name) for name in ("regularizer", "augmentation")}
    parts |= {"loss": trainer.loss, "optimizer": trainer.optimizer}
    made: dict[str, Any] = {"layers": layers, "trained_before": trainer.trained_before}
    made["held"] = sorted(trainer.held)
    made |= {name: None if part is None else to_config(part) for name, part in parts.items()}
    made |= {each.name: getattr(options, each.name) for each in fields(PlainOptions) if each.name not in CHANGEABLE}
    made["batch_size"], stopping = trainer.batch_size, trainer.stopping
    if not isinstance(stopping, BestWeights):  # the only kind that earlier versions have
        made["patience"] = stopping.patience
        made |= {"early_stopping": stopping.settings} if stopping.settings else {}
    if trainer.metrics:
        made["metrics"] = list(trainer.metrics)
    if options.average is None:  # a key that earlier versions lack
        del made["average"]
    return made


def origin_of(trainer: Trainer) -> Origin:
    """Describe a training by `fit`: its network, options, data and versions."""
    return Origin(json.dumps(parts_of(trainer), default=str), fingerprint(trainer.data), versions(trainer))


def is_of_new_network(origin: Origin) -> bool:
    """Return whether a training by `fit` was the first of its network."""
    return '"trained_before": [0, 0]' in origin.experiment


def is_of_fit(origin: Origin) -> bool:
    """Return whether a training was started by `fit`, not by `gpunn train`."""
    return origin.experiment.startswith(_OF_FIT)


def compare(checkpoint: Checkpoint, now: Origin) -> None:
    """Raise CheckpointError, with the differences, if a checkpoint belongs to another training by `fit`."""
    path, was = checkpoint.path, checkpoint.origin
    if not is_of_fit(was):
        raise CheckpointError(f"{path} is of gpunn train: gpunn train --resume {path.parent.parent} goes on with it")
    try:
        made = json.loads(was.experiment)
    except (ValueError, RecursionError):
        raise CheckpointError(f"{path} does not say what its training was made of") from None
    both = {"fit": made, "data": was.data}, {"fit": json.loads(now.experiment), "data": now.data}
    if different := summarize(differences(*both)):
        mend = "make network, data and arguments as they were, or give another folder"
        raise CheckpointError(f"{path} is of another training: {different}: {mend}")


def differences(was: Any, now: Any, ignored: Collection[str] = (), where: str = "") -> Iterator[str]:
    """Describe where two trees of tables and lists differ, except at the keys in `ignored`."""
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        inner = {f"{where}.{key}" if where else key: (was.get(key), now.get(key)) for key in [*was, *now]}
    elif isinstance(was, list | tuple) and isinstance(now, list | tuple) and len(was) == len(now):
        inner = {f"{where}[{number}]": pair for number, pair in enumerate(zip(was, now, strict=True), start=1)}
    else:
        inner = {}
        if was != now:
            yield f"{where} was {_shown(was)}, is {_shown(now)}"
    for key, (before, after) in inner.items():
        if key not in ignored:
            yield from differences(before, after, ignored, key)


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
        return f"{len(value)} of {', '.join(str(item.get('type')) for item in value)}"[:80]
    text = "none" if value is None else repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def summarize(different: Iterator[str]) -> str:
    """Join the first three differences to one text, and count the others."""
    there = list(different)
    return "; ".join(there[:3] + [f"and {len(there) - 3} more"] * (len(there) > 3))
