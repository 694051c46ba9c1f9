"""Every kernel of the registry, as CuPy generates it, in many orders of its threads, against its NumPy twin."""

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from simulated_cuda.compiling import kernels_in
from simulated_cuda.core import Core
from support.harness import moved
from support.kernel_cases import flushed, is_unset

from gpunn.backend.compiling import CUDA_NAMES, cuda_source, typed, variant
from gpunn.backend.cuda import CupyBackend
from gpunn.kernels import Elementwise, Raw, registry
from simulator.cases import calls, dtypes

SCHEDULES = 104
"""At least so many orders for each kernel and dtype, spread over its calls; eight for each are of every kind."""

ULPS = 16
"""Units in the last place between a kernel and its twin, of the value or of the size that its terms have."""


class Checked(CupyBackend):
    """A backend whose kernels run with checks."""

    def __init__(self, cuda: Core) -> None:
        super().__init__(0)
        self.cuda = cuda

    def called(
        self, kernel: Elementwise | Raw, arguments: Sequence[Any], schedule: int = 0, races: bool = True
    ) -> list:
        """The arguments after a call on copies, back on the host."""
        given = moved(self, arguments)
        with self.cuda.checks(schedule, races):
            self.run(kernel, *given)
        return [self.to_host(a) if isinstance(b, np.ndarray) else a for a, b in zip(given, arguments, strict=True)]


@pytest.fixture(scope="module")
def backend(checked: Core) -> Checked:
    """What was compiled without checks before is compiled with them side by side, before the first kernel runs."""
    known = [one for one in checked.compiler.compiled() if registry.keys() & kernels_in(one[0])]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(lambda one: checked.compiler.library(*one), known))
    return Checked(checked)


def for_twin(arguments: Sequence[Any]) -> list[Any]:
    """Copies, with zeros where the kernel sees zeros; what is one array stays one."""
    copies = {id(a): a.copy(order="K") for a in arguments if isinstance(a, np.ndarray)}
    for copied in copies.values():
        copied[...] = flushed(copied)
    return [copies.get(id(a), a) for a in arguments]


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
def test_a_kernel_equals_its_twin_in_every_order_of_its_threads(backend: Checked, name: str, dtype: str) -> None:
    kernel = registry[name]
    made = calls(name, dtype)
    orders = max(8, -(-SCHEDULES // len(made)))
    done = 0
    for number, call in enumerate(made):
        expected = for_twin(call.arguments)
        kernel.host(*expected)
        first: list[bytes] | None = None
        for order in range(orders):
            given = backend.called(kernel, call.arguments, order + 8 * orders * number)
            done += 1
            arrays = [(at, a) for at, a in enumerate(given) if isinstance(a, np.ndarray)]
            bits = [array.tobytes() for _, array in arrays]
            if first is None:
                first = bits
                for at, array in arrays:
                    if is_unset(expected[at]):  # scratch, which the twin does without
                        continue
                    assert_twins(array, expected[at], call.scale, f"{name}, call {number}, argument {at}", dtype)
            assert bits == first, f"{name}, call {number}: another order of the threads, another result"
    assert done >= 100


def test_every_kernel_of_the_registry_has_a_call() -> None:
    for name in registry:
        assert calls(name, "float32", [3])


def test_a_kernel_without_a_call_fails() -> None:
    with pytest.raises(AssertionError, match="no call: write a case for it in tests/support/kernel_cases"):
        calls("a kernel that nobody wrote", "float32")


def test_a_call_is_found_wrong_where_kernel_and_twin_differ(backend: Checked) -> None:
    """The comparison itself: of a twin that is a little wrong."""
    z = np.linspace(-1, 1, 50, dtype=np.float32).reshape(2, 25)
    _, a = backend.called(registry["relu"], (z, np.zeros_like(z)))
    with pytest.raises(AssertionError, match="instead of"):
        assert_twins(a, np.maximum(z, 0) * np.float32(1.00001), None, "relu")


# What CuPy passes on without a look

_DTYPES = {name: np.dtype(dtype) for dtype, name in CUDA_NAMES.items()} | {"bool": np.dtype(bool)}
_DTYPES |= {"unsigned int": np.dtype(np.uint32), "unsigned long long": np.dtype(np.uint64)}


def assert_declared(kernel: Raw, arguments: Sequence[Any]) -> None:
    """Whether a raw kernel is given what it declares: number and types, and strides where arrays have any."""
    types, constants = variant(kernel, arguments)
    source = cuda_source(kernel, types, constants)
    aliases = {alias: kind for kind, alias in re.findall(r"\btypedef\s+([\w ]+?)\s+(\w+)\s*;", source)}
    declared, given = kernels_in(source)[kernel.name], kernel.launch(*arguments).arguments
    knows_strides = any("stride" in name for _, name in declared)
    for (text, name), value in zip(declared, (typed(value, types.get("T")) for value in given), strict=True):
        kind = " ".join(re.sub(r"\bconst\b|__restrict__|\*", " ", text).split())
        kinds = (np.ndarray if "*" in text else np.generic, _DTYPES[aliases.get(kind, kind)])
        assert isinstance(value, kinds[0]), f"`{text} {name}` is given {value!r:.80}"
        assert value.dtype == kinds[1], f"`{text} {name}` is given {value!r:.80}"
        assert knows_strides or np.asarray(value).flags.c_contiguous, f"`{name}` is not contiguous"


@pytest.mark.parametrize("name", [name for name in sorted(registry) if isinstance(registry[name], Raw)])
def test_a_raw_kernel_is_given_what_it_declares(name: str) -> None:
    for dtype in dtypes(name):
        for call in calls(name, dtype, [3]):
            assert_declared(registry[name], call.arguments)  # type: ignore[arg-type]


def test_what_a_raw_kernel_does_not_declare_is_seen() -> None:
    kernel, x = registry["row_sums"], np.zeros((3, 8), np.float32)
    scratch = np.zeros(0, np.float32), np.zeros(0, np.uint32)
    assert isinstance(kernel, Raw)
    assert_declared(kernel, (x, np.zeros(3, np.float32), *scratch))
    for arguments, message in (
        ((x, np.zeros(3)), "total` is given array"),
        ((x[:, ::2], x[:, 0]), "is not contiguous"),
    ):
        with pytest.raises(AssertionError, match=message):
            assert_declared(kernel, (*arguments, *scratch))


# Bytes moved


def least_bytes(kernel: Elementwise, arguments: Sequence[Any]) -> int:
    """Every input read once, every output written once, and read before where it is changed and not made anew."""
    inputs, outputs = kernel.inputs.split(","), kernel.outputs.split(",")
    is_changed = kernel.name.startswith(("add_bias", "bias_", "sgd", "momentum_sgd", "adam", "average_weights"))
    least, seen = 0, set()
    for number, (parameter, value) in enumerate(zip([*inputs, *outputs], arguments, strict=True)):
        if "raw" in parameter or not hasattr(value, "nbytes") or value.ndim == 0:
            continue
        is_output = number >= len(inputs)
        least += value.nbytes * (is_output + ((not is_output or is_changed) and id(value) not in seen))
        seen.add(id(value))
    return least


OF_FEW_ELEMENTS = {"count_skipped", "end_step"}
"""Kernels that are only run on one or two numbers, of which what all threads share is much."""


@pytest.mark.parametrize(
    "name",
    [name for name in sorted(registry) if isinstance(registry[name], Elementwise) and name not in OF_FEW_ELEMENTS],
)
def test_elementwise_kernels_move_hardly_more_bytes_than_they_must(backend: Checked, name: str) -> None:
    kernel = registry[name]
    assert isinstance(kernel, Elementwise)
    ratios = []
    for call in calls(name, "float32"):
        least = least_bytes(kernel, call.arguments)
        if least >= 2000:  # of less, what all threads share is much
            backend.called(kernel, call.arguments, races=False)
            ratios.append(backend.cuda.moved / least)
    assert 1 <= max(ratios) <= 1.5  # less where there is nothing to do, as for `take_back`


def test_a_kernel_that_reads_each_number_twice_is_seen_to_move_more_bytes(backend: Checked) -> None:
    twice = Elementwise("twice", "raw T x", "T y", "y = x[i] + x[i ^ 1];", host=lambda x, y: None)
    del registry["twice"]
    x, y = np.zeros((10000,), np.float32), np.zeros((10000,), np.float32)
    backend.called(twice, (x, y), races=False)
    assert backend.cuda.moved == 1.5 * (x.nbytes + y.nbytes)
