"""Find state of your own parts that a CUDA graph would lose: attributes that each step binds to a new object.

A graph replays kernels on the addresses of its capture. If a step reads an attribute and then binds it to a new array
or number (`self.mean = 0.9 * self.mean + ...`), every replay reads the value of the capture.
"""

import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

from gpunn.config import outside

_PATCHING = threading.RLock()  # of classes, which all threads share


class CaptureCheck:
    """Watch the attributes of your own parts during one step.

    Args:
        parts: Layers, loss, optimizer and regularizer; parts of gpunn are skipped.
    """

    def __init__(self, parts: Iterable[Any]) -> None:
        self._parts = [part for part in parts if hasattr(part, "__dict__") and not outside.is_ours(type(part))]
        self._before = [dict(vars(part)) for part in self._parts]
        self._first: dict[int, dict[str, str]] = {id(part): {} for part in self._parts}  # first use of each attribute

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Note whether each attribute is first read or first written, while the context is open."""
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
        """Describe an attribute that was read and then bound to a new object; "" if there is none."""
        for part, before in zip(self._parts, self._before, strict=True):
            for name, use in self._first[id(part)].items():
                old, new = before.get(name), vars(part).get(name)
                if use == "read" and old is not new and _is_state(old) and _is_state(new):
                    mend = f"write in place into an array of build, self.{name}[...] = ..., and a graph can keep it"
                    return f"{type(part).__name__} binds self.{name} to something new at each step: {mend}"
        return ""

    def restore(self) -> None:
        """Restore all attributes: a capture computes nothing, so its arrays hold no values."""
        for part, before in zip(self._parts, self._before, strict=True):
            vars(part).clear()
            vars(part).update(before)


def _is_state(value: Any) -> bool:
    """Return whether a value is an array or a number."""
    return (hasattr(value, "dtype") and hasattr(value, "shape")) or type(value) in (int, float)
