"""Register layers, losses and other parts by name, and look up the names in files.

Names are looked up in `PARTS` and by `gpunn.config.outside`. A file alone can neither import nor execute anything.
"""

from abc import ABC
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, TypeVar
from weakref import WeakSet

from gpunn.config import outside
from gpunn.config.arguments import annotation_of, arguments_of, parameters_of
from gpunn.errors import OptionError

PARTS: dict[str, dict[str, type]] = {}  # registered classes by kind and name
BASES: dict[str, type] = {}  # base classes by kind
EXAMPLES: dict[str, str] = {}  # examples for error messages, by kind
NAMEABLE: "WeakSet[type]" = WeakSet()  # classes given for a call or imported, which may be saved again

Kind = TypeVar("Kind", bound=type)


class Part:
    """Base of all parts; shows a part as the Python that makes it, without arguments that have their default value.

    A class with a `kind` is the base class of this kind, and a part itself unless it is abstract; errors show the
    `example`.
    """

    def __init_subclass__(cls, *, kind: str = "", example: str = "", **options: Any) -> None:
        super().__init_subclass__(**options)
        if kind:
            PARTS[kind] = {} if ABC in cls.__mro__ else {cls.__name__: cls}
            BASES[kind], EXAMPLES[kind] = cls, example

    def __repr__(self) -> str:
        parameters, shown = parameters_of(type(self)), arguments_of(self, without_defaults=True)
        words: list[str] = []
        for number, (name, parameter) in enumerate(parameters.items()):
            leads = number == 0 and parameter.kind is parameter.POSITIONAL_OR_KEYWORD and hasattr(self, name)
            if parameter.kind is parameter.VAR_POSITIONAL:
                words += map(repr, getattr(self, name, ()))
            elif leads or name in shown:
                value = getattr(self, name)
                is_pair = isinstance(value, tuple) and value[1:] == value[:1] and "int |" in annotation_of(parameter)
                words.append(("" if leads else f"{name}=") + repr(value[0] if is_pair else value))
        return f"{type(self).__name__}({', '.join(words)})"


def register(part: Kind) -> Kind:
    """Let files name a class of your own: a layer, activation, loss, optimizer, schedule, regularizer or initializer.

    Write `@gn.register` above the class. Files store the name of the class and its constructor arguments, so keep each
    argument in `self` under its own name. Running a notebook cell again replaces the class that it registered before.

    Args:
        part: Subclass of `gn.Layer`, `gn.Activation`, `gn.Loss` and so on; it is returned unchanged.

    Raises:
        OptionError: It is no such class, has arguments that no file could give, or has the name of another part.
    """
    kind = kind_of_class(part)
    name, known = part.__name__, PARTS[kind]
    taken = next((other for other in known if plain(other) == plain(name)), name)
    if taken in known and (taken != name or not is_same(known[taken], part)):
        where = known[taken].__module__
        owner = "gpunn" if outside.is_ours(known[taken]) else where
        raise OptionError(f"the {kind} {name!r} cannot be registered: {owner} has {taken} already, choose another name")
    known[name] = part
    return part


def custom_classes(classes: Any) -> AbstractContextManager[None]:
    """Let files name classes of your own within a block, on this thread, without registering them.

    Raises:
        OptionError: A class is no part, or two have the same name.
    """
    if not isinstance(classes, list | tuple | set | frozenset):
        raise OptionError(f"custom is a list of classes, such as [Swish], got {classes!r:.80}")
    named: dict[tuple[str, str], type] = {}
    for part in classes:
        kind = kind_of_class(part)
        for name in (part.__name__, outside.name_of(part)):
            if named.setdefault((kind, name), part) is not part:
                raise OptionError(f"custom has two classes {part.__name__!r}: files could not tell them apart")
        NAMEABLE.add(part)
    return outside.custom_classes(named)


def custom_classes_of(parts: Iterable[Any]) -> AbstractContextManager[None]:
    """Let files name the classes of these parts and of their inner parts within a block, by their full names."""
    classes = {type(part) for whole in parts for part in _with_inner_parts(whole)} & set(NAMEABLE)
    return outside.custom_classes({(kind_of(part) or "", outside.name_of(part)): part for part in classes})


def _with_inner_parts(part: Any) -> Iterator[Any]:
    """Yield a part and the parts in its arguments."""
    if isinstance(part, list | tuple):
        for each in part:
            yield from _with_inner_parts(each)
    elif kind_of(type(part)) is not None:
        yield part
        for value in arguments_of(part).values():
            yield from _with_inner_parts(value)


def kind_of_class(part: Any) -> str:
    """Return the kind of a class; raise OptionError if it is no part, or has arguments that no file could give."""
    kind = kind_of(part) if isinstance(part, type) else None
    if kind is None or part in BASES.values():
        raise OptionError(f"expected a subclass of gn.Layer, gn.Loss, gn.Optimizer and the like, got {part!r}")
    for number, parameter in enumerate(parameters_of(part).values()):
        is_second = number and parameter.kind is parameter.VAR_POSITIONAL
        if is_second or parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_KEYWORD):
            raise OptionError(f"{part.__name__} has the argument {parameter}, which no file could give: give it a name")
    return kind


def class_of(kind: str, name: str) -> type:
    """Return the class that a file names: gpunn's own, else one given for the call, registered or allowed."""
    module, _, word = name.rpartition(":")
    known = PARTS[kind].get(word)
    if not module and known is not None and outside.is_ours(known):
        return known
    if (part := outside.given(kind, name)) is not None:
        return part
    if not module or not outside.is_name(module) or not outside.is_name(word):  # never tell to type it
        if module or known is None:
            raise unknown(kind, name)
        return known
    if known is not None and known.__module__ in (module, "__main__"):
        return known
    if (found := outside.imported(name)) is None:
        mend = f"--allow-import {module} on the command line, load_model(..., custom=[{word}])"
        why = f"the {kind} {name!r:.80} is code from outside gpunn, and a file runs none by itself"
        registers = f"import {module} before, where that registers it by @gn.register"
        raise OptionError(f"{why}: if you trust it, {mend}, or {registers}")
    if kind_of_class(found) != kind:
        raise OptionError(f"{name!r} is no {kind}, but a {kind_of(found)}")
    NAMEABLE.add(found)
    return found  # type: ignore[no-any-return]


def is_same(part: type, other: type) -> bool:
    """Return whether two classes of one name are the same, defined again in a module, or in a notebook and a file."""
    modules = {part.__module__, other.__module__}
    return len(modules) == 1 or ("__main__" in modules and not any(map(outside.is_ours, (part, other))))


def kind_of(part: type) -> str | None:
    """Return the kind of a class, for example "layer", or None if it is no part."""
    return next((kind for kind, base in BASES.items() if issubclass(part, base)), None)


def plain(name: str) -> str:
    """Return a name in lower case without spaces and punctuation, which differ between libraries."""
    return "".join(filter(str.isalnum, name.lower()))


def nearest(name: str, known: Iterable[str], mend: str = ", did you mean {!r}?") -> str:
    """Return `mend` with the known name closest to `name`, or "" if none is close."""
    from difflib import get_close_matches

    near = get_close_matches(name[:80], known, n=1)
    return mend.format(*near) if near else ""


def unknown(kind: str, name: str) -> OptionError:
    """Return the error for an unknown name of a kind of part, with the closest known name."""
    known = {plain(part): part for part in PARTS[kind]}
    near = nearest(plain(name[:80]), known, "{}")
    guess = f"did you mean {known[near]}, or " if near else ""
    mend = f"{guess}one of your own? Then import the module that registers it by @gn.register before, or give its class"
    mend += " by load_model(..., custom=[...])"
    return OptionError(f"unknown {kind} {name!r:.80}: expected one of {', '.join(sorted(PARTS[kind]))}; {mend}")
