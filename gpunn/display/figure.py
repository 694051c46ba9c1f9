"""Define the Matplotlib figure that a notebook shows by itself; imported only to draw."""

import io
import warnings
from contextlib import AbstractContextManager
from typing import Any

import matplotlib.style
from matplotlib.figure import Figure

_SHOWN = 100  # pixels per inch on a page: the picture's 150 are then sharp on high-resolution displays too


def styled(style: dict[str, Any]) -> AbstractContextManager[None]:
    """Apply a style on top of Matplotlib's defaults, as a user's matplotlibrc must not change a report's bytes."""
    context: AbstractContextManager[None] = matplotlib.style.context(["default", style])
    return context


class Picture(Figure):
    """Figure in gpunn's style, unknown to pyplot: only you hold a reference, and no backend is chosen.

    A notebook shows it as the value of a cell, even before pyplot is imported; a script calls `savefig`.
    """

    gpunn_style: dict[str, Any]

    def settle(self) -> None:
        """Lay out the figure and make its ticks now, in gpunn's style."""
        with styled(self.gpunn_style), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.draw_without_rendering()

    def savefig(self, fname: Any, **options: Any) -> None:
        """Write the figure as Matplotlib does, in the style that it was drawn in."""
        with styled(self.gpunn_style), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about letters that the font lacks, and names that leave little room
            super().savefig(fname, **options)

    def png(self) -> bytes:
        """Return the figure as PNG; the same drawing gives the same bytes, as they contain no program name or time."""
        content = io.BytesIO()
        self.savefig(content, format="png", metadata={"Software": None})
        return content.getvalue()

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        return self.png(), {"width": round(_SHOWN * float(self.get_figwidth()))}
