"""gpunn's worker of the benchmarks on the simulated device: the same work, with the same result, as on the CPU."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulator.machine import Machine

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.parametrize("kind", ["steps", "predict", "train"])
def test_the_worker_does_the_same_work_on_a_device(
    kind: str, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (BENCHMARKS, BENCHMARKS / "workers"):
        monkeypatch.syspath_prepend(str(folder))
    from gpunn_worker import Gpunn
    from protocol import Task, answers_of, judged
    from workloads import Workload, dense, prepare

    rng = np.random.default_rng(0)
    data = {
        f"{part}{what}": values
        for part in ("", "test-")
        for what, values in (
            ("inputs", rng.integers(0, 256, (256, 28, 28, 1), np.uint8)),
            ("labels", rng.integers(0, 10, 256, np.int32)),
        )
    }
    work = Workload("tiny", "tiny", dense(8, 10), kind, batch=32, steps=8, samples=256, peak=0.1)
    prepare(work, tmp_path, [0], data)
    found: list[dict[str, Any]] = []
    for device in ("cpu", "cuda"):
        task = Task(tmp_path, "fit", device, "float32")
        worker = Gpunn(task)
        for _ in range(2):  # a second round begins where the first began
            worker.reset(0)
            found.append(judged(*answers_of(worker, task, worker.run())))
        assert (worker.device_bytes() > 0) == (device == "cuda")
    for each in found[1:]:
        assert each == pytest.approx(found[0], abs=1e-4)
    assert machine.counts.graphs > 0 or kind == "predict"
