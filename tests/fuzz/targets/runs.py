"""Run folders that others made: what their experiment says, beside a good network, when it is asked about an image."""

from pathlib import Path

import numpy as np
from PIL import Image

from fuzz.harness import Target
from fuzz.targets import experiments
from fuzz.targets.images import encoded
from fuzz.targets.models import a_model, limited
from gpunn.experiments.folder import EXPERIMENT, MODEL
from gpunn.experiments.predict import format_answers, predict_files
from gpunn.saving.model_file import model_bytes

_IMAGE = "image.png"
_NETWORK = "layers = ['ReLU']\noptimizer = 'SGD'\n[data]\nshape = "


def _read(path: Path) -> None:
    folder = path.parent / "run"
    if not folder.exists():
        folder.mkdir()
        (folder / MODEL).write_bytes(model_bytes(a_model()))
        (folder / _IMAGE).write_bytes(encoded(Image.fromarray(255 * np.eye(9, dtype=np.uint8)), "PNG"))
    (folder / EXPERIMENT).write_bytes(path.read_bytes())
    format_answers(predict_files(str(folder), [str(folder / _IMAGE)], "cpu", note=lambda _: None), "json")


TARGET = Target(
    name="runs",
    read=limited(_read),
    seeds=lambda: {"shape": f"{_NETWORK}[6, 5, 1]".encode(), "no shape": f"{_NETWORK}[]".encode()},
    hostile={
        **experiments.TARGET.hostile,
        "a shape below 0": lambda: f"{_NETWORK}[-6, -5, 1]".encode(),
        "another shape of as many": lambda: f"{_NETWORK}[1, 30, 1]".encode(),
        "a shape of colours": lambda: f"{_NETWORK}[2, 5, 3]".encode(),
        "a shape beyond a word": lambda: f"{_NETWORK}[2147483647, 2147483647, 1]".encode(),
    },
    words=experiments.TARGET.words,
)
