"""Register readers of your own data formats by the ends of file names."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from gpunn.config import outside
from gpunn.errors import OptionError

Reader = TypeVar("Reader", bound=Callable[[Path], Any])

READERS: dict[str, Callable[[Path], Any]] = {}
_OURS = {"csv", "tsv", "tab", "parquet", "npy", "npz", "png", "jpg", "jpeg", "gif", "webp", "bmp", "pbm", "pgm", "ppm"}
_OURS |= {"gz", "toml", "safetensors", "csv.gz", "tsv.gz"}


def register_format(*suffixes: str) -> Callable[[Reader], Reader]:
    """Register a function that reads files of your own format, for `load_data` and the program.

    The function is called with the path, and returns (x, y), (x, y, sample_weight), `Samples`, or `Data` with its own
    parts; it must itself guard against damaged and hostile files. `gpunn train x.points --allow-import mymodule`
    imports its module. `gpunn predict` takes the inputs of a file from it.

    Args:
        suffixes: Ends of the file names, such as ".points".

    Raises:
        OptionError: No valid end, one that gpunn reads itself, or one that another module has taken.
    """
    if not suffixes:
        raise OptionError('register_format takes the ends of files\' names: write @gn.register_format(".points")')
    for suffix in suffixes:
        is_end = isinstance(suffix, str) and suffix.startswith(".") and suffix[1:] and suffix.isprintable()
        if not is_end or "/" in suffix or suffix.endswith("."):
            raise OptionError(f'the end of a file\'s name is a text such as ".points", got {suffix!r:.80}')
        if suffix[1:].lower() in _OURS:
            raise OptionError(f"files that end in {suffix} are read by gpunn itself: choose another end")

    def registered(read: Reader) -> Reader:
        if not callable(read):
            raise OptionError(f"register_format goes above a function that reads a file, got {read!r:.80}")
        for suffix in suffixes:
            other = READERS.get(suffix.lower())
            if other is not None and not _is_same(other, read):
                raise OptionError(f"files that end in {suffix} are read by {outside.module_of(other)} already")
        READERS.update(dict.fromkeys(map(str.lower, suffixes), read))
        return read

    return registered


def reader_of(path: Path) -> Callable[[Path], Any] | None:
    """Return the registered reader of a file, by the longest end of its name; None if there is none."""
    name = path.name.lower()
    ends = [end for end in READERS if name.endswith(end)]
    return READERS[max(ends, key=len)] if ends else None


def _is_same(read: Any, other: Any) -> bool:
    """Return whether a reader is only defined again, for example by a notebook cell."""
    modules = {outside.module_of(read), outside.module_of(other)}
    return len(modules) == 1 or "__main__" in modules
