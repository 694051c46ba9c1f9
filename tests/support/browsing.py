"""A browser that opens the page of a run: Playwright with a Chromium of the system, and digits as strokes to draw."""

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Root needs --no-sandbox; the rest keeps a browser that is to ask nobody from asking.
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
ARGUMENTS += ["--disable-component-update", "--disable-sync", "--force-color-profile=srgb"]
ANSWERED = "() => globalThis.gpunn?.answer && !gpunn.asker.busy"
Point = tuple[float, float]


def find_chromium() -> str | None:
    """The browser that GPUNN_CHROMIUM names, else the system's."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return os.environ.get("GPUNN_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


def why_no_browser() -> str:
    """Why no page can be opened here, or "" if one can."""
    try:
        import playwright.sync_api  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        return f"{error.name} is missing: pip install '.[test,browser]'"
    return "" if find_chromium() else "there is no Chromium: apt-get install chromium, or name one by GPUNN_CHROMIUM"


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A browser without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
        yield browser
        browser.close()


@contextlib.contextmanager
def serving(run: Path, port: int = 0) -> Iterator[str]:
    """The address at which a run is served, by the server of `gpunn serve` in a thread."""
    from gpunn.serve.server import PageServer

    server = PageServer(str(run), "127.0.0.1", port, "cpu", lambda _: None)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [server.socket]})
    thread.start()
    try:
        deadline = time.monotonic() + 30
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            assert time.monotonic() < deadline, "the server did not start in 30 seconds"
            time.sleep(0.01)
        yield server.url
    finally:
        server.should_exit = True
        thread.join(30)


class Visit:
    """A page that was opened, with what it should not do: errors in the console, and requests to elsewhere."""

    def __init__(self, browser: Any, url: str, width: int = 1280, height: int = 900, *, dark: bool = False) -> None:
        look = "dark" if dark else "light"
        self.context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=look)
        self.page, self.url = self.context.new_page(), url
        self.errors: list[str] = []
        self.elsewhere: list[str] = []
        self.page.on("console", lambda said: said.type == "error" and self.errors.append(said.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.context.on("request", self._asked)
        self.page.goto(url)
        self.page.wait_for_selector("#main:not([hidden])")

    def _asked(self, request: Any) -> None:
        if not request.url.startswith((self.url, "data:", "blob:")):
            self.elsewhere.append(request.url)

    def answer(self) -> Any:
        """Wait until the newest input is answered; the answer without its arrays."""
        self.page.wait_for_function(ANSWERED)
        return self.page.evaluate("() => ({best: gpunn.answer.best, values: gpunn.answer.values ?? null})")

    def array(self, expression: str) -> NDArray[Any]:
        """An array of the page, such as "gpunn.answer.prepared"."""
        given = self.page.evaluate(f"() => {{ const a = {expression}; return [a.shape, Array.from(a.data)]; }}")
        return np.array(given[1], np.float32).reshape(given[0])

    def draw(self, strokes: list[list[Point]]) -> None:
        """Draw strokes, whose points are shares of the pad, with the mouse."""
        box = self.page.locator("canvas.cursor").bounding_box()
        mouse = self.page.mouse
        for stroke in strokes:
            (x, y), *rest = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]
            mouse.move(x, y)
            mouse.down()
            for x, y in rest:
                mouse.move(x, y)
            mouse.up()

    def picture(self, path: Path) -> None:
        """Take a picture of the whole page."""
        self.page.screenshot(path=path, full_page=True, animations="disabled")


def strokes_of(digit: NDArray[Any]) -> list[list[Point]]:
    """The strokes (x, y) of a drawing (height, width), as shares: its thinned ink, walked from end to end."""
    bones = thinned(digit > 0.4 * digit.max())
    height, width = bones.shape
    ink = {(int(y), int(x)) for y, x in zip(*np.nonzero(bones), strict=True)}
    left, strokes = set(ink), []
    while left:
        at = min(left, key=lambda place: (len(_beside(place, left)), place))  # an end if there is one, else any place
        stroke, heading = [at], (0, 0)
        left.discard(at)
        while near := _beside(at, left):
            at = min(near, key=lambda to: (to[0] - at[0] - heading[0]) ** 2 + (to[1] - at[1] - heading[1]) ** 2)
            heading = (at[0] - stroke[-1][0], at[1] - stroke[-1][1])  # straight on where lines cross
            left.discard(at)
            stroke.append(at)
        drawn = ink - left - set(stroke)  # the lines that this one leaves and meets
        stroke = [*_beside(stroke[0], drawn)[:1], *stroke, *_beside(stroke[-1], drawn)[:1]]
        strokes.append([((x + 0.5) / width, (y + 0.5) / height) for y, x in stroke])
    return strokes


def _beside(place: tuple[int, int], among: set[tuple[int, int]]) -> list[tuple[int, int]]:
    y, x = place
    near = [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
    return sorted(each for each in near if each in among)


def thinned(ink: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Lines of one pixel in the middle of the ink, by Zhang and Suen (1984)."""
    ink = np.pad(ink, 1)
    while True:
        before = ink.copy()
        for step in (0, 1):
            # The eight neighbours, from above clockwise.
            n = [
                np.roll(ink, by, (0, 1))
                for by in ((1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1))
            ]
            count = np.sum(n, axis=0)
            turns = np.sum([~n[i] & n[(i + 1) % 8] for i in range(8)], axis=0)
            one, two = ((0, 2, 4), (2, 4, 6)) if step == 0 else ((0, 2, 6), (0, 4, 6))
            free = [~(n[a] & n[b] & n[c]) for a, b, c in (one, two)]
            ink = ink & ~((count >= 2) & (count <= 6) & (turns == 1) & free[0] & free[1])
        if (before == ink).all():
            return ink[1:-1, 1:-1]
