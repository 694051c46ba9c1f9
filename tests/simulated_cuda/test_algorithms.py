"""Algorithms of cublasLt: asked for once, recorded in checkpoints, used again; sums in parts have the same bits."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.checkpoint_helpers import ORIGIN, outcome, stopped_after, trainer

import gpunn as gn
from gpunn.backend import cublas
from gpunn.backend.algorithms import ITSELF, PARTS, SCHEME, decode, encode
from gpunn.backend.cublas import Cublas
from gpunn.backend.cuda import CupyBackend
from gpunn.cli.doctor import diagnose
from gpunn.saving.checkpoint import ALGORITHMS, Checkpoint, open_checkpoint, write_checkpoint
from gpunn.saving.checkpointer import restore_training
from gpunn.train.trainer import Trainer
from simulated_cuda.core import LATE, Core

pytestmark = pytest.mark.simulated_cuda
ASKED, DONE, ITS_OWN = "cublasLtMatmulAlgoGetHeuristic", "cublasLtMatmul", "cublasGemmEx"


@pytest.fixture
def backend(cuda: Core) -> CupyBackend:
    """Another one for each test, which has chosen nothing yet."""
    return CupyBackend(0)


def factors(backend: CupyBackend, m: int, k: int, n: int, dtype: Any = np.float32, off: int = 0) -> tuple[Any, ...]:
    """a, b and c on the device, `off` numbers beside where memory begins, and a b on the host."""
    rng, arrays = np.random.default_rng(m * k * n + off), []
    a, b = rng.normal(size=(m, k)), rng.normal(size=(k, n))
    for host in (a, b, np.zeros((m, n))):
        flat = backend.zeros((off + host.size,), dtype)
        backend.assign(flat[off:], host.ravel())
        arrays.append(flat[off:].reshape(host.shape))
    return *arrays, a @ b


def chosen(backend: CupyBackend) -> dict[tuple[int, ...], tuple[int, ...]]:
    return decode(backend.algorithms())[1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("off", [0, 1, 2])
@pytest.mark.parametrize(
    "sizes", [(3, 5, 7), (64, 64, 64), (10, 784, 32), (1, 1, 1), (1, 700, 9), (9, 700, 1)], ids=str
)
def test_products_are_right_wherever_their_memory_begins(
    backend: CupyBackend, sizes: tuple[int, int, int], off: int, dtype: Any
) -> None:
    a, b, c, expected = factors(backend, *sizes, dtype, off)
    kept = backend.asarray(np.asfortranarray(backend.to_host(b)).T.copy()).T  # b, with its columns contiguous
    for second in (b, kept):
        backend.gemm(2.0, a, second, 0.0, c)
        backend.gemm(1.0, a, second, 0.5, c)
        tolerance = 1e-12 if dtype == np.float64 else 1e-4
        np.testing.assert_allclose(backend.to_host(c), 2 * expected, rtol=tolerance, atol=tolerance)
    assert backend.cublas.trouble == ""


def test_cublaslt_is_asked_once_for_each_layout(backend: CupyBackend, cuda: Core) -> None:
    a, b, c, _ = factors(backend, 8, 12, 16)
    for _ in range(3):
        backend.gemm(1.0, a, b, 0.0, c)
    assert cuda.counts(ASKED, DONE, ITS_OWN) == {ASKED: 1, DONE: 3}
    backend.gemm(1.0, a[:4], b, 0.0, c[:4])
    assert cuda.count(ASKED) == 2
    backend.gemm(1.0, a[:, :4], b[:4], 0.0, c)  # another leading dimension
    assert cuda.count(ASKED) == 3
    replay = backend.capture(lambda: backend.gemm(1.0, a, b, 0.0, c))
    replay()
    assert cuda.count(ASKED) == 3


def test_an_algorithm_is_chosen_for_what_memory_begins_at(backend: CupyBackend) -> None:
    for off in (0, 4, 1):
        a, b, c, _ = factors(backend, 8, 12, 16, off=off)
        backend.gemm(1.0, a, b, 0.0, c)
    assert {key[-3:]: config[0] for key, config in chosen(backend).items()} == {(16, 16, 16): 20, (4, 4, 4): 7}


@pytest.mark.parametrize(
    ("sizes", "parts"), [((10, 784, 32), 4), ((100, 600, 60), 2), ((10, 200, 32), 1), ((300, 784, 60), 1)], ids=str
)
def test_long_sums_of_few_tiles_are_cut_and_added_up_in_their_order(
    backend: CupyBackend, cuda: Core, sizes: tuple[int, int, int], parts: int
) -> None:
    a, b, c, expected = factors(backend, *sizes)
    seen = set()
    for order in (cuda.order, LATE, 5, 6):
        cuda.set_order(order)
        backend.gemm(1.0, a, b, 0.0, c)
        seen.add(backend.to_host(c).tobytes())
        replay = backend.capture(lambda: backend.gemm(1.0, a, b, 0.0, c))
        backend.assign(c, 0.0)
        replay()
        seen.add(backend.to_host(c).tobytes())
    assert len(seen) == 1
    np.testing.assert_allclose(backend.to_host(c), expected, rtol=1e-4, atol=1e-4)
    assert cuda.count("products in parts") == (8 if parts > 1 else 0)
    assert [config[PARTS : SCHEME + 1] for config in chosen(backend).values()] == [(parts, 2 if parts > 1 else 0)]


# Recorded and repeated


def test_a_record_is_repeated_even_where_another_would_be_chosen(backend: CupyBackend) -> None:
    a, b, c, _ = factors(backend, 10, 784, 32)
    backend.gemm(1.0, a, b, 0.0, c)
    cut, ((key, config),) = backend.to_host(c), chosen(backend).items()
    environment = decode(backend.algorithms())[0]
    plain, other_stages = (3, 15, 1, 0, 0, 0, 0, 0, 0), (7, 15, 3, 2, 1, 0, 5, 4, 2)  # found, and made from nothing
    for recorded in (plain, other_stages, ITSELF, config):
        assert backend.repeat(encode(environment, {key: recorded})) == ""
        backend.gemm(1.0, a, b, 0.0, c)
        assert chosen(backend) == {key: recorded}
        assert (backend.to_host(c).tobytes() == cut.tobytes()) == (recorded == config)
    other = CupyBackend(0)
    assert other.repeat(backend.algorithms()) == ""
    other.gemm(1.0, a, b, 0.0, c)
    assert backend.to_host(c).tobytes() == cut.tobytes()
    assert other.algorithms() == backend.algorithms()


@pytest.mark.parametrize(
    "recorded", [(20, 15, 1, 0, 0, 0, 0, 0, 0), (99, 15, 1, 0, 0, 0, 0, 0, 0), (3, 15, 4, 2, 0, 0, 0, 0, 0)], ids=str
)
def test_a_recorded_algorithm_that_cannot_do_the_product_is_not_used(
    backend: CupyBackend, caplog: pytest.LogCaptureFixture, recorded: tuple[int, ...]
) -> None:
    """Here 20 reads 16 bytes at once, and memory begins at 4; there is no 99; and 3 cuts no sums."""
    a, b, c, expected = factors(backend, 10, 784, 32, off=1)
    backend.gemm(1.0, a, b, 0.0, c)
    ((key, config),) = chosen(backend).items()
    assert backend.repeat(encode(backend.cublas.environment, {key: recorded})) == ""
    with caplog.at_level(logging.WARNING):
        backend.gemm(1.0, a, b, 0.0, c)
    assert "the recorded algorithm of a product of 10×784 by 784×32 is not available here" in caplog.text
    assert chosen(backend) == {key: config}
    np.testing.assert_allclose(backend.to_host(c), expected, rtol=1e-4, atol=1e-4)


def training(backend: CupyBackend, **options: Any) -> Trainer:
    """Its first product has one tile and a long sum: it is cut."""
    rng = np.random.default_rng(2)
    labels = np.arange(60) % 3
    x = (rng.normal(size=(60, 600)) + labels[:, None]).astype(np.float32)
    model = gn.Sequential([gn.Dense(9), gn.ReLU(), gn.Dense(3)])
    data = gn.Data.from_arrays(x, labels, validation=0.2)
    return trainer(data, model, device=backend, epochs=2, optimizer=gn.SGD(0.01), **options)


def recorded(folder: Path, backend: CupyBackend) -> Checkpoint:
    first = training(backend)
    write_checkpoint(folder / "step", stopped_after(first, 3), ORIGIN, first.model)
    return open_checkpoint(folder / "step")


def test_a_run_that_goes_on_computes_by_the_recorded_algorithms(cuda: Core, tmp_path: Path) -> None:
    first, second, said = CupyBackend(0), CupyBackend(0), list[str]()
    checkpoint = recorded(tmp_path, first)
    text = checkpoint.origin.versions[ALGORITHMS]
    assert text == first.algorithms()
    assert any(config[PARTS] > 1 for config in decode(text)[1].values())
    whole, rest = training(CupyBackend(0)), training(second)
    whole.run()
    restore_training(rest, checkpoint, said.append)
    rest.run()
    assert outcome(rest) == outcome(whole)
    assert not [line for line in said if "algorithms" in line]
    assert decode(second.algorithms())[1].items() >= decode(text)[1].items()


def without_cutting(text: str) -> str:
    """A record by which no sum is cut, as one of another time might be."""
    environment, configs = decode(text)
    return encode(environment, dict.fromkeys(configs, (3, 15, 1, 0, 0, 0, 0, 0, 0)))


@pytest.mark.parametrize(
    ("change", "library", "expected"),
    [
        (lambda text: text, "version", "those recorded are of simulated device, 4 multiprocessors, cublasLt 130001"),
        (lambda text: text.replace("simulated device", "NVIDIA X"), "", "those recorded are of NVIDIA X"),
        (lambda text: "", "", "none are recorded"),
        (lambda text: text + "; 1=2", "", "their record cannot be read"),
        (without_cutting, "", ""),
    ],
    ids=["another version", "another GPU", "of before", "damaged", "the same"],
)
def test_a_run_that_goes_on_elsewhere_says_in_a_line_that_algorithms_are_chosen_anew(
    cuda: Core,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[str], str],
    library: str,
    expected: str,
) -> None:
    checkpoint, said = recorded(tmp_path, CupyBackend(0)), list[str]()
    versions = checkpoint.origin.versions
    changed = replace(checkpoint.origin, versions={**versions, ALGORITHMS: change(versions[ALGORITHMS])})
    monkeypatch.setenv("FAKECUDA_LT", library)
    backend = CupyBackend(0)
    rest = training(backend)
    cuda.reset()
    restore_training(rest, replace(checkpoint, origin=changed), said.append)
    rest.run()
    lines = [line for line in said if "algorithms" in line]
    beginning = f"not the same to the last bit: algorithms of products are chosen anew: {expected}"
    assert [line.startswith(beginning) for line in lines] == ([True] if expected else [])
    cuda.set_order(cuda.order)
    assert bool(cuda.count("products in parts")) == bool(expected)


# Where cublasLt is of no use


@pytest.mark.parametrize(
    ("library", "what"),
    [
        ("none", "cublasLt knows no algorithm for a product"),
        ("refuse", "cublasLt refused an algorithm of its own"),
    ],
)
def test_cublas_chooses_itself_where_cublaslt_knows_nothing_and_that_is_said_once(
    cuda: Core, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, library: str, what: str
) -> None:
    monkeypatch.setenv("FAKECUDA_LT", library)
    backend = CupyBackend(0)
    a, b, c, expected = factors(backend, 10, 784, 32)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            backend.gemm(1.0, a, b, 0.0, c)
            backend.gemm(1.0, b.T, a.T, 0.0, backend.zeros((32, 10), np.float32))
    np.testing.assert_allclose(backend.to_host(c), expected, rtol=1e-4, atol=1e-4)
    assert cuda.count(ITS_OWN) == 6
    assert cuda.count(ASKED) == 2
    assert caplog.text.count("cuBLAS chooses algorithms of products itself") == 1
    assert backend.cublas.trouble.startswith(what)
    assert set(chosen(backend).values()) == {ITSELF}
    assert what in backend.cublas.by


def test_without_cublaslt_cublas_chooses_and_the_doctor_shows_it(
    cuda: Core, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def absent(*_: Any) -> None:
        raise RuntimeError("cublasLt is not here")

    monkeypatch.setattr(cublas, "CublasLt", absent)
    with caplog.at_level(logging.WARNING):
        backend = CupyBackend(0)
    a, b, c, expected = factors(backend, 10, 784, 32)
    backend.gemm(1.0, a, b, 0.0, c)
    np.testing.assert_allclose(backend.to_host(c), expected, rtol=1e-4, atol=1e-4)
    assert cuda.counts(ASKED, DONE, ITS_OWN) == {ITS_OWN: 1}
    assert caplog.text.count("cublasLt cannot be used (RuntimeError: cublasLt is not here)") == 1
    assert "cuBLAS itself, float32" in backend.algorithms()
    assert backend.repeat(CupyBackend(0).algorithms()) == ""
    monkeypatch.setattr("gpunn.backend.devices._backend", lambda *_: backend)
    (product,) = [finding for finding in diagnose() if finding.name == "product"]
    assert product.value.startswith("right, by algorithms of cuBLAS itself; cublasLt cannot be used")


def test_the_doctor_says_who_chooses(cuda: Core) -> None:
    (product,) = [finding for finding in diagnose() if finding.name == "product"]
    assert product.value == "right, by algorithms of cublasLt 130001"


def test_plans_are_forgotten_where_there_are_too_many(
    backend: CupyBackend, cuda: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cublas, "_MOST_PLANS", 3)
    for n in (1, 2, 3, 1, 4, 1):  # 2 was used longest ago
        a, b, c, expected = factors(backend, 4, 8, n)
        backend.gemm(1.0, a, b, 0.0, c)
        np.testing.assert_allclose(backend.to_host(c), expected, rtol=1e-4, atol=1e-5)
    assert [key[3] for key in chosen(backend)] == [3, 4, 1]
    assert cuda.count("cublasLtMatmulDescCreate") - cuda.count("cublasLtMatmulDescDestroy") == 3
    assert cuda.count("cublasLtMatrixLayoutCreate") - cuda.count("cublasLtMatrixLayoutDestroy") == 9


def test_each_precision_has_its_own_algorithms(backend: CupyBackend) -> None:
    other = backend.in_precision("tf32")
    assert isinstance(other.cublas, Cublas)
    assert backend.cublas.environment.endswith("float32")
    assert other.cublas.environment.endswith("tf32")
    assert other.repeat(backend.algorithms()).startswith("those recorded are of simulated device")
