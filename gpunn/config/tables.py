"""Convert parts to plain dictionaries, and make parts from dictionaries, names and classes; check every argument."""

import inspect
import json
import math
import re
from collections.abc import Collection, Iterable
from typing import Any

from gpunn.config import outside
from gpunn.config.arguments import annotation_of, arguments_of, needed_by, parameters_of
from gpunn.config.parts import (
    BASES,
    EXAMPLES,
    NAMEABLE,
    PARTS,
    class_of,
    custom_classes_of,
    is_same,
    kind_of,
    kind_of_class,
    nearest,
    plain,
    unknown,
)
from gpunn.errors import OptionError

# Common names of some losses in other libraries.
_ALIASES = {"mse": "meansquarederror", "bce": "binarycrossentropy"}
_ALIASES |= dict.fromkeys(("categoricalcrossentropy", "sparsecategoricalcrossentropy"), "softmaxcrossentropy")
_SCALARS = {"int": int, "float": int | float, "bool": bool, "str": str, "tuple": tuple, "None": type(None)}
_WORDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text", "tuple": "a list"}
_MOST, _MOST_SEED = 2**31 - 1, 2**32 - 1  # larger sizes do not fit into memory, and would fail with unrelated errors


def to_config(part: Any) -> dict[str, Any]:
    """Describe a part and its inner parts as a dictionary; raise OptionError if it could not be made again."""
    config = _described(part)
    name = config["type"]
    for argument, value in config.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            wrong = f"its argument {argument!r} must be a finite number, a text, a part, or a list of them"
            raise OptionError(f"{name} cannot go into a file: {wrong}, got {value!r:.60}") from None
    with custom_classes_of([part]):
        again = _described(from_config(kind_of(type(part)) or "", config))
    for argument in sorted(config.keys() | again.keys()):
        if config.get(argument) != again.get(argument):
            change = f"its {argument} would be {again.get(argument)!r:.40} and not {config.get(argument)!r:.40}"
            mend = "keep each argument in self as it was given"
            raise OptionError(f"{name} would not come back from a file as it is: {change}; {mend}")
    return config


def _described(part: Any) -> dict[str, Any]:
    kind, name = kind_of(type(part)), type(part).__name__
    is_registered = kind is not None and name in PARTS[kind] and is_same(PARTS[kind][name], type(part))
    if kind is None or not (is_registered or type(part) in NAMEABLE):
        where = f"{name} of {type(part).__module__}"
        raise OptionError(f"{where} is not registered, so no file can name it: write @gn.register above its class")
    kept = arguments_of(part)
    for argument in parameters_of(type(part)):
        if argument not in kept:
            raise OptionError(f"{name} does not keep its argument {argument!r}: set self.{argument} in its __init__")
    config = {"type": outside.name_of(type(part))} | {
        argument: _to_plain(value) for argument, value in kept.items() if value is not None
    }
    return config if kind != "layer" or part.trainable else {**config, "trainable": False}


def _to_plain(value: Any) -> Any:
    """Convert a value to JSON's types; leave other types unchanged."""
    if isinstance(value, list | tuple):
        return [_to_plain(each) for each in value]
    return value if kind_of(type(value)) is None else _described(value)


def to_built_config(layer: Any) -> dict[str, Any]:
    """Describe a built layer as a dictionary, with the initializer chosen for "auto"."""
    return dict(_with_initializers(to_config(layer), layer))


def _with_initializers(config: Any, value: Any) -> Any:
    """Return the description of a layer, or of layers in an argument, with the chosen initializers."""
    if isinstance(value, list | tuple):
        return [_with_initializers(*pair) for pair in zip(config, value, strict=True)]
    if kind_of(type(value)) != "layer":
        return config
    made = {
        name: _with_initializers(config[name], each) for name, each in arguments_of(value).items() if name in config
    }
    if "weights" in made and getattr(value, "w", None) is not None:
        made["weights"] = to_config(value.w.initializer)
    return {**config, **made}


def from_config(kind: str, config: Any) -> Any:
    """Make a part of a kind from its dictionary or its bare name; raise OptionError if that is impossible."""
    config = {"type": config} if isinstance(config, str) else config
    if not isinstance(config, dict) or not isinstance(config.get("type"), str):
        raise OptionError(f"a {kind} must be a table with a type, got {config!r}")
    arguments = dict(config)
    made = class_of(kind, name := arguments.pop("type"))
    trainable = arguments.pop("trainable", True) if kind == "layer" else True
    if not isinstance(trainable, bool):
        raise OptionError(f"trainable of {name} must be true or false, got {trainable!r}")
    part = from_table(made, arguments)
    if not trainable:
        part.trainable = False
    return part


def from_table(made: type, table: Any, section: str = "") -> Any:
    """Make a part, or a section of an experiment file, from constructor arguments that must match their annotations."""
    parameters, arguments, several = parameters_of(made), dict[str, Any](), tuple[Any, ...]()
    if not isinstance(table, dict):
        raise OptionError(f"{section} must be a table, got {table!r}")
    check_names(table, parameters, *((f"[{section}]", "key") if section else (made.__name__, "option")))
    for name, value in table.items():
        arguments[name] = _from_plain(value, parameters[name])
        what = f"{section}.{name}" if section else f"{name} of {made.__name__}"
        if parameters[name].kind is inspect.Parameter.VAR_POSITIONAL:
            if not isinstance(listed := arguments.pop(name), tuple):
                raise OptionError(f"{what} must be a list, got {listed!r}")
            several = listed
        for each in several if name not in arguments else (arguments[name],):
            _check(each, parameters[name], what)
    try:
        return made(*several, **arguments)
    except OptionError:
        raise
    except (TypeError, ValueError) as error:
        raise OptionError(f"{made.__name__} cannot be made from {arguments}: {error}") from None


def check_names(names: Iterable[str], known: Collection[str], owner: str, word: str = "key") -> None:
    """Raise OptionError for an unknown name, with the closest known one."""
    for name in names:
        if name not in known:
            expected = ", ".join(known) or "none"
            raise OptionError(f"{owner} has no {word} {name!r}: expected {expected}{nearest(name, known)}")


def as_part(kind: str, value: Any) -> Any:
    """Return the part for an argument: a part, a table, or a class or name if it needs no arguments."""
    if isinstance(value, BASES[kind]):
        return value
    if isinstance(value, dict):
        return from_config(kind, value)
    made = value
    if isinstance(value, str):
        known, word = {plain(name): part for name, part in PARTS[kind].items()}, plain(value)
        made = known.get(word) or known.get(_ALIASES.get(word, ""))
        if made is None:
            raise unknown(kind, value)
    if not isinstance(made, type) or not issubclass(made, BASES[kind]) or inspect.isabstract(made):
        article, example = "an" if kind[0] in "aio" else "a", EXAMPLES[kind]
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        takes_one = re.fullmatch(r"(\w+)\([\d.]+\)", example) if is_number else None
        mend = f": write {takes_one[1]}({value!r})" if takes_one else ""
        raise OptionError(f"expected {article} {kind} such as {example}, got {value!r}{mend}")
    if needed := needed_by(made):
        raise OptionError(f"{made.__name__} needs {', '.join(needed)}: write {made.__name__}(...), got {value!r}")
    return made()


def _from_plain(value: Any, parameter: inspect.Parameter) -> Any:
    """Convert a value from a file: tables with a type to parts, lists to tuples."""
    if isinstance(value, list):
        return tuple(_from_plain(each, parameter) for each in value)
    if not isinstance(value, dict) or not isinstance(name := value.get("type"), str):
        return value
    words = re.findall(r"\w+", annotation_of(parameter))
    named = [kind for kind, base in BASES.items() if base.__name__ in words]
    kinds = named or [kind for kind in PARTS if name.rpartition(":")[2] in PARTS[kind] or outside.given(kind, name)]
    if not kinds and (found := outside.imported(name)) is not None:
        kinds = [kind_of_class(found)]
    if len(kinds) == 1:
        return from_config(kinds[0], value)
    where = f"{parameter.name} must be annotated with its kind of part, such as gn.Layer, since"
    raise OptionError(f"unknown part {name!r}" if not kinds else f"{where} {name!r} may be a {' or a '.join(kinds)}")


def _check(value: Any, parameter: inspect.Parameter, what: str) -> None:
    """Refuse a value whose type does not match its annotation; an unknown annotation admits all."""
    if isinstance(value, float) and not math.isfinite(value):
        raise OptionError(f"{what} must be finite, got {value!r}")
    most = _MOST_SEED if parameter.name == "seed" else _MOST
    if isinstance(value, int) and abs(value) > most:
        raise OptionError(f"{what} must be at most {most}, got {value!r}")
    words = [word.partition("[")[0].rpartition(".")[2] for word in annotation_of(parameter).split(" | ")]
    types = {**_SCALARS, **{base.__name__: base for base in BASES.values()}}
    if not types.keys() >= set(words):
        return
    if not any(isinstance(value, types[word]) and isinstance(value, bool) == (word == "bool") for word in words):
        expected = " or ".join(_WORDS.get(word, f"a {word}") for word in words if word != "None")
        raise OptionError(f"{what} must be {expected}, got {value!r}")
