"""The description of a table's columns: what goes into a file and back, and what no file may claim."""

import json
from typing import Any

import numpy as np
import pytest

from gpunn.data.columns import Columns, learn_columns, moments
from gpunn.data.formats.table import Column, Table
from gpunn.errors import DataError

COLUMNS = Columns(
    ("a", "c"), (1.5, 0.0), (2.0, 1.0), {"c": ("x", "y")}, "mean", {"c": "x"}, ("b",), (), (0.25,), (1e-3,)
)


def test_columns_come_back_from_a_file_as_they_are() -> None:
    assert Columns.from_dict(json.loads(json.dumps(COLUMNS.as_dict()))) == COLUMNS
    assert (COLUMNS.features, COLUMNS.feature_names) == (3, ["a", "c=x", "c=y"])


@pytest.mark.parametrize(
    "changed",
    [
        {"names": ["a", "a"]},
        {"names": ["a", 3]},
        {"names": ["a", ["c"]]},
        {"names": []},
        {"names": None},
        {"means": [1.5]},
        {"means": [float("nan"), 0.0]},
        {"means": ["1", 0.0]},
        {"means": [True, 0.0]},
        {"deviations": [0.0, 1.0]},
        {"deviations": [-1.0, 1.0]},
        {"categories": {"d": ["x"]}},
        {"categories": {"c": []}},
        {"categories": {"c": 3}},
        {"categories": {"c": [None]}},
        {"categories": [1]},
        {"fills": {"z": "x"}},
        {"fills": {"c": 3}},
        {"missing": 3},
        {"targets": ["b", "d"]},
        {"classes": ["u", "v"]},
        {"target_deviations": [0.0]},
        {"more": 1},
    ],
)
def test_a_description_that_cannot_be_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        Columns.from_dict({**json.loads(json.dumps(COLUMNS.as_dict())), **changed})


@pytest.mark.parametrize("table", [None, 3, [], "x", {}])
def test_what_is_no_description_is_refused(table: Any) -> None:
    with pytest.raises(DataError):
        Columns.from_dict(table)


@pytest.mark.parametrize(
    ("values", "mean", "deviation"),
    [
        ([1, 2, 3, 4], 2.5, np.sqrt(1.25)),
        ([0.1] * 7, 0.1, 1),
        ([np.nan, 2, 4], 3, 1),
        ([np.nan], 0, 1),
        ([1e300, -1e300], 0, 1e300),
        ([1e9, 1e9 + 2], 1e9 + 1, 1),
        ([0, 255], 127.5, 127.5),
    ],
)
def test_mean_and_deviation_of_any_numbers_are_finite_and_above_0(
    values: list[float], mean: float, deviation: float
) -> None:
    for dtype in (np.float64, np.uint8) if values == [0, 255] else (np.float64,):
        assert moments(np.array(values, dtype)) == pytest.approx((mean, deviation))


def test_columns_whose_description_would_fill_a_model_file_are_refused() -> None:
    values = Column(np.arange(4.0))
    table = Table("t", {f"column of a long name {k:0200}": values for k in range(5000)}, 4, str)
    with pytest.raises(DataError, match=r"t: names and categories of its columns take 1,\d\d\d,\d\d\d bytes: leave"):
        learn_columns(table, list(table.columns), np.arange(4), "refuse")
