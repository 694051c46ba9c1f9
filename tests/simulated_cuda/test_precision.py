"""What the products of a CUDA device are computed in, against float64, on the simulated one."""

import numpy as np
import pytest

import gpunn as gn
from gpunn.backend import select
from gpunn.errors import OptionError
from simulated_cuda.core import Core

# The largest error of a product, as a share of the sum of its absolute terms: half a unit in the last place of each
# factor, and the rounding of float32 sums beside it.
BOUNDS = {"float32": 2.0**-20, "tf32": 2.0**-10, "bfloat16": 2.0**-7, "float16": 2.0**-10}


def _error(precision: str) -> float:
    backend = select("cuda", precision)
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(64, 64)).astype(np.float32) for _ in range(2))
    c = backend.zeros((64, 64), np.float32)
    backend.gemm(1.0, backend.asarray(a), backend.asarray(b), 0.0, c)
    exact = a.astype(np.float64) @ b.astype(np.float64)
    terms = np.abs(a).astype(np.float64) @ np.abs(b).astype(np.float64)
    return float(np.max(np.abs(backend.to_host(c) - exact) / terms))


def test_the_error_of_a_product_is_that_of_its_precision(cuda: Core) -> None:
    errors = {precision: _error(precision) for precision in BOUNDS}
    assert all(errors[precision] <= bound for precision, bound in BOUNDS.items())
    assert errors["float32"] < errors["tf32"] == errors["float16"] < errors["bfloat16"]


def test_a_network_learns_the_same_in_every_precision(cuda: Core) -> None:
    data = gn.Data.from_samples(gn.load_data("digits").train.first(320), validation=0)
    costs = {}
    for precision in BOUNDS:
        model = gn.Sequential([gn.Dense(16), gn.ReLU(), gn.Dense(10)])
        history = model.fit(data, epochs=3, batch_size=64, device="cuda", precision=precision, progress=False)
        costs[precision] = history[-1].train_loss
        assert all(p.value.dtype == np.float32 for p in model.parameters)
    assert costs["tf32"] != costs["float32"] != costs["bfloat16"]
    assert costs["float16"] == pytest.approx(costs["float32"], rel=0.01)
    assert costs["tf32"] == pytest.approx(costs["float32"], rel=0.01)
    assert costs["bfloat16"] == pytest.approx(costs["float32"], rel=0.05)


def test_numbers_beyond_float16_are_infinite_and_seen(cuda: Core) -> None:
    backend = select("cuda", "float16")
    c = backend.zeros((1, 1), np.float32)
    for large, finite in ((6e4, True), (7e4, False)):
        a, b = (backend.asarray(np.array([[value]], np.float32)) for value in (large, 1.0))
        backend.gemm(1.0, a, b, 0.0, c)
        assert np.isfinite(backend.to_host(c)).all() == finite


def test_the_cpu_has_one_precision() -> None:
    with pytest.raises(OptionError, match="precision 'tf32' needs a CUDA device, and this is cpu: take float32"):
        select("cpu", "tf32")


def test_an_unknown_precision_is_refused_with_those_there_are() -> None:
    with pytest.raises(OptionError, match="unknown precision 'half': expected float32, tf32, bfloat16, float16"):
        select("cpu", "half")


def test_only_products_of_float32_are_rounded(cuda: Core) -> None:
    model = gn.Sequential([gn.Dense(10)])
    with pytest.raises(OptionError, match="precision 'tf32' rounds products of float32, and the dtype is float64"):
        model.fit(gn.load_data("digits"), device="cuda", precision="tf32", dtype="float64")
