"""The benchmark of two ranks runs, and they learn what one learns; no claim about speed is made here."""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from support.paths import ROOT
from support.ranks import job, launcher


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


@pytest.mark.parametrize(("seeds", "code", "said"), [("0", 1, "more than 0.01%"), ("0,7", 0, "has no seeds [7]")])
def test_the_accuracy_by_ranks_is_compared_with_that_of_one_process(
    tmp_path: Path, seeds: str, code: int, said: str
) -> None:
    options = ("mlp", "digits", "--epochs", "1", "--seeds", seeds, "--out", tmp_path, "--alike", "0.0001")
    with job(2, sys.executable, ROOT / "benchmarks" / "accuracy.py", *options, folder=tmp_path) as started:
        done = started.done()
    assert done.code == code, done.err
    assert said in done.out + done.err
    assert done.out.count("mean test accuracy") == 1
    result = json.loads((tmp_path / "accuracy-digits-mlp-cpu-2-ranks.json").read_text("utf-8"))
    assert result["command"].startswith("OPENBLAS_NUM_THREADS=1 mpiexec -n 2 python benchmarks/accuracy.py mlp digits")
    assert ("mean_on_cpu" in result) == (code == 1)
