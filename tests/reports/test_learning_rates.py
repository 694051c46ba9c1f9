"""The picture of the losses over the learning rate."""

import math
from pathlib import Path

import numpy as np
import pytest

from gpunn.errors import OutputError
from gpunn.reports.learning_rates import CURVE, LearningRateCurve
from gpunn.train.lr_finder import Losses


def curve(losses: np.ndarray) -> LearningRateCurve:
    return LearningRateCurve.of(Losses(np.geomspace(1e-6, 10, len(losses)), losses, np.ones(len(losses)), ""))


RATES = np.geomspace(1e-6, 10, 150)
CURVES = {
    "falls": 0.1 + 2 / (1 + (RATES / 1e-2) ** 2),
    "explodes": 0.1 + 2 / (1 + (RATES / 1e-3) ** 2) + (RATES / 0.05) ** 9,
    "constant": np.full(150, 2.3),
    "of nothing": np.zeros(150),
    "negative": -5.0 + 2 / (1 + (RATES / 1e-2) ** 2),
    "of one step": np.array([1.0]),
}


@pytest.mark.parametrize("name", CURVES)
def test_every_curve_can_be_drawn(name: str, tmp_path: Path) -> None:
    made = curve(CURVES[name])
    path = made.plot(tmp_path / "a.png", title="of $a")
    assert path == tmp_path / "a.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    assert math.isfinite(made.suggestion or 0.0)


def test_without_a_path_the_picture_is_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert curve(CURVES["falls"]).plot() == Path(CURVE)
    assert (tmp_path / CURVE).is_file()


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="nowhere"):
        curve(CURVES["falls"]).plot(tmp_path / "nowhere" / "a.png")
