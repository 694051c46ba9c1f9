"""Copies and pickles of what works in memory of a device: how it was made and set, and none of that memory.

Planned products, views and kernels belong to one network on one device. A copy gets its own when it is built.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

Part = TypeVar("Part", bound="Buildable")


class Buildable:
    """Something that is made first and given its memory later, by a `build` that says so (`remember_settings`).

    What it is made of may be buildable too, such as a layer within a layer: a copy has its own.
    """

    _settings: frozenset[str] | None = None

    def remember_settings(self) -> None:
        """Take all attributes there are for settings: what comes after the first call is memory."""
        if self._settings is None:
            for part in parts_of(self):
                part.remember_settings()
            self._settings = frozenset(vars(self))

    def settings(self) -> dict[str, Any]:
        """The attributes that say how it was made and set."""
        held = vars(self)
        names = held.keys() if self._settings is None else held.keys() & self._settings
        return {name: _unbuilt(value) for name, value in held.items() if name in names}

    def unbuilt(self: Part) -> Part:
        """Another one, made and set alike."""
        other: Part = object.__new__(type(self))
        vars(other).update(self.settings())
        return other

    def __getstate__(self) -> dict[str, Any]:
        return self.settings()


def parts_of(whole: Any) -> Iterator[Buildable]:
    """What is buildable among the attributes of something, in lists and dictionaries too."""
    for value in vars(whole).values():
        several = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else (value,)
        yield from (each for each in several if isinstance(each, Buildable))


def _unbuilt(value: Any) -> Any:
    if isinstance(value, Buildable):
        return value.unbuilt()
    if type(value) in (list, tuple):
        return type(value)(map(_unbuilt, value))
    return {key: _unbuilt(each) for key, each in value.items()} if type(value) is dict else value
