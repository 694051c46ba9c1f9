"""What the README and the examples show runs as it stands, and the files that they name are there."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from support.paths import ROOT

from gpunn import Sequential
from gpunn.config import from_config
from gpunn.experiments.experiment import parse_experiment, recipes

PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")),
    *sorted((ROOT / "docs").rglob("*.md")),
]


def run_python(*arguments: str, cwd: Path) -> str:
    """What a Python program prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def test_the_classroom_example_learns_the_digits(tmp_path: Path) -> None:
    out = run_python(str(ROOT / "examples" / "mnist_dense.py"), "digits", cwd=tmp_path)
    accuracy = float(re.findall(r"test accuracy ([\d.]+)%", out)[0])
    assert accuracy > 90
    assert (tmp_path / "mnist_dense.safetensors").is_file()


def test_the_example_of_convolution_learns_the_digits_and_draws_what_it_has_learned(tmp_path: Path) -> None:
    out = run_python(str(ROOT / "examples" / "mnist_convolution.py"), "digits", cwd=tmp_path)
    accuracy = float(re.findall(r"test accuracy ([\d.]+)%", out)[0])
    assert accuracy > 93
    assert {path.name for path in tmp_path.iterdir()} == {"filters.png", "activations.png"}


def test_the_example_of_tokens_fills_in_vowels_as_the_page_and_its_experiment_do(tmp_path: Path) -> None:
    """Six epochs of a small network, twice."""
    out = run_python(str(ROOT / "examples" / "vowels.py"), cwd=tmp_path)
    ((accuracy, always),) = re.findall(r"test accuracy ([\d.]+)%, always e ([\d.]+)%", out)
    assert float(accuracy) > 86
    assert float(always) < 40
    page = ROOT / "docs" / "embedding.md"
    assert len(re.findall(r"^.*_.*: [aeiou]$", out, re.MULTILINE)) == 3
    (text,) = blocks(page, "toml")
    (tmp_path / "vowels.toml").write_text(text, "utf-8")
    out = run_python("-m", "gpunn", "train", "--recipe", "vowels.toml", "--device", "cpu", cwd=tmp_path)
    assert f"test accuracy  {accuracy}%" in out


@pytest.mark.parametrize(("name", "lines"), [("mnist_dense", 35), ("mnist_convolution", 40)])
def test_a_classroom_example_is_short(name: str, lines: int) -> None:
    code = (ROOT / "examples" / f"{name}.py").read_text("utf-8").splitlines()
    assert len([line for line in code if line.strip()]) <= lines


def test_the_screen_of_the_readme_is_what_comes_out(tmp_path: Path) -> None:
    screen = (ROOT / "README.md").read_text("utf-8").partition("## What you get\n\n```\n")[2].partition("```")[0]
    out = run_python("-m", "gpunn", "train", "--device", "cpu", cwd=tmp_path)
    lines = [line for line in screen.splitlines() if not line.startswith(("device", "test accuracy", "..."))]
    assert len(lines) > 5
    assert [line for line in lines if line not in out.splitlines()] == []
    (accuracy,) = re.findall(r"^test accuracy  (9[78]\.\d\d)%: 35\d of 360 right, loss 0\.\d{4}$", out, re.MULTILINE)
    assert 97.0 <= float(accuracy) <= 98.5


def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    by_hand, dense, convolutional, reused = blocks(ROOT / "README.md", "python")
    assert re.search(r"^accuracy 9[56]\.\d\d%", run_python("-c", by_hand, cwd=tmp_path), re.MULTILINE)
    out = run_python("-c", dense, cwd=tmp_path)
    assert "Dense(units=128)" in out
    assert re.search(r"^accuracy 9\d\.\d\d%", out, re.MULTILINE)
    out = run_python("-c", dense + convolutional, cwd=tmp_path)
    assert "Conv2D(filters=20, size=5, padding='same')" in out
    assert len(re.findall(r"^accuracy 9\d\.\d\d%", out, re.MULTILINE)) == 2
    run_python("-c", dense + reused, cwd=tmp_path)


def test_the_numbers_of_the_readme_are_those_of_the_benchmarks() -> None:
    readme, page = ((ROOT / name).read_text("utf-8") for name in ("README.md", "docs/benchmarks.md"))
    peers = ("gpunn", "gpunn without Numba", "PyTorch eager", "JAX jit", "JAX scan", "scikit-learn")
    rows = re.findall(r"^\| (.*) \| `gpunn bench \w+` \|$", readme, re.MULTILINE)
    assert len(rows) == 3
    for row in rows:
        work, *shown = row.split(" | ")
        section = page.partition(f"\n### {work.removeprefix('a step of ')}\n")[2].partition("\n### ")[0]
        measured = dict(re.findall(r"^\| (.*?) [\d.]+ \| float32 \| (.*?) \|", section, re.MULTILINE))
        assert shown == [measured.get(peer, "–") for peer in peers]
    for share, recipe in re.findall(r"\| ([\d.]+) % \| `python benchmarks/accuracy.py ([\w-]+)", readme):
        result = json.loads((ROOT / f"benchmarks/results/accuracy-mnist-{recipe}-cpu.json").read_text("utf-8"))
        assert f"{result['mean_test_accuracy']:.2%}" == f"{share}%"


def test_the_experiment_of_the_page_is_one() -> None:
    text, residual = blocks(ROOT / "docs" / "recipes.md", "toml")
    experiment = parse_experiment(text, "page")
    assert (experiment.name, experiment.training.patience) == ("mine", 3)
    (layer,) = tomllib.loads(residual)["layers"]
    assert Sequential([from_config("layer", layer)]).build((32, 32, 3), device="cpu").output_shape == (16, 16, 32)


def test_the_page_has_every_recipe() -> None:
    text = (ROOT / "docs" / "recipes.md").read_text("utf-8")
    assert all(f"| `{name}`" in text for name in recipes())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    named = re.findall(r"`((?:\w+/)*\w+\.(?:py|sh))`", page.read_text("utf-8"))
    places = [ROOT, *(ROOT / folder for folder in ("gpunn", "benchmarks", "gpunn/data/formats"))]
    assert [name for name in named if not any((place / name).is_file() for place in places)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_links_to_is_there(page: Path) -> None:
    gone = []
    for link, anchor in re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", page.read_text("utf-8")):
        path = page.parent / link if link else page
        anchors = anchors_of(path) if anchor and path.is_file() else {anchor}
        if not path.exists() or anchor not in anchors:
            gone.append(f"{link}#{anchor}")
    assert gone == []


def test_every_decision_is_listed() -> None:
    folder = ROOT / "docs" / "design"
    listed = re.findall(r"^\| \[.*?\]\((.*?)\)", (folder / "README.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(page.name for page in folder.glob("*.md") if page.name != "README.md")


def anchors_of(page: Path) -> set[str]:
    """The names by which the headings of a page are linked to."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_table_of_the_examples_is_that_of_its_source_and_is_learned(tmp_path: Path) -> None:
    for name in ("iris.py", "iris.csv"):
        (tmp_path / name).write_bytes((ROOT / "examples" / name).read_bytes())
    run_python("iris.py", cwd=tmp_path)
    assert (tmp_path / "iris.csv").read_bytes() == (ROOT / "examples" / "iris.csv").read_bytes()
    assert "gpunn train examples/iris.csv --target species" in (ROOT / "README.md").read_text("utf-8")
    run_python(
        "-m", "gpunn", "train", "iris.csv", "--target", "species", "--device", "cpu", "--out", "run", cwd=tmp_path
    )
    out = run_python("-m", "gpunn", "evaluate", "run", "iris.csv", cwd=tmp_path)
    assert float(re.findall(r"accuracy ([\d.]+)%", out)[0]) > 92


def test_the_numbers_of_the_page_on_tables_are_those_of_the_benchmark() -> None:
    page = (ROOT / "docs" / "data.md").read_text("utf-8")
    for file, more in (("tables-cpu.json", ""), ("tables-iris-cpu.json", ", 40 other splits")):
        result = json.loads((ROOT / "benchmarks/results" / file).read_text("utf-8"))
        for name, table in result["tables"].items():
            means = [table["means"].get(way) for way in ("gpunn", "standardised", "gpunn_plain", "plain")]
            shown = [
                "–" if mean is None else f"{mean:.2f}" if table["figure"] == "R²" else f"{mean:.1%}".replace("%", " %")
                for mean in means
            ]
            row = f"| {name.replace('_', ' ')}, {table['figure']}{more} | {' | '.join(shown).replace('-', '−')} |"
            assert row in page
