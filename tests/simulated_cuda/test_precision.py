"""What the products of a CUDA device are computed in, on the simulated one; their errors are bounded in test_gpu.py."""

import numpy as np
import pytest
from backend.test_gpu import error_of_a_product

import gpunn as gn
from gpunn.backend.devices import PRECISIONS, select
from gpunn.errors import OptionError
from simulated_cuda.core import Core


def test_the_error_of_a_product_tells_precisions_apart(cuda: Core) -> None:
    errors = {precision: error_of_a_product(select("cuda"), precision) for precision in PRECISIONS}
    assert errors["float32"] < errors["tf32"] == errors["float16"] < errors["bfloat16"]


def test_a_network_learns_the_same_in_every_precision(cuda: Core) -> None:
    data = gn.Data.from_samples(gn.load_data("digits").train.first(320), validation=0)
    costs = {}
    for precision in PRECISIONS:
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


def test_only_products_of_float32_are_rounded(cuda: Core) -> None:
    model = gn.Sequential([gn.Dense(10)])
    with pytest.raises(OptionError, match="precision 'tf32' rounds products of float32, and the dtype is float64"):
        model.fit(gn.load_data("digits"), device="cuda", precision="tf32", dtype="float64")
