"""The public pictures: figures of networks, samples, reports and histories, as notebooks show them."""

import copy
import gc
import io
import pickle
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from support.harness import one_line

import gpunn as gn
from gpunn.display import style, text
from gpunn.display.text import drawable, fitted, short_names, shortened, width_of, wrapped
from gpunn.errors import DataError, OptionError, OutputError, ShapeError
from gpunn.reports.multilabel import draw_multilabel_mistakes
from gpunn.reports.regression import draw_largest_errors

RNG = np.random.default_rng(0)
QUIET: dict[str, Any] = {"progress": False, "device": "cpu", "epochs": 1}
GREY = RNG.integers(0, 256, (30, 8, 8, 1), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
X, LABELS = RNG.normal(size=(30, 6)), np.arange(30) % 3
TAGS = (RNG.random((30, 4)) < 0.4).astype(np.float64)
NUMBERS = np.stack([X[:, 0], 100 * X[:, 1]], axis=1)


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is claimed holds at any resolution; and no picture may wake pyplot or choose a backend."""
    monkeypatch.setitem(style._STYLE, "figure.dpi", 40)
    backend = dict.__getitem__(matplotlib.rcParams, "backend")
    yield
    assert dict.__getitem__(matplotlib.rcParams, "backend") == backend


def trained(last: list[Any], x: Any, y: Any) -> gn.Sequential:
    model = gn.Sequential(last)
    model.fit(x, y, **QUIET)
    return model


def convolution() -> list[Any]:
    return [gn.Conv2D(2, 3), gn.ReLU(), gn.MaxPool2D(), gn.Flatten(), gn.Dense(3)]


@pytest.fixture(scope="module")
def models() -> dict[str, gn.Sequential]:
    return {
        "grey": trained(convolution(), GREY, LABELS),
        "colour": trained(convolution(), COLOUR, LABELS),
        "table": trained([gn.Dense(3)], X, LABELS),
        "tags": trained([gn.Dense(4)], X, TAGS),
        "numbers": trained([gn.Dense(2)], X, NUMBERS),
    }


DATA: dict[str, tuple[Any, Any]] = {
    "grey": (GREY, LABELS),
    "colour": (COLOUR, LABELS),
    "table": (X, LABELS),
    "tags": (X, TAGS),
    "numbers": (X, NUMBERS),
}
KINDS: dict[str, tuple[Callable[..., Figure], tuple[str, ...]]] = {
    "confusion": (gn.plot_confusion, ("grey", "colour", "table", "tags")),
    "mistakes": (gn.plot_mistakes, ("grey", "colour", "table", "tags", "numbers")),
    "predictions": (gn.plot_predictions, ("numbers",)),
}
DRAWN = [(kind, name) for kind, (_, names) in KINDS.items() for name in names]


def words(figure: Figure) -> str:
    """All that is written in a figure."""
    found = [figure.get_suptitle(), figure.get_supxlabel(), *(text.get_text() for text in figure.texts)]
    for axes in figure.axes:
        found += [axes.get_title(), axes.get_xlabel(), axes.get_ylabel(), *(text.get_text() for text in axes.texts)]
        found += [label.get_text() for label in [*axes.get_xticklabels(), *axes.get_yticklabels()]]
    return "\n".join(found)


@pytest.mark.parametrize(("kind", "name"), DRAWN)
def test_a_picture_of_samples_is_a_figure_and_a_file_where_asked(
    models: dict[str, gn.Sequential], kind: str, name: str, tmp_path: Path
) -> None:
    (x, y), few = DATA[name], {"count": 3} if kind == "mistakes" else {}
    plot = partial(KINDS[kind][0], title="of the samples", **few)
    figure = plot(models[name], x, y, path=tmp_path / "a.png")
    assert isinstance(figure, Figure)
    assert figure.get_suptitle() == "of the samples"
    png, _ = figure._repr_png_()  # type: ignore[attr-defined]
    assert (tmp_path / "a.png").read_bytes() == png
    again = plot(models[name], gn.Samples(x, y, 1 / 255 if x.dtype == np.uint8 else 1.0))
    assert again._repr_png_()[0] == png  # type: ignore[attr-defined]


def test_the_filters_and_their_answers_are_drawn(models: dict[str, gn.Sequential], tmp_path: Path) -> None:
    for name, images in (("grey", GREY), ("colour", COLOUR)):
        assert "conv1: all 2 filters, 3 × 3" in words(gn.plot_filters(models[name], path=tmp_path / "filters.png"))
        figure = gn.plot_activations(models[name], images[0], path=tmp_path / "activations.png")
        predicted = models[name].predict_names(images[:1])[0]
        assert f"predicted {predicted}\n8 × 8" in words(figure)
        assert "conv1, relu1, maxpool1" in words(figure)
        with Image.open(tmp_path / "activations.png") as image:
            assert image.format == "PNG"
    flat = gn.plot_activations(models["grey"], GREY[0, ..., 0])
    assert flat._repr_png_() == gn.plot_activations(models["grey"], GREY[:1])._repr_png_()  # type: ignore[attr-defined]


def test_bytes_are_scaled_for_the_maps_as_for_the_training(models: dict[str, gn.Sequential]) -> None:
    scaled = GREY[0].astype(np.float32) * np.float32(1 / 255)
    ours, theirs = (gn.plot_activations(models["grey"], image) for image in (GREY[0], scaled))
    for a, b in zip(ours.axes, theirs.axes, strict=True):
        for one, other in zip(a.images, b.images, strict=True):
            np.testing.assert_array_equal(one.get_array(), other.get_array())  # type: ignore[arg-type]


def test_flat_images_have_filters(models: dict[str, gn.Sequential]) -> None:
    model = trained([gn.Dense(3)], GREY.reshape(30, 64), LABELS)
    assert "dense1: all 3 filters, 8 × 8" in words(gn.plot_filters(model))
    assert "all 3 filters" not in words(gn.plot_filters(model, count=2))


def test_a_history_draws_itself(tmp_path: Path) -> None:
    history = gn.Sequential([gn.Dense(3)]).fit(X, LABELS, **QUIET)
    figure = history.plot(tmp_path / "a.png", title="of a run")
    assert figure.get_suptitle() == "of a run"
    assert (tmp_path / "a.png").read_bytes() == figure._repr_png_()[0]  # type: ignore[attr-defined]
    assert gn.plot_history(history, title="of a run")._repr_png_() == figure._repr_png_()  # type: ignore[attr-defined]
    assert "No records yet" in words(gn.History().plot())


def test_a_rate_that_changes_is_drawn_once() -> None:
    model = gn.Sequential([gn.Dense(3)])
    history = model.fit(X, LABELS, **{**QUIET, "epochs": 3}, optimizer=gn.SGD(gn.Cosine(0.1)))
    assert words(history.plot()).count("rate η") == 1


def test_a_report_is_drawn_as_the_network_that_made_it(models: dict[str, gn.Sequential]) -> None:
    for name in ("table", "tags"):
        report = models[name].report(*DATA[name])
        ours, theirs = gn.plot_confusion(report), gn.plot_confusion(models[name], *DATA[name])
        assert ours._repr_png_() == theirs._repr_png_()  # type: ignore[attr-defined]


def test_several_answers_of_0_and_1_are_counted_for_each_output() -> None:
    true, answered = np.array([[1, 0], [1, 1], [0, 1], [0, 0]]), np.array([[1, 1], [0, 1], [0, 1], [1, 0]])
    for weights, right in ((None, "1"), (np.array([2.0, 1, 1, 1]), "2")):
        report = gn.MultilabelReport.of(true.astype(float), answered.astype(float), weights, ("a", "b"))
        texts = [text.get_text() for text in gn.plot_confusion(report).axes[0].texts]
        first = texts[:4]  # TP, FN, FP and TN of "a"
        assert first == [right, "1", "1", "1"]


def test_weights_are_counted_in_a_matrix(models: dict[str, gn.Sequential]) -> None:
    report = models["table"].report(X, LABELS, sample_weight=np.full(30, 0.5))
    assert "of 15 by weight right" in words(gn.plot_confusion(report))


def test_outputs_without_a_class_are_no_class() -> None:
    model = gn.Sequential([gn.Dense(7)])
    model.fit(X, LABELS, **{**QUIET, "epochs": 30})
    assert "6" not in [label.get_text() for label in gn.plot_confusion(model, X, LABELS).axes[0].get_yticklabels()]


def test_the_numbers_furthest_off_come_first() -> None:
    """An error counts by the deviation of its output: 2 of one that varies by 1 are more than 50 of one by 100."""
    targets = np.array([[-1.0, -100.0], [1.0, 100.0], [-1.0, -100.0], [1.0, 100.0]])
    outputs = targets + np.array([[0.0, 50.0], [2.0, 0.0], [0.0, 0.0], [0.0, 30.0]])
    figure = draw_largest_errors(gn.Samples(X[:4], targets), targets, outputs, ("one", "hundred"), None, 3, "")
    shown = [(axes.get_title(), axes.get_xlabel()) for axes in figure.axes]
    assert shown == [
        ("one: predicted 3", "true 1"),
        ("hundred: predicted -50", "true -100"),
        ("hundred: predicted 130", "true 100"),
    ]


def test_the_answers_of_the_highest_cross_entropy_come_first() -> None:
    targets = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    outputs = np.array([[0.4, 0.1], [0.01, 0.9], [0.2, 0.3]])
    figure = draw_multilabel_mistakes(gn.Samples(X[:3], targets), targets, outputs, ("cat", "dog"), None, 9, "")
    shown = [(axes.get_title(), axes.get_xlabel()) for axes in figure.axes]
    assert shown == [("predicted dog", "true cat, dog"), ("predicted none", "true cat")]
    assert figure.get_supxlabel() == "all 2 mistakes (66.67 % of 3 samples)"


def test_predictions_name_the_errors_of_each_column(models: dict[str, gn.Sequential]) -> None:
    report = models["numbers"].report(X, NUMBERS)
    written = words(gn.plot_predictions(models["numbers"], X, NUMBERS))
    for error in report.outputs:
        assert f"RMSE {error.rmse:.4g}, R² {error.r2:.4f}" in written


WRONG: dict[str, tuple[Callable[[dict[str, gn.Sequential]], Any], type[Exception], str]] = {
    "no network": (lambda m: gn.plot_confusion("model", X, LABELS), OptionError, "takes a network.*got str"),
    "not built": (lambda m: gn.plot_mistakes(gn.Sequential([gn.Dense(2)]), X, LABELS), gn.GpunnError, "not built yet"),
    "no filters yet": (lambda m: gn.plot_filters(gn.Sequential([gn.Dense(2)])), gn.GpunnError, "not built yet"),
    "no targets": (lambda m: gn.plot_confusion(m["table"], X), DataError, "ndarray without targets"),
    "no samples": (lambda m: gn.plot_mistakes(m["table"]), DataError, "got nothing"),
    "numbers in a matrix": (lambda m: gn.plot_confusion(m["numbers"], X, NUMBERS), OptionError, "plot_predictions"),
    "report of numbers": (lambda m: gn.plot_confusion(m["numbers"].report(X, NUMBERS)), OptionError, "plot_predict"),
    "report and samples": (lambda m: gn.plot_confusion(m["table"].report(X, LABELS), X), OptionError, "report alone"),
    "classes as numbers": (lambda m: gn.plot_predictions(m["table"], X, LABELS), OptionError, "plot_confusion"),
    "filters of a table": (lambda m: gn.plot_filters(m["table"]), OptionError, "of inputs 6, are no images"),
    "maps of a table": (lambda m: gn.plot_activations(m["table"], X[0]), OptionError, "no convolution"),
    "several images": (lambda m: gn.plot_activations(m["grey"], GREY), ShapeError, r"one image of 8 × 8 × 1, got \(30"),
    "samples as image": (
        lambda m: gn.plot_activations(m["grey"], gn.Samples(GREY, LABELS)),
        ShapeError,
        "got Samples",
    ),
    "no place": (lambda m: gn.plot_mistakes(m["numbers"], X, NUMBERS, count=0), OptionError, "at least 1, got 0"),
    "no history": (lambda m: gn.plot_history([1.0]), OptionError, "takes the History that fit returns, got list"),
    "no curve": (lambda m: gn.plot_learning_rates(gn.History()), OptionError, "LearningRateCurve, got History"),
    "no folder": (lambda m: gn.History().plot("nowhere/a.png"), OutputError, "cannot write nowhere"),
    "no path": (lambda m: gn.History().plot(3), OptionError, "path of a file is a text"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_drawn_is_said_in_one_line(models: dict[str, gn.Sequential], name: str) -> None:
    draw, kind, message = WRONG[name]
    with pytest.raises(kind, match=message) as caught:
        draw(models)
    one_line(caught.value)  # type: ignore[arg-type]


def test_a_figure_is_held_by_nobody_but_you() -> None:
    figure = gn.History().plot()
    held = weakref.ref(figure)
    del figure
    gc.collect()
    assert held() is None


def test_a_figure_is_copied_and_pickled_with_its_look() -> None:
    figure = gn.History().plot(title="$a")
    png = figure._repr_png_()  # type: ignore[attr-defined]
    assert copy.deepcopy(figure)._repr_png_() == png  # type: ignore[attr-defined]
    assert pickle.loads(pickle.dumps(figure))._repr_png_() == png


def test_settings_of_the_user_do_not_change_a_figure_that_is_shown_later() -> None:
    figure = gn.Sequential([gn.Dense(3)]).fit(X, LABELS, **QUIET).plot()
    png = figure._repr_png_()  # type: ignore[attr-defined]
    with matplotlib.rc_context({"font.size": 20, "axes.grid": False, "savefig.dpi": 30}):
        assert figure._repr_png_() == png  # type: ignore[attr-defined]


def test_a_figure_may_be_changed_and_written_in_other_formats() -> None:
    figure = gn.History().plot(title="before")
    figure.suptitle("after")
    content = io.BytesIO()
    figure.savefig(content, format="svg")
    assert b"<svg" in content.getvalue()


def test_a_picture_needs_no_pyplot_and_leaves_none_behind() -> None:
    program = (
        "import sys, gpunn as gn\n"
        "assert 'matplotlib' not in sys.modules\n"
        "figure = gn.History().plot()\n"
        "assert figure._repr_png_()[0].startswith(b'\\x89PNG')\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# Names and titles


def test_names_that_begin_alike_are_cut_in_the_middle() -> None:
    assert short_names(["cat", "dog"], 8) == ["cat", "dog"]
    assert short_names(["a long name one", "a long name two"], 9) == ["a lo… one", "a lo… two"]
    assert short_names(["quite another", "a long name two"], 9) == ["quite an…", "a long n…"]
    alike = short_names(["a" * 30, "a" * 30 + "b" * 30, "a" * 31], 9)
    assert len(set(alike)) == 3
    assert max(map(len, alike)) <= 9


def test_a_long_title_is_broken_and_a_very_long_one_cut() -> None:
    assert wrapped("short", 5.0) == "short"
    lines = wrapped("word " * 60, 5.0).splitlines()
    assert len(lines) == 3
    assert max(map(len, lines)) <= 47
    assert lines[-1].endswith("…")
    assert wrapped("", 5.0) == ""


def test_names_of_broad_letters_are_cut_sooner() -> None:
    assert shortened("i" * 16) == "i" * 16
    assert len(shortened("W" * 60)) < 10
    assert width_of(shortened("W" * 60), 9) < 1.3 * width_of("n" * 16, 9)
    assert shortened("犬" * 16) == "犬" * 8 + "…"


def test_letters_that_no_font_has_are_left_out_and_a_name_without_any_is_its_number() -> None:
    assert drawable("\N{DOG FACE} Straße $x") == "Straße $x"
    assert short_names(["犬", "\N{DOG FACE} dog", "líška"]) == ["class 0", "dog", "líška"]


def test_a_font_of_this_machine_draws_what_matplotlibs_own_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    own, other = (
        get_font(findfont(FontProperties(family=name))).get_charmap() for name in ("DejaVu Sans", "STIXGeneral")
    )
    letter = chr(min(set(other) - set(own)))
    assert drawable(f"a{letter}") == "a"
    for kept in (text.families, text._letters, text.width_of):
        monkeypatch.setattr(text, kept.__name__, kept.__wrapped__)
    monkeypatch.setattr(text, "_FURTHER", ("no such font", "STIXGeneral"))
    assert drawable(f"a{letter}") == f"a{letter}"
    assert text.families() == ("DejaVu Sans", "STIXGeneral")


@pytest.mark.parametrize("words", ["word " * 60, "W" * 200, "a " + "unbroken" * 40 + " b", "$x_1$ " * 50])
def test_a_text_is_measured_and_fits(words: str) -> None:
    for width in (0.5, 2.0, 5.0):
        assert width_of(wrapped(words, width), 13, bold=True) <= width
        assert width_of(fitted(words, width, 9.0), 9.0) <= width
    assert wrapped(words, 50.0).replace("\n", " ").split()[0] == words.split()[0]
