"""Captures: what they hold, what they must not, and a device that is usable after."""

import gc
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.backend.cuda import CupyBackend
from gpunn.backend.devices import select
from gpunn.errors import CaptureError
from gpunn.kernels import registry
from simulated_cuda.core import Core
from simulated_cuda.test_cuda_path import NETWORKS, distance, trained


@pytest.mark.parametrize(
    "work",
    [
        lambda backend, x: backend.synchronize(),
        lambda backend, x: float(x[0]),
        lambda backend, x: backend.assign(x, np.ones(4, np.float32)),
        lambda backend, x: backend.to_host(x),
    ],
    ids=["synchronize", "float", "assign", "to_host"],
)
def test_what_a_graph_cannot_hold_is_refused_in_its_capture(cuda: Core, work: Any) -> None:
    backend = select("cuda")
    x = backend.zeros((4,), np.float32)
    with pytest.raises(CaptureError):
        backend.capture(lambda: work(backend, x))
    # The device is usable after.
    backend.run(registry["relu"], x, x)
    assert not backend.to_host(x).any()


def test_a_step_that_cannot_be_recorded_says_why_and_trains_kernel_by_kernel(cuda: Core, said: list[str]) -> None:
    class Looking(gn.Dropout):
        def forward(self, x: Any, training: bool) -> Any:
            select("cuda").to_host(x)
            return super().forward(x, training)

    network, with_dropout = (
        NETWORKS["784-128-10"]._replace(layers=lambda kind=kind: [gn.Dense(128), gn.ReLU(), kind(0), gn.Dense(10)])
        for kind in (Looking, gn.Dropout)
    )
    watched, _ = trained(network, "cuda")
    assert cuda.count("cudaGraphLaunch") == 0
    assert any("training kernel by kernel, not by graph: " in text for text in said)
    assert distance(watched, trained(with_dropout, "cuda")[0]) == 0


def test_several_steps_that_cannot_be_recorded_are_replayed_one_by_one(cuda: Core, said: list[str]) -> None:
    network = NETWORKS["784-128-10"]
    expected, _ = trained(network, "cuda", validate_every=1000)
    capture = CupyBackend.capture
    graphs: list[int] = []

    def only_one(self: CupyBackend, work: Any) -> Any:
        graphs.append(1)
        if len(graphs) > 1:
            raise CaptureError("no memory for so large a graph")
        return capture(self, work)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CupyBackend, "capture", only_one)
        model, history = trained(network, "cuda", validate_every=1000)
    assert "training with a graph a step, not one for 8: no memory for so large a graph" in said
    assert len(graphs) == 2  # and not tried again
    assert distance(model, expected) == 0
    assert history[-1].step >= 50


def test_what_is_captured_is_not_done_until_it_is_launched(cuda: Core) -> None:
    backend = select("cuda")
    x = backend.asarray(np.array([-1.0, 2.0], np.float32))
    replay = backend.capture(lambda: backend.run(registry["relu"], x, x))
    np.testing.assert_array_equal(backend.to_host(x), [-1, 2])
    replay()
    np.testing.assert_array_equal(backend.to_host(x), [0, 2])


def test_a_capture_that_is_broken_off_leaves_the_device_usable(cuda: Core) -> None:
    backend = select("cuda")
    x = backend.zeros((4,), np.float32)

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backend.capture(stop)
    assert not backend.to_host(x).any()


def test_a_product_into_a_transposed_matrix_is_refused(cuda: Core) -> None:
    backend = select("cuda")
    a = backend.zeros((2, 2), np.float32)
    with pytest.raises(ValueError, match="rows of c be contiguous"):
        backend.gemm(1.0, a, a, 0.0, backend.zeros((2, 2), np.float32).T)


def test_running_out_of_memory_is_an_error_and_the_device_is_usable_after(cuda: Core) -> None:
    backend = select("cuda")
    pool = backend.cupy.get_default_memory_pool()
    gc.collect()
    used = pool.used_bytes()
    with pytest.raises(backend.memory_error, match="Out of memory allocating"):
        backend.empty((2**31,), np.float32)
    assert pool.used_bytes() == used
    assert backend.to_host(backend.zeros((3,), np.float32)).tolist() == [0, 0, 0]


def test_a_training_gives_all_its_memory_back(cuda: Core) -> None:
    used = select("cuda").cupy.get_default_memory_pool().used_bytes
    before = used()
    trained(NETWORKS["784-128-10"], "cuda")
    gc.collect()
    assert used() == before
