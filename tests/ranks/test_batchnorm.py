"""BatchNorm over ranks: the statistics of the whole batch, whatever share of it each rank has."""

import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from support.ranks import job

SECONDS = 300.0
TRAIN = """
import sys
import numpy as np
import gpunn as gn
from gpunn.backend.ranks import world
from gpunn.train.distributed import check_same_weights

out, batch_size, epochs, over, *options = sys.argv[1:]
model = gn.Sequential([
    gn.Conv2D(6, 3, padding=1), gn.BatchNorm(over=over), gn.ReLU(), gn.MaxPool2D(2),
    gn.Residual([gn.Conv2D(6, 3, padding=1), gn.BatchNorm(over=over)]), gn.ReLU(), gn.Flatten(), gn.Dropout(0.3),
    gn.Dense(20), gn.BatchNorm(over=over), gn.ReLU(), gn.Dropout(0.3), gn.Dense(10),
])
if "frozen" in options:
    model.layers[1].trainable = False
model.fit(
    gn.load_data("digits"), optimizer=gn.SGD(0.05, momentum=0.9, nesterov=True), regularizer=gn.L2(1.0),
    augmentation=gn.Augmentation(shift=1, rotation=10) if "augmented" in options else None, epochs=int(epochs),
    batch_size=int(batch_size), dtype="float64", device="cpu", seed=3, progress=False,
    recompute_statistics="recomputed" in options,
)
check_same_weights(model, "at the end")
if world().is_first:
    np.savez(out, **model.arrays())
"""
"""1293 samples: batches of 50 end in one of 43, of 129 in one of 3, of which a fourth rank has none."""


def trained(
    folder: Path, ranks: int, batch_size: int, epochs: int = 1, over: str = "batch", *options: str
) -> dict[str, np.ndarray]:
    out = folder / f"{ranks}.npz"
    with job(ranks, sys.executable, "-c", TRAIN, out, batch_size, epochs, over, *options, folder=folder) as started:
        done = started.done(SECONDS)
    assert done.code == 0, done.err
    with np.load(out) as arrays:
        return dict(arrays)


@cache
def by_one(folder: Path, batch_size: int, epochs: int, *options: str) -> dict[str, np.ndarray]:
    return trained(folder, 1, batch_size, epochs, "batch", *options)


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("one")


def distance(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    """The relative L2 distance of all weights and statistics."""
    flat = [np.concatenate([each[name].ravel() for name in sorted(one)]) for each in (one, other)]
    return float(np.linalg.norm(flat[0] - flat[1]) / np.linalg.norm(flat[0]))


@pytest.mark.parametrize(("ranks", "batch_size"), [(3, 50), (4, 129), (2, 129)])
def test_ranks_train_as_one_process(tmp_path: Path, shared_folder: Path, ranks: int, batch_size: int) -> None:
    several = trained(tmp_path, ranks, batch_size, 3, "batch", "augmented")
    assert distance(by_one(shared_folder, batch_size, 3, "augmented"), several) <= 1e-9


def test_statistics_are_recomputed_as_by_one_process(tmp_path: Path, shared_folder: Path) -> None:
    several = trained(tmp_path, 3, 129, 1, "batch", "recomputed")
    assert distance(by_one(shared_folder, 129, 1, "recomputed"), several) <= 1e-9


def test_a_frozen_layer_tells_the_other_ranks_nothing(tmp_path: Path, shared_folder: Path) -> None:
    several = trained(tmp_path, 4, 129, 1, "batch", "frozen")
    one = by_one(shared_folder, 129, 1, "frozen")
    assert distance(one, several) <= 1e-9
    assert (several["batchnorm1.mean"] == 0).all()


def test_a_rank_may_normalize_by_itself_and_all_still_remember_the_same(tmp_path: Path, shared_folder: Path) -> None:
    """`check_same_weights` in the training, and the mean of the batch in the first layer, whose inputs are the same."""
    several = trained(tmp_path, 2, 50, 1, "rank")
    one = by_one(shared_folder, 50, 1)
    assert 1e-3 < distance(one, several) < 1


def test_a_share_of_one_sample_cannot_be_normalized_by_itself(tmp_path: Path) -> None:
    with job(4, sys.executable, "-c", TRAIN, tmp_path / "out", 129, 1, "rank", folder=tmp_path) as started:
        done = started.done(SECONDS)
    assert done.code != 0
    assert "needs at least two values a channel on each rank" in done.err
