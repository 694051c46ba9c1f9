"""scikit-learn's own data sets by name: the same samples as of a table that is written from them."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn import datasets
from support.data_helpers import one_line

from gpunn.data import load_data
from gpunn.data.sklearn_sets import SKLEARN_NAMES, TABLES
from gpunn.errors import DataError, OptionError


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer"])
def test_a_set_of_classes_is_what_its_table_would_be(tmp_path: Path, name: str) -> None:
    found = getattr(datasets, f"load_{name}")()
    with (path := tmp_path / f"{name}.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*found.feature_names, "target"])
        for row, place in zip(found.data, found.target, strict=True):
            writer.writerow([*map(repr, map(float, row)), found.target_names[place]])
    own, table = load_data(f"sklearn:{name}", seed=3), load_data(path, seed=3)
    assert own.class_names == tuple(sorted(found.target_names))
    assert own.train.sha256() == table.train.sha256()
    assert own.validation is not None
    assert own.validation.sha256() == table.validation.sha256()  # type: ignore[union-attr]
    assert abs(own.train.inputs.mean(axis=0)).max() < 1e-5  # standardized by the training samples


def test_numbers_are_learned_from_diabetes_and_linnerud() -> None:
    for name, outputs in (("diabetes", 1), ("linnerud", 3)):
        data = load_data(f"sklearn:{name}", validation=0)
        assert (data.train.classes, data.train.targets.shape[1], data.class_names) == (0, outputs, ())


def test_the_digits_are_images() -> None:
    data = load_data("sklearn:digits", validation=0)
    assert (len(data.train), data.train.shape, data.train.scale, data.train.classes) == (1797, (8, 8, 1), 1 / 16, 10)
    np.testing.assert_array_equal(data.train.inputs[..., 0], datasets.load_digits().images)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("sklearn:irsi", 'did you mean "sklearn:iris"?'),
        ("iris", 'did you mean "sklearn:iris"?'),
        ("breast-cancer", 'did you mean "sklearn:breast_cancer"?'),
        ("sklearn:", "expected sklearn:digits, sklearn:iris"),
        ("sklearn:california_housing", "sklearn.datasets.fetch_california_housing() gives by np.savez"),
        ("sklearn:fetch_openml", "sklearn.datasets.fetch_openml() gives by np.savez"),
    ],
)
def test_what_is_not_in_the_package_is_refused(source: str, said: str) -> None:
    with pytest.raises(OptionError) as caught:
        load_data(source)
    one_line(caught.value)
    assert said in str(caught.value)


def test_other_spellings_are_understood() -> None:
    for source in ("sklearn:breast-cancer", "sklearn:load_breast_cancer", "sklearn:Breast_Cancer"):
        assert load_data(source).name == "breast_cancer"


@pytest.mark.parametrize("name", SKLEARN_NAMES)
def test_without_scikit_learn_a_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for module in [module for module in sys.modules if module.partition(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(DataError, match="pip install scikit-learn") as caught:
        load_data(f"sklearn:{name}")
    one_line(caught.value)


def test_options_of_tables_are_taken_and_others_refused() -> None:
    data = load_data("sklearn:diabetes", target="bmi", ignore="target")
    assert data.train.shape == (9,)
    with pytest.raises(OptionError, match="target is an option of tables"):
        load_data("sklearn:digits", target="bmi")
    for name in TABLES:
        with pytest.raises(OptionError, match="leave memory_map out"):
            load_data(f"sklearn:{name}", memory_map=True)
