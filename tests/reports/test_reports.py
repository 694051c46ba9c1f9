"""The pictures of a run: drawn for every kind of data, the same bytes for the same data, never half written."""

import dataclasses
import errno
import os
import re
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from gpunn.display import style
from gpunn.display.style import percent
from gpunn.errors import DataError, OptionError, OutputError, ShapeError
from gpunn.reports import (
    FeatureMaps,
    confusion_matrix,
    plot_activations,
    plot_confusion,
    plot_curves,
    plot_filters,
    plot_mistakes,
)
from gpunn.train.history import History, Record

NAN = float("nan")


@pytest.fixture(autouse=True)
def coarse(monkeypatch, request):
    """Most claims hold at any resolution, and are checked sooner at a low one."""
    if "full_size" not in request.fixturenames:
        monkeypatch.setitem(style._STYLE, "figure.dpi", 50)


@pytest.fixture
def full_size():
    """Asks for pictures of the resolution that users get."""


@pytest.fixture
def words(monkeypatch):
    """What stands in the picture that was drawn last, as one text."""
    drawn = []
    save = Figure.savefig

    def saved(figure, *args, **kwargs):
        save(figure, *args, **kwargs)
        texts = [figure.get_suptitle(), figure.get_supxlabel()]
        texts += [text.get_text() for legend in figure.legends for text in legend.get_texts()]
        for axes in figure.axes:
            texts += [axes.get_title(), axes.get_xlabel(), axes.get_ylabel()]
            texts += [text.get_text() for text in axes.texts]
            if axes.axison:
                texts += [label.get_text() for label in axes.get_yticklabels()]
        drawn[:] = filter(None, texts)

    monkeypatch.setattr(Figure, "savefig", saved)
    return lambda: "\n".join(drawn)


def read(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def is_coloured(pixels):
    return len(np.unique(pixels.astype(np.int32) @ [1, 256, 65536])) > 20


def history(epochs=30, per_epoch=2, **changed):
    """The validation cost is lowest at epoch 8, the training cost falls on."""
    records = History()
    for i in range(1, epochs * per_epoch + 1):
        epoch = i / per_epoch
        values = {
            "train_loss": 0.8**epoch,
            "train_accuracy": 1 - 0.5 * 0.8**epoch,
            "validation_loss": 1.0 + 0.02 * abs(epoch - 8),
            "validation_accuracy": 0.8,
            "learning_rate": 0.1,
        }
        records.append(Record(step=10 * i, epoch=epoch, seconds=float(i), **{**values, **changed}))
    return records


# Curves


def test_curves_show_the_best_record_and_where_overfitting_began(tmp_path, words):
    plot_curves(history(), tmp_path / "curves.png", title="mlp on digits")
    assert is_coloured(read(tmp_path / "curves.png"))
    assert "mlp on digits" in words()
    assert "lowest validation loss: step 160, epoch 8" in words()
    assert "overfitting (high variance) since step 160, epoch 8" in words()
    assert "loss" in words()
    assert "right answers (%)" in words()
    assert "epoch" in words()


def test_a_cost_over_more_than_two_decades_is_drawn_on_a_logarithmic_axis(tmp_path, words):
    plot_curves(history(), tmp_path / "wide.png")
    assert "log scale" in words()
    assert "\n0.01\n" in words()
    plot_curves(history(train_loss=0.9), tmp_path / "narrow.png")
    assert "log scale" not in words()


def test_a_changing_learning_rate_is_drawn_and_a_constant_one_is_not(tmp_path, words):
    plot_curves(history(), tmp_path / "constant.png")
    assert "rate" not in words()
    falling = History(dataclasses.replace(r, learning_rate=1 / r.step) for r in history())
    plot_curves(falling, tmp_path / "falling.png")
    assert "rate η" in words()


def test_one_record_is_drawn(tmp_path):
    plot_curves(history(epochs=1, per_epoch=1), tmp_path / "one.png")
    assert is_coloured(read(tmp_path / "one.png"))


def test_a_history_without_records_says_so(tmp_path, words):
    plot_curves(History(), tmp_path / "none.png")
    assert "No records yet" in words()


def test_a_regression_has_no_panel_of_accuracy(tmp_path, words):
    plot_curves(history(train_accuracy=NAN, validation_accuracy=NAN), tmp_path / "regression.png")
    assert "accuracy" not in words()
    assert read(tmp_path / "regression.png").shape[1] < 7.5 * 50


def test_a_regression_has_panels_of_its_own_figures(tmp_path, words):
    nothing = {"train_accuracy": NAN, "validation_accuracy": NAN}
    figures = {"train_rmse": 0.5, "train_r2": 0.9, "validation_rmse": 0.6, "validation_r2": 0.8}
    plot_curves(history(**nothing, **figures), tmp_path / "regression.png")
    for word in ("loss", "RMSE", "R²", "root mean squared error"):
        assert word in words()
    assert "accuracy" not in words()
    assert "right answers" not in words()


def test_first_records_far_below_do_not_press_r2_together(tmp_path, monkeypatch):
    limits = {}
    save = Figure.savefig

    def noted(figure, *arguments, **options):
        limits.update({axes.get_title(): axes.get_ylim() for axes in figure.axes})
        return save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", noted)
    records = [dataclasses.replace(r, train_r2=-1e6 if r.step == 10 else 0.5, train_rmse=1.0) for r in history()]
    plot_curves(History(records), tmp_path / "far.png")
    assert limits["R²"][0] == -1.0


def test_without_validation_the_training_cost_stands_alone(tmp_path, words):
    plot_curves(history(validation_loss=NAN, validation_accuracy=NAN), tmp_path / "alone.png")
    assert "validation" not in words()
    assert "lowest training loss: step 600, epoch 30" in words()


def test_costs_that_are_not_finite_leave_a_gap(tmp_path):
    records = [dataclasses.replace(r, train_loss=float("inf") if r.step == 50 else r.train_loss) for r in history()]
    plot_curves(History(records), tmp_path / "gap.png")
    plot_curves(history(train_loss=NAN, validation_loss=NAN), tmp_path / "all.png")
    assert is_coloured(read(tmp_path / "gap.png"))


def test_a_reference_is_drawn_beside_the_run_under_its_name(tmp_path, words):
    reference = {"name": "Nielsen", "validation_loss": [2.0, 1.5, 1.2], "train_accuracy": [0.2, 0.5, 0.6]}
    plot_curves(history(), tmp_path / "alone.png")
    plot_curves(history(), tmp_path / "both.png", reference=reference)
    assert "validation, Nielsen" in words()
    assert not np.array_equal(read(tmp_path / "alone.png"), read(tmp_path / "both.png"))


@pytest.mark.parametrize(
    ("reference", "error", "message"),
    [
        ({"cost": [1.0]}, OptionError, "got 'cost'"),
        ({"train_loss": [1.0, 2.0], "validation_loss": [1.0]}, ShapeError, r"'validation_loss' of shape \(2,\)"),
        ({"epoch": [1.0, 2.0], "train_loss": [1.0]}, ShapeError, r"'train_loss' of shape \(2,\)"),
    ],
)
def test_a_reference_that_does_not_fit_is_refused(tmp_path, reference, error, message):
    with pytest.raises(error, match=message):
        plot_curves(history(), tmp_path / "curves.png", reference=reference)
    assert not list(tmp_path.iterdir())


def test_the_value_of_a_best_record_stands_above_its_panel_in_digits_that_tell_it_from_others():
    figure = plot_curves(history(), None)
    assert [axes.get_title("right") for axes in figure.axes] == ["○ 1", "○ 80.00 %"]
    far = [dataclasses.replace(r, validation_loss=1e6 + 0.9**r.epoch, train_loss=1e6) for r in history()]
    assert plot_curves(History(far), None).axes[0].get_title("right") == "○ 1000000.04"


# Confusion


def test_confusion_counts_rows_of_true_classes_and_columns_of_answers():
    counts = confusion_matrix([0, 0, 1, 2, 2, 2], [0, 1, 1, 2, 0, 0], 4)
    assert counts.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [2, 0, 1, 0], [0, 0, 0, 0]]
    assert counts.dtype == np.int64


def test_confusion_of_bytes_does_not_overflow():
    labels = np.full(5, 250, dtype=np.uint8)
    assert confusion_matrix(labels, labels, 256)[250, 250] == 5


def test_confusion_of_nothing_is_all_zero():
    assert confusion_matrix([], [], 3).tolist() == [[0] * 3] * 3


@pytest.mark.parametrize(
    ("labels", "predicted", "error", "message"),
    [
        ([0, 1], [0], ShapeError, r"\(2,\) and \(1,\)"),
        ([[0, 1]], [[0, 1]], ShapeError, r"\(1, 2\)"),
        ([0, 3], [0, 1], DataError, "labels from 0 to 2, got 0 to 3"),
        ([0, 1], [-1, 1], DataError, "predictions from 0 to 2, got -1 to 1"),
        ([0.0, 1.0], [0, 1], DataError, "whole numbers as labels, got float64"),
    ],
)
def test_confusion_of_what_are_no_classes_is_refused(labels, predicted, error, message):
    with pytest.raises(error, match=message):
        confusion_matrix(labels, predicted, 3)


@pytest.mark.parametrize("classes", [1, 2, 20, 21, 100])
def test_confusion_of_any_number_of_classes_is_drawn(tmp_path, classes, words):
    random = np.random.Generator(np.random.Philox(classes))
    counts = 100 * np.eye(classes, dtype=np.int64) + random.integers(0, 9, (classes, classes))
    plot_confusion(counts, [f"class {i}" for i in range(classes)], tmp_path / "confusion.png", "somebody's")
    assert max(read(tmp_path / "confusion.png").shape[:2]) < 800
    assert "true class" in words()
    lines = words().split("\n")
    assert (str(counts[0, 0]) in lines) == (classes <= 20)
    assert ("recall" in lines) == (classes <= 20)


def test_confusion_names_the_share_of_right_answers_and_each_recall(tmp_path, words):
    plot_confusion([[90, 10], [1, 3]], ["no", "yes"], tmp_path / "confusion.png")
    assert "93 of 104 right (89.42 %)" in words()
    assert "90.0 %" in words()
    assert "75.0 %" in words()


def test_a_class_without_samples_has_no_recall(tmp_path, words):
    plot_confusion([[5, 0], [0, 0]], ["seen", "unseen"], tmp_path / "confusion.png")
    assert "–" in words()


def test_the_diagonal_does_not_drown_the_errors(tmp_path):
    names = ["a", "b", "c"]
    perfect = 1000 * np.eye(3, dtype=np.int64)
    perfect[1, 0] = 15  # so that both have a scale of errors
    plot_confusion(perfect, names, tmp_path / "perfect.png")
    one_error = perfect.copy()
    one_error[0, 2] = 15
    plot_confusion(one_error, names, tmp_path / "error.png")
    before, after = read(tmp_path / "perfect.png").astype(int), read(tmp_path / "error.png").astype(int)
    cell = np.abs(before - after).max(axis=2) > 60
    assert cell.sum() > 250, "one error of 1.5 % must change the colour of its cell plainly"


@pytest.mark.parametrize(
    ("matrix", "names"), [(np.zeros((2, 3)), "ab"), (np.zeros((3, 3)), "ab"), (np.zeros((0, 0)), "")]
)
def test_a_matrix_that_does_not_fit_its_names_is_refused(tmp_path, matrix, names):
    with pytest.raises(ShapeError, match="expected a matrix"):
        plot_confusion(matrix, list(names), tmp_path / "confusion.png")


# Mistakes


def mistakes(count=30, shape=(8, 8, 1), classes=3, wrong=30, seed=0):
    """(inputs, labels, probabilities): the first `wrong` of `count` answers are wrong."""
    random = np.random.Generator(np.random.Philox(seed))
    inputs = random.integers(0, 256, (count, *shape), dtype=np.uint8)
    labels = random.integers(0, classes, count)
    sure = random.uniform(0.6, 0.99, count)
    answers = (labels + (np.arange(count) < wrong)) % classes
    probabilities = np.tile(((1 - sure) / (classes - 1))[:, None], classes)
    probabilities[np.arange(count), answers] = sure
    return inputs, labels, probabilities


NAMES = ["zero", "one", "two"]


@pytest.mark.parametrize("shape", [(8, 8, 1), (8, 8, 3), (8, 6), (64,), (784,), (4,), (13,), (300,), (5, 5, 4)])
def test_mistakes_of_any_shape_of_sample_are_drawn(tmp_path, shape, words):
    plot_mistakes(*mistakes(shape=shape), NAMES, tmp_path / "mistakes.png", count=6)
    assert is_coloured(read(tmp_path / "mistakes.png"))
    assert "the 6 of highest loss among 30 mistakes (100.00 % of 30 samples)" in words()


def test_the_worst_mistake_comes_first_and_right_answers_never(tmp_path, words):
    inputs, labels, probabilities = mistakes(count=5, classes=3)[0], np.array([0, 1, 2, 0, 1]), np.empty((5, 3))
    probabilities[:] = [[0.30, 0.60, 0.10], [0.98, 0.02, 0.0], [0.0, 0.3, 0.7], [0.0, 1.0, 0.0], [0.2, 0.8, 0.0]]
    plot_mistakes(inputs, labels, probabilities, NAMES, tmp_path / "mistakes.png")
    assert "all 3 mistakes (60.00 % of 5" in words()
    predicted = re.findall(r"predicted (\w+) \((.*)\)", words())
    true = re.findall(r"true (\w+)", words())
    assert predicted == [("one", "100 %"), ("zero", "98 %"), ("one", "60 %")]
    assert true == ["zero", "one", "zero"]


def test_no_more_mistakes_are_drawn_than_asked_for(tmp_path, words):
    plot_mistakes(*mistakes(), NAMES, tmp_path / "mistakes.png", count=5)
    assert len(re.findall("predicted ", words())) == 5


def test_without_mistakes_the_picture_says_so(tmp_path, words):
    plot_mistakes(*mistakes(wrong=0), NAMES, tmp_path / "none.png")
    assert words().count("No mistakes among 30 samples") == 1
    assert words().count("predicted") == 0


def test_of_no_samples_the_picture_says_so(tmp_path, words):
    plot_mistakes(np.empty((0, 64)), np.empty(0, int), np.empty((0, 3)), NAMES, tmp_path / "none.png")
    assert "No mistakes among 0 samples" in words()


def test_a_probability_that_is_nan_is_drawn_and_ranks_as_worst(tmp_path, words):
    inputs, labels, probabilities = mistakes(count=4)
    labels[:] = 0
    probabilities[:] = [0.2, 0.8, 0.0]
    probabilities[2] = NAN
    labels[2] = 1
    plot_mistakes(inputs, labels, probabilities, NAMES, tmp_path / "nan.png")
    assert re.findall(r"predicted \w+ \((.*)\)", words()) == ["nan", "80 %", "80 %", "80 %"]


def test_constant_and_missing_pixels_are_drawn(tmp_path):
    inputs, labels, probabilities = mistakes()
    plot_mistakes(np.zeros(inputs.shape, np.float32), labels, probabilities, NAMES, tmp_path / "zero.png", count=4)
    plot_mistakes(np.full(inputs.shape, NAN), labels, probabilities, NAMES, tmp_path / "nan.png", count=4)
    assert not np.array_equal(read(tmp_path / "zero.png"), 255)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda x, y, p: (x[:-1], y, p), ShapeError, "expected inputs"),
        (lambda x, y, p: (x, y[:, None], p), ShapeError, "expected inputs"),
        (lambda x, y, p: (x, y, p[:, :2]), ShapeError, r"probabilities of \(30, 3\)"),
    ],
)
def test_mistakes_of_arrays_that_do_not_fit_are_refused(tmp_path, change, error, message):
    with pytest.raises(error, match=message):
        plot_mistakes(*change(*mistakes()), NAMES, tmp_path / "mistakes.png")


def test_no_place_for_a_mistake_is_refused(tmp_path):
    with pytest.raises(OptionError, match="at least 1, got 0"):
        plot_mistakes(*mistakes(), NAMES, tmp_path / "mistakes.png", count=0)


def test_what_is_nearly_sure_is_not_called_certain():
    shares = [percent(share) for share in (1.0, 0.9951, 0.994, 0.5, 0.0049, 0.0, NAN)]
    assert shares == ["100 %", ">99 %", "99 %", "50 %", "<1 %", "0 %", "nan"]


@pytest.mark.parametrize("count", [3, 8])
def test_the_places_hold_the_samples_themselves(tmp_path, count, full_size):
    """A white sample in place of a black one changes the ink of exactly one place."""
    inputs, labels, probabilities = mistakes()
    black, white = np.full_like(inputs, 255), np.full_like(inputs, 255)
    white[np.argmin(probabilities[np.arange(30), labels])] = 0
    ink = []
    for name, samples in (("black", black), ("white", white)):
        plot_mistakes(samples, labels, probabilities, NAMES, tmp_path / name, count=count)
        ink.append((read(tmp_path / name).max(axis=2) < 30).sum())
    place = (ink[0] - ink[1]) ** 0.5
    assert 130 < place < 240, "a place is a square of 0.9 to 1.6 inches at 150 dpi"


# All pictures

PICTURES = {
    "curves": lambda path, seed=0: plot_curves(history(validation_accuracy=0.8 + 0.01 * seed), path, title="$x_$"),
    "confusion": lambda path, seed=0: plot_confusion([[5, 1], [seed, 2]], ["$a", "b$"], path, "$\\frac$"),
    "mistakes": lambda path, seed=0: plot_mistakes(*mistakes(count=4, seed=seed), ["$a", "b$", "ﬀ" * 50], path),
    "filters": lambda path, seed=0: plot_filters(maps(seed)[:, None], path, name="$conv", title="$x_$"),
    "activations": lambda path, seed=0: plot_activations(
        maps(seed)[:1].transpose(1, 2, 0), [FeatureMaps("$conv", maps(seed))], path, name="$a"
    ),
}


def maps(seed):
    """(3, 4, 5) numbers."""
    return np.random.Generator(np.random.Philox(seed)).normal(size=(3, 4, 5))


@pytest.mark.parametrize("name", PICTURES)
def test_equal_data_give_equal_bytes_and_other_data_another_picture(tmp_path, name):
    for file, seed in (("first", 0), ("second", 0), ("other", 3)):
        PICTURES[name](tmp_path / file, seed)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    assert not np.array_equal(read(tmp_path / "first"), read(tmp_path / "other"))


@pytest.mark.parametrize("name", PICTURES)
def test_settings_of_the_user_change_no_picture_and_are_not_changed(tmp_path, name):
    PICTURES[name](tmp_path / "plain")
    with matplotlib.rc_context({"font.size": 20, "axes.grid": True, "image.cmap": "jet", "savefig.dpi": 30}):
        before = dict(matplotlib.rcParams)
        PICTURES[name](tmp_path / "changed")
        assert dict(matplotlib.rcParams) == before
    assert (tmp_path / "plain").read_bytes() == (tmp_path / "changed").read_bytes()


@pytest.mark.parametrize("name", PICTURES)
def test_a_full_disk_gives_one_line_and_leaves_the_older_picture(tmp_path, name, monkeypatch):
    path = tmp_path / "picture.png"
    path.write_bytes(b"older")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"cannot write .*picture.png: No space left on device") as caught:
        PICTURES[name](path)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [path]


def test_reports_import_matplotlib_only_to_draw_and_never_pyplot(tmp_path):
    program = (
        "import sys, gpunn.reports, gpunn.train.history\n"
        "assert 'matplotlib' not in sys.modules\n"
        f"gpunn.reports.plot_confusion([[1]], ['a'], {str(tmp_path / 'a.png')!r})\n"
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.filterwarnings("error")
def test_names_that_the_font_has_no_letters_for_are_no_warning(tmp_path):
    with style.picture(tmp_path / "p.png", 2, 2, title="\N{DOG FACE}") as figure:
        style.write_alone(figure, "\N{CJK UNIFIED IDEOGRAPH-72AC}")
    assert (tmp_path / "p.png").exists()
