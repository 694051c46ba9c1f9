"""Copies and pickles of what works in memory of a device: how it was made and set, and none of that memory.

Planned products, views and kernels belong to one network on one device. A copy gets its own when it is built.
"""

from __future__ import annotations

from typing import Any, TypeVar

Part = TypeVar("Part", bound="Buildable")


class Buildable:
    """Something that is made first and given its memory later, by a `build` that says so (`remember_settings`)."""

    _settings: frozenset[str] | None = None

    def remember_settings(self) -> None:
        """Take all attributes there are for settings: what comes after the first call is memory."""
        if self._settings is None:
            self._settings = frozenset(vars(self))

    def settings(self) -> dict[str, Any]:
        """The attributes that say how it was made and set."""
        held = vars(self)
        return dict(held) if self._settings is None else {name: held[name] for name in held if name in self._settings}

    def unbuilt(self: Part) -> Part:
        """Another one, made and set alike."""
        other: Part = object.__new__(type(self))
        vars(other).update(self.settings())
        return other

    def __getstate__(self) -> dict[str, Any]:
        return self.settings()
