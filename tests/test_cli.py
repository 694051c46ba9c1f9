"""The program: what it does, what it refuses in one line, and its exit codes."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cli_helpers import ROOT, TINY, Done, assert_one_line, gpunn, program, start
from data_helpers import idx_bytes, small_set, write_set

import gpunn as gn

WITHOUT_GPU = {"CUDA_VISIBLE_DEVICES": "-1"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test in a folder of its own, with the tiny experiment in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GPUNN_DATA", raising=False)
    monkeypatch.delenv("GPUNN_DEBUG", raising=False)
    (tmp_path / "tiny.toml").write_text(TINY)
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """A run of the default recipe on the digits, and what it said."""
    out = tmp_path_factory.mktemp("trained") / "run"
    done = gpunn("train", "--device", "cpu", "--out", out)
    assert done.code == 0, done.err
    return out, done


# Training


def test_train_without_arguments_learns_the_digits(trained: tuple[Path, Done]) -> None:
    out, done = trained
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["test_accuracy"] >= 0.96
    assert f"test accuracy  {metrics['test_accuracy']:.2%}" in done.out


def test_train_says_device_data_network_result_and_where_the_pictures_are(trained: tuple[Path, Done]) -> None:
    out, done = trained
    for words in (
        "device      CPU",
        "(asked for)",
        "1,293 training samples of 8 × 8 × 1, 10 classes; 144 for validation; test set closed until the end",
        "Dense(units=256)",
        "parameters",
        "best epoch",
        "overfitting    none was seen",
        f"{out / 'curves.png'}",
    ):
        assert words in done.out
    assert len([line for line in done.err.splitlines() if line.startswith("epoch ")]) == 12


def test_a_run_without_out_takes_the_next_free_number(folder: Path) -> None:
    assert gpunn("train", "--recipe", "tiny.toml").code == 0
    assert gpunn("train", "--recipe", "tiny.toml").code == 0
    assert sorted(path.name for path in (folder / "runs").iterdir()) == ["digits-tiny-1", "digits-tiny-2"]


def test_options_replace_what_the_recipe_says(folder: Path) -> None:
    gpunn(
        "train", "digits", "--recipe", "tiny.toml", "--epochs", 3, "--batch-size", 500, "--learning-rate", 0.25,
        "--seed", 7, "--device", "cpu", "--out", "run",
    )  # fmt: skip
    written = (folder / "run" / "experiment.toml").read_text()
    for line in ("epochs = 3", "batch_size = 500", "learning_rate = 0.25", "seed = 7", 'device = "cpu"'):
        assert line in written


def test_one_s_own_arrays_can_be_trained_on(folder: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 5))
    np.savez(folder / "mine.npz", x=x, y=(x[:, 0] > 0).astype(int))
    assert gpunn("train", "mine.npz", "--out", "run").code == 0
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    assert metrics["test_accuracy"] is None  # these data have no test set
    assert metrics["validation_accuracy"] > 0.8


def test_float_targets_can_be_trained_on_with_the_default_recipe(folder: Path) -> None:
    x = np.random.default_rng(0).normal(size=(200, 5))
    np.savez(folder / "mine.npz", x=x, y=x[:, :2] * 2)
    done = gpunn("train", "mine.npz", "--learning-rate", 0.01, "--out", "run")
    assert done.code == 0, done.err
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    assert metrics["validation_loss"] < 1
    assert metrics["validation_accuracy"] is None
    assert not (folder / "run" / "confusion.png").exists()


# What it refuses


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--recipe", "mpl"), 2, ("unknown recipe 'mpl'", "did you mean mlp")),
        (("--recipe", "gone.toml"), 2, ("gone.toml", "cannot be read")),
        (("--device", "tpu"), 2, ("unknown device 'tpu'", "cpu")),
        (("minst",), 2, ('unknown data set "minst"', '"mnist"')),
        (("./nowhere",), 1, ("no such file or folder",)),
        (("--batch-size", 5000), 2, ("batch of 5000", "1293 training samples")),
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
        (np.array([["a"] * 3] * 40), np.arange(40) % 3, "must hold numbers"),
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
    assert names == {"experiment.toml", "history.csv", "model.safetensors", "curves.png", "metrics.json"}
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


def test_a_folder_that_holds_a_run_is_refused_and_left_as_it_is(folder: Path) -> None:
    gpunn("train", "--recipe", "tiny.toml", "--out", "run")
    before = {path.name: path.read_bytes() for path in (folder / "run").iterdir()}
    done = gpunn("train", "--recipe", "tiny.toml", "--seed", 1, "--out", "run")
    assert_one_line(done, 1, "run already holds a run", "--out")
    assert {path.name: path.read_bytes() for path in (folder / "run").iterdir()} == before


@pytest.mark.parametrize("arguments", [("--out", "there"), ("--out", "there/run"), ()])
def test_a_file_in_the_place_of_the_folder_is_one_line(folder: Path, arguments: tuple[str, ...]) -> None:
    name = arguments[1].partition("/")[0] if arguments else "runs"
    (folder / name).write_text("mine")
    assert_one_line(gpunn("train", "--recipe", "tiny.toml", *arguments), 1, name, "--out")
    assert (folder / name).read_text() == "mine"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a few pages, which only root can mount."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    path = tmp_path / "disk"
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", path], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a small disk")
    yield path
    subprocess.run(["umount", path], check=True)


def test_a_full_disk_is_found_before_the_training(disk: Path) -> None:
    done = gpunn("train", "--recipe", "tiny.toml", "--out", disk / "run")
    assert_one_line(done, 1, "free", "--out")
    assert list(disk.iterdir()) == []


def test_a_disk_that_takes_no_more_bytes_is_one_line(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpunn.run._ROOM", -(1 << 30))  # as if there were room, and then there is none
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
    monkeypatch.setattr("gpunn.run.train", lambda *_: 1 / 0)
    done = gpunn("train")
    assert done.code == 1
    assert done.err.startswith("gpunn: a defect of gpunn: ZeroDivisionError: division by zero; please report")
    assert len(done.err.splitlines()) == 1
    assert "Traceback" in gpunn("--debug", "train").err
    monkeypatch.setenv("GPUNN_DEBUG", "1")
    assert "Traceback" in gpunn("train").err


def test_running_out_of_memory_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("Unable to allocate 7 TiB")

    monkeypatch.setattr("gpunn.run.train", fail)
    assert_one_line(gpunn("train"), 1, "out of memory (Unable to allocate 7 TiB)", "smaller batch")


# Evaluate and predict


def test_evaluate_gives_the_accuracy_that_training_ended_with(trained: tuple[Path, Done]) -> None:
    out, _ = trained
    metrics = json.loads((out / "metrics.json").read_text())
    done = gpunn("evaluate", out)
    assert done.code == 0
    assert done.out.startswith(f"digits, test set (360): accuracy {metrics['test_accuracy']:.2%}")
    assert gpunn("evaluate", out / "model.safetensors", "digits").out == done.out


def test_evaluate_on_data_of_another_shape_is_one_line(trained: tuple[Path, Done], folder: Path) -> None:
    np.savez(folder / "mine.npz", x=np.ones((4, 3)), y=np.arange(4))
    assert_one_line(gpunn("evaluate", trained[0], "mine.npz"), 1, "(64,)", "(3,)")


@pytest.mark.parametrize("run", ["nowhere", ".", "tiny.toml"])
@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_what_is_no_run_is_one_line(command: str, run: str) -> None:
    rest = ["digits"] if command == "evaluate" else ["tiny.toml"]
    assert_one_line(gpunn(command, run, *rest), 1, "model")


def test_a_damaged_model_is_one_line(trained: tuple[Path, Done], folder: Path) -> None:
    content = (trained[0] / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:1000])
    assert_one_line(gpunn("evaluate", folder), 1, "model.safetensors")


Some = tuple[Path, np.ndarray]


@pytest.fixture
def samples(folder: Path) -> Some:
    """Twelve digits as an array file, and as the array."""
    test = gn.load_data("digits").test
    assert test is not None
    np.save(folder / "some.npy", test.inputs[:12])
    return folder / "some.npy", test.inputs[:12]


def test_predict_prints_a_line_a_sample(trained: tuple[Path, Done], samples: Some) -> None:
    path, inputs = samples
    expected = gn.load_model(trained[0] / "model.safetensors").predict_proba(inputs)
    lines = gpunn("predict", trained[0], path).out.splitlines()
    assert len(lines) == 12
    name, label, share = lines[3].split()
    assert name == f"{path}[3]"
    assert int(label) == expected[3].argmax()
    assert share in (f"{expected[3].max():.2%}", ">99.99%")


def test_predict_gives_csv_and_json(trained: tuple[Path, Done], samples: Some) -> None:
    path, inputs = samples
    expected = gn.load_model(trained[0] / "model.safetensors").predict(inputs)
    rows = list(csv.DictReader(io.StringIO(gpunn("predict", trained[0], path, "--format", "csv").out)))
    assert [int(row["label"]) for row in rows] == list(expected)
    answers = json.loads(gpunn("predict", trained[0], path, "--format", "json").out)
    assert [int(answer["label"]) for answer in answers] == list(expected)
    assert all(abs(sum(answer["outputs"]) - 1) < 1e-5 for answer in answers)


def test_predict_says_the_same_of_npz_and_idx(trained: tuple[Path, Done], samples: Some, folder: Path) -> None:
    path, inputs = samples
    np.savez(folder / "some.npz", x=inputs)
    (folder / "some-idx").write_bytes(idx_bytes(inputs[..., 0]))
    said = [gpunn("predict", trained[0], name).out for name in (path, folder / "some.npz", folder / "some-idx")]
    assert len({tuple(line.split()[-2:] for line in text.splitlines()).__repr__() for text in said}) == 1


def test_predict_of_a_wrong_file_prints_no_answer(trained: tuple[Path, Done], samples: Some, folder: Path) -> None:
    np.save(folder / "wrong.npy", np.ones((3, 5)))
    done = gpunn("predict", trained[0], samples[0], "wrong.npy")
    assert_one_line(done, 1, "wrong.npy", "(3, 5)")
    assert done.out == ""


# The rest


def test_recipes_lists_each_in_one_line() -> None:
    lines = gpunn("recipes").out.splitlines()
    assert [line.split()[0] for line in lines] == ["mlp", "nielsen-100", "nielsen-overfitting", "nielsen-regularized"]


def test_doctor_says_what_is_installed(folder: Path) -> None:
    done = program("doctor", cwd=folder, **WITHOUT_GPU)
    assert done.code == 0, done.err
    assert "NVIDIA driver" in done.out
    assert "numpy" in done.out


def test_version_is_the_package_s() -> None:
    assert gpunn("--version").out == f"gpunn {gn.__version__}\n"


def test_help_takes_less_than_half_a_second(folder: Path) -> None:
    seconds = []
    for _ in range(6):
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "gpunn", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        seconds.append(time.perf_counter() - began)
        if min(seconds) < 0.5:
            break
    assert "train" in done.stdout
    assert min(seconds) < 0.5


def test_a_reader_that_has_seen_enough_is_no_error(folder: Path) -> None:
    command = f"{sys.executable} -m gpunn recipes | head -n 1"
    done = subprocess.run(
        ["sh", "-c", command], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.stderr == ""
