"""`mpiexec -n N gpunn train …` as a user starts it: the training of one process, by any number."""

import hashlib
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cli_helpers import WITHOUT_PICTURES, Done, experiment_toml, start
from support.ranks import job

import gpunn as gn

CONVOLUTION: list[dict[str, Any]] = [
    {"type": "Conv2D", "filters": 4, "size": 3},
    {"type": "BatchNorm"},
    {"type": "ReLU"},
    {"type": "MaxPool2D"},
    {"type": "Flatten"},
    {"type": "Dropout", "p": 0.3},
]
MOMENTUM = {"type": "SGD", "learning_rate": 0.05, "momentum": 0.9, "nesterov": True}


def train(count: int, *arguments: object, folder: Path) -> Done:
    """`gpunn train ARGUMENTS` by so many ranks, 0 for without mpiexec; nothing is drawn, and no process is left."""
    options = ("train", *arguments, "--device", "cpu")
    if count == 0:
        with start(*options, cwd=folder, program=WITHOUT_PICTURES) as process:
            out, err = process.communicate(timeout=120)
            done = Done(process.returncode, out, err)
    else:
        with job(count, sys.executable, *WITHOUT_PICTURES, *options, folder=folder) as started:
            done = started.done()
            started.wait_until_all_have_ended(5)
    assert done.code == 0, done
    return done


def weights(run: Path) -> dict[str, Any]:
    return {
        name: np.array(value, np.float64) for name, value in gn.load_model(run / "model.safetensors").arrays().items()
    }


def distance(run: Path, other: Path) -> float:
    """The relative distance of all weights and statistics of two runs."""
    mine, others = weights(run), weights(other)
    assert mine.keys() == others.keys()
    apart = sum(float(((mine[name] - others[name]) ** 2).sum()) for name in mine)
    return (apart / sum(float((value**2).sum()) for value in others.values())) ** 0.5


def checksum(run: Path) -> str:
    return hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()


def shown(text: str) -> str:
    """What was said, without times, the folder, and the number of ranks."""
    lines = [line for line in text.splitlines() if not re.match(r"device|ranks|run folder|results", line)]
    return re.sub(r"[\d,]+(\.\d+)? ?(m?s|samples/s)\b", "TIME", "\n".join(lines)).replace("run-", "")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("acceptance")
    small = [{"type": "Flatten"}, {"type": "Dense", "units": 24}, {"type": "Tanh"}]
    for batch in (50, 129):
        usual = {"batch_size": batch, "epochs": 3}
        (made / f"dense-{batch}.toml").write_text(experiment_toml(small, MOMENTUM, **usual))
        exact = {**usual, "dtype": "float64", "augmentation": {"type": "Augmentation", "shift": 1, "rotation": 10.0}}
        (made / f"convolution-{batch}.toml").write_text(experiment_toml(CONVOLUTION, MOMENTUM, **exact))
    return made


def test_one_rank_is_the_training_without_mpiexec_to_the_bit(folder: Path) -> None:
    texts = [train(n, "--recipe", "dense-50.toml", "--out", f"one-{n}", folder=folder) for n in (0, 1)]
    assert checksum(folder / "one-0") == checksum(folder / "one-1")
    assert shown(texts[1].out.replace("one-1", "one-0")) == shown(texts[0].out)


@pytest.mark.parametrize("count", [2, 4])
def test_ranks_write_one_folder_and_say_each_line_once(folder: Path, count: int) -> None:
    before = {path.name for path in folder.iterdir()}
    one = train(1, "--recipe", "dense-50.toml", "--out", f"lines-1-{count}", folder=folder)
    several = train(count, "--recipe", "dense-50.toml", "--out", f"lines-{count}", folder=folder)
    assert {path.name for path in folder.iterdir()} - before == {f"lines-1-{count}", f"lines-{count}"}
    assert len(several.out.splitlines()) - len(one.out.splitlines()) in (0, 1)  # one says how many ranks there are
    assert several.out.count("test accuracy") == 1
    assert max(map(len, several.out.splitlines())) <= max(80, *map(len, one.out.splitlines()))
    files = {path.name for path in (folder / f"lines-{count}").iterdir()}
    assert files == {path.name for path in (folder / f"lines-1-{count}").iterdir()}


@pytest.mark.parametrize("count", [3, 4])
@pytest.mark.parametrize("batch", [50, 129])
@pytest.mark.parametrize(("kind", "bound"), [("dense", 1e-5), ("convolution", 1e-9)])
def test_uneven_shares_and_ranks_without_samples_train_the_same(
    folder: Path, kind: str, bound: float, batch: int, count: int
) -> None:
    """1,293 samples leave 43 in the last batch of 50, and 3 in that of 129: one of four ranks has none."""
    recipe, one = f"{kind}-{batch}.toml", f"{kind}-{batch}-1"
    if not (folder / one).exists():
        train(1, "--recipe", recipe, "--out", one, folder=folder)
    train(count, "--recipe", recipe, "--out", f"{kind}-{batch}-{count}", folder=folder)
    assert distance(folder / f"{kind}-{batch}-{count}", folder / one) <= bound
    histories = [gn.History.read_csv(folder / f"{kind}-{batch}-{each}" / "history.csv") for each in (1, count)]
    ones, others = ([record.validation_accuracy for record in history] for history in histories)
    assert others == ones


def test_the_same_count_gives_the_same_file_again(folder: Path) -> None:
    for run in ("again-a", "again-b"):
        train(3, "--recipe", "convolution-129.toml", "--out", run, folder=folder)
    assert checksum(folder / "again-a") == checksum(folder / "again-b")
