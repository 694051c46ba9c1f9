"""A training on several ranks has the numbers of one process, up to rounding, and the same bits on all ranks."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.paths import ROOT
from support.ranks import job
from support.shared_trainings import MNIST, TRAININGS, train

SCRIPT = ROOT / "tests" / "support" / "shared_trainings.py"
IN_FLOAT32 = {"plain32", "uneven32", "mlp"}
Ranks = list[dict[str, Any]]  # what each rank says of its trainings


def on_ranks(count: int, folder: Path, *names: str, **variables: str) -> Ranks:
    with job(count, sys.executable, SCRIPT, folder, *names, folder=folder, **variables) as started:
        done = started.done(400)
        started.wait_until_all_have_ended(5)
    assert (done.code, done.err) == (0, "")
    said: Ranks = [json.loads(line) for line in done.out.splitlines()]
    assert len(said) == count
    return said


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["", str(folder)])
        return folder, {name: train(name, folder) for name in TRAININGS}


@pytest.fixture(scope="module", params=[2, 3, 4])
def together(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ranks]:
    folder = tmp_path_factory.mktemp(f"ranks-{request.param}")
    return folder, on_ranks(request.param, folder, *TRAININGS)


def distance(one: Path, other: Path, name: str) -> float:
    """Relative distance of all weights and statistics."""
    with np.load(one / f"{name}.npz") as a, np.load(other / f"{name}.npz") as b:
        first, second = (np.concatenate([x[key].ravel() for key in a.files]).astype(np.float64) for x in (a, b))
    return float(np.linalg.norm(first - second) / np.linalg.norm(first))


@pytest.mark.parametrize("name", TRAININGS)
def test_the_numbers_are_those_of_one_process(
    alone: tuple[Path, dict[str, Any]], together: tuple[Path, Ranks], name: str
) -> None:
    (folder, one), (other, said) = alone, together
    tolerance = 1e-5 if name in IN_FLOAT32 else 1e-9
    assert distance(folder, other, name) <= tolerance
    of_first, of_one = said[0][name], one[name]
    for what in ("steps", "stopped", "skipped"):
        assert of_first[what] == of_one[what], what
    assert len(of_first["records"]) == len(of_one["records"])
    for record, wanted in zip(of_first["records"], of_one["records"], strict=True):
        assert [record[key] for key in ("step", "epoch")] == [wanted[key] for key in ("step", "epoch")]
        figures, expected = (
            [value for value in each.values() if isinstance(value, float)] + [v for _, v in each["measured"]]
            for each in (record, wanted)
        )
        np.testing.assert_allclose(figures, expected, rtol=tolerance, atol=tolerance)
        np.testing.assert_equal(record["validation_accuracy"], wanted["validation_accuracy"])


@pytest.mark.parametrize("name", TRAININGS)
def test_all_ranks_have_the_same_bits(together: tuple[Path, Ranks], name: str) -> None:
    _, said = together
    assert sorted(each[name]["rank"] for each in said) == list(range(len(said)))
    assert len({each[name]["weights"] for each in said}) == 1
    assert len({json.dumps(each[name]["records"]) for each in said}) == 1


def test_a_rank_makes_memory_for_its_share(alone: tuple[Path, dict[str, Any]], together: tuple[Path, Ranks]) -> None:
    (_, one), (_, said) = alone, together
    for each in said:
        assert each["plain"]["capacity"] == -(-one["plain"]["capacity"] // len(said))


def test_a_training_that_one_rank_wants_to_end_ends_on_all(together: tuple[Path, Ranks]) -> None:
    _, said = together
    assert {(each["stopped"]["steps"], each["stopped"]["stopped"]) for each in said} == {
        (17, "the last rank has seen enough")
    }


def test_a_number_of_ranks_gives_the_same_bits_each_time(together: tuple[Path, Ranks], tmp_path: Path) -> None:
    _, said = together
    names = ("uneven", "adam", "bad")
    again = on_ranks(len(said), tmp_path, *names)
    assert [again[0][name]["weights"] for name in names] == [said[0][name]["weights"] for name in names]


@pytest.fixture(scope="module")
def of_four(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ranks]:
    folder = tmp_path_factory.mktemp("kept")
    return folder, on_ranks(4, folder, "kept")


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_state_of_four_ranks_goes_on_on_any_number(of_four: tuple[Path, Ranks], tmp_path: Path, count: int) -> None:
    folder, said = of_four
    shutil.copy(folder / "state.pickle", tmp_path)
    resumed = [{"resumed": train("resumed", tmp_path)}] if count == 1 else on_ranks(count, tmp_path, "resumed")
    straight = said[0]["kept"]
    assert resumed[0]["resumed"]["steps"] == straight["steps"]
    assert (resumed[0]["resumed"]["weights"] == straight["weights"]) == (count == 4)
    np.savez(tmp_path / "kept.npz", **np.load(tmp_path / "resumed.npz"))
    assert distance(folder, tmp_path, "kept") <= 1e-9


@pytest.mark.parametrize(("name", "steps"), MNIST.items())
def test_a_hundred_steps_on_mnist(mnist_folder: Path, tmp_path: Path, monkeypatch: Any, name: str, steps: int) -> None:
    monkeypatch.setenv("GPUNN_DATA", str(mnist_folder.parent))
    (one := tmp_path / "alone").mkdir()
    wanted = train(name, one)
    assert wanted["steps"] == steps
    for count in (2, 4):
        (folder := tmp_path / str(count)).mkdir()
        said = on_ranks(count, folder, name)
        assert len({each[name]["weights"] for each in said}) == 1
        assert distance(one, folder, name) <= (1e-5 if name in IN_FLOAT32 else 1e-9)
