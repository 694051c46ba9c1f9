"""Which algorithm of a product is taken, and how that is written down; no GPU is needed for it."""

import pytest

from gpunn.backend.algorithms import ITSELF, MOST_RECORDED, cut, decode, encode, in_order, is_repeatable

TILES = {15: (64, 64), 20: (128, 128), 5: (16, 16)}


def config(algorithm: int, tile: int, parts: int = 1) -> tuple[int, ...]:
    return (algorithm, tile, parts, 2 if parts > 1 else 0, 0, 0, 12, 0, 1)


def first(*found: tuple[int, ...], sizes: tuple[int, int, int], processors: int = 132) -> tuple[int, ...]:
    return next(in_order(found, sizes, TILES, processors))


@pytest.mark.parametrize(
    ("sizes", "parts"),
    [
        ((128, 128, 784), 6),  # 4 tiles: 33 parts would fit, of 24 terms
        ((20, 25, 73_728), 64),  # one tile
        ((128, 784, 128), 1),  # short sums
        ((64, 64, 255), 1),
        ((64, 64, 256), 2),
        ((64 * 11, 64 * 6, 4096), 2),  # 66 tiles: half of 132
        ((67 * 64, 64, 4096), 1),  # 67 tiles, more than half
        ((8192, 8192, 8192), 1),
    ],
    ids=str,
)
def test_a_long_sum_is_cut_where_its_tiles_leave_half_of_the_gpu_idle(sizes: tuple[int, int, int], parts: int) -> None:
    plain = config(20, 15)
    assert first(plain, sizes=sizes) == (cut(plain, parts) if parts > 1 else plain)


def test_the_word_of_cublaslt_counts_where_it_cuts_the_sum_or_its_tiles_are_not_known() -> None:
    for best in (config(20, 15, parts=3), config(20, 0), config(20, 999)):
        assert first(best, config(7, 15, parts=60), sizes=(64, 64, 9000)) == best


def test_an_algorithm_of_cublaslt_that_occupies_the_gpu_comes_before_one_that_is_cut_here() -> None:
    slow, wide, small = config(20, 20), config(7, 15, parts=70), config(3, 5)
    assert first(slow, wide, small, sizes=(64, 64, 9000)) == wide
    assert first(slow, small, sizes=(256, 256, 9000)) == small
    assert first(slow, small, sizes=(64, 64, 9000)) == cut(slow, 64)


def test_all_that_were_found_are_tried_in_their_order_in_the_end() -> None:
    found = [config(20, 15), config(7, 15), config(3, 0)]
    given = list(in_order(found, (64, 64, 9000), TILES, 132))
    assert given[:2] == [cut(found[0], 64), cut(found[1], 64)]
    assert given[2:] == found
    assert list(in_order([], (64, 64, 9000), TILES, 132)) == []


def test_only_parts_that_are_added_up_in_order_can_be_repeated() -> None:
    assert is_repeatable(config(20, 15))
    assert is_repeatable(config(20, 15, parts=4))
    for scheme in (0, 1, 4):
        assert not is_repeatable((20, 15, 4, scheme, 0, 0, 12, 0, 1))
    assert not is_repeatable((20, 15, 1, 1, 0, 0, 12, 0, 1))


KEY = (0, 1, 128, 128, 784, 784, 784, 128, 4, 16, 16, 4)


def test_what_is_written_is_read_again() -> None:
    chosen = {KEY: config(20, 15, parts=6), (1, *KEY[1:]): ITSELF}
    text = encode("a GPU, cublasLt 1", chosen)
    assert decode(text) == ("a GPU, cublasLt 1", chosen)
    assert decode(encode("a GPU", {})) == ("a GPU", {})
    many = {(0, 1, n, *KEY[3:]): config(20, 15) for n in range(1, MOST_RECORDED + 3)}
    kept = decode(encode("a GPU", many))[1]
    assert list(kept) == list(many)[2:]
    assert len(encode("a GPU", many)) < 60_000


@pytest.mark.parametrize(
    "entry",
    [
        "", "x", "1=2", ".".join("1" * 12), ".".join("1" * 12) + "=1.2.3", ".".join("1" * 13) + "=",
        ".".join("1" * 12) + "=20.15.1.0.0.0.-1.0.0", ".".join("1" * 12) + "=20.15.4.1.0.0.0.0.0",
        ".".join("1" * 12) + "=20.15.1.0.0.0.4294967296.0.0", ".".join("1" * 12) + "=" + ".".join("9" * 9000),
    ],
)  # fmt: skip
def test_a_record_that_is_none_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match=r"(malformed|unrepeatable) choice of an algorithm"):
        decode(f"a GPU; {entry}")
