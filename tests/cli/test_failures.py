"""What the program refuses, in one line and with nothing left behind, and how it ends when it is stopped."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.cli_helpers import (
    TINY,
    WITHOUT_GPU,
    assert_one_line,
    gpunn,
    own_folder,
    program,
    small_disk,
    start,
    without_pictures,
)
from support.data_helpers import idx_bytes, small_set, write_set

import gpunn as gn

folder = pytest.fixture(autouse=True)(own_folder)
plain = pytest.fixture(without_pictures)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--recipe", "mpl"), 2, ("unknown recipe 'mpl'", "did you mean mlp")),
        (("--recipe", "gone.toml"), 2, ("gone.toml", "cannot be read")),
        (("--device", "tpu"), 2, ("unknown device 'tpu'", "cpu")),
        (("minst",), 2, ('unknown data set "minst"', '"mnist"')),
        (("./nowhere",), 1, ("no such file or folder",)),
        (("--batch-size", 0), 2, ("batch size must be a whole number of at least 1",)),
        (("--batch-size", "many"), 2, ("'many' is not a valid integer", "--help")),
        (("--epochs", 0), 2, ("epochs must be",)),
        (("--learning-rate", -1), 2, ("must be above 0",)),
        (("--learning-rate", "nan"), 2, ("must be",)),
        (("--seed", -1), 2, ("seed",)),
        (("--seed", 2**40), 2, ("seed must be", "4294967295")),
        (("--colour", "red"), 2, ("No such option", "--colour")),
        (("digits", "mnist"), 2, ("unexpected extra argument",)),
    ],
)
def test_a_wrong_option_gives_one_line_and_leaves_nothing(
    folder: Path, arguments: tuple[object, ...], code: int, words: tuple[str, ...]
) -> None:
    assert_one_line(gpunn("train", *arguments), code, *words)
    assert not (folder / "runs").exists()


@pytest.mark.parametrize("command", [("tran",), ("evaluate",), ("predict", "run"), ("--verbose",)])
def test_wrong_usage_is_exit_2(command: tuple[str, ...]) -> None:
    assert_one_line(gpunn(*command), 2, "--help")


def test_cuda_without_a_gpu_says_what_is_missing(folder: Path) -> None:
    done = program("train", "--device", "cuda", cwd=folder, **WITHOUT_GPU)
    assert_one_line(done, 1, "device 'cuda' cannot be used", "--device cpu")
    assert not (folder / "runs").exists()


def _truncated(data: Path) -> None:
    path = data / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-100])


def _mislabelled(data: Path) -> None:
    (data / "train-images-idx3-ubyte").write_bytes((data / "train-labels-idx1-ubyte").read_bytes())


def _oversized(data: Path) -> None:
    path = data / "train-images-idx3-ubyte"
    content = bytearray(path.read_bytes())
    content[4:8] = (2**31).to_bytes(4, "big")
    path.write_bytes(bytes(content))


def _missing(data: Path) -> None:
    (data / "t10k-labels-idx1-ubyte").unlink()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_missing, ("t10k-labels-idx1-ubyte missing",)),
        (_truncated, ("train-images-idx3-ubyte", "cut short by 100 bytes")),
        (_mislabelled, ("train-images-idx3-ubyte", "exchanged")),
        (_oversized, ("train-images-idx3-ubyte", "promises")),
    ],
    ids=["missing", "truncated", "mislabelled", "oversized"],
)
def test_a_bad_idx_file_gives_one_line_and_leaves_nothing(folder: Path, spoil: object, words: tuple[str, ...]) -> None:
    data = write_set(folder / "data", small_set())
    spoil(data)  # type: ignore[operator]
    assert_one_line(gpunn("train", "./data"), 1, *words)
    assert not (folder / "runs").exists()


def test_a_bad_test_set_is_found_at_the_end_and_the_network_is_kept(folder: Path) -> None:
    arrays = small_set(train=90)
    data = write_set(folder / "data", arrays)
    (data / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(np.full(12, 9, np.uint8)))
    done = gpunn("train", "./data", "--epochs", 1, "--out", "run")
    assert done.code == 1
    assert "holds labels up to 9" in done.err.splitlines()[-1] or "labels" in done.err.splitlines()[-1]
    assert "the trained network is kept in run" in done.err.splitlines()[-1]
    assert gn.load_model("run/model.safetensors").input_shape == (30,)
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    assert metrics["test_accuracy"] is None
    assert "test set" in metrics["stopped"]


@pytest.mark.parametrize(
    ("x", "y", "word"),
    [
        (np.ones((40, 3)), np.arange(40) % 3 - 1, "-1"),
        (np.where(np.arange(120).reshape(40, 3) == 7, np.nan, 1.0), np.arange(40) % 3, "NaN"),
        (np.ones((40, 3)), np.arange(39) % 3, "39"),
        (np.array([["a"] * 3] * 40), np.arange(40) % 3, "must be numbers"),
    ],
    ids=["label below 0", "NaN", "lengths differ", "texts"],
)
def test_bad_arrays_give_one_line_and_leave_nothing(folder: Path, x: np.ndarray, y: np.ndarray, word: str) -> None:
    np.savez(folder / "mine.npz", x=x, y=y)
    assert_one_line(gpunn("train", "mine.npz"), 1, "mine.npz", word)
    assert not (folder / "runs").exists()


def test_layers_that_do_not_fit_say_what_to_put_between(folder: Path) -> None:
    layers = TINY.replace("[[layers]]", '[[layers]]\ntype = "Flatten"\n[[layers]]\ntype = "Softmax"\n[[layers]]', 1)
    (folder / "wrong.toml").write_text(layers.replace('"outputs"', "4"))
    assert_one_line(gpunn("train", "--recipe", "wrong.toml"), 1, "10 classes", "end it with Dense(10)")
    assert not (folder / "runs").exists()


def test_a_learning_rate_that_diverges_stops_and_keeps_the_last_good_weights(folder: Path) -> None:
    done = gpunn("train", "--learning-rate", 1e9, "--device", "cpu", "--out", "run")
    assert done.code == 1
    assert "Traceback" not in done.err
    assert "training diverged" in done.err.splitlines()[-1]
    assert "Try a learning rate below" in done.err.splitlines()[-1]
    assert not [line for line in done.err.splitlines() if "Warning" in line]
    names = {path.name for path in (folder / "run").iterdir()}
    files = {"experiment.toml", "history.csv", "model.safetensors", "curves.png", "metrics.json"}
    assert names == files | {"checkpoints", ".lock"}
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    assert "training diverged" in metrics["stopped"]
    assert metrics["test_accuracy"] is None
    model = gn.load_model(folder / "run" / "model.safetensors")
    assert np.isfinite(model.predict_proba(np.ones((1, 64)))).all()


def test_without_a_network_the_error_names_the_files_and_where_to_put_them(folder: Path) -> None:
    nowhere = "http://127.0.0.1:9"
    names = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
    done = program(
        "train", "mnist", cwd=folder, GPUNN_DATA="", XDG_CACHE_HOME=str(folder / "cache"), NO_PROXY="", no_proxy="",
        **dict.fromkeys(names, nowhere),
    )  # fmt: skip
    assert_one_line(done, 1, "train-images-idx3-ubyte", str(folder / "cache"))
    assert not (folder / "runs").exists()


# The disk


@pytest.mark.usefixtures("plain")
def test_a_folder_that_holds_a_run_is_refused_and_left_as_it_is(folder: Path) -> None:
    gpunn("train", "--recipe", "tiny.toml", "--out", "run")
    before = {path: path.read_bytes() for path in (folder / "run").rglob("*") if path.is_file()}
    done = gpunn("train", "--recipe", "tiny.toml", "--seed", 1, "--out", "run")
    assert_one_line(done, 1, "run already holds a run", "--out")
    assert {path: path.read_bytes() for path in (folder / "run").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("arguments", [("--out", "there"), ("--out", "there/run"), ()])
def test_a_file_in_the_place_of_the_folder_is_one_line(folder: Path, arguments: tuple[str, ...]) -> None:
    name = arguments[1].partition("/")[0] if arguments else "runs"
    (folder / name).write_text("mine")
    assert_one_line(gpunn("train", "--recipe", "tiny.toml", *arguments), 1, name, "--out")
    assert (folder / name).read_text() == "mine"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path, "64k") as path:
        yield path


def test_a_full_disk_is_found_before_the_training(disk: Path) -> None:
    done = gpunn("train", "--recipe", "tiny.toml", "--out", disk / "run")
    assert_one_line(done, 1, "free", "--out")
    assert list(disk.iterdir()) == []


def test_a_disk_that_takes_no_more_bytes_is_one_line(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpunn.experiments.folder._ROOM", -(1 << 30))  # as if there were room, and then there is none
    (disk / "filling").write_bytes(bytes(64 << 10))
    done = gpunn("train", "--recipe", "tiny.toml", "--out", disk / "run")
    assert_one_line(done, 1, "No space left on device", "--out")
    assert [path.name for path in disk.iterdir()] == ["filling"]


def test_a_read_only_disk_is_one_line(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    done = gpunn("train", "--recipe", "tiny.toml", "--out", disk / "run")
    assert_one_line(done, 1, "Read-only file system", "--out")


# Signals


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_training_in_order(folder: Path, number: int, code: int) -> None:
    process = start("train", "--epochs", 100000, "--device", "cpu", "--out", "run", cwd=folder)
    with process:
        lines = [process.stderr.readline()]  # type: ignore[union-attr]
        time.sleep(0.1)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in "".join(lines) + err
    assert "stopped: the weights of step" in out
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    assert metrics["stopped"] == "interrupted"
    assert metrics["steps"] > 0
    assert gn.load_model(folder / "run" / "model.safetensors").predict(np.ones((1, 64))).shape == (1,)


def test_an_error_nobody_foresaw_is_one_line_and_a_traceback_on_request(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpunn.experiments.run.train", lambda *_, **__: 1 / 0)
    done = gpunn("train")
    assert done.code == 1
    assert done.err.startswith("gpunn: a defect of gpunn: ZeroDivisionError: division by zero; please report")
    assert len(done.err.splitlines()) == 1
    assert "Traceback" in gpunn("--debug", "train").err
    monkeypatch.setenv("GPUNN_DEBUG", "1")
    assert "Traceback" in gpunn("train").err


def test_running_out_of_memory_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError("Unable to allocate 7 TiB")

    monkeypatch.setattr("gpunn.experiments.run.train", fail)
    assert_one_line(gpunn("train"), 1, "out of memory (Unable to allocate 7 TiB)", "smaller batch")
