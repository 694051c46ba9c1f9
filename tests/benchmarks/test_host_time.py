"""A device waits for the host no more than half a millisecond in an epoch; and the benchmark sees where it would."""

from typing import Any

import pytest
from support.paths import ROOT

from gpunn.train.orders import Orders
from gpunn.train.trainer import Trainer

pytestmark = pytest.mark.simulated_cuda
STEP_US, MOST_IDLE_US, MOST_REPLAYS = 39, 500, 70


@pytest.fixture
def host_time(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import host_time

    return host_time


def test_little_of_an_epoch_stands_in_the_way_of_the_device(host_time: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = host_time.measured(STEP_US, 8, monkeypatch.setattr)
    assert found["us"]["all"]["idle"] <= MOST_IDLE_US, found
    assert max(found["launches"]) <= MOST_REPLAYS
    assert found["us"]["looks"]["host"] > 0 < found["us"]["upload"]["host"]


# A quick processor reads the looks of an epoch at once in less than 400 µs; later, the device waits for none.
@pytest.mark.parametrize(("section", "least_us"), [("order", MOST_IDLE_US), ("looks", 150)])
def test_what_a_device_waits_for_is_seen(
    host_time: Any, monkeypatch: pytest.MonkeyPatch, section: str, least_us: float
) -> None:
    """Looks that are judged at once, or orders that nobody draws ahead, after a look at which it has run dry."""
    monkeypatch.setattr(Trainer, "_is_judged_later", lambda self: False)
    if section == "order":
        monkeypatch.setattr(Orders, "draw_ahead", lambda self, epoch: None)
    found = host_time.measured(STEP_US, 5, monkeypatch.setattr)
    assert found["us"][section]["idle"] > least_us, found
