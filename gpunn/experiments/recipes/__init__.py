"""Experiment files: the well-known runs by name, and your own, read against closed lists."""

import re
import tomllib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from gpunn.config import MOST_LAYERS, check_names, from_config, from_table, nearest
from gpunn.errors import OptionError
from gpunn.experiments.experiment import DataPart, Experiment, TrainingPart, read_source, with_units
from gpunn.files import read_regular
from gpunn.saving.checkpointer import CheckpointPart

# Files of a few lines: what is larger is something else.
_MOST_BYTES = 1 << 16
# Of a line: dots between the parts of a key take tomllib the square of their number, and more in memory.
_MOST_DOTS = 16
_SECTIONS: dict[str, type] = {"data": DataPart, "training": TrainingPart, "checkpoints": CheckpointPart}


def recipes() -> dict[str, Path]:
    """Return the files of the recipes that come with gpunn, by name."""
    return dict(sorted((path.stem, path) for path in Path(__file__).parent.glob("*.toml")))


def read_experiment(recipe: str) -> Experiment:
    """Read a recipe by its name, or an experiment file; raise OptionError where that cannot be."""
    known, path = recipes(), Path(recipe)
    if recipe in known:
        path = known[recipe]
    elif path.suffix != ".toml" and path.name == recipe:
        expected = f"expected {', '.join(known)} or a .toml file{nearest(recipe, known, ', did you mean {}?')}"
        raise OptionError(f"unknown recipe {recipe!r}: {expected}")
    try:
        text = read_regular(path, _MOST_BYTES).decode("utf-8")
        return parse_experiment(text, recipe if recipe in known else str(path))
    except OSError as error:
        raise OptionError(f"recipe {path} cannot be read ({error.strerror or error}): check the path") from None
    except UnicodeDecodeError:
        raise OptionError(f"recipe {path} is not UTF-8 text: it is no experiment file") from None


def parse_experiment(text: str, where: str) -> Experiment:
    """Read an experiment from TOML that errors call `where`; raise OptionError for all that cannot be."""
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
    check_names(table, [field.name for field in fields(Experiment)], "an experiment")
    for key in ("layers", "optimizer"):
        if key not in table:
            raise OptionError(f"{key} is missing: an experiment has layers and an optimizer")
    layers = table["layers"]
    if not isinstance(layers, list) or not 0 < len(layers) <= MOST_LAYERS:
        raise OptionError(f"layers must be a list of 1 to {MOST_LAYERS:,} tables, each with a type")
    parts = {kind: table[kind] for kind in ("optimizer", "loss", "regularizer", "augmentation") if kind in table}
    # Everything is made once, so that what cannot be is said before any data are read.
    for kind, part in [*(("layer", with_units(layer, 1)) for layer in layers), *parts.items()]:
        from_config(kind, part)
    texts = {"name": stem, "description": "", "version": ""}
    for key, text in texts.items():
        texts[key] = table.get(key, text)
        if not isinstance(texts[key], str) or not texts[key].isprintable():
            raise OptionError(f"{key} must be a text of one line, got {texts[key]!r}")
    if not re.fullmatch(r"(?!\.)[\w.-]+", texts["name"]):
        raise OptionError(f"name must be letters, digits, '-', '_' and '.', got {texts['name']!r}")
    sections = {section: from_table(made, table.get(section, {}), section) for section, made in _SECTIONS.items()}
    data = replace(sections["data"], source=read_source(sections["data"].source))
    if len(data.shape) not in (0, 1, 3) or not all(type(size) is int and 0 < size < 2**31 for size in data.shape):
        raise OptionError(f"data.shape must be [features] or [height, width, channels], got {list(data.shape)}")
    everything: dict[str, Any] = {kind: _table(part) for kind, part in parts.items()}
    everything |= {**texts, **sections, "data": data, "layers": tuple(map(_table, layers))}
    return Experiment(**everything)


def _table(config: Any) -> dict[str, Any]:
    return {"type": config} if isinstance(config, str) else dict(config)
