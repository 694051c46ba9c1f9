"""Files that are nearly right, made of right ones by chance: the same seed makes the same files on every machine."""

import random
from collections.abc import Callable, Iterator, Sequence

_NUMBERS = (0, 1, 2, 3, 7, 8, 127, 128, 255, 256, 65_535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
_MOST_BYTES = 1 << 14


def mutated(seeds: Sequence[bytes], words: Sequence[bytes], count: int, seed: int) -> Iterator[bytes]:
    """Some files, each a seed with one to four changes."""
    chance = random.Random(seed)
    for _ in range(count):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.choice((1, 1, 2, 4))):
            chance.choice(_CHANGES)(data, chance, seeds, words)
        yield bytes(data[:_MOST_BYTES])


def _place(data: bytearray, chance: random.Random) -> int:
    return chance.randrange(len(data) + 1)


def _flip(data: bytearray, chance: random.Random, *_: Sequence[bytes]) -> None:
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _set(data: bytearray, chance: random.Random, *_: Sequence[bytes]) -> None:
    if data:
        data[chance.randrange(len(data))] = chance.randrange(256)


def _cut(data: bytearray, chance: random.Random, *_: Sequence[bytes]) -> None:
    del data[_place(data, chance) :]


def _lose(data: bytearray, chance: random.Random, *_: Sequence[bytes]) -> None:
    place = _place(data, chance)
    del data[place : place + chance.choice((1, 2, 4, 16, 64))]


def _repeat(data: bytearray, chance: random.Random, *_: Sequence[bytes]) -> None:
    place = _place(data, chance)
    data[place:place] = data[place : place + chance.choice((1, 4, 16, 64))] * chance.choice((1, 2, 50))


def _number(data: bytearray, chance: random.Random, *_: Sequence[bytes]) -> None:
    size = chance.choice((1, 2, 4, 8))
    value = (chance.choice(_NUMBERS) + chance.choice((0, 0, -1, 1))) % 2 ** (8 * size)
    place = _place(data, chance)
    data[place : place + size] = value.to_bytes(size, chance.choice(("little", "big")))


def _digits(data: bytearray, chance: random.Random, *_: Sequence[bytes]) -> None:
    place = _place(data, chance)
    data[place : place + chance.choice((0, 1))] = str(chance.choice(_NUMBERS) * chance.choice((1, -1))).encode()


def _insert(data: bytearray, chance: random.Random, seeds: Sequence[bytes], words: Sequence[bytes]) -> None:
    place = _place(data, chance)
    data[place : place + chance.choice((0, 4))] = chance.choice(words) if words else chance.randbytes(4)


def _cross(data: bytearray, chance: random.Random, seeds: Sequence[bytes], words: Sequence[bytes]) -> None:
    other = chance.choice(seeds)
    data[_place(data, chance) :] = other[chance.randrange(len(other) + 1) :]


_CHANGES: tuple[Callable[..., None], ...] = (
    _flip, _set, _cut, _lose, _repeat, _number, _number, _digits, _insert, _insert, _cross,
)  # fmt: skip
