"""What a reader is asked for, and what it gives: the parts of a data set."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from numpy.typing import NDArray

Pair = tuple[NDArray[Any], ...]  # inputs and targets, and the weights of the samples where there are any


@dataclass(frozen=True)
class ReadOptions:
    """How a source is read; None leaves the choice to the reader. See `load_data`."""

    memory_map: bool | None = None
    image_size: tuple[int, int] | None = None
    colours: str | None = None
    target: str | Sequence[str] | None = None
    ignore: str | Sequence[str] | None = None
    missing: str | None = None
    task: str | None = None
    scaling: str | None = None

    @property
    def of_tables(self) -> list[str]:
        """The options that were given and are of tables alone."""
        return [name for name in ("target", "ignore", "missing", "task", "scaling") if getattr(self, name) is not None]


class Parts(NamedTuple):
    """What a file or folder holds: the pair to learn from, and readers of those to validate and to test on."""

    train: Pair
    validation: Callable[[], Pair] | None = None
    test: Callable[[], Pair] | None = None
    class_names: Sequence[str] | None = None
