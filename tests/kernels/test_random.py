"""Random numbers are a pure function of what they are for, and never change from version to version."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.kernel_cases import dropout_bits, philox64
from support.kernel_cases import philox as philox_in_python

from gpunn.kernels.random import Purpose, epoch_order, groups, philox, random_halves, random_words

WORD = st.integers(0, 2**32 - 1)
F = 0xFFFFFFFF
PINNED = (
    [2, 3, 10, 6, 5, 0, 11, 8, 4, 7, 9, 1],
    [9, 3, 8, 2, 6, 5, 11, 7, 4, 0, 10, 1],
    [3, 11, 8, 4, 7, 9, 0, 2, 6, 1, 5, 10],
)


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((F, F, F, F), (F, F), "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_gives_the_known_answers_of_random123(
    counter: tuple[int, int, int, int], key: tuple[int, int], answer: str
) -> None:
    assert " ".join(f"{word:08x}" for word in philox(counter, key)) == answer


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        ((0,) * 4, (0,) * 2, "16554d9eca36314c db20fe9d672d0fdc d7e772cee186176b 7e68b68aec7ba23b"),
        ((2**64 - 1,) * 4, (2**64 - 1,) * 2, "87b092c3013fe90b 438c3c67be8d0224 9cc7d7c69cd777b6 a09caebf594f0ba0"),
    ],
)
def test_the_wider_philox_of_the_tests_gives_the_known_answers_of_random123(
    counter: tuple[int, int, int, int], key: tuple[int, int], answer: str
) -> None:
    assert " ".join(f"{word:016x}" for word in philox64(counter, key)) == answer


@pytest.mark.parametrize("features", [1, 15, 16, 17, 33, 250, 257])
@pytest.mark.parametrize(("first", "n"), [(0, 1), (0, 12), (31, 2), (2**31 - 4, 3)])
def test_halves_are_drawn_by_the_wider_philox(features: int, first: int, n: int) -> None:
    of = {"seed": 2**32 - 1, "purpose": Purpose.DROPOUT, "step": 2**31 - 1, "stream": 6}
    drawn = random_halves(features, n, first=first, **of)
    assert drawn.dtype == np.uint16
    np.testing.assert_array_equal(drawn, dropout_bits(features, n, 2**31 - 1, 6, 2**32 - 1, first))


def test_no_two_features_samples_steps_streams_seeds_or_purposes_share_their_halves() -> None:
    usual = {"seed": 1, "purpose": Purpose.DROPOUT, "step": 1, "stream": 1}
    others = [{}, {"seed": 2}, {"purpose": Purpose.AUGMENTATION}, {"step": 2}, {"stream": 2}, {"first": 130}]
    drawn = np.concatenate([random_halves(64, 130, **usual | other).T.reshape(-1, 4) for other in others])
    assert len(np.unique(drawn, axis=0)) == len(drawn)  # words of 64 bits


@pytest.mark.parametrize("n", [127, 128, 129, 300])
def test_halves_do_not_depend_on_how_many_samples_are_drawn_at_once(n: int) -> None:
    of = {"seed": 1, "purpose": Purpose.DROPOUT, "step": 2, "stream": 3}
    apart = [random_halves(20, 1, first=7 + j, **of) for j in range(n)]
    np.testing.assert_array_equal(random_halves(20, n, first=7, **of), np.hstack(apart))


def test_counters_of_halves_lie_in_64_bits_for_the_largest_layer_and_batch() -> None:
    """A counter that came round to 0 would be that of another step: the next word of the counter would be 1 more."""
    assert groups(2**31 - 1) * 2**31 < 2**62


@settings(deadline=None)
@given(st.tuples(WORD, WORD, WORD, WORD), st.tuples(WORD, WORD))
def test_philox_is_the_published_algorithm(counter: tuple[int, int, int, int], key: tuple[int, int]) -> None:
    assert philox(counter, key).tolist() == philox_in_python(counter, key)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 70), st.integers(1, 70), WORD, st.integers(0, 2**40), st.integers(0, 9))
def test_words_do_not_depend_on_how_many_are_drawn(few: int, more: int, seed: int, step: int, stream: int) -> None:
    stream_of = {"seed": seed, "purpose": Purpose.DROPOUT, "step": step, "stream": stream}
    short = random_words(few, **stream_of)
    long = random_words(few + more, **stream_of)
    assert len(short) == few
    np.testing.assert_array_equal(long[:few], short)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.integers(1, 9), WORD)
def test_words_may_begin_at_any_counter(first: int, blocks: int, seed: int) -> None:
    of = {"seed": seed, "purpose": Purpose.AUGMENTATION, "step": 3}
    words = [random_words(4, first=first + block, **of) for block in range(blocks)]
    np.testing.assert_array_equal(random_words(4 * blocks, first=first, **of), np.concatenate(words))


def test_a_word_is_that_of_its_own_counter() -> None:
    words = random_words(11, seed=5, purpose=Purpose.DROPOUT, step=2**33 + 7, stream=4)
    expected = [word for block in range(3) for word in philox_in_python((block, 7, 2, 4), (5, 3))]
    assert words.tolist() == expected[:11]


def test_no_two_seeds_purposes_steps_or_streams_share_their_words() -> None:
    usual = {"seed": 1, "purpose": Purpose.DROPOUT, "step": 1, "stream": 1}
    others = [{}, {"seed": 2}, {"purpose": Purpose.AUGMENTATION}, {"step": 2}, {"step": 1 + 2**32}, {"stream": 2}]
    words = np.concatenate([random_words(64, **usual | other) for other in others])
    assert len(np.unique(words)) == words.size


def test_words_are_spread_evenly() -> None:
    words = random_words(100_000, seed=0, purpose=Purpose.TEST)
    counts = np.bincount(words >> 28, minlength=16)
    # χ² with 15 degrees of freedom exceeds 50 once in 80,000 times.
    assert np.square(counts - 6250).sum() / 6250 < 50
    assert abs(np.corrcoef(words[:-1], words[1:])[0, 1]) < 0.02


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 500), WORD, st.integers(0, 10_000))
def test_an_epoch_visits_every_example_once(n: int, seed: int, epoch: int) -> None:
    order = epoch_order(n, seed=seed, epoch=epoch)
    assert order.dtype == np.int32
    np.testing.assert_array_equal(np.sort(order), np.arange(n))


def test_orders_differ_between_epochs_and_seeds() -> None:
    orders = [epoch_order(100, seed=seed, epoch=epoch) for seed in range(5) for epoch in range(5)]
    assert len({order.tobytes() for order in orders}) == 25


def test_every_example_comes_at_every_place() -> None:
    first = [int(epoch_order(6, seed=0, epoch=epoch)[0]) for epoch in range(600)]
    counts = np.bincount(first, minlength=6)
    assert counts.min() > 60
    assert counts.max() < 140


def test_the_orders_of_epochs_never_change() -> None:
    """A run that is resumed with a later version must not see an example twice."""
    assert epoch_order(12, seed=0, epoch=0).tolist() == PINNED[0]
    assert epoch_order(12, seed=0, epoch=1).tolist() == PINNED[1]
    assert epoch_order(12, seed=2**32 - 1, epoch=7).tolist() == PINNED[2]


def test_examples_with_the_same_random_word_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpunn.kernels.random.random_words", lambda n, **of: np.zeros(n, np.uint32))
    assert epoch_order(5, seed=0, epoch=0).tolist() == [0, 1, 2, 3, 4]
