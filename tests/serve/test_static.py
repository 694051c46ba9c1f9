"""The page for any web space: its files say what the server says, and are written into free folders."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cli_helpers import gpunn
from support.harness import one_line

import gpunn as gn
from gpunn.errors import OptionError, OutputError
from gpunn.experiments.experiment import read_experiment
from gpunn.serve import static
from gpunn.serve.folder import RunFolder
from gpunn.serve.samples import RunSamples
from gpunn.serve.watcher import Watcher

from .conftest import trained
from .test_answers import array

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from support.onnx_helpers import outputs_of

from gpunn.serve.static_files import page_files

RUNTIME = {"ort.wasm.bundle.min.mjs": b"the runtime", "ort-wasm-simd-threaded.wasm": b"\0asm"}
Exported = tuple[dict[str, Any], dict[str, bytes]]


def exported(run: Path) -> Exported:
    files = page_files(Watcher(RunFolder(str(run)), "cpu", print))
    return json.loads(files["network/network.json"]), files


@pytest.fixture(scope="module")
def static_page(digits: Path) -> Exported:
    return exported(digits)


@pytest.fixture(scope="module")
def served(digits: Path) -> tuple[Watcher, RunSamples]:
    """What the server has of the same run."""
    watcher = Watcher(RunFolder(str(digits)), "cpu", print)
    experiment = watcher.experiment
    assert experiment is not None
    return watcher, RunSamples(experiment.load_data, watcher.has_test)


@pytest.fixture
def without_runtime(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Pages get a runtime of two short files."""
    asked: list[str] = []
    monkeypatch.setattr(static, "runtime", lambda given, say: asked.append(given) or RUNTIME)
    return asked


def pixels_of(about: dict[str, Any], files: dict[str, bytes], place: int) -> np.ndarray:
    """The sample at a place, as the page reads it."""
    kept, content = about["samples"], files["network/samples.bin"]
    count, shape = int(np.prod(kept["shape"])), kept["shape"]
    if kept["kind"] == "float32":
        return np.frombuffer(content, "<f4", count, kept["at"] + 4 * place * count).reshape(shape)
    held = np.frombuffer(content, np.uint8, count, kept["at"] + place * count)
    return (held.astype(np.float32) * np.float32(kept["factor"])).reshape(shape)


def numbers(files: dict[str, bytes], where: dict[str, Any]) -> np.ndarray:
    content = files["network/model.onnx" if where["file"] == "network" else "network/samples.bin"]
    return np.frombuffer(content, "<f4", where["size"] // 4, where["at"])


def answers_of(about: dict[str, Any], files: dict[str, bytes], pixels: np.ndarray) -> dict[str, np.ndarray]:
    x = (pixels / np.float32(about["input"]["factor"])).reshape(1, *about["input"]["shape"])
    names = [about["output"], *(layer["output"] for layer in about["layers"])]
    kind = np.int64 if about["input"]["kind"] == "int64" else np.float32
    return dict(zip(names, outputs_of(files["network/model.onnx"], x.astype(kind)), strict=True))


def test_the_network_answers_as_the_server_does(static_page: Exported, served: tuple[Watcher, RunSamples]) -> None:
    (about, files), (watcher, samples) = static_page, served
    for key, value in watcher.describe(samples).items():
        assert about["model"][key] == value, key
    for place in range(8):
        pixels = pixels_of(about, files, place)
        told = watcher.served.answer(watcher.served.given({"pixels": pixels.ravel().tolist()}))
        found = answers_of(about, files, pixels)
        shares = [each["probability"] for each in told["answers"]]
        assert np.abs(found["probabilities"][0] - shares).max() <= 1e-5
        for layer, wanted in zip(about["layers"], told["layers"], strict=True):
            values = found[layer["output"]][0]
            shown = array(wanted["activations"])
            assert layer["shown"] == shown.shape[-1]
            assert np.abs(values[..., : layer["shown"]] - shown).max() <= 1e-5 * max(1, np.abs(shown).max())


def test_samples_mistakes_and_confusion_are_those_of_the_validation_set(
    static_page: Exported, served: tuple[Watcher, RunSamples]
) -> None:
    (about, files), (watcher, samples) = static_page, served
    kept = about["samples"]
    assert (kept["set"], kept["kind"]) == ("validation", "uint8")
    assert kept["count"] == kept["of"] == len(samples.data().validation)
    assert about["model"]["has_test"] is False
    for place in (0, 1, kept["count"] - 1):
        wanted = samples.sample(watcher.served, "validation", kept["rows"][place]["index"])
        assert np.array_equal(pixels_of(about, files, place), array(wanted["pixels"]))
        assert kept["rows"][place]["label"] == wanted["label"]
    wanted = samples.mistakes(watcher.served, "validation", 0, 100)
    found = about["mistakes"]
    assert (found["total"], found["of"]) == (wanted["total"], wanted["of"])
    assert len(found["rows"]) == wanted["total"] > 0
    for row, mistake in zip(found["rows"], wanted["mistakes"], strict=True):
        assert np.array_equal(pixels_of(about, files, row["place"]), array(mistake["pixels"]))
        assert {key: row[key] for key in row if key != "place"} == {key: mistake[key] for key in row if key != "place"}
    assert about["confusion"] == samples.confusion(watcher.served, "validation")
    assert about["history"]["rows"] == watcher.history()["rows"]


def test_units_have_their_weights_and_the_samples_that_they_answer_to_most(
    static_page: Exported, served: tuple[Watcher, RunSamples]
) -> None:
    (about, files), (watcher, samples) = static_page, served
    for layer, described in zip(about["layers"], about["model"]["layers"], strict=True):
        own = about["units"].get(str(described["weights_of"]))
        for unit in (0, described["units"] - 1):
            wanted = samples.unit(watcher.served, described["index"], unit)
            if wanted["weights"] is None:
                assert own is None
            else:
                assert own is not None
                weights = numbers(files, own["weights"]).reshape(own["weights"]["shape"])[unit]
                shown = weights.transpose(1, 2, 0) if own["turned"] else weights
                assert np.array_equal(shown, array(wanted["weights"]))
                assert numbers(files, own["bias"])[unit] == np.float32(wanted["bias"])
            at, content = layer["largest"], files["network/samples.bin"]
            count = at["kept"] * at["units"]
            places = np.frombuffer(content, "<u2", count, at["numbers"]).reshape(at["kept"], -1)[:, unit]
            values = np.frombuffer(content, "<f4", count, at["values"]).reshape(at["kept"], -1)[:, unit]
            most = [image["activation"] for image in wanted["images"]][: at["kept"]]
            assert values == pytest.approx(most, rel=1e-5, abs=1e-6)
            of_place = answers_of(about, files, pixels_of(about, files, int(places[0])))[layer["output"]][0]
            assert values[0] == pytest.approx(of_place[..., unit].max(), rel=1e-4, abs=1e-5)


def test_the_page_loads_its_own_files_alone(static_page: Exported) -> None:
    _, files = static_page
    text = files["index.html"].decode()
    assert "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'" in text
    assert 'data-engine="./browser/engine.js"' in text
    assert "in your browser" in text  # and not by the machine that wrote the page
    assert "static/engine-server.js" not in files
    for name, content in files.items():
        if name.endswith((".html", ".js", ".css")) and "uplot" not in name:
            own = content.replace(b"http://www.w3.org/", b"").replace(b"http://localhost:8000", b"")
            assert not re.search(rb"https?://", own), name
    for name in ("notice.js", "engine.js"):
        assert f"static/browser/{name}" in files


CHANCE = np.random.Generator(np.random.Philox(0))
ROWS = CHANCE.normal(size=(60, 5)).astype(np.float32)
TABLE = "width,colour,height\n" + "".join(
    f"{i % 7}.5,{('red', 'blue', 'green')[i % 3]},{i * i / 7:.3f}\n" for i in range(40)
)


def table_of(folder: Path, target: str) -> gn.Data:
    (folder / "table.csv").write_text(TABLE)
    return gn.load_data(folder / "table.csv", target=target)


# Layers, data and the name of the answers, of every kind of task and of inputs.
KINDS: dict[str, Callable[[Path], tuple[list[gn.Layer], Any, str]]] = {
    "classes of a table": lambda folder: ([gn.Dense(3)], table_of(folder, "colour"), "probabilities"),
    "numbers of a table": lambda folder: ([gn.Dense(4), gn.ReLU(), gn.Dense(1)], table_of(folder, "height"), "outputs"),
    "binary": lambda _: ([gn.Dense(2), gn.Sigmoid()], (ROWS, (ROWS[:, :2] > 0).astype(np.float32)), "probabilities"),
    "one of two": lambda _: ([gn.Dense(1), gn.Sigmoid()], (ROWS, (ROWS[:, 0] > 0).astype(int)), "probabilities"),
    "floats scaled": lambda _: (
        [gn.Conv2D(2, 3), gn.Flatten(), gn.Dense(3)],
        gn.Samples(CHANCE.uniform(0, 50, (60, 8, 8, 1)).astype(np.float32), np.arange(60) % 3, scale=1 / 50),
        "probabilities",
    ),
    "colours and branches": lambda _: (
        [
            gn.Conv2D(6, 3, groups=3, padding="same"),
            gn.Residual([gn.Conv2D(6, padding="same"), gn.ReLU()]),
            gn.Concatenate([gn.Conv2D(2)], [gn.ConvTranspose2D(3, 1), gn.Conv2D(2)]),
            gn.GlobalAveragePool2D(),
            gn.Dense(3),
        ],
        gn.Samples(CHANCE.integers(0, 256, (60, 8, 8, 3), np.uint8), np.arange(60) % 3, scale=1 / 255),
        "probabilities",
    ),
    "tokens": lambda _: (
        [gn.Embedding(9, 4), gn.GlobalAveragePool2D(), gn.Dense(2)],
        gn.Samples(CHANCE.integers(0, 9, (60, 6)), np.arange(60) % 2, tokens=9),
        "probabilities",
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_networks_of_every_kind_answer_alike(name: str, tmp_path: Path) -> None:
    layers, data, answers = KINDS[name](tmp_path)
    model = gn.Sequential(layers)
    if isinstance(data, tuple):
        model.fit(*data, epochs=2, progress=False, device="cpu")
    else:
        model.fit(data, epochs=2, progress=False, device="cpu")
    model.save(tmp_path / "model.safetensors")
    about, files = exported(tmp_path / "model.safetensors")
    assert about["output"] == answers
    assert about["samples"] is about["mistakes"] is about["history"] is None
    served = Watcher(RunFolder(str(tmp_path / "model.safetensors")), "cpu", print).served
    count = int(np.prod(about["input"]["shown"]))
    seen = CHANCE.integers(0, 9, count) if name == "tokens" else CHANCE.uniform(0, 1, count).astype(np.float32)
    told = served.answer(served.given({"pixels": seen.tolist()}))
    found = answers_of(about, files, seen.astype(np.float32).reshape(about["input"]["shown"]))
    values = told["answers"] or [{"probability": each["value"]} for each in told["values"]]
    wanted = [each["probability"] for each in values]
    outputs = found[about["output"]][0]
    assert outputs == pytest.approx(wanted[-len(outputs) :], rel=1e-5, abs=1e-5)
    for layer, answer in zip(about["layers"], told["layers"], strict=True):
        shown = array(answer["activations"])
        assert found[layer["output"]][0][..., : layer["shown"]] == pytest.approx(shown, rel=1e-4, abs=1e-5)
    for described in about["model"]["layers"]:
        own, unit = about["units"].get(str(described["weights_of"])), described["units"] - 1
        weights, bias = served.unit(described["index"], unit)
        if own is None or weights is None:
            assert (weights, own) == (None, None)
            continue
        if own["weights"] is None:  # of an embedding the units are no rows
            continue
        mine = numbers(files, own["weights"]).reshape(own["weights"]["shape"])[unit]
        assert np.array_equal(mine.transpose(1, 2, 0) if own["turned"] else mine, weights)
        assert bias is None or numbers(files, own["bias"])[unit] == np.float32(bias)


def test_many_large_samples_are_bounded(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpunn.serve import static_pack

    monkeypatch.setattr(static_pack, "MOST_SAMPLES", 9)
    monkeypatch.setattr(static_pack, "MOST_MISTAKES", 100)
    monkeypatch.setattr(static_pack, "MOST_UNITS", 30)
    monkeypatch.setattr(static_pack, "MOST_IMAGES", 3)
    about, _ = exported(digits)
    assert about["samples"]["count"] == 9
    assert len(about["mistakes"]["rows"]) <= 4
    assert about["mistakes"]["total"] == exported(digits)[0]["mistakes"]["total"]
    units = [layer["units"] for layer in about["model"]["layers"]]
    for count, layer in zip(units, about["layers"], strict=True):
        assert (layer["largest"] is None) == (count > 30)
        assert layer["largest"] is None or layer["largest"]["kept"] == 3


def test_the_test_set_stays_closed_where_the_run_has_not_opened_it(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(read_experiment("lenet-digits"), tmp_path / "run", epochs=1, device="cpu")
    opened: list[str] = []
    whole = gn.Data.test.fget
    monkeypatch.setattr(gn.Data, "test", property(lambda data: opened.append("test") or whole(data)))
    about, _ = exported(run)
    assert about["samples"]["set"] == "validation"
    assert not opened


def test_a_folder_is_written_whole_and_again(digits: Path, tmp_path: Path, without_runtime: list[str]) -> None:
    target = tmp_path / "deep" / "page"
    told = static.export_page(str(digits), target, "package.tgz", print)
    assert f"python -m http.server -d {target}" in told
    assert without_runtime == ["package.tgz"]
    there = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}
    wanted = page_files(Watcher(RunFolder(str(digits)), "cpu", print))
    assert there == {*wanted, *(f"runtime/{name}" for name in RUNTIME)}
    assert (target / "runtime/ort.wasm.bundle.min.mjs").read_bytes() == b"the runtime"
    (target / "CNAME").write_text("digits.example")  # what a web space wants beside the page
    (target / "network/model.onnx").write_bytes(b"old")
    static.export_page(str(digits), target, None, print)
    assert (target / "CNAME").read_text() == "digits.example"
    assert (target / "network/model.onnx").read_bytes() == wanted["network/model.onnx"]


def test_other_folders_and_files_are_left_alone(digits: Path, tmp_path: Path, without_runtime: list[str]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    (tmp_path / "file").write_text("a file")
    for name, word in (("mine", "thesis.txt"), ("file", "Not a directory")):
        with pytest.raises(OutputError, match=word) as caught:
            static.export_page(str(digits), tmp_path / name, None, print)
        one_line(str(caught.value))
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    (tmp_path / "empty").mkdir()
    static.export_page(str(digits), tmp_path / "empty", None, print)
    assert (tmp_path / "empty" / "index.html").is_file()


def test_what_onnx_has_no_form_for_is_refused_before_anything_is_written(
    tmp_path: Path, without_runtime: list[str]
) -> None:
    class Own(gn.Layer):
        def build(self, context: Any, input_shape: Any) -> Any:
            return input_shape

        def forward(self, x: Any, training: bool) -> Any:
            return x

        def backward(self, dy: Any) -> Any:
            return dy

    gn.register(Own)
    model = gn.Sequential([gn.Dense(3), Own()]).build((4,), 8, "cpu")
    model.save(tmp_path / "own.safetensors")
    with pytest.raises(OptionError, match="has no form in ONNX"):
        static.export_page(str(tmp_path / "own.safetensors"), tmp_path / "page", None, print)
    assert not (tmp_path / "page").exists()
    assert without_runtime == []


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "name FILE.onnx to write"),
        (["file.onnx", "--page", "page"], "one of them"),
        (["file.onnx", "--runtime", "package.tgz"], "--runtime goes with --page"),
        (["--page", "page", "--opset", "18"], "--opset is for an ONNX file"),
        (["--page", "page", "--raw"], "--raw is for an ONNX file"),
    ],
    ids=["neither", "both", "runtime", "opset", "raw"],
)
def test_the_command_tells_a_file_from_a_page(options: list[str], told: str, digits: Path) -> None:
    done = gpunn("export", str(digits), *options)
    assert done.code == 2
    assert told in done.err


def test_the_command_writes_a_page(digits: Path, tmp_path: Path, without_runtime: list[str]) -> None:
    done = gpunn("export", str(digits), "--page", str(tmp_path / "page"))
    assert done.code == 0, done.err
    assert (tmp_path / "page" / "index.html").is_file()
    assert f"{tmp_path / 'page'}  " in done.out
