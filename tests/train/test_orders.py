"""The orders of epochs: drawn ahead by a thread or not, they are the same, and nothing of it stays behind."""

import threading

import numpy as np
import pytest

from gpunn.kernels.random import epoch_order
from gpunn.train import orders as module
from gpunn.train.orders import Orders


def drawing() -> list[str]:
    """The threads that draw."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("gpunn order")]


@pytest.mark.parametrize("asked", [[0, 1, 2, 3], [2, 2, 0, 3], [5]])
def test_an_order_is_that_of_its_epoch_whoever_has_drawn_it(asked: list[int]) -> None:
    orders = Orders(1000, seed=7)
    for epoch in asked:
        np.testing.assert_array_equal(orders.of(epoch), epoch_order(1000, seed=7, epoch=epoch))
        orders.draw_ahead(epoch + 1)
    orders.close()


def test_an_order_that_was_drawn_ahead_is_not_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[int, bool]] = []

    def draw(size: int, *, seed: int, epoch: int) -> module.Order:
        drawn.append((epoch, threading.current_thread() is threading.main_thread()))
        return epoch_order(size, seed=seed, epoch=epoch)

    monkeypatch.setattr(module, "epoch_order", draw)
    orders = Orders(10, seed=0)
    orders.of(0)
    orders.draw_ahead(1)
    orders.of(1)
    orders.close()
    assert drawn == [(0, True), (1, False)]


def test_an_error_of_the_thread_is_raised_where_the_order_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(size: int, *, seed: int, epoch: int) -> module.Order:
        raise MemoryError("no room for an order")

    monkeypatch.setattr(module, "epoch_order", draw)
    orders = Orders(10, seed=0)
    orders.draw_ahead(1)
    with pytest.raises(MemoryError, match="no room for an order"):
        orders.of(1)
    orders.draw_ahead(2)
    orders.close()  # nobody has asked for it
    assert drawing() == []


def test_the_thread_ends_when_it_is_closed_and_may_begin_again() -> None:
    orders = Orders(10, seed=0)
    orders.close()
    for _ in range(2):
        orders.draw_ahead(1)
        assert len(drawing()) == 1
        orders.close()
        assert drawing() == []
