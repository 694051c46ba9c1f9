"""Drawing on the page of a run: what is drawn is answered, by mouse and by keyboard, as the network answers it."""

from pathlib import Path

import numpy as np
from PIL import Image
from support.browsing import strokes_of

import gpunn as gn
from gpunn.reports.filters import colours, feature_maps

from .conftest import Visiting


def test_strokes_of_test_digits_are_answered_with_the_digit(visit: Visiting, site: str, mnist_folder: Path) -> None:
    test = gn.load_data(str(mnist_folder)).test
    page = visit(site)
    found = []
    for digit in range(10):
        at = int(np.flatnonzero(test.targets == digit)[0])
        page.page.click("#clear")
        page.draw(strokes_of(np.asarray(test.inputs[at])[..., 0]))
        found.append(page.answer()["best"]["name"])
    assert sum(name == str(digit) for digit, name in enumerate(found)) >= 9, found


def test_activations_are_those_of_the_network(visit: Visiting, site: str, lenet: Path) -> None:
    page = visit(site)
    page.answer()
    seen = page.array("gpunn.answer.prepared")
    model = gn.load_model(lenet / "model.safetensors", "cpu")
    shapes = page.page.evaluate("() => gpunn.model.layers.map((layer) => [layer.title, layer.index])")
    pooled = [index for title, index in shapes if title.startswith("MaxPool")]
    expected = [answer.maps for answer in feature_maps(model, seen)]  # those of activations.png
    assert len(expected) == len(pooled) == 2
    for index, maps in zip(pooled, expected, strict=True):
        given = page.array(f"gpunn.answer.layers[{index}].activations")
        np.testing.assert_allclose(given.transpose(2, 0, 1), maps, rtol=0, atol=1e-6)
    logits = page.array("gpunn.answer.layers.at(-1).activations").astype(np.float64)
    shares = np.exp(logits - logits.max())
    probabilities = page.page.evaluate("() => gpunn.answer.answers.map(({ probability }) => probability)")
    np.testing.assert_allclose(probabilities, shares / shares.sum(), atol=1e-6)
    np.testing.assert_allclose(probabilities, model.predict_proba(seen[None])[0], atol=1e-6)


def test_maps_have_the_colours_of_the_pictures(visit: Visiting, site: str) -> None:
    """One pixel of each value of a map, drawn by the page, against matplotlib's."""
    page = visit(site)
    page.answer()
    for index in (0, 2):  # with values below 0, and without
        values = page.array(f"gpunn.answer.layers[{index}].activations")
        cmap, norm = colours(values)
        drawn = page.page.evaluate(
            """(index) => {
                const card = gpunn.layers.card(index);
                const context = card.canvas.getContext("2d");
                const [height, width] = card.layer.shape;
                const at = (unit, row, column) => {
                    const [x, y] = card.placeOf(unit);
                    const place = [x + (column + 0.5) * card.tile[1] / width, y + (row + 0.5) * card.tile[0] / height];
                    return [...context.getImageData(...place.map((each) => each * card.ratio), 1, 1).data];
                };
                const found = [];
                for (let unit = 0; unit < 3; unit += 1)
                    for (let row = 0; row < height; row += 1)
                        for (let column = 0; column < width; column += 1) found.push(at(unit, row, column));
                return found;
            }""",
            index,
        )
        expected = 255 * np.asarray(cmap(norm(values[..., :3].transpose(2, 0, 1).reshape(-1))))
        np.testing.assert_allclose(np.array(drawn), expected, atol=4)  # matplotlib has 256 steps, the page 513


def test_the_keyboard_alone_draws(visit: Visiting, site: str) -> None:
    """A long vertical stroke, from the first key on: a one, which a reader is told."""
    page = visit(site)
    page.answer()
    keys = page.page.keyboard
    for _ in range(12):
        keys.press("Tab")
        if page.page.evaluate("() => document.activeElement.matches('canvas.cursor')"):
            break
    assert page.page.evaluate("() => document.activeElement.matches('canvas.cursor:focus-visible')")
    for key in ["Shift+ArrowUp"] * 3 + [" "] + ["ArrowDown"] * 24 + ["Escape", "ArrowLeft"]:
        keys.press(key)
    assert page.answer()["best"]["name"] == "1"
    assert page.page.evaluate("() => gpunn.pad.strokes.map((stroke) => stroke.length)") == [25]
    assert page.page.inner_text("#pen") == "Pen up: arrow keys move."
    page.page.wait_for_function("() => document.getElementById('said').textContent.startsWith('1, ')")
    keys.press("Control+z")
    assert page.page.evaluate("() => gpunn.pad.isEmpty")
    assert page.page.is_visible("#waiting")


def test_the_sample_that_the_page_begins_with_does_not_come_over_a_drawing(visit: Visiting, site: str) -> None:
    page = visit(site)
    page.answer()
    page.page.route("**/api/sample*", lambda route: (page.page.wait_for_timeout(600), route.continue_()))
    page.page.reload()
    page.page.wait_for_selector("#main:not([hidden])")
    page.draw([[(0.5, 0.2), (0.5, 0.8)]])
    page.page.wait_for_timeout(1000)
    assert page.answer()["best"]["name"] == "1"
    assert page.page.inner_text("#source") == ""


def test_touch_draws_and_a_second_finger_does_not(visit: Visiting, site: str) -> None:
    page = visit(site)
    page.answer()
    strokes = page.page.evaluate(
        """() => {
            const target = document.querySelector("canvas.cursor");
            const box = target.getBoundingClientRect();
            const send = (type, pointerId, x, y) => target.dispatchEvent(new PointerEvent(type, {
                pointerId, pointerType: "touch", bubbles: true, button: type === "pointermove" ? -1 : 0,
                clientX: box.left + x * box.width, clientY: box.top + y * box.height }));
            send("pointerdown", 7, 0.5, 0.2);
            send("pointerdown", 8, 0.1, 0.1);
            send("pointermove", 8, 0.2, 0.9);
            send("pointermove", 7, 0.5, 0.8);
            send("pointerup", 7, 0.5, 0.8);
            send("pointermove", 7, 0.9, 0.9);
            return gpunn.pad.strokes.map((stroke) => stroke.map(({ x, y }) => [Math.round(x), Math.round(y)]));
        }"""
    )
    assert strokes == [[[140, 56], [140, 224]]]
    assert page.page.evaluate("() => getComputedStyle(document.querySelector('canvas.cursor')).touchAction") == "none"
    assert page.answer()["best"]["name"] == "1"


def test_answers_never_queue_and_the_newest_wins(visit: Visiting, site: str) -> None:
    """Forty changes while the server takes a third of a second for each answer: three requests or so, not forty."""
    page = visit(site)
    page.answer()
    asked = []

    def slowly(route: object) -> None:
        asked.append(1)
        page.page.wait_for_timeout(150)
        route.continue_()

    page.page.route("**/api/predict", slowly)
    page.draw([[(0.5, 0.1 + 0.02 * step) for step in range(41)]])
    page.answer()
    assert 2 <= len(asked) <= 20
    last = page.page.evaluate("async () => (await gpunn.ask({ drawing: true })).prepared.data.join()")
    assert page.page.evaluate("() => gpunn.answer.prepared.data.join()") == last


def test_a_picture_is_opened_and_what_is_none_is_refused_in_the_page(
    visit: Visiting, site: str, mnist_folder: Path, tmp_path: Path
) -> None:
    test = gn.load_data(str(mnist_folder)).test
    digit = 255 - np.asarray(test.inputs[0])[..., 0]
    Image.fromarray(digit).resize((224, 224), Image.Resampling.BICUBIC).save(tmp_path / "seven.png")
    page = visit(site)
    page.answer()
    page.page.set_input_files("#file", tmp_path / "seven.png")
    page.page.wait_for_function("() => document.getElementById('source').textContent.includes('seven.png')")
    assert page.answer()["best"]["name"] == "7"
    (tmp_path / "words.png").write_text("not a picture")
    page.page.set_input_files("#file", tmp_path / "words.png")
    page.page.wait_for_selector("#error:not([hidden])")
    assert "picture" in page.page.inner_text("#error")
    page.errors[:] = [error for error in page.errors if "422" not in error]  # the browser's own line for the refusal
    page.draw([[(0.5, 0.2), (0.5, 0.8)]])
    page.answer()
    assert page.page.is_hidden("#error")
