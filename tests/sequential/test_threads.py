"""A network, an optimizer and a loss that threads share: every answer is that of one thread alone."""

import copy
import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.harness import one_line
from support.threads import together

import gpunn as gn
from gpunn.backend.base import Backend
from gpunn.errors import GpunnError, ShapeError

KW: dict[str, Any] = {"progress": False, "epochs": 2, "batch_size": 16}


def images(n: int = 60, seed: int = 0) -> gn.Samples:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    return gn.Samples((rng.normal(size=(n, 6, 6, 1)) + labels[:, None, None, None]).astype(np.float32), labels)


def dense() -> gn.Sequential:
    return gn.Sequential([gn.Dense(16), gn.BatchNorm(), gn.ReLU(), gn.Dropout(0.25), gn.Dense(3)])


def convolution() -> gn.Sequential:
    return gn.Sequential([gn.Conv2D(3), gn.ReLU(), gn.MaxPool2D(), gn.Flatten(), gn.Dense(3)])


each_network = pytest.mark.parametrize("make", [dense, convolution])


def learned(make: Callable[[], gn.Sequential], backend: Backend) -> gn.Sequential:
    model = make()
    model.fit(images(), device=backend, **KW)
    model.predict(images().inputs[:40])  # whose products are planned
    return model


@each_network
def test_threads_that_share_a_network_get_their_own_answers(backend: Backend, make: Any) -> None:
    trained = learned(make, backend)
    batches = [images(40, seed).inputs for seed in range(4)]
    expected = [trained.predict_proba(x) for x in batches]
    outputs = [backend.to_host(trained.forward(x)) for x in batches]
    result = trained.evaluate(images())

    def asked(number: int) -> Callable[[], bool]:
        def ask() -> bool:
            x = batches[number]
            return all(
                np.array_equal(trained.predict_proba(x), expected[number])
                and np.array_equal(trained.predict(x), expected[number].argmax(axis=1))
                and np.array_equal(backend.to_host(trained.forward(x)), outputs[number])
                and trained.evaluate(images()) == result
                for _ in range(50)
            )

        return ask

    assert together([asked(number) for number in range(4)]) == [True] * 4


@each_network
def test_what_is_asked_while_a_network_learns_is_answered_before_or_after(
    backend: Backend, make: Any, tmp_path: Any
) -> None:
    trained = learned(make, backend)

    def bits(model: gn.Sequential) -> bytes:
        return b"".join(array.tobytes() for array in model.arrays().values())

    def saved() -> gn.Sequential:
        trained.save(tmp_path / "model.safetensors")
        return gn.load_model(tmp_path / "model.safetensors", backend.device)

    before, other = bits(trained), copy.deepcopy(trained)
    other.fit(images(), device=backend, **KW)
    calls = [
        lambda: trained.fit(images(), device=backend, **KW),
        *[lambda: bits(copy.deepcopy(trained))] * 3,
        lambda: bits(saved()),
        lambda: bits(gn.Sequential(trained.layers).build(trained.input_shape, device=backend)),
        lambda: len(trained.summary()) and before,
    ]
    assert set(together(calls)[1:]) <= {before, bits(other)}
    assert bits(trained) == bits(other)


@each_network
def test_trainings_of_one_network_come_one_after_another(backend: Backend, make: Any) -> None:
    """With the optimizer's memory: whichever is first, they are one training."""
    trained = learned(make, backend)
    optimizer, other = gn.SGD(0.05, momentum=0.9), copy.deepcopy(trained)
    other.fit(images(), device=backend, optimizer=optimizer, **KW | {"epochs": 6})
    together([lambda: trained.fit(images(), device=backend, optimizer=optimizer, **KW)] * 3)
    for name, array in trained.arrays().items():
        np.testing.assert_array_equal(array, other.arrays()[name])


@pytest.mark.parametrize("make", [dense, convolution])
def test_networks_that_share_optimizer_and_loss_learn_as_if_alone(backend: Backend, make: Any) -> None:
    def trained_with(loss: Any, optimizer: Any, seed: int) -> dict[str, Any]:
        model: gn.Sequential = make()
        model.fit(images(), device=backend, loss=loss, optimizer=optimizer, seed=seed, **KW)
        return model.arrays()

    expected = [trained_with(gn.SoftmaxCrossEntropy(), gn.Adam(0.01), seed) for seed in range(3)]
    loss, optimizer = gn.SoftmaxCrossEntropy(), gn.Adam(0.01)
    for seed, arrays in enumerate(
        together([lambda seed=seed: trained_with(loss, optimizer, seed) for seed in range(3)])
    ):
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, expected[seed][name], err_msg=name)


def test_steps_by_hand_in_threads_that_hold_the_lock(backend: Backend) -> None:
    model, loss = dense().build((36,), 16, backend, "float64"), gn.SoftmaxCrossEntropy()
    model.layers[1].trainable = model.layers[3].trainable = False

    def gradient(seed: int) -> Any:
        data = images(16, seed)
        with model.lock:
            loss.forward(model.forward(data.inputs, training=True), data.targets)
            model.backward(loss.backward())
            return backend.to_host(model.parameters["dense1.w"].grad)

    expected = [gradient(seed) for seed in range(4)]
    for _ in range(10):
        for got, alone in zip(together([lambda s=s: gradient(s) for s in range(4)]), expected, strict=True):
            np.testing.assert_array_equal(got, alone)


@each_network
def test_backward_after_something_else_was_computed_says_so(backend: Backend, make: Any) -> None:
    trained = learned(make, backend)
    loss, data = gn.SoftmaxCrossEntropy(), images(4)

    def forward() -> Any:
        loss.forward(trained.forward(data.inputs, training=True), data.targets)
        return loss.backward()

    elsewhere: list[Callable[[], Any]] = [
        lambda: trained.predict(images(9).inputs),
        lambda: trained.evaluate(images()),
        lambda: trained.fit(images(), device=backend, **KW),
        lambda: together([lambda: trained.forward(data.inputs)]),
    ]
    for call in elsewhere:
        dy = forward()
        call()
        with pytest.raises(GpunnError, match="backward follows forward") as caught:
            trained.backward(dy)
        one_line(caught.value)
        trained.backward(forward())
    with pytest.raises(ShapeError, match=r"backward expects ∂C/∂output of shape \(4, 3\), got \(3, 3\)"):
        trained.backward(forward()[:3])


def test_a_loss_of_ones_own_may_set_what_it_gives(backend: Backend) -> None:
    class Distance(gn.MeanSquaredError):
        def __init__(self, factor: float) -> None:
            self.factor = factor

        def evaluate(self, *arguments: Any, **options: Any) -> None:
            super().evaluate(*arguments, **options)
            self.gradient = self.gradient * self.factor

    y = backend.asarray(np.ones((2, 3)))
    plain, double = gn.MeanSquaredError(), copy.deepcopy(Distance(2.0))
    for loss in (plain, double):
        loss.forward(y, np.zeros((2, 3)))
    np.testing.assert_array_equal(backend.to_host(double.backward()), 2 * backend.to_host(plain.backward()))


@each_network
def test_an_interrupted_call_leaves_the_network_free(backend: Backend, make: Any) -> None:
    trained = learned(make, backend)
    propagate = trained.propagate

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    trained.propagate = interrupted  # type: ignore[method-assign]
    for call in (trained.predict, trained.forward):
        with pytest.raises(KeyboardInterrupt):
            call(images().inputs)
    trained.propagate = propagate  # type: ignore[method-assign]
    assert together([lambda: trained.predict(images().inputs).shape]) == [(60,)]


# What is given is let go of


def a_batch(*shape: int) -> Any:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@each_network
@pytest.mark.parametrize("n", [1, 40, 600])
@pytest.mark.parametrize("what", ["predict", "predict_proba", "forward", "forward and backward", "copy"])
def test_inputs_are_let_go_of_when_a_call_ends(backend: Backend, make: Any, what: str, n: int) -> None:
    trained = learned(make, backend)
    n = min(n, trained.capacity) if "forward" in what else n
    x, dy = a_batch(n, *trained.input_shape), a_batch(n, 3)
    left = [weakref.ref(x), weakref.ref(dy)]
    gc.disable()
    try:
        if what == "forward and backward":
            trained.forward(x, training=n > 1)
            trained.backward(dy)
        elif what == "copy":
            trained.predict(x)
            copy.deepcopy(trained)
        else:
            getattr(trained, what)(x)
        del x, dy
        assert [each() for each in left] == [None, None]
    finally:
        gc.enable()


@pytest.mark.parametrize("what", ["fit", "evaluate", "recompute_statistics"])
def test_samples_are_let_go_of_when_a_call_ends(backend: Backend, what: str) -> None:
    model, optimizer, loss = dense().build((36,), 16, backend), gn.SGD(0.1, momentum=0.9), gn.SoftmaxCrossEntropy()
    inputs = a_batch(60, 36)
    samples, left = gn.Samples(inputs, np.arange(60) % 3), weakref.ref(inputs)
    assert samples.inputs is inputs
    gc.disable()
    try:
        if what == "fit":
            model.fit(samples, optimizer=optimizer, loss=loss, device=backend, **KW)
        else:
            getattr(model, what)(samples)
        del inputs, samples
        assert left() is None
    finally:
        gc.enable()


def test_an_optimizer_and_a_loss_do_not_hold_the_network_that_they_served(backend: Backend) -> None:
    model, optimizer, loss = dense(), gn.SGD(0.1, momentum=0.9), gn.SoftmaxCrossEntropy()
    model.fit(images(), optimizer=optimizer, loss=loss, device=backend, **KW)
    left = weakref.ref(model)
    del model
    gc.collect()
    assert left() is None
