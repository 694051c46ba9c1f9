"""A Matplotlib figure that a notebook shows by itself; imported only where something is drawn."""

import io
import warnings
from contextlib import AbstractContextManager
from typing import Any

import matplotlib.style
from matplotlib.figure import Figure

_SHOWN = 100  # pixels of a page for an inch: the 150 of the picture are then sharp on fine displays too


def styled(style: dict[str, Any]) -> AbstractContextManager[None]:
    """Take a style on Matplotlib's own defaults: a matplotlibrc of the user's must not change a report's bytes."""
    context: AbstractContextManager[None] = matplotlib.style.context(["default", style])
    return context


class Picture(Figure):
    """A figure in gpunn's look that is unknown to pyplot: nothing holds it but you, and no backend is chosen.

    A notebook shows it as the value of a cell, also before pyplot was imported; a script calls `savefig`.
    """

    gpunn_style: dict[str, Any]

    def settle(self) -> None:
        """Lay out the figure and make its ticks, so that all of it is in gpunn's look, and has no fault."""
        with styled(self.gpunn_style), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.draw_without_rendering()

    def savefig(self, fname: Any, **options: Any) -> None:
        """Write the figure as Matplotlib does, in the look that it was drawn in."""
        with styled(self.gpunn_style), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that the font lacks letters for, or that leave little room
            super().savefig(fname, **options)

    def png(self) -> bytes:
        """Return the figure as PNG; the same drawing gives the same bytes: they name neither a program nor a time."""
        content = io.BytesIO()
        self.savefig(content, format="png", metadata={"Software": None})
        return content.getvalue()

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        return self.png(), {"width": round(_SHOWN * float(self.get_figwidth()))}
