"""The site that scripts/site.sh built, from a plain server of files: it is searched, read in the dark and on a phone.

GPUNN_SITE names its folder.
"""

import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

SITE = Path(os.environ.get("GPUNN_SITE", "none")).resolve()
pytestmark = pytest.mark.skipif(not SITE.is_dir(), reason="GPUNN_SITE names no folder: run scripts/site.sh first")
PAGES = [
    "index.html",
    "lecture/index.html",
    "lecture/01_forward_pass.html",
    "docs/equations.html",
    "docs/benchmarks.html",
    "reference/networks.html",
    "gpunn/nn/losses.py.html",
]


class Quiet(SimpleHTTPRequestHandler):
    """Serves files, and logs nothing."""

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Where the site is served, below a folder, as on a web space."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(SITE)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def read(browser: Any, address: str) -> Iterator[Callable[..., Any]]:
    """Opens pages; none may complain, or ask another host."""
    contexts: list[Any] = []
    wrong: list[str] = []

    def open_page(name: str, width: int = 1280, dark: bool = False) -> Any:
        look = "dark" if dark else "light"
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=look)
        contexts.append(context)
        context.on(
            "request", lambda asked: asked.url.startswith((address, "data:", "blob:")) or wrong.append(asked.url)
        )
        context.on("response", lambda came: came.status < 400 or wrong.append(f"{came.status} {came.url}"))
        page = context.new_page()
        page.on("console", lambda said: said.type == "error" and wrong.append(said.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(address + name)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_its_window_and_asks_nobody(name: str, width: int, read: Callable[..., Any]) -> None:
    page = read(name, width, dark=width < 1000)
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("h1").count() == 1
    assert page.locator("html").get_attribute("lang") == "en"
    images = "[...document.images].filter(image => image.complete && !image.naturalWidth).map(image => image.src)"
    assert page.evaluate(images) == []


def test_it_is_searched_without_anybody_else(read: Callable[..., Any]) -> None:
    page = read("index.html")
    page.wait_for_load_state("networkidle")
    page.keyboard.press("Control+k")
    # Before the field is there, letters are keys of the page: n goes to the next one.
    page.wait_for_function("document.activeElement?.shadowRoot?.activeElement?.tagName === 'INPUT'")
    page.keyboard.type("nesterov")
    found = page.locator("a[href*='reference/optimizers.html']").filter(has_text="SGD").first
    found.wait_for()
    found.click()
    page.wait_for_url("**/reference/optimizers.html*")
    assert page.locator("h1").inner_text().startswith("Optimizers")


def test_a_chapter_draws_its_formulas_folds_its_solutions_and_is_downloaded(read: Callable[..., Any]) -> None:
    page = read("lecture/01_forward_pass.html")
    page.wait_for_function("document.fonts.status === 'loaded'")
    assert page.evaluate("[...document.fonts].some(font => font.family === 'KaTeX_Math' && font.status === 'loaded')")
    formula = page.locator(".displayed .katex-html").first
    assert formula.bounding_box()["height"] > 15
    solution = page.locator("details").first
    assert solution.evaluate("element => element.open") is False
    solution.locator("summary").focus()
    page.keyboard.press("Enter")
    assert solution.evaluate("element => element.open") is True
    with page.expect_download() as download:
        page.get_by_text("Download this chapter as a notebook").click()
    assert download.value.suggested_filename == "01_forward_pass.ipynb"


def test_the_number_of_a_formula_leads_to_its_equation_and_on_to_the_line_of_code(read: Callable[..., Any]) -> None:
    page = read("lecture/01_forward_pass.html")
    page.locator(".displayed .tag a").first.click()
    page.wait_for_url("**/docs/equations.html#eq-*")
    page.locator("td a[href*='gpunn/']").first.click()
    page.wait_for_url("**/gpunn/**#L-*")
    line = page.locator(".line:target")
    assert line.inner_text().strip().startswith(("def ", "class "))
    assert line.evaluate("element => getComputedStyle(element).backgroundColor") != "rgba(0, 0, 0, 0)"
    assert 0 < line.bounding_box()["y"] < 900


@pytest.mark.parametrize("dark", [False, True])
def test_it_is_as_light_or_dark_as_the_reader_wants(dark: bool, read: Callable[..., Any]) -> None:
    page = read("docs/equations.html", dark=dark)
    colour = page.locator("body").evaluate("element => getComputedStyle(element).backgroundColor")
    text = page.locator("article p").first.evaluate("element => getComputedStyle(element).color")
    background, letters = (sum(map(float, value.strip("rgba()").split(",")[:3])) for value in (colour, text))
    assert (background < 100 < 400 < letters) if dark else (background > 700 and letters < 300), (colour, text)


def test_the_first_key_leads_past_the_navigation(read: Callable[..., Any]) -> None:
    page = read("docs/recipes.html")
    page.keyboard.press("Tab")
    assert "skip" in page.evaluate("document.activeElement.textContent").lower()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("!!document.activeElement.closest('article, .md-content')")
