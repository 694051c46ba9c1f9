"""The page that `gpunn export --page` writes, on a plain server below a path: it answers as gpunn does, on its own."""

import base64
import functools
import http.server
import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from support.browsing import Visit, strokes_of

import gpunn as gn
from gpunn.data.formats.inputs import read_inputs
from gpunn.data.training_inputs import TrainingInputs
from gpunn.errors import DataError
from gpunn.experiments.predict import load_run, predict_files
from gpunn.serve.folder import RunFolder
from gpunn.serve.runtime import Runtime, runtime
from gpunn.serve.static import export_page
from gpunn.serve.watcher import Watcher

from .conftest import trained, visiting

pytest.importorskip("onnx")
Opening = Callable[..., "StaticVisit"]
BELOW = "courses/networks"  # a path of its own, as on GitHub Pages
SLOW = 60.0


class StaticVisit(Visit):
    """A page whose policy forbids what Playwright waits with."""

    def answer(self) -> Any:
        self.until("globalThis.gpunn?.answer && !gpunn.asker.busy")
        return self.page.evaluate("() => ({best: gpunn.answer.best, values: gpunn.answer.values ?? null})")

    def until(self, condition: str) -> None:
        deadline = time.monotonic() + SLOW
        while not self.page.evaluate(f"() => Boolean({condition})"):
            assert time.monotonic() < deadline, f"{condition} did not come true; {self.errors}"
            time.sleep(0.02)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def files_of(folder: Path) -> Iterator[str]:
    """The address of a server that knows nothing but files."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def wasm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with onnxruntime-web, of the cache or from npm."""
    try:
        found: Runtime = runtime()
    except DataError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("runtime")
    for name, content in found.items():
        (folder / name).write_bytes(content)
    return folder


@contextmanager
def exported(run: Path, wasm: Path, folder: Path) -> Iterator[str]:
    export_page(str(run), folder / BELOW, wasm, print)
    with files_of(folder) as address:
        yield f"{address}{BELOW}/"


@pytest.fixture(scope="session")
def static_site(lenet: Path, wasm: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with exported(lenet, wasm, tmp_path_factory.mktemp("web")) as address:
        yield address


@pytest.fixture
def visit_static(browser: Any) -> Iterator[Opening]:
    yield from visiting(browser, StaticVisit)


def drawing_of(page: StaticVisit) -> bytes:
    """What is drawn on the pad, as a PNG."""
    text = page.page.evaluate("() => gpunn.pad.picture().toDataURL('image/png')")
    return base64.b64decode(text.partition(",")[2])


def shares_of(page: StaticVisit) -> list[float]:
    return page.page.evaluate("() => gpunn.answer.answers.map(({ probability }) => probability)")


def predicted(run: Path, content: bytes, folder: Path) -> Any:
    """What `gpunn predict` answers to a picture."""
    (folder / "picture.png").write_bytes(content)
    (answer,) = predict_files(str(run), [str(folder / "picture.png")], "cpu", note=lambda _: None)
    return answer


def test_strokes_of_test_digits_are_answered_as_gpunn_answers_them(
    visit_static: Opening, static_site: str, lenet: Path, mnist_folder: Path, tmp_path: Path
) -> None:
    test = gn.load_data(str(mnist_folder)).test
    page = visit_static(static_site)
    page.answer()
    found = []
    for digit in range(10):
        at = int(np.flatnonzero(test.targets == digit)[0])
        page.page.click("#clear")
        page.draw(strokes_of(np.asarray(test.inputs[at])[..., 0]))
        name = page.answer()["best"]["name"]
        wanted = predicted(lenet, drawing_of(page), tmp_path)
        assert name == wanted.label
        assert np.abs(np.array(shares_of(page)) - wanted.outputs).max() <= 1e-5
        found.append(name)
    assert sum(name == str(digit) for digit, name in enumerate(found)) >= 9, found


def test_every_layer_answers_as_the_server_says(visit_static: Opening, static_site: str, lenet: Path) -> None:
    page = visit_static(static_site)
    page.answer()
    served = Watcher(RunFolder(str(lenet)), "cpu", print).served
    seen = page.array("gpunn.answer.prepared")
    told = served.answer(served.given({"pixels": seen.ravel().tolist()}))
    count = page.page.evaluate("() => gpunn.answer.layers.length")
    assert count == len(told["layers"])
    outputs = served.probed.outputs(seen[None], 1.0)
    for index, wanted in enumerate(outputs):
        given = page.array(f"gpunn.answer.layers[{index}].activations")
        np.testing.assert_allclose(given, wanted[0], rtol=0, atol=1e-5 * max(1.0, np.abs(wanted).max()))


def test_a_unit_shows_its_weights_and_samples(visit_static: Opening, static_site: str, lenet: Path) -> None:
    page = visit_static(static_site)
    page.answer()
    served = Watcher(RunFolder(str(lenet)), "cpu", print).served
    for index, place in enumerate(served.probed.layers):
        for unit in {0, place.units - 1}:
            weights, bias = served.unit(index, unit)
            page.page.evaluate(
                "async ([at, unit]) => { globalThis.found = await gpunn.engine.unit(at, unit); }", [index, unit]
            )
            if weights is None:
                assert page.page.evaluate("() => found.weights") is None
            else:
                assert np.array_equal(page.array("found.weights"), weights)
                assert page.page.evaluate("() => found.bias") == bias
            activations = page.page.evaluate("() => found.images.map(({ activation }) => activation)")
            assert len(activations) == 8
            assert activations == sorted(activations, reverse=True)
            first = page.array("found.images[0].pixels")
            outputs = served.probed.outputs(first[None], 1.0, [index])[0][0]
            assert outputs[..., unit].max() == pytest.approx(activations[0], rel=1e-4, abs=1e-4)
    page.page.locator(".frame").first.click(position={"x": 12, "y": 12})
    page.page.wait_for_selector(".unit .images canvas")
    assert "map 0" in page.page.inner_text(".unit h3")


def test_mistakes_confusion_curves_and_samples_are_shown(visit_static: Opening, static_site: str, lenet: Path) -> None:
    page = visit_static(static_site)
    page.answer()
    run = load_run(str(lenet), "cpu")
    assert run[1] is not None
    report = run[0].report(run[1].load_data().validation)
    wrong = int((report.answers.labels != report.answers.predicted).sum())
    page.page.wait_for_selector("#mistakes-gallery button")
    assert page.page.inner_text("#mistakes-count").startswith(f"{wrong} of 6")
    more = page.page.locator("#more-mistakes")
    while more.is_visible():
        more.click()
        page.page.wait_for_timeout(50)
    assert page.page.locator("#mistakes-gallery button").count() == min(wrong, 100)
    cells = page.page.evaluate("async () => (await gpunn.engine.confusion()).counts")
    assert np.trace(cells) == len(report.answers.labels) - wrong
    assert page.page.locator("#confusion-table").is_visible()
    assert page.page.locator("#plots canvas").count() >= 1
    page.page.click("#sample")
    page.until("gpunn.input?.pixels")
    assert "validation set" in page.page.inner_text("#source")


def test_a_phone_shows_it_without_scrolling_sideways(visit_static: Opening, static_site: str) -> None:
    page = visit_static(static_site, width=390, height=844)
    page.answer()
    page.page.click("#clear")
    page.draw([[(0.5, 0.2), (0.5, 0.5), (0.5, 0.8)]])
    assert page.answer()["best"]["name"] == "1"
    page.page.locator(".frame").first.click(position={"x": 12, "y": 12})
    page.page.wait_for_selector(".unit")
    assert page.page.evaluate("() => document.documentElement.scrollWidth") == 390


def test_a_picture_that_is_opened_is_prepared_as_gpunn_does_it(
    visit_static: Opening, static_site: str, lenet: Path, tmp_path: Path
) -> None:
    page = visit_static(static_site)
    page.answer()
    for name, picture in {"photograph": photograph(), "transparent": transparent()}.items():
        held = io.BytesIO()
        picture.save(held, "PNG")
        given = {"name": f"{name}.png", "mimeType": "image/png", "buffer": held.getvalue()}
        page.page.set_input_files("#file", [given])
        page.until(f"gpunn.input?.file?.name === '{name}.png' && gpunn.answer && !gpunn.asker.busy")
        wanted = predicted(lenet, held.getvalue(), tmp_path)
        assert np.abs(np.array(shares_of(page)) - wanted.outputs).max() <= 1e-4
    page.page.set_input_files("#file", [{"name": "text.png", "mimeType": "image/png", "buffer": b"no picture"}])
    page.page.wait_for_selector("#error:not([hidden])")
    assert "text.png is no picture" in page.page.inner_text("#error")


def photograph() -> Image.Image:
    """Blue ink on paper in uneven light, with noise."""
    chance = np.random.Generator(np.random.Philox(1))
    light = np.linspace(120, 230, 400)[:, None] + np.linspace(-20, 20, 600) + chance.normal(0, 3, (400, 600))
    picture = Image.fromarray(light.clip(0, 255).astype(np.uint8)).convert("RGB")
    ImageDraw.Draw(picture).line([(200, 100), (350, 110), (260, 330)], fill=(30, 30, 90), width=16)
    return picture


def transparent() -> Image.Image:
    picture = Image.new("RGBA", (200, 100), (0, 0, 0, 0))
    ImageDraw.Draw(picture).line([(30, 20), (150, 80)], fill=(0, 0, 0, 255), width=9)
    return picture


def drawings() -> dict[str, Image.Image]:
    """What people draw, and what they send: thin, thick, off the middle, tiny, nothing, light on dark, photographs."""
    chance, found = np.random.Generator(np.random.Philox(3)), dict[str, Image.Image]()
    digits = gn.load_data("digits").train.inputs
    for number in range(8):
        ink = np.asarray(digits[number])[..., 0] * (255 / 16)
        paper = Image.fromarray((255 - ink).astype(np.uint8))
        found[f"digit {number}"] = paper.resize((280, 280), Image.Resampling.BICUBIC)
    wide, size, left, top = zip(
        (2, 260, 10, 10), (4, 200, 30, 30), (8, 200, 40, 40), (14, 180, 50, 50), (20, 180, 50, 50), (30, 200, 40, 40),
        (40, 180, 50, 50), (60, 160, 60, 60), (90, 150, 60, 60), (120, 80, 100, 100), (6, 30, 5, 5), (10, 40, 230, 230),
        (14, 60, 200, 20), (3, 10, 140, 140), (20, 250, 15, 15), strict=True,
    )  # fmt: skip
    for number, (width, side, x, y) in enumerate(zip(wide, size, left, top, strict=True)):
        picture = Image.new("L", (280, 280), 255)
        points = chance.uniform(0, side, (int(chance.integers(2, 6)), 2)) + np.array((x, y))
        ImageDraw.Draw(picture).line([tuple(p) for p in points], fill=0, width=width, joint="curve")
        found[f"strokes {number}"] = picture
    lines = {
        "seven": [(20, 60), (260, 60), (120, 250)],
        "one": [(140, 30), (140, 250)],
        "two of them": [(20, 20), (90, 90)],
    }
    for name, points in lines.items():
        found[name] = Image.new("L", (280, 280), 255)
        ImageDraw.Draw(found[name]).line(points, fill=0, width=14)
    ImageDraw.Draw(found["two of them"]).line([(180, 180), (260, 200)], fill=0, width=12)
    found["disc"] = Image.new("L", (280, 280), 255)
    ImageDraw.Draw(found["disc"]).ellipse([(60, 60), (220, 220)], fill=0)
    found["light on dark"] = Image.fromarray(255 - np.asarray(found["seven"]))
    found["nothing"] = Image.new("L", (280, 280), 255)
    found["a dot"] = Image.new("L", (280, 280), 255)
    found["a dot"].putpixel((100, 100), 0)
    found["photograph"], found["transparent"] = photograph(), transparent()
    found["large photograph"] = photograph().resize((1800, 1200), Image.Resampling.BICUBIC)
    found["as it is"] = Image.fromarray((np.asarray(digits[3])[..., 0] * (255 / 16)).astype(np.uint8))
    colours = chance.integers(0, 256, (90, 120, 3), np.uint8)
    found["colours"] = Image.fromarray(colours)
    return found


def seen_by(kind: str, mnist: Path) -> TrainingInputs:
    """Descriptions of trainings: which drawings and pictures are prepared for them, and how."""
    chance = np.random.Generator(np.random.Philox(4))
    labels = np.arange(60) % 3
    patches = chance.integers(0, 256, (60, 12, 10, 3), np.uint8)
    digits = gn.load_data("digits").train
    made: dict[str, Callable[[], gn.Samples]] = {
        "mnist": lambda: gn.load_data(str(mnist), limit=2000).train,
        "digits": lambda: digits,
        "light ground": lambda: gn.Samples(16 - np.asarray(digits.inputs), digits.targets, scale=1 / 16),
        "coloured floats": lambda: gn.Samples((patches / 127.5 - 1).astype(np.float32), labels),
        "grey files": lambda: gn.Samples(patches[..., :1], labels, 1 / 255, from_files=True),
        "coloured files": lambda: gn.Samples(patches, labels, 1 / 255, from_files=True),
        "drawn files": lambda: gn.Samples(
            (np.asarray(digits.inputs)[:200] * 15.9).astype(np.uint8), digits.targets[:200], 1 / 255, from_files=True
        ),
    }
    return TrainingInputs.of(made[kind]())


@pytest.mark.parametrize(
    "kind", ["mnist", "digits", "light ground", "coloured floats", "grey files", "coloured files", "drawn files"]
)
def test_drawings_are_prepared_as_gpunn_prepares_them(
    kind: str, visit_static: Opening, static_site: str, mnist_folder: Path, tmp_path: Path
) -> None:
    from gpunn.serve.static_files import picture_for

    trained_on = seen_by(kind, mnist_folder)
    about = picture_for(trained_on, list(trained_on.shape))
    page = visit_static(static_site)
    page.answer()
    refused, largest = [], 0.0
    for number, (name, picture) in enumerate(drawings().items()):
        if number % 3 and name != "nothing" and kind not in ("mnist", "digits"):  # the others take too long
            continue
        picture.save(tmp_path / "drawing.png")
        rgba = np.asarray(picture.convert("RGBA"))
        wanted: NDArray[Any] | None
        try:
            wanted = np.asarray(read_inputs(tmp_path / "drawing.png", trained_on.shape, trained_on=trained_on))
        except DataError:
            wanted = None
        found = page.page.evaluate(
            """async ([about, width, height, text]) => {
                const { prepared } = await import(new URL("static/browser/prepare.js", document.baseURI));
                const rgba = Uint8ClampedArray.from(atob(text), (sign) => sign.charCodeAt(0));
                try {
                    return Array.from(prepared({ width, height, rgba }, about).inputs);
                } catch (error) {
                    return error.message;
                }
            }""",
            [about, picture.width, picture.height, base64.b64encode(rgba.tobytes()).decode()],
        )
        if wanted is None or isinstance(found, str):
            assert wanted is None, f"{name}: {found}"
            assert found == "nothing is drawn in it"
            refused.append(name)
            continue
        if wanted.dtype == np.uint8:
            wanted = wanted * np.float32(trained_on.scale)
        largest = max(largest, float(np.abs(np.array(found, np.float32) - wanted.ravel()).max()))
    assert largest <= 1e-5
    assert ("nothing" in refused) == (kind != "coloured files")  # which are taken as they come


def test_a_table_is_answered_by_its_columns(visit_static: Opening, iris: Path, wasm: Path, tmp_path: Path) -> None:
    with exported(iris, wasm, tmp_path) as address:
        page = visit_static(address)
        page.answer()
        served = Watcher(RunFolder(str(iris)), "cpu", print).served
        columns = page.page.evaluate("() => gpunn.model.input.columns")
        for share in (0.1, 0.5, 0.9):
            values = {each["name"]: each["min"] + share * (each["max"] - each["min"]) for each in columns}
            told = served.answer(served.given({"values": values}))
            page.page.evaluate(
                "async (values) => { globalThis.found = await gpunn.engine.predict({ values }); }", values
            )
            shares = page.page.evaluate("() => found.answers.map(({ probability }) => probability)")
            assert np.abs(np.array(shares) - [each["probability"] for each in told["answers"]]).max() <= 1e-5
        box = page.page.locator("#fields input[type=number]").first
        box.fill("7.5")
        page.until(f"gpunn.input.values['{columns[0]['name']}'] === 7.5 && !gpunn.asker.busy")


def test_an_autoencoder_shows_what_it_makes_of_a_drawing(visit_static: Opening, wasm: Path, tmp_path: Path) -> None:
    run = trained("autoencoder", tmp_path / "run", epochs=2)
    with exported(run, wasm, tmp_path / "web") as address:
        page = visit_static(address)
        page.answer()
        served = Watcher(RunFolder(str(run)), "cpu", print).served
        seen = page.array("gpunn.answer.prepared")
        told = served.answer(served.given({"pixels": seen.ravel().tolist()}))
        wanted = np.frombuffer(base64_of(told["reconstruction"]), "<f4").reshape(told["reconstruction"]["shape"])
        np.testing.assert_allclose(page.array("gpunn.answer.reconstruction"), wanted, atol=1e-5)
        assert page.page.locator("#reconstruction").is_visible()


def base64_of(array: dict[str, Any]) -> bytes:
    return base64.b64decode(array["data"])


def test_opened_as_a_file_it_says_why_it_stays_empty(browser: Any, lenet: Path, wasm: Path, tmp_path: Path) -> None:
    export_page(str(lenet), tmp_path / "page", wasm, print)
    page = browser.new_page()
    page.goto((tmp_path / "page" / "index.html").as_uri())
    page.wait_for_selector("#error:not([hidden])")
    assert "http.server" in page.inner_text("#error")
    assert "Loading" not in page.inner_text("body")
    page.close()


@pytest.mark.parametrize("name", ["network/model.onnx", "network/network.json", "network/samples.bin"])
def test_a_file_that_was_not_copied_is_named(name: str, browser: Any, lenet: Path, wasm: Path, tmp_path: Path) -> None:
    export_page(str(lenet), tmp_path / "page", wasm, print)
    (tmp_path / "page" / name).unlink()
    with files_of(tmp_path / "page") as address:
        page = browser.new_page()
        page.goto(address)
        page.wait_for_selector("#error:not([hidden])")
        assert f"{name} is missing" in page.inner_text("#error")
        page.close()
