"""List the pictures of docs/images/ with the command for each, COMMANDS.

python benchmarks/pictures.py RUN [NAME ...] makes small files of the pictures in a run folder.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

from gpunn.reports.predictions import CONFUSION, MISTAKES
from gpunn.train.curves import CURVES

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"

_MNIST = "gpunn train mnist --out RUN && python benchmarks/pictures.py RUN"
_LENET = (
    "gpunn train mnist --recipe lenet --epochs 4 --out RUN && python benchmarks/pictures.py RUN filters activations"
)
_CHARTS = "python benchmarks/write_docs.py"
_NIELSEN = "python benchmarks/nielsen_curves.py"

COMMANDS = {
    "activations.png": _LENET,
    "benchmarks-cpu-2.png": _CHARTS,
    "benchmarks-cpu.png": _CHARTS,
    "confusion.png": _MNIST,
    "curves.png": _MNIST,
    "filters.png": _LENET,
    "growth-cpu.png": _CHARTS,
    "learning-rate.png": "gpunn lr-find digits && python benchmarks/pictures.py . learning-rate",
    "mistakes.png": _MNIST,
    "nielsen-overfitting.png": _NIELSEN,
    "nielsen-regularized.png": _NIELSEN,
    "reconstructions.png": (
        "gpunn train --recipe autoencoder --out RUN && python benchmarks/pictures.py RUN reconstructions"
    ),
    "serve.png": "gpunn train mnist --recipe lenet --epochs 4 --out RUN && python benchmarks/page.py RUN",
}


def shrink(source: Path, target: Path) -> None:
    """Reduce a picture to 256 colours, a third of its size."""
    Image.open(source).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(target, optimize=True)


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    names = [f"{name}.png" for name in sys.argv[2:]] or [CURVES, CONFUSION, MISTAKES]
    for name in names:
        shrink(Path(sys.argv[1]) / name, IMAGES / name)


if __name__ == "__main__":
    main()
