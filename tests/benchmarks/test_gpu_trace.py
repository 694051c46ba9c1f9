"""A training step on the real CuPy, as it is given to a GPU: how many nodes and blocks, and how many bytes."""

from functools import cache
from typing import Any

import pytest
from support.paths import ROOT

from gpunn.backend.devices import select

pytestmark = pytest.mark.simulated_cuda

NODES = {"784-128-10": 10, "784-512-512-10": 15, "lenet": 29, "lenet-bn": 49, "fast99": 33, "3×3 64-128-256": 46}
"""At commit db9cf54."""
LARGE, ENOUGH = 2**18, 264


@cache
def traced(name: str) -> Any:
    import gpu_trace

    return gpu_trace.traced(gpu_trace.NETWORKS[name], select("cuda"))


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def test_the_networks_are_all_those_that_are_traced() -> None:
    import gpu_trace

    assert gpu_trace.NETWORKS.keys() == NODES.keys()


@pytest.mark.parametrize("name", NODES)
def test_a_step_has_no_more_nodes_than_it_had(name: str) -> None:
    assert len(traced(name)) <= NODES[name]


@pytest.mark.parametrize("name", NODES)
def test_a_large_array_is_shared_out_among_enough_blocks(name: str) -> None:
    for node in traced(name):
        assert not node.blocks or node.elements < LARGE or node.blocks >= ENOUGH, node


@pytest.mark.parametrize("name", NODES)
def test_no_kernel_moves_many_more_bytes_than_it_must(name: str) -> None:
    for node in traced(name):
        assert 0 < node.moved <= 1.1 * node.needed, node
    assert sum(node.moved for node in traced(name)) <= 1.1 * sum(node.needed for node in traced(name))


def test_what_is_traced_are_the_arrays_that_kernels_are_given() -> None:
    nodes = [node for node in traced("lenet") if node.name == "max_pool"]
    assert [node.elements for node in nodes] == [20 * 24 * 24 * 128, 40 * 8 * 8 * 128]
    assert [node.moved for node in nodes] == [node.elements * 4 + node.elements // 4 * 5 for node in nodes]
    products = [node.sizes for node in traced("784-128-10") if node.name == "product"]
    assert products[:2] == [(128, 128, 784), (10, 128, 128)]


def test_a_block_of_columns_counts_the_rows_that_it_sees() -> None:
    first, second, *_ = [node for node in traced("3×3 64-128-256") if node.name == "im2col" and node.rows == 64]
    columns = 9 * 64 * 8 * 16 * 128 * 4
    assert first.moved == second.moved == columns + 64 * 9 * 16 * 128 * 4
    assert first.needed == columns + 64 * 8 * 16 * 128 * 4
