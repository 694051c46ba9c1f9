"""The figures in README and docs are those of benchmarks/results, each to the digits that the page shows.

The rows of docs/benchmarks.md, those of the README's first table, of equations of one's own, of tables and of trainings
side by side are compared in tests/benchmarks, test_examples.py and test_equations_page.py.
"""

import json
import re
from functools import cache
from typing import Any

import pytest
from support.paths import ROOT

RESULTS = ROOT / "benchmarks" / "results"


@cache
def page(name: str) -> str:
    """The text of a page with single blanks, wherever its lines are broken."""
    return " ".join((ROOT / name).read_text("utf-8").split())


@cache
def result(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text("utf-8"))


# Recipe, file, and how docs/recipes.md writes the mean.
ACCURACIES = {
    "mlp": [("accuracy-digits-mlp-cpu", "digits {:.1f} %"), ("accuracy-mnist-mlp-cpu", "MNIST {:.1f} %")],
    "lenet": [("accuracy-mnist-lenet-cpu", "{:.2f} % (mean of seeds 0, 1, 2)")],
    "lenet-bn": [("accuracy-mnist-lenet-bn-cpu", "{:.2f} % (mean of seeds 0, 1, 2)")],
    "fast99": [("accuracy-mnist-fast99-cpu", "{:.2f} % (mean of seeds 0 to 4; each at least 99.0 %")],
    "lenet-digits": [("accuracy-digits-lenet-digits-cpu", "{:.1f} % (mean of seeds 0, 1, 2)")],
    "images": [("accuracy-shapes-images-cpu", "`examples/shapes` {:.1f} % (mean of seeds 0, 1, 2)")],
    "resnet": [("accuracy-mnist-32-resnet-cpu", "MNIST padded to 32×32, 8 epochs: {:.2f} % (mean of seeds 0, 1, 2)")],
    "nielsen-100": [("accuracy-mnist-nielsen-100-cpu", "{:.1f} % (seed 0)")],
}


@pytest.mark.parametrize("recipe", ACCURACIES)
def test_the_accuracies_of_the_recipes_are_the_measured_ones(recipe: str) -> None:
    row = re.findall(rf"^\| `{recipe}` .*", (ROOT / "docs" / "recipes.md").read_text("utf-8"), re.MULTILINE)[0]
    for file, words in ACCURACIES[recipe]:
        assert words.format(100 * result(file)["mean_test_accuracy"]) in row
        accuracies = [run["test_accuracy"] for run in result(file)["runs"]]
        assert sum(accuracies) / len(accuracies) == pytest.approx(result(file)["mean_test_accuracy"])


def test_each_run_of_fast99_reaches_what_is_said_of_each_and_of_the_benchmark() -> None:
    assert min(run["test_accuracy"] for run in result("accuracy-mnist-fast99-cpu")["runs"]) >= 0.99
    (work,) = result("bench-cpu-fast99")["workloads"]
    (ours,) = (row for row in work["results"] if row["peer"] == "gpunn")
    assert f"{100 * ours['accuracy']:.2f} % since, in `gpunn bench fast99`" in page("docs/recipes.md")


def test_the_accuracies_over_the_published_curves_are_the_measured_ones() -> None:
    for recipe in ("nielsen-overfitting", "nielsen-regularized"):
        runs = {run["seed"]: run for run in result("nielsen-curves")["runs"] if run["recipe"] == recipe}
        shown = " and ".join(f"{100 * runs[seed]['test_accuracy']:.1f}" for seed in (0, 1))
        assert re.search(rf"\| `{recipe}` [^\n]*\| {shown} %", (ROOT / "docs" / "recipes.md").read_text("utf-8"))


def test_every_measured_recipe_is_compared_here() -> None:
    files = {file for each in ACCURACIES.values() for file, _ in each}
    by_ranks = {"accuracy-mnist-lenet-bn-cpu-2-ranks"}  # tests/project/test_scaling_page.py compares it
    assert files | by_ranks == {path.stem for path in RESULTS.glob("accuracy-*.json")}


def test_what_numba_spares_is_what_was_measured() -> None:
    factors = {}
    for group in ("dense", "conv", "conv1024", "deep", "fast99"):
        for work in result(f"bench-cpu-{group}")["workloads"]:
            rows = {row["peer"]: row for row in work["results"]}
            factors[work["name"]] = rows["gpunn without Numba"]["times_gpunn"]
    small = [factor for name, factor in factors.items() if re.fullmatch(r"784-\d+-10, batch 128", name)]
    convolutional = [factor for name, factor in factors.items() if re.match(r"lenet|fast99|3×3", name)]
    assert (len(small), len(convolutional)) == (2, 6)
    least, most = (100 * (1 - 1 / factor) for factor in (min(small + convolutional), max(small + convolutional)))
    assert f"take {least:.0f} to {most:.0f} % less time" in page("README.md")


def test_the_digits_that_the_readme_has_seen_are_those_of_the_measured_seeds() -> None:
    screen = float(re.findall(r"test accuracy ([\d.]+)%: 350 of 360 right", page("README.md"))[0])
    seeds = [100 * run["test_accuracy"] for run in result("accuracy-digits-mlp-cpu")["runs"]]
    assert f"{min(screen, *seeds):.1f} to {max(screen, *seeds):.1f} % were seen" in page("README.md")


# Photographs


def test_the_table_of_photographs_is_the_measured_one() -> None:
    rows = {row["kind"]: row for row in result("photographs-cpu")["rows"]}
    table = (
        page("docs/data.md").partition("| photograph | MLP | LeNet | without preparation |")[2].partition("Of the ")[0]
    )
    shown = re.findall(r"\| ([^|]+) \| (\d+)% \| (\d+)% \| (\d+)%, (\d+)% \|", table)
    assert len(shown) > 12
    for kind, *figures in shown:
        keys = ("mlp", "lenet", "mlp without preparation", "lenet without preparation")
        assert figures == [f"{100 * rows[kind][key]:.0f}" for key in keys], kind


def test_what_is_said_of_photographs_is_what_was_measured() -> None:
    measured, text = result("photographs-cpu"), page("docs/data.md")
    rows = {row["kind"]: row for row in measured["rows"]}
    assert f"drawn as photographs of {len(rows)} kinds" in text
    assert f"trained on {measured['trained on']:,} images" in text
    accuracy = measured["test accuracy"]
    assert f"({100 * accuracy['mlp']:.1f} % and {100 * accuracy['lenet']:.1f} % on the test set" in text
    spot = rows["a lamp's small spot"]
    assert f"({100 * spot['mlp']:.0f} % and {100 * spot['lenet']:.0f} %)" in text
    others = [
        row[key]
        for kind, row in rows.items()
        for key in ("mlp", "lenet")
        if kind not in ("a lamp's small spot", "12 megapixels")
    ]
    assert f"read at least {100 * min(others):.0f} % of each kind" in text
    assert {rows["12 megapixels"]["mlp"]} == {0.9}
    assert "nine of ten pictures of 12 megapixels" in text
    sure = measured["sure"]["0.6"]
    wrong, right = (sure[f"share of {kind} answers below"] for kind in ("wrong", "right"))
    assert f"lay {100 * wrong:.0f}% of the wrong answers and {100 * right:.1f}% of the right ones" in text


# Other pages


def test_the_times_of_a_folder_of_images_are_the_measured_ones() -> None:
    measured, text = result("image-folder-cpu"), page("docs/data.md")
    first, later = measured["gpunn"]["epochs_seconds"]
    (again,) = measured["gpunn_next_run"]["epochs_seconds"]
    work, later_work = (measured[run]["loading_processor_seconds"] for run in ("gpunn", "gpunn_next_run"))
    processor = f"{work:.1f} s, of the next run {later_work:.1f} s"
    assert f"| gpunn | {first:.0f} s | {later:.1f} s | {again:.1f} s | {processor} |" in text
    torch, alone = measured["pytorch"], measured["decoding_alone"]
    shown = [f"{seconds:.0f} s" for seconds in torch["epochs_seconds"]]
    per_epoch = torch["processor_seconds"] / len(shown)
    assert f"| {' | '.join(shown)} | as the first | {per_epoch:.1f} s, of each epoch |" in text
    assert f"| {alone['seconds']:.0f} s | | | {alone['processor_seconds']:.1f} s |" in text


def test_the_costs_of_the_guarantees_are_the_measured_ones() -> None:
    costs = {each["recipe"]: each for each in result("guarantees-cpu")["costs"]}
    text = page("docs/reliability.md")
    ms = {recipe: f"{1e3 * cost['checkpoint_seconds']:.0f} ms" for recipe, cost in costs.items()}
    said = f"took {ms['mlp']} for `mlp`, {ms['lenet']} for `lenet` and {ms['lenet-bn']} for `lenet-bn`"
    assert said in text
    sizes = [cost["checkpoint_bytes"] / 1e6 for recipe, cost in costs.items() if recipe != "nielsen-100"]
    assert f"{min(sizes):.1f} to {max(sizes):.1f} MB" in text

    def check(recipe: str) -> str:
        seconds = 1e6 * costs[recipe]["check_seconds"]
        return f"{seconds:.1f} µs" if seconds < 10 else f"{seconds:.0f} µs"

    steps = {recipe: cost["step_seconds"] for recipe, cost in costs.items()}
    assert (
        f"takes {check('nielsen-100')} of a step of `nielsen-100` at batch 10 ({1e6 * steps['nielsen-100']:.0f} µs)"
        in text
    )
    assert f"{check('lenet')} of one of `lenet` ({1e3 * steps['lenet']:.1f} ms)" in text
    assert f"{check('lenet-bn')} of one of `lenet-bn` ({1e3 * steps['lenet-bn']:.0f} ms)" in text


def test_the_cost_of_tensorboard_is_the_measured_one() -> None:
    share = 100 * result("tensorboard-cpu")["share_of_processor_seconds"]
    assert f"takes about {share:.0f} % more processor" in page("docs/tensorboard.md")


def test_the_table_of_fine_tuning_is_the_measured_one() -> None:
    text = page("docs/fine-tuning.md")
    for epochs, means in result("fine-tuning-cpu")["means"].items():
        keys = ("scratch", "freeze 0", "freeze 1", "freeze 2")
        assert f"| {epochs} | {' | '.join(f'{100 * means[key]:.0f} %' for key in keys)} |" in text
