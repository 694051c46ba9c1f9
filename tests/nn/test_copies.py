"""Copies and pickles of networks and of their parts: equal to the last bit, independent, and of no memory in common."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.harness import one_line

import gpunn as gn
from gpunn.backend.base import Backend
from gpunn.backend.devices import select
from gpunn.errors import GpunnError, OptionError, ShapeError

COPIES: list[Callable[[Any], Any]] = [
    copy.deepcopy,
    copy.copy,
    lambda thing: pickle.loads(pickle.dumps(thing)),
    lambda thing: pickle.loads(pickle.dumps(thing, protocol=2)),
]
NAMES = ["deepcopy", "copy", "pickle", "pickle 2"]
each_copy = pytest.mark.parametrize("copied", COPIES, ids=NAMES)

KW: dict[str, Any] = {"progress": False, "epochs": 1, "batch_size": 16}


def images(n: int = 60) -> gn.Samples:
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 3
    return gn.Samples((rng.normal(size=(n, 6, 6, 1)) + labels[:, None, None, None]).astype(np.float32), labels)


def dense() -> gn.Sequential:
    return gn.Sequential([gn.Dense(8), gn.BatchNorm(), gn.ReLU(), gn.Dropout(0.25), gn.Dense(3)])


def convolution() -> gn.Sequential:
    return gn.Sequential(
        [
            gn.Conv2D(4),
            gn.LeakyReLU(),
            gn.MaxPool2D(),
            gn.Conv2D(4, 1, groups=2),
            gn.Conv2D(2, size=1),
            gn.AveragePool2D(),
            gn.Flatten(),
            gn.Dense(3),
            gn.Softmax(),
        ]
    )


def bits(model: gn.Sequential) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in model.arrays().items()}


each_network = pytest.mark.parametrize("make", [dense, convolution])


def learned(make: Callable[[], gn.Sequential], backend: Backend) -> gn.Sequential:
    model = make()
    model.fit(images(), device=backend, **KW)
    model.predict(images().inputs[:40])  # whose products are planned
    return model


@each_network
@each_copy
def test_a_copy_answers_as_the_network_does(backend: Backend, make: Any, copied: Any) -> None:
    trained = learned(make, backend)
    other = copied(trained)
    assert bits(other) == bits(trained)
    for n in (1, 5, 40):
        x = images().inputs[:n]
        assert other.predict_proba(x).tobytes() == trained.predict_proba(x).tobytes()
    assert other.evaluate(images()) == trained.evaluate(images())
    assert (other.class_names, other.input_scale, repr(other.loss)) == (("0", "1", "2"), 1.0, repr(trained.loss))
    assert (other.input_shape, other.dtype, other.seed) == (trained.input_shape, trained.dtype, trained.seed)


@each_network
@each_copy
def test_a_copy_and_the_network_go_on_apart_and_alike(backend: Backend, make: Any, copied: Any) -> None:
    trained = learned(make, backend)
    before, other = bits(trained), copied(trained)
    other.fit(images(), device=backend, **KW)
    assert bits(trained) == before
    assert bits(other) != before
    trained.fit(images(), device=backend, **KW)
    assert bits(trained) == bits(other)


@each_copy
@pytest.mark.parametrize("make", [lambda: gn.SGD(0.05, momentum=0.9), lambda: gn.Adam(0.01)])
def test_a_copy_has_what_the_optimizer_remembers_of_the_network(backend: Backend, copied: Any, make: Any) -> None:
    optimizer, model = make(), dense()
    model.fit(images(), optimizer=optimizer, device=backend, **KW)
    other, third, of_third = copied(model), *(copied(part) for part in (model, optimizer))
    for one, by in ((model, optimizer), (other, optimizer), (third, of_third)):
        one.fit(images(), optimizer=by, device=backend, **KW)
    assert bits(model) == bits(other) == bits(third)


@each_copy
def test_a_network_that_is_not_built_is_copied_as_it_is(copied: Any, backend: Backend) -> None:
    model = dense()
    model.layers[0].trainable = False
    other = copied(model)
    assert repr(other) == repr(model)
    with pytest.raises(GpunnError, match="not built"):
        other.arrays()
    for one in (model, other):
        one.fit(images(), device=backend, **KW)
    assert bits(other) == bits(model)


@each_network
@each_copy
def test_a_copy_keeps_attributes_that_it_knows_nothing_of(backend: Backend, make: Any, copied: Any) -> None:
    trained = learned(make, backend)
    trained.remark = ["of the user"]  # type: ignore[attr-defined]
    assert copied(trained).remark == ["of the user"]


def test_steps_by_hand_go_on_alike_in_a_copy(backend: Backend) -> None:
    """The masks of dropout are those that come next."""
    model, loss = dense().build((36,), 16, backend), gn.SoftmaxCrossEntropy()
    x, labels = images().inputs[:16], images().targets[:16]

    def step(one: gn.Sequential) -> None:
        loss.forward(one.forward(x, training=True), labels)
        one.backward(loss.backward())
        for p in one.parameters:
            backend.assign(p.value, p.value - 0.1 * p.grad)

    for before in (lambda: step(model), lambda: model.fit(images(), device=backend, **KW)):
        before()
        other = copy.deepcopy(model)
        for one in (model, other, model, other):
            step(one)
        assert bits(model) == bits(other)


def test_a_network_of_a_device_that_is_not_there_is_unpickled_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    model = dense()
    model.fit(images(), device="cpu", **KW)
    backend = object.__new__(type(select("cpu")))
    vars(backend).update(vars(select("cpu")), device="cuda:1", precision="tf32")
    model.backend = backend
    pickled = pickle.dumps(model)
    monkeypatch.setattr("gpunn.backend.devices.cuda_trouble", lambda index=0: "no driver")
    other = pickle.loads(pickled)
    assert other.backend is select("cpu")
    assert bits(other) == bits(model)


def test_a_backend_is_not_copied(backend: Backend) -> None:
    assert copy.deepcopy(backend) is backend
    assert pickle.loads(pickle.dumps(backend)) is backend


# Parts

PARTS = [
    gn.Dense(3, weights=gn.He()), gn.Conv2D(2, padding="same"), gn.BatchNorm(momentum=0.2), gn.Dropout(0.3),
    gn.MaxPool2D(3),
    gn.SGD(0.1, 0.5), gn.Adam(gn.Cosine(0.1)), gn.L2(2.0), gn.Cosine(0.5), gn.SoftmaxCrossEntropy(),
    gn.Augmentation(shift=1.0), gn.He(),
]  # fmt: skip


@each_copy
@pytest.mark.parametrize("part", PARTS, ids=lambda part: type(part).__name__)
def test_a_part_is_copied_as_it_was_made(part: Any, copied: Any) -> None:
    from gpunn.config import to_config

    assert to_config(copied(part)) == to_config(part)


@each_copy
def test_parts_that_were_used_are_copied_as_they_were_made(backend: Backend, copied: Any) -> None:
    model, loss, optimizer = dense(), gn.SoftmaxCrossEntropy(), gn.Adam(0.01)
    history = model.fit(images(), loss=loss, optimizer=optimizer, device=backend, **KW)
    loss.forward(model.forward(images().inputs[:4], training=True), images().targets[:4])
    optimizer.build(model.parameters)
    again = gn.Sequential([copied(layer) for layer in model.layers])
    again.build((36,), 16, backend)
    assert bits(again) == bits(model)
    assert [repr(record) for record in copied(history)] == [repr(record) for record in history]
    assert sorted(vars(copied(optimizer))) == sorted(name for name in vars(gn.Adam()) | {"identity": ""})
    assert float(copied(loss).forward(model.forward(images().inputs[:4]), images().targets[:4])) > 0


@each_network
@each_copy
def test_parameters_are_copied_with_memory_of_their_own(backend: Backend, make: Any, copied: Any) -> None:
    trained = learned(make, backend)
    backend = trained._built()
    kept, one = copied(trained.parameters), copied(trained.parameters[0])
    before = trained.parameters.to_host()
    backend.assign(trained.parameters.values, 0.0)
    for name, value in kept.to_host().items():
        np.testing.assert_array_equal(value, before[name])
        np.testing.assert_array_equal(backend.to_host(kept[name].value), before[name])
    np.testing.assert_array_equal(backend.to_host(one.value), before[one.name])
    backend.assign(kept.values, 1.0)
    assert float(backend.to_host(kept[0].value).max()) == 1


@pytest.mark.parametrize("copied", [copy.deepcopy, COPIES[2]], ids=["deepcopy", "pickle"])
def test_data_are_copied_with_their_test_set_closed(copied: Any) -> None:
    data = copied(gn.load_data("digits"))
    assert isinstance(data, gn.Data)
    assert not data.test_is_open
    assert len(data.test) == 360
    assert copied(data.train).sha256() == data.train.sha256()


# Layers that are part of another network


@each_network
def test_a_network_of_layers_of_another_begins_with_their_weights(backend: Backend, make: Any) -> None:
    trained = learned(make, backend)
    before, answers = bits(trained), trained.predict_proba(images().inputs)
    layers: list[Any] = trained.layers
    at = next(number for number in reversed(range(len(layers))) if isinstance(layers[number], gn.Dense))
    other = gn.Sequential([*layers[:at], gn.Dense(2)])
    other.build(trained.input_shape, 16, backend, seed=7)
    shared = [name for name in before if not name.startswith(layers[at].name)]
    assert shared
    assert {name: bits(other)[name] for name in shared} == {name: before[name] for name in shared}
    labels = images().targets % 2
    other.fit((images().inputs, labels), device=backend, **KW)
    assert bits(trained) == before
    assert trained.predict_proba(images().inputs).tobytes() == answers.tobytes()
    assert all(layer.name for layer in layers)
    assert {name: bits(other)[name] for name in shared} != {name: before[name] for name in shared}


def test_a_layer_alone_begins_with_its_weights_in_another_place(backend: Backend) -> None:
    model = gn.Sequential([gn.Dense(5), gn.ReLU(), gn.Dense(3)]).build((4,), 8, backend, seed=3)
    turned = gn.Sequential([model.layers[2]]).build((5,), 8, backend)
    np.testing.assert_array_equal(turned.arrays()["dense1.w"], model.arrays()["dense2.w"])
    with pytest.raises(ShapeError, match=r"dense1.w was learned in the shape \(3, 5\), and here it must be") as caught:
        gn.Sequential([model.layers[2]]).build((6,), 8, backend)
    one_line(caught.value)


def test_a_network_of_layers_of_another_takes_data_that_it_can_after_those_that_it_cannot(backend: Backend) -> None:
    model = gn.Sequential([gn.Dense(5), gn.ReLU(), gn.Dense(3)]).build((36,), 8, backend, seed=3)
    other = gn.Sequential([*model.layers[:2], gn.Dense(2)])
    with pytest.raises(ShapeError, match="3 classes"):
        other.fit(images(), device=backend, **KW)
    other.fit((images().inputs, images().targets % 2), optimizer=gn.SGD(1e-9), device=backend, **KW)
    np.testing.assert_allclose(other.arrays()["dense1.w"], model.arrays()["dense1.w"], atol=1e-6)


@each_network
def test_layers_of_a_file_go_into_another_network(backend: Backend, make: Any, tmp_path: Any) -> None:
    trained = learned(make, backend)
    trained.save(tmp_path / "model.safetensors")
    other = gn.Sequential([*gn.load_model(tmp_path / "model.safetensors", device=backend.device).layers])
    other.build(trained.input_shape, 16, backend)
    assert bits(other) == bits(trained)


def test_networks_of_the_same_layers_are_independent(backend: Backend) -> None:
    hidden = [gn.Dense(4), gn.ReLU(), gn.Dense(3)]
    models = [gn.Sequential(hidden) for _ in range(3)]
    for model in models:
        model.build((36,), 16, backend)
    assert bits(models[0]) == bits(models[1]) == bits(models[2])
    before = bits(models[0])
    models[1].fit(images(), device=backend, **KW)
    assert bits(models[0]) == bits(models[2]) == before != bits(models[1])


def test_one_layer_in_two_places_says_what_to_write() -> None:
    layer = gn.Dense(3)
    with pytest.raises(OptionError, match=r"Dense\(3\) in places 1 and 3: write Dense\(3\) again") as caught:
        gn.Sequential([layer, gn.ReLU(), layer])
    one_line(caught.value)


@each_network
def test_a_list_of_layers_that_was_changed_says_what_to_write(backend: Backend, make: Any) -> None:
    trained = learned(make, backend)
    before = bits(trained)
    trained.layers[-1] = gn.Dense(3)
    calls: list[Any] = [
        lambda: trained.predict(images().inputs),
        lambda: trained.fit(images(), **KW),
        trained.summary,
        lambda: copy.deepcopy(trained),
    ]
    for call in calls:
        with pytest.raises(GpunnError, match=r"make another, Sequential\(network.layers\)") as caught:
            call()
        one_line(caught.value)
    other = gn.Sequential(trained.layers)
    other.fit(images(), optimizer=gn.SGD(1e-9), **KW)
    name = next(iter(before))
    np.testing.assert_allclose(
        other.arrays()[name], np.frombuffer(before[name], "f4").reshape(other.arrays()[name].shape)
    )


def test_a_network_stays_where_building_it_again_fails(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    model = gn.Sequential([gn.Dense(3)]).build((4,), 8, backend)
    before = bits(model)
    original = gn.Sequential.lay_out

    def failing(self: Any, input_shape: Any, batch_size: int, *rest: Any) -> Any:
        if batch_size == 1000:
            raise MemoryError("no room")
        return original(self, input_shape, batch_size, *rest)

    monkeypatch.setattr(gn.Sequential, "lay_out", failing)
    with pytest.raises(MemoryError):
        model.rebuild(1000, backend, "float32")
    assert bits(model) == before
    x: NDArray[Any] = np.ones((2, 4))
    assert model.predict_proba(x).shape == (2, 3)
