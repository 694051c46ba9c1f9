"""Tables on the command line: trained on, evaluated, predicted from, and refused in one line."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.cli_helpers import assert_one_line, gpunn, own_folder, without_pictures

import gpunn as gn
from gpunn.experiments.experiment import read_experiment, recipe_for

RNG = np.random.default_rng(2)
N = 90
SPECIES = np.array(["setosa", "versicolor", "virginica"])[np.arange(N) % 3]
FRAME = pd.DataFrame({"length": RNG.normal(5, 1, N) + 3 * (np.arange(N) % 3), "width": RNG.normal(3, 0.4, N)})
FRAME["area"], FRAME["species"] = FRAME["length"] * FRAME["width"], SPECIES

plain = pytest.fixture(without_pictures)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a table, as CSV and as Parquet."""
    FRAME.to_csv(tmp_path / "iris.csv", index=False)
    FRAME.to_parquet(tmp_path / "iris.parquet")
    return own_folder(tmp_path, monkeypatch)


def test_a_table_is_trained_on_evaluated_and_predicted_from(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    done = gpunn("train", "iris.csv", "--epochs", "20", "--device", "cpu", "--out", "run")
    assert done.code == 0, done.err
    assert "recipe      table (--recipe names another)" in done.out
    assert "the target is the last column, 'species'" in caplog.text
    assert '"task": "classes"' in (folder / "run" / "metrics.json").read_text()
    again = gpunn("evaluate", "run")
    assert (again.code, caplog.text.count("the target is")) == (0, 1)
    assert "iris, validation set (9): accuracy" in again.out
    accuracies = {gpunn("evaluate", "run", name).out.split(":")[1] for name in ("iris.csv", "iris.parquet")}
    assert len(accuracies) == 1
    # Other columns in another order, and no target.
    FRAME[["width", "area", "length"]].assign(more="x").to_csv(folder / "new.csv", index=False, sep=";", decimal=",")
    answers = gpunn("predict", "run", "new.csv", "--format", "json")
    assert answers.code == 0, answers.err
    labels = [answer["label"] for answer in json.loads(answers.out)]
    assert np.mean(np.array(labels) == SPECIES) > 0.8
    assert labels == [
        answer["label"] for answer in json.loads(gpunn("predict", "run", "iris.parquet", "--format", "json").out)
    ]


def test_a_regression_is_said_in_the_units_of_the_target(folder: Path) -> None:
    options = ("--target", "area", "--ignore", "species", "--epochs", "60", "--device", "cpu", "--out", "run")
    done = gpunn("train", "iris.csv", *options)
    assert done.code == 0, done.err
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    answers = json.loads(gpunn("predict", "run", "iris.csv", "--format", "json").out)
    rmse = np.sqrt(
        np.mean([(each["outputs"][0] - area) ** 2 for each, area in zip(answers, FRAME["area"], strict=True)])
    )
    assert rmse < FRAME["area"].std() / 2
    assert f"RMSE {rmse:.4f}" in gpunn("evaluate", "run", "iris.csv").out
    assert 0 < metrics["validation_rmse"] < 2 * FRAME["area"].std()
    assert metrics["validation_rmse"] > 3 * np.sqrt(metrics["validation_loss"])  # which is of standardised numbers


@pytest.mark.usefixtures("plain")
def test_a_run_goes_on_with_its_table_and_keeps_how_it_was_read(folder: Path) -> None:
    done = gpunn(
        "train",
        "iris.csv",
        "--target",
        "width",
        "--missing",
        "mean",
        "--epochs",
        "2",
        "--device",
        "cpu",
        "--out",
        "run",
    )
    assert done.code == 0, done.err
    data = read_experiment("run/experiment.toml").data
    assert (data.target, data.missing, data.task) == ("width", "mean", "regression")
    assert gpunn("train", "--resume", "run", "--epochs", "3").code == 0
    assert_one_line(gpunn("train", "--resume", "run", "--target", "area"), 2, "--target cannot be given with --resume")


@pytest.mark.usefixtures("plain")
def test_a_run_remembers_that_numbers_stay_as_they_are(folder: Path) -> None:
    table = "iris.csv", "--ignore", "area", "--scaling", "none"
    done = gpunn("train", *table, "--epochs", "2", "--device", "cpu", "--out", "run")
    assert done.code == 0, done.err
    assert read_experiment("run/experiment.toml").data.scaling == "none"
    assert gpunn("train", "--resume", "run", "--epochs", "3").code == 0
    columns = gn.load_model("run/model.safetensors", "cpu").trained_on.columns  # type: ignore[union-attr]
    assert columns is not None
    assert set(columns.means) == {0.0}


def test_the_experiment_of_a_table_trains_on_other_data(folder: Path) -> None:
    FRAME.assign(species=[str(number % 10) for number in range(len(FRAME))]).to_csv(folder / "ten.csv", index=False)
    done = gpunn("train", "ten.csv", "--task", "classes", "--epochs", "1", "--device", "cpu", "--out", "run")
    assert done.code == 0, done.err
    again = gpunn("train", "digits", "--recipe", "run/experiment.toml", "--out", "digits")
    assert again.code == 0, again.err
    assert read_experiment("digits/experiment.toml").data.target == ""


def test_the_recipe_is_chosen_by_the_data(folder: Path) -> None:
    pixels = pd.DataFrame(RNG.integers(0, 256, (20, 16)), columns=[f"pixel{k}" for k in range(16)])
    pixels.assign(label=RNG.integers(0, 2, 20)).to_parquet(folder / "pixels.parquet")
    chosen = {
        name: recipe_for(name) for name in ("iris.csv", "iris.parquet", "pixels.parquet", "digits", "nowhere.csv")
    }
    assert chosen == {
        "iris.csv": "table",
        "iris.parquet": "table",
        "pixels.parquet": "mlp",
        "digits": "mlp",
        "nowhere.csv": "mlp",
    }
    assert recipe_for(None) == "mlp"


GOOD = FRAME.to_csv(index=False)


@pytest.mark.parametrize(
    ("name", "content", "options", "said"),
    [
        ("t.csv", GOOD + "1,2,3\n", (), "t.csv: line 92: expected 4 fields as in the first line, got 3"),
        ("t.csv", GOOD + "1,oops,3,setosa\n", (), "t.csv: line 92, column 'width': expected a number, got 'oops'"),
        ("t.csv", GOOD + "1,,3,setosa\n", (), "t.csv: line 92, column 'width': the value is missing"),
        ("t.csv", GOOD + "1,inf,3,setosa\n", (), "t.csv: line 92, column 'width': expected a number, got an infinite"),
        ("t.csv", GOOD.encode() + b"1,2,3,caf\xe9\n", (), "t.csv: is no UTF-8, line 92 holds the byte 0xe9"),
        ("t.csv", GOOD.replace("width", "area"), (), "t.csv: columns 2 and 3 are both named 'area'"),
        ("t.csv", "", (), "t.csv: is empty"),
        ("t.csv", "a,b\n", (), "t.csv: has a header and no rows"),
        ("t.csv", GOOD, ("--target", "specie"), "t.csv: has no column 'specie' to learn"),
        ("t.csv", "a,b\n1,x\n2,x\n", (), "t.csv: the column 'b' holds 'x' in every row"),
        ("t.csv", GOOD.encode() + b"1,2,3,\0\n", (), "t.csv: holds bytes of 0"),
        ("t.csv", GOOD + '1,2,3,"' + "x\n" * 600, (), "t.csv: line 92: a quote is not closed"),
        ("t.parquet", None, (), "t.parquet: cannot be read as a table"),
        ("t.feather", b"ARROW1\0\0", (), "t.feather: expected a .npz file"),
    ],
)  # fmt: skip
def test_a_damaged_table_is_one_line(
    folder: Path, name: str, content: str | bytes | None, options: tuple[str, ...], said: str
) -> None:
    if content is None:
        content = (folder / "iris.parquet").read_bytes()[:-300]
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    done = gpunn("train", name, *options, "--out", "run")
    assert_one_line(done._replace(out="", err=done.err.splitlines()[-1] + "\n"), 1, said)
    assert not (folder / "run").exists()


@pytest.mark.usefixtures("plain")
def test_files_that_are_no_table_are_refused_by_a_network_of_one(folder: Path) -> None:
    assert gpunn("train", "iris.csv", "--epochs", "1", "--device", "cpu", "--out", "run").code == 0
    np.save(folder / "x.npy", np.zeros((2, 3)))
    for command in (("predict", "run", "x.npy"), ("evaluate", "run", "x.npy")):
        assert_one_line(gpunn(*command), 1, "the network was trained on a table: give a table")
    (folder / "other.csv").write_text("length,width\n1,2\n")
    assert_one_line(
        gpunn("predict", "run", "other.csv"), 1, "other.csv: has no column 'area': it has 'length', 'width'"
    )


@pytest.mark.usefixtures("plain")
def test_a_folder_of_tables_is_trained_on_and_evaluated_by_its_test_table(folder: Path) -> None:
    (folder / "flowers").mkdir()
    FRAME[:60].to_csv(folder / "flowers" / "train.csv", index=False)
    FRAME[60:].to_csv(folder / "flowers" / "test.csv", index=False)
    options = ("--target", "species", "--epochs", "5", "--device", "cpu", "--out", "run")
    done = gpunn("train", "flowers", *options)
    assert done.code == 0, done.err
    assert "recipe      table" in done.out
    tested = json.loads((folder / "run" / "metrics.json").read_text())["test_accuracy"]
    for command in (("evaluate", "run"), ("evaluate", "run", "flowers"), ("evaluate", "run", "flowers/test.csv")):
        assert f"(30): accuracy {tested:.2%}" in gpunn(*command).out
