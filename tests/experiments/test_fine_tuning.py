"""`gpunn train --from RUN`: a network that has learned before, with a new last layer, resumed and repeated."""

import hashlib
import os
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from PIL import Image
from support.cli_helpers import Done, assert_one_line, experiment_toml, gpunn, results_of, without_pictures

import gpunn as gn
from gpunn.saving import checkpointer
from gpunn.saving.checkpointer import list_checkpoints

LAYERS: list[dict[str, Any]] = [
    {"type": "Conv2D", "filters": 4}, {"type": "BatchNorm"}, {"type": "ReLU"}, {"type": "Flatten"},
    {"type": "Dropout", "p": 0.2}, {"type": "Dense", "units": 12}, {"type": "Tanh"},
]  # fmt: skip
STEPS = 5  # an epoch of the second training


def digits(path: Path, classes: range, count: int, **more: Any) -> None:
    """Some of the bundled digits as an archive, with names for labels."""
    data = gn.load_data("digits", validation=0)
    parts: dict[str, Any] = {}
    for part, samples, most in (("train", data.train, count), ("test", data.test, 30)):
        at = np.concatenate([np.flatnonzero(samples.targets == k)[:most] for k in classes])
        parts[f"x_{part}"] = samples.inputs[at] * 15
        parts[f"y_{part}"] = np.array([f"digit {k}" for k in samples.targets[at]])
    np.savez(path, **parts | more)


@pytest.fixture(scope="module", autouse=True)
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Digits below 5 and a run that has learned them, the others, and a run that was fine-tuned for these."""
    folder = tmp_path_factory.mktemp("tuning")
    optimizer = {"type": "SGD", "momentum": 0.9, "learning_rate": {"type": "Cosine", "rate": 0.05}}
    text = experiment_toml(
        LAYERS, optimizer, epochs=2, batch_size=40, device="cpu", data={"source": str(folder / "below.npz")},
        regularizer={"type": "L2", "strength": 0.5}, checkpoints={"every": 1, "keep": 99},
    )  # fmt: skip
    text = text.replace('source = "digits"', f'source = "{folder / "below.npz"}"')
    with pytest.MonkeyPatch.context() as patch:
        without_pictures(patch)
        patch.chdir(folder)
        patch.delenv("GPUNN_DATA", raising=False)
        patch.delenv("GPUNN_DEBUG", raising=False)
        digits(folder / "below.npz", range(5), 80)
        digits(folder / "above.npz", range(5, 10), 40)
        (folder / "source.toml").write_text(text)
        for command in (("--recipe", "source.toml", "--out", "below"), ("above.npz", *TUNED, "--out", "whole")):
            done = gpunn("train", *command)
            assert done.code == 0, done.err
        yield folder


TUNED = ("--from", "below", "--freeze", 2, "--epochs", 4, "--batch-size", 40)


@pytest.fixture(autouse=True)
def own(tmp_path: Path, world: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own, with links to the others' data and copies of the runs."""
    monkeypatch.chdir(tmp_path)
    for name in ("below.npz", "above.npz", "source.toml"):
        (tmp_path / name).symlink_to(world / name)
    shutil.copytree(world / "below", tmp_path / "below")
    return tmp_path


def train(*arguments: object) -> Done:
    return gpunn("train", *arguments)


def table_of(run: object) -> dict[str, Any]:
    return tomllib.loads(Path(f"{run}/experiment.toml").read_text())


def arrays(path: object) -> dict[str, Any]:
    return gn.load_model(str(path), "cpu").arrays()


def changed(one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    return {name.split(".")[0] for name in one if not np.array_equal(one[name], other[name])}


# What is taken


def test_a_run_begins_with_the_layers_of_another_and_holds_them_at_first(world: Path, own: Path) -> None:
    done = train("above.npz", *TUNED, "--out", "run", "--checkpoint-every", STEPS, "--checkpoint-keep", 9)
    assert done.code == 0, done.err
    assert "settings    those of" in done.out
    assert f"begins with 7 of 8 layers of {own / 'below' / 'model.safetensors'}; the last is new" in done.out
    assert "frozen      for 2 epochs only the new layers learn, then all layers do" in done.out
    assert "from epoch 3 on all layers learn" in done.err
    source, held, ended = (
        arrays(f"{path}/model.safetensors") for path in ("below", f"run/checkpoints/step-{2 * STEPS}", "run")
    )
    assert changed(source, held) == {"dense2"}
    assert changed(held, ended) == {"conv1", "batchnorm1", "dense1", "dense2"}
    assert gn.load_model("run/model.safetensors").class_names == tuple(f"digit {k}" for k in range(5, 10))


def test_the_experiment_says_where_the_network_came_from_and_is_repeated_to_the_same_bytes(
    world: Path, own: Path
) -> None:
    table = table_of(world / "whole")
    path = world / "below" / "model.safetensors"
    assert table["start"] == {
        "network": str(path),
        "layers": 7,
        "trainable": True,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    assert table["training"]["freeze"] == 2
    assert table["regularizer"] == {"type": "L2", "strength": 0.5}  # of the run that it begins with
    assert table["optimizer"]["learning_rate"]["rate"] == 0.05
    done = train("--recipe", world / "whole" / "experiment.toml", "--out", "again")
    assert done.code == 0, done.err
    assert results_of(own / "again") == results_of(world / "whole")


@pytest.mark.parametrize(
    "run", ["below/model.safetensors", "below/checkpoints/step-3", "below/checkpoints/step-3/best.safetensors"]
)
def test_a_model_file_or_a_checkpoint_is_as_good_as_a_run(run: str) -> None:
    done = train("above.npz", "--from", run, "--epochs", 1, "--out", "run")
    assert done.code == 0, done.err
    assert "settings    those of" in done.out
    assert table_of("run")["regularizer"] == {"type": "L2", "strength": 0.5}
    assert "frozen      for 1 epoch only the new layers learn, to the end" in done.out


def test_a_model_file_of_no_run_is_trained_as_the_recipe_says(own: Path) -> None:
    shutil.move(own / "below" / "model.safetensors", own / "lonely.safetensors")
    assert train("above.npz", "--from", "lonely.safetensors", "--epochs", 1, "--out", "run").code == 0
    table = table_of("run")
    assert table["optimizer"]["learning_rate"]["type"] == "OneCycle"  # of mlp
    assert len(table["layers"]) == 8
    done = train(
        "above.npz", "--from", "below/checkpoints/step-3", "--recipe", "lenet-digits", "--epochs", 1, "--out", "b"
    )
    assert done.code == 0, done.err
    assert "settings    recipe lenet-digits; the layers are from" in done.out
    assert len(table_of("b")["layers"]) == 8
    assert table_of("b")["loss"]["type"] == "SoftmaxCrossEntropy"  # which the last layer was made for


def test_the_last_layer_is_kept_where_the_classes_have_the_same_names() -> None:
    done = train("below.npz", "--from", "below", "--epochs", 1, "--out", "run")
    assert done.code == 0, done.err
    assert "model.safetensors, the last too: the classes are the same" in done.out
    assert "only the last layer learns" in done.out
    source, ended = arrays("below/model.safetensors"), arrays("run/model.safetensors")
    assert changed(source, ended) == {"dense2"}
    assert np.abs(source["dense2.w"] - ended["dense2.w"]).max() < 0.2


def test_all_layers_learn_from_the_start_or_the_new_one_alone_to_the_end() -> None:
    for freeze, learned in (("0", {"conv1", "batchnorm1", "dense1", "dense2"}), ("all", {"dense2"})):
        done = train("above.npz", "--from", "below", "--freeze", freeze, "--epochs", 2, "--out", f"run-{freeze}")
        assert done.code == 0, done.err
        assert changed(arrays("below/model.safetensors"), arrays(f"run-{freeze}/model.safetensors")) == learned
    assert "frozen      only the new layers learn, to the end" in done.out
    # A network that was trained so learns as a whole in the next fine-tuning.
    assert train("below.npz", "--from", "run-all", "--freeze", 0, "--epochs", 1, "--out", "next").code == 0
    ended = arrays("next/model.safetensors")
    assert changed(arrays("below/model.safetensors"), ended) == {"conv1", "batchnorm1", "dense1", "dense2"}


def test_another_task_takes_another_loss_and_no_activation_at_the_end(own: Path) -> None:
    table = table_of("below")
    table["layers"] = [*table["layers"], {"type": "Softmax"}]
    with (own / "soft.toml").open("w") as file:
        file.write(tomli_w.dumps({**table, "checkpoints": {}}))
    assert train("--recipe", "soft.toml", "--out", "soft").code == 0
    rng = np.random.default_rng(0)
    np.savez("numbers.npz", x_train=rng.integers(0, 255, (60, 8, 8), np.uint8), y_train=rng.normal(size=(60, 3)))
    done = train("numbers.npz", "--from", "soft", "--epochs", 1, "--out", "run")
    assert done.code == 0, done.err
    tuned = table_of("run")
    assert tuned["loss"] == {"type": "MeanSquaredError"}
    assert [layer["type"] for layer in tuned["layers"]][-2:] == ["Tanh", "Dense"]
    assert tuned["layers"][-1]["units"] == 3
    # And back: one output for numbers becomes as many as there are classes.
    done = train("above.npz", "--from", "run", "--epochs", 1, "--out", "back")
    assert done.code == 0, done.err
    assert table_of("back")["loss"]["type"] == "SoftmaxCrossEntropy"
    assert train("above.npz", "--from", "soft", "--epochs", 1, "--out", "c").code == 0
    assert [layer["type"] for layer in table_of("c")["layers"]][-2:] == ["Dense", "Softmax"]


def test_an_experiment_may_begin_with_the_first_layers_of_a_network_and_go_on_with_its_own(own: Path) -> None:
    table = table_of("below")
    new = [{"type": "Dense", "units": 9}, {"type": "ReLU"}, {"type": "Dense", "units": "outputs"}]
    start = {"network": "below", "layers": 4}
    training = {**table["training"], "freeze": 1, "epochs": 1}
    mine = {
        "layers": [*table["layers"][:4], *new],
        "start": start,
        "training": training,
        "optimizer": table["optimizer"],
    }
    (own / "mine.toml").write_text(tomli_w.dumps(mine))
    done = train("above.npz", "--recipe", "mine.toml", "--out", "run")
    assert done.code == 0, done.err
    source, ended = arrays("below/model.safetensors"), arrays("run/model.safetensors")
    for name in ("conv1.w", "batchnorm1.mean", "batchnorm1.gamma"):
        np.testing.assert_array_equal(source[name], ended[name])
    (own / "short.toml").write_text(tomli_w.dumps({"start": {"network": "below"}, "optimizer": table["optimizer"]}))
    assert train("above.npz", "--recipe", "short.toml", "--epochs", 1, "--out", "short").code == 0
    assert len(table_of("short")["layers"]) == 8


# Resumed


@pytest.mark.parametrize("steps", [1, 2 * STEPS - 1, 2 * STEPS, 2 * STEPS + 1, 4 * STEPS - 1])
def test_a_run_that_is_stopped_goes_on_to_the_same_bytes_though_the_other_run_is_gone(
    world: Path, own: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    original = checkpointer.Checkpointer.is_due

    def is_due(self: checkpointer.Checkpointer) -> bool:
        if self._trainer.done == steps:
            os.kill(os.getpid(), 2)
        return original(self)

    with monkeypatch.context() as patch:
        patch.setattr(checkpointer.Checkpointer, "is_due", is_due)
        assert train("above.npz", *TUNED, "--out", "run").code == 130
    assert list_checkpoints(own / "run" / "checkpoints")[0][0] == steps
    shutil.rmtree(own / "below")
    done = train("--resume", "run")
    assert done.code == 0, done.err
    assert results_of(own / "run") == results_of(world / "whole")


def test_a_finished_run_goes_on_for_more_epochs_and_lets_all_layers_learn(world: Path, own: Path) -> None:
    assert train("above.npz", *TUNED[:4], "--epochs", 2, "--batch-size", 40, "--out", "run").code == 0
    held = arrays("run/model.safetensors")
    assert changed(arrays("below/model.safetensors"), held) == {"dense2"}
    done = train("--resume", "run", "--epochs", 3)
    assert done.code == 0, done.err
    assert changed(held, arrays("run/model.safetensors")) == {"conv1", "batchnorm1", "dense1", "dense2"}


def test_a_run_that_has_no_checkpoint_yet_begins_again_with_the_network(world: Path, own: Path) -> None:
    shutil.copytree(world / "whole", own / "run")
    shutil.rmtree(own / "run" / "checkpoints")
    (own / "run" / "metrics.json").unlink()
    assert train("--resume", "run").code == 0
    assert results_of(own / "run") == results_of(world / "whole")


# What cannot be


def test_what_the_program_cannot_begin_with_is_said_in_a_line(own: Path) -> None:
    (own / "photos" / "cat").mkdir(parents=True)
    shutil.copytree(own / "below", own / "unfinished")
    (own / "unfinished" / "model.safetensors").unlink()
    (own / "text.safetensors").write_text("no model")
    newest = list_checkpoints(own / "unfinished" / "checkpoints")[0][1]
    best = Path("unfinished/checkpoints") / newest.name / "best.safetensors"
    for arguments, code, words in (
        (
            ("--from", "nowhere"),
            1,
            ["there is no run nowhere: give a folder that gpunn train has made, or a model file"],
        ),
        (("--from", "photos"), 1, ["photos holds no model.safetensors"]),
        (("--from", "unfinished"), 1, ["gpunn train --resume unfinished, or take", str(best)]),
        (("--from", "text.safetensors"), 1, ["text.safetensors"]),
        (("--from", ""), 1, [""]),
        (("--from", "below", "--freeze", "-1"), 2, ["--freeze must be a number of epochs from 0, or all, got '-1'"]),
        (("--from", "below", "--freeze", "1.5"), 2, ["--freeze must be a number of epochs"]),
        (("--from", "below", "--freeze", "9" * 30), 2, ["--freeze must be a number of epochs"]),
        (("--freeze", "1"), 2, ["--freeze goes with --from RUN"]),
    ):
        assert_one_line(train("above.npz", "--out", "run", *arguments), code, *words)
        assert not (own / "run").exists()
    assert_one_line(train("--from", "below"), 2, "needs the data to train on: gpunn train DATA --from below")
    assert_one_line(train("below", "--from", "below"), 2, "below is a run, not data")
    for option in (("--from", "below"), ("--freeze", "2")):
        assert_one_line(train("--resume", "below", *option), 2, f"{option[0]} cannot be given with --resume")


def test_samples_that_the_network_does_not_take_are_refused(own: Path) -> None:
    labels = np.arange(30) % 3
    rng = np.random.default_rng(0)
    for name, inputs, words in (
        ("size", rng.integers(0, 255, (30, 9, 9), np.uint8), "has samples of 9 × 9 × 1, the network of"),
        ("rgb", rng.integers(0, 255, (30, 8, 8, 3), np.uint8), "takes 8 × 8 × 1: folders of images are fitted by"),
        ("rows", rng.normal(size=(30, 63)), "has samples of 63, the network of"),
        ("floats", rng.uniform(0, 255, (30, 8, 8)) + 0.5, "the network was trained on bytes from 0"),
    ):
        np.savez(f"{name}.npz", x_train=inputs, y_train=labels)
        assert_one_line(train(f"{name}.npz", "--from", "below", "--out", "run"), 1, words)
        assert not (own / "run").exists()


def test_a_network_without_weights_and_one_that_was_changed_are_refused(own: Path) -> None:
    model = gn.Sequential([gn.Flatten()]).build((8, 8, 1), device="cpu")
    model.save("flat.safetensors")
    done = train("above.npz", "--from", "flat.safetensors", "--out", "run")
    assert_one_line(done, 2, "no layer of the network has weights")
    assert train("above.npz", *TUNED, "--out", "run").code == 0
    shutil.copy(own / "below/checkpoints/step-3/model.safetensors", own / "below/model.safetensors")
    done = train("--recipe", "run/experiment.toml", "--out", "again")
    assert_one_line(done, 1, "is not the network that this experiment began with")
    shutil.rmtree(own / "below")
    assert_one_line(train("--recipe", "run/experiment.toml", "--out", "again"), 1, "there is no run")


@pytest.mark.parametrize(
    ("start", "words"),
    [
        ('network = ""', "must name a run folder"),
        ('network = "below"\nlayers = -1', "layers of [start] must be a whole number of at least 0"),
        ('network = "below"', "[start] needs layers beside [[layers]]"),
        ('network = "below"\nlayers = 99', "must be at most the 8 that there are"),
        ('network = "below"\nlayers = 8', "layer 6 is Dense(11, weights=Glorot()), and Dense(12, weights=Glorot())"),
        ('network = 3\nlayers = 1', "start.network must be a text"),
        ('layers = 1', "must name a run folder"),
        ('network = "below"\nlayers = 1\nnet = 1', "net"),
    ],
)  # fmt: skip
def test_a_start_that_cannot_be_is_said_in_a_line(own: Path, start: str, words: str) -> None:
    table = Path("below/experiment.toml").read_text().replace("units = 12", "units = 11")
    (own / "x.toml").write_text(table.replace("[training]", f"[start]\n{start}\n[training]", 1))
    assert_one_line(train("below.npz", "--recipe", "x.toml", "--out", "run"), 2, words)


# Folders of images


def pictures(folder: Path) -> None:
    """Two classes of colour pictures, larger than the digits."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for k in range(12):
            pixels = rng.integers(0, 120, (20, 20, 3)) + 120 * number
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{k}.png")


def test_a_folder_of_images_is_fitted_to_those_that_the_network_knows(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(own / "cache"))
    pictures(own / "photos")
    done = train("photos", "--from", "below", "--epochs", 1, "--out", "run")
    assert done.code == 0, done.err
    table = table_of("run")
    assert (table["data"]["image_size"], table["data"]["colours"], table["data"]["shape"]) == (
        [8, 8],
        "grey",
        [8, 8, 1],
    )
    assert gn.load_model("run/model.safetensors", "cpu").class_names == ("cat", "dog")
    assert train("--resume", "run", "--epochs", 2).code == 0
    done = train("photos", "--from", "below", "--image-size", "9x8", "--out", "b")
    assert_one_line(done, 1, "takes 8 × 8 × 1: folders of images are fitted by --image-size 8x8 --colours grey")
    done = train("photos", "--from", "below", "--colours", "rgb", "--out", "b")
    assert_one_line(done, 1, "--image-size 8x8 --colours grey")
