"""Data of tables: what is learned and learned from, how it is prepared, and that later tables are prepared alike."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import gpunn as gn
from gpunn.errors import DataError, OptionError

RNG = np.random.default_rng(5)
N = 60
FRAME = pd.DataFrame(
    {
        "size": RNG.normal(50, 10, N),
        "count": RNG.integers(0, 1000, N),
        "colour": RNG.choice(["red", "green", "blue"], N),
        "fresh": RNG.random(N) < 0.5,
        "kind": RNG.choice(["b", "a"], N),
    }
)
FRAME["kind"] = np.where(FRAME["size"] + 10 * FRAME["fresh"] > 55, "b", "a")
FRAME["price"] = 200 + 3 * FRAME["size"] + 40 * FRAME["fresh"]


def trained(data: gn.Data, epochs: int = 3) -> gn.Sequential:
    model = gn.Sequential([gn.Dense(8), gn.ReLU(), gn.Dense(data.train.classes or data.train.targets.shape[1])])
    model.fit(data, optimizer=gn.Adam(0.02), epochs=epochs, batch_size=8, device="cpu", progress=False)
    return model


def test_numbers_are_standardised_by_the_training_samples_and_texts_are_one_feature_each() -> None:
    data = gn.load_data(FRAME, target="kind", ignore="price", validation=0.25)
    columns, train = data.train.columns, data.train.inputs
    assert columns is not None
    assert columns.feature_names == [
        "size", "count", "colour=blue", "colour=green", "colour=red", "fresh=False", "fresh=True",
    ]  # fmt: skip
    np.testing.assert_allclose(train[:, :2].mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(train[:, :2].std(axis=0), 1, atol=1e-6)
    assert set(np.unique(train[:, 2:])) == {0, 1}
    assert (train[:, 2:5].sum(axis=1) == 1).all()
    assert data.class_names == ("a", "b")
    assert data.validation is not None
    assert abs(data.validation.inputs[:, 0].mean()) > 1e-3  # by the mean of others
    raw = np.concatenate([s.inputs[:, 0] for s in (data.train, data.validation)])
    size = np.sort(raw * columns.deviations[0] + columns.means[0])
    np.testing.assert_allclose(size, np.sort(FRAME["size"]), rtol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda f, _: f,
        lambda f, _: pl.from_pandas(f),
        lambda f, _: pa.Table.from_pandas(f),
        lambda f, _: {name: f[name].tolist() for name in f},
        lambda f, folder: f.to_csv(folder / "t.csv", index=False) or folder / "t.csv",
        lambda f, folder: f.to_csv(folder / "t.tsv", sep="\t", index=False) or folder / "t.tsv",
        lambda f, folder: f.to_csv(folder / "t.csv", sep=";", decimal=",", index=False) or folder / "t.csv",
        lambda f, folder: f.to_csv(folder / "t.csv.gz", index=False) or folder / "t.csv.gz",
        lambda f, folder: f.to_parquet(folder / "t.parquet") or folder / "t.parquet",
        lambda f, folder: f.to_csv(folder / "t.csv") or folder / "t.csv",  # with the index of pandas
    ],
    ids=["pandas", "polars", "arrow", "dict", "csv", "tsv", "decimal comma", "gzip", "parquet", "index"],
)
def test_one_table_gives_the_same_data_whatever_it_comes_as(tmp_path: Path, make: Any) -> None:
    data, expected = (gn.load_data(each, target="kind") for each in (make(FRAME, tmp_path), FRAME))
    assert data.train.columns == expected.train.columns
    assert data.train.sha256() == expected.train.sha256()
    assert data.validation is not None
    assert data.validation.sha256() == expected.validation.sha256()  # type: ignore[union-attr]


def test_the_target_is_the_last_column_or_one_of_that_name_and_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    assert gn.load_data(FRAME).train.columns.targets == ("price",)  # type: ignore[union-attr]
    assert "the target is the last column, 'price'" in caplog.text
    renamed = FRAME.rename(columns={"count": "Label"})
    assert gn.load_data(renamed).train.columns.targets == ("Label",)  # type: ignore[union-attr]
    caplog.clear()
    gn.load_data(FRAME, target="price")
    assert not caplog.text


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        (["b", "a"] * 30, None, ("a", "b")),
        ([True, False] * 30, None, ("False", "True")),
        ([3, 1, 10] * 20, None, ("1", "3", "10")),
        ([3.0, 1.0, 10.0] * 20, None, ("1", "3", "10")),
        ([3, 1, 10] * 20, "regression", ()),
        ([0.5, 1.5] * 30, None, ()),
        (list(range(20)) * 3, None, tuple(map(str, range(20)))),
        (list(range(21)) * 2 + [0] * 18, None, ()),
        (list(range(21)) * 2 + [0] * 18, "classes", tuple(map(str, range(21)))),
        (list(range(60)), None, ()),
    ],
)
def test_classes_are_told_from_numbers_unless_somebody_says_which(
    values: list[Any], task: str | None, classes: tuple[str, ...]
) -> None:
    data = gn.load_data({"x": RNG.random(60), "y": values}, target="y", task=task, validation=0)
    assert data.class_names == classes
    if classes:
        assert [data.class_names[k] for k in data.train.targets] == [
            str(v if isinstance(v, str | bool) else int(v)) for v in values
        ]


def test_numbers_to_learn_are_standardised_and_answered_in_their_units() -> None:
    data = gn.load_data(FRAME, target="price", validation=0.2)
    np.testing.assert_allclose([data.train.targets.mean(), data.train.targets.std()], [0, 1], atol=1e-5)
    model = trained(data, 30)
    answers, wanted = model.predict(FRAME)[:, 0], FRAME["price"].to_numpy()
    rmse = float(np.sqrt(np.mean((answers - wanted) ** 2)))
    assert rmse < FRAME["price"].std() / 2
    for evaluated in (model.evaluate(FRAME), model.evaluate(FRAME, FRAME["price"]), model.evaluate(FRAME, wanted)):
        assert evaluated.rmse == pytest.approx(rmse, rel=1e-4)
        assert evaluated.r2 == pytest.approx(1 - (rmse / wanted.std()) ** 2, rel=1e-4)
    assert model.report(FRAME).rmse == pytest.approx(rmse, rel=1e-4)  # type: ignore[union-attr]
    unit, trained_on = data.train.columns.unit, model.evaluate(data.train)  # type: ignore[union-attr]
    assert trained_on.rmse == pytest.approx(unit * np.sqrt(trained_on.loss))


def test_several_targets_are_answered_each_in_its_unit() -> None:
    frame = FRAME.assign(double=2 * FRAME["size"])
    data = gn.load_data(frame, target=["price", "double"], ignore="kind", validation=0)
    answers = trained(data, 40).predict(frame)
    for column, name in enumerate(("price", "double")):
        assert np.abs(answers[:, column] - frame[name]).mean() < frame[name].std() / 3


def test_a_network_finds_the_columns_of_later_tables_by_name(tmp_path: Path) -> None:
    data = gn.load_data(FRAME, target="kind", ignore="price")
    model = trained(data)
    expected = model.predict_proba(FRAME)
    shuffled = FRAME[["fresh", "price", "colour", "count", "size"]].assign(more="x")
    np.testing.assert_array_equal(model.predict_proba(shuffled), expected)
    np.testing.assert_array_equal(model.predict_proba(pl.from_pandas(shuffled)), expected)
    np.testing.assert_array_equal(model.predict_proba(data.train.inputs), model.predict_proba(data.train.inputs))
    model.save(tmp_path / "model.safetensors")
    again = gn.load_model(tmp_path / "model.safetensors", "cpu")
    assert again.trained_on == model.trained_on
    np.testing.assert_array_equal(again.predict_proba(shuffled), expected)
    assert list(again.predict_names(FRAME[:3])) == [again.class_names[k] for k in again.predict(FRAME[:3])]
    with pytest.raises(DataError, match="has no column 'count'"):
        model.predict(FRAME.drop(columns="count"))
    unknown = FRAME.assign(colour=["Blue", *FRAME["colour"][1:]])
    with pytest.raises(
        DataError, match=r"row 0, column 'colour': 'Blue' is none of the categories.*did you mean 'blue'"
    ):
        model.predict(unknown)


def test_samples_of_another_table_are_brought_to_the_columns_of_the_training() -> None:
    train, later = FRAME[:40], FRAME[40:]
    for target, ignore in (("kind", "price"), ("price", "kind")):
        model = trained(gn.load_data(train, target=target, ignore=ignore), 5)
        own = gn.load_data(
            later[::-1][["colour", *later.columns.drop("colour")]], target=target, ignore=ignore, validation=0
        )
        by_frame, by_samples = model.evaluate(later), model.evaluate(own.train)
        assert by_samples.loss == pytest.approx(by_frame.loss, rel=1e-4)
        assert by_samples.figures == pytest.approx(by_frame.figures, rel=1e-4)
        before = model.trained_on.columns  # type: ignore[union-attr]
        model.fit(own, epochs=1, device="cpu", progress=False)
        assert model.trained_on.columns == before  # type: ignore[union-attr]


def test_missing_values_are_refused_with_their_place_or_filled(tmp_path: Path) -> None:
    frame = FRAME.drop(columns="price").copy()
    frame.loc[3, "size"], frame.loc[[5, 7], "colour"] = np.nan, None
    with pytest.raises(DataError, match=r"row 3, column 'size': the value is missing: .*\"mean\""):
        gn.load_data(frame)
    frame.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(DataError, match=r"t\.csv: line 5, column 'size': the value is missing"):
        gn.load_data(tmp_path / "t.csv")
    data = gn.load_data(frame, missing="mean", validation=0)
    columns = data.train.columns
    assert columns is not None
    assert columns.fills["colour"] == frame["colour"].mode()[0]
    assert data.train.inputs[3, 0] == 0
    assert columns.means[0] == pytest.approx(frame["size"].mean())
    model = trained(data)
    np.testing.assert_array_equal(
        model.predict_proba(frame[3:8])[[0, 2]],
        model.predict_proba(frame[3:8].fillna({"size": columns.means[0], "colour": columns.fills["colour"]}))[[0, 2]],
    )
    frame.loc[9, "kind"] = None
    with pytest.raises(DataError, match="row 9, column 'kind': the value is missing: fill it, or leave the row out"):
        gn.load_data(frame, missing="mean")


def test_numbers_are_taken_as_they_are_where_that_is_asked_for() -> None:
    frame = FRAME[["size", "kind"]].assign(size=FRAME["size"] / 10)
    data = gn.load_data(frame, target="kind", scaling="none", validation=0)
    np.testing.assert_array_equal(data.train.inputs[:, 0], frame["size"].astype(np.float32))
    columns = data.train.columns
    assert columns is not None
    assert (columns.means, columns.deviations) == ((0.0,), (1.0,))
    model = trained(data)
    np.testing.assert_array_equal(model.predict_proba(frame), model.predict_proba(data.train.inputs))
    standard = gn.load_data(frame, target="kind", scaling="standard", validation=0)
    assert standard.train.sha256() == gn.load_data(frame, target="kind", validation=0).train.sha256()
    assert standard.train.sha256() != data.train.sha256()
    with pytest.raises(OptionError, match='missing "mean" needs the means that scaling "none" does without'):
        gn.load_data(frame, target="kind", scaling="none", missing="mean")


def test_columns_that_say_nothing_are_left_out_and_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    frame = FRAME.assign(name=[f"n{k}" for k in range(N)], empty=np.nan, passenger_id=range(N), same=1.5)
    frame["day"] = pd.date_range("2024-01-30", periods=N)
    frame["born"] = [f"{k % 28 + 1}.2.1999" for k in range(N)]
    frame["cabin"] = [f"C{k}" if k < 22 else None for k in range(N)]
    columns = gn.load_data(frame, target="kind").train.columns
    assert columns is not None
    assert columns.names == ("size", "count", "colour", "fresh", "price", "same")
    for word in (
        "'name' (60 different texts)",
        "'empty' (empty)",
        "'passenger_id' (the number of the row)",
        "'cabin' (22",
    ):
        assert word in caplog.text
    assert caplog.text.count("(dates: make numbers of them") == 2


PIXELS = {"label": RNG.integers(0, 10, 80)} | {f"pixel{k}": RNG.integers(0, 256, 80) for k in range(16)}


@pytest.mark.parametrize(
    "names", [lambda k: f"pixel{k}", lambda k: f"{k // 4 + 1}x{k % 4 + 1}", lambda k: f"p_{k // 4}_{k % 4}", str]
)
@pytest.mark.parametrize("is_first", [True, False])
def test_a_table_of_pixels_is_images(names: Any, is_first: bool) -> None:
    images = np.stack([PIXELS[f"pixel{k}"] for k in range(16)], axis=1).astype(np.uint8).reshape(80, 4, 4)
    label, rest = {"label": PIXELS["label"]}, {names(k): PIXELS[f"pixel{k}"] for k in range(16)}
    data = gn.load_data(label | rest if is_first else rest | label)
    expected = gn.Data.from_arrays(images, PIXELS["label"])
    assert data.train.sha256() == expected.train.sha256()
    assert (data.train.shape, data.train.columns, data.class_names) == ((4, 4, 1), None, tuple("0123456789"))
    backwards = dict(reversed(rest.items()))
    assert gn.load_data(label | backwards).train.sha256() == expected.train.sha256()


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"target": "knd"}, DataError, r"has no column 'knd' to learn: it has 'size', .*did you mean 'kind'"),
        ({"ignore": "prise"}, DataError, r"has no column 'prise': it has .*did you mean 'price'"),
        ({"target": ["price", "kind"]}, DataError, "several targets are numbers, got texts in 'kind'"),
        (
            {"target": "kind", "task": "regression"},
            DataError,
            "regression needs numbers, and the column 'kind' holds texts",
        ),
        ({"scaling": "minmax"}, OptionError, 'scaling is "standard" or "none"'),
        ({"missing": "median"}, OptionError, 'missing is "refuse" or "mean"'),
        ({"task": "clustering"}, OptionError, 'task is "classes", "regression" or "reconstruction"'),
        ({"target": 3}, OptionError, "target is the name of a column"),
        ({"validation": 60}, OptionError, "leaves none to train on"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        gn.load_data(FRAME, **options)


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        ({"a": [1, 2, 3]}, "has one column, 'a', and nothing to learn it from"),
        ({"a": [1, 2, 3], "b": ["x"] * 3}, "the column 'b' holds 'x' in every row"),
        ({"a": [1, 2, 3], "b": [1.5] * 3}, "the column 'b' holds 1.5 in every row"),
        ({"a": [1, 2, 3], "b": [1, 2]}, "its columns have 2, 3 values"),
        ({"a": [], "b": []}, "has no rows"),
        ({"a": [1, np.inf, 3], "b": [1, 2, 1]}, "row 1, column 'a': expected a number, got an infinite number"),
        ({"a": [1, "oops", *range(9)], "b": range(11)}, "row 1, column 'a': expected a number, got 'oops'"),
        ({"a": [[1], [2]], "b": [1, 2]}, "expected a value in each row, got an array of shape"),
        ({"a": [1], "b": [2]}, "has one row"),
        ({"a": ["1.234,5", "2.000", "30,5"], "b": [1, 2, 1]}, "'a' holds numbers that are written with more, such as"),
        ({"a": ["12 %", "5%", "7%"], "b": [1, 2, 1]}, "'a' holds numbers that are written with more, such as '12"),
        ({"a": ["$1,200", "$5", "$7.50"], "b": [1, 2, 1]}, "column 'a' holds numbers that are written with more"),
        ({"a": [np.nan, np.nan], "b": [1, 2]}, "no column is left to learn from"),
        (pd.DataFrame([[1, 2, 3]], columns=["a", "b", "a"]), "columns 1 and 3 are both named 'a'"),
        (pl.LazyFrame({"a": [1]}), "give frame.collect()"),
    ],
)  # fmt: skip
def test_frames_that_cannot_be_learned_from_are_refused(frame: Any, said: str) -> None:
    with pytest.raises(DataError, match=re.escape(said)):
        gn.load_data(frame)


def test_options_of_tables_are_refused_for_other_data(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 2)), y=[0, 1, 0, 1])
    for source in ("digits", tmp_path / "a.npz"):
        with pytest.raises(OptionError, match="target is an option of tables"):
            gn.load_data(source, target="y")


def test_a_class_that_the_training_did_not_have_is_named() -> None:
    data = gn.load_data(FRAME, target="kind", ignore="price")
    model = trained(data)
    with pytest.raises(DataError, match=r"row 2, column 'kind': expected a class of the training, 'a', 'b', got 'B'"):
        model.evaluate(FRAME.assign(kind=["a", "b", "B", *FRAME["kind"][3:]]))


def test_a_frame_of_numbers_is_still_an_array_for_a_network_that_learned_from_arrays() -> None:
    numbers, targets = FRAME[["size", "count"]] / 1000, (FRAME["kind"] == "b").astype(int)
    model = gn.Sequential([gn.Dense(2)])
    model.fit(numbers, targets, epochs=1, device="cpu", progress=False)
    np.testing.assert_array_equal(model.predict(numbers), model.predict(numbers.to_numpy()))


@pytest.mark.parametrize("target", ["kind", "price"])
def test_tables_and_arrays_of_ones_own_are_validated_on_in_the_same_units(target: str) -> None:
    other = "price" if target == "kind" else "kind"
    data = gn.load_data(FRAME[:40], target=target, ignore=other, validation=0)
    later = FRAME[40:].drop(columns=other)
    later_data = gn.load_data(later[::-1], target=target, validation=0)
    expected = data.with_validation((later.drop(columns=target), later[target])).validation
    assert expected is not None
    raw = later[target].to_numpy() if target == "price" else expected.targets
    for own in ((expected.inputs, raw), later_data.train):
        got = data.with_validation(own).validation
        assert got is not None
        assert got.columns == data.train.columns or target == "kind"
        order = slice(None) if isinstance(own, tuple) else slice(None, None, -1)
        np.testing.assert_allclose(got.inputs[order], expected.inputs, atol=1e-5)
        np.testing.assert_allclose(got.targets[order], expected.targets, atol=1e-5)


@pytest.mark.parametrize("test", ["test.csv", "testing.csv"])
def test_a_folder_has_tables_to_learn_from_to_validate_and_to_test_on(tmp_path: Path, test: str) -> None:
    frame = FRAME.drop(columns="price")
    frame[:40].to_csv(tmp_path / "train.csv", index=False)
    frame[40:50].to_parquet(tmp_path / "val.parquet")
    frame[50:].to_csv(tmp_path / test, index=False)
    data = gn.load_data(tmp_path, target="kind")
    assert data.name == tmp_path.name
    assert data.validation is not None
    assert (len(data.train), len(data.validation), data.test_is_open, len(data.test or ())) == (40, 10, False, 10)
    columns = data.train.columns
    assert columns is not None
    assert data.validation.columns == data.test.columns == columns  # type: ignore[union-attr]
    assert columns.means[0] == pytest.approx(frame["size"][:40].mean())
    assert gn.load_data(tmp_path, target="kind", validation="test").validation_is_test
    (tmp_path / "val.parquet").unlink()
    again = gn.load_data(tmp_path, target="kind", validation=0.25)
    assert again.validation is not None
    assert (len(again.train), len(again.validation), again.has_test) == (30, 10, True)
    frame[50:].drop(columns="count").to_csv(tmp_path / test, index=False)
    with pytest.raises(DataError, match=r"test(ing)?\.csv: has no column 'count'"):
        assert gn.load_data(tmp_path, target="kind").test


def test_a_folder_of_tables_of_pixels_is_images(tmp_path: Path) -> None:
    for part in ("train", "test"):
        pd.DataFrame(PIXELS).to_csv(tmp_path / f"{part}.csv", index=False)
    data = gn.load_data(tmp_path, validation=0)
    assert data.test is not None
    assert data.test.sha256() == data.train.sha256()
