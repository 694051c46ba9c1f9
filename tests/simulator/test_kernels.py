"""Every kernel of the registry in the simulator, in many orders of its threads, against its NumPy twin."""

import importlib
import pkgutil
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

import gpunn.kernels
from gpunn.backend import Backend, cuda_source, select
from gpunn.kernels import Elementwise, registry
from simulator import kernels
from simulator.cases import Call, calls, dtypes
from simulator.compiler import Program, compile_all
from simulator.machine import Machine

for _module in pkgutil.iter_modules(gpunn.kernels.__path__):
    importlib.import_module(f"gpunn.kernels.{_module.name}")

SCHEDULES = 104
"""At least so many orders for each kernel and dtype, spread over its calls; eight for each are of every kind."""

ULPS = 16
"""Units in the last place between a kernel and its twin, of the value or of the size that its terms have."""


def programs(name: str, dtype: str) -> Iterator[Program]:
    """What is compiled for the calls of a kernel."""
    kernel = registry[name]
    for call in calls(name, dtype, [3]):
        if isinstance(kernel, Elementwise):
            made = kernels.ElementwiseKernel(
                kernel.inputs, kernel.outputs, kernel.operation, kernel.name, preamble=kernel.preamble
            )
            yield made.program({"T": np.dtype(dtype)}, [isinstance(a, np.ndarray) for a in call.arguments])
        else:
            types = {letter: call.arguments[at].dtype for letter, at in kernel.types.items()}
            yield kernels.RawKernel(cuda_source(kernel, types), kernel.name).program


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


def on_device(backend: Backend, arguments: Sequence[Any]) -> list[Any]:
    made = {}
    for a in arguments:
        if isinstance(a, np.ndarray) and id(a) not in made:
            order = np.argsort([-stride for stride in a.strides], kind="stable")
            made[id(a)] = backend.asarray(a.transpose(order).copy()).transpose(*map(int, np.argsort(order)))
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
def test_a_kernel_equals_its_twin_in_every_order_of_its_threads(
    machine: Machine, compiled: None, name: str, dtype: str
) -> None:
    backend, kernel = select("cuda"), registry[name]
    made = calls(name, dtype)
    orders = max(8, -(-SCHEDULES // len(made)))
    done = 0
    for number, call in enumerate(made):
        expected = on_host(call.arguments)
        kernel.host(*expected)
        moved = on_device(backend, call.arguments)
        first: list[bytes] | None = None
        for order in range(orders):
            for array, original in zip(moved, call.arguments, strict=True):
                if isinstance(original, np.ndarray):
                    array.host[...] = original
            machine.scheduling.seed = order + 8 * orders * number
            backend.run(kernel, *moved)
            done += 1
            arrays = [(at, a) for at, a in enumerate(moved) if isinstance(expected[at], np.ndarray)]
            bits = [array.host.tobytes() for _, array in arrays]
            if first is None:
                first = bits
                for at, array in arrays:
                    assert_twins(array.host, expected[at], call.scale, f"{name}, call {number}, argument {at}", dtype)
            assert bits == first, f"{name}, call {number}: another order of the threads, another result"
    assert done >= 100


def test_every_kernel_of_the_registry_has_a_call() -> None:
    assert [problem for name in sorted(registry) if (problem := _problem(name))] == []


def test_a_kernel_without_a_call_fails() -> None:
    with pytest.raises(AssertionError, match="no call: give it one in tests/simulator/cases"):
        calls("a kernel that nobody wrote", "float32")


def test_a_call_is_found_wrong_where_kernel_and_twin_differ(machine: Machine) -> None:
    """The comparison itself: of a twin that is a little wrong."""
    backend = select("cuda")
    call = Call((np.linspace(-1, 1, 50, dtype=np.float32).reshape(2, 25), np.zeros((2, 25), np.float32)))
    moved = on_device(backend, call.arguments)
    backend.run(registry["relu"], *moved)
    wrong = np.maximum(call.arguments[0], 0) * np.float32(1.00001)
    with pytest.raises(AssertionError, match="instead of"):
        assert_twins(moved[1].host, wrong, None, "relu")
