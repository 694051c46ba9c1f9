"""Every kernel of the registry in the simulator, in many orders of its threads, against its NumPy twin."""

import importlib
import pkgutil
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

import gpunn.kernels
from gpunn.kernels import Elementwise, registry
from simulator import kernels
from simulator.cases import calls, dtypes
from simulator.compiler import Program, compile_all
from simulator.launching import Scheduling

for _module in pkgutil.iter_modules(gpunn.kernels.__path__):
    importlib.import_module(f"gpunn.kernels.{_module.name}")

SCHEDULES = 104
"""At least so many orders for each kernel and dtype, spread over its calls; eight for each are of every kind."""

ULPS = 16
"""Units in the last place between a kernel and its twin, of the value or of the size that its terms have."""


def programs(name: str, dtype: str) -> Iterator[Program]:
    """What is compiled for the calls of a kernel."""
    return (kernels.program(registry[name], call.arguments) for call in calls(name, dtype, [3]))


@pytest.fixture(scope="module")
def compiled() -> None:
    """All kernels compiled side by side, before the first runs."""
    has_calls = [name for name in registry if not _problem(name)]
    compile_all({p.key: p for name in has_calls for dtype in dtypes(name) for p in programs(name, dtype)}.values())


def _problem(name: str) -> str:
    try:
        calls(name, "float32", [3])
    except AssertionError as error:
        return str(error)
    return ""


def copied(array: np.ndarray) -> np.ndarray:
    """A copy whose axes lie in memory in the same order."""
    order = np.argsort([-stride for stride in array.strides], kind="stable")
    return array.transpose(order).copy().transpose(np.argsort(order))


def on_host(arguments: Sequence[Any]) -> list[Any]:
    """Copies; what is one array stays one."""
    made = {id(a): copied(a) for a in arguments if isinstance(a, np.ndarray)}
    return [made.get(id(a), a) for a in arguments]


def assert_twins(
    actual: np.ndarray, expected: np.ndarray, scale: float | None, what: str, dtype: str = "float32"
) -> None:
    """Equal to within some units in the last place of the network's dtype, in which sums of float64 too are made."""
    if expected.dtype.kind != "f":
        np.testing.assert_array_equal(actual, expected, err_msg=what)
        return
    info = np.finfo(dtype)
    size = np.abs(expected.astype(np.float64)) if scale is None else np.maximum(np.abs(expected), scale)
    allowed = ULPS * np.maximum(float(info.eps) * size, float(info.tiny))
    with np.errstate(invalid="ignore"):  # ∞ − ∞
        near = np.abs(actual.astype(np.float64) - expected) <= allowed
    same = near | (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    assert same.all(), f"{what}: {actual[~same][:3]} instead of {expected[~same][:3]}"


@pytest.mark.parametrize(("name", "dtype"), [(name, dtype) for name in sorted(registry) for dtype in dtypes(name)])
def test_a_kernel_equals_its_twin_in_every_order_of_its_threads(compiled: None, name: str, dtype: str) -> None:
    kernel = registry[name]
    made = calls(name, dtype)
    orders = max(8, -(-SCHEDULES // len(made)))
    done = 0
    for number, call in enumerate(made):
        expected = on_host(call.arguments)
        kernel.host(*expected)
        first: list[bytes] | None = None
        for order in range(orders):
            given = on_host(call.arguments)
            kernels.run(kernel, given, Scheduling(seed=order + 8 * orders * number))
            done += 1
            arrays = [(at, a) for at, a in enumerate(given) if isinstance(a, np.ndarray)]
            bits = [array.tobytes() for _, array in arrays]
            if first is None:
                first = bits
                for at, array in arrays:
                    assert_twins(array, expected[at], call.scale, f"{name}, call {number}, argument {at}", dtype)
            assert bits == first, f"{name}, call {number}: another order of the threads, another result"
    assert done >= 100


def test_every_kernel_of_the_registry_has_a_call() -> None:
    assert [problem for name in sorted(registry) if (problem := _problem(name))] == []


def test_a_kernel_without_a_call_fails() -> None:
    with pytest.raises(AssertionError, match="no call: give it one in tests/simulator/cases"):
        calls("a kernel that nobody wrote", "float32")


def test_a_call_is_found_wrong_where_kernel_and_twin_differ() -> None:
    """The comparison itself: of a twin that is a little wrong."""
    z, a = np.linspace(-1, 1, 50, dtype=np.float32).reshape(2, 25), np.zeros((2, 25), np.float32)
    kernels.run(registry["relu"], (z, a), Scheduling())
    with pytest.raises(AssertionError, match="instead of"):
        assert_twins(a, np.maximum(z, 0) * np.float32(1.00001), None, "relu")


# Bytes moved


def least_bytes(kernel: Elementwise, arguments: Sequence[Any]) -> int:
    """Every input read once, every output written once, and read before where it is changed and not made anew."""
    inputs, outputs = kernel.inputs.split(","), kernel.outputs.split(",")
    is_changed = kernel.name.startswith(("add_bias", "bias_", "sgd", "momentum_sgd", "adam"))
    least, seen = 0, set()
    for number, (parameter, value) in enumerate(zip([*inputs, *outputs], arguments, strict=True)):
        if "raw" in parameter or not hasattr(value, "nbytes") or value.ndim == 0:
            continue
        is_output = number >= len(inputs)
        least += value.nbytes * (is_output + ((not is_output or is_changed) and id(value) not in seen))
        seen.add(id(value))
    return least


OF_ONE_ELEMENT = {"count_skipped"}
"""Kernels that are only run on single numbers, of which what all threads share is much."""


@pytest.mark.parametrize(
    "name",
    [name for name in sorted(registry) if isinstance(registry[name], Elementwise) and name not in OF_ONE_ELEMENT],
)
def test_elementwise_kernels_move_hardly_more_bytes_than_they_must(name: str) -> None:
    kernel = registry[name]
    assert isinstance(kernel, Elementwise)
    looked_at = 0
    for call in calls(name, "float32"):
        arguments = on_host(call.arguments)
        least = least_bytes(kernel, arguments)
        if least < 2000:
            continue  # of so little what all threads share is much
        assert least <= sum(kernels.run(kernel, arguments, Scheduling(races=False))) <= 1.5 * least
        looked_at += 1
    assert looked_at


def test_a_kernel_that_reads_each_number_twice_is_seen_to_move_more_bytes() -> None:
    twice = Elementwise("twice", "raw T x", "T y", "y = x[i] + x[i ^ 1];", host=lambda x, y: None)
    del registry["twice"]
    x, y = np.zeros((10000,), np.float32), np.zeros((10000,), np.float32)
    assert sum(kernels.run(twice, (x, y), Scheduling(races=False))) == 1.5 * (x.nbytes + y.nbytes)
