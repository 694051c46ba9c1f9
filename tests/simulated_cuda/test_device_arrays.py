"""Arrays of the device given to a network: they stay there, and give what the same numbers of the host give."""

from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.data.device_inputs import DeviceInputs
from gpunn.errors import DataError, GpunnError
from simulated_cuda.core import Core

pytestmark = pytest.mark.simulated_cuda

N, FEATURES = 3000, 20  # more than a training looks at to describe its inputs
X = np.random.default_rng(0).normal(size=(N, FEATURES)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)
QUIET: dict[str, Any] = {"epochs": 1, "device": "cuda", "progress": False, "batch_size": 500}


class Copies:
    """The bytes of all arrays that go from the device to the host, and the other way."""

    def __init__(self) -> None:
        self.to_host, self.to_device = list[int](), list[int]()


@pytest.fixture
def copies(cuda: Core, monkeypatch: pytest.MonkeyPatch) -> Copies:
    counted, cupy = Copies(), cuda.cupy
    asnumpy, asarray = cupy.asnumpy, cupy.asarray

    def counting_asnumpy(array: Any, *arguments: Any, **options: Any) -> Any:
        counted.to_host.append(array.nbytes)
        return asnumpy(array, *arguments, **options)

    def counting_asarray(values: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(values, np.ndarray):
            counted.to_device.append(values.nbytes)
        return asarray(values, *arguments, **options)

    monkeypatch.setattr(cupy, "asnumpy", counting_asnumpy)
    monkeypatch.setattr(cupy, "asarray", counting_asarray)
    return counted


def network() -> gn.Sequential:
    return gn.Sequential([gn.Dense(8), gn.ReLU(), gn.Dense(2)])


class Interface:
    """A tensor of another library, which has CUDA's array interface and nothing else."""

    def __init__(self, array: Any) -> None:
        self.kept, self.__cuda_array_interface__ = array, array.__cuda_array_interface__


class Dlpack:
    """A tensor of another library, which has DLPack and nothing else."""

    def __init__(self, array: Any) -> None:
        self.kept = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.kept.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.kept.__dlpack_device__()


@pytest.mark.parametrize("kind", [lambda x: x, Interface, Dlpack], ids=["cupy", "interface", "dlpack"])
def test_inputs_of_a_prediction_stay_on_the_device(cuda: Core, copies: Copies, kind: Any) -> None:
    model = network()
    model.fit(X, Y, **QUIET)
    expected, given = model.predict_proba(X), kind(cuda.cupy.asarray(X))
    copies.to_host.clear()
    copies.to_device.clear()
    answers = model.predict_proba(given)
    assert isinstance(answers, np.ndarray)
    np.testing.assert_array_equal(answers, expected)
    assert sum(copies.to_host) == answers.nbytes + 8  # and least and largest number
    assert not copies.to_device
    np.testing.assert_array_equal(model.predict(given), model.predict(X))
    few = kind(cuda.cupy.asarray(X[:5]))
    np.testing.assert_array_equal(cuda.cupy.asnumpy(model.forward(few)), cuda.cupy.asnumpy(model.forward(X[:5])))


@pytest.mark.parametrize("kind", [lambda x: x, Interface, Dlpack], ids=["cupy", "interface", "dlpack"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "int32", "int16"])
@pytest.mark.parametrize("validation", [True, False], ids=["held", "split"])
def test_a_training_is_that_of_the_same_numbers_on_the_host(
    cuda: Core, copies: Copies, kind: Any, dtype: str, validation: bool
) -> None:
    x = (X * 20 + 100).clip(0, 255).astype(dtype) if "int" in dtype else X.astype(dtype)
    one, other = network(), network()
    held: dict[str, Any] = {"validation_data": (x[:60], Y[:60])} if validation else {}
    one.fit(x, Y, **QUIET, **held)
    figures = one.evaluate(x, Y)
    given = kind(cuda.cupy.asarray(x))
    held = {"validation_data": (kind(cuda.cupy.asarray(x[:60])), Y[:60])} if validation else {}
    copies.to_host.clear()
    copies.to_device.clear()
    other.fit(given, Y, **QUIET, **held)
    for name, value in one.arrays().items():
        np.testing.assert_array_equal(value, other.arrays()[name], err_msg=name)
    assert other.trained_on == one.trained_on
    assert repr(other.evaluate(given, Y)) == repr(figures)
    # Weights and figures come and go, and the rows by which the inputs are described, but never all samples.
    largest = 1024 * FEATURES * {"uint8": 1, "float64": 8}.get(dtype, 4)
    assert max(copies.to_device + copies.to_host) <= largest


def test_images_stay_there_too(cuda: Core, copies: Copies) -> None:
    x = np.random.default_rng(1).integers(0, 256, (600, 12, 12, 3), dtype=np.uint8)
    y = np.arange(600) % 2
    one, other = (gn.Sequential([gn.Conv2D(2, 3, 3), gn.ReLU(), gn.Flatten(), gn.Dense(2)]) for _ in range(2))
    one.fit(x, y, **QUIET)
    given = cuda.cupy.asarray(x)
    copies.to_device.clear()
    other.fit(given, y, **QUIET)
    assert max(copies.to_device) < x.nbytes / 4
    np.testing.assert_array_equal(one.predict_proba(x), other.predict_proba(given))
    np.testing.assert_array_equal(one.predict_proba(x), one.predict_proba(given.reshape(600, -1)))


def test_a_network_on_the_cpu_takes_them_over_the_host(cuda: Core) -> None:
    one, other, given = network(), network(), cuda.cupy.asarray(X)
    one.fit(X, Y, **{**QUIET, "device": "cpu"})
    other.fit(given, Y, **{**QUIET, "device": "cpu"})
    for ask in (lambda x: one.predict_proba(x), lambda x: one.forward(x[:9]), lambda x: other.predict_proba(x)):
        np.testing.assert_array_equal(ask(given), ask(X))
    assert repr(one.evaluate(given, Y)) == repr(other.evaluate(X, Y))


def test_samples_of_a_device_are_samples(cuda: Core) -> None:
    data = gn.Data.from_arrays(cuda.cupy.asarray(X), Y)
    twin = gn.Data.from_arrays(X, Y)
    assert isinstance(data.train.inputs, DeviceInputs)
    assert data.train.sha256() == twin.train.sha256()
    assert repr(data) == repr(twin)
    pairs = [(each.train.subset([3, 1]), each.train.first(5)) for each in (data, twin)]
    for some, same in zip(*pairs, strict=True):
        np.testing.assert_array_equal(np.asarray(some.inputs), same.inputs)
    with pytest.raises(DataError, match="out of range"):
        data.train.subset([N])


@pytest.mark.parametrize(
    ("x", "match"),
    [
        (np.where(np.arange(N * FEATURES).reshape(N, -1) == 45, np.nan, X), "NaN in sample 2 at position"),
        (X.astype(np.complex64), "numbers"),
        (X[:, :3], "shape|inputs"),
        (X * 1e6, "reach"),
    ],
    ids=["nan", "complex", "features", "range"],
)
def test_what_cannot_be_is_refused_as_on_the_host(cuda: Core, x: Any, match: str) -> None:
    model = network()
    model.fit(X, Y, **QUIET)
    for call in (model.predict, lambda x: model.evaluate(x, Y)):
        with pytest.raises(GpunnError, match="NaN" if match.startswith("NaN") else match) as caught:
            call(cuda.cupy.asarray(x))
        assert "\n" not in str(caught.value)


def test_parameters_are_given_without_a_copy(cuda: Core) -> None:
    model = network()
    model.fit(X, Y, **QUIET)
    parameter = model.parameters["dense1.w"]
    shared = cuda.cupy.from_dlpack(parameter)
    assert shared.data.ptr == parameter.value.data.ptr
    output = model.forward(X[:3])
    assert cuda.cupy.from_dlpack(output).data.ptr == output.data.ptr
