"""Networks, histories, reports and data as notebooks show them: tables in HTML, beside the text that is as before."""

import math
import subprocess
import sys
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import gpunn as gn
from gpunn.display.html import written
from gpunn.train.history import History, Record

X, LABELS = np.random.default_rng(0).normal(size=(40, 6)), np.arange(40) % 3
EVIL = ("<script>alert(1)</script>", "a&b", '"quoted"')
QUIET: dict[str, Any] = {"progress": False, "device": "cpu", "epochs": 2}


TAGS = {"div", "strong", "table", "thead", "tbody", "tr", "th", "td", "svg", "polyline", "span"}


def shown(value: Any) -> dict[str, Any]:
    """What a notebook is given: by IPython's own formatters where it is installed."""
    try:
        from IPython.core.formatters import DisplayFormatter
    except ImportError:
        kinds = {"text/html": "_repr_html_", "image/png": "_repr_png_"}
        made = {kind: getattr(value, name)() for kind, name in kinds.items() if hasattr(value, name)}
        return {kind: data for kind, data in made.items() if data is not None}
    return {kind: data for kind, data in DisplayFormatter().format(value)[0].items() if kind != "text/plain"}


def html(value: Any) -> str:
    """The HTML of a value, which is well formed and brings no colour of text or ground of its own."""
    (kind, text), *others = shown(value).items()
    assert (kind, others) == ("text/html", [])
    tree = ElementTree.fromstring(text)
    assert not {each.tag for each in tree.iter()} - TAGS
    for each in tree.iter():
        style = each.get("style", "")
        assert "color:" not in style or each.tag == "span", "the page's own colours, light or dark"
    return text


def cells(value: Any) -> list[list[str]]:
    """The rows of its table."""
    tree = ElementTree.fromstring(html(value))
    return [["".join(cell.itertext()) for cell in row] for row in tree.iter("tr")]


@pytest.fixture(scope="module")
def data() -> gn.Data:
    return gn.Data.from_arrays(X, LABELS, class_names=EVIL, name="<b>mine</b>", test=(X, LABELS))


@pytest.fixture(scope="module")
def model(data: gn.Data) -> gn.Sequential:
    made = gn.Sequential([gn.Dense(4), gn.ReLU(), gn.Dense(3)])
    made.fit(data, **QUIET)
    return made


def test_a_network_shows_the_rows_of_its_summary(model: gn.Sequential) -> None:
    rows = cells(model)
    lines = model.summary().splitlines()
    for row, line in zip(rows, [lines[0], *lines[2:-2]], strict=True):
        assert line.split() == " ".join(row).split()
    text = html(model)
    assert lines[-1] in text
    assert "trained for 2 epochs, 2 steps by SoftmaxCrossEntropy() on 3 classes" in text
    assert "not trained yet" in html(gn.Sequential([gn.Dense(1)]).build((2,), 1, device="cpu"))


def test_a_network_that_is_not_built_shows_its_layers() -> None:
    model = gn.Sequential([gn.Dense(4), gn.ReLU()])
    model.layers[0].trainable = False
    assert cells(model) == [["layer"], ["Dense(4), frozen".replace("4", "units=4")], ["ReLU()"]]
    assert "not built yet: call build(input_shape)" in html(model)


def test_layers_within_a_layer_are_set_in() -> None:
    model = gn.Sequential([gn.Residual([gn.Dense(6), gn.ReLU()]), gn.Dense(2)])
    unbuilt = [row[0] for row in cells(model)[1:]]
    built = [row[0] for row in cells(model.build((6,), 2, device="cpu"))[2:]]
    assert unbuilt == built
    assert [name.startswith("  ") for name in built] == [False, True, True, False]


def test_names_of_every_kind_are_escaped(model: gn.Sequential, data: gn.Data) -> None:
    for value in (model, data, model.report(data)):
        text = html(value)
        assert "<script>" not in text
        assert "&lt;script&gt;" in text
    assert "&lt;b&gt;mine" in html(data)
    assert written("  a\n\x1b<") == "  a\\n\\x1b&lt;"


def test_a_report_shows_the_cells_of_its_table(model: gn.Sequential, data: gn.Data) -> None:
    tags = gn.Sequential([gn.Dense(3)])
    tags.fit(X, np.eye(3)[LABELS] + np.roll(np.eye(3), 1, axis=1)[LABELS], **QUIET)
    numbers = gn.Sequential([gn.Dense(2)])
    numbers.fit(X, X[:, :2], **QUIET)
    reports = [
        tags.report(X, np.eye(3)[LABELS] + np.roll(np.eye(3), 1, axis=1)[LABELS]),
        numbers.report(X, X[:, :2]),
        model.report(data),
    ]
    for report in reports:
        text = html(report)
        assert repr(report) in text
        lines = str(report).splitlines()
        for row in cells(report)[0:1] + cells(report)[-1:]:
            assert " ".join(row).split() in [line.split() for line in lines]
        assert len(cells(report)) == lines.index("") - sum(line.startswith("─") for line in lines)


def records(count: int, **changed: float) -> list[Record]:
    plain = {
        "train_accuracy": math.nan,
        "validation_accuracy": math.nan,
        "validation_loss": 1.5,
        "learning_rate": 0.1,
        "seconds": 1.0,
    }
    return [Record(step=k, epoch=k / 4, **{**plain, "train_loss": 1 / k, **changed}) for k in range(1, count + 1)]


def test_a_history_shows_its_last_records_and_the_best() -> None:
    history = gn.History([*records(7), replace(records(9)[8], validation_loss=0.5), *records(12)[10:]])
    rows = cells(history)
    assert [row[1] for row in rows] == ["step", "6", "7", "9", "11", "12", "9"]
    assert [row[0] for row in rows] == ["", "", "", "", "", "last", "best"]
    assert rows[0] == ["", "step", "epoch", "loss", "validation loss", "time"]
    assert repr(history) in html(history)
    history.stopped = "<by hand>"
    assert "stopped: &lt;by hand&gt;" in html(history)


def test_the_losses_of_a_history_are_drawn_by_lines() -> None:
    lines = ElementTree.fromstring(html(History(records(5)))).findall(".//polyline")
    assert len(lines) == 2
    points = [tuple(map(float, point.split(","))) for point in (lines[0].get("points") or "").split()]
    assert len(points) == 5
    assert [y for _, y in points] == sorted(y for _, y in points)  # the loss falls, and y runs down
    assert (points[0][0], points[-1][0]) == (4, 416)


@pytest.mark.parametrize("count", [0, 1, 2, 300, 301, 1000])
@pytest.mark.parametrize("loss", [0.5, math.nan, math.inf, 0.0, -1.0, 1e300])
def test_every_history_can_be_shown(count: int, loss: float) -> None:
    made = records(count)
    made[count // 2 :] = [replace(record, train_loss=loss, validation_loss=loss) for record in made[count // 2 :]]
    text = html(History(made))
    assert "nan," not in text
    assert ",nan" not in text
    assert len(text) < 40_000


def test_data_show_their_parts_and_keep_the_test_set_closed() -> None:
    opened = []
    data = gn.Data.from_arrays(X, LABELS, test=lambda: opened.append(1) or (X, LABELS), validation=0.5)  # type: ignore[func-returns-value]
    assert [row[0] for row in cells(data)] == ["", "train", "validation", "test"]
    assert cells(data)[3][5] == "not opened"
    assert not opened
    assert data.test is not None
    assert cells(data)[3][5] == "40"
    assert cells(data.train)[1][1:6] == ["6", "float64", "scale 1", "3 classes", "20"]
    assert "0 (7), 1 (6), 2 (7)" in html(data)


def test_tokens_are_counted_in_the_place_of_a_scale() -> None:
    samples = gn.Samples(np.arange(6).reshape(3, 2), [0, 1, 0], tokens=9)
    assert cells(samples)[1][3] == "9 tokens"


def test_a_curve_of_rates_shows_its_picture(model: gn.Sequential, data: gn.Data) -> None:
    curve = model.find_learning_rate(data, device="cpu", steps=20)
    assert list(shown(curve)) == ["image/png"]


def test_figures_are_shown_as_one_picture() -> None:
    assert list(shown(gn.History().plot())) == ["image/png"]


def test_tables_need_no_matplotlib() -> None:
    program = (
        "import sys, numpy as np, gpunn as gn\n"
        "model = gn.Sequential([gn.Dense(2)])\n"
        "history = model.fit(np.eye(4), [0, 1, 0, 1], progress=False, device='cpu', epochs=2)\n"
        "for shown in (model, history, gn.Samples(np.eye(4), [0, 1, 0, 1]), model.report(np.eye(4), [0, 1, 0, 1])):\n"
        "    assert shown._repr_html_().startswith('<div')\n"
        "assert 'matplotlib' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
