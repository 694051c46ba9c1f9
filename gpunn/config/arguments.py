"""Read the constructor arguments of a part, and their values in the part."""

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any


def arguments_of(part: Any, without_defaults: bool = False) -> dict[str, Any]:
    """List the constructor arguments that a part keeps, by name; on request only those without their default value."""
    parameters = parameters_of(type(part))
    values = {name: getattr(part, name) for name in parameters if hasattr(part, name)}
    if not without_defaults:
        return values
    # Some default to another argument, such as the stride of a window to its size.
    follows: Mapping[str, str] = getattr(part, "defaults_to", {})
    defaults = {name: values.get(follows.get(name, ""), parameters[name].default) for name in values}
    return {name: value for name, value in values.items() if not _is_default(value, defaults[name])}


def _is_default(value: Any, default: Any) -> bool:
    """Return whether an argument has its default value; False differs from 0: `bias=False` is not a bias of 0."""
    is_equal = isinstance(value, int | float | str | tuple) and value in (default, (default, default))
    return value is default or (is_equal and (value is False) == (default is False))


def needed_by(part: type) -> list[str]:
    """Return the names of a part's required arguments."""
    return [name for name, p in parameters_of(part).items() if p.default is p.empty and p.kind is not p.VAR_KEYWORD]


def _read_parameters(part: type) -> Mapping[str, inspect.Parameter]:
    """Read the parameters of a part's constructor, by name."""
    if part.__init__ is object.__init__:  # type: ignore[misc]
        return {}
    return dict(list(inspect.signature(part.__init__).parameters.items())[1:])  # type: ignore[misc]


# Cached, as reading is slow. Annotated, as mypy does not take classes for hashable.
parameters_of: Callable[[type], Mapping[str, inspect.Parameter]] = cache(_read_parameters)


def annotation_of(parameter: inspect.Parameter) -> str:
    """Return an annotation as it is written, or "" without one."""
    annotation = "" if parameter.annotation is parameter.empty else parameter.annotation
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
