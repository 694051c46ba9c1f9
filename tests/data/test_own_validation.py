"""Validation samples of one's own: in arrays and in a .npz file."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunn as gn
from gpunn.data import Data, load_data
from gpunn.errors import DataError

X, Y = np.arange(24, dtype=np.float32).reshape(8, 3), np.tile([0, 1], 4)
OWN = X[:2] + 100, Y[:2]


@pytest.mark.parametrize("own", [OWN, gn.Samples(*OWN)], ids=["pair", "samples"])
def test_own_validation_samples_are_validated_on_and_all_others_learned_from(own: Any) -> None:
    data = Data.from_arrays(X, Y, validation=own, test=(X[:1], Y[:1]))
    assert data.validation is not None
    assert (len(data.train), data.validation.inputs.tolist(), data.has_test) == (8, OWN[0].tolist(), True)
    assert not data.validation_is_test


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ((OWN[0][:, :2], OWN[1]), r"expected inputs of shape \(3,\) as in training, got \(2,\)"),
        ((OWN[0], ["a", "b"]), "label 'a' at index 0 is no class"),
        ((OWN[0],), "validation is "),
        ((OWN[0], OWN[1][:1]), "differ in length: 2 inputs, 1 targets"),
        ((OWN[0], [0, 2]), r"expected 0 to 1 \(2 classes\), got 2 at index 1"),
    ],
)  # fmt: skip
def test_validation_samples_that_do_not_fit_are_refused(own: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        Data.from_arrays(X, Y, validation=own)


def test_a_npz_file_may_hold_its_validation_samples(tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    for names in (("x", "y"), ("x_train", "y_train")):
        np.savez(path, **dict(zip(names, (X, Y), strict=True)), x_validation=OWN[0], y_validation=OWN[1])
        data = load_data(path)
        assert data.validation is not None
        assert (len(data.train), data.validation.inputs.tolist()) == (8, OWN[0].tolist())
        assert load_data(path, validation=3).validation.inputs.tolist() == OWN[0].tolist()  # type: ignore[union-attr]
        assert load_data(path, validation=0).validation is None


def test_half_of_the_validation_samples_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", x=X, y=Y, x_validation=OWN[0])
    with pytest.raises(DataError, match="has x_validation but not its other half: give x_validation and y_validation"):
        load_data(tmp_path / "own.npz")
