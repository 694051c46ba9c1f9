"""The run folder: its files, what is in them, and what is left of a run that does not end well."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from support.cli_helpers import TINY

import gpunn as gn
from gpunn.errors import DivergenceError, OutputError
from gpunn.experiments import run
from gpunn.experiments.experiment import parse_experiment
from gpunn.experiments.folder import CHECKPOINTS, EXPERIMENT, HISTORY, LOCK, METRICS, MODEL, new_folder
from gpunn.experiments.report import REPORT
from gpunn.reports.filters import ACTIVATIONS, FILTERS
from gpunn.reports.predictions import CONFUSION, MISTAKES
from gpunn.train.curves import CURVES

FILES = (EXPERIMENT, HISTORY, METRICS, MODEL, REPORT, CURVES, CONFUSION, MISTAKES, FILTERS, ACTIVATIONS)
EVERY = {*FILES, CHECKPOINTS, LOCK}

PNG = b"\x89PNG\r\n\x1a\n"


def silent(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    out = tmp_path_factory.mktemp("run") / "run"
    return run.train(parse_experiment(TINY, "tiny"), out, silent, progress=False)


def test_a_run_folder_holds_every_file_and_no_other(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == EVERY - {ACTIVATIONS}  # a network without filters
    for name in (CURVES, CONFUSION, MISTAKES, FILTERS):
        assert (folder / name).read_bytes().startswith(PNG)


def test_the_metrics_are_those_of_the_network_on_the_test_set(folder: Path) -> None:
    metrics = json.loads((folder / METRICS).read_text("utf-8"))
    result = gn.load_model(folder / MODEL).evaluate(gn.load_data("digits").test)
    assert metrics["test_accuracy"] == result.accuracy
    assert math.isclose(metrics["test_loss"], result.loss, rel_tol=1e-6)
    assert metrics["epochs"] == 2
    assert metrics["seconds"] > 0
    assert (metrics["device"], metrics["seed"], metrics["version"]) == ("cpu", 0, gn.__version__)
    assert (metrics["recipe"], metrics["data"], metrics["stopped"]) == ("tiny", "digits", "")


def test_the_history_is_that_of_the_metrics(folder: Path) -> None:
    metrics = json.loads((folder / METRICS).read_text("utf-8"))
    history = gn.History.read_csv(folder / HISTORY)
    assert history[-1].step == metrics["steps"] == 4
    assert history[-1].validation_loss == metrics["validation_loss"]
    assert history.best is not None
    assert history.best.step == metrics["best"]["step"]


def test_the_test_set_is_closed_until_the_training_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[bool] = []
    data = gn.load_data("digits")
    monkeypatch.setattr("gpunn.experiments.experiment.load_data", lambda *_, **__: data)
    original = gn.History.write_csv

    def write(history: gn.History, path: Path) -> None:
        opened.append(data.test_is_open)
        original(history, path)

    monkeypatch.setattr(gn.History, "write_csv", write)
    run.train(parse_experiment(TINY, "tiny"), tmp_path / "run", silent, progress=False)
    assert opened == [False]
    assert data.test_is_open


CONVOLUTION = """[[layers]]
type = "Conv2D"
filters = 2
[[layers]]
type = "Flatten"
[[layers]]"""


def test_a_run_with_a_convolution_shows_what_its_filters_answer(tmp_path: Path) -> None:
    said: list[str] = []
    experiment = parse_experiment(TINY.replace("[[layers]]", CONVOLUTION), "tiny").with_options(epochs=1)
    out = run.train(experiment, tmp_path / "run", said.append, progress=False)
    assert {path.name for path in out.iterdir()} == EVERY
    pictures = next(line for line in said if line.startswith("pictures"))
    for name in (FILTERS, ACTIVATIONS):
        assert (out / name).read_bytes().startswith(PNG)
        assert str(out / name) in pictures


def test_a_run_on_features_has_no_filters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).normal(size=(900, 4))
    data = gn.Data.from_arrays(x, (x[:, 0] > 0).astype(int), validation=100)
    monkeypatch.setattr("gpunn.experiments.experiment.load_data", lambda *_, **__: data)
    out = run.train(parse_experiment(TINY, "tiny"), tmp_path / "run", silent, progress=False)
    assert {path.name for path in out.iterdir()} == EVERY - {FILTERS, ACTIVATIONS}


def test_a_watched_test_set_is_said_to_be_one(tmp_path: Path) -> None:
    said: list[str] = []
    experiment = parse_experiment(TINY.replace('"digits"', '"digits"\nvalidation = "test"'), "tiny")
    out = run.train(experiment, tmp_path / "run", said.append, progress=False)
    assert "is watched as validation set" in "\n".join(said)
    assert next(line for line in said if line.startswith("test accuracy")).endswith("no measure of unseen data)")
    assert json.loads((out / METRICS).read_text("utf-8"))["test_was_watched"] is True


def test_pictures_without_a_test_set_are_of_the_validation_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).normal(size=(900, 4))
    data = gn.Data.from_arrays(x, (x[:, 0] > 0).astype(int), validation=100)
    monkeypatch.setattr("gpunn.experiments.experiment.load_data", lambda *_, **__: data)
    titles: list[str] = []
    monkeypatch.setattr("gpunn.reports.predictions.plot_confusion", lambda *arguments: titles.append(arguments[-1]))
    monkeypatch.setattr("gpunn.reports.predictions.plot_mistakes", lambda *_, **__: None)
    run.train(parse_experiment(TINY, "tiny"), tmp_path / "run", silent, progress=False)
    assert titles == ["tiny on arrays, validation set"]


def test_a_run_that_diverges_keeps_the_weights_before(tmp_path: Path) -> None:
    experiment = parse_experiment(TINY, "tiny").with_options(learning_rate=1e12)
    with pytest.raises(DivergenceError):
        run.train(experiment, tmp_path / "run", silent, progress=False)
    values = gn.load_model(tmp_path / "run" / MODEL).parameters.to_host()
    assert all(np.isfinite(value).all() for value in values.values())
    assert not (tmp_path / "run" / CONFUSION).exists()


def test_nothing_is_left_where_the_first_file_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def full(path: Path, _: bytes) -> None:
        raise OutputError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr("gpunn.experiments.run.write_atomically", full)
    with pytest.raises(OutputError, match="No space left on device: free some space there, or give another folder"):
        run.train(parse_experiment(TINY, "tiny"), None, silent, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_for_the_results_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 1000

    monkeypatch.setattr("gpunn.experiments.folder.shutil.disk_usage", lambda _: Usage)
    with pytest.raises(OutputError, match=r"has 1000 B free, the results take about 2\.0 MiB"):
        run.train(parse_experiment(TINY, "tiny"), tmp_path / "run", silent, progress=False)
    assert not (tmp_path / "run").exists()


def test_names_of_data_become_names_of_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with new_folder(None, "my data/№ 1-mlp", silent) as first, new_folder(None, "my data/№ 1-mlp", silent) as second:
        assert (first, second) == (Path("runs/my_data_1-mlp-1"), Path("runs/my_data_1-mlp-2"))


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", HISTORY, "sub/"])
def test_a_folder_that_is_neither_empty_nor_a_run_is_refused_and_left_as_it_is(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).write_text("mine")
    with pytest.raises(OutputError, match="is no run and not empty"), new_folder(tmp_path, "x", silent):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [name.rstrip("/")]


def test_an_empty_folder_a_link_to_one_and_one_that_was_only_locked_may_hold_a_run(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty", target_is_directory=True)
    with new_folder(tmp_path / "link", "x", silent) as folder:
        (folder / "experiment.toml").write_text("")
    with pytest.raises(OutputError, match="already holds a run"), new_folder(tmp_path / "empty", "x", silent):
        pass
    (tmp_path / "empty" / "experiment.toml").unlink()
    with new_folder(tmp_path / "empty", "x", silent) as folder:
        assert folder == tmp_path / "empty"
