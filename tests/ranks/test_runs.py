"""`mpiexec -n N gpunn train`: one run folder, one set of lines, what ends a run, and how it goes on by other ranks."""

import os
import shutil
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
from support.cli_helpers import Done, experiment_toml, program, results_of
from support.ranks import gpunn, job

from gpunn import load_model
from gpunn.saving.checkpointer import list_checkpoints

EXPERIMENT = experiment_toml(
    [{"type": "Dense", "units": 24}, {"type": "Tanh"}, {"type": "Dropout", "p": 0.2}],
    {"type": "Adam", "learning_rate": 0.003},
    batch_size=50, epochs=3, device="cpu", dtype="float64",
)  # fmt: skip

BROKEN = """
import os, sys, time
from gpunn.backend.ranks import world
from gpunn.experiments import results
from gpunn.train.trainer import Trainer

results.draw_answers = results.draw_network = lambda *_, **__: []
results.plot_curves = lambda _, path, **__: path.write_bytes(b"")
how, whole = os.environ.get("HOW", ""), Trainer.check_numbers
is_asked = []


def check_numbers(self):
    whole(self)
    if self.done != 40 or world().rank != 1 or is_asked:
        return
    is_asked.append(True)
    if how == "raises":
        raise RuntimeError("made to fail")
    if how == "leaves":
        sys.exit(3)
    if how == "hangs":
        time.sleep(600)
    for number in map(int, how.split()):
        os.kill(os.getpid(), number)
        time.sleep(0.2)


Trainer.check_numbers = check_numbers
from gpunn.cli import main
main(sys.argv[1:])
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "small.toml").write_text(EXPERIMENT)
    return tmp_path


def train(folder: Path, count: int, *options: object, how: str = "", **variables: str) -> Done:
    """Train by so many ranks, of which rank 1 does something after step 40; none may be left a little later."""
    with job(count, sys.executable, "-c", BROKEN, "train", *options, folder=folder, HOW=how, **variables) as started:
        done = started.done()
        started.wait_until_all_have_ended(15)
    return done


def begin(folder: Path, count: int, run: str, how: str = "", **variables: str) -> Done:
    options = ("--recipe", "small.toml", "--checkpoint-every", "10", "--out", run)
    return train(folder, count, *options, how=how, **variables)


def distance(one: Path, other: Path) -> float:
    """The relative distance of the weights of two runs."""
    arrays = [load_model(path / "model.safetensors", "cpu").state_dict() for path in (one, other)]
    a, b = (np.concatenate([array.ravel() for array in each.values()]) for each in arrays)
    return float(np.linalg.norm(a - b) / np.linalg.norm(a))


def bits_of(path: Path) -> dict[str, object]:
    """What a run has computed to the last bit, but its figures.

    A checkpoint has the sums over all ranks since the last record, which then round in another way.
    """
    return {name: value for name, value in results_of(path).items() if name not in ("history", "metrics")}


def lines_of(done: Done) -> list[str]:
    return [line for line in done.err.splitlines() if line.startswith("gpunn: ")]


def test_one_folder_and_one_set_of_lines_whatever_the_number_of_ranks(folder: Path) -> None:
    alone = program("train", "--recipe", "small.toml", "--out", "alone", cwd=folder)
    assert alone.code == 0, alone.err
    for count in (1, 2):
        done = begin(folder, count, f"by-{count}")
        assert (done.code, done.out.count("device "), done.out.count("run folder")) == (0, 1, 1), done
        assert [line.split(":")[0] for line in done.err.splitlines()] == [f"epoch {epoch}/3" for epoch in (1, 2, 3)]
    assert (folder / "alone/model.safetensors").read_bytes() == (folder / "by-1/model.safetensors").read_bytes()
    assert distance(folder / "alone", folder / "by-2") < 1e-9
    assert sorted(path.name for path in folder.iterdir()) == ["alone", "by-1", "by-2", "small.toml"]


def test_a_run_goes_on_with_any_number_of_ranks(folder: Path) -> None:
    """In float32; tests/ranks/test_training.py has float64."""
    (folder / "small.toml").write_text(EXPERIMENT.replace('"float64"', '"float32"'))
    assert begin(folder, 4, "straight").code == 0
    assert begin(folder, 4, "cut", how="15").code == 143
    assert list_checkpoints(folder / "cut" / "checkpoints")[0][0] == 40
    for count in (1, 2, 3, 4):
        run = f"cut-{count}"
        shutil.copytree(folder / "cut", folder / run)
        done = train(folder, count, "--resume", run)
        assert done.code == 0, done.err
        said = f"not the same to the last bit: ranks was 4, is {count}"
        if count == 4:
            assert "not the same" not in done.out
            assert bits_of(folder / run) == bits_of(folder / "straight")
        else:
            assert said in done.out.splitlines()
            assert distance(folder / run, folder / "straight") < 1e-5


@pytest.mark.parametrize(
    ("how", "code", "who", "what"),
    [
        ("raises", 1, 1, "made to fail"),
        ("leaves", 3, 1, "ended with 3"),
        ("hangs", 1, 0, "has waited 5 s for the other ranks"),
        ("9", None, None, ""),
    ],
)
def test_what_ends_one_rank_ends_the_run_which_goes_on(
    folder: Path, how: str, code: int | None, who: int | None, what: str
) -> None:
    assert begin(folder, 2, "straight").code == 0
    done = begin(folder, 2, "cut", how, GPUNN_RANK_TIMEOUT="5")
    assert done.code != 0
    assert code in (None, done.code)
    lines = lines_of(done)
    assert len(lines) == (who is not None)
    if who is not None:
        assert lines[0].startswith(f"gpunn: rank {who} of 2 on {socket.gethostname()}: ")
        assert what in lines[0]
        assert lines[0].endswith("; all ranks end")
    assert list_checkpoints(folder / "cut" / "checkpoints")[0][0] >= 30
    assert train(folder, 2, "--resume", "cut").code == 0
    assert bits_of(folder / "cut") == bits_of(folder / "straight")


@pytest.mark.parametrize(("number", "code"), [("15", 143), ("2", 130), ("1", 129)])
def test_a_signal_to_one_rank_stops_all_after_the_same_step(folder: Path, number: str, code: int) -> None:
    done = begin(folder, 2, "cut", number)
    assert done.code == code
    assert [line for line in done.err.splitlines() if "stopping" in line] == [
        "stopping after step 40; once more to stop at once"
    ]
    assert [step for step, _ in list_checkpoints(folder / "cut" / "checkpoints")] == [40, 30]
    assert "step 40" in done.out.splitlines()[-1]


def test_a_second_signal_stops_at_once(folder: Path) -> None:
    done = begin(folder, 2, "cut", "15 15")
    assert done.code == 143
    assert len(lines_of(done)) == 1
    assert lines_of(done)[0].endswith("stopped at once by a second signal; all ranks end")
    assert list_checkpoints(folder / "cut" / "checkpoints")[0][0] == 30


def test_what_rank_0_cannot_write_is_told_once(folder: Path) -> None:
    (folder / "file").write_text("")
    done = begin(folder, 2, "file")
    assert done.code == 1
    assert len(done.err.splitlines()) == 1
    assert done.err.startswith("gpunn: cannot make the run folder file: ")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--batch-size", "2"], "3 ranks cannot share batches of 2 samples"),
        (["--seeds", "0:2"], "--seeds starts processes of its own"),
        (["--resume", "nowhere"], "there is no run folder nowhere"),
    ],
)
def test_what_cannot_be_trained_is_told_once_and_leaves_no_folder(folder: Path, options: list[str], said: str) -> None:
    recipe = [] if "--resume" in options else ["--recipe", "small.toml", "--out", "run"]
    done = gpunn(3, "train", *recipe, *options, folder=folder)
    assert done.code in (1, 2)
    assert len(done.err.splitlines()) == 1
    assert done.err.startswith(f"gpunn: {said}")
    assert [path.name for path in folder.iterdir()] == ["small.toml"]


FIT = """
import sys
import numpy as np
import gpunn as gn
from gpunn.backend.ranks import world

x = np.random.default_rng(0).random((300, 8), np.float32)
if sys.argv[1] == "other data":
    x += world().rank


class Leaving(gn.Callback):
    def on_steps(self, training):
        if sys.argv[1] == "leaves" and training.step == 30 and world().rank == 1:
            sys.exit(3)


network = gn.Sequential([gn.Dense(8), gn.Tanh(), gn.Dense(2)])
keeping = gn.Checkpointer("kept", every=10, resume=True)
history = network.fit(
    x, (x[:, 0] > 0.5).astype(int), epochs=4, batch_size=20, device="cpu", callbacks=[Leaving(), keeping]
)
if world().is_first:
    network.save("model.safetensors")
print(len(history), flush=True)
"""


def test_fit_in_a_script_keeps_one_set_of_checkpoints_and_goes_on(tmp_path: Path) -> None:
    def run(count: int, how: str, folder: str) -> Done:
        (tmp_path / folder).mkdir(exist_ok=True)
        with job(count, sys.executable, "-c", FIT, how, folder=tmp_path / folder, GPUNN_RANK_TIMEOUT="20") as started:
            done = started.done()
            started.wait_until_all_have_ended(15)
        return done

    assert run(2, "", "straight").code == 0
    cut = run(2, "leaves", "cut")
    assert cut.code != 0
    assert lines_of(cut) == [f"gpunn: rank 1 of 2 on {socket.gethostname()}: SystemExit: 3; all ranks end"]
    assert list_checkpoints(tmp_path / "cut" / "kept" / "checkpoints")[0][0] == 20
    assert run(2, "", "cut").code == 0
    assert (tmp_path / "cut/model.safetensors").read_bytes() == (tmp_path / "straight/model.safetensors").read_bytes()
    other = run(2, "other data", "other")
    assert other.code == 1
    assert "the samples of rank 1 differ from those of rank 0" in other.err
    assert not list((tmp_path / "other").iterdir())


def test_a_doctor_shows_the_ranks(tmp_path: Path) -> None:
    done = gpunn(2, "doctor", folder=tmp_path)
    line = next(line for line in done.out.splitlines() if line[9:12] == "MPI")
    assert "2 ranks, 1 thread a rank" in line or len(os.sched_getaffinity(0)) > 3
    assert done.out.count("MPI ") == 1
