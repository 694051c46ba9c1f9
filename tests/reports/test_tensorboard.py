"""Events for TensorBoard, read back by TensorBoard's own reader."""

import copy
import pickle
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from saving.test_resuming_fit import CutOff, CutOffError, adam, fit
from support.checkpoint_helpers import adam as adam_trainer
from support.checkpoint_helpers import momentum, outcome
from support.cli_helpers import assert_one_line, experiment_toml, gpunn, own_folder, without_pictures
from support.harness import one_line

import gpunn as gn
from gpunn.backend.base import Backend
from gpunn.errors import OptionError, OutputError
from gpunn.train.record import COLUMNS

pytest.importorskip("tensorboard")
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.plugins.hparams import plugin_data_pb2

from gpunn.reports import events, tensorboard
from gpunn.reports.checksum import masked_checksum

folder = pytest.fixture(own_folder)
SMALL = experiment_toml(
    [{"type": "Dense", "units": 8}], {"type": "SGD", "learning_rate": 0.1}, epochs=2, device="cpu", batch_size=200
)


def draw_quickly(setting: Callable[[Any, str, Any], None]) -> None:
    """Let pictures be of one pixel: a real one takes a second; and write all events at once."""

    def draw_answers(folder: Path, *_: Any) -> list[str]:
        Image.new("RGBA", (1, 1)).save(folder / "confusion.png")
        return ["confusion.png"]

    setting(tensorboard, "draw_answers", draw_answers)
    setting(tensorboard, "draw_network", lambda *_: [])
    setting(events, "TOGETHER", 0.0)


def read(folder: Path | str) -> EventAccumulator:
    """All that TensorBoard knows of a run."""
    of_each = dict.fromkeys(("scalars", "images", "histograms", "tensors"), 0)
    return EventAccumulator(str(folder), size_guidance=of_each).Reload()


def steps_of(folder: Path | str) -> dict[str, list[int]]:
    """The steps of each tag, but for texts."""
    known = read(folder)
    kinds = (("scalars", known.Scalars), ("images", known.Images), ("histograms", known.Histograms))
    return {tag: [each.step for each in of(tag)] for kind, of in kinds for tag in known.Tags()[kind]}


def assert_as_in_history(folder: Path | str, csv: Path) -> None:
    """As many points a tag as the table has rows, and the same numbers."""
    history, known = gn.History.read_csv(csv), read(folder)
    columns = csv.read_text().splitlines()[0].split(",")[1:]
    assert len(history) > 5
    assert len(known.Tags()["scalars"]) == len(columns)
    for column in columns:
        part, _, figure = column.partition("_")
        tag = f"{figure}/{part}" if part in ("train", "validation") else column
        points = known.Scalars(tag if column in COLUMNS else f"{column}/validation")
        assert [point.step for point in points] == [record.step for record in history]
        np.testing.assert_allclose([point.value for point in points], history[column], rtol=1e-6)


@pytest.mark.parametrize("regularizer", [None, gn.L2(0.01)])
def test_each_column_of_the_history_is_a_curve(regularizer: Any, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(60, 4))
    for name, y in (("classes", np.arange(60) % 3), ("numbers", x[:, :1] ** 2)):
        model = gn.Sequential([gn.Dense(5), gn.ReLU(), gn.Dense(3 if name == "classes" else 1)])
        board = gn.TensorBoard(tmp_path / name, images_every=0)
        options: dict[str, Any] = {
            "epochs": 3,
            "batch_size": 8,
            "device": "cpu",
            "progress": False,
            "optimizer": gn.SGD(0.02),
        }
        options |= {"regularizer": regularizer, "metrics": ["f1" if name == "classes" else "mae"]}
        model.fit(x, y, **options, callbacks=[board]).write_csv(tmp_path / "history.csv")
        assert_as_in_history(tmp_path / name, tmp_path / "history.csv")


@pytest.mark.parametrize("make", [momentum, adam_trainer])
def test_a_training_with_events_gives_the_same_bits(backend: Backend, make: Callable[..., Any], tmp_path: Path) -> None:
    alone, watched = (
        make(device=backend),
        make(device=backend, callbacks=[gn.TensorBoard(tmp_path, histograms_every=1)]),
    )
    alone.run()
    watched.run()
    assert outcome(watched) == outcome(alone)
    steps = steps_of(tmp_path)
    assert steps["weights/dense1.w"] == steps["gradients/conv1.w"] == [6 * n for n in range(1, watched.done // 6 + 1)]


def test_histograms_hold_all_values(tmp_path: Path) -> None:
    seen: list[Any] = []

    class Weights(gn.Callback):
        def on_epoch_end(self, training: gn.TrainingView) -> None:
            seen.append((training.weights(), training.gradients()))

    fit(adam, Weights(), gn.TensorBoard(tmp_path, histograms_every=1, images_every=0), patience=None)
    known = read(tmp_path)
    for number, arrays in enumerate(zip(*seen, strict=True)):
        kind = ("weights", "gradients")[number]
        for name in arrays[0]:
            for each, event in zip(arrays, known.Histograms(f"{kind}/{name}"), strict=True):
                values, shown = each[name].astype(np.float64), event.histogram_value
                assert (shown.min, shown.max, shown.num) == (values.min(), values.max(), values.size)
                np.testing.assert_allclose(shown.sum, values.sum(), rtol=1e-9, atol=1e-9)
                np.testing.assert_allclose(shown.sum_squares, np.square(values).sum())
                expected, _ = np.histogram(values, [-np.inf, *shown.bucket_limit[:-1], np.inf])
                assert np.abs(np.subtract(shown.bucket, expected)).max() <= 1  # one may lie on an edge


@pytest.mark.parametrize(
    "values",
    [[1.5] * 4, [0.0], [-3, 7], [np.nan, 1, np.inf, 2], [1e300, -1e300], [1.0, np.nextafter(1, 2)]],
    ids=["equal", "one", "whole", "some not finite", "huge", "close"],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_a_histogram_of_odd_values_counts_each(values: list[float]) -> None:
    made = events.histogram("a", np.array(values))
    assert made is not None
    finite = [value for value in values if np.isfinite(value)]
    assert sum(made.histo.bucket) == made.histo.num == len(finite)
    assert list(made.histo.bucket_limit) == sorted(made.histo.bucket_limit)
    assert made.histo.bucket_limit[-1] >= max(finite)


def test_there_is_no_histogram_of_nothing() -> None:
    assert events.histogram("a", np.array([np.nan])) is None
    assert events.histogram("a", np.zeros((0, 3), np.float32)) is None


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import gpunn as gn
from reports.test_tensorboard import draw_quickly
from saving.test_resuming_fit import CutOff, adam, fit
draw_quickly(setattr)
kill = lambda: os.kill(os.getpid(), signal.SIGKILL)
board = gn.TensorBoard(histograms_every=1, images_every=1)
fit(adam, board, gn.Checkpointer("run", every=7, resume=True), CutOff(int(sys.argv[2]), kill), patience=None)
"""


def test_a_run_that_was_killed_has_each_step_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at step 13, 6 after a checkpoint, with a record and an epoch between; and at 20, with an event cut off."""
    draw_quickly(monkeypatch.setattr)
    fit(adam, gn.TensorBoard("whole", histograms_every=1, images_every=1), patience=None)
    for step in (13, 20):
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(Path(__file__).parents[1]), str(step)], capture_output=True, text=True
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert max(steps_of("run")["loss/train"]) > step - 5
    (left,) = events.own_files(Path("run"))
    with left.open("ab") as file:
        file.write(left.read_bytes()[:40])
    resumed = gn.TensorBoard(histograms_every=1, images_every=1)
    fit(adam, gn.Checkpointer("run", resume=True), resumed, patience=None)
    steps = steps_of("run")
    assert steps == steps_of("whole")
    assert steps["loss/train"] == [5, 10, 15, 20, 24]
    assert steps["weights/dense1.w"] == steps["confusion"] == [6, 12, 18, 24]
    assert len(events.own_files(Path("run"))) == 1
    assert values_of("run") == values_of("whole")


def values_of(folder: Path | str) -> dict[str, list[float]]:
    known = read(folder)
    return {tag: [point.value for point in known.Scalars(tag)] for tag in known.Tags()["scalars"] if tag != "seconds"}


def test_records_whose_events_are_gone_come_from_the_checkpoint(folder: Path) -> None:
    with pytest.raises(CutOffError):
        fit(adam, gn.Checkpointer("run", every=7), CutOff(15), patience=None)
    fit(adam, gn.Checkpointer("run", resume=True), gn.TensorBoard(images_every=0), patience=None)
    assert steps_of("run")["loss/train"] == [5, 10, 15, 20, 24]


def test_a_training_that_has_ended_stays_as_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_quickly(monkeypatch.setattr)
    for _ in range(2):
        fit(adam, gn.Checkpointer("run", resume=True), gn.TensorBoard(histograms_every=2), patience=None)
        steps = steps_of("run")
        assert steps["loss/train"] == [5, 10, 15, 20, 24]
        assert steps["weights/dense1.w"] == [12, 24]
        assert steps["confusion"] == [24]
    fit(adam, gn.Checkpointer("run", resume=True), gn.TensorBoard(histograms_every=2), patience=None, epochs=6)
    assert steps_of("run")["confusion"] == [24, 36]


def hyper_parameters(folder: Path | str) -> dict[str, Any]:
    """Those that TensorBoard knows of a run, each an event of its own: there is one of each."""
    tags = Counter(
        value.tag for path in events.own_files(Path(folder)) for event in events._read(path)
        for value in event.summary.value if value.tag.startswith("_hparams_")
    )  # fmt: skip
    names = ("experiment", "session_start_info", "session_end_info")
    assert tags == {f"_hparams_/{name}": 1 for name in names}
    known = read(folder).PluginTagToContent("hparams")
    started = plugin_data_pb2.HParamsPluginData.FromString(known["_hparams_/session_start_info"]).session_start_info
    return {name: getattr(value, str(value.WhichOneof("kind"))) for name, value in started.hparams.items()}


def test_hyper_parameters_stand_there_once_also_after_a_resume(folder: Path) -> None:
    for epochs in (2, 4):
        fit(adam, gn.Checkpointer("run", resume=True), gn.TensorBoard(images_every=0), patience=None, epochs=epochs)
        known = hyper_parameters("run")
        assert (known["epochs"], known["batch_size"], known["optimizer.type"]) == (epochs, 16, "AdamW")
        assert (known["recompute_statistics"], known["data"]) == (True, "arrays")
        assert known["optimizer.learning_rate.rate.rate"] == 0.01
        assert str(known["layers"]).startswith("Conv2D(3), BatchNorm")


def test_the_program_writes_events_and_its_own_pictures_into_the_run_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Draws the pictures of one run, which takes two seconds."""
    Path("small.toml").write_text(SMALL)
    done = gpunn("train", "--recipe", "small.toml", "--tensorboard", "--out", "runs/a")
    assert done.code == 0, done.err
    assert "tensorboard --logdir runs" in done.out
    assert_as_in_history("runs/a", Path("runs/a/history.csv"))
    known = read("runs/a")
    assert known.Tags()["images"] == ["confusion", "mistakes", "filters"]
    for name in known.Tags()["images"]:
        (shown,) = known.Images(name)
        assert shown.encoded_image_string == Path(f"runs/a/{name}.png").read_bytes()
        assert (shown.width > 300, shown.height > 300) == (True, True)
    assert known.Tags()["histograms"]
    assert hyper_parameters("runs/a")["data"] == "digits"
    (words,) = known.Tensors("experiment")[0].tensor_proto.string_val
    lines = [line.removeprefix("    ") for line in words.decode().splitlines()]
    assert lines == Path("runs/a/experiment.toml").read_text().splitlines()
    # It goes on with them, asked for or not.
    without_pictures(monkeypatch)
    done = gpunn("train", "--resume", "runs/a", "--epochs", 3)
    assert done.code == 0, done.err
    assert_as_in_history("runs/a", Path("runs/a/history.csv"))
    assert hyper_parameters("runs/a")["epochs"] == 3


@pytest.mark.parametrize("size", [0, 1, 3, 8, 63, 2047, 2048, 2049, 2111, 70_000])
def test_the_checksum_is_tensorboards(size: int) -> None:
    data = np.random.default_rng(size).integers(0, 256, size).astype(np.uint8).tobytes()
    assert masked_checksum(data) == masked_crc32c(data)


def test_what_waited_is_written_where_a_training_is_cut_off(tmp_path: Path) -> None:
    with pytest.raises(CutOffError):
        fit(adam, gn.TensorBoard(tmp_path), CutOff(16))
    assert steps_of(tmp_path)["loss/train"] == [5, 10, 15]


def test_a_folder_with_events_of_another_training_is_refused(tmp_path: Path) -> None:
    board = gn.TensorBoard(tmp_path / "a", images_every=0)
    fit(adam, board)
    before = steps_of(tmp_path / "a")
    with pytest.raises(OutputError) as caught:
        fit(adam, board)
    assert "give another folder" in one_line(caught.value)
    assert steps_of(tmp_path / "a") == before


def test_a_folder_that_cannot_be_made_is_refused_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError) as caught:
        fit(adam, gn.TensorBoard(tmp_path / "file" / "a"))
    assert "give another folder" in one_line(caught.value)


def test_events_whose_file_is_gone_are_told_in_a_line(tmp_path: Path) -> None:
    def remove() -> None:
        for path in events.own_files(tmp_path):
            path.unlink()

    with pytest.raises(OutputError) as caught:
        fit(adam, CutOff(3, remove), gn.TensorBoard(tmp_path))
    assert "cannot write events" in one_line(caught.value)


def test_without_a_folder_each_training_has_the_next_free_one(folder: Path) -> None:
    board = gn.TensorBoard(histograms_every=0, images_every=0)
    for number in (1, 2):
        fit(adam, board)
        assert board.folder == Path("runs") / f"fit-{number}"
        assert set(steps_of(f"runs/fit-{number}")) == set(events_of_records())


def events_of_records() -> list[str]:
    figures = [f"{figure}/{part}" for part in ("train", "validation") for figure in ("loss", "accuracy")]
    return [*figures, "epoch", "seconds", "learning_rate"]


def test_a_training_without_room_for_gradients_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpunn.train.trainer import Trainer

    def full(_: Any) -> Any:
        raise MemoryError("no room")

    monkeypatch.setattr(Trainer, "gradients", full)
    said: list[str] = []
    monkeypatch.setattr(Trainer, "say", lambda _, line: said.append(line))
    fit(adam, gn.TensorBoard(tmp_path, histograms_every=1, images_every=0), patience=None)
    assert steps_of(tmp_path)["weights/dense1.w"] == [6, 12, 18, 24]
    assert [line for line in said if "gradients" in line] == ["no histograms of gradients: no room"]


def test_without_the_extra_a_line_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.plugins.hparams", None)
    monkeypatch.delitem(sys.modules, "tensorboard.plugins.hparams.metadata", raising=False)
    with pytest.raises(OptionError) as caught:
        gn.TensorBoard()
    assert "pip install 'gpunn[tensorboard]'" in one_line(caught.value)
    done = gpunn("train", "--recipe", "tiny.toml", "--tensorboard", "--out", "run")
    assert_one_line(done, 2, "pip install 'gpunn[tensorboard]'")
    assert not Path("run").exists()


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda board: pickle.loads(pickle.dumps(board))])
def test_a_board_that_has_written_can_be_copied_and_pickled(copied: Callable[[Any], Any], tmp_path: Path) -> None:
    board = gn.TensorBoard(tmp_path / "first", images_every=0)
    x, y = np.random.default_rng(0).normal(size=(40, 4)), np.arange(40) % 2
    gn.Sequential([gn.Dense(2)]).fit(x, y, epochs=1, progress=False, device="cpu", callbacks=[board])
    again = copied(board)
    again._given = tmp_path / "second"
    gn.Sequential([gn.Dense(2)]).fit(x, y, epochs=1, progress=False, device="cpu", callbacks=[again])
    assert steps_of(tmp_path / "first") == steps_of(tmp_path / "second")
