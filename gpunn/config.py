"""Layers, losses and the rest as plain dictionaries and back, for experiment files and model files.

Only the names in `PARTS` can be made: what a file says is looked up in that closed list, never imported or executed.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any

from gpunn import initializers, layers, losses, optimizers, regularizers, schedules
from gpunn.augmentation import Augmentation
from gpunn.errors import OptionError

PARTS: dict[str, dict[str, type]] = {
    "layer": {
        kind.__name__: kind
        for kind in (
            layers.AveragePool2D,
            layers.BatchNorm,
            layers.Conv2D,
            layers.Dense,
            layers.Dropout,
            layers.Flatten,
            layers.LeakyReLU,
            layers.MaxPool2D,
            layers.ReLU,
            layers.Sigmoid,
            layers.Softmax,
            layers.Softplus,
            layers.Tanh,
        )
    },
    "loss": {
        kind.__name__: kind for kind in (losses.BinaryCrossEntropy, losses.MeanSquaredError, losses.SoftmaxCrossEntropy)
    },
    "regularizer": {kind.__name__: kind for kind in (regularizers.L1, regularizers.L2)},
    "optimizer": {kind.__name__: kind for kind in (optimizers.SGD, optimizers.Adam)},
    "schedule": {
        kind.__name__: kind
        for kind in (schedules.Changed, schedules.Constant, schedules.StepDecay, schedules.Cosine, schedules.OneCycle)
    },
    "augmentation": {"Augmentation": Augmentation},
    "initializer": {
        kind.__name__: kind
        for kind in (
            initializers.Constant,
            initializers.Glorot,
            initializers.He,
            initializers.LeCun,
            initializers.Normal,
        )
    },
}
"""Every part that a file may name, by its kind."""

_BASES: dict[str, type] = {
    "layer": layers.Layer,
    "loss": losses.Loss,
    "regularizer": regularizers.Regularizer,
    "optimizer": optimizers.Optimizer,
    "schedule": schedules.Schedule,
    "augmentation": Augmentation,
    "initializer": initializers.Initializer,
}
_EXAMPLES = {"layer": "Dense(10)", "loss": "MeanSquaredError()", "regularizer": "L2(5.0)", "optimizer": "SGD(0.1)"}
_EXAMPLES |= {"schedule": "Cosine(0.1)", "augmentation": "Augmentation(shift=1)", "initializer": "Normal(0.1)"}
# What the field calls some of them, where it can mean nothing else.
_ALIASES = {"mse": "meansquarederror", "bce": "binarycrossentropy"}
_ALIASES |= dict.fromkeys(("categoricalcrossentropy", "sparsecategoricalcrossentropy"), "softmaxcrossentropy")
_NESTED = {"weights": "initializer", "learning_rate": "schedule", "before": "schedule", "after": "schedule"}
_SCALARS: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,), "str": (str,)}
_WORDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}
# Sizes beyond could not be held anyhow, and would end in errors that speak of other things.
_MOST = 2**31 - 1
MOST_LAYERS = 1000
"""Layers that a file may ask for: a word of five letters is enough for one."""


def arguments_of(part: Any, without_defaults: bool = False) -> dict[str, Any]:
    """The constructor's arguments of a part, by name; a part keeps each under the argument's own name.

    Args:
        part: a layer, loss, schedule and so on.
        without_defaults: leave out what is as it would be anyway.
    """
    values = {name: getattr(part, name) for name in _options(type(part))}
    if without_defaults:
        defaults = {name: p.default for name, p in _parameters(part.__class__).items()}
        return {name: value for name, value in values.items() if not _is_default(value, defaults[name])}
    return values


def _is_default(value: Any, default: Any) -> bool:
    """Whether an argument is as it would be anyway; False is not 0, as `bias=False` is not a bias of 0."""
    return value in (default, (default, default)) and (value is False) == (default is False)


@cache
def _parameters(kind: type) -> Mapping[str, inspect.Parameter]:
    """The constructor's parameters; cached, since to ask Python for them takes longer than all the rest."""
    return inspect.signature(kind).parameters


def _options(kind: type) -> list[str]:
    """Names of the constructor's arguments."""
    return [p.name for p in _parameters(kind).values() if p.kind is p.POSITIONAL_OR_KEYWORD]


def to_config(part: Any) -> dict[str, Any]:
    """A part as a dictionary: its `type` and its arguments; parts within it likewise."""
    config: dict[str, Any] = {"type": type(part).__name__}
    for name, value in arguments_of(part).items():
        if value is None:
            continue
        is_part = any(type(value) in kinds.values() for kinds in PARTS.values())
        if is_part:
            value = to_config(value)
        config[name] = list(value) if isinstance(value, tuple) else value
    if isinstance(part, layers.base.Layer) and not part.trainable:
        config["trainable"] = False
    return config


def to_built_config(layer: layers.base.Layer) -> dict[str, Any]:
    """A built layer as a dictionary, its initial weights as they were drawn and not "auto"."""
    config = to_config(layer)
    weights = getattr(layer, "w", None)
    return config if weights is None else {**config, "weights": to_config(weights.initializer)}


def from_config(kind: str, config: Any) -> Any:
    """A part from its dictionary, or from its bare name.

    Args:
        kind: key of `PARTS`.
        config: as `to_config` gave it.

    Raises:
        OptionError: an unknown type or argument, or a value that the part refuses.
    """
    config = {"type": config} if isinstance(config, str) else config
    if not isinstance(config, dict) or not isinstance(config.get("type"), str):
        raise OptionError(f"a {kind} must be a table with a type, got {config!r}")
    arguments = dict(config)
    name = arguments.pop("type")
    if name not in PARTS[kind]:
        raise _unknown(kind, name)
    made = PARTS[kind][name]
    trainable = arguments.pop("trainable", True) if kind == "layer" else True
    if not isinstance(trainable, bool):
        raise OptionError(f"trainable of {name} must be true or false, got {trainable!r}")
    known = _options(made)
    for argument, value in arguments.items():
        if argument not in known:
            raise OptionError(f"{name} has no option {argument!r}: expected {', '.join(known) or 'none'}")
        if argument in _NESTED and isinstance(value, dict):
            arguments[argument] = from_config(_NESTED[argument], value)
        elif isinstance(value, list):
            arguments[argument] = tuple(value)
        _check(made, argument, arguments[argument])
    try:
        part = made(**arguments)
    except OptionError:
        raise
    except (TypeError, ValueError) as error:
        raise OptionError(f"{name} cannot be made from {arguments}: {error}") from None
    if not trainable:
        part.trainable = False
    return part


def as_part(kind: str, value: Any) -> Any:
    """A part as it may be given in Python: made already, or by its class or name where it needs no arguments.

    Args:
        kind: key of `PARTS`.
        value: a part, its class, its name in whatever letters, or its table as in an experiment file.

    Raises:
        OptionError: there is no such part, it needs arguments, or it is of another kind.
    """
    if isinstance(value, _BASES[kind]):
        return value
    if isinstance(value, dict):
        return from_config(kind, value)
    made = value
    if isinstance(value, str):
        word = _plain(value)
        word = _ALIASES.get(word, word)
        made = next((known for name, known in PARTS[kind].items() if _plain(name) == word), None)
        if made is None:
            raise _unknown(kind, value)
    if not isinstance(made, type) or not issubclass(made, _BASES[kind]) or inspect.isabstract(made):
        article = "an" if kind[0] in "aio" else "a"
        raise OptionError(f"expected {article} {kind} such as {_EXAMPLES[kind]}, got {value!r}{_mend(kind, value)}")
    needed = [
        p.name
        for p in inspect.signature(made).parameters.values()
        if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    if needed:
        raise OptionError(f"{made.__name__} needs {', '.join(needed)}: write {made.__name__}(...), got {value!r}")
    return made()


def _mend(kind: str, value: Any) -> str:
    """What was probably meant by a number in the place of a part."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        name = {"regularizer": "L2", "optimizer": "SGD", "layer": "Dense", "initializer": "Normal"}.get(kind)
        return f": write {name}({value!r})" if name else ""
    return ""


def _plain(name: str) -> str:
    """A name without what differs from one library to the next: capitals, spaces, hyphens and the like."""
    return "".join(filter(str.isalnum, name.lower()))


def _unknown(kind: str, name: str) -> OptionError:
    known = {_plain(part): part for part in PARTS[kind]}
    near = get_close_matches(_plain(name[:80]), known, n=1)
    guess = f"; did you mean {known[near[0]]}?" if near else ""
    return OptionError(f"unknown {kind} {name!r}: expected one of {', '.join(sorted(PARTS[kind]))}{guess}")


def _check(made: type, argument: str, value: Any) -> None:
    """Raise OptionError for a scalar of another type than the constructor's annotation has, or none that is finite."""
    allowed = str(_parameters(made)[argument].annotation).split(" | ")
    if isinstance(value, float) and not math.isfinite(value):
        raise OptionError(f"{argument} of {made.__name__} must be finite, got {value!r}")
    if isinstance(value, int) and abs(value) > _MOST:
        raise OptionError(f"{argument} of {made.__name__} must be at most {_MOST}, got {value!r}")
    if type(value).__name__ in ("tuple", "NoneType") or any(isinstance(value, kind) for kind in _parts(allowed)):
        return
    scalars = [kind for kind in allowed if kind in _SCALARS]
    fits = any(isinstance(value, _SCALARS[kind]) and isinstance(value, bool) == (kind == "bool") for kind in scalars)
    if not fits:
        expected = " or ".join(_WORDS[kind] for kind in scalars) or "something else"
        raise OptionError(f"{argument} of {made.__name__} must be {expected}, got {value!r}")


def _parts(annotation: list[str]) -> list[type]:
    """The base classes among the words of an annotation: a part may be an argument of another."""
    bases = (initializers.Initializer, schedules.Schedule)
    return [base for base in bases if base.__name__ in annotation]
