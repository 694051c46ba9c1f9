"""The wide form of every element-wise kernel: the bits of CuPy's own, whatever the sizes and addresses are."""

from typing import Any

import numpy as np
import pytest
from simulator.cases import calls, dtypes
from support.harness import moved

from gpunn.backend import wide
from gpunn.backend.base import Backend
from gpunn.kernels import Elementwise, Raw, registry
from gpunn.kernels.record import elementwise

pytestmark = pytest.mark.gpu
# Below, at and above a vector, the vectors of a thread, a block, and with a remainder of each kind.
SIZES = (1, 2, 3, 4, 5, 7, 1023, 1024, 1025, 2047, 2048, 2049, 5003)
WIDE = [name for name, kernel in sorted(registry.items()) if isinstance(kernel, Elementwise) and kernel.may_be_wide]


@pytest.fixture
def backend() -> Backend:
    from gpunn.backend.devices import select

    return select("cuda")


@pytest.fixture
def any_size(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(wide, "LARGE", 1)
    return monkeypatch


def stretched(kernel: Elementwise, arguments: tuple[Any, ...], size: int) -> tuple[Any, ...]:
    """The arguments with arrays of this size that are gone through; what is one array stays one."""
    made: dict[int, Any] = {}
    for (_, _, raw), value in zip(wide._parameters(kernel), arguments, strict=True):
        if isinstance(value, np.ndarray) and id(value) not in made:
            made[id(value)] = value.copy() if raw else np.resize(value.reshape(-1), size)
    return tuple(made.get(id(value), value) for value in arguments)


def run(backend: Backend, kernel: Elementwise, arguments: tuple[Any, ...]) -> list[bytes]:
    given = moved(backend, arguments)
    backend.run(kernel, *given)
    return [backend.to_host(a).tobytes() for a, b in zip(given, arguments, strict=True) if isinstance(b, np.ndarray)]


@pytest.mark.parametrize(("name", "dtype"), [(name, dtype) for name in WIDE for dtype in dtypes(name)])
def test_the_wide_form_computes_the_bits_of_cupys(
    backend: Backend, any_size: pytest.MonkeyPatch, name: str, dtype: str
) -> None:
    kernel = registry[name]
    assert isinstance(kernel, Elementwise)
    for call in calls(name, dtype, [257]):
        for size in SIZES:
            arguments = stretched(kernel, call.arguments, size)
            assert isinstance(wide.fitting(kernel, tuple(moved(backend, arguments))), Raw)
            ours = run(backend, kernel, arguments)
            with any_size.context() as patch:
                patch.setattr(wide, "LARGE", 2**40)
                assert run(backend, kernel, arguments) == ours, f"{name}, {size} elements"


def test_large_arrays_are_gone_through_widely_and_small_ones_are_not(backend: Backend) -> None:
    relu = registry["relu"]
    for size, expected in ((wide.LARGE - 1, Elementwise), (wide.LARGE, Raw), (wide.LARGE + 3, Raw)):
        z = backend.asarray(np.linspace(-1, 1, size, dtype=np.float32))
        assert isinstance(wide.fitting(relu, (z, z)), expected)
        backend.run(relu, z, z)
        np.testing.assert_array_equal(backend.to_host(z), np.maximum(np.linspace(-1, 1, size, dtype=np.float32), 0))


@pytest.mark.parametrize("offset", [1, 2, 3])
def test_arrays_that_do_not_begin_at_16_bytes_are_left_to_cupy(
    backend: Backend, any_size: pytest.MonkeyPatch, offset: int
) -> None:
    relu, all_of_it = registry["relu"], backend.asarray(np.linspace(-1, 1, 3000, dtype=np.float32))
    z, a = all_of_it[offset : offset + 1000], all_of_it[2000:]
    for arguments in ((z, a), (a, z)):
        assert wide.fitting(relu, arguments) is relu
    backend.run(relu, z, a)
    np.testing.assert_array_equal(backend.to_host(a), np.maximum(backend.to_host(z), 0))


def test_what_is_not_alike_is_left_to_cupy(backend: Backend, any_size: pytest.MonkeyPatch) -> None:
    relu, add_bias = registry["relu"], registry["add_bias"]
    z = backend.asarray(np.ones((64, 64), np.float32))
    assert isinstance(wide.fitting(relu, (z, z)), Raw)
    assert wide.fitting(relu, (z[:, ::2], z[:, 1::2])) is relu  # not contiguous
    assert wide.fitting(relu, (z, z.T)) is relu
    assert wide.fitting(relu, (z, backend.asarray(np.ones((64, 64))))) is relu  # floats and doubles
    assert wide.fitting(add_bias, (z[:, :1].copy(), z)) is add_bias  # one number for a row
    row_sums = registry["row_sums"]
    assert wide.fitting(row_sums, (z, z)) is row_sums


def test_an_operation_may_leave_an_output_as_it_was_and_ask_for_its_number(
    backend: Backend, any_size: pytest.MonkeyPatch
) -> None:
    @elementwise("T x, int32 from, raw T table", "T y, T z", "if (i >= from) y = x + table[i % 2]; z = T(i);")
    def of_its_number(x: Any, begin: int, table: Any, y: Any, z: Any) -> None: ...

    del registry["of_its_number"]
    x, table = np.arange(2050, dtype=np.float32), np.array([0.5, 0.25], np.float32)
    given = moved(backend, (x, 1025, table, -x, x.copy()))
    assert isinstance(wide.fitting(of_its_number, tuple(given)), Raw)
    backend.run(of_its_number, *given)
    expected = np.where(np.arange(2050) < 1025, -x, x + np.resize(table, 2050))
    np.testing.assert_array_equal(backend.to_host(given[3]), expected)
    np.testing.assert_array_equal(backend.to_host(given[4]), x)
