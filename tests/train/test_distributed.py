"""Shares of batches are slices of one order, and several ranks hear what any of them has to say."""

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

import gpunn as gn
from gpunn.backend.ranks import Ranks, bounds
from gpunn.errors import DataError, GpunnError, OptionError
from gpunn.train.distributed import (
    check_batch_size,
    check_same_data,
    check_same_weights,
    first_text,
    share_of,
    share_of_order,
)

SIZES = some.integers(1, 9)


class Threads(Ranks):
    """Ranks that are threads of this process."""

    def __init__(self, rank: int, held: list[Any], barrier: threading.Barrier) -> None:
        self.rank, self.size, self._held, self._barrier = rank, len(held), held, barrier

    def all_gather(self, array: Any) -> Any:
        self._held[self.rank] = np.array(array)
        self._barrier.wait(10)
        made = np.array(self._held)
        self._barrier.wait(10)
        return made

    def any(self, is_so: bool) -> bool:
        return bool(self.all_gather(np.array(is_so)).any())


def on_threads(size: int, work: Any) -> list[Any]:
    """Do work on so many ranks, and return what each gives or raises."""
    held: list[Any] = [None] * size
    found: list[Any] = [None] * size
    barrier = threading.Barrier(size)

    def run(rank: int) -> None:
        try:
            found[rank] = work(Threads(rank, held, barrier))
        except GpunnError as error:
            found[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return found


def of(rank: int, size: int) -> Ranks:
    ranks = Ranks()
    ranks.rank, ranks.size = rank, size
    return ranks


@given(some.integers(0, 200), SIZES)
def test_bounds_are_a_partition_and_differ_by_one_at_most(n: int, size: int) -> None:
    shares = [bounds(n, rank, size) for rank in range(size)]
    assert [k for first, end in shares for k in range(first, end)] == list(range(n))
    lengths = [end - first for first, end in shares]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] - lengths[-1] <= 1


@given(some.integers(1, 60), some.integers(1, 20), SIZES)
def test_shares_are_slices_of_each_batch_of_one_order(n: int, batch_size: int, size: int) -> None:
    order = np.random.default_rng(n).permutation(n).astype(np.int32)
    shares = [share_of_order(order, batch_size, of(rank, size)) for rank in range(size)]
    assert sum(map(len, shares)) == n
    own = [share_of(batch_size, batch_size, of(rank, size)) for rank in range(size)]
    for number, start in enumerate(range(0, n, batch_size)):
        batch = order[start : start + batch_size]
        parts = [share[number * count : (number + 1) * count] for share, count in zip(shares, own, strict=True)]
        np.testing.assert_array_equal(np.concatenate(parts), batch)
    for done in range(0, n + 1, batch_size):
        counts = [share_of(done, batch_size, of(rank, size)) for rank in range(size)]
        assert counts == [done // batch_size * count for count in own]
    assert [share_of(n, batch_size, of(rank, size)) for rank in range(size)] == list(map(len, shares))


def test_the_first_rank_that_has_a_text_is_heard_by_all() -> None:
    texts = ["", "the lösung", "another"]
    assert on_threads(3, lambda ranks: first_text(ranks, texts[ranks.rank])) == ["the lösung"] * 3
    assert on_threads(3, lambda ranks: first_text(ranks, "")) == [""] * 3
    assert on_threads(2, lambda ranks: first_text(ranks, "x" * 1000)) == ["x" * 400] * 2
    assert first_text(Ranks(), "alone") == "alone"


def test_batches_that_cannot_be_shared_are_refused() -> None:
    check_batch_size(4, of(0, 4))
    with pytest.raises(OptionError, match="4 ranks cannot share batches of 3 samples: take a batch size of 4 or more"):
        check_batch_size(3, of(0, 4))


def test_other_data_on_a_rank_are_told_on_all() -> None:
    x, y = np.arange(12.0).reshape(6, 2), np.array([0, 1] * 3)
    data = [gn.Data.from_arrays(x + (rank == 2), y, validation=0) for rank in range(3)]
    assert on_threads(3, lambda ranks: check_same_data(data[0], ranks)) == [None] * 3
    errors = on_threads(3, lambda ranks: check_same_data(data[ranks.rank], ranks))
    assert all(isinstance(error, DataError) for error in errors)
    assert {str(error) for error in errors} == {
        "the samples of rank 2 differ from those of rank 0: let all ranks read the same files in the same way"
    }


def test_other_weights_on_a_rank_are_told_on_all() -> None:
    networks = [gn.Sequential([gn.Dense(2)]).build((3,), device="cpu", seed=int(rank == 1)) for rank in range(3)]
    assert on_threads(3, lambda ranks: check_same_weights(networks[0], "now", ranks)) == [None] * 3
    errors = on_threads(3, lambda ranks: check_same_weights(networks[ranks.rank], "after step 7", ranks))
    begin = "the weights of rank 1 differ from those of rank 0 after step 7"
    assert all(str(error).startswith(begin) for error in errors)


def test_a_loss_that_can_be_told_of_no_share_is_named() -> None:
    class Doubled(gn.MeanSquaredError):
        def evaluate(self, backend: Any, z: Any, targets: Any, totals: Any, weight: Any = 1.0, *rest: Any) -> None:
            super().evaluate(backend, z, targets, totals, 2 * weight, *rest)

    gn.MeanSquaredError().check_takes_shares()
    with pytest.raises(OptionError, match="evaluate of Doubled takes no share of a batch: give it of=0"):
        Doubled().check_takes_shares()
