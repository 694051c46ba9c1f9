"""Experiment files: the well-known runs by name, and one's own, read against closed lists."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from gpunn.config import MOST_LAYERS, from_config
from gpunn.errors import OptionError
from gpunn.experiments.experiment import DataPart, Experiment, TrainingPart, read_source, with_units
from gpunn.files import open_regular
from gpunn.saving.checkpointer import CheckpointPart

FOLDER = Path(__file__).parent
# Files of a few lines: what is larger is something else.
_MOST_BYTES = 1 << 16
# Of a line: dots between the parts of a key take tomllib the square of their number, and more in memory.
_MOST_DOTS = 16
# Sizes beyond could not be held anyhow, and would end in errors that speak of other things.
_MOST = 2**31 - 1


def recipes() -> dict[str, Path]:
    """The recipes that come with gpunn, by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.toml"), key=lambda path: path.stem)}


def read_experiment(recipe: str) -> Experiment:
    """A recipe by name, or an experiment file.

    Raises:
        OptionError: no such recipe or file, or something in it that cannot be.
    """
    known = recipes()
    if recipe in known:
        return parse_experiment(known[recipe].read_text("utf-8"), recipe)
    path = Path(recipe)
    if path.suffix != ".toml" and path.name == recipe:
        near = get_close_matches(recipe, known, n=1)
        guess = f", did you mean {near[0]}?" if near else ""
        raise OptionError(f"unknown recipe {recipe!r}: expected {', '.join(known)} or a .toml file{guess}")
    try:
        with open_regular(path) as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise OptionError(f"recipe {path} cannot be read ({error.strerror or error}): check the path") from None
    if len(content) > _MOST_BYTES:
        raise OptionError(f"recipe {path} is larger than {_MOST_BYTES:,} bytes: it is no experiment file")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise OptionError(f"recipe {path} is not UTF-8 text: it is no experiment file") from None
    return parse_experiment(text, str(path))


def parse_experiment(text: str, where: str) -> Experiment:
    """An experiment from TOML; `where` is what errors call it.

    Raises:
        OptionError: no TOML, an unknown key, or a value that cannot be.
    """
    try:
        for number, line in enumerate(text.splitlines(), 1):
            if line.count(".") > _MOST_DOTS:
                raise OptionError(f"line {number} has more than {_MOST_DOTS} dots, and no experiment needs so many")
        table = tomllib.loads(text)
        # A file may have a name that no run may have.
        return _parse(table, re.sub(r"[^\w.-]+", "_", Path(where).stem).lstrip(".") or "experiment")
    except tomllib.TOMLDecodeError as error:
        raise OptionError(f"{where} is no TOML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise OptionError(f"{where} is no experiment: its tables are nested too deeply") from None
    except OptionError as error:
        raise OptionError(f"{where}: {error}") from None
    except ValueError as error:  # a number of more digits than Python reads or shows
        raise OptionError(f"{where} is no experiment: {error}") from None


def _parse(table: dict[str, Any], stem: str) -> Experiment:
    _known_keys(table, [field.name for field in fields(Experiment)], "an experiment")
    for key in ("layers", "optimizer"):
        if key not in table:
            raise OptionError(f"{key} is missing: an experiment has layers and an optimizer")
    layers = table["layers"]
    if not isinstance(layers, list) or not 0 < len(layers) <= MOST_LAYERS:
        raise OptionError(f"layers must be a list of 1 to {MOST_LAYERS:,} tables, each with a type")
    # Everything is made once, so that what cannot be is said before any data are read.
    for layer in layers:
        from_config("layer", with_units(layer, 1))
    for kind in ("optimizer", "loss", "regularizer", "augmentation"):
        if kind in table:
            from_config(kind, table[kind])
    name = _text(table.get("name", stem), "name")
    if not name or not all(character.isalnum() or character in "-_." for character in name) or name.startswith("."):
        raise OptionError(f"name must be letters, digits, '-', '_' and '.', got {name!r}")
    data = _part(DataPart, table.get("data", {}), "data")
    data = replace(data, source=read_source(data.source))
    if len(data.shape) not in (0, 1, 3) or not all(size > 0 for size in data.shape):
        raise OptionError(f"data.shape must be [features] or [height, width, channels], got {list(data.shape)}")
    return Experiment(
        name=name,
        description=_text(table.get("description", ""), "description"),
        data=data,
        training=_part(TrainingPart, table.get("training", {}), "training"),
        layers=tuple(_table(layer) for layer in layers),
        loss=_table(table["loss"]) if "loss" in table else None,
        optimizer=_table(table["optimizer"]),
        regularizer=_table(table["regularizer"]) if "regularizer" in table else None,
        augmentation=_table(table["augmentation"]) if "augmentation" in table else None,
        checkpoints=_part(CheckpointPart, table.get("checkpoints", {}), "checkpoints"),
        version=_text(table.get("version", ""), "version"),
    )


def _part(kind: type[Any], table: Any, name: str) -> Any:
    """`[data]` or `[training]` from its table, every value of the type that its field is annotated with."""
    if not isinstance(table, dict):
        raise OptionError(f"{name} must be a table, got {table!r}")
    annotations = {field.name: str(field.type) for field in fields(kind)}
    _known_keys(table, list(annotations), f"[{name}]")
    values = {key: _checked(value, annotations[key], f"{name}.{key}") for key, value in table.items()}
    return kind(**values)


def _checked(value: Any, annotation: str, what: str) -> Any:
    allowed = annotation.split(" | ")
    if annotation.startswith("tuple") and isinstance(value, list):
        return tuple(_checked(size, "int", what) for size in value)
    if isinstance(value, bool):
        if annotation == "bool":
            return value
    elif isinstance(value, int) and ("int" in allowed or "float" in allowed):
        if abs(value) <= (2**32 - 1 if what.endswith("seed") else _MOST):
            return value
    elif isinstance(value, float) and "float" in allowed:
        if math.isfinite(value):
            return value
    elif isinstance(value, str) and "str" in allowed:
        return value
    words = {"int": "a whole number", "float": "a number", "str": "a text", "bool": "true or false", "None": ""}
    expected = " or ".join(words.get(kind, "a list of whole numbers") for kind in allowed if kind != "None")
    raise OptionError(f"{what} must be {expected}, got {value!r}")


def _known_keys(table: Mapping[str, Any], known: list[str], where: str) -> None:
    for key in table:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            guess = f", did you mean {near[0]!r}?" if near else ""
            raise OptionError(f"{where} has no key {key!r}: expected {', '.join(known)}{guess}")


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise OptionError(f"{what} must be a text of one line, got {value!r}")
    return value


def _table(config: Any) -> dict[str, Any]:
    return {"type": config} if isinstance(config, str) else dict(config)
