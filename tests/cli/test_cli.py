"""The program: what it trains, measures, predicts and says."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.cli_helpers import ROOT, WITHOUT_GPU, Done, assert_one_line, gpunn, own_folder, program, without_pictures
from support.data_helpers import idx_bytes

import gpunn as gn
from gpunn.experiments.experiment import recipes

folder = pytest.fixture(autouse=True)(own_folder)


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


def test_a_run_without_out_takes_the_next_free_number(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_pictures(monkeypatch)
    assert gpunn("train", "--recipe", "tiny.toml").code == 0
    assert gpunn("train", "--recipe", "tiny.toml").code == 0
    assert sorted(path.name for path in (folder / "runs").iterdir()) == ["digits-tiny-1", "digits-tiny-2"]


def test_options_replace_what_the_recipe_says(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_pictures(monkeypatch)
    gpunn(
        "train", "digits", "--recipe", "tiny.toml", "--epochs", 3, "--batch-size", 500, "--learning-rate", 0.25,
        "--seed", 7, "--device", "cpu", "--out", "run",
    )  # fmt: skip
    written = (folder / "run" / "experiment.toml").read_text()
    for line in ("epochs = 3", "batch_size = 500", "learning_rate = 0.25", "seed = 7", 'device = "cpu"'):
        assert line in written


def test_a_batch_of_more_than_there_are_is_all_of_them_and_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_pictures(monkeypatch)
    done = gpunn("train", "--recipe", "tiny.toml", "--epochs", 1, "--batch-size", 5000, "--out", "run")
    assert done.code == 0
    assert "batches of 1293 samples: a batch size of 5000 is more than there are\n" in done.err
    assert "batch_size = 1293\n" in (folder / "run" / "experiment.toml").read_text()


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
    assert "validation_accuracy" not in metrics
    assert metrics["validation_r2"] > 0.5
    assert not (folder / "run" / "confusion.png").exists()


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


@pytest.mark.parametrize("form", ["text", "csv", "json"])
def test_predict_answers_the_good_files_among_bad_ones(
    trained: tuple[Path, Done], samples: Some, folder: Path, form: str
) -> None:
    np.save(folder / "wrong.npy", np.ones((3, 5)))
    np.save(folder / "nan.npy", np.full((2, 64), np.nan))
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "some").mkdir()
    bad = ["wrong.npy", "gone.png", "broken.png", "nan.npy", "some"]
    done = gpunn("predict", trained[0], *bad[:2], samples[0], *bad[2:], "--format", form)
    assert done.code == 1
    assert done.out == gpunn("predict", trained[0], samples[0], "--format", form).out
    lines = done.err.splitlines()
    assert len(lines) == len(bad)
    for line, name in zip(lines, bad, strict=True):
        assert line.startswith("gpunn: ")
        assert name in line
    assert "some is a folder: name the files in it, such as some/*" in lines[-1]


@pytest.mark.parametrize(
    ("form", "nothing"),
    [("text", ""), ("csv", "file,sample,label,probability,sure,second_label,second_probability\n"), ("json", "[]\n")],
)
def test_predict_without_a_good_file_answers_nothing(trained: tuple[Path, Done], form: str, nothing: str) -> None:
    done = gpunn("predict", trained[0], "gone", "--format", form)
    assert_one_line(done, 1, "gone")
    assert done.out == nothing


def test_predict_of_one_file_raises_in_python(trained: tuple[Path, Done]) -> None:
    from gpunn.experiments.predict import predict_files

    with pytest.raises(gn.GpunnError, match="gone"):
        list(predict_files(str(trained[0]), ["gone"]))


# The rest


@pytest.mark.parametrize("arguments", [(), ("--debug",)])
def test_without_a_command_the_help_is_printed(arguments: tuple[str, ...]) -> None:
    """Who types the name alone asks for it: nothing has failed."""
    done = gpunn(*arguments)
    assert (done.code, done.err) == (0, "")
    assert done.out == gpunn("--help").out
    assert len(done.out.splitlines()) > 10


@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize("command", ["", "train", "evaluate", "predict", "export", "import", "doctor", "recipes"])
def test_help_fits_and_is_plain_ascii(command: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """click writes past what a stream can show, so there must be nothing to replace."""
    monkeypatch.setenv("COLUMNS", str(width))
    done = gpunn(*command.split(), "--help")
    assert done.code == 0
    assert done.out.isascii()
    assert max(map(len, done.out.splitlines())) <= width


def test_recipes_lists_each_in_one_line() -> None:
    lines = gpunn("recipes").out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(recipes())


def test_doctor_says_what_is_installed(folder: Path) -> None:
    done = program("doctor", cwd=folder, **WITHOUT_GPU)
    assert done.code == 0, done.err
    assert "NVIDIA driver" in done.out
    assert "numpy" in done.out


def test_version_is_the_package_s() -> None:
    assert gpunn("--version").out == f"gpunn {gn.__version__}\n"


def test_help_imports_nothing_that_can_wait() -> None:
    code = (
        "import runpy, sys; sys.argv = ['gpunn', '--help']\n"
        "try:\n    runpy.run_module('gpunn', run_name='__main__')\n"
        "except SystemExit:\n    pass\n"
        "print([name for name in ('matplotlib', 'PIL', 'pooch', 'safetensors', 'cupy', 'tqdm') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "train" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
