"""Time the page of a run in Chromium, from drawing to prediction, and take its picture for docs/images/.

python -m gpunn train mnist --recipe lenet --epochs 4 --out RUN && python benchmarks/page.py RUN

For each page that is opened anew: the milliseconds from the pointer's first touch to the answer on the page, and from
each later movement to an answer that has come since. It fails where the median of the first is above 100 ms.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from machine import RESULTS, ROOT, command, machine, write_result
from pictures import shrink

from gpunn.data import load_data
from gpunn.experiments.experiment import read_experiment

sys.path.insert(0, str(ROOT / "tests"))

from support.browsing import Visit, chromium, strokes_of, why_no_browser

LIMIT = 100.0  # milliseconds to the first answer
PICTURE = ROOT / "docs" / "images" / "serve.png"

# Notes when the pad is touched, and when an answer is on the page.
WATCH = """() => {
    globalThis.times = [];
    const note = (kind) => times.push([kind, performance.now()]);
    const pad = document.querySelector("canvas.cursor");
    for (const name of ["pointerdown", "pointermove"]) pad.addEventListener(name, () => note("drawn"), true);
    const shown = gpunn.layers.show.bind(gpunn.layers);
    gpunn.layers.show = (answer) => { shown(answer); note("answered"); };
}"""


@contextlib.contextmanager
def served(run: Path) -> Iterator[str]:
    """Start `gpunn serve` in a separate process, and return its address."""
    line = [sys.executable, "-u", "-m", "gpunn", "serve", str(run), "--port", "0", "--device", "cpu"]
    with subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = next((found for text in process.stdout if (found := re.search(r"http://\S+/", text))), None)
            if said is None:
                raise SystemExit("gpunn serve did not start")
            yield said[0]
        finally:
            process.terminate()


def elsewhere(strokes: list[list[tuple[float, float]]]) -> list[list[tuple[float, float]]]:
    """Strokes larger and beside the middle, as people draw: they have to be brought to their place."""
    return [[(0.47 + 1.15 * (x - 0.5), 0.52 + 1.15 * (y - 0.5)) for x, y in stroke] for stroke in strokes]


def latencies(times: list[tuple[str, float]]) -> list[float]:
    """Return the milliseconds of each prediction since its first movement."""
    found, began = [], None
    for kind, at in times:
        if kind == "drawn":
            began = at if began is None else began
        elif began is not None:
            found.append(at - began)
            began = None
    return found


def measured(browser: Any, url: str, strokes: list[list[tuple[float, float]]]) -> tuple[list[float], str]:
    """Draw on a new page; the latencies, and the name that was answered."""
    page = Visit(browser, url)
    page.answer()
    page.page.wait_for_selector("#confusion td")
    page.page.wait_for_timeout(1000)  # as people take to reach for the pen: the page and its server are at rest
    page.page.evaluate(WATCH)
    page.draw(strokes)
    name = page.answer()["best"]["name"]
    times = page.page.evaluate("() => times")
    page.context.close()
    return latencies([tuple(each) for each in times]), name


def photograph(browser: Any, url: str, target: Path) -> None:
    """Take a picture of the whole page with a drawn three and an open map."""
    page = Visit(browser, url, 1280, 2000)
    page.answer()
    page.page.click("#clear")
    page.draw([[*arc(0.3, -150, 85), *arc(0.64, -85, 150)]])
    page.answer()
    page.page.locator(".frame").nth(1).click(position={"x": 40, "y": 16})
    page.page.wait_for_selector(".unit .picture")
    page.page.mouse.move(640, 5)
    page.page.evaluate("() => { document.activeElement.blur(); scrollTo(0, 0); }")
    page.page.wait_for_timeout(300)
    end = page.page.locator(".unit").bounding_box()
    place = {"x": 0, "y": 0, "width": 1280, "height": round(end["y"] + end["height"] + 9)}
    page.page.screenshot(path=target, clip=place, animations="disabled")
    page.context.close()
    shrink(target, target)


def arc(middle: float, first: int, last: int) -> list[tuple[float, float]]:
    """Points of half a three, from one angle to another; 0 is to the right."""
    angles = np.radians(np.arange(first, last + 1, 5))
    return [(0.48 + 0.17 * np.cos(angle), middle + 0.17 * np.sin(angle)) for angle in angles]


def main() -> str | None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run on images of digits")
    parser.add_argument("--pages", type=int, default=20, help="how many are opened, each for another test digit")
    parser.add_argument("--picture", type=Path, default=PICTURE, help="where the picture goes")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON")
    options = parser.parse_args()
    if reason := why_no_browser():
        return reason
    experiment = read_experiment(str(options.run / "experiment.toml"))
    test = load_data(experiment.data.source).test
    assert test is not None
    drawings = [elsewhere(strokes_of(np.asarray(test.inputs[at])[..., 0])) for at in range(options.pages)]
    with served(options.run) as url, chromium() as browser:
        found = [measured(browser, url, strokes) for strokes in drawings]
        photograph(browser, url, options.picture)
    first, later = [each[0] for each, _ in found], [each for times, _ in found for each in times[1:]]
    names = [name for _, name in found]
    right = sum(str(label) == name for label, name in zip(test.targets[: options.pages], names, strict=True))
    result = {
        "what": f"milliseconds from a movement on the page of {experiment.name} to its answer",
        "command": command().replace(str(options.run), "RUN"),
        "machine": machine(),
        "load": round(os.getloadavg()[0], 2),
        "first": {"median": round(median(first), 1), "all": [round(each, 1) for each in first]},
        "later": {"median": round(median(later), 1), "largest": round(max(later), 1), "count": len(later)},
        "right": f"{right} of {options.pages} test digits, drawn as strokes",
    }
    write_result(options.out / "page-cpu.json", result)
    print(f"first answer {result['first']['median']} ms, later {result['later']['median']} ms; {result['right']}")
    return f"the first answer took {median(first):.0f} ms, more than {LIMIT:.0f}" if median(first) > LIMIT else None


if __name__ == "__main__":
    sys.exit(main())
