"""Algorithms of matrix products on a GPU: in which order those of cublasLt are tried, and how a choice is recorded.

What is chosen is kept for all products of the same layout, and written into checkpoints, so that a run that goes on
adds up in the same order, and so has the same bits, where the GPU and cublasLt are the same.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from math import ceil

Key = tuple[int, ...]  # layout of c := a b (`base.Layout`), bytes of a number, and what a, b and c lie at multiples of
Config = tuple[int, ...]  # attributes of an algorithm in the order of `cublasLtMatmulAlgoConfigAttributes_t`

ITSELF: Config = ()  # cuBLAS chooses itself, at each call: where cublasLt knows no algorithm
TILE, PARTS, SCHEME = 1, 2, 3  # places in a Config: the tile, in how many parts the sum is cut, how these are added up
UNCUT, IN_ORDER = 0, 2  # schemes: no parts; parts in the workspace that a second kernel adds up in their order
LENGTH = 9  # of a Config
MOST_RECORDED = 500  # about 40 KB of the manifest of a checkpoint

_LEAST = 128  # terms of a part of a sum, fewer than which take less time than a kernel that adds up parts
_MOST_PARTS = 64
_ENTRY = re.compile(rf"(\d{{1,10}}(?:\.\d{{1,10}}){{11}})=((?:\d{{1,10}}(?:\.\d{{1,10}}){{{LENGTH - 1}}})?)")

Tiles = Mapping[int, tuple[int, int]]  # rows and columns of the tiles by their number


def in_order(found: Sequence[Config], sizes: tuple[int, int, int], tiles: Tiles, processors: int) -> Iterator[Config]:
    """Give algorithms in the order to try them in: that of cublasLt, unless its first leaves most of the GPU idle.

    Where the tiles of the result are so few that half of the multiprocessors would have nothing to do, and the sum is
    long and not cut, one that occupies more comes before it; or else the first one itself, cut into as many parts as
    there is room for, or one after it that can be cut. Parts are added up in their order: the bits are the same each
    time.

    Args:
        found: Algorithms as cublasLt has ordered them, the fastest by its own estimate first.
        sizes: Rows and columns of the result as cublasLt sees it, and the length of the sums.
        tiles: Sizes of tiles by their number.
        processors: Number of multiprocessors.
    """
    parts = [_parts(config, sizes, tiles, processors) for config in found]
    if found and parts[0] > 1:
        yield from (config for config in found if 2 * _blocks(config, sizes, tiles) > processors)
        yield from (cut(config, count) for config, count in zip(found, parts, strict=True) if count > 1)
    yield from found


def _blocks(config: Config, sizes: tuple[int, int, int], tiles: Tiles) -> int:
    """Count the blocks of the grid; 0 where it is not known."""
    if (tile := tiles.get(config[TILE])) is None:
        return 0
    return ceil(sizes[0] / tile[0]) * ceil(sizes[1] / tile[1]) * max(1, config[PARTS])


def _parts(config: Config, sizes: tuple[int, int, int], tiles: Tiles, processors: int) -> int:
    """Return into how many parts a sum that is not cut should be, at least 1."""
    blocks = _blocks(config, sizes, tiles)
    if not blocks or config[PARTS] > 1:
        return 1
    return max(1, min(processors // blocks, sizes[2] // _LEAST, _MOST_PARTS))


def cut(config: Config, parts: int) -> Config:
    """Return an algorithm with its sums cut into parts that are added up in their order."""
    return (*config[:PARTS], parts, IN_ORDER, *config[SCHEME + 1 :])


def is_repeatable(config: Config) -> bool:
    """Whether an algorithm adds up in the same order each time."""
    return config[SCHEME] == (IN_ORDER if config[PARTS] > 1 else UNCUT)


def encode(environment: str, chosen: Mapping[Key, Config]) -> str:
    """Write the last `MOST_RECORDED` choices, made on an `environment` (GPU and libraries), as text."""
    entries = list(chosen.items())[-MOST_RECORDED:]
    return "; ".join([environment, *(f"{_joined(key)}={_joined(config)}" for key, config in entries)])


def decode(text: str) -> tuple[str, dict[Key, Config]]:
    """Read the text of `encode`; raise ValueError if it is malformed."""
    environment, *entries = text.split("; ")
    chosen = {}
    for entry in entries:
        if (match := _ENTRY.fullmatch(entry)) is None:
            raise ValueError(f"no choice of an algorithm: {entry!r:.80}")
        key, config = _split(match[1]), _split(match[2])
        if max(*key, *config, 0) >= 2**31 or (config and not is_repeatable(config)):
            raise ValueError(f"no algorithm that could be repeated: {entry!r:.120}")
        chosen[key] = config
    return environment, chosen


def _joined(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))


def _split(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split("."))) if text else ITSELF
