"""docs/scaling.md: its table is the model's, its figures are the measured ones, and its extras exist."""

import json
import re
import tomllib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from support.paths import ROOT

import gpunn as gn
from gpunn.config import from_config
from gpunn.experiments.experiment import read_experiment, with_units

PAGE = (ROOT / "docs" / "scaling.md").read_text("utf-8")


@pytest.fixture(scope="module")
def model() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import scaling_model

        yield scaling_model


@pytest.fixture(scope="module")
def scaling() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import scaling

        yield scaling


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    """What was measured; nothing before that, and the page then says that it is still to be made."""
    path = ROOT / "benchmarks" / "results" / "scaling-cpu.json"
    return json.loads(path.read_text("utf-8"))["parts"] if path.is_file() else {}


def test_the_table_is_what_the_model_prints(model: ModuleType) -> None:
    assert "\n".join(model.table()) in PAGE


@pytest.mark.parametrize("recipe", ["mlp", "lenet", "lenet-bn"])
def test_the_models_networks_are_those_of_the_recipes(model: ModuleType, recipe: str) -> None:
    layers = [from_config("layer", with_units(layer, 10)) for layer in read_experiment(recipe).layers]
    network = gn.Sequential(layers).build((28, 28, 1) if recipe != "mlp" else (784,), batch_size=2, device="cpu")
    assert model.NETWORKS[recipe].parameters == sum(parameter.value.size for parameter in network.parameters)
    launches = re.search(rf"\| `{recipe}`[^|]* \| (\d+) \|", (ROOT / "docs" / "gpu.md").read_text("utf-8"))
    assert launches is None or model.NETWORKS[recipe].kernels == int(launches[1])


def test_the_model_sums_more_slowly_with_more_ranks_and_more_bytes(model: ModuleType) -> None:
    times = [[model.sum_time(size, ranks) for ranks in (1, 2, 8, 16, 1024)] for size in (1024, 343_000, 10_000_000)]
    assert all(row == sorted(row) for row in times)
    assert all(column == sorted(column) for column in map(list, zip(*times, strict=True)))


def test_the_times_of_two_ranks_are_the_measured_ones(scaling: ModuleType, parts: dict[str, Any]) -> None:
    assert f"<!-- written by benchmarks/scaling.py -->\n{scaling.page(parts)}\n<!-- until here -->" in PAGE


def test_two_ranks_are_no_slower_than_those_of_pytorch_at_the_same_work(parts: dict[str, Any]) -> None:
    for part in (part for name, part in parts.items() if name != "threads"):
        assert min(part["ddp_times_gpunn"].values()) >= 1
        for way in ("1 rank", "strong", "weak"):
            assert part["losses"][f"ddp, {way}"] == pytest.approx(part["losses"][f"gpunn, {way}"], rel=0.01)


def test_threads_that_nobody_set_are_as_quick_as_one_for_each_rank(parts: dict[str, Any]) -> None:
    assert parts.get("threads", {"ratio": 1})["ratio"] <= 1.2


def test_lenet_bn_learns_as_much_by_two_ranks() -> None:
    one, two = (
        json.loads((ROOT / "benchmarks" / "results" / f"accuracy-mnist-lenet-bn-cpu{ranks}.json").read_text("utf-8"))
        for ranks in ("", "-2-ranks")
    )
    assert [run["seed"] for run in one["runs"]] == [run["seed"] for run in two["runs"]] == [0, 1, 2]
    accuracies = [each["mean_test_accuracy"] for each in (two, one)]
    assert abs(accuracies[0] - accuracies[1]) <= 0.0015
    assert f"{accuracies[0]:.2%} by two ranks and {accuracies[1]:.2%} by one".replace("%", " %") in re.sub(
        r" of\s+MNIST", "", PAGE
    )
    assert two["command"] in PAGE


def test_the_extras_exist() -> None:
    known = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    named = {name for group in re.findall(r"\.\[([\w,]+)\]", PAGE) for name in group.split(",")}
    assert {"mpi", "mpich", "nccl13"} <= named <= set(known)
