"""The rest of the page of a run: units, mistakes, themes, phones, other data, and those who do not see it."""

import csv
import os
from pathlib import Path

import numpy as np
import pandas
import pytest
from PIL import Image

import gpunn as gn

from .conftest import Visiting

# Text whose colour is too near to that of its ground: less than 4.5 : 1, or 3 : 1 where it is large.
FAINT_TEXT = """() => {
    const parsed = (text) => {
        const context = document.createElement("canvas").getContext("2d");
        context.fillStyle = text;
        context.fillRect(0, 0, 1, 1);
        const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
        return { rgb: [r, g, b], a: a / 255 };
    };
    const light = (rgb) => {
        const [r, g, b] = rgb.map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const colour = parsed(getComputedStyle(at).backgroundColor);
            if (colour.a === 1) return colour.rgb;
        }
        return [255, 255, 255];
    };
    const found = [];
    for (const element of document.querySelectorAll("body *")) {
        const text = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
        if (!text || !element.checkVisibility() || element.closest("noscript, [aria-hidden=true]")) continue;
        const style = getComputedStyle(element);
        const [one, two] = [light(parsed(style.color).rgb), light(ground(element))];
        const ratio = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
        if (ratio < (parseFloat(style.fontSize) >= 24 ? 3 : 4.5)) found.push([element.textContent.slice(0, 40), ratio]);
    }
    return found;
}"""


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_fits_its_width_and_its_text_is_read(
    visit: Visiting, site: str, tmp_path: Path, width: int, dark: bool
) -> None:
    """A picture of each goes to GPUNN_SCREENSHOTS, to be looked at."""
    page = visit(site, width=width, height=844 if width < 640 else 900, dark=dark)
    page.draw([[(0.3, 0.25), (0.7, 0.25), (0.5, 0.55), (0.42, 0.8)]])
    assert page.answer()["best"]["name"] == "7"
    page.page.locator(".frame").first.click(position={"x": 40, "y": 16})
    page.page.wait_for_selector(".unit .picture")
    page.page.wait_for_selector("#confusion td")
    assert page.page.evaluate("() => document.documentElement.scrollWidth") == width
    assert page.page.evaluate(FAINT_TEXT) == []
    folder = Path(os.environ.get("GPUNN_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    page.picture(folder / f"serve-{width}-{'dark' if dark else 'light'}.png")


def test_every_control_is_reached_by_tab_and_has_a_name(visit: Visiting, site: str) -> None:
    page = visit(site)
    page.answer()
    page.page.wait_for_selector("#confusion td")
    count = page.page.evaluate(
        """() => [...document.querySelectorAll(
            "a, button, input, select, textarea, canvas.cursor, [role=listbox], .scroll")]
            .filter((each) => each.checkVisibility()).map((each, at) => (each.dataset.at = at)).length"""
    )
    assert count > 30
    reached = set()
    for _ in range(count + 2):
        page.page.keyboard.press("Tab")
        reached.add(page.page.evaluate("() => document.activeElement.dataset.at ?? null"))
    assert reached - {None} == {str(at) for at in range(count)}
    session = page.context.new_cdp_session(page.page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "link", "slider", "application", "listbox", "img", "image", "figure", "spinbutton", "textbox"}
    unnamed = [
        node
        for node in nodes
        if not node.get("ignored")
        and node["role"]["value"] in roles
        and not (node.get("name") or {}).get("value", "").strip()
    ]
    assert unnamed == []


def test_the_keyboard_opens_a_unit_and_gives_the_focus_back(visit: Visiting, site: str, lenet: Path) -> None:
    page = visit(site)
    page.answer()
    page.page.locator(".frame").first.focus()
    for key in ("ArrowRight", "ArrowRight", "Enter"):
        page.page.keyboard.press(key)
    page.page.wait_for_selector(".unit .picture")
    assert page.page.inner_text(".unit h3") == "Conv2D(20, size=5), map 2"
    model = gn.load_model(lenet / "model.safetensors", "cpu")
    first = {parameter.name: parameter.value for parameter in model.parameters}
    assert f"bias {first['conv1.b'][2]:.3g}".replace("-", "−") in page.page.inner_text(".unit .weights")
    weights = page.page.evaluate(
        "async () => { const { weights } = await gpunn.engine.unit(0, 2); return [...weights.data]; }"
    )
    np.testing.assert_allclose(weights, np.ravel(first["conv1.w"][2]), atol=1e-7)
    page.page.keyboard.press("Escape")
    assert page.page.query_selector(".unit") is None
    assert page.page.evaluate("() => document.activeElement === document.querySelector('.frame')")


def test_a_mistake_that_is_chosen_is_predicted(visit: Visiting, site: str) -> None:
    page = visit(site)
    page.answer()
    page.draw([[(0.5, 0.2), (0.5, 0.8)]])
    page.page.wait_for_selector("#mistakes-gallery .picture")
    first = page.page.evaluate(
        "async () => { const { mistakes } = await gpunn.engine.mistakes(0, 1); return mistakes[0]; }"
    )
    page.page.locator("#mistakes-gallery .picture").first.click()
    page.page.wait_for_function("() => document.getElementById('source').textContent.includes('taken for')")
    best = page.answer()["best"]
    assert best["name"] == first["predicted"] != first["true"]
    assert best["probability"] == pytest.approx(first["probability"], abs=1e-5)
    assert page.page.evaluate("() => gpunn.pad.isEmpty")
    shown = page.page.locator("#mistakes-gallery .picture").count()
    page.page.click("#more-mistakes")
    page.page.wait_for_function(f"() => document.querySelectorAll('#mistakes-gallery .picture').length > {shown}")


def test_the_confusion_matrix_is_a_table_of_all_samples(visit: Visiting, site: str) -> None:
    page = visit(site)
    page.page.wait_for_selector("#confusion td")
    heads = page.page.locator("#confusion-table thead th[scope=col]").all_inner_texts()
    assert heads == page.page.locator("#confusion-table tbody th[scope=row]").all_inner_texts() == list("0123456789")
    cells = page.page.locator("#confusion-table tbody td").all_inner_texts()
    assert sum(int(cell.replace(",", "")) for cell in cells) == 6000


def test_the_theme_is_switched_and_kept(visit: Visiting, site: str) -> None:
    page = visit(site)
    page.answer()
    ground = "() => getComputedStyle(document.body).backgroundColor"
    light, maps = page.page.evaluate(ground), page.page.evaluate("() => gpunn.layers.cards[0].canvas.toDataURL()")
    page.page.click("#theme")
    dark = page.page.evaluate(ground)
    assert dark != light
    assert page.page.inner_text("#theme") == "Light"
    page.page.reload()
    page.answer()
    assert page.page.evaluate(ground) == dark
    assert page.page.evaluate("() => gpunn.layers.cards[0].canvas.toDataURL()") == maps  # pictures stay as they are


def test_a_table_has_sliders_in_its_own_units(visit: Visiting, iris_site: str, iris: Path) -> None:
    page = visit(iris_site)
    page.answer()
    names = page.page.locator("#fields .field .name").all_inner_texts()
    sliders = page.page.locator("#fields input[type=range]")
    assert len(names) == sliders.count() == 4
    with Path("examples/iris.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    model = gn.load_model(iris / "model.safetensors", "cpu")
    for row in (rows[0], rows[70], rows[-1]):
        for at, name in enumerate(names):
            page.page.locator("#fields input[type=number]").nth(at).fill(row[name])
        answer = page.answer()["best"]
        frame = {name: [float(row[name])] for name in names}
        shares = model.predict_proba(pandas.DataFrame(frame))[0]
        assert answer["probability"] == pytest.approx(shares.max(), abs=1e-5)
        assert answer["name"] == model.class_names[int(shares.argmax())]
    page.page.click("#sample")
    page.page.wait_for_function("() => document.getElementById('source').textContent.includes('true answer')")
    page.answer()
    seen = page.array("gpunn.answer.prepared")
    typed = page.page.evaluate("() => gpunn.fields.fields.map((field) => field.value())")
    columns = model.trained_on.columns
    np.testing.assert_allclose((np.array(typed) - columns.means) / columns.deviations, seen, atol=0.02)
    assert page.page.evaluate("() => document.documentElement.scrollWidth") == 1280


def test_an_autoencoder_shows_what_it_makes_of_a_drawing(visit: Visiting, autoencoder_site: str) -> None:
    page = visit(autoencoder_site)
    page.draw([[(0.5, 0.1), (0.5, 0.9)]])
    page.answer()
    assert page.page.is_visible("#reconstruction")
    assert page.page.is_hidden("#verdict")
    seen, made = page.array("gpunn.answer.prepared"), page.array("gpunn.answer.reconstruction")
    assert seen.shape == made.shape == (8, 8, 1)
    assert f"{np.sqrt(np.mean((seen - made) ** 2)):.3g}" in page.page.inner_text("#rmse")


def test_colour_images_are_opened_not_drawn(visit: Visiting, shapes_site: str, tmp_path: Path) -> None:
    page = visit(shapes_site, width=390)
    page.answer()
    assert page.page.is_hidden("#pad")
    Image.new("RGB", (60, 40), (200, 30, 30)).save(tmp_path / "red.jpg")
    page.page.set_input_files("#file", tmp_path / "red.jpg")
    page.page.wait_for_function("() => document.getElementById('source').textContent.includes('red.jpg')")
    page.answer()
    pixels = page.page.evaluate(
        """() => { const canvas = document.getElementById("prepared");
            return [...canvas.getContext("2d").getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data]; }"""
    )
    np.testing.assert_allclose(pixels, [200, 30, 30, 255], atol=8)
    assert page.page.evaluate("() => document.documentElement.scrollWidth") == 390


def test_many_classes_with_long_names_fit_a_phone(visit: Visiting, site: str) -> None:
    """The ten likeliest of 120 whose names are alike in their beginnings; told apart, and said when unsure."""
    page = visit(site, width=390)
    page.answer()
    page.page.wait_for_selector("#confusion td")
    names = page.page.evaluate(
        """async () => {
            const names = Array.from({ length: 120 }, (_, at) => `a family of plants with a long name, number ${at}`);
            const answers = names.map((name, at) => ({ name, probability: (at + 1) / 7260 }));
            gpunn.answers.show({ best: { ...answers[119], sure: false }, answers });
            const { drawConfusion } = await import("./static/gallery.js");
            drawConfusion({ classes: names, counts: names.map((_, at) => names.map((_, to) => Number(at === to))) });
            return [...document.querySelectorAll("#bars .name")].filter((each) => each.checkVisibility())
                .map((each) => each.textContent);
        }"""
    )
    assert len(names) == len(set(names)) == 10
    assert names[0].endswith("number 119")
    assert page.page.inner_text("#more") == "The ten likeliest of 120 classes."
    assert page.page.inner_text("#sure").startswith("not sure: 2\u00a0%, or a family")
    assert page.page.inner_text("#confusion-note") == "No mistakes."
    assert page.page.evaluate("() => document.documentElement.scrollWidth") == 390
