"""Parts by name: layers, losses and the rest enter here, and go into files as plain dictionaries and back.

Only what has been registered, given or allowed can be made: a file's names are looked up in `PARTS` and by
`gpunn.outside`, and nothing is imported or executed because a file says so.
"""

import inspect
import json
import math
import re
from abc import ABC
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, TypeVar
from weakref import WeakSet

from gpunn import outside
from gpunn.errors import OptionError

PARTS: dict[str, dict[str, type]] = {}  # every part that a file may name, by its kind
_BASES: dict[str, type] = {}
_EXAMPLES: dict[str, str] = {}
_NAMEABLE: "WeakSet[type]" = WeakSet()  # that were given for a call, or imported, and so may be saved again
# What the field calls some of them, where it can mean nothing else.
_ALIASES = {"mse": "meansquarederror", "bce": "binarycrossentropy"}
_ALIASES |= dict.fromkeys(("categoricalcrossentropy", "sparsecategoricalcrossentropy"), "softmaxcrossentropy")
_SCALARS = {"int": int, "float": int | float, "bool": bool, "str": str, "tuple": tuple, "None": type(None)}
_WORDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text", "tuple": "a list"}
_MOST, _MOST_SEED = 2**31 - 1, 2**32 - 1  # sizes beyond could not be held, and would end in errors of other things

Kind = TypeVar("Kind", bound=type)


class Part:
    """A part, shown as the Python that makes it: its first argument, and all that have not their default value.

    A class with a `kind` is the base of these, and a part itself unless it is abstract; errors show the `example`.
    """

    def __init_subclass__(cls, *, kind: str = "", example: str = "", **options: Any) -> None:
        super().__init_subclass__(**options)
        if kind:
            PARTS[kind] = {} if ABC in cls.__mro__ else {cls.__name__: cls}
            _BASES[kind], _EXAMPLES[kind] = cls, example

    def __repr__(self) -> str:
        parameters, shown = _parameters(type(self)), arguments_of(self, without_defaults=True)
        words: list[str] = []
        for number, (name, parameter) in enumerate(parameters.items()):
            leads = number == 0 and parameter.kind is parameter.POSITIONAL_OR_KEYWORD and hasattr(self, name)
            if parameter.kind is parameter.VAR_POSITIONAL:
                words += map(repr, getattr(self, name))
            elif leads or name in shown:
                value = getattr(self, name)
                is_pair = isinstance(value, tuple) and value[1:] == value[:1] and "int |" in _annotation(parameter)
                words.append(("" if leads else f"{name}=") + repr(value[0] if is_pair else value))
        return f"{type(self).__name__}({', '.join(words)})"


def register(part: Kind) -> Kind:
    """Let files name a class of your own: a layer, activation, loss, optimizer, schedule, regularizer or initializer.

    Write it above the class, `@gn.register`. Files know a part by the name of its class and make it from the arguments
    of its constructor, so it keeps each under the argument's own name. A cell of a notebook that is run again replaces
    what it registered before.

    Args:
        part: A subclass of `gn.Layer`, `gn.Activation`, `gn.Loss` and so on, which is returned.

    Raises:
        OptionError: no such class, arguments that no file could give, or the name of another part.
    """
    kind = _kind_of_class(part)
    name, known = part.__name__, PARTS[kind]
    taken = next((other for other in known if _plain(other) == _plain(name)), name)
    if taken in known and (taken != name or not _is_same(known[taken], part)):
        where = known[taken].__module__
        owner = "gpunn" if outside.is_ours(known[taken]) else where
        raise OptionError(f"the {kind} {name!r} cannot be registered: {owner} has {taken} already, choose another name")
    known[name] = part
    return part


def knowing(classes: Any) -> AbstractContextManager[None]:
    """Let files name classes of your own within a block, on this thread, without registering them.

    Raises:
        OptionError: One is no class of a part, or two have one name.
    """
    if not isinstance(classes, list | tuple | set | frozenset):
        raise OptionError(f"custom is a list of classes, such as [Swish], got {classes!r:.80}")
    named: dict[tuple[str, str], type] = {}
    for part in classes:
        kind = _kind_of_class(part)
        for name in (part.__name__, outside.name_of(part)):
            if named.setdefault((kind, name), part) is not part:
                raise OptionError(f"custom has two classes {part.__name__!r}: files could not tell them apart")
        _NAMEABLE.add(part)
    return outside.knowing(named)


def knowing_those_of(parts: Iterable[Any]) -> AbstractContextManager[None]:
    """Let files name the classes of these parts and of those within, under their full names, within a block."""
    inner = {type(part) for whole in parts for part in _with_those_within(whole)}
    return outside.knowing({(_kind_of(part) or "", outside.name_of(part)): part for part in inner & set(_NAMEABLE)})


def _with_those_within(part: Any) -> Iterator[Any]:
    """Give a part and those that its arguments hold."""
    if isinstance(part, list | tuple):
        for each in part:
            yield from _with_those_within(each)
    elif _kind_of(type(part)) is not None:
        yield part
        for value in arguments_of(part).values():
            yield from _with_those_within(value)


def _kind_of_class(part: Any) -> str:
    """Return the kind of a part's class; raise OptionError for all else, and arguments that no file could give."""
    kind = _kind_of(part) if isinstance(part, type) else None
    if kind is None or part in _BASES.values():
        raise OptionError(f"expected a subclass of gn.Layer, gn.Loss, gn.Optimizer and the like, got {part!r}")
    for number, parameter in enumerate(_parameters(part).values()):
        is_second = number and parameter.kind is parameter.VAR_POSITIONAL
        if is_second or parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_KEYWORD):
            raise OptionError(f"{part.__name__} has the argument {parameter}, which no file could give: give it a name")
    return kind


def _class_of(kind: str, name: str) -> type:
    """Return the class that a file names: one of gpunn, then one that was given for the call, registered or allowed."""
    module, _, word = name.rpartition(":")
    known = PARTS[kind].get(word)
    if not module and known is not None and outside.is_ours(known):
        return known
    if (part := outside.given(kind, name)) is not None:
        return part
    if not module or not outside.is_name(module) or not outside.is_name(word):  # which nobody is to type
        if module or known is None:
            raise _unknown(kind, name)
        return known
    if known is not None and known.__module__ in (module, "__main__"):
        return known
    if (found := outside.imported(name)) is None:
        mend = f"--allow-import {module} on the command line, load_model(..., custom=[{word}])"
        why = f"the {kind} {name!r:.80} is code from outside gpunn, and a file runs none by itself"
        registers = f"import {module} before, where that registers it by @gn.register"
        raise OptionError(f"{why}: if you trust it, {mend}, or {registers}")
    if _kind_of_class(found) != kind:
        raise OptionError(f"{name!r} is no {kind}, but a {_kind_of(found)}")
    _NAMEABLE.add(found)
    return found  # type: ignore[no-any-return]


def _is_same(part: type, other: type) -> bool:
    """Return whether two classes of one name are one, defined again: in its module, or in a notebook and a file."""
    modules = {part.__module__, other.__module__}
    return len(modules) == 1 or ("__main__" in modules and not any(map(outside.is_ours, (part, other))))


def _kind_of(part: type) -> str | None:
    return next((kind for kind, base in _BASES.items() if issubclass(part, base)), None)


def arguments_of(part: Any, without_defaults: bool = False) -> dict[str, Any]:
    """List the constructor's arguments that a part keeps, by name; on request without those of default value."""
    parameters = _parameters(type(part))
    values = {name: getattr(part, name) for name in parameters if hasattr(part, name)}
    if not without_defaults:
        return values
    # Another argument, such as the size of a window for its stride.
    follows: Mapping[str, str] = getattr(part, "defaults_to", {})
    defaults = {name: values.get(follows.get(name, ""), parameters[name].default) for name in values}
    return {name: value for name, value in values.items() if not _is_default(value, defaults[name])}


def _is_default(value: Any, default: Any) -> bool:
    """Return whether an argument has its default value; False is not 0, as `bias=False` is not a bias of 0."""
    is_equal = isinstance(value, int | float | str | tuple) and value in (default, (default, default))
    return value is default or (is_equal and (value is False) == (default is False))


def _read_parameters(part: type) -> Mapping[str, inspect.Parameter]:
    """Return the constructor's parameters, by name; to ask Python for them takes longer than all the rest."""
    if part.__init__ is object.__init__:  # type: ignore[misc]
        return {}
    return dict(list(inspect.signature(part.__init__).parameters.items())[1:])  # type: ignore[misc]


_parameters: Callable[[type], Mapping[str, inspect.Parameter]] = cache(_read_parameters)


def to_config(part: Any) -> dict[str, Any]:
    """Describe a part and those within it as a dictionary; raise OptionError where it could not be made again."""
    config = _described(part)
    name = config["type"]
    for argument, value in config.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            wrong = f"its argument {argument!r} must be a finite number, a text, a part, or a list of them"
            raise OptionError(f"{name} cannot go into a file: {wrong}, got {value!r:.60}") from None
    with knowing_those_of([part]):
        again = _described(from_config(_kind_of(type(part)) or "", config))
    for argument in sorted(config.keys() | again.keys()):
        if config.get(argument) != again.get(argument):
            change = f"its {argument} would be {again.get(argument)!r:.40} and not {config.get(argument)!r:.40}"
            mend = "keep each argument in self as it was given"
            raise OptionError(f"{name} would not come back from a file as it is: {change}; {mend}")
    return config


def _described(part: Any) -> dict[str, Any]:
    kind, name = _kind_of(type(part)), type(part).__name__
    is_registered = kind is not None and name in PARTS[kind] and _is_same(PARTS[kind][name], type(part))
    if kind is None or not (is_registered or type(part) in _NAMEABLE):
        where = f"{name} of {type(part).__module__}"
        raise OptionError(f"{where} is not registered, so no file can name it: write @gn.register above its class")
    kept = arguments_of(part)
    for argument in _parameters(type(part)):
        if argument not in kept:
            raise OptionError(f"{name} does not keep its argument {argument!r}: set self.{argument} in its __init__")
    config = {"type": outside.name_of(type(part))} | {
        argument: _to_plain(value) for argument, value in kept.items() if value is not None
    }
    return config if kind != "layer" or part.trainable else {**config, "trainable": False}


def _to_plain(value: Any) -> Any:
    """Convert a value to JSON's types; what JSON has no word for stays."""
    if isinstance(value, list | tuple):
        return [_to_plain(each) for each in value]
    return value if _kind_of(type(value)) is None else _described(value)


def to_built_config(layer: Any) -> dict[str, Any]:
    """Describe a built layer as a dictionary, with the initializer that "auto" has chosen."""
    return dict(_with_initializers(to_config(layer), layer))


def _with_initializers(config: Any, value: Any) -> Any:
    """Return the description of a layer, or of those in an argument, with the initializers that were chosen."""
    if isinstance(value, list | tuple):
        return [_with_initializers(*pair) for pair in zip(config, value, strict=True)]
    if _kind_of(type(value)) != "layer":
        return config
    made = {
        name: _with_initializers(config[name], each) for name, each in arguments_of(value).items() if name in config
    }
    if "weights" in made and getattr(value, "w", None) is not None:
        made["weights"] = to_config(value.w.initializer)
    return {**config, **made}


def from_config(kind: str, config: Any) -> Any:
    """Make a part of a kind from its dictionary, or from its bare name; raise OptionError where that cannot be."""
    config = {"type": config} if isinstance(config, str) else config
    if not isinstance(config, dict) or not isinstance(config.get("type"), str):
        raise OptionError(f"a {kind} must be a table with a type, got {config!r}")
    arguments = dict(config)
    made = _class_of(kind, name := arguments.pop("type"))
    trainable = arguments.pop("trainable", True) if kind == "layer" else True
    if not isinstance(trainable, bool):
        raise OptionError(f"trainable of {name} must be true or false, got {trainable!r}")
    part = from_table(made, arguments)
    if not trainable:
        part.trainable = False
    return part


def from_table(made: type, table: Any, section: str = "") -> Any:
    """Make a part, or a section of an experiment file, from constructor arguments; each must fit its annotation."""
    parameters, arguments, several = _parameters(made), dict[str, Any](), tuple[Any, ...]()
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
    """Raise OptionError for a name that is not known, with the nearest that is."""
    for name in names:
        if name not in known:
            expected = ", ".join(known) or "none"
            raise OptionError(f"{owner} has no {word} {name!r}: expected {expected}{nearest(name, known)}")


def nearest(name: str, known: Iterable[str], mend: str = ", did you mean {!r}?") -> str:
    """Return `mend` with the known name that was probably meant, "" where none is near."""
    from difflib import get_close_matches

    near = get_close_matches(name[:80], known, n=1)
    return mend.format(*near) if near else ""


def as_part(kind: str, value: Any) -> Any:
    """Return a part that Python was given: made, or its table, or its class or name where it needs no arguments."""
    if isinstance(value, _BASES[kind]):
        return value
    if isinstance(value, dict):
        return from_config(kind, value)
    made = value
    if isinstance(value, str):
        known, word = {_plain(name): part for name, part in PARTS[kind].items()}, _plain(value)
        made = known.get(word) or known.get(_ALIASES.get(word, ""))
        if made is None:
            raise _unknown(kind, value)
    if not isinstance(made, type) or not issubclass(made, _BASES[kind]) or inspect.isabstract(made):
        article, example = "an" if kind[0] in "aio" else "a", _EXAMPLES[kind]
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        takes_one = re.fullmatch(r"(\w+)\([\d.]+\)", example) if is_number else None
        mend = f": write {takes_one[1]}({value!r})" if takes_one else ""
        raise OptionError(f"expected {article} {kind} such as {example}, got {value!r}{mend}")
    if needed := needed_by(made):
        raise OptionError(f"{made.__name__} needs {', '.join(needed)}: write {made.__name__}(...), got {value!r}")
    return made()


def needed_by(part: type) -> list[str]:
    """Return the names of the arguments that a part cannot be made without."""
    return [name for name, p in _parameters(part).items() if p.default is p.empty and p.kind is not p.VAR_KEYWORD]


def _plain(name: str) -> str:
    """Return a name without capitals, spaces, hyphens and the like, in which libraries differ."""
    return "".join(filter(str.isalnum, name.lower()))


def _unknown(kind: str, name: str) -> OptionError:
    known = {_plain(part): part for part in PARTS[kind]}
    near = nearest(_plain(name[:80]), known, "{}")
    guess = f"did you mean {known[near]}, or " if near else ""
    mend = f"{guess}one of your own? Then import the module that registers it by @gn.register before, or give its class"
    mend += " by load_model(..., custom=[...])"
    return OptionError(f"unknown {kind} {name!r:.80}: expected one of {', '.join(sorted(PARTS[kind]))}; {mend}")


def _from_plain(value: Any, parameter: inspect.Parameter) -> Any:
    """Convert a value of a file: tables with a type to parts, lists to tuples."""
    if isinstance(value, list):
        return tuple(_from_plain(each, parameter) for each in value)
    if not isinstance(value, dict) or not isinstance(name := value.get("type"), str):
        return value
    words = re.findall(r"\w+", _annotation(parameter))
    named = [kind for kind, base in _BASES.items() if base.__name__ in words]
    kinds = named or [kind for kind in PARTS if name.rpartition(":")[2] in PARTS[kind] or outside.given(kind, name)]
    if not kinds and (found := outside.imported(name)) is not None:
        kinds = [_kind_of_class(found)]
    if len(kinds) == 1:
        return from_config(kinds[0], value)
    where = f"{parameter.name} must be annotated with its kind of part, such as gn.Layer, since"
    raise OptionError(f"unknown part {name!r}" if not kinds else f"{where} {name!r} may be a {' or a '.join(kinds)}")


def _annotation(parameter: inspect.Parameter) -> str:
    """Return an annotation as it is written, "" where there is none."""
    annotation = "" if parameter.annotation is parameter.empty else parameter.annotation
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _check(value: Any, parameter: inspect.Parameter, what: str) -> None:
    """Refuse a value of another type than its annotation names; one that is not understood admits all."""
    if isinstance(value, float) and not math.isfinite(value):
        raise OptionError(f"{what} must be finite, got {value!r}")
    most = _MOST_SEED if parameter.name == "seed" else _MOST
    if isinstance(value, int) and abs(value) > most:
        raise OptionError(f"{what} must be at most {most}, got {value!r}")
    words = [word.partition("[")[0].rpartition(".")[2] for word in _annotation(parameter).split(" | ")]
    types = {**_SCALARS, **{base.__name__: base for base in _BASES.values()}}
    if not types.keys() >= set(words):
        return
    if not any(isinstance(value, types[word]) and isinstance(value, bool) == (word == "bool") for word in words):
        expected = " or ".join(_WORDS.get(word, f"a {word}") for word in words if word != "None")
        raise OptionError(f"{what} must be {expected}, got {value!r}")
