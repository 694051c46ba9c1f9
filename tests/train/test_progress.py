"""The line of progress: whole at 80 and 60 columns, one line an epoch where there is no terminal."""

import io
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.train.evaluator import Evaluation
from gpunn.train.history import Record
from gpunn.train.progress import Progress

NAN = float("nan")
CLASSES = Evaluation(0.0421234, 0.98712, 987, 1000)
NUMBERS = Evaluation(0.0213, NAN, 0, 1000, rmse=0.1459, r2=0.9711)
LOOK = Record(1, 1.0, 0.1, 0.9, 0.0893, 0.9792, 0.1, 1.0)
LOOK_NUMBERS = Record(
    1, 1.0, 0.1, NAN, 0.0301, NAN, 0.1, 1.0, train_rmse=0.3, train_r2=0.9, validation_rmse=0.17, validation_r2=0.9583
)


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True

    def shown(self) -> list[str]:
        """The lines as they stand: a carriage return goes back to the first column."""
        lines = []
        for text in self.getvalue().split("\n"):
            line = ""
            for part in text.split("\r"):
                line = part + line[len(part) :]
            lines.append(line.rstrip())
        return lines


def progress(stream: Any, width: int = 80, epochs: int = 30, epoch: int = 11, seconds: float = 200.0) -> Progress:
    """That of a training in the middle of its 12th epoch of 30."""
    made = Progress(epochs, 60_000, stream=stream)
    made._width = lambda: width  # type: ignore[method-assign]
    made.start_epoch(epoch)
    made._began = made._epoch_began - seconds
    made._epoch_began -= 1.0  # so that the speed does not depend on the machine
    made._done = epoch * 60_000
    return made


def line(width: int, figures: Evaluation = CLASSES, look: Record | None = LOOK, **options: Any) -> str:
    stream = Terminal()
    made = progress(stream, width, **options)
    if look is not None:
        made.look(look)
    made.step(30_000, lambda: figures.figures)
    return stream.shown()[-1]


@pytest.mark.parametrize("width", [200, 120, 80, 60])
def test_all_figures_are_there_at_every_width(width: int) -> None:
    text = line(width)
    assert len(text) < width
    for figure in ("12/30", "loss 0.0421", "98.71%", "val", "0.0893", "97.92%", "/s", "5:22 left"):
        assert figure in text, (figure, text)
    assert re.search(r"\d[kMG]?/s |\d samples/s, ", text)


@pytest.mark.parametrize("width", [200, 120, 80, 60])
def test_a_regression_shows_its_own_figures(width: int) -> None:
    text = line(width, NUMBERS, LOOK_NUMBERS)
    assert len(text) < width
    for figure in (
        "12/30",
        "loss 0.02",
        "R² 0.97",
        "val",
        "0.03",
        "R² 0.96" if width == 60 else "R² 0.958",
        "5:22 left",
    ):
        assert figure in text, (figure, text)
    assert "%" not in text
    assert "nan" not in text


@pytest.mark.parametrize(
    ("figures", "options"),
    [
        (Evaluation(1234.5678, 1.0, 1, 1), {}),
        (Evaluation(0.0000123456, 0.5, 1, 1), {}),
        (Evaluation(1.23456e22, 0.0001, 1, 1), {"epochs": 4000, "epoch": 1234}),
        (Evaluation(2.3, 0.1, 1, 1), {"epochs": 400, "epoch": 399, "seconds": 90_000.0}),
    ],
)
def test_figures_of_any_size_fit_60_columns_with_the_time_left(figures: Evaluation, options: dict[str, Any]) -> None:
    text = line(60, figures, **options)
    assert len(text) < 60
    assert text.endswith("left")


def test_the_time_left_is_that_of_all_epochs() -> None:
    # 11.5 of 30 epochs in 200 s, so the other 18.5 take 322 s.
    assert "5:22 left" in line(80)
    assert "0:09 left" in line(80, epochs=12)


def test_a_training_without_validation_shows_none() -> None:
    text = line(80, look=None)
    assert "val" not in text
    assert "loss 0.0421" in text


def test_a_wide_terminal_has_a_bar_of_the_epoch() -> None:
    assert re.search(r" \[#{20} {20}\]$", line(200))


def test_each_epoch_leaves_its_line_and_words_go_above(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    made = progress(stream)
    made.look(LOOK)
    made.step(30_000, lambda: CLASSES.figures)
    made.say("short")
    made.step(30_000, lambda: CLASSES.figures)
    made.end_epoch(LOOK)
    lines = stream.shown()
    assert lines[0] == "short"
    assert lines[1].startswith("epoch 12/30 loss 0.1000 accuracy 90.00% val 0.0893 97.92%")
    assert lines[2:] == [""]


def test_elsewhere_there_is_one_line_an_epoch_with_the_same_figures() -> None:
    stream = io.StringIO()
    made = progress(stream)
    made.look(LOOK)
    made.step(60_000, lambda: CLASSES.figures)
    made.end_epoch(LOOK)
    assert re.fullmatch(
        r"epoch 12/30: loss 0.1000, accuracy 90.00%, validation loss 0.0893, accuracy 97.92%, "
        r"[\d,]+ samples/s, 5:00 left\n",
        stream.getvalue(),
    )


def test_a_training_shows_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    x = np.random.default_rng(0).normal(size=(100, 4))
    gn.Sequential([gn.Dense(2)]).fit((x, x[:, :2]), epochs=2, batch_size=30, device="cpu", optimizer=gn.SGD(0.01))
    held_back, first, second = capsys.readouterr().err.splitlines()[:3]
    assert held_back.startswith("10 of 100 samples are held back for validation")
    assert re.match(r"epoch 1/2: loss [\d.]+, RMSE [\d.]+, R² -?[\d.]+, validation loss [\d.]+, RMSE ", first)
    assert second.startswith("epoch 2/2")


def test_a_program_without_streams_trains_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    x = np.random.default_rng(0).normal(size=(40, 4))
    gn.Sequential([gn.Dense(2)]).fit((x, x[:, :2]), epochs=1, batch_size=30, device="cpu", optimizer=gn.SGD(0.01))


# Notebooks


class Bar:
    """What tqdm shows in a notebook."""

    made: list["Bar"]

    def __init__(self, **options: Any) -> None:
        self.options, self.n, self.initial, self.text, self.closed = options, 0, 0, "", 0
        self.shown: list[tuple[int, str]] = []
        self.made.append(self)

    def set_description_str(self, text: str, refresh: bool) -> None:
        self.text = text

    def set_postfix_str(self, text: str, refresh: bool) -> None:
        self.postfix = text

    def refresh(self) -> None:
        self.shown.append((self.n, f"{self.text}: {self.postfix}"))

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Bar]:
    """The bars that trainings make in a notebook with ipywidgets."""
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))  # type: ignore[arg-type]
    monkeypatch.setattr("gpunn.train.notebook.find_spec", lambda name: name)
    monkeypatch.setitem(sys.modules, "tqdm.notebook", SimpleNamespace(tqdm=Bar))  # type: ignore[arg-type]
    Bar.made = []
    return Bar.made


def fit(**options: Any) -> gn.History:
    x = np.random.default_rng(0).normal(size=(40, 4))
    usual: dict[str, Any] = {"epochs": 3, "batch_size": 9, "device": "cpu", "optimizer": gn.SGD(0.01)}
    return gn.Sequential([gn.Dense(2)]).fit((x, x[:, :2]), **usual | options)


def test_a_notebook_with_widgets_shows_a_bar_and_no_lines_of_epochs(
    bars: list[Bar], capsys: pytest.CaptureFixture[str]
) -> None:
    history = fit()
    (bar,) = bars
    assert bar.options["total"] == 3 * 36
    assert bar.closed
    assert {36, 72, 108} <= {at for at, _ in bar.shown}
    at, text = bar.shown[-1]
    assert (at, text[:16]) == (108, "epoch 3/3: loss ")
    assert f"validation loss {history[-1].validation_loss:.4f}" in text
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("4 of 40 samples are held back")
    assert "epoch" not in err


def test_a_bar_of_a_training_that_goes_on_begins_where_it_was(bars: list[Bar], tmp_path: Path) -> None:
    fit(epochs=1, callbacks=[gn.Checkpointer(tmp_path)])
    fit(callbacks=[gn.Checkpointer(tmp_path, resume=True)])
    assert [bar.initial for bar in bars] == [0, 36]
    assert bars[1].shown[-1][0] == 108


def test_a_bar_of_a_training_that_an_error_ends_is_closed(bars: list[Bar]) -> None:
    class Fail(gn.Callback):
        def on_epoch_end(self, training: gn.TrainingView) -> None:
            raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        fit(callbacks=[Fail()])
    assert bars[0].closed


@pytest.mark.parametrize("missing", ["ipywidgets", "kernel", "tqdm"])
def test_a_notebook_without_widgets_shows_lines(
    missing: str, bars: list[Bar], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing == "ipywidgets":
        monkeypatch.setattr("gpunn.train.notebook.find_spec", lambda name: None)
    elif missing == "kernel":  # IPython in a terminal
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=object))  # type: ignore[arg-type]
    else:

        def refuse(**options: Any) -> None:
            raise ImportError("IProgress not found")

        monkeypatch.setitem(sys.modules, "tqdm.notebook", SimpleNamespace(tqdm=refuse))  # type: ignore[arg-type]
    fit()
    assert capsys.readouterr().err.count("\nepoch ") == 3
    assert not bars
