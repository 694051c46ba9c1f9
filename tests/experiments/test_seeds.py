"""Several seeds of one experiment, and what is said of them together."""

import csv
import json
import statistics
from pathlib import Path

import pytest

from gpunn.errors import CheckpointError, GpunnError, OptionError, OutputError
from gpunn.experiments import run
from gpunn.experiments.experiment import Experiment, parse_experiment
from gpunn.experiments.seeds import parse_seeds, train_seeds

FILE = """
name = "few"
[data]
source = "digits"
limit = 300
[training]
epochs = 1
[[layers]]
type = "Dense"
units = "outputs"
[optimizer]
type = "SGD"
learning_rate = 0.1
"""


def few(text: str = FILE) -> Experiment:
    return parse_experiment(text, "few.toml").with_options(device="cpu")


def test_each_seed_is_the_run_that_it_is_alone_and_the_mean_is_theirs(tmp_path: Path) -> None:
    lines: list[str] = []
    folder = train_seeds(few(), [0, 1, 2], tmp_path / "all", lines.append)
    rows = list(csv.DictReader((folder / "seeds.csv").read_text().splitlines()))
    assert [row["seed"] for row in rows] == ["0", "1", "2"]
    alone = run.train(few().with_options(seed=1), tmp_path / "one", lambda _: None, progress=False)
    measured = json.loads((alone / "metrics.json").read_text())
    assert float(rows[1]["test_accuracy"]) == measured["test_accuracy"]
    assert float(rows[1]["test_loss"]) == measured["test_loss"]
    found = [float(row["test_accuracy"]) for row in rows]
    words = f"test accuracy        {100 * statistics.fmean(found):.4g} ± {100 * statistics.stdev(found):.2g} %"
    assert any(line.startswith(words) for line in lines), lines
    # The same command has nothing left to do, and one that was taken away is trained again.
    (folder / "seed-2" / "metrics.json").unlink()
    (folder / "seed-2" / "experiment.toml").unlink()
    for path in sorted((folder / "seed-2").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    lines.clear()
    train_seeds(few(), [0, 1, 2], folder, lines.append)
    assert [line.split()[1] for line in lines if line.startswith("seed ")] == ["2"]
    assert list(csv.DictReader((folder / "seeds.csv").read_text().splitlines())) == rows
    with pytest.raises(OutputError, match="holds seeds of another experiment: give another folder by --out"):
        train_seeds(few(FILE.replace("0.1", "0.2")), [0, 1], folder, lines.append)


def test_the_folder_of_seeds_is_not_resumed_as_one_run(tmp_path: Path) -> None:
    folder = train_seeds(few(), [0, 1], tmp_path / "all", lambda _: None)
    with pytest.raises(CheckpointError, match=r"holds a run for each seed: resume one of them, such as .*seed-0, or"):
        run.resume(str(folder), lambda _: None)
    assert not (folder / "metrics.json").exists()


def test_a_training_that_fails_is_named_and_the_others_end(tmp_path: Path) -> None:
    lines: list[str] = []
    with pytest.raises(GpunnError, match=r"2 of 2 seeds failed, seed 3: training diverged .*; the same command"):
        train_seeds(few(FILE.replace("0.1", "1e30")), [3, 4], tmp_path / "all", lines.append)
    assert sum("failed: training diverged" in line for line in lines) == 2


@pytest.mark.parametrize(
    ("text", "seeds"), [("0:3", [0, 1, 2]), ("5:7", [5, 6]), ("0,3,5", [0, 3, 5]), ("7, 2", [7, 2])]
)
def test_seeds_are_a_stretch_or_a_list(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "3", "a:b", "3:3", "5:2", "0:1", "0:9999999999", "1,1", "-1:3", "1.5,2", "0:8:2"])
def test_what_names_no_seeds_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(OptionError, match=r"^--seeds must .*"):
        parse_seeds(text)
