"""The curves that the lecture draws are those whose figures stand in the JSON beside them."""

import json

import numpy as np
import pytest
from support.paths import ROOT

RESULTS = ROOT / "benchmarks" / "results"


@pytest.mark.parametrize("name", ["overfitting", "regularized"])
def test_the_curves_end_and_turn_where_the_figures_say(name: str) -> None:
    curves = np.genfromtxt(RESULTS / "nielsen-curves.csv", delimiter=",", names=True)
    figures = json.loads((RESULTS / "nielsen-curves.json").read_text("utf-8"))
    ours = next(run for run in figures["runs"] if run["recipe"] == f"nielsen-{name}" and run["seed"] == 0)
    assert curves["epoch"].tolist() == list(range(1, 401))
    for whose, figure in (("published", figures["published"][name]), ("gpunn", ours)):
        cost = curves[f"{name}_{whose}_validation_loss"]
        np.testing.assert_allclose(cost[-1], figure["test_cost"], rtol=1e-4)
        np.testing.assert_allclose(cost.min(), figure["lowest_test_cost"], rtol=1e-4)
        right = curves[f"{name}_{whose}_validation_accuracy"][-1]
        np.testing.assert_allclose(right, figure["test_accuracy"], rtol=1e-4)
