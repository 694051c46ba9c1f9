"""Choose the algorithm of a matrix product on a GPU, and write the choices as text.

A choice holds for all products of the same layout, and is written into checkpoints. So a resumed run adds up in the
same order, and has the same bits, if the GPU and cublasLt are the same.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from math import ceil

Key = tuple[int, ...]  # layout of c := a b (`base.Layout`), bytes of a number, alignments of a, b and c in bytes
Config = tuple[int, ...]  # attributes of an algorithm in the order of `cublasLtMatmulAlgoConfigAttributes_t`

ITSELF: Config = ()  # cuBLAS itself chooses at each call: cublasLt knows no algorithm
TILE, PARTS, SCHEME = 1, 2, 3  # indices in a Config: the tile, the parts of a sum (split-k), their scheme
UNCUT, IN_ORDER = 0, 2  # schemes: no parts; parts in the workspace, which a second kernel adds up in order
LENGTH = 9  # attributes in a Config
MOST_RECORDED = 500  # about 40 KB in the manifest of a checkpoint

_LEAST = 128  # fewest terms in a part of a sum: shorter parts save less time than adding them up costs
_MOST_PARTS = 64
_ENTRY = re.compile(rf"(\d{{1,10}}(?:\.\d{{1,10}}){{11}})=((?:\d{{1,10}}(?:\.\d{{1,10}}){{{LENGTH - 1}}})?)")

Tiles = Mapping[int, tuple[int, int]]  # rows and columns of the tiles by their number


def in_order(found: Sequence[Config], sizes: tuple[int, int, int], tiles: Tiles, processors: int) -> Iterator[Config]:
    """Yield algorithms in the order to try them: cublasLt's own, unless its first leaves half of the GPU idle.

    If the first has too few tiles to occupy half of the multiprocessors, and long sums in one piece, algorithms that
    occupy half of them come before it; then algorithms with their sums cut into as many parts as there is room for.
    Parts are added up in a fixed order, so the bits are the same each time.

    Args:
        found: Algorithms in cublasLt's order: the fastest first, by its own estimate.
        sizes: Rows and columns of the result as cublasLt sees it, and the length of the sums.
        tiles: Rows and columns of a tile, by its number.
        processors: Number of multiprocessors.
    """
    parts = [_parts(config, sizes, tiles, processors) for config in found]
    if found and parts[0] > 1:
        yield from (config for config in found if 2 * _blocks(config, sizes, tiles) > processors)
        yield from (cut(config, count) for config, count in zip(found, parts, strict=True) if count > 1)
    yield from found


def _blocks(config: Config, sizes: tuple[int, int, int], tiles: Tiles) -> int:
    """Count the thread blocks of the grid; return 0 if the tile is unknown."""
    if (tile := tiles.get(config[TILE])) is None:
        return 0
    return ceil(sizes[0] / tile[0]) * ceil(sizes[1] / tile[1]) * max(1, config[PARTS])


def _parts(config: Config, sizes: tuple[int, int, int], tiles: Tiles, processors: int) -> int:
    """Return the number of parts to cut a sum into, at least 1."""
    blocks = _blocks(config, sizes, tiles)
    if not blocks or config[PARTS] > 1:
        return 1
    return max(1, min(processors // blocks, sizes[2] // _LEAST, _MOST_PARTS))


def cut(config: Config, parts: int) -> Config:
    """Cut the sums of an algorithm into parts that are added up in order."""
    return (*config[:PARTS], parts, IN_ORDER, *config[SCHEME + 1 :])


def is_repeatable(config: Config) -> bool:
    """Return whether an algorithm adds up in the same order each time."""
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
            raise ValueError(f"malformed choice of an algorithm: {entry!r:.80}")
        key, config = _split(match[1]), _split(match[2])
        if max(*key, *config, 0) >= 2**31 or (config and not is_repeatable(config)):
            raise ValueError(f"unrepeatable choice of an algorithm: {entry!r:.120}")
        chosen[key] = config
    return environment, chosen


def _joined(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))


def _split(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split("."))) if text else ITSELF
