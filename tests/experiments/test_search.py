"""A search: ranges in an experiment file, trials that several workers share, and the best one as a file."""

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest

from gpunn.data import Data
from gpunn.errors import OptionError
from gpunn.experiments import run
from gpunn.experiments.experiment import read_experiment
from gpunn.experiments.search import search as searching
from gpunn.experiments.search import study as studies
from gpunn.experiments.search.space import Range, Space

FILE = """
name = "tune"
[search]
trials = 6
warmup = 1
[data]
source = "digits"
limit = 300
[training]
epochs = 2
batch_size = { choices = [64, 128] }
[[layers]]
type = "Dense"
units = { low = 4, high = 32, log = true, first = 16 }
[[layers]]
type = { choices = ["ReLU", "Tanh"] }
[[layers]]
type = "Dense"
units = "outputs"
[optimizer]
type = "SGD"
learning_rate = { low = 1e-3, high = 1.0, log = true, first = 0.1 }
"""


def written(folder: Path, text: str = FILE) -> str:
    (folder / "tune.toml").write_text(text)
    return str(folder / "tune.toml")


def rows_of(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "trials.csv").read_text().splitlines()))


def search(file: str, out: Path, **options: Any) -> list[str]:
    lines: list[str] = []
    searching.search(file, lines.append, out, device="cpu", **options)
    return lines


def test_the_same_seed_gives_the_same_trials_and_another_one_others(tmp_path: Path) -> None:
    file = written(tmp_path)
    for out, seed in (("a", 0), ("b", 0), ("c", 1)):
        search(file, tmp_path / out, seed=seed)
    a, b, c = ((tmp_path / out / "trials.csv").read_bytes() for out in "abc")
    assert a == b != c
    rows = rows_of(tmp_path / "a")
    assert [row["trial"] for row in rows] == [str(number) for number in range(6)]
    assert (rows[0]["layers.1.units"], rows[0]["optimizer.learning_rate"]) == ("16", "0.1")  # as `first` says
    assert len({row["optimizer.learning_rate"] for row in rows}) == 6
    assert all(1e-3 <= float(row["optimizer.learning_rate"]) <= 1 for row in rows)


def test_the_best_trial_is_an_experiment_that_trains_to_the_same_bits(tmp_path: Path) -> None:
    lines = search(written(tmp_path), tmp_path / "out")
    rows = [row for row in rows_of(tmp_path / "out") if row["state"] == "complete"]
    best = min(float(row["validation_loss"]) for row in rows)
    experiment = read_experiment(str(tmp_path / "out" / "best.toml"))
    folder = run.train(experiment, tmp_path / "run", lambda _: None, progress=False)
    history = list(csv.DictReader((folder / "history.csv").read_text().splitlines()))
    assert float(history[-1]["validation_loss"]) == best
    assert (tmp_path / "out" / "search.png").stat().st_size > 10_000
    assert f"--recipe {tmp_path / 'out' / 'best.toml'}" in lines[-1]


def test_the_test_set_stays_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(_: Data) -> None:
        raise AssertionError("the test set was opened")

    monkeypatch.setattr(Data, "test", property(opened))
    search(written(tmp_path), tmp_path / "out", trials=2)
    for validation in ('validation = "test"', "validation = 0"):
        text = FILE.replace('source = "digits"', f'source = "digits"\n{validation}')
        with pytest.raises(OptionError, match="the test set stays closed: give training samples for it"):
            search(written(tmp_path, text), tmp_path / validation[-2:].strip('"'))


def test_trials_that_are_ended_early_did_less(tmp_path: Path) -> None:
    text = FILE.replace("epochs = 2", "epochs = 3")
    lines = search(written(tmp_path, text), tmp_path / "out", trials=14)
    rows = rows_of(tmp_path / "out")
    pruned = [row for row in rows if row["state"] == "pruned"]
    assert pruned
    assert all(float(row["epochs"]) < 3 for row in pruned)
    assert all(float(row["epochs"]) == 3 for row in rows if row["state"] == "complete")
    assert sum("ended early in epoch" in line for line in lines) == len(pruned)
    search(written(tmp_path, text.replace("warmup = 1", "pruning = false")), tmp_path / "all", trials=8)
    assert {row["state"] for row in rows_of(tmp_path / "all")} == {"complete"}


def test_a_figure_that_is_best_high_is_searched_for_high(tmp_path: Path) -> None:
    text = (
        FILE.replace("warmup = 1", 'metric = "f1"')
        .replace("[data]", "[data]")
        .replace("[search]", "metrics = ['f1']\n[search]")
    )
    search(written(tmp_path, text), tmp_path / "out", trials=3)
    rows = rows_of(tmp_path / "out")
    best = max(rows, key=lambda row: float(row["f1"] or 0))
    assert f"trial {best['trial']} of 3: f1" in (tmp_path / "out" / "best.toml").read_text()


def test_a_search_goes_on_and_another_one_is_kept_out(tmp_path: Path) -> None:
    file, out = written(tmp_path), tmp_path / "out"
    search(file, out, trials=2)
    first = rows_of(out)
    lines = search(file, out, trials=4)
    assert any("after 2 of 4 trials" in line for line in lines)
    assert rows_of(out)[:2] == first
    assert len(rows_of(out)) == 4
    search(file, tmp_path / "straight", trials=4)
    assert rows_of(tmp_path / "straight") == rows_of(out)  # as if it had not been stopped
    for text, options in ((FILE.replace("high = 32", "high = 64"), {}), (FILE, {"seed": 3}), (FILE, {"epochs": 1})):
        with pytest.raises(OptionError, match="is of another search: give another folder by --out"):
            search(written(tmp_path, text), out, **options)


def test_what_cannot_be_trained_fails_and_the_rest_goes_on(tmp_path: Path) -> None:
    convolution = '[[layers]]\ntype = "Conv2D"\nfilters = 2\nsize = { choices = [3, 99] }\n'
    text = FILE.replace("[[layers]]\n", convolution + '[[layers]]\ntype = "Flatten"\n[[layers]]\n', 1)
    search(written(tmp_path, text), tmp_path / "out", trials=8)
    rows = rows_of(tmp_path / "out")
    assert {row["state"] for row in rows if row["layers.1.size"] == "99"} == {"fail"}
    assert all("a filter of 99×99 does not fit" in row["error"] for row in rows if row["state"] == "fail")
    assert {row["state"] for row in rows if row["layers.1.size"] == "3"} <= {"complete", "pruned"}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("low = 1e-3, high = 1.0, log = true, first = 0.1", "low = 1e-3", "high is missing"),
        ("low = 1e-3, high = 1.0", "low = 1.0, high = 0.5", "low must be below high, got 1.0 and 0.5"),
        ("low = 1e-3", "low = 0.0", "low must be above 0 where log = true"),
        ("low = 1e-3", "low = nan", "low must be finite, got nan"),
        ("first = 0.1", "first = 7.0", "first must be from 0.001 to 1.0, got 7.0"),
        ("log = true, first = 0.1", "step = 9.0", "step must be above 0, at most high - low"),
        ("log = true, first = 0.1", "lgo = true", "has no key 'lgo'"),
        ("[64, 128]", "[64]", "choices must be 2 to 1,000 values, got 1"),
        ("[64, 128]", "[64, 64]", "choices must differ from each other"),
        ("[64, 128]", "64", "choices must be a list, got 64"),
        ("[64, 128] }", "[64, 128], first = 3 }", "first must be one of the choices, got 3"),
        ('["ReLU", "Tanh"]', '["ReLU", "Tahn"]', "Tahn"),
        ("low = 4,", "low = -4,", "low must be above 0"),
        ("[64, 128]", '[64, "many"]', "many"),
        ("trials = 6", f"trials = {'9' * 5000}", "is no experiment: Exceeds the limit"),
        ("trials = 6", f"{'a.' * 40}a = 1", "line 4 has more than 16 dots"),
        ("trials = 6", f"trials = {'[' * 3000}", "nested too deeply"),
        ("trials = 6", "trials = 0", "trials of [search] must be a whole number of at least 1"),
        ("trials = 6", "tirals = 6", "[search] has no key 'tirals'"),
        ("trials = 6", 'metric = "best"', "mode must say whether best is better low"),
        ('name = "tune"', 'name = { choices = ["a", "b"] }', "name is the same in all trials"),
    ],
)  # fmt: skip
def test_what_cannot_be_searched_is_said_before_anything_is_made(
    tmp_path: Path, old: str, new: str, words: str
) -> None:
    assert old in FILE
    with pytest.raises(OptionError) as caught:
        search(written(tmp_path, FILE.replace(old, new, 1)), tmp_path / "out")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_file_without_ranges_and_none_at_all_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="leaves nothing to choose: write learning_rate = "):
        Space('[[layers]]\ntype = "Dense"\nunits = 3\n[optimizer]\ntype = "SGD"\n', "x.toml")
    with pytest.raises(OptionError, match="cannot be read"):
        Space.read(str(tmp_path / "none.toml"))


def test_a_trial_that_an_error_of_other_code_cut_off_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, train = written(tmp_path), searching.Search._train

    def broken(self: Any, trial: Any, values: dict[str, Any]) -> tuple[float, str]:
        if trial.number == 1:
            raise RuntimeError("code from outside")
        return train(self, trial, values)

    with monkeypatch.context() as patch:
        patch.setattr(searching.Search, "_train", broken)
        with pytest.raises(RuntimeError, match="code from outside"):
            search(file, tmp_path / "out", trials=3)
    left = optuna.load_study(study_name="out", storage=studies._storage(tmp_path / "out", None)).trials
    assert [trial.state.name for trial in left] == ["COMPLETE", "FAIL", "WAITING"]  # for any worker that is at work
    search(file, tmp_path / "out", trials=3)
    assert [row["trial"] for row in rows_of(tmp_path / "out")] == ["0", "2", "3"]  # 2 is 1 once more


def test_training_a_file_with_ranges_names_the_command_for_it(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"it has ranges to search, .*: gpunn search FILE.toml"):
        read_experiment(written(tmp_path))


def test_a_metric_that_no_record_has_is_named_with_those_that_there_are(tmp_path: Path) -> None:
    text = FILE.replace("warmup = 1", 'metric = "validation_rmse"')
    with pytest.raises(OptionError, match=r"is in no record: expected train_loss, .*validation_loss"):
        search(written(tmp_path, text), tmp_path / "out")


def test_without_optuna_one_line_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(OptionError, match=r"needs Optuna, which is not installed: pip install 'gpunn\[search\]'"):
        search(written(tmp_path), tmp_path / "out")


def test_a_database_that_cannot_be_reached_is_said_in_one_line(tmp_path: Path) -> None:
    for url in ("no-url", "sqlite:////no/such/folder/x.db"):
        with pytest.raises(OptionError, match=r"--storage .* cannot be used"):
            search(written(tmp_path), tmp_path / "out", storage=url)


def test_a_database_serves_in_the_place_of_the_journal(tmp_path: Path) -> None:
    file, url = written(tmp_path), f"sqlite:///{tmp_path / 'study.db'}"
    search(file, tmp_path / "out", storage=url, trials=2)
    search(file, tmp_path / "out", storage=url, trials=3)
    assert len(rows_of(tmp_path / "out")) == 3
    assert not (tmp_path / "out" / studies.JOURNAL).exists()


def test_numbers_between_whole_ends_are_whole() -> None:
    assert Range(1, 4).is_whole
    assert not Range(1, 4.0).is_whole
    assert not Range(1, 4, step=0.5).is_whole


def test_importing_the_package_imports_no_optuna() -> None:
    code = "import sys, gpunn, gpunn.cli.program; print('optuna' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ).stdout
        == "False\n"
    )
