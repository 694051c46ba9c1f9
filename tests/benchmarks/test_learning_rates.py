"""The comparison of rules that suggest learning rates, on losses that are known."""

import runpy
import sys

import numpy as np
import pytest
from support.paths import ROOT

from gpunn.train.lr_finder import Losses, suggest_rate


@pytest.fixture(scope="module")
def script() -> dict:
    return runpy.run_path(str(ROOT / "benchmarks" / "learning_rates.py"), run_name="learning_rates")


def falling() -> Losses:
    rates = np.geomspace(1e-6, 10, 200)
    losses = 0.3 + 2 / (1 + (rates / 1e-2) ** 1.5) + (rates / 0.5) ** 4
    return Losses(rates, losses, np.ones(200), "exploded")


def test_the_rule_in_use_is_that_of_the_library_and_the_others_are_lower(script: dict) -> None:
    suggestions = {name: rule(falling()) for name, rule in script["RULES"].items()}
    assert float(f"{suggestions.pop('97 % of the fall'):.2g}") == suggest_rate(falling())[1]
    assert all(1e-4 < rate < suggest_rate(falling())[1] for rate in suggestions.values()), suggestions


def test_the_table_has_what_each_rule_loses(
    script: dict, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def task(seed: int, rate: float | None) -> object:
        return falling() if rate is None else 0.9 - 0.1 * abs(np.log10(rate) + 1)

    monkeypatch.setitem(script["TASKS"], "toy", task)
    monkeypatch.setattr(sys, "argv", ["learning_rates.py", "toy"])
    script["main"]()
    head, _, row, mean, worst = capsys.readouterr().out.splitlines()
    assert head.startswith("| task | best, at | within 1 point | 97 % of the fall |")
    assert row.startswith("| toy | 90.0 %, 0.1 | 0.1 to 0.1 | ")
    rates, _, lost = row.split(" | ")[3].partition(": ")
    assert [float(rate) for rate in rates.split(", ")] == [suggest_rate(falling())[1]] * 2
    assert float(lost) == pytest.approx(10 * abs(np.log10(suggest_rate(falling())[1]) + 1), abs=0.1)
    assert mean.startswith("| points lost, mean | | | ")
    assert worst.startswith("| points lost, worst | | | ")
