"""A network that is trained again goes on: N trainings of one epoch are one training of N, to the last bit."""

import copy
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.backend.base import Backend
from gpunn.errors import DivergenceError, ModelFileError

OPTIMIZERS = [
    lambda: gn.SGD(0.1),
    lambda: gn.SGD(0.05, momentum=0.9),
    lambda: gn.Adam(0.003),
    lambda: gn.AdamW(0.003, 0.1),
    lambda: None,
]
each_optimizer = pytest.mark.parametrize("make", OPTIMIZERS, ids=["plain", "momentum", "adam", "adamw", "left out"])


DIGITS = gn.load_data("digits", limit=300)


def network() -> gn.Sequential:
    return gn.Sequential(
        [gn.Conv2D(3, stride=2), gn.BatchNorm(), gn.ReLU(), gn.Flatten(), gn.Dropout(0.3), gn.Dense(10)]
    )


def fitted(model: gn.Sequential, data: Any, backend: Backend, **options: Any) -> gn.Sequential:
    usual = {"epochs": 1, "augmentation": gn.Augmentation(shift=1, rotation=10), "seed": 5, "progress": False}
    model.fit(data, device=backend, **usual | options)
    return model


def bits(model: gn.Sequential) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in model.arrays().items()}


@each_optimizer
def test_trainings_of_one_epoch_are_one_training(backend: Backend, make: Any) -> None:
    once = fitted(network(), DIGITS, backend, epochs=3, optimizer=make())
    optimizer, often = make(), network()
    for number in range(3):
        fitted(often, DIGITS, backend, optimizer=optimizer)
        assert (often.epochs_trained, often.steps_trained) == (number + 1, 3 * (number + 1))
    assert bits(often) == bits(once)
    parts = fitted(network(), DIGITS, backend, epochs=2, optimizer=optimizer)
    assert bits(fitted(parts, DIGITS, backend, optimizer=optimizer)) == bits(once)


def test_a_network_from_a_file_counts_on(backend: Backend, tmp_path: Any) -> None:
    once = fitted(network(), DIGITS, backend, epochs=3, optimizer=gn.SGD(0.1))
    fitted(network(), DIGITS, backend, optimizer=gn.SGD(0.1)).save(tmp_path / "one.safetensors")
    loaded = gn.load_model(tmp_path / "one.safetensors", backend.device)
    assert (loaded.epochs_trained, loaded.steps_trained, loaded.seed) == (1, 3, 5)
    assert bits(fitted(loaded, DIGITS, backend, epochs=2, optimizer=gn.SGD(0.1))) == bits(once)


def test_what_was_done_between_changes_nothing(backend: Backend) -> None:
    once = fitted(network(), DIGITS, backend, epochs=2, optimizer=gn.SGD(0.1))
    often = fitted(network(), DIGITS, backend, optimizer=gn.SGD(0.1))
    often.evaluate(DIGITS.test)
    often.predict(DIGITS.train.inputs[:3])
    often.rebuild(300, backend, "float32")
    assert bits(fitted(copy.deepcopy(often), DIGITS, backend, optimizer=gn.SGD(0.1))) == bits(once)


def test_epochs_count_where_data_and_batches_change(backend: Backend) -> None:
    model = fitted(network(), DIGITS, backend, batch_size=50)
    fitted(model, DIGITS.train.first(100), backend, batch_size=30, epochs=2)
    assert (model.epochs_trained, model.steps_trained) == (3, 6 + 2 * 3)


def test_another_optimizer_begins_afresh(backend: Backend) -> None:
    first = fitted(network(), DIGITS, backend, optimizer=gn.SGD(0.05, momentum=0.9))
    other = copy.deepcopy(first)
    other.optimizer_memory = None
    for model in (first, other):
        fitted(model, DIGITS, backend, optimizer=gn.SGD(0.05, momentum=0.9))
    assert bits(first) == bits(other)


def test_one_optimizer_serves_two_networks(backend: Backend) -> None:
    alone, optimizer = gn.Adam(0.003), gn.Adam(0.003)
    expected = [fitted(network(), DIGITS, backend, seed=seed, epochs=2, optimizer=alone) for seed in (1, 2)]
    models = [network(), network()]
    for _ in range(2):
        for seed, model in enumerate(models, start=1):
            fitted(model, DIGITS, backend, seed=seed, optimizer=optimizer)
    assert [bits(model) for model in models] == [bits(model) for model in expected]


def test_the_rate_of_an_optimizer_may_be_changed_between_trainings(backend: Backend) -> None:
    optimizer = gn.SGD(0.1)
    model = fitted(network(), DIGITS, backend, optimizer=optimizer)
    optimizer.learning_rate = 0.01
    history = model.fit(DIGITS, optimizer=optimizer, epochs=1, device=backend, progress=False)
    assert history[-1].learning_rate == pytest.approx(0.01)


def test_a_schedule_and_a_history_begin_anew(backend: Backend) -> None:
    optimizer, model = gn.SGD(gn.Cosine(0.1)), network()
    runs = [model.fit(DIGITS, optimizer=optimizer, epochs=2, device=backend, progress=False) for _ in range(2)]
    assert [(r.step, r.epoch, r.learning_rate) for r in runs[0]] == [
        (r.step, r.epoch, r.learning_rate) for r in runs[1]
    ]


def test_weights_that_are_put_back_bring_their_count_with_them(backend: Backend) -> None:
    model = fitted(network(), DIGITS, backend)
    with pytest.raises(DivergenceError):
        fitted(model, DIGITS, backend, epochs=5, optimizer=gn.SGD(1e30))
    assert (model.epochs_trained, model.steps_trained) == (1, 3)
    once = fitted(network(), DIGITS, backend)
    assert bits(once) == bits(model)
    for one in (once, model):
        fitted(one, DIGITS, backend, optimizer=gn.SGD(0.1))
    assert bits(once) == bits(model)


def test_a_new_build_counts_from_the_start(backend: Backend) -> None:
    model = fitted(network(), DIGITS, backend, optimizer=gn.SGD(0.1))
    expected = bits(model)
    model.build((8, 8, 1), 128, backend, seed=5)
    assert (model.epochs_trained, model.steps_trained) == (0, 0)
    assert bits(fitted(model, DIGITS, backend, optimizer=gn.SGD(0.1))) == expected


@pytest.mark.parametrize("wrong", [[1], [1, -1], [1, 2.5], "3", [True, 1], [0, 2**31], None])
def test_a_file_with_a_count_that_cannot_be_is_refused(
    backend: Backend, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, wrong: Any
) -> None:
    model = gn.Sequential([gn.Dense(3)]).build((4,), 8, backend)
    monkeypatch.setattr(model, "epochs_trained", 0)
    content = _described(model, trained=wrong)
    (tmp_path / "m.safetensors").write_bytes(content)
    with pytest.raises(ModelFileError, match="trained must be its epochs and steps"):
        gn.load_model(tmp_path / "m.safetensors", backend.device)


def test_files_from_before_have_no_count(backend: Backend, tmp_path: Any) -> None:
    model = gn.Sequential([gn.Dense(3)]).build((4,), 8, backend, seed=7)
    (tmp_path / "m.safetensors").write_bytes(_described(model, trained=..., seed=...))
    loaded = gn.load_model(tmp_path / "m.safetensors", backend.device)
    assert (loaded.epochs_trained, loaded.steps_trained, loaded.seed) == (0, 0, 0)
    np.testing.assert_array_equal(loaded.arrays()["dense1.w"], model.arrays()["dense1.w"])


def _described(model: gn.Sequential, **changes: Any) -> bytes:
    """A model file whose description is changed; ... takes a key out."""
    import json

    from gpunn.saving.model_file import model_bytes
    from gpunn.saving.safetensors import to_bytes

    content = model_bytes(model)
    size = int.from_bytes(content[:8], "little")
    description = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["gpunn"]) | changes
    kept = {key: value for key, value in description.items() if value is not ...}
    return to_bytes(model.arrays(), {"gpunn": json.dumps(kept)})


def test_a_class_keeps_its_number_when_a_network_goes_on_with_other_samples() -> None:
    x = np.eye(4, dtype=np.float32).repeat(10, axis=0)
    words = np.array(["ant", "bee", "cat", "dog"]).repeat(10)
    model = gn.Sequential([gn.Dense(4)])
    model.fit(x, words, epochs=20, device="cpu", progress=False)
    few = words >= "cat"  # numbered by themselves these would be the first two classes
    model.fit(x[few], words[few], validation_data=(x[few], words[few]), epochs=1, device="cpu", progress=False)
    assert model.class_names == ("ant", "bee", "cat", "dog")
    np.testing.assert_array_equal(model.predict_names(x[few]), words[few])


def test_a_new_class_gets_the_next_number_and_another_task_begins_anew() -> None:
    x = np.eye(4, dtype=np.float32).repeat(10, axis=0)
    model = gn.Sequential([gn.Dense(4)])
    for names, known in (("bcd", "bcd"), ("abc", "bcda"), ("wxyz", "wxyz")):
        words = np.resize(list(names), len(x))
        model.fit(x, words, epochs=1, device="cpu", progress=False)
        assert model.class_names == tuple(known)
