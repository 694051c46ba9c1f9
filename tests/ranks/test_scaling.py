"""The benchmark of two ranks runs, and they learn what one learns; no claim about speed is made here."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from support.paths import ROOT
from support.ranks import launcher


@pytest.fixture(scope="module")
def scaling() -> Iterator[ModuleType]:
    launcher()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        patch.delenv("GPUNN_DATA", raising=False)
        import scaling

        yield scaling


def test_two_ranks_of_the_benchmark_learn_what_one_does(scaling: ModuleType, tmp_path: Path) -> None:
    work = replace(scaling.workload("mlp", 128, 1, quick=True), rate=0.002)  # random bytes let larger steps explode
    scaling.prepare(work, tmp_path, [0], scaling.images((28, 28, 1))[0])
    one, two = (scaling.launched("gpunn", sys.executable, tmp_path, ranks, scaling.ONE_THREAD) for ranks in (1, 2))
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
    assert min(one["seconds"], two["seconds"]) > 0


def test_a_ratio_is_the_middle_one_of_the_rounds(scaling: ModuleType) -> None:
    rounds = [{"a": 2.0, "b": 1.0}, {"a": 9.0, "b": 3.0}, {"a": 5.0, "b": 1.0}]
    assert scaling.ratio(rounds, "a", "b") == 3
