"""Where the words of a picture stand: inside it, beside each other, and on no curve and no tile; of any input."""

import io
import math
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from numpy.typing import NDArray
from PIL import Image
from support.paths import ROOT

import gpunn as gn
from gpunn.display.figure import styled
from gpunn.reports import FeatureMaps, plot_activations, plot_confusion, plot_curves, plot_filters, plot_mistakes
from gpunn.reports.filters import colours
from gpunn.reports.learning_rates import LearningRateCurve, plot_learning_rates
from gpunn.reports.multilabel import draw_multilabel, draw_multilabel_mistakes
from gpunn.reports.reconstructions import draw_reconstructions
from gpunn.reports.regression import draw_largest_errors, draw_predictions

NAN = math.nan
LONG = [f"a class with a really long name of sixty characters, number {place:03d}" for place in range(200)]
ODD = [
    "犬の写真と猫の写真",
    "\N{DOG FACE} dog",
    "$x_1^2$",
    "a_b_c_d",
    "W" * 60,
    "Straße",
    "\\frac{1}{2}",
    "100 %",
    "líška",
    "",
]
TITLES = [
    "mlp on digits",
    "an experiment of a long name, on a data set of a long name too, by somebody " * 3,
    "W" * 200,
]


def written(figure: Figure) -> list[tuple[Text, Bbox]]:
    """All texts that are seen, with their places in pixels; the figure was laid out when it was drawn."""
    across, down = figure.bbox.size
    renderer = RendererAgg(int(across), int(down), figure.dpi)
    with styled(figure.gpunn_style), warnings.catch_warnings():  # type: ignore[attr-defined]
        warnings.simplefilter("ignore")
        found = [text for text in seen(figure) if text.get_visible() and text.get_text().strip()]
        return [(text, text.get_window_extent(renderer)) for text in found]


def seen(figure: Figure) -> Iterator[Text]:
    yield from figure.texts  # its title and the words below it too
    for legend in figure.legends:
        yield from legend.get_texts()
    for axes in figure.axes:
        yield from (axes.title, axes._left_title, axes._right_title, *axes.texts)  # type: ignore[attr-defined]
        for axis in (axes.xaxis, axes.yaxis) if axes.axison else ():
            yield from (axis.label, axis.offsetText)
            for tick in axis._update_ticks():  # type: ignore[attr-defined]
                yield from (tick.label1, tick.label2)


def curves(figure: Figure) -> NDArray[Any]:
    """Points of all curves, as close as pixels: (n, 2)."""
    found = [np.empty((0, 2))]
    for axes, line in [(each, line) for each in figure.axes for line in each.lines]:
        points = np.asarray(line.get_transform().transform(line.get_xydata()), np.float64)
        if line.get_linestyle() != "None" and len(points) > 1:
            steps = np.linspace(0, 1, max(2, 2000 // len(points)))[:, None, None]
            with np.errstate(invalid="ignore"):
                points = (points[:-1] + steps * (points[1:] - points[:-1])).reshape(-1, 2)
        if line.get_clip_on():
            panel = axes.get_window_extent()
            points = points[((points >= panel.min) & (points <= panel.max)).all(axis=1)]
        found.append(points[np.isfinite(points).all(axis=1)])
    return np.concatenate(found)


def faults(figure: Figure, tiles: bool = False) -> list[str]:
    """What is wrong with the places of a figure's words."""
    texts = written(figure)
    assert texts
    names = [repr(text.get_text()) for text, _ in texts]
    boxes = np.array([box.extents for _, box in texts])
    is_out = (boxes[:, :2] < -1).any(axis=1) | (boxes[:, 2:] > figure.bbox.max + 1).any(axis=1)
    found = [f"{names[k]} leaves the picture" for k in np.flatnonzero(is_out)]
    drawn = curves(figure)
    for name, box in zip(names, boxes, strict=True):
        if ((drawn > box[:2] + 1) & (drawn < box[2:] - 1)).all(axis=1).any():
            found.append(f"{name} lies on a curve")
    if tiles:
        shown = np.array([each.get_window_extent().extents for each in images(figure)])
        found += [f"{names[k]} lies on a tile" for k in np.flatnonzero(meeting(boxes, shown).any(axis=1))]
    turned = np.array([text.get_rotation() == 45 for text, _ in texts])
    meet = np.triu(meeting(boxes, boxes), 1) & ~(turned[:, None] & turned)  # whose boxes meet, not the letters
    found += [f"{names[k]} meets {names[j]}" for k, j in np.argwhere(meet)]
    size = max((text.get_fontsize() for text, _ in texts if text.get_rotation() == 45), default=0.0) * figure.dpi / 72
    if (np.diff(np.sort(boxes[turned][:, 2])) * math.sqrt(0.5) < 0.9 * size).any():
        found.append("turned names meet")
    return found


def images(figure: Figure) -> list[AxesImage]:
    return [image for axes in figure.axes if axes.get_label() != "<colorbar>" for image in axes.images]


def meeting(some: NDArray[Any], others: NDArray[Any]) -> NDArray[np.bool_]:
    """Which boxes (n, 4) and (m, 4) overlap by more than a pixel: (n, m)."""
    some, others = some[:, None], others[None]
    both = np.minimum(some[..., 2:], others[..., 2:]) - np.maximum(some[..., :2], others[..., :2])
    return np.asarray((both > 1).all(axis=2))


def history(count: int = 48, **changed: Any) -> gn.History:
    records = gn.History()
    for step in range(1, count + 1):
        epoch = step / 4
        values: dict[str, Any] = {
            "train_loss": 0.5 * 0.7**epoch + 0.01,
            "train_accuracy": 1 - 0.3 * 0.7**epoch,
            "validation_loss": 0.08 + 0.4 * 0.6**epoch + 0.004 * epoch,
            "validation_accuracy": 0.98 - 0.2 * 0.6**epoch,
            "learning_rate": 0.1,
        }
        values |= {name: of(step, epoch) if callable(of) else of for name, of in changed.items()}
        records.append(gn.Record(step=10 * step, epoch=epoch, seconds=float(step), **values))
    return records


NOISE = np.random.default_rng(0).random(1000)
HISTORIES: dict[str, Callable[[], gn.History]] = {
    "plain": history,
    "one record": lambda: history(1),
    "two records": lambda: history(2),
    "constant": lambda: history(train_loss=0.5, validation_loss=0.5, train_accuracy=0.1, validation_accuracy=0.1),
    "rows of NaN": lambda: history(validation_loss=lambda k, _: 0.3 if k % 3 == 0 else NAN),
    "nothing finite": lambda: history(**dict.fromkeys(("train_loss", "validation_loss"), NAN)),
    "exploding": lambda: history(train_loss=lambda k, _: 10.0**k, validation_loss=lambda k, _: 3 * 10.0**k),
    "Inf": lambda: history(train_loss=lambda k, _: math.inf if k > 15 else 0.5),
    "noisy": lambda: history(200, train_loss=lambda k, _: 0.5 + NOISE[k], validation_loss=lambda k, _: 0.5 + NOISE[-k]),
    "best at the end": lambda: history(validation_loss=lambda _, e: 0.5 * 0.8**e + 0.05),
    "best at the start": lambda: history(validation_loss=lambda _, e: 0.5 + 0.03 * e),
    "perfect": lambda: history(train_loss=lambda _, e: 0.5 * 0.3**e, validation_loss=lambda _, e: 0.5 * 0.3**e),
    "tiny": lambda: history(train_loss=lambda _, e: 1e-9 * 0.9**e, validation_loss=lambda _, e: 1.1e-9 * 0.9**e),
    "far from zero": lambda: history(train_loss=lambda _, e: 1e6 + 0.9**e, validation_loss=lambda _, e: 1e6 + 0.9**e),
    "negative": lambda: history(train_loss=lambda _, e: -e, validation_loss=lambda _, e: 1 - e),
    "schedule": lambda: history(learning_rate=lambda _, e: 0.05 * (1 + math.cos(math.pi * e / 12))),
    "own metrics": lambda: history(measured=lambda _, e: ((LONG[0], 1e6 * e), ("f1", 1 - 0.5**e), ("犬", 0.5))),
    "regression": lambda: history(
        train_accuracy=NAN, validation_accuracy=NAN, train_rmse=lambda _, e: 3 * 0.8**e, train_r2=0.5,
        validation_rmse=lambda _, e: 4 * 0.8**e, validation_r2=lambda _, e: 1 - 9 * 0.9**e,
        learning_rate=lambda _, e: 1 / e,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HISTORIES)
def test_no_word_lies_on_a_curve(name: str) -> None:
    assert faults(plot_curves(HISTORIES[name](), None, title=TITLES[0])) == []


@pytest.mark.parametrize("title", TITLES, ids=["short", "long", "unbroken"])
def test_no_title_is_cut_by_an_edge(title: str) -> None:
    maps = [FeatureMaps("conv1, relu1", np.ones((4, 6, 6)))]
    reference = {"name": title, "train_loss": [0.5, 0.4], "validation_accuracy": [0.5, 0.6]}
    curve = LearningRateCurve(np.geomspace(1e-5, 1, 9), np.ones(9), np.ones(9), None, title, "")
    assert faults(plot_curves(history(), None, title=title, reference=reference)) == []
    assert faults(plot_confusion([[3, 1], [1, 2]], ["a", "b"], None, title)) == []
    assert faults(plot_filters(np.ones((2, 1, 5, 5)), None, name=title, title=title), tiles=True) == []
    assert faults(plot_activations(np.ones((6, 6, 1)), maps, None, name=title, title=title), tiles=True) == []
    assert faults(plot_activations(np.ones((6, 6, 1)), [FeatureMaps(title, maps[0].maps)] * 7, None, title=title)) == []
    assert faults(plot_learning_rates(curve, None, title=title)) == []
    assert faults(plot_curves(gn.History(), None, title=title)) == []


def matrix(classes: int, most: int = 1000) -> NDArray[Any]:
    random = np.random.default_rng(classes)
    return (0.1 * most * random.random((classes, classes)) ** 8).astype(int) + most * np.eye(classes, dtype=int)


@pytest.mark.parametrize(
    ("classes", "names", "most"),
    [(1, LONG, 7), (2, LONG, 1000), (2, "ab", 10**12), (10, ODD, 3), (10, "0123456789", 1_234_567), (20, LONG, 99_999)],
    ids=["one", "long", "huge", "odd", "large", "twenty"],
)
def test_the_words_of_a_matrix_have_their_places(classes: int, names: list[str], most: int) -> None:
    figure = plot_confusion(matrix(classes, most), names[:classes], None, TITLES[0])
    assert faults(figure) == []
    cell = figure.axes[0].get_window_extent().width / classes
    of_cells = [text for text in figure.axes[0].texts if text.get_position()[0] < classes - 0.5]
    numbers = [box for text, box in written(figure) if text in of_cells]
    assert len(numbers) >= classes
    assert max(box.width for box in numbers) < cell


@pytest.mark.parametrize(("classes", "names"), [(21, LONG), (100, [f"c{k}" for k in range(100)]), (200, LONG)])
def test_the_names_of_many_classes_have_their_places(classes: int, names: list[str]) -> None:
    assert faults(plot_confusion(matrix(classes), names[:classes], None, TITLES[0])) == []


@pytest.mark.parametrize(
    "counts", [np.zeros((3, 3)), np.eye(3), [[1.5, 0.25], [0.75, 2.125]]], ids=["0", "1", "weights"]
)
def test_the_words_of_a_matrix_of_few_samples_have_their_places(counts: Any) -> None:
    figure = plot_confusion(counts, list("abc")[: len(counts)], None)
    assert faults(figure) == []
    assert (len(figure.axes) > 1) == (len(counts) == 2), "a scale of errors where there are some"


@pytest.mark.parametrize(
    ("names", "shape", "count"),
    [
        (list("0123456789"), (28, 28, 1), 24), (LONG, (28, 28, 1), 24), (ODD, (32, 32, 3), 24), (LONG, (8, 60, 3), 3),
        (ODD, (60, 8, 1), 5), (["a", "b"], (1, 1, 1), 1), (LONG, (13,), 2),
    ],
    ids=["digits", "long", "odd", "wide", "high", "one", "bars"],
)  # fmt: skip
def test_the_words_of_mistakes_meet_nowhere(names: list[str], shape: tuple[int, ...], count: int) -> None:
    random = np.random.default_rng(0)
    labels = np.arange(30) % len(names)
    probabilities = np.full((30, len(names)), 1e-3)
    probabilities[np.arange(30), (labels + 1) % len(names)] = 0.999
    inputs = random.integers(0, 256, (30, *shape), dtype=np.uint8)
    assert faults(plot_mistakes(inputs, labels, probabilities, names, None, count=count), tiles=len(shape) > 1) == []


@pytest.mark.parametrize(
    ("units", "channels"), [(1, 1), (1, 3), (2, 1), (3, 20), (5, 3), (8, 1), (20, 1), (60, 3), (100, 1)]
)
def test_filters_of_any_number_stand_in_the_middle(units: int, channels: int) -> None:
    weights = np.random.default_rng(0).normal(size=(units, channels, 5, 5))
    figure = plot_filters(weights, None, name="conv1", title=TITLES[0])
    assert faults(figure, tiles=True) == []
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    left, right = min(box.x0 for box in boxes if box), max(box.x1 for box in boxes if box)
    assert abs(left + right - figure.bbox.width) < 0.9 * figure.dpi


@pytest.mark.parametrize("size", [(1, 1), (2, 40), (40, 2), (28, 28)], ids=str)
def test_filters_of_any_size_are_apart(size: tuple[int, int]) -> None:
    figure = plot_filters(np.ones((12, 1, *size)), None, name="conv1")
    assert faults(figure, tiles=True) == []
    boxes = np.array([image.get_window_extent().extents for image in images(figure)])
    assert not np.triu(meeting(boxes, boxes), 1).any()
    assert boxes[1, 0] - boxes[0, 2] > 0.05 * figure.dpi


@pytest.mark.parametrize(
    ("image", "maps"),
    [
        ((28, 28, 1), (1, 12, 12)), ((8, 60, 3), (2, 6, 6)), ((200, 10, 1), (20, 12, 12)), ((1, 1, 5), (16, 1, 1)),
        ((28, 28, 1), (9, 2, 30)), ((28, 28, 1), (9, 30, 2)), ((64, 64, 3), (60, 64, 64)),
    ],
    ids=str,
)  # fmt: skip
def test_the_words_of_maps_have_their_places(image: tuple[int, ...], maps: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).normal(size=maps)
    answers = [
        FeatureMaps("conv1, batchnorm1, leakyrelu1, maxpool1, dropout1", values),
        FeatureMaps("conv2", np.abs(values)),
    ]
    figure = plot_activations(np.ones(image), answers, None, name=f"true {LONG[0]}\npredicted {'W' * 60}")
    assert faults(figure, tiles=True) == []


def bar_of(figure: Figure) -> tuple[Any, Any]:
    """The colours of a picture's tiles."""
    image = next(axes for axes in reversed(figure.axes) if axes.images).images[0]
    return image.cmap, image.norm


def test_a_number_above_0_is_red_and_one_below_is_blue_in_filters_and_in_maps() -> None:
    values = np.array([[[-2.0, 0.0], [1.0, 2.0]]])
    drawn = [
        plot_filters(values[:, None], None),
        plot_filters(np.abs(values)[:, None], None),
        plot_activations(np.ones((2, 2, 1)), [FeatureMaps("conv1", values)], None),
        plot_activations(np.ones((2, 2, 1)), [FeatureMaps("conv1", np.abs(values))], None),
    ]
    for figure in drawn:
        cmap, norm = bar_of(figure)
        red, white = cmap(norm(1.5)), cmap(norm(0.0))
        assert red[0] > red[2] + 0.3
        assert min(white[:3]) > 0.95
        if norm.vmin < 0:
            blue = cmap(norm(-1.5))
            assert blue[2] > blue[0] + 0.3


def test_what_is_not_finite_has_a_colour_of_its_own_and_is_named() -> None:
    values = np.array([[[math.nan, 0.0], [1.0, math.inf]]])
    filters = plot_filters(values[:, None], None)
    maps = plot_activations(np.ones((2, 2, 1)), [FeatureMaps("conv1", values)], None)
    for figure in (filters, maps):
        assert "violet: NaN or Inf" in figure.get_supxlabel()
        cmap, norm = bar_of(figure)
        assert tuple(cmap(norm(np.ma.masked_invalid(values)))[0, 0, 0]) == tuple(cmap.get_bad())
        assert cmap.get_bad()[2] > cmap.get_bad()[1] + 0.1


@pytest.mark.parametrize(("outputs", "scale"), [(1, 1.0), (1, 1e9), (2, 1e-7), (3, 1e4), (8, 1e5)], ids=str)
def test_the_words_of_predictions_have_their_places(outputs: int, scale: float) -> None:
    random = np.random.default_rng(0)
    true, predicted = scale * random.normal(size=(2, 50, outputs))
    assert faults(draw_predictions(true, predicted, LONG[:outputs], None, TITLES[0])) == []
    samples = gn.Samples(random.normal(size=(50, 4)), true)
    assert faults(draw_largest_errors(samples, true, predicted, LONG[:outputs], None, 7, "")) == []


def test_predictions_without_a_finite_one_say_so() -> None:
    figure = draw_predictions(np.ones((5, 1)), np.full((5, 1), NAN), [], None, "")
    assert "no finite predictions" in [text.get_text() for text, _ in written(figure)]
    assert faults(figure) == []


@pytest.mark.parametrize(("names", "outputs"), [(LONG, 1), (ODD, 2), (LONG, 3), (ODD, 9)], ids=["1", "2", "3", "9"])
def test_the_words_of_answers_of_0_and_1_have_their_places(names: list[str], outputs: int) -> None:
    random = np.random.default_rng(0)
    true, answers = (random.random((2, 40, outputs)) < 0.5).astype(float)
    names = names[:outputs]
    report = gn.MultilabelReport.of(true, answers, None, tuple(names))
    assert faults(draw_multilabel(report, None, TITLES[0])) == []
    samples = gn.Samples(random.normal(size=(40, 8, 8, 1)), true)
    assert faults(draw_multilabel_mistakes(samples, true, answers, names, None, 7, ""), tiles=True) == []


@pytest.mark.parametrize(("shape", "count"), [((8, 8, 1), 1), ((6, 9, 3), 3), ((13,), 10)], ids=str)
def test_the_words_of_reconstructions_have_their_places(shape: tuple[int, ...], count: int) -> None:
    inputs = np.random.default_rng(0).random((10, *shape))
    model = gn.Sequential([gn.Flatten(), gn.Dense(math.prod(shape))]).build(shape, batch_size=10, device="cpu")
    samples = gn.Samples(inputs, inputs.reshape(10, -1))
    assert faults(draw_reconstructions(model, samples, None, count=count, title=TITLES[1])) == []


@pytest.mark.parametrize("suggestion", [None, 1.1e-6, 0.01, 0.99])
def test_the_words_of_learning_rates_lie_on_no_loss(suggestion: float | None) -> None:
    rates = np.geomspace(1e-6, 1, 60)
    losses = 2.3 - 1.5 / (1 + 0.01 / rates) + 0.1 * NOISE[:60]
    curve = LearningRateCurve(rates, losses, losses, suggestion, "the loss did not fall", "")
    assert faults(plot_learning_rates(curve, None, title=TITLES[0])) == []


@pytest.fixture
def inline() -> Iterator[None]:
    """A dark notebook: what has no background of its own would be dark ink on dark."""
    with matplotlib.rc_context({"figure.facecolor": "black", "savefig.facecolor": "none", "savefig.transparent": True}):
        yield


@pytest.mark.usefixtures("inline")
def test_a_picture_keeps_its_background_in_a_dark_notebook() -> None:
    png = plot_curves(history(), None)._repr_png_()[0]  # type: ignore[attr-defined]
    with Image.open(io.BytesIO(png)) as image:
        pixels = np.asarray(image.convert("RGBA"))
    assert (pixels[..., 3] == 255).all()
    assert (pixels[0, 0, :3] == 255).all()


def test_the_page_of_a_run_has_the_colours_of_the_pictures() -> None:
    script = (ROOT / "gpunn" / "serve" / "page" / "colours.js").read_text("utf-8")
    (anchors,) = re.findall(r"const ANCHORS = \[(.*?)\n\];", script, re.DOTALL)
    theirs = np.array([list(map(int, each)) for each in re.findall(r"\[(\d+), (\d+), (\d+)\]", anchors)])
    cmap, _ = colours(np.array([-1.0, 1.0]))
    ours = np.array([cmap(share)[:3] for share in np.linspace(0, 1, len(theirs))])
    assert len(theirs) > 8
    np.testing.assert_allclose(theirs, 255 * ours, atol=2.5)
