"""The loops that Numba compiles do what NumPy's passes do: every kernel that has them, and whole trainings."""

import importlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from support import kernel_cases_images  # noqa: F401 - adds its cases
from support.harness import DTYPES, assert_near, call
from support.kernel_cases import CASES

import gpunn as gn
from gpunn.backend.cpu import NumpyBackend
from gpunn.cli.doctor import diagnose
from gpunn.kernels import cores, numba_loops, registry
from gpunn.kernels.activations import relu
from gpunn.kernels.bias import with_bias

KERNELS = (
    "bias_relu", "convolve_groups", "convolve_groups_input_gradient", "convolve_groups_weight_gradient", "dropout",
    "gather", "max_pool", "max_pool_gradient", "momentum_sgd", "normalize", "normalize_gradient", "relu",
    "relu_gradient", "sgd", "softmax_cross_entropy",
)  # fmt: skip


@pytest.fixture(autouse=True)
def numba(request: pytest.FixtureRequest) -> None:
    if not numba_loops.version():
        message = "Numba is not installed, or switched off: pip install 'gpunn[numba]'"
        if os.environ.get("GPUNN_REQUIRE_ALL"):
            pytest.fail(message)
        pytest.skip(message)


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """However small the arrays are, loops; gives the names of those that were called."""
    names: set[str] = set()
    compiled = numba_loops.compiled

    def noted(body):
        names.add(body.__name__)
        return compiled(body)

    monkeypatch.setattr(numba_loops, "WORTHWHILE", 0)
    monkeypatch.setattr(numba_loops, "compiled", noted)
    return names


@pytest.mark.parametrize("n", [1, 7, 150])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", KERNELS)
def test_loops_compute_the_equation(used: set[str], name: str, dtype: str, n: int) -> None:
    for case in CASES[name](dtype, np.random.default_rng(n), n):
        after = call(NumpyBackend(), registry[name], *case.arguments)
        for at, expected in case.expected.items():
            if after[at].dtype.kind in "iu":
                np.testing.assert_array_equal(after[at], expected)
            else:
                unchanged = expected is case.arguments[at]
                assert_near(after[at], expected, ulps=0 if unchanged else 8, scale=case.scale, what=f"{name}, {at}")
    assert used


@pytest.mark.parametrize("name", KERNELS)
def test_loops_let_numbers_through_that_are_not_finite(
    used: set[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    rng = np.random.default_rng(1)
    for case in CASES[name]("float32", rng, 8):
        first = next(each for each in case.arguments if isinstance(each, np.ndarray) and each.dtype.kind == "f")
        first.flat[:: max(2, first.size // 3)] = np.nan
        first.flat[1 :: max(2, first.size // 3)] = -np.inf
        with np.errstate(all="ignore"):
            by_loops = call(NumpyBackend(), registry[name], *case.arguments)
            with monkeypatch.context() as patch:
                patch.setattr(numba_loops, "WORTHWHILE", sys.maxsize)
                by_passes = call(NumpyBackend(), registry[name], *case.arguments)
        for one, other in zip(by_loops, by_passes, strict=True):
            if isinstance(one, np.ndarray):
                # What is not finite must be seen by whoever looks; which of inf and NaN it is may differ.
                finite = np.isfinite(one)
                assert np.isfinite(other[finite]).all()
                np.testing.assert_allclose(one[finite], other[finite], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("first", [0, 1, 31, 1000])
@pytest.mark.parametrize(
    ("features", "n"), [(1, 1), (5, 1024), (5, 1025), (16, 31), (17, 2100), (300, 7), (1000, 1), (100, 128)]
)
def test_loops_drop_the_units_that_the_passes_drop(features: int, n: int, first: int) -> None:
    passes, drawn_by_loops = next(pair for pair in numba_loops.pairs if pair[0].__name__ == "_switch_off")
    x = np.arange(1, features * n + 1, dtype=np.float32).reshape(features, n)
    for seed, step, stream in ((0, 0, 0), (2**32 - 1, 2**31 - 1, 70), (7, 300_000, 1 << 16)):
        one, other = np.empty_like(x), np.empty_like(x)
        for body, y in ((passes, one), (numba_loops.compiled(drawn_by_loops), other)):
            body(x, seed, step, stream, first, np.uint16(20_000), np.float32(1.5), y)
        np.testing.assert_array_equal(one, other)


def test_every_loop_has_a_kernel_that_is_tested(used: set[str]) -> None:
    for name in KERNELS:
        for case in CASES[name]("float32", np.random.default_rng(0), 7):
            call(NumpyBackend(), registry[name], *case.arguments)
    assert used == {body.__name__ for _, body in numba_loops.pairs}


def test_small_arrays_leave_numba_alone() -> None:
    code = """
import sys
import numpy as np
import gpunn as gn
model = gn.Sequential([gn.Dense(20), gn.ReLU(), gn.Dense(3)])
x = np.random.default_rng(0).random((64, 8), np.float32)
model.fit(gn.Samples(x, np.arange(64) % 3), epochs=2, batch_size=16, device="cpu", progress=False)
assert "numba" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("epochs", "worthwhile", "uses_loops"), [(1, 2**19, False), (2, 2**19, True), (1, 4 * 20 * 16, True)]
)
def test_a_training_that_is_long_or_large_uses_loops_for_small_arrays_too(
    used: set[str], monkeypatch: pytest.MonkeyPatch, epochs: int, worthwhile: int, uses_loops: bool
) -> None:
    monkeypatch.setattr(numba_loops, "WORTHWHILE", worthwhile)
    monkeypatch.setattr(numba_loops, "LONG", 8)
    x = np.random.default_rng(0).random((64, 8), np.float32)
    samples = gn.Samples(x, np.arange(64) % 3)
    model = gn.Sequential([gn.Dense(20), gn.ReLU(), gn.Dense(3)])
    model.fit(samples, optimizer=gn.SGD(0.1), epochs=epochs, batch_size=16, device="cpu", progress=False)
    every = {"gather_rows", "bias_relu", "keep_where_positive", "softmax_cross_entropy", "sgd"}
    assert used == (every if uses_loops else set())
    used.clear()
    model.predict(x[:3])  # no longer part of it
    assert not used


@pytest.mark.parametrize("name", ["normalize", "normalize_gradient"])
def test_however_many_cores_share_an_array_its_bits_are_the_same(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The pieces of a core may be smaller than arrays that loops are worth it for; the whole array is not."""
    monkeypatch.setattr(cores, "WORTHWHILE", 2**16)
    monkeypatch.setattr(numba_loops, "WORTHWHILE", 2**16)
    rng = np.random.default_rng(0)
    x, dy = rng.random((2, 64, 512), np.float32)
    gamma, beta, mean, variance, running_mean, running_variance = rng.random((6, 64), np.float32)
    arguments = {
        "normalize": (x, gamma, beta, 1e-5, 0.1, mean, variance, running_mean, running_variance, np.empty_like(x)),
        "normalize_gradient": (dy, x, gamma, mean, variance, 1e-5, 1 / 512, *np.empty((2, 64), np.float32), dy.copy()),
    }[name]
    results = []
    for count in (1, 64):
        monkeypatch.setattr(cores, "cores", lambda count=count: count)
        results.append(call(NumpyBackend(), registry[name], *arguments))
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def test_whether_a_training_is_long_is_a_matter_of_its_thread(used: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba_loops, "WORTHWHILE", 2**19)
    b, a = np.ones((2, 1), np.float32), np.ones((2, 3), np.float32)
    with numba_loops.for_training(numba_loops.LONG, 0), ThreadPoolExecutor(1) as other:
        other.submit(with_bias[relu].forward.host, b, a).result()
        assert not used
        with_bias[relu].forward.host(b, a)
        assert used
    assert a.tolist() == [[3, 3, 3]] * 2


def test_a_training_within_another_leaves_it_as_it_was(used: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba_loops, "WORTHWHILE", 2**19)
    b, a = np.ones((2, 1), np.float32), np.ones((2, 3), np.float32)
    with numba_loops.for_training(numba_loops.LONG, 0):
        with numba_loops.for_training(1, 0):
            with_bias[relu].forward.host(b, a)
            assert not used
        with_bias[relu].forward.host(b, a)
        assert used


def test_numba_can_be_switched_off() -> None:
    code = """
from gpunn.kernels import numba_loops, updates
print(repr(numba_loops.version()), hasattr(updates.sgd.host, "__wrapped__"))
"""
    for value, expected in (("0", "'' False"), ("1", f"{numba_loops.version()!r} True")):
        environment = {**os.environ, numba_loops.OFF: value}
        done = subprocess.run([sys.executable, "-c", code], check=True, env=environment, capture_output=True, text=True)
        assert done.stdout.strip() == expected


def test_a_numba_that_cannot_be_imported_is_said_with_its_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.raises(ImportError, match=r"Numba .* cannot be used .*upgrade numba, or export GPUNN_NUMBA=0"):
        numba_loops.compiled(lambda x: None)
    (finding,) = [each for each in diagnose() if each.name == "Numba"]
    assert finding.status == "warn"
    assert "upgrade numba" in finding.mend


def test_where_nothing_can_be_written_loops_are_compiled_for_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    numba = importlib.import_module("numba")
    njit, asked = numba.njit, []

    def refusing(*, cache: bool = False, **options: object):
        asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(**options)

    def doubled(x: np.ndarray) -> None:
        for i in range(len(x)):
            x[i] *= 2

    monkeypatch.setattr(numba, "njit", refusing)
    x = np.ones(3)
    numba_loops.compiled(doubled)(x)
    assert asked == [True, False]
    assert x.tolist() == [2, 2, 2]
