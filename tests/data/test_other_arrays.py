"""Arrays of other libraries: whatever has `__array__` or `__dlpack__` is taken everywhere, or refused in one line."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.harness import one_line

import gpunn as gn
from gpunn.data.checks import as_array
from gpunn.errors import DataError

X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)
QUIET: dict[str, Any] = {"epochs": 1, "device": "cpu", "progress": False}


class WithArray:
    """Has `__array__` alone."""

    def __init__(self, array: Any) -> None:
        self.kept = array

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.asarray(self.kept, dtype)


class WithDlpack:
    """Has DLPack alone, on the host or elsewhere."""

    def __init__(self, array: Any, device: int = 1) -> None:
        self.kept, self.device = array, device

    def __dlpack__(self, **options: Any) -> Any:
        if self.device != 1:
            raise BufferError("not on this device")
        return self.kept.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device, 0


def read_only(array: Any) -> Any:
    other = array.copy()
    other.flags.writeable = False
    return other


def calls(model: gn.Sequential) -> list[Callable[[Any, Any], Any]]:
    return [
        lambda x, y: model.predict(x),
        lambda x, y: model.predict_proba(x),
        lambda x, y: model.forward(x),
        lambda x, y: repr(model.evaluate(x, y)),
        lambda x, y: gn.Sequential([gn.Dense(2)]).fit(x, y, **QUIET)["train_loss"],
        lambda x, y: gn.Data.from_arrays(x, y).train.sha256(),
        lambda x, y: gn.Sequential([gn.Dense(2)]).fit(x, y, validation_data=(x, y), **QUIET)["validation_loss"],
    ]


def fitted() -> gn.Sequential:
    model = gn.Sequential([gn.Dense(2)])
    model.fit(X, Y, **QUIET)
    return model


@pytest.mark.parametrize("number", range(7))
@pytest.mark.parametrize("kind", [WithArray, WithDlpack, read_only, np.asfortranarray], ids=lambda kind: kind.__name__)
def test_every_call_takes_them(kind: Callable[[Any], Any], number: int) -> None:
    call = calls(fitted())[number]
    np.testing.assert_array_equal(call(kind(X), kind(Y)), call(X, Y))


def test_a_parameter_is_an_array_to_numpy() -> None:
    parameter = gn.Sequential([gn.Dense(3)]).build((2,), device="cpu").parameters["dense1.w"]
    assert np.shares_memory(np.asarray(parameter), parameter.value)
    assert np.asarray(parameter, np.float64).dtype == np.float64
    copied = np.array(parameter)
    copied[:] = 7
    assert not (parameter.value == 7).any()


def test_memory_of_the_host_is_shared() -> None:
    for kind in (WithArray, WithDlpack):
        assert np.shares_memory(as_array(kind(X), "x"), X)


class Bfloat16:
    """Looks like a tensor that NumPy has no type for."""

    dtype = "torch.bfloat16"
    shape = (40, 3)


@pytest.mark.parametrize("number", range(7))
@pytest.mark.parametrize(
    ("x", "match"),
    [(WithDlpack(X, 8), "neither the host nor CUDA.*x.cpu"), (Bfloat16(), "x.float")],
    ids=["metal", "bfloat16"],
)
def test_what_cannot_be_reached_is_refused_in_one_line(x: Any, match: str, number: int) -> None:
    with pytest.raises(DataError, match=match) as caught:
        calls(fitted())[number](x, Y)
    one_line(caught.value)
