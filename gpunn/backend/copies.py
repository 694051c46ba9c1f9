"""Copies and pickles of parts that work in memory of a device: how each was made and set, and none of that memory."""

from collections.abc import Iterator
from typing import Any, Self


class Buildable:
    """A part that is made first and given its memory later, by a `build` that calls `remember_settings`.

    Its attributes may be buildable too, such as a layer within a layer: a copy has its own.
    """

    _settings: frozenset[str] | None = None

    def remember_settings(self) -> None:
        """Take all attributes for settings: those set after the first call are memory."""
        if self._settings is None:
            for part in parts_of(self):
                part.remember_settings()
            self._settings = frozenset(vars(self))

    def settings(self) -> dict[str, Any]:
        """Return the attributes that say how it was made and set."""
        held, names = vars(self), self._settings
        return {name: _unbuilt(value) for name, value in held.items() if names is None or name in names}

    def unbuilt(self) -> Self:
        """Return another one, made and set alike."""
        other = object.__new__(type(self))
        vars(other).update(self.settings())
        return other

    def __getstate__(self) -> dict[str, Any]:
        return self.settings()


def parts_of(whole: Any) -> Iterator[Buildable]:
    """Give the buildable attributes of an object, and those in its lists and dictionaries."""
    for value in vars(whole).values():
        several = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else (value,)
        yield from (each for each in several if isinstance(each, Buildable))


def _unbuilt(value: Any) -> Any:
    if isinstance(value, Buildable):
        return value.unbuilt()
    if type(value) in (list, tuple):
        return type(value)(map(_unbuilt, value))
    return {key: _unbuilt(each) for key, each in value.items()} if type(value) is dict else value
