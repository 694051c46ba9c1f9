"""Errors: one line that a terminal prints and does not obey, whatever a file has put into it."""

import pytest

from gpunn import errors
from gpunn.errors import GpunnError

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, GpunnError)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_is_one_line_of_what_can_be_printed(kind: type[GpunnError]) -> None:
    text = str(kind("\x1b[31mred\x1b[0m\nand\r\ttab \u202e right to left \ud800 half, π × ç"))
    assert text == "\\x1b[31mred\\x1b[0m\\nand\\r\\ttab \\u202e right to left \\ud800 half, π × ç"
    assert text.isprintable()


@pytest.mark.parametrize("filling", ["a", "\n", "\U000e0001"])
def test_a_long_error_keeps_its_begin_and_its_mend(filling: str) -> None:
    text = str(GpunnError("file.npz: got " + filling * 1_000_000 + ": save it again"))
    assert len(text) < 600
    assert text.startswith("file.npz: got ")
    assert text.endswith(": save it again")
    assert " … " in text
