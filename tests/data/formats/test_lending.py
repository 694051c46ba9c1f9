"""A file that was lent to PyArrow is back before Python may end."""

import io
import threading
import time

import pytest

from gpunn.data.formats import arrow
from gpunn.data.formats.arrow import lending


def test_a_file_is_waited_for_until_the_last_thread_has_let_go_of_it() -> None:
    freed = threading.Event()

    def let_go_later(held: list[object]) -> None:
        time.sleep(0.05)
        held.clear()
        freed.set()

    with lending() as lend:
        held = [lend(io.BytesIO(b"1,2"))]
        assert held[0].read() == b"1,2"
        thread = threading.Thread(target=let_go_later, args=(held,))
        thread.start()
        assert not freed.is_set()
    assert freed.is_set()
    thread.join()


def test_a_file_that_nobody_lets_go_of_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow, "_MOST_SECONDS", 0.01)
    with lending() as lend:
        held = lend(io.BytesIO())
    assert held.closed is False
