"""Find state of parts from outside that a graph would lose: names that are bound to something new at each step.

A graph replays kernels on the addresses that they were recorded with. State that a step reads, and then binds to a new
array or number (`self.mean = 0.9 * self.mean + ...`), stays for ever what it was when the step was recorded.
"""

import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

from gpunn.config import outside

_PATCHING = threading.RLock()  # of classes, which all threads share


class CaptureCheck:
    """Watches the attributes of parts from outside during one step.

    Args:
        parts: Layers, loss, optimizer and the like; those of gpunn are passed over.
    """

    def __init__(self, parts: Iterable[Any]) -> None:
        self._parts = [part for part in parts if hasattr(part, "__dict__") and not outside.is_ours(type(part))]
        self._before = [dict(vars(part)) for part in self._parts]
        self._first: dict[int, dict[str, str]] = {id(part): {} for part in self._parts}  # how each name was used first

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Within, note of each attribute whether it is first read or first written."""
        with _PATCHING if self._parts else nullcontext(), ExitStack() as undo:
            for cls in dict.fromkeys(type(part) for part in self._parts):
                self._patch(cls, "__getattribute__", undo)
                self._patch(cls, "__setattr__", undo)
            yield

    def _patch(self, cls: type, method: str, undo: ExitStack) -> None:
        first, thread, usual = self._first, threading.get_ident(), getattr(cls, method)
        use = "read" if method == "__getattribute__" else "written"

        def noting(part: Any, name: str, *value: Any) -> Any:
            if id(part) in first and threading.get_ident() == thread:
                first[id(part)].setdefault(name, use)
            return usual(part, name, *value)

        if method in vars(cls):
            undo.callback(setattr, cls, method, usual)
        else:
            undo.callback(delattr, cls, method)
        setattr(cls, method, noting)

    def found(self) -> str:
        """Say which state was read, and then bound to something new; "" where there is none."""
        for part, before in zip(self._parts, self._before, strict=True):
            for name, use in self._first[id(part)].items():
                old, new = before.get(name), vars(part).get(name)
                if use == "read" and old is not new and _is_state(old) and _is_state(new):
                    mend = f"write in place into an array of build, self.{name}[...] = ..., and a graph can keep it"
                    return f"{type(part).__name__} binds self.{name} to something new at each step: {mend}"
        return ""

    def restore(self) -> None:
        """Bind all names to what they were bound to before: what a recording made holds no numbers."""
        for part, before in zip(self._parts, self._before, strict=True):
            vars(part).clear()
            vars(part).update(before)


def _is_state(value: Any) -> bool:
    """Return whether a value is an array or a number."""
    return (hasattr(value, "dtype") and hasattr(value, "shape")) or type(value) in (int, float)
