"""What the README and docs show as a program's output is what comes out, and every picture there has its command.

A screen is a fenced block without a language, or a line of output in a block of commands. Numbers that vary with the
machine (times, free memory, the last digits of a training) are compared as "#"; all words are compared as they are.
"""

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.cli_helpers import gpunn
from support.paths import ROOT

import gpunn as gn
from gpunn.errors import GpunnError

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def screens(page: Path) -> list[str]:
    """The blocks of a page that show output."""
    text = page.read_text("utf-8")
    found = [block for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S) if not language]
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S):
        if language == "sh" and "\ngpunn: " in block:
            found.append(block.partition("\n")[2])
    return found


def varied(text: str) -> str:
    """A screen with "#" for each number or size, as one line: a page may break it anywhere."""
    return " ".join(re.sub(r"\d+(?:\.\d+)?(?: [KMG]iB)?", "#", text).split())


def of_embedding(folder: Path) -> str:
    x = np.zeros((5, 8), np.int64)
    model = gn.Sequential([gn.Embedding(27, 4), gn.Flatten(), gn.Dense(2)]).build((8,), batch_size=5, device="cpu")
    x[3, 5] = 27
    with pytest.raises(GpunnError) as caught:
        model.predict(x)
    return str(caught.value)


def of_learning_rate(folder: Path) -> str:
    done = gpunn("lr-find", "digits")
    assert done.code == 0
    return next(line for line in done.out.splitlines() if line.startswith("suggested"))


def of_onnx(folder: Path) -> str:
    onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
    make = onnx.helper
    node = make.make_node("Conv", ["x", "w"], ["y"], name="conv1", dilations=[2, 2])
    x, y = (make.make_tensor_value_info(*each) for each in (("x", 1, ["n", 1, 8, 8]), ("y", 1, ["n", 2, 4, 4])))
    w = onnx.numpy_helper.from_array(np.ones((2, 1, 3, 3), np.float32), "w")
    onnx.save(make.make_model(make.make_graph([node], "g", [x], [y], [w])), folder / "other.onnx")
    return gpunn("import", "other.onnx").err


def of_divergence(folder: Path) -> str:
    """Sums over the features of one sample overflow in the first layer."""
    x = np.random.default_rng(0).normal(size=(400, 5)).astype(np.float32)
    x[137] = 3e38
    np.savez(folder / "spoilt.npz", x_train=x, y_train=np.arange(400) % 3, x_test=x[:50], y_test=np.arange(50) % 3)
    training = "[training]\nepochs = 3\nbatch_size = 50\nvalidate_every = 1\n"
    optimizer = '[optimizer]\ntype = "SGD"\nlearning_rate = 0.1\n'
    parts = ('"Dense"\nunits = 8', '"ReLU"', '"Dense"\nunits = "outputs"')
    layers = "".join(f"[[layers]]\ntype = {part}\n" for part in parts)
    (folder / "two.toml").write_text(f"[data]\nvalidation = 0\n{training}{optimizer}{layers}")
    return gpunn("train", "spoilt.npz", "--recipe", "two.toml", "--device", "cpu").err.strip().splitlines()[-1]


def of_memory(folder: Path) -> str:
    images = np.zeros((20_100, 28, 28), np.uint8)
    np.savez(folder / "mnist.npz", x=images, y=np.arange(len(images)) % 10)
    command = ["--recipe", "lenet", "--batch-size", "20000", "--memory-limit", "2GB", "--device", "cpu"]
    return gpunn("train", "mnist.npz", *command).err.strip().splitlines()[-1]


def of_rooms(folder: Path) -> str:
    """The page's own words, where the first of each line are the rooms and files that there are, all of them."""
    (screen,) = screens(DOCS / "architecture.md")
    named = [word for line in screen.splitlines()[1:] for word in re.findall(r"^  ((?:\S+ ?)+)", line)[0].split()]
    package = ROOT / "gpunn"
    rooms = {f"{path.name}/" for path in package.iterdir() if (path / "__init__.py").is_file()}
    files = {path.name for path in package.glob("*.py")} - {"__init__.py", "__main__.py"}
    assert set(named) == rooms | files
    return screen


# Of each page the screens in their order: what makes it again here, or the test that does.
SCREENS: dict[str, list[Callable[[Path], str] | str]] = {
    "README.md": ["tests/project/test_examples.py::test_the_screen_of_the_readme_is_what_comes_out"],
    "docs/architecture.md": [of_rooms],
    "docs/embedding.md": [
        of_embedding,
        "tests/project/test_examples.py::test_the_example_of_tokens_fills_in_vowels_as_the_page_and_its_experiment_do",
    ],
    "docs/gpu.md": ["tests/simulated_cuda/test_streaming.py::test_a_run_says_where_its_data_lie_and_what_they_take"],
    "docs/learning-rate.md": [of_learning_rate],
    "docs/metrics.md": ["tests/train/test_report.py::test_the_page_on_metrics_shows_what_comes_out"],
    "docs/onnx.md": [of_onnx],
    "docs/reliability.md": [of_divergence, of_memory],
}
MADE = [(page, place) for page, made in SCREENS.items() for place, each in enumerate(made) if not isinstance(each, str)]


def test_every_screen_of_a_page_is_made_again() -> None:
    shown = {str(page.relative_to(ROOT)): len(screens(page)) for page in PAGES}
    assert {page: count for page, count in shown.items() if count} == {
        page: len(made) for page, made in SCREENS.items()
    }
    for made in SCREENS.values():
        for file, name in (each.split("::") for each in made if isinstance(each, str)):
            assert f"def {name}(" in (ROOT / file).read_text("utf-8")


@pytest.mark.parametrize(("page", "place"), MADE)
def test_a_screen_shows_what_comes_out(page: str, place: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make = SCREENS[page][place]
    assert callable(make)
    assert varied(screens(ROOT / page)[place]) == varied(make(tmp_path))


# Pictures


def commands() -> dict[str, str]:
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "benchmarks" / "pictures.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: dict[str, str] = module.COMMANDS
    return found


def test_every_picture_of_a_page_has_a_command_and_is_small() -> None:
    shown = {
        link.removeprefix("docs/").removeprefix("images/")
        for page in PAGES
        for link in re.findall(r"!\[[^]]*\]\(([^)]*)\)", page.read_text("utf-8"))
    }
    there = {path.name for path in (DOCS / "images").iterdir()}
    assert shown == there == set(commands())
    for name in sorted(there):
        path = DOCS / "images" / name
        assert path.stat().st_size <= 100_000, f"{name} is larger than 100 kB"
        with Image.open(path) as image:
            assert max(image.size) <= 1700
        for script in re.findall(r"benchmarks/\w+\.py", commands()[name]):
            assert (ROOT / script).is_file()


def test_every_picture_of_a_page_says_what_it_shows() -> None:
    for page in PAGES:
        assert [words for words in re.findall(r"!\[([^]]*)\]\(", page.read_text("utf-8")) if len(words) < 15] == []
