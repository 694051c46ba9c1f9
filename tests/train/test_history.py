"""The record of a run: exact on disk, strict when read back, never half written."""

import errno
import math
import os
import stat

import numpy as np
import pytest

from gpunn.errors import DataError, OutputError
from gpunn.files import write_atomically
from gpunn.train.history import History, Record

NAN = float("nan")


def record(step=1, **changed):
    values = {
        "step": step,
        "epoch": step / 10,
        "train_loss": 1.0 / step,
        "train_accuracy": 0.5,
        "validation_loss": 1.5 / step,
        "validation_accuracy": 0.25,
        "learning_rate": 0.1,
        "seconds": step * 0.3,
    }
    return Record(**{**values, **changed})


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "history.csv"
    History([record(1), record(2), record(3)]).write_csv(path)
    return path


def test_a_history_is_a_sequence_of_its_records():
    records = [record(1), record(2), record(3)]
    history = History(records)
    assert list(history) == history.records == records
    assert (history[0], history[-1], history[1:]) == (records[0], records[2], records[1:])
    assert len(history) == 3
    assert records[1] in history


def test_a_column_is_asked_for_by_its_name():
    history = History([record(1), record(2), record(4, validation_accuracy=NAN)])
    assert history["train_loss"] == [1.0, 0.5, 0.25]
    assert history["step"] == [1, 2, 4]
    assert history["validation_accuracy"][:2] == [0.25, 0.25]
    assert math.isnan(history["validation_accuracy"][2])
    with pytest.raises(KeyError, match="no column 'loss': it has step, epoch, train_loss, train_accuracy, "):
        history["loss"]


def test_records_must_come_in_the_order_of_their_steps():
    with pytest.raises(ValueError, match="after step 2, got step 2"):
        History([record(2), record(2)])


def test_best_is_the_first_of_the_lowest_validation_costs():
    costs = [3.0, 1.0, NAN, 1.0, -math.inf]
    assert History(record(i + 1, validation_loss=cost) for i, cost in enumerate(costs)).best.step == 2


def test_without_validation_best_is_the_lowest_training_cost():
    costs = [3.0, math.inf, 1.0, 2.0, NAN]
    history = History(record(i + 1, train_loss=cost, validation_loss=NAN) for i, cost in enumerate(costs))
    assert history.best.step == 3


def test_without_a_finite_cost_there_is_no_best():
    assert History().best is None
    assert History([record(train_loss=NAN, validation_loss=math.inf)]).best is None


def test_numbers_come_back_from_disk_to_the_same_bits(tmp_path):
    random = np.random.Generator(np.random.Philox(3))
    numbers = np.concatenate([random.random(40), 10.0 ** random.uniform(-300, 300, 40), [5e-324, 0.1 + 0.2]])
    records = [
        record(i + 1, train_loss=float(number), validation_loss=float(-number), learning_rate=float(number))
        for i, number in enumerate(numbers)
    ]
    History(records).write_csv(tmp_path / "history.csv")
    assert History.read_csv(tmp_path / "history.csv").records == records


def test_nan_and_inf_come_back_from_disk(tmp_path):
    path = tmp_path / "history.csv"
    History([record(train_accuracy=NAN, validation_loss=NAN, train_loss=math.inf)]).write_csv(path)
    again = History.read_csv(path)[0]
    assert math.isnan(again.train_accuracy)
    assert math.isnan(again.validation_loss)
    assert again.train_loss == math.inf


def test_numpy_numbers_are_written_as_numbers(tmp_path):
    path = tmp_path / "history.csv"
    History([record(np.int64(7), train_loss=np.float32(0.1))]).write_csv(path)
    again = History.read_csv(path)[0]
    assert (again.step, again.train_loss) == (7, float(np.float32(0.1)))


def test_an_empty_history_comes_back_empty(tmp_path):
    History().write_csv(tmp_path / "history.csv")
    assert len(History.read_csv(tmp_path / "history.csv")) == 0


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: "", "header"),
        (lambda text: text.replace("epoch", "epochs", 1), "header"),
        (lambda text: text.replace("seconds", "seconds,penalty", 1), "header"),
        (lambda text: text.replace(",learning_rate", "", 1), "header"),
        (lambda text: text.replace("step,", "step,step,", 1), "header"),
        (lambda text: text[:-1], "line 4 is cut off"),
        (lambda text: text[:-9], "line 4 is cut off"),
        (lambda text: text + "\n", "line 5: expected 8 numbers, got 1"),
        (lambda text: text + "4,0.4,1.0,0.5,1.0,0.5,0.1\n", "line 5: expected 8 numbers, got 7"),
        (lambda text: text + "4,0.4,1.0,0.5,1.0,0.5,0.1,1.0,1.0\n", "line 5: expected 8 numbers, got 9"),
        (lambda text: text + "4.0,0.4,1.0,0.5,1.0,0.5,0.1,1.0\n", "whole number as step, got '4.0'"),
        (lambda text: text + "-4,0.4,1.0,0.5,1.0,0.5,0.1,1.0\n", "whole number as step"),
        (lambda text: text + "3,0.4,1.0,0.5,1.0,0.5,0.1,1.0\n", "after step 3, got step 3"),
        (lambda text: text + "4,0.4,1_0,0.5,1.0,0.5,0.1,1.0\n", "number as train_loss, got '1_0'"),
        (lambda text: text + "4,0.4, 1.0,0.5,1.0,0.5,0.1,1.0\n", "number as train_loss, got ' 1.0'"),
        (lambda text: text + "4,0.4,1.0,0.5,,0.5,0.1,1.0\n", "number as validation_loss, got ''"),
        (lambda text: text + "4,nan,1.0,0.5,1.0,0.5,0.1,1.0\n", "epoch to be finite"),
        (lambda text: text + "4,0.4,1.0,1.5,1.0,0.5,0.1,1.0\n", "train_accuracy between 0 and 1, got 1.5"),
        (lambda text: text + "4,0.4,1.0,0.5,1.0,0.5,0.1,-1.0\n", "seconds to be finite and not negative"),
        (lambda text: text + "9" * 500 + ",0.4,1.0,0.5,1.0,0.5,0.1,1.0\n", "whole number as step"),
        (lambda text: text + "4,0.4,1.0,0.5,1.0,0.5,0.1,1.0\r\n", "number as seconds"),
    ],
)
def test_a_damaged_file_is_named_in_one_line_with_the_damage(written, damage, words):
    written.write_text(damage(written.read_text()), newline="")
    with pytest.raises(DataError, match=words) as caught:
        History.read_csv(written)
    assert str(written) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(written)) + 150


def test_a_binary_file_is_no_history(written):
    written.write_bytes(b"\x89PNG\r\n")
    with pytest.raises(DataError, match=r"expected the header of a gpunn history, got '.x89PNG"):
        History.read_csv(written)


def test_a_missing_file_and_a_folder_are_no_histories(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        History.read_csv(tmp_path / "none.csv")
    with pytest.raises(DataError, match="cannot be read"):
        History.read_csv(tmp_path)


def overfitting_run():
    """The validation cost is lowest at epoch 8, the training cost falls on."""
    for epoch in range(1, 31):
        yield record(10 * epoch, epoch=float(epoch), train_loss=0.8**epoch, validation_loss=1.0 + 0.02 * abs(epoch - 8))


def test_append_says_once_since_when_the_model_overfits():
    history = History()
    said = [since for each in overfitting_run() if (since := history.append(each)) is not None]
    assert [since.step for since in said] == [80]
    assert history.overfitting_since == said[0]


def test_overfitting_is_found_again_when_read_from_disk(tmp_path):
    history = History(overfitting_run())
    history.write_csv(tmp_path / "history.csv")
    assert History.read_csv(tmp_path / "history.csv").overfitting_since == history.overfitting_since


def test_what_is_printed_says_how_the_run_stands():
    history = History(overfitting_run())
    history.stopped = "no better validation loss for 10 epochs"
    text = str(history)
    assert "overfitting (high variance) since step 80, epoch 8" in text
    assert "stopped: no better validation loss for 10 epochs" in text
    assert "best" in text.splitlines()[1]
    assert "last" in text.splitlines()[2]
    assert repr(history) == "History(30 records to step 300, epoch 30, overfitting since step 80)"
    assert (str(History()), repr(History())) == ("no records yet", "History(no records)")


def test_missing_values_are_printed_as_a_dash():
    missing = {"train_accuracy": NAN, "validation_loss": NAN, "validation_accuracy": NAN}
    text = str(History([record(1), record(2, **missing)]))
    assert "nan" not in text
    assert text.splitlines()[2].count(" -") == 3


def test_what_does_not_apply_is_no_column_of_anything(tmp_path):
    regression = {"train_accuracy": NAN, "validation_accuracy": NAN, "train_rmse": 0.25, "train_r2": 0.5}
    history = History([record(1, **regression), record(2, **regression, validation_rmse=0.5)])
    heads = str(history).splitlines()[0]
    assert "accuracy" not in heads
    assert [name in heads for name in ("RMSE", "R²", "validation RMSE", "validation R²", "λR")] == [1, 1, 1, 0, 0]
    assert "nan" not in repr(history[0])
    assert "train_rmse=0.25" in repr(history[0])
    history.write_csv(tmp_path / "history.csv")
    head, first, _ = (tmp_path / "history.csv").read_text().splitlines()
    assert head == "step,epoch,train_loss,train_rmse,train_r2,validation_loss,validation_rmse,learning_rate,seconds"
    assert first.count("nan") == 1
    assert History.read_csv(tmp_path / "history.csv").records == history.records


def test_the_penalty_has_a_column_of_its_own(tmp_path):
    history = History([record(1, penalty=0.125), record(2, penalty=0.25)])
    history.write_csv(tmp_path / "history.csv")
    assert "penalty" in (tmp_path / "history.csv").read_text().splitlines()[0].split(",")
    assert [each.penalty for each in History.read_csv(tmp_path / "history.csv")] == [0.125, 0.25]
    assert "λR" in str(history)


def test_a_history_of_the_first_version_is_still_read(tmp_path):
    (tmp_path / "history.csv").write_text(
        "step,epoch,train_loss,train_accuracy,validation_loss,validation_accuracy,learning_rate,seconds\n"
        "3,0.5,0.25,nan,0.5,nan,0.1,1.5\n"
    )
    expected = record(
        3, epoch=0.5, train_loss=0.25, train_accuracy=NAN, validation_loss=0.5, validation_accuracy=NAN, seconds=1.5
    )
    assert History.read_csv(tmp_path / "history.csv").records == [expected]


def test_a_failed_write_leaves_the_older_file_and_nothing_else(written, monkeypatch):
    before = written.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"cannot write .*history.csv: No space left on device"):
        History([record(9)]).write_csv(written)
    assert written.read_bytes() == before
    assert list(written.parent.iterdir()) == [written]


def test_an_interrupted_write_leaves_the_older_file_and_nothing_else(written, monkeypatch):
    before = written.read_bytes()

    def interrupted(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(written, b"new")
    assert written.read_bytes() == before
    assert list(written.parent.iterdir()) == [written]


def test_writing_where_no_folder_is_gives_one_line(tmp_path):
    with pytest.raises(OutputError, match=r"cannot write .*: No such file or directory"):
        History().write_csv(tmp_path / "none" / "history.csv")


def test_a_written_file_has_the_usual_rights(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"new")
    (tmp_path / "other").write_bytes(b"")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)
