"""Let files name classes from outside the package; import only modules that the user allows.

A file names such a class as "module:Class". It is looked up among the classes given for a call
(`load_model(custom=[...])`), the registered ones, and those in modules that the user allows to be imported.
"""

import importlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from gpunn.errors import OptionError

# Both are context variables, so a thread that reads a file never sees the classes of another thread's call.
_GIVEN: ContextVar[Mapping[tuple[str, str], type]] = ContextVar(
    "given", default=MappingProxyType({})
)  # by kind and name
_ALLOWED: ContextVar[tuple[str, ...]] = ContextVar("allowed", default=())
_MOST_LETTERS = 100  # longest name in a file, since an error may tell the user to type it
_EVER_ALLOWED: set[str] = set()  # modules of the user, whose errors are not gpunn's
_SPELLED: "WeakKeyDictionary[type, str]" = WeakKeyDictionary()  # name of a class in the file that named it


def is_ours(part: Any) -> bool:
    """Return whether a class or function is gpunn's own."""
    return module_of(part).partition(".")[0] == "gpunn"


def module_of(part: Any) -> str:
    """Return the name of the module that defines a class or function."""
    return str(getattr(part, "__module__", None) or type(part).__module__)


def name_of(part: type) -> str:
    """Return the name of a class in files: "module:Class" for an importable class from outside gpunn."""
    if (spelled := _SPELLED.get(part)) is not None:
        return spelled
    is_found = part.__module__ != "__main__" and part.__qualname__ == part.__name__
    return f"{part.__module__}:{part.__name__}" if is_found and not is_ours(part) else part.__name__


@contextmanager
def custom_classes(named: Mapping[tuple[str, str], type]) -> Iterator[None]:
    """Let files name these classes, by kind and name, within the block and on this thread."""
    token = _GIVEN.set({**_GIVEN.get(), **named})
    try:
        yield
    finally:
        _GIVEN.reset(token)


def given(kind: str, name: str) -> type | None:
    """Return the class given for this call under a name, or None."""
    known = _GIVEN.get()
    return known.get((kind, name)) or known.get((kind, name.rpartition(":")[2]))


def imported(name: str) -> Any:
    """Import the class that a file names as "module:Class"; return None if its module is not allowed."""
    module, _, word = name.rpartition(":")
    if not _is_within(module, _ALLOWED.get()):
        return None
    imported_module = _import(module, f"the module of {name!r}")
    if not isinstance(part := getattr(imported_module, word, None), type):
        raise OptionError(f"the module {module} has no class {word!r}: check the name in the file")
    _SPELLED.setdefault(part, name)
    return part


def function(name: str) -> Callable[..., Any] | None:
    """Import the function that a file names as "module:name"; return None if there is none or it is not allowed."""
    module, _, word = name.rpartition(":")
    if not is_name(module) or not is_name(word) or not _is_within(module, _ALLOWED.get()):
        return None
    value = getattr(_import(module, f"the module of {name!r}"), word, None)
    return value if callable(value) and not isinstance(value, type) else None


def allow(modules: Iterable[str]) -> tuple[list[str], Callable[[], None]]:
    """Import modules, from the current folder too, and let files name their classes; return lines to show, and an undo.

    Raises:
        OptionError: A module does not exist, or raises an error when imported.
    """
    names, folder = list(modules), str(Path.cwd())
    for name in names:
        if name.endswith(".py") or not is_name(name):
            stem = Path(name).stem if name.endswith(".py") else "mymodule"
            raise OptionError(f"--allow-import takes the name of a module, such as {stem}, got {name!r}")
    path, token = list(sys.path), _ALLOWED.set((*_ALLOWED.get(), *names))

    def undo() -> None:
        sys.path[:] = path
        _ALLOWED.reset(token)

    if folder not in (str(Path(place).absolute()) for place in path):
        sys.path.insert(0, folder)  # like `python -m`
    try:
        _EVER_ALLOWED.update(names)
        return [f"imported {name} ({_place(_import(name, '--allow-import'))})" for name in names], undo
    except BaseException:
        undo()
        raise


def allowing() -> str:
    """Return the command-line options that allow the same modules again; "" without any."""
    return "".join(f" --allow-import {name}" for name in dict.fromkeys(_ALLOWED.get()))


def is_name(text: str) -> bool:
    """Return whether a text may name a module or class: words joined by dots."""
    return len(text) <= _MOST_LETTERS and re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", text) is not None


def place_of(error: BaseException) -> str:
    """Return file and line of the innermost traceback frame in an allowed module, or ""."""
    place, step = "", error.__traceback__
    while step is not None:
        if _is_within(step.tb_frame.f_globals.get("__name__", ""), _EVER_ALLOWED):
            place = f"{step.tb_frame.f_code.co_filename}, line {step.tb_lineno}"
        step = step.tb_next
    return place


def _is_within(module: str, allowed: Iterable[str]) -> bool:
    """Return whether a module is allowed, or lies in an allowed package."""
    return any(module == name or module.startswith(f"{name}.") for name in allowed)


def _place(module: ModuleType) -> str:
    return getattr(module, "__file__", None) or "built in"


def _import(name: str, whose: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            where = f"{name} lies neither in {Path.cwd()} nor among the installed packages"
            raise OptionError(f"{whose}: there is no module {error.name}: {where}") from None
        raise OptionError(f"{whose}: {name} needs {error.name}, which is not installed") from None
    except (Exception, SystemExit) as error:
        raise OptionError(f"{whose}: {name} cannot be imported ({type(error).__name__}: {error}): mend it") from error
