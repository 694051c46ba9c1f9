"""Layers within layers: chains, residual connections and branches side by side are full parts of a network."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.harness import central_differences, one_line, relative_error

from gpunn import (
    AveragePool2D,
    BatchNorm,
    Chain,
    Concatenate,
    Conv2D,
    Data,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool2D,
    LayerNorm,
    MaxPool2D,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    Softmax,
    Softplus,
    Tanh,
    load_model,
)
from gpunn.backend.base import Backend
from gpunn.config import to_config
from gpunn.errors import DivergenceError, GpunnError, OptionError
from gpunn.nn.footprint import count_network
from gpunn.nn.layers import Layer
from gpunn.nn.layers.dense import BiasActivation

H = 1e-5


def built(layers: list[Layer], shape: tuple[int, ...], backend: Backend | str = "cpu", seed: int = 0) -> Sequential:
    return Sequential(layers).build(shape, 8, backend, "float64", seed)


def check_gradients(model: Sequential, x: NDArray[Any], rng: np.random.Generator, training: bool = True) -> None:
    """Back-propagation gives the central differences of the loss by every parameter."""
    backend = model.backend
    assert backend is not None
    t = rng.normal(size=(len(x), int(np.prod(model.output_shape))))

    def cost() -> float:
        y = backend.to_host(model.forward(x, training))
        return float(0.5 * ((y.reshape(len(x), -1) - t) ** 2).sum())

    y = backend.to_host(model.forward(x, training))
    dy = (y.reshape(len(x), -1) - t).reshape(y.shape)
    steps = model.steps_trained
    model.backward(backend.asarray(dy))
    model.count_on(model.epochs_trained, steps)  # the same units are dropped out
    gradients = {p.name: backend.to_host(p.grad) for p in model.parameters if p.grad is not None}
    for p in model.parameters:
        if p.grad is None:
            continue
        values = backend.to_host(p.value)

        def at(p: Any = p, values: NDArray[Any] = values) -> float:
            backend.assign(p.value, values)
            return cost()

        numeric = central_differences(at, values, H)
        noise = 64 * np.finfo(np.float64).eps * max(1.0, abs(at())) / H
        if np.abs(numeric - gradients[p.name]).max() > noise:
            assert relative_error(gradients[p.name], numeric) <= 1e-6, p.name


IMAGES: dict[str, Callable[[], list[Layer]]] = {
    "identity": lambda: [Conv2D(3, 3), Residual([Tanh(), Conv2D(3, 3, padding="same")]), Tanh(), Flatten(), Dense(2)],
    "first": lambda: [Residual([Conv2D(2, 3, padding="same"), Sigmoid()]), GlobalAveragePool2D(), Dense(2)],
    "last": lambda: [Conv2D(3, 3), Tanh(), Residual([Conv2D(3, 1), Tanh()])],
    "projection": lambda: [
        Conv2D(3, 2), Tanh(), Residual([Conv2D(4, 3, 2, "same"), BatchNorm(), Tanh(), Conv2D(4, 3, padding=1)]), Tanh(),
        GlobalAveragePool2D(), Dense(2),
    ],
    "own projection": lambda: [
        Conv2D(3, 2), Residual([Tanh(), Conv2D(2, 3)], [AveragePool2D(3, 1), Conv2D(2, 1), BatchNorm()]), Flatten(),
        Dense(2),
    ],
    "nothing but dropout": lambda: [Conv2D(3, 3), Tanh(), Residual([Dropout(0.4)]), Tanh(), Flatten(), Dense(2)],
    "ends in dropout": lambda: [Conv2D(3, 3), Residual([Conv2D(3, 1), Tanh(), Dropout(0.4)]), Flatten(), Dense(2)],
    "alias with a projection": lambda: [
        Conv2D(3, 3), Residual([Dropout(0.3)], Conv2D(3, 1)), Tanh(), Flatten(), Dense(2),
    ],
    "two in a row": lambda: [
        Conv2D(3, 3), Residual([Conv2D(3, 1), Tanh()]), Residual([Tanh(), Conv2D(3, 1)]), Flatten(), Dense(2),
    ],
    "within each other": lambda: [
        Conv2D(3, 3),
        Residual([Residual([Conv2D(3, 1), Sigmoid()]), Tanh(), Concatenate([], [Conv2D(2, 1)]), Conv2D(3, 1)]),
        GlobalAveragePool2D(), Dense(2),
    ],
    "side by side": lambda: [
        Conv2D(3, 3), Tanh(), Concatenate([Conv2D(2, 1), Tanh()], [MaxPool2D(3, 1), Conv2D(3, 3, padding=2)], []),
        Tanh(), Flatten(), Dense(2),
    ],
    "side by side, last": lambda: [Conv2D(3, 3), Concatenate([Conv2D(2, 1), Tanh()], [Dropout(0.4)], [Sigmoid()])],
    "side by side, first": lambda: [Concatenate([Conv2D(2, 1)], [Tanh()], [LayerNorm()]), Flatten(), Dense(2)],
    "chains": lambda: [
        Chain([Conv2D(3, 3), Chain([Tanh(), MaxPool2D(2)])]), Chain([Flatten(), Dense(4), Chain([Tanh()])]),
    ],
}  # fmt: skip
FEATURES: dict[str, Callable[[], list[Layer]]] = {
    "identity": lambda: [Dense(4), Residual([Dense(4), Tanh(), Dense(4)]), Tanh(), Dense(2)],
    "projection": lambda: [Dense(4), Tanh(), Residual([Dense(3), Tanh()]), Dense(2)],
    "first": lambda: [Residual([LayerNorm(), Dense(5), Tanh(), Dense(5)]), Dense(2)],
    "softmax last": lambda: [Dense(4), Residual([Tanh(), Dense(4)]), Softmax()],
    "side by side": lambda: [Concatenate([Dense(3), Tanh()], [], [Dense(2), Softplus()]), Dense(2)],
    "batches": lambda: [Dense(4), Residual([BatchNorm(), Tanh(), Dense(4), BatchNorm()]), Dense(2)],
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", IMAGES)
def test_back_propagation_through_branches_of_images(backend: Backend, name: str, training: bool) -> None:
    rng = np.random.default_rng(3)
    check_gradients(built(IMAGES[name](), (6, 5, 2), backend), rng.normal(size=(4, 6, 5, 2)), rng, training)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", FEATURES)
def test_back_propagation_through_branches_of_features(backend: Backend, name: str, training: bool) -> None:
    rng = np.random.default_rng(4)
    check_gradients(built(FEATURES[name](), (5,), backend), rng.normal(size=(6, 5)), rng, training)


def _layers_of(draw: Any, depth: int, width: int) -> list[Layer]:
    """Layers that keep a shape of `width` features, some of them with others within."""
    made: list[Layer] = []
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.integers(0, 9 if depth else 6))
        if kind <= 2:
            made.append(Dense(width, bias=draw(st.sampled_from([0.0, False]))))
        elif kind <= 6:
            made.append([Tanh(), BatchNorm(0.1), Dropout(0.3), Sigmoid()][kind - 3])
        elif kind == 7:
            made.append(Chain(_layers_of(draw, depth - 1, width)))
        elif kind == 8:
            given_projection = draw(st.sampled_from([None, Dense(width), [Tanh(), Dense(width)]]))
            made.append(Residual(_layers_of(draw, depth - 1, width), given_projection))
        else:
            branches = [_layers_of(draw, depth - 1, width) for _ in range(draw(st.integers(1, 2)))]
            made += [Concatenate([], *branches), Dense(width)]
    return made


@settings(deadline=None, max_examples=40)
@given(data=st.data(), seed=st.integers(0, 999), frozen=st.booleans())
def test_back_propagation_through_branches_of_any_kind(data: st.DataObject, seed: int, frozen: bool) -> None:
    rng = np.random.default_rng(seed)
    layers = [Dense(3), *_layers_of(data.draw, 2, 3), Dense(2)]
    layers[0].trainable = not frozen
    check_gradients(built(layers, (4,), seed=seed), rng.normal(size=(5, 4)), rng)


def test_a_residual_connection_adds_its_inputs_and_a_projection_is_a_convolution() -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(3, 6, 5, 2))
    model = built([Residual([Conv2D(4, 3, 2, "same", bias=0.5)])], (6, 5, 2))
    w, p = model.parameters["residual1.conv1.w"].value, model.parameters["residual1.projection.w"].value
    f = built([Conv2D(4, 3, 2, "same", bias=0.5)], (6, 5, 2))
    f.parameters.load({"conv1.w": w, "conv1.b": np.full(4, 0.5)})
    by_hand = np.einsum("nijc,fc->nijf", x[:, ::2, ::2], p[:, :, 0, 0])
    np.testing.assert_allclose(model.forward(x), f.forward(x) + by_hand, rtol=1e-12, atol=1e-12)
    same = built([Residual([Conv2D(2, 1)])], (6, 5, 2))
    assert [p.name for p in same.parameters] == ["residual1.conv1.w", "residual1.conv1.b"]
    w = same.parameters[0].value[:, :, 0, 0]
    np.testing.assert_allclose(same.forward(x), x + np.einsum("nijc,fc->nijf", x, w), rtol=1e-12, atol=1e-12)


def test_branches_stand_side_by_side_in_their_order() -> None:
    x = np.random.default_rng(6).normal(size=(3, 4, 5, 2))
    y = built([Concatenate([Tanh()], [], [MaxPool2D(1)])], (4, 5, 2)).forward(x)
    np.testing.assert_array_equal(y, np.concatenate([np.tanh(x), x, x], axis=3))
    rows = np.random.default_rng(7).normal(size=(3, 4))
    y = built([Concatenate([], [Sigmoid()])], (4,)).forward(rows)
    np.testing.assert_allclose(y, np.concatenate([rows, 1 / (1 + np.exp(-rows))], axis=1), rtol=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_chain_is_to_the_bit_what_its_layers_are_without_it(backend: Backend, dtype: str) -> None:
    def plain() -> list[Layer]:
        return [Conv2D(4, 3), ReLU(), MaxPool2D(2), Dropout(0.3), Flatten(), Dense(6), Tanh(), Dense(3)]

    rng = np.random.default_rng(8)
    data = Data.from_arrays(rng.normal(size=(60, 8, 8, 1)), rng.integers(0, 3, 60))
    options: dict[str, Any] = {"epochs": 2, "batch_size": 16, "device": backend, "dtype": dtype, "progress": False}
    a = Sequential(plain())
    a.fit(data, **options)
    layers = plain()
    b = Sequential([Chain([Chain(layers[:2]), layers[2]]), *layers[3:5], Chain(layers[5:])])
    b.fit(data, **options)
    assert [type(stage) for stage in a.stages] == [type(stage) for stage in b.stages]  # fused across the chains' ends
    assert any(isinstance(stage, BiasActivation) for stage in b.stages)
    for (_, ours), (_, theirs) in zip(a.arrays().items(), b.arrays().items(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert [p.name for p in b.parameters][:2] == ["chain1.chain1.conv1.w", "chain1.chain1.conv1.b"]


def test_weights_before_a_sum_begin_as_the_activation_after_it_wants() -> None:
    model = built([Residual([Dense(4), Tanh(), Dense(4)]), ReLU(), Concatenate([Dense(4)], [Dense(4), Tanh()])], (4,))
    kinds = {p.name: type(p.initializer).__name__ for p in model.parameters if p.name.endswith("w")}
    assert kinds == {
        "residual1.dense1.w": "Glorot",
        "residual1.dense2.w": "He",
        "concatenate1.dense1.w": "Glorot",
        "concatenate1.dense2.w": "Glorot",
    }


def network() -> list[Layer]:
    inner = Residual([Conv2D(6, 3, 2, "same"), BatchNorm(), ReLU(), Conv2D(6, 3, padding="same"), BatchNorm()])
    wide = Concatenate([], [Conv2D(3, 1), Dropout(0.2)], [MaxPool2D(1), Chain([Conv2D(2, 1), ReLU()])])
    return [Conv2D(4, 3), inner, ReLU(), wide, Flatten(), Residual([Dense(99)]), Chain([Dense(8), Tanh()]), Dense(3)]


def data() -> Data:
    rng = np.random.default_rng(9)
    return Data.from_arrays(rng.normal(size=(80, 8, 8, 1)), rng.integers(0, 3, 80))


def trained(**options: Any) -> Sequential:
    model = Sequential(network())
    model.fit(data(), epochs=2, batch_size=16, progress=False, **options)
    return model


def test_a_network_with_branches_is_saved_loaded_copied_and_pickled(tmp_path: Path, backend: Backend) -> None:
    model = trained(device=backend)
    x = data().validation.inputs  # type: ignore[union-attr]
    expected = model.predict_proba(x)
    model.save(tmp_path / "model")
    others = [load_model(tmp_path / "model"), copy.copy(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    for other in others:
        if backend.device == "cpu":
            np.testing.assert_array_equal(other.predict_proba(x), expected)
        else:
            np.testing.assert_allclose(other.predict_proba(x), expected, rtol=1e-5, atol=1e-6)
        other.fit(data(), epochs=1, batch_size=16, progress=False)
    assert others[1].layers[1] is not model.layers[1]
    np.testing.assert_array_equal(model.predict_proba(x), expected)  # what the copies learned is theirs


def test_layers_of_another_network_bring_their_weights_also_from_within() -> None:
    model = trained()
    taken = Sequential([*model.layers[:2], Flatten(), Dense(2)]).build((8, 8, 1))
    held = model.arrays()
    for name, value in taken.arrays().items():
        if not name.startswith("dense"):
            np.testing.assert_array_equal(value, held[name])
    assert "residual1.projection.w" in taken.arrays()
    inner = Sequential([Conv2D(4, 3), Chain([model.layers[1].branches[0][0]])]).build((8, 8, 1))
    np.testing.assert_array_equal(inner.arrays()["chain1.conv1.w"], held["residual1.conv1.w"])
    whole = Sequential([Chain([Flatten()]), model.layers[6], Dense(2)]).build((11, 3, 3))
    np.testing.assert_array_equal(whole.arrays()["chain2.dense1.w"], held["chain1.dense1.w"])


def test_a_network_is_a_layer_of_another() -> None:
    model = trained()
    other = Sequential([model, ReLU(), Dense(2)])
    assert isinstance(other.layers[0], Chain)
    other.build((8, 8, 1))
    np.testing.assert_array_equal(other.arrays()["chain1.residual1.conv2.w"], model.arrays()["residual1.conv2.w"])
    assert other.inherited == {0}


def test_the_last_layer_of_a_chain_is_replaced_and_those_before_it_keep_their_weights() -> None:
    model = Sequential([Dense(4), Chain([Tanh(), Dense(5), Chain([Dense(3), Softmax()])])]).build((6,))
    other = model.replace_last(7).build((6,))
    assert other.output_shape == (7,)
    held = model.arrays()
    for name, value in other.arrays().items():
        assert np.array_equal(value, held[name]) == (not name.startswith("chain1.chain1.")), name
    with pytest.raises(OptionError, match="cannot be made again with 7 outputs"):
        Sequential([Dense(4), Residual([Dense(4)])]).build((6,)).replace_last(7)


def test_what_lies_in_a_frozen_layer_is_frozen_and_a_layer_within_can_be_by_itself() -> None:
    model = trained()
    before = model.arrays()
    model.layers[1].trainable = False
    model.layers[3].branches[1][0].trainable = False
    model.fit(data(), epochs=1, batch_size=16, progress=False)
    same = {name for name, value in model.arrays().items() if np.array_equal(value, before[name])}
    assert same == {name for name in before if name.startswith(("residual1.", "concatenate1.conv1."))}
    assert "Residual(), frozen" in model.summary()
    model.trainable = True
    model.fit(data(), epochs=1, batch_size=16, progress=False)
    assert not any(np.array_equal(value, before[name]) for name, value in model.arrays().items())


def test_frozen_layers_are_so_in_the_model_file(tmp_path: Path) -> None:
    model = trained()
    model.layers[3].branches[1][0].trainable = False
    model.rebuild(16, "cpu", "float32")
    model.save(tmp_path / "model")
    assert not load_model(tmp_path / "model").layers[3].branches[1][0].trainable


def test_each_dropout_within_draws_bits_of_its_own() -> None:
    model = built([Concatenate([Dropout(0.5)], [Dropout(0.5)], [Residual([Dropout(0.5)])]), Dropout(0.5)], (512,))
    y = model.backend.to_host(model.forward(np.ones((8, 512)), training=True))  # type: ignore[union-attr]
    masks = [part != 0 for part in np.split(y, 3, axis=1)]
    assert 0.2 < (masks[0] == masks[1]).mean() < 0.8


def test_the_memory_of_branches_is_what_was_counted(backend: Backend) -> None:
    model = trained(device=backend)
    counted = count_network(model.layers, (8, 8, 1), 16, backend, "float32")
    made = Sequential(network())
    taken = 0
    original = type(backend).empty

    def empty(self: Any, shape: Any, dtype: Any) -> Any:
        nonlocal taken
        array = original(self, shape, dtype)
        taken += array.nbytes
        return array

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(backend), "empty", empty)
        patch.setattr(type(backend), "zeros", lambda self, shape, dtype: self.asarray(np.zeros(shape, dtype)))
        made.build((8, 8, 1), 16, backend)
    assert 0 < taken <= counted.nbytes


def test_the_layer_that_is_first_not_finite_is_named_also_within() -> None:
    model = Sequential([Dense(4), Residual([Dense(4), Tanh(), Chain([Dense(4)])]), Dense(3)]).build((2,))
    x = np.random.default_rng(10).normal(size=(40, 2))
    arrays = model.arrays()
    arrays["residual1.chain1.dense1.w"][:] = 3e38
    model.load_arrays(arrays)
    with pytest.raises(DivergenceError, match=r"residual1\.chain1\.dense1"):
        model.fit(x, np.arange(40) % 3, epochs=1, progress=False, optimizer="sgd")


def test_the_table_has_a_row_for_each_layer_within() -> None:
    rows = trained().summary().splitlines()
    assert [row.split("  ")[0] if row[0] != " " else row.strip().split("  ")[0] for row in rows][3:9] == [
        "Conv2D(filters=4, size=3)", "Residual()", "Conv2D(filters=6, size=3, stride=2, padding='same')",
        "BatchNorm()", "ReLU()", "Conv2D(filters=6, size=3, padding='same')",
    ]  # fmt: skip
    assert "parameters" in rows[-1]


def test_the_layers_that_are_given_stay_as_they_are() -> None:
    shared = Conv2D(3, 1)
    block = Residual([shared])
    first, second = Sequential([block, Flatten()]), Sequential([block, Flatten()])
    assert first.layers[0] is block
    assert second.layers[0] is not block
    assert second.layers[0].branches[0][0] is not shared


def deep(n: int) -> Layer:
    layer: Layer = Tanh()
    for _ in range(n):
        layer = Residual([layer])
    return layer


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "empty": (lambda: Residual([]), "list of layers"),
    "no list": (lambda: Residual(Dense(3)), r"write Residual\(\[Dense\(3\)\]\)"),  # type: ignore[arg-type]
    "no layer": (lambda: Chain([3]), "expected a layer"),  # type: ignore[list-item]
    "one branch": (lambda: Concatenate([Dense(3)]), "at least two lists"),
    "no branch": (lambda: Concatenate(), "at least two lists of layers, got none"),
    "layers for branches": (lambda: Concatenate(ReLU(), Tanh()), r"write Concatenate\(\[ReLU\(\)\], \[Tanh\(\)\]\)"),
    "two empty": (lambda: Concatenate([], [], [Tanh()]), "may be empty"),
    "layers as branches": (lambda: Concatenate(Dense(3), Dense(2)), "list of layers"),  # type: ignore[arg-type]
    "too deep": (lambda: deep(17), "16 deep"),
    "projection": (lambda: Residual([Tanh()], 3), "expected a layer"),  # type: ignore[arg-type]
    "twice": (lambda: (lambda d: Sequential([Residual([d]), d]))(Dense(3)), "places 1.1 and 2"),
    "shapes": (lambda: built([Residual([Conv2D(3, 3)])], (6, 6, 1)), r"residual1: .* \(4, 4, 3\) of \(6, 6, 1\)"),
    "larger": (lambda: built([Residual([Conv2D(3, 1, padding=2)])], (6, 6, 1)), "no convolution 1×1"),
    "other projection": (lambda: built([Residual([Dense(3)], Dense(4))], (2,)), "the projection"),
    "side by side": (lambda: built([Concatenate([Conv2D(3, 3)], [])], (6, 6, 1)), r"\(4, 4, 3\), \(6, 6, 1\)"),
    "flat beside images": (lambda: built([Concatenate([Flatten()], [])], (6, 6, 1)), "alike but for channels"),
    "inner name": (lambda: built([Dense(4), Chain([Tanh(), Conv2D(2)])], (3,)), "chain1.conv1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_is_refused_in_one_line(name: str) -> None:
    make, message = WRONG[name]
    with pytest.raises(GpunnError, match=message) as error:
        make()
    one_line(error.value)


def test_layers_may_lie_sixteen_deep(tmp_path: Path) -> None:
    model = built([deep(16), Dense(2)], (3,))
    assert np.isfinite(model.forward(np.ones((2, 3)))).all()
    model.save(tmp_path / "model")
    assert to_config(load_model(tmp_path / "model").layers[0]) == to_config(model.layers[0])


@pytest.mark.parametrize(
    "holding",
    [lambda made: Chain(made), lambda made: Residual(made), lambda made: Concatenate(made, [])],
    ids=["chain", "residual", "concatenate"],
)
def test_a_network_stands_for_its_list_of_layers(holding: Callable[[Any], Layer]) -> None:
    made = Sequential([Dense(4), Tanh()]).build((4,), 3, "cpu", seed=5)
    model = Sequential([holding(made)]).build((4,), 3, "cpu")
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    values = model.arrays()
    assert all(np.array_equal(values[name], made.arrays()[name.split(".", 1)[1]]) for name in values)
    same = Sequential([holding(made.layers)]).build((4,), 3, "cpu")
    assert np.array_equal(model.forward(x), same.forward(x))
    assert made.layers[0] is not next(iter(model.layers[0].branches[0]))


def test_a_projection_that_was_made_here_and_frozen_stays_frozen_in_trainings() -> None:
    model = Sequential([Dense(6), Residual([Dense(3)])]).build((4,), 4, "cpu")
    projection = model.layers[1].branches[1][0]
    projection.trainable = False
    before = model.arrays()
    x = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    for dtype in ("float32", "float64"):  # for each of which it is built again
        model.fit((x, np.arange(20) % 3), epochs=2, batch_size=5, progress=False, device="cpu", dtype=dtype)
    changed = {name for name, value in model.arrays().items() if not np.array_equal(value, before[name])}
    assert changed == before.keys() - {"residual1.projection.w"}
