"""Fine-tuning: the layers of another network stay as they are for some epochs, then everything learns."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.checkpoint_helpers import ORIGIN, calling, outcome, stopped_after
from support.harness import one_line

import gpunn as gn
from gpunn.backend.base import Backend
from gpunn.errors import DataError, DivergenceError, GpunnError, OptionError
from gpunn.saving.checkpoint import open_checkpoint, write_checkpoint
from gpunn.train.arguments import TrainOptions
from gpunn.train.trainer import Trainer

KW: dict[str, Any] = {"progress": False, "batch_size": 16, "seed": 3}
STEPS = 6  # an epoch
OPTIMIZERS: dict[str, Callable[[], gn.Optimizer]] = {
    "plain": lambda: gn.SGD(0.02), "momentum": lambda: gn.SGD(0.02, momentum=0.9), "adam": lambda: gn.Adam(0.01)
}  # fmt: skip


def images(classes: int = 3, seed: int = 1) -> gn.Data:
    labels = np.arange(110) % classes
    pixels = np.random.default_rng(seed).integers(0, 90, (110, 6, 6)) + 25 * labels[:, None, None]
    return gn.Data.from_arrays(pixels.astype(np.uint8), labels, validation=0.2)


def trained(device: Any = "cpu") -> gn.Sequential:
    layers = [gn.Conv2D(3), gn.BatchNorm(), gn.ReLU(), gn.Flatten(), gn.Dropout(0.3), gn.Dense(6), gn.Tanh()]
    model = gn.Sequential([*layers, gn.Dense(3)])
    model.fit(images(), epochs=1, device=device, **KW)
    return model


@pytest.fixture(scope="module")
def source() -> gn.Sequential:
    return trained()


def trainer(source: gn.Sequential, **options: Any) -> Trainer:
    usual = {"optimizer": gn.SGD(0.02, momentum=0.9), "epochs": 4, "freeze": 2, "device": "cpu", **KW}
    return Trainer(source.replace_last(5), TrainOptions(**usual | options), images(5))


def changed(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    """The layers of which anything has changed."""
    return {name.split(".")[0] for name in before if not np.array_equal(before[name], after[name])}


OLD, NEW = {"conv1", "batchnorm1", "dense1"}, {"dense2"}


# What learns


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("regularizer", [None, gn.L2(2.0)], ids=repr)
def test_the_layers_of_another_network_stay_to_the_last_bit_and_then_learn(
    backend: Backend, name: str, regularizer: Any
) -> None:
    training = trainer(trained(backend), device=backend, optimizer=OPTIMIZERS[name](), regularizer=regularizer)
    start, at_thawing = training.model.arrays(), dict[str, Any]()

    def watch() -> None:
        if training.done == 2 * STEPS:
            at_thawing.update(training.model.arrays())

    with calling(training, watch):
        training.run()
    assert changed(start, at_thawing) == NEW
    assert changed(at_thawing, training.model.arrays()) == OLD | NEW
    assert [layer.trainable for layer in training.model.layers] == [True] * 8
    assert all(p.grad is not None for p in training.model.parameters)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_is_a_training_of_the_new_layers_and_then_one_of_all(backend: Backend, name: str) -> None:
    by_hand, optimizer = trained(backend).replace_last(5), OPTIMIZERS[name]()
    at_once = copy.copy(by_hand)
    at_once.fit(images(5), optimizer=OPTIMIZERS[name](), epochs=3, freeze=1, device=backend, **KW)
    for layer in by_hand.layers[:-1]:
        layer.trainable = False
    by_hand.fit(images(5), optimizer=optimizer, epochs=1, device=backend, **KW)
    by_hand.trainable = True
    by_hand.fit(images(5), optimizer=optimizer, epochs=2, device=backend, **KW)
    np.testing.assert_equal(at_once.arrays(), by_hand.arrays())
    assert at_once.steps_trained == by_hand.steps_trained == 3 * STEPS


def test_several_new_layers_learn_together(source: gn.Sequential) -> None:
    model = gn.Sequential([*source.layers[:4], gn.Dense(7), gn.Tanh(), gn.Dense(5)])
    start = model.build((6, 6, 1), 16, "cpu", seed=3).arrays()
    for network in (model, copy.deepcopy(model)):
        network.fit(images(5), epochs=1, freeze=1, device="cpu", **KW)
        assert changed(start, network.arrays()) == {"dense1", "dense2"}


def test_without_a_new_layer_the_last_one_learns_alone(source: gn.Sequential, tmp_path: Path) -> None:
    source.save(tmp_path / "model.safetensors")
    start = source.arrays()
    for model in (copy.deepcopy(source), gn.Sequential(source.layers), gn.load_model(tmp_path / "model.safetensors")):
        model.fit(images(), epochs=1, freeze=1, device="cpu", **KW)
        assert changed(start, model.arrays()) == NEW


def test_a_layer_that_is_not_trainable_stays_frozen(source: gn.Sequential) -> None:
    model = source.replace_last(5)
    model.layers[0].trainable = False
    start = model.build((6, 6, 1), 16, "cpu", seed=3).arrays()
    model.fit(images(5), epochs=2, freeze=1, device="cpu", **KW)
    assert changed(start, model.arrays()) == {"batchnorm1", "dense1", "dense2"}
    assert not model.layers[0].trainable


@pytest.mark.parametrize(("epochs", "freeze"), [(1, 1), (2, 5)])
def test_layers_that_are_held_to_the_end_keep_their_statistics_and_learn_in_the_next_training(
    source: gn.Sequential, epochs: int, freeze: int
) -> None:
    model = source.replace_last(5)
    start = model.build((6, 6, 1), 16, "cpu", seed=3).arrays()
    options = {**KW, "device": "cpu", "recompute_statistics": True}
    model.fit(images(5), epochs=epochs, freeze=freeze, **options)
    held = model.arrays()
    assert changed(start, held) == NEW
    model.fit(images(5), epochs=1, **options)
    assert changed(held, model.arrays()) == OLD | NEW


# Stopped, and gone on with


def runs_of(source: gn.Sequential) -> dict[str, Callable[..., Trainer]]:
    return {
        "momentum": lambda **options: trainer(source, **options),
        "plain, skipping": lambda **options: trainer(
            source, optimizer=gn.SGD(0.02), skip_bad_batches=True, regularizer=gn.L2(1.0), **options
        ),
        "adam": lambda **options: trainer(
            source, optimizer=gn.Adam(gn.OneCycle(0.01)), patience=3.0, recompute_statistics=True,
            validate_every=5, augmentation=gn.Augmentation(shift=1.0), **options,
        ),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["momentum", "plain, skipping", "adam"])
def test_a_training_goes_on_to_the_same_bits_from_before_at_and_after_the_thawing(
    source: gn.Sequential, name: str, tmp_path: Path
) -> None:
    make = runs_of(source)[name]
    whole = make()
    whole.run()
    assert whole.done == 4 * STEPS
    for cut in (0, 1, 7, 11, 12, 13, 17, 18, 23, 24):
        first = make()
        write_checkpoint(tmp_path / f"{cut}", stopped_after(first, cut), ORIGIN, first.model)
        second, checkpoint = make(), open_checkpoint(tmp_path / f"{cut}")
        second.move_to(checkpoint.step)
        second.restore(checkpoint.state(second.state()))
        second.run()
        assert outcome(second) == outcome(whole), cut


def test_an_end_at_the_thawing_goes_on_as_if_it_had_never_been_one(source: gn.Sequential) -> None:
    whole, first = (trainer(source, epochs=epochs) for epochs in (4, 2))
    whole.run()
    state = stopped_after(first, 2 * STEPS)
    second = trainer(source)
    second.restore(state)
    second.run()
    assert outcome(second) == outcome(whole)


@pytest.mark.parametrize("step", [2, 12, 13, 20])
def test_a_training_that_diverges_finds_the_first_bad_number_and_leaves_nothing_held(
    source: gn.Sequential, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = trainer(source)

    def spoil() -> None:
        if training.done == step - 1:
            training.data.train.inputs.setflags(write=True)
            training.model.load_arrays({k: np.full_like(v, np.nan) for k, v in training.model.arrays().items()})

    with pytest.raises(DivergenceError, match=f"step {step}: "), calling(training, spoil):
        training.run()
    assert not training.model.held
    assert all(np.isfinite(array).all() for array in training.model.arrays().values())
    training.model.fit(images(5), device="cpu", epochs=1, **KW)


def test_an_interrupt_while_layers_are_held_leaves_none_held(source: gn.Sequential) -> None:
    training = trainer(source)

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), calling(training, stop):
        training.run()
    assert not training.model.held
    assert training.model.freezing_changed  # so that it is built again for the next step


def test_sums_of_a_record_go_on_over_the_thawing(source: gn.Sequential) -> None:
    """A record of the steps before and after it counts all of their samples."""
    seen = [trainer(source, validate_every=every, freeze=1, optimizer=gn.SGD(1e-30)) for every in (3, 9)]
    for training in seen:
        training.run()
    parts, (record, *_) = list(seen[0].history)[:3], list(seen[1].history)
    assert record.step == 9
    samples = [48, 40, 48]  # of 88 an epoch
    mean = sum(part.train_loss * n for part, n in zip(parts, samples, strict=True)) / sum(samples)
    assert record.train_loss == pytest.approx(mean, rel=0.05)


# What cannot be


@pytest.mark.parametrize("freeze", [-1, 1.5, "all", None, True, float("nan")])
def test_freeze_is_a_number_of_epochs(source: gn.Sequential, freeze: Any) -> None:
    with pytest.raises(OptionError, match="freeze must be a whole number of at least 0") as caught:
        source.replace_last(5).fit(images(5), freeze=freeze, device="cpu", **KW)
    one_line(caught.value)


@pytest.mark.parametrize("layers", [[gn.Flatten(), gn.Dense(5)], [gn.Flatten()]], ids=["new", "without weights"])
def test_a_network_that_has_learned_nothing_has_nothing_to_hold(layers: list[Any]) -> None:
    model = gn.Sequential(layers)
    with pytest.raises(OptionError, match="freeze needs trained layers, and this network has none") as caught:
        model.fit(images(5), freeze=1, device="cpu", **KW)
    one_line(caught.value)


def test_a_training_that_cannot_begin_leaves_nothing_held(source: gn.Sequential) -> None:
    model = source.replace_last(5)
    model.layers[-1].trainable = False
    with pytest.raises(OptionError, match="every layer with weights is frozen"):
        model.fit(images(5), freeze=1, device="cpu", **KW)
    model.layers[-1].trainable = True
    assert not model.held


# The last layer anew


def test_the_last_layer_is_replaced_and_the_rest_is_a_copy(source: gn.Sequential) -> None:
    before = source.arrays()
    model = source.replace_last(5).build((6, 6, 1), device="cpu")
    assert model.output_shape == (5,)
    assert changed(before, model.arrays()) == NEW
    model.fit(images(5), epochs=1, device="cpu", **KW)
    np.testing.assert_equal(source.arrays(), before)
    assert model.trained_on is not None
    assert (model.class_names, source.class_names) == (tuple("01234"), tuple("012"))


def test_what_comes_after_the_last_weights_is_made_anew_too() -> None:
    model = gn.Sequential([gn.Dense(4), gn.ReLU(), gn.Dense(3, bias=False), gn.BatchNorm(momentum=0.3), gn.Softmax()])
    model.build((2,), device="cpu")
    model.layers[3].trainable = model.layers[2].trainable = False
    made = model.replace_last(6)
    assert list(map(repr, made.layers[2:])) == ["Dense(6, bias=False)", "BatchNorm(1e-05, momentum=0.3)", "Softmax()"]
    assert made.build((2,), device="cpu").trainable
    assert made.inherited == {0, 1}
    assert made.layers[2].trainable
    assert made.layers[3].trainable


def test_a_convolution_is_replaced_where_each_filter_is_an_output() -> None:
    layers = [gn.Conv2D(4), gn.ReLU(), gn.Conv2D(3, size=2, padding="same"), gn.AveragePool2D(4), gn.Flatten()]
    model = gn.Sequential(layers).build((6, 6, 1), device="cpu")
    made = model.replace_last(2).build((6, 6, 1), device="cpu")
    assert (repr(made.layers[2]), made.output_shape) == ("Conv2D(2, size=2, padding='same')", (2,))
    wide = gn.Sequential([gn.Conv2D(4), gn.Flatten()]).build((6, 6, 1), device="cpu")
    with pytest.raises(OptionError, match="makes 4 of the 64 outputs") as caught:
        wide.replace_last(2)
    one_line(caught.value)


@gn.register
class Doubled(gn.Layer):
    """A layer of one's own that does not say how its outputs are counted."""

    has_weights = True

    def build(self, context: Any, input_shape: Any) -> Any:
        self.w = context.parameter("w", input_shape, gn.Normal(1.0))
        return input_shape

    def forward(self, x: Any, training: bool) -> Any:
        return x

    def backward(self, dy: Any) -> Any:
        return dy


@pytest.mark.parametrize(
    ("layers", "outputs", "words"),
    [
        ([gn.Flatten()], 2, "no layer of the network has weights"),
        ([gn.Dense(2)], 0, "number of outputs must be a whole number of at least 1"),
        ([gn.Dense(2)], "5", "number of outputs must be a whole number"),
        ([gn.Dense(2), Doubled()], 3, "cannot be made again with 3 outputs: write Sequential"),
    ],
    ids=["no weights", "0", "text", "own layer"],
)
def test_what_cannot_be_replaced_is_said_in_a_line(layers: list[Any], outputs: Any, words: str) -> None:
    model = gn.Sequential(layers).build((4,), device="cpu")
    with pytest.raises(GpunnError, match=words) as caught:
        model.replace_last(outputs)
    one_line(caught.value)


def test_a_network_that_is_not_built_has_nothing_to_take(source: gn.Sequential) -> None:
    with pytest.raises(GpunnError, match="not built yet"):
        gn.Sequential([gn.Dense(2)]).replace_last(3)


def test_inputs_of_another_range_than_those_of_the_source_are_refused(source: gn.Sequential) -> None:
    data = images(5).train
    with pytest.raises(DataError, match=r"inputs reach from .* the network was trained on bytes") as caught:
        source.replace_last(5).fit(data.inputs.astype(np.float32), data.targets, device="cpu", **KW)
    one_line(caught.value)


# Worth


def few(digits: range, count: int) -> gn.Data:
    """So many of the bundled digits of each class, numbered from 0, and all of the test set to look at."""
    data = gn.load_data("digits", validation=0)

    def picked(samples: gn.Samples, most: int) -> gn.Samples:
        at = np.concatenate([np.flatnonzero(samples.targets == digit)[:most] for digit in digits])
        return gn.Samples(samples.inputs[at], samples.targets[at] - digits[0], samples.scale)

    return gn.Data("few", picked(data.train, count), picked(data.test, 1000), tuple(map(str, digits)))  # type: ignore[arg-type]


def layers() -> list[gn.Layer]:
    return [
        gn.Conv2D(16, padding="same"), gn.ReLU(), gn.MaxPool2D(), gn.Conv2D(32, padding="same"), gn.ReLU(),
        gn.Flatten(), gn.Dropout(0.3), gn.Dense(5),
    ]  # fmt: skip


def test_digits_from_5_on_are_learned_from_few_samples_after_those_below() -> None:
    """Five images of each, three epochs; means over three seeds."""
    options: dict[str, Any] = {"batch_size": 16, "device": "cpu", "progress": False}
    after, new = [], []
    for seed in range(3):
        source = gn.Sequential(layers())
        below, above = few(range(5), 200), few(range(5, 10), 5)
        source.fit(below, optimizer=gn.SGD(0.02, momentum=0.9), epochs=3, seed=seed, **options)
        for found, model, freeze in ((after, source.replace_last(5), 1), (new, gn.Sequential(layers()), 0)):
            optimizer = gn.SGD(0.03, momentum=0.9)
            model.fit(above, optimizer=optimizer, epochs=3, freeze=freeze, seed=seed, **options)
            assert above.validation is not None
            found.append(model.evaluate(above.validation).accuracy)
    assert np.mean(after) > np.mean(new) + 0.08, (after, new)
