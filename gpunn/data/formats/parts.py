"""Define the options of a reader, and the parts of a data set that it returns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from numpy.typing import NDArray

# Names that files, folders and arrays give the parts.
PARTS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
PART_OF = {name: part for part, names in PARTS.items() for name in names}
Pair = tuple[NDArray[Any], ...]  # inputs and targets, and perhaps sample weights


@dataclass(frozen=True)
class ReadOptions:
    """Options for reading a source; None leaves the choice to the reader. See `load_data`."""

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
        """Names of the given options that are for tables alone."""
        return [name for name in ("target", "ignore", "missing", "task", "scaling") if getattr(self, name) is not None]


class Parts(NamedTuple):
    """Parts of a data set: the training pair, and readers of the validation and the test pair."""

    train: Pair
    validation: Callable[[], Pair] | None = None
    test: Callable[[], Pair] | None = None
    class_names: Sequence[str] | None = None
