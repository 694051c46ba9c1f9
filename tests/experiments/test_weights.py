"""Weights of classes in experiment files and on the command line: said, kept, resumed to the same bytes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cli_helpers import assert_one_line, experiment_toml, gpunn, own_folder, results_of, without_pictures

import gpunn as gn
from gpunn.errors import OptionError
from gpunn.experiments.experiment import parse_experiment
from gpunn.experiments.run import resume
from gpunn.saving.checkpointer import list_checkpoints

folder = pytest.fixture(autouse=True)(own_folder)
LAYERS, OPTIMIZER = [{"type": "Dense", "units": 6}, {"type": "Tanh"}], {"type": "Adam", "learning_rate": 0.01}


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    without_pictures(monkeypatch)


def written(folder: Path, **training: Any) -> Path:
    """An experiment on 300 samples of two classes, one to nine."""
    rng, labels = np.random.default_rng(0), (np.arange(300) % 10 == 0).astype(int)
    x = rng.normal(size=(300, 4)) + labels[:, None]
    np.savez(folder / "arrays.npz", x=x.astype(np.float32), y=np.array(["common", "rare"])[labels])
    text = experiment_toml(LAYERS, OPTIMIZER, epochs=3, batch_size=32, device="cpu", **training)
    path = folder / "weighted.toml"
    path.write_text(text.replace('"digits"', '"arrays.npz"') + "\n[checkpoints]\nevery = 4\nkeep = 9\n")
    return path


def train(path: Path, *arguments: object, out: str = "run") -> Any:
    return gpunn("train", "--recipe", path, "--out", out, *arguments)


def test_class_weights_are_an_option_of_experiments_and_of_the_program(folder: Path) -> None:
    done = [
        train(written(folder, class_weight="balanced"), out="by file"),
        train(written(folder), "--class-weight", "balanced", out="by program"),
        train(folder / "by program" / "experiment.toml", out="again"),
    ]
    for one in done:
        assert one.code == 0, one.err
        assert "weights     classes common 0.5556, rare 5" in one.out
    first, *others = (results_of(folder / name) for name in ("by file", "by program", "again"))
    assert others == [first] * 2
    plain = train(written(folder), out="plain")
    assert "weights     " not in plain.out
    assert results_of(folder / "plain") != first


@pytest.mark.parametrize("given", ["balanced", {"rare": 4.5}, {"1": 4.5}, [1, 4.5]])
def test_a_run_with_class_weights_resumes_to_the_same_bytes(folder: Path, given: Any) -> None:
    path = written(folder, class_weight=given) if not isinstance(given, dict) else written(folder)
    if isinstance(given, dict):
        table = "".join(f"{name} = {weight}\n" for name, weight in given.items())
        path.write_text(path.read_text() + f"[training.class_weight]\n{table}")
    assert train(path).code == 0
    whole = results_of(folder / "run")
    (folder / "run" / "metrics.json").unlink()  # as if it had been killed
    steps = [step for step, _ in list_checkpoints(folder / "run" / "checkpoints")]
    assert 12 in steps
    resumed = gpunn("train", "--resume", "run/checkpoints/step-12")
    assert resumed.code == 0, resumed.err
    assert "resumed     from step 12" in resumed.out
    assert results_of(folder / "run") == whole


def test_a_run_is_resumed_with_its_own_class_weights_alone(folder: Path) -> None:
    assert train(written(folder, class_weight="balanced")).code == 0
    (folder / "run" / "metrics.json").unlink()
    refused = gpunn("train", "--resume", "run", "--class-weight", "balanced")
    assert refused.code == 2
    assert "--class-weight cannot be given with --resume" in refused.err
    experiment = folder / "run" / "experiment.toml"
    experiment.write_text(experiment.read_text().replace('class_weight = "balanced"', "class_weight = [1, 2]"))
    refused = gpunn("train", "--resume", "run")
    assert_one_line(refused, 1, "training.class_weight was 'balanced', is (1, 2)")


def test_a_run_is_resumed_with_the_weights_of_its_samples_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def loading(weights: Any) -> None:
        def load(*_: Any, validation: Any, limit: Any, seed: int, **__: Any) -> gn.Data:
            rng = np.random.default_rng(1)
            x, y = rng.normal(size=(80, 4)), np.arange(80) % 2
            return gn.Data.from_arrays(x, y, sample_weight=weights, validation=validation, limit=limit, seed=seed)

        monkeypatch.setattr("gpunn.experiments.experiment.load_data", load)

    weights = np.linspace(0, 3, 80)
    loading(weights)
    done = train(written(folder))
    assert done.code == 0, done.err
    assert "weights     samples by their weights" in done.out
    whole = results_of(folder / "run")
    (folder / "run" / "metrics.json").unlink()
    for others in (None, weights * 2):
        loading(others)
        refused = gpunn("train", "--resume", "run/checkpoints/step-4")
        assert_one_line(refused, 1, "does not hold the data of")
    loading(weights)
    resume("run/checkpoints/step-4", lambda _: None, progress=False)
    assert results_of(folder / "run") == whole


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('class_weight = "balancd"', 'class_weight is "balanced", a table'),
        ("class_weight = 3", 'class_weight is "balanced", a table'),
        ("class_weight = { cat = -1 }", "class_weight of 'cat' must be at least 0 and finite, got -1"),
        ("class_weight = { cat = nan }", "class_weight of 'cat' must be at least 0 and finite"),
        ('class_weight = ["much"]', "class_weight of class 0 must be a number, got 'much'"),
        ('class_weight = { type = "Dense", units = 3 }', "class_weight"),
    ],
)
def test_a_file_with_class_weights_that_cannot_be_is_refused_before_its_data_are_read(line: str, said: str) -> None:
    text = experiment_toml(LAYERS, OPTIMIZER).replace("[training]", f"[training]\n{line}")
    with pytest.raises(OptionError, match=r"own\.toml: ") as caught:
        parse_experiment(text, "own.toml")
    assert said in str(caught.value)


def test_class_weights_that_do_not_fit_the_data_end_the_program_in_one_line(folder: Path) -> None:
    for given, said in (
        ([1, 2, 3], "class_weight lists 3 weights for 2 classes"),
        ({"rar": 2.0}, "did you mean 'rare'"),
    ):
        path = written(folder)
        path.write_text(
            path.read_text().replace("[training]", f"[training]\nclass_weight = {given}".replace(":", " ="))
        )
        done = train(path)
        assert_one_line(done, 2, said)
        assert not (folder / "run").exists()
