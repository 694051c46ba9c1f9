"""Where parameters lie: each at a multiple of 16 bytes, with zeros between, and none of that in what others see."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.checkpoint_helpers import ORIGIN, images, outcome, stopped_after, trainer

import gpunn as gn
from gpunn.backend.base import Backend
from gpunn.saving.checkpoint import BEST, MODEL, STATE, open_checkpoint, write_checkpoint
from gpunn.saving.safetensors import Layout, read_header, read_values
from gpunn.train.trainer import Trainer

OLD = Path(__file__).parents[1] / "saving" / "of_before_gaps"
"""A checkpoint after five steps of `odd`, written by the version before parameters had gaps between them."""


def layers() -> list[gn.Layer]:
    """Sizes of 27, 3, 3, 15, 5, 3 and so on: nearly none is a multiple of four."""
    middle = [gn.Conv2D(3, size=3), gn.BatchNorm(), gn.ReLU(), gn.Flatten(), gn.Dense(5), gn.ReLU()]
    return [*middle, gn.Dense(7), gn.Tanh(), gn.Dense(3)]


def dense(*units: int) -> gn.Sequential:
    hidden = [layer for count in units for layer in (gn.Dense(count), gn.ReLU())]
    return gn.Sequential([gn.Flatten(), *hidden, gn.Dense(3)])


def odd(backend: Backend | str = "cpu", **options: Any) -> Trainer:
    usual: dict[str, Any] = {"optimizer": gn.Adam(), "regularizer": gn.L2(0.5), "epochs": 2, "average": 0.5}
    return trainer(**{"model": dense(5), "device": backend} | usual | options)


def pointer(array: Any) -> int:
    return array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr


@pytest.mark.parametrize("frozen", [(), (0,), (0, 1, 4)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_and_gradients_begin_at_multiples_of_16_bytes(
    backend: Backend, dtype: str, frozen: tuple[int, ...]
) -> None:
    model = gn.Sequential(layers())
    for number in frozen:
        model.layers[number].trainable = False
    parameters = model.build((6, 6, 1), 8, backend, dtype).parameters
    assert parameters.size == sum(p.size for p in parameters) == 3 * 9 + 3 + 6 + 5 * 48 + 5 + 7 * 5 + 7 + 3 * 7 + 3
    assert parameters.has_gaps == bool(parameters.gaps)
    for p in parameters:
        assert pointer(p.value) % 16 == 0
        assert p.is_frozen or pointer(p.grad) % 16 == 0
        assert p.place.start * parameters.values.itemsize % 16 == 0
    places = sorted((p.place for p in parameters), key=lambda place: place.start)
    assert all(one.stop <= following.start for one, following in itertools.pairwise(places))
    assert parameters.values.size <= parameters.size + (16 // parameters.values.itemsize - 1) * (len(parameters) - 1)


def test_where_no_gap_is_needed_there_is_none(backend: Backend) -> None:
    parameters = gn.Sequential([gn.Dense(8), gn.ReLU(), gn.Dense(10)]).build((4,), device=backend).parameters
    assert not parameters.has_gaps
    assert parameters.values.size == parameters.size == 4 * 8 + 8 + 8 * 10 + 10
    assert parameters.packed(parameters.gradients) is parameters.gradients


def gaps_of(model: gn.Sequential, arrays: list[Any]) -> list[NDArray[Any]]:
    p, backend = model.parameters, model.backend
    assert p.has_gaps
    assert backend is not None
    flat = [backend.to_host(array) for array in arrays if array.shape == p.gradients.shape]
    return [array[gap] for array in flat for gap in p.gaps]


class Reckless(gn.Optimizer):
    """It divides by what it finds everywhere, and so makes NaN of the zeros between parameters."""

    def __init__(self, learning_rate: float = 1e-6) -> None:
        super().__init__(learning_rate)

    def _build(self) -> None:
        self.state = {"last": self._zeros()}

    def update(self, rates: Any, clock: Any) -> None:
        with np.errstate(divide="ignore", invalid="ignore"):
            last, p = self.state["last"], self.parameters
            last[...] = p.gradients / abs(p.gradients)
            last[last != last] = 0.0
            last += 1 / (p.learned == 0)  # 1 in gaps, infinite elsewhere
            last[p.learned != 0] = 1.0
            p.learned[...] = p.learned - rates[clock[:1]] * last
            p.gradients += 1.0


OPTIMIZERS = [gn.SGD(0.1), gn.SGD(0.1, momentum=0.9), gn.Adam(), gn.AdamW(), Reckless()]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
@pytest.mark.parametrize("regularizer", [None, gn.L1(0.5), gn.L2(0.5)], ids=repr)
def test_gaps_hold_zeros_after_each_training(
    backend: Backend, optimizer: gn.Optimizer, regularizer: gn.Regularizer | None
) -> None:
    training = odd(backend, optimizer=optimizer, regularizer=regularizer, skip_bad_batches=True)
    training.run()
    assert training.history.skipped == 0
    p = training.model.parameters
    held = [p.values, p.gradients, *training.optimizer.state.values(), training.average.values]  # type: ignore[union-attr]
    found = gaps_of(training.model, held)
    assert len(found) == len(held) * len(p.gaps)
    assert all(not gap.any() for gap in found)


class Centred(gn.Optimizer):
    """p := p − η (m − mean m), m := m / 2 + g: a mean over all parameters sees each number beside them."""

    remembers = ("m",)

    def __init__(self, learning_rate: float = 0.01) -> None:
        super().__init__(learning_rate)
        self.sizes = set[tuple[int, ...]]()

    def change(self, xp: Any, values: Any, gradients: Any, rate: Any, count: Any) -> Any:
        m = self.state["m"]
        m[...] = m / 2 + gradients
        self.sizes |= {m.shape, values.shape, gradients.shape}
        return rate * (m - m.mean())


class ToMean(gn.Regularizer):
    """Its gradient and its cost ask for the mean of all weights."""

    def cost(self, weights: Any, n: float) -> float:
        return self.strength / n * float(weights.mean())

    def gradient(self, xp: Any, weights: Any, n: float) -> Any:
        return self.strength / n * (weights - weights.mean())


def test_array_code_is_given_parameters_without_gaps(backend: Backend) -> None:
    training = odd(backend, optimizer=Centred(), regularizer=ToMean(50.0), average=None, model=dense(5, 7))
    model, optimizer = training.model, training.optimizer
    before, n = model.arrays(), len(training.data.train)
    training.do_steps()
    p = model.parameters
    gradients = {each.name: backend.to_host(each.grad) for each in p}
    assert optimizer.sizes == {(p.size,)}
    g, w = (np.concatenate([some[each.name].ravel() for each in p]) for some in (gradients, before))
    changed = np.concatenate([(before[each.name] - model.arrays()[each.name]).ravel() for each in p])
    np.testing.assert_allclose(changed, 0.01 * (g - g.mean()), rtol=1e-3, atol=1e-6)
    weights = np.concatenate([before[each.name].ravel() for each in p if each.weight_decay])
    plain = odd(backend, optimizer=Centred(), regularizer=None, average=None, model=dense(5, 7))
    plain.do_steps()
    gained = [gradients[each.name] - backend.to_host(plain.model.parameters[each.name].grad) for each in p]
    penalty = np.concatenate([some.ravel() for some, each in zip(gained, p, strict=True) if each.weight_decay])
    np.testing.assert_allclose(penalty, 50.0 / n * (weights - weights.mean()), rtol=1e-3, atol=1e-5)
    assert w.size > weights.size == p.weights == 36 * 5 + 5 * 7 + 7 * 3
    record = training.run()[-1]
    weights = np.concatenate([model.arrays()[each.name].ravel() for each in p if each.weight_decay])
    assert record.penalty == pytest.approx(50.0 / n * weights.mean(), rel=1e-4)


# Checkpoints


def held_in(path: Path) -> tuple[Layout, dict[str, NDArray[Any]]]:
    with path.open("rb") as file:
        _, layout = read_header(file, 1 << 20)
        return layout, read_values(file, layout, path.name)


def test_a_checkpoint_of_before_loads_and_is_written_again_alike(backend: Backend, tmp_path: Path) -> None:
    training = odd(backend)
    training.restore(open_checkpoint(OLD).state(training.state()))
    assert training.done == 5
    _, arrays = held_in(OLD / STATE)
    p = training.model.parameters
    for name, flat in training.optimizer.state.items():
        held, start = backend.to_host(flat), 0
        assert held.shape == p.gradients.shape > arrays[f"optimizer/{name}"].shape
        for each in sorted(p, key=lambda each: not each.weight_decay):  # as they lay end to end
            old = arrays[f"optimizer/{name}"][start : start + each.size]
            np.testing.assert_array_equal(held[each.place], old)
            start += each.size
    write_checkpoint(tmp_path / "step", training.state(), ORIGIN, training.model)
    for name in (MODEL, BEST, STATE):
        (layout, old), (again, now) = held_in(OLD / name), held_in(tmp_path / "step" / name)
        assert layout == again
        assert {name: array.tobytes() for name, array in old.items()} == {n: a.tobytes() for n, a in now.items()}
    training.run()
    assert training.done == training.steps


@pytest.mark.parametrize("optimizer", [*OPTIMIZERS, Centred()], ids=repr)
def test_a_training_with_gaps_goes_on_to_the_same_bits(
    backend: Backend, optimizer: gn.Optimizer, tmp_path: Path
) -> None:
    whole, first, second = (odd(backend, optimizer=optimizer) for _ in range(3))
    whole.run()
    write_checkpoint(tmp_path / "step", stopped_after(first, 7), ORIGIN, first.model)
    second.restore(open_checkpoint(tmp_path / "step").state(second.state()))
    second.run()
    assert outcome(second) == outcome(whole)


def test_what_the_optimizer_remembers_follows_the_parameters_by_name(backend: Backend) -> None:
    """A second training continues from the first one's memory, and one of another dtype has other gaps."""
    optimizer, model = gn.Adam(), dense(5)
    for dtype in ("float32", "float64", "float32"):
        model.fit(images(), optimizer=optimizer, epochs=1, batch_size=16, device=backend, dtype=dtype, progress=False)
        memory = model.optimizer_memory
        assert memory is not None
        for parts in memory.arrays.values():
            assert {name: part.size for name, part in parts.items()} == {p.name: p.size for p in model.parameters}
            assert all(part.any() for part in parts.values())
