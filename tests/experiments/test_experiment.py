"""Experiment files: what they may say, what is refused, and that what was written runs the same again."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cli_helpers import TINY, assert_one_line, gpunn, without_pictures
from support.harness import one_line

import gpunn as gn
from gpunn.config import from_config, to_config
from gpunn.errors import DataError, GpunnError, OptionError
from gpunn.experiments import run
from gpunn.experiments.experiment import Experiment, parse_experiment, read_experiment, recipes
from gpunn.experiments.predict import evaluate_run

SMALL = gn.Data.from_arrays(np.random.default_rng(0).normal(size=(100, 4)), np.arange(100) % 3)


def changed(*replacements: tuple[str, str]) -> str:
    """The tiny experiment, some of its text replaced."""
    text = TINY
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new, 1)
    return text


@pytest.mark.parametrize("name", sorted(recipes()))
def test_a_recipe_is_what_it_says_after_writing_and_reading(name: str) -> None:
    experiment = read_experiment(name)
    assert experiment.name == name
    assert experiment.description
    assert parse_experiment(experiment.to_toml(), "again") == experiment


def test_the_recipes_are_in_the_package() -> None:
    dense = {"mlp", "table", "nielsen-100", "nielsen-overfitting", "nielsen-regularized"}
    convolutional = {"fast99", "lenet", "lenet-bn", "lenet-digits", "images", "image-numbers", "resnet"}
    assert set(recipes()) == dense | convolutional | {"autoencoder"}


@pytest.mark.parametrize(
    ("name", "layers", "rate", "strength", "epochs", "validation"),
    [
        ("nielsen-100", (100, 10), 0.1, 5.0, 60, 10000),
        ("nielsen-overfitting", (30, 10), 0.5, None, 400, "test"),
        ("nielsen-regularized", (30, 10), 0.5, 0.1, 400, "test"),
    ],
)
def test_a_recipe_of_nielsen_s_has_his_hyper_parameters(
    name: str, layers: tuple[int, ...], rate: float, strength: float | None, epochs: int, validation: object
) -> None:
    experiment = read_experiment(name)
    assert tuple(layer["units"] for layer in experiment.layers if layer["type"] == "Dense") == layers
    assert experiment.optimizer == {"type": "SGD", "learning_rate": rate}
    assert (experiment.regularizer or {}).get("strength") == strength
    assert (experiment.training.epochs, experiment.training.batch_size) == (epochs, 10)
    assert experiment.data.validation == validation
    assert experiment.loss == {"type": "BinaryCrossEntropy"}


def test_what_was_left_open_is_decided_and_written() -> None:
    trainer = parse_experiment(TINY, "tiny").trainer(gn.load_data("digits"), progress=False)
    resolved = parse_experiment(TINY, "tiny").resolved(trainer)
    assert resolved.layers == ({"type": "Dense", "units": 10, "weights": {"type": "Glorot"}, "bias": 0.0},)
    assert resolved.loss == {"type": "SoftmaxCrossEntropy", "label_smoothing": 0.0}
    assert resolved.optimizer == to_config(gn.SGD(0.1))
    assert resolved.training.device == "cpu"
    assert resolved.data.shape == (8, 8, 1)
    assert len(resolved.data.sha256) == 64
    assert resolved.version == gn.__version__
    assert parse_experiment(resolved.to_toml(), "again") == resolved


def test_the_written_experiment_gives_the_same_run_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert gpunn("train", "--seed", 3, "--epochs", 2, "--out", "one").code == 0
    assert gpunn("train", "--recipe", "one/experiment.toml", "--out", "two").code == 0
    one, two = (Path(name) for name in ("one", "two"))
    for name in ("experiment.toml", "confusion.png", "mistakes.png"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    models = [gn.load_model(folder / "model.safetensors").parameters.to_host() for folder in (one, two)]
    for name, values in models[0].items():
        np.testing.assert_array_equal(values, models[1][name])
    rows = [[record[:-1] for record in _rows(folder)] for folder in (one, two)]
    assert rows[0] == rows[1]


def _rows(folder: Path) -> list[list[str]]:
    """The history without its last column, the time."""
    return [line.split(",") for line in (folder / "history.csv").read_text().splitlines()]


def test_an_experiment_says_when_its_data_have_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    without_pictures(monkeypatch)
    x, y = np.random.default_rng(0).normal(size=(100, 4)), np.arange(100) % 3
    np.savez("mine.npz", x=x, y=y)
    assert gpunn("train", "mine.npz", "--epochs", 1, "--out", "one").code == 0
    np.savez("mine.npz", x=x + 1, y=y)
    done = gpunn("train", "--recipe", "one/experiment.toml", "--out", "two")
    assert_one_line(done, 1, "mine.npz", "does not hold the training data", "on the command line")
    assert not Path("two").exists()
    assert gpunn("train", "mine.npz", "--recipe", "one/experiment.toml", "--out", "two").code == 0


def test_a_path_in_a_written_experiment_holds_from_every_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("mine.npz", x=np.random.default_rng(0).normal(size=(60, 4)), y=np.arange(60) % 3)
    experiment = read_experiment("mlp").with_options(data="mine.npz")
    assert experiment.data.source == str(tmp_path / "mine.npz")
    assert read_experiment("mlp").with_options(data="mnist").data.source == "mnist"


def test_batches_are_smaller_where_samples_are_few() -> None:
    training = read_experiment("mlp").training
    assert training.batch_size_for(54_000) == 128
    assert training.batch_size_for(1_293) == 32
    assert training.batch_size_for(20) == 20
    exact = read_experiment("mlp").with_options(batch_size=77).training
    assert exact.batch_size_for(1_293) == 77


def test_outputs_is_as_many_as_the_data_have_classes_or_targets() -> None:
    experiment = parse_experiment(TINY, "tiny")
    floats = gn.Data.from_arrays(np.ones((10, 4)), np.ones((10, 2)))
    assert experiment.model(SMALL).layers[-1].units == 3  # type: ignore[attr-defined]
    assert experiment.model(floats).layers[-1].units == 2  # type: ignore[attr-defined]


def test_the_learning_rate_option_sets_what_a_schedule_is_measured_by() -> None:
    assert read_experiment("mlp").with_options(learning_rate=0.5).optimizer["learning_rate"]["peak"] == 0.5
    step = 'learning_rate = { type = "StepDecay", rate = 0.1 }'
    experiment = parse_experiment(changed(("learning_rate = 0.1", step)), "tiny")
    assert experiment.with_options(learning_rate=0.5).optimizer["learning_rate"]["rate"] == 0.5


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        ("0.1", 0.5),
        ('{ type = "OneCycle", peak = 0.1 }', {"type": "OneCycle", "peak": 0.5}),
        ('{ type = "Cosine", rate = 0.1, final = 0.01 }', {"type": "Cosine", "rate": 0.5, "final": 0.01}),
    ],
)
def test_the_learning_rate_option_sets_what_is_within_a_warmup(rate: str, expected: Any) -> None:
    warmup = f'learning_rate = {{ type = "Warmup", steps = 9, rate = {rate} }}'
    experiment = parse_experiment(changed(("learning_rate = 0.1", warmup)), "tiny")
    table = {"type": "Warmup", "steps": 9, "rate": expected}
    assert experiment.with_options(learning_rate=0.5).optimizer["learning_rate"] == table
    later = experiment.with_options(learning_rate=0.25, at_epoch=1.5).with_options(learning_rate=0.5, at_epoch=2.0)
    assert later.optimizer["learning_rate"]["after"] == table
    assert later.trainer(later.load_data(), progress=False).optimizer.schedule.given == 0.5
    again = parse_experiment(later.to_toml(), "tiny")
    assert again.optimizer == later.optimizer
    assert from_config("optimizer", again.optimizer).schedule.given == 0.5


def test_every_part_can_be_said_in_a_file() -> None:
    text = changed(
        ('type = "SGD"', 'type = "Adam"'),
        ("learning_rate = 0.1", 'learning_rate = { type = "Cosine", rate = 0.01 }'),
        (
            "[optimizer]",
            (
                '[regularizer]\ntype = "L1"\nstrength = 0.1\n[augmentation]\nshift = 1.0\n'
                'type = "Augmentation"\n[optimizer]'
            ),
        ),
        (
            "epochs = 2",
            'epochs = 2\nvalidate_every = 1\npatience = 1.5\ndtype = "float64"\nrecompute_statistics = false',
        ),
    )
    trainer = parse_experiment(text, "tiny").trainer(gn.load_data("digits"), progress=False)
    assert isinstance(trainer.optimizer, gn.Adam)
    assert isinstance(trainer.optimizer.learning_rate, gn.Cosine)
    assert isinstance(trainer.options.regularizer, gn.L1)
    assert trainer.options.augmentation is not None
    assert trainer.options.augmentation.shift == 1.0
    assert (trainer.options.validate_every, trainer.options.patience, trainer.model.dtype) == (1, 1.5, "float64")
    resolved = parse_experiment(text, "tiny").resolved(trainer)
    assert parse_experiment(resolved.to_toml(), "again") == resolved


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("epochs = 2", "epoch = 2", ("[training] has no key 'epoch'", "did you mean 'epochs'")),
        ("epochs = 2", 'epochs = "two"', ("training.epochs must be a whole number, got 'two'",)),
        ("epochs = 2", "epochs = 2.5", ("training.epochs must be a whole number",)),
        ("epochs = 2", "epochs = true", ("training.epochs must be a whole number",)),
        ("epochs = 2", "epochs = 99999999999999999999", ("training.epochs",)),
        ("epochs = 2", "epochs = 2\npatience = nan", ("training.patience must be finite",)),
        ('source = "digits"', "source = 3", ("data.source must be a text",)),
        ('source = "digits"', "validation = [1]", ("data.validation",)),
        ('name = "tiny"', 'name = "../tiny"', ("name must be letters",)),
        ('name = "tiny"', 'nam = "tiny"', ("no key 'nam'", "did you mean 'name'")),
        ('name = "tiny"', "data = 3", ("",)),
        ('type = "Dense"', 'type = "Dens"', ("unknown layer 'Dens'", "Dense")),
        ('type = "Dense"', 'type = "__import__"', ("unknown layer",)),
        ('type = "Dense"', 'kind = "Dense"', ("must be a table with a type",)),
        ('units = "outputs"', 'units = "many"', ("units",)),
        ('units = "outputs"', "units = 0", ("units of Dense",)),
        ('units = "outputs"', "units = 99999999999999", ("units of Dense",)),
        ('units = "outputs"', 'units = 10\nbias = "b"', ("bias of Dense must be",)),
        ('units = "outputs"', "units = 10\nbias = inf", ("bias of Dense must be finite",)),
        ('units = "outputs"', 'units = 10\nweights = "best"', ("weights",)),
        ('units = "outputs"', 'units = 10\nweights = { type = "OneCycle", peak = 1 }', ("unknown initializer",)),
        ('type = "SGD"', 'type = "SGDD"', ("unknown optimizer",)),
        ('type = "SGD"', 'type = "SGD"\nmomentum = "much"', ("momentum of SGD must be a number",)),
        ('type = "SGD"', 'type = "SGD"\nnesterov = 1', ("nesterov of SGD must be true or false",)),
        ("learning_rate = 0.1", "learning_rate = -1", ("must be above 0",)),
        ("learning_rate = 0.1", "learning_rate = nan", ("learning_rate of SGD must be finite",)),
        ("learning_rate = 0.1", "rate = 0.1", ("SGD has no option 'rate'",)),
        ("[optimizer]", "[optimiser]", ("no key 'optimiser'", "did you mean 'optimizer'")),
        ('name = "tiny"', "name = ", ("is no TOML",)),
    ],
)
def test_a_mistake_in_a_file_is_named_with_the_file(old: str, new: str, words: tuple[str, ...]) -> None:
    with pytest.raises(OptionError) as caught:
        _build(parse_experiment(changed((old, new), ("batch_size = 700", "batch_size = 50")), "tiny.toml"))
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    for word in words:
        assert word in message


def _build(experiment: Experiment) -> None:
    """Some mistakes only show when the network is built."""
    experiment.trainer(SMALL, progress=False)


@pytest.mark.parametrize(
    "text", ["", "a = " + "[" * 50000, "layers = []\noptimizer = 1", "layers = [3]\noptimizer = 1"]
)
def test_what_is_no_experiment_is_refused(text: str) -> None:
    with pytest.raises(OptionError):
        parse_experiment(text, "tiny.toml")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a." * 30_000 + "a = 1", "line 1 has more than 16 dots"),
        ("[" + "a." * 30_000 + "a]", "line 1 has more than 16 dots"),
        ("a = " + "9" * 5000, "is no experiment"),
        ("a = 0x" + "9" * 50_000, "no key 'a'"),
        ('layers = ["ReLU"]\noptimizer = 0x' + "9" * 50_000, "is no experiment"),
        ('layers = ["ReLU"]\noptimizer = "SGD"\n[training]\nseed = 0x' + "9" * 50_000, "is no experiment"),
        ("layers = [" + '"ReLU",' * 1001 + "]\noptimizer = 'SGD'", "a list of 1 to 1,000 tables"),
        ("layers = ['" + "x" * 50_000 + "']\noptimizer = 'SGD'", "unknown layer 'xxx"),
        ("x" * 50_000 + " = 1", "has no key 'xxx"),
        ("layers = ['ReLU']\noptimizer = 'SGD'\n[data]\nshape = [-28, -28, 1]", "data.shape must be"),
        ("layers = ['ReLU']\noptimizer = 'SGD'\n[data]\nshape = [0]", "data.shape must be"),
        ("layers = ['ReLU']\noptimizer = 'SGD'\n[data]\nshape = [4, 4]", "data.shape must be"),
        ("layers = ['ReLU']\noptimizer = 'SGD'\nname = '../../out'", "name must be letters"),
    ],
    ids=lambda value: value[:40],
)
def test_a_hostile_experiment_is_refused_in_one_line(text: str, word: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse_experiment(text, "tiny.toml")
    assert word in one_line(caught.value)


@pytest.mark.parametrize("source", ["~nobody-of-that-name/x", "x" * 5000, "/" + "x/" * 3000, "a\0b", "/dev/zero"])
def test_data_that_cannot_be_looked_for_are_refused_in_one_line(source: str) -> None:
    experiment = parse_experiment(TINY, "tiny").with_options(data=source)
    with pytest.raises(GpunnError) as caught:
        experiment.load_data()
    one_line(caught.value)


def test_a_pipe_is_no_experiment(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(OptionError, match="it is no regular file"):
        read_experiment(str(tmp_path / "pipe.toml"))


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"#" * (2 << 20)], ids=["bytes", "2 MiB"])
def test_a_file_that_is_no_text_or_too_large_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "wrong.toml").write_bytes(content)
    with pytest.raises(OptionError, match=r"it is no experiment file|it is larger than 65,536 bytes"):
        read_experiment(str(tmp_path / "wrong.toml"))


def test_a_seed_changes_the_split_so_the_fingerprint_is_dropped() -> None:
    trainer = parse_experiment(TINY, "tiny").trainer(gn.load_data("digits"), progress=False)
    resolved = parse_experiment(TINY, "tiny").resolved(trainer)
    assert resolved.with_options(seed=5).load_data().train.shape == (8, 8, 1)
    wrong = parse_experiment(resolved.to_toml().replace(resolved.data.sha256, "0" * 64), "wrong")
    with pytest.raises(DataError, match="does not hold the training data"):
        wrong.load_data()


@pytest.mark.parametrize(
    ("kind", "loss"),
    [("labels", None), ("names", "MeanSquaredError"), ("rows", "SoftmaxCrossEntropy"), ("rows", "BinaryCrossEntropy")],
)
def test_the_smallest_sets_run_and_run_again_to_the_bit(
    tmp_path: Path, kind: str, loss: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, labels = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]]), np.array([0, 1, 1, 0])
    y = {"labels": labels, "names": np.array(["no", "yes"])[labels], "rows": np.eye(2)[labels]}[kind]
    np.savez(tmp_path / "xor.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    experiment = read_experiment("mlp").with_options(
        data=str(tmp_path / "xor.npz"), device="cpu", epochs=40, learning_rate=0.05
    )
    experiment = replace(experiment, loss=None if loss is None else {"type": loss})
    first = run.train(experiment, tmp_path / "first", lambda line: None, progress=False)
    written = read_experiment(str(first / "experiment.toml"))
    assert (written.training.batch_size, written.training.least_steps) == (4, 0)
    without_pictures(monkeypatch)  # which the first has drawn
    again = run.train(written, tmp_path / "again", lambda line: None, progress=False)
    assert (again / "model.safetensors").read_bytes() == (first / "model.safetensors").read_bytes()
    assert (again / "experiment.toml").read_bytes() == (first / "experiment.toml").read_bytes()
    model = gn.load_model(first / "model.safetensors", "cpu")
    several = (kind, loss) == ("rows", "BinaryCrossEntropy")
    assert model.class_names == (() if several else ("no", "yes") if kind == "names" else ("0", "1"))
    np.testing.assert_array_equal(model.predict_proba(x).argmax(axis=1), labels)
    assert "(4)" in evaluate_run(str(first), device="cpu")
