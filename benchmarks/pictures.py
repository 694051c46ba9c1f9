"""The pictures of a run as small files for docs/images/.

python -m gpunn train mnist --out RUN && python benchmarks/pictures.py RUN
python -m gpunn train --recipe autoencoder --out RUN && python benchmarks/pictures.py RUN reconstructions
python -m gpunn train mnist --recipe lenet --epochs 4 --out RUN && python benchmarks/pictures.py RUN filters activations
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

from gpunn.reports.predictions import CONFUSION, MISTAKES
from gpunn.train.curves import CURVES

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"


def shrink(source: Path, target: Path) -> None:
    """The picture in 256 colours, a third of its size."""
    Image.open(source).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(target, optimize=True)


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    names = [f"{name}.png" for name in sys.argv[2:]] or [CURVES, CONFUSION, MISTAKES]
    for name in names:
        shrink(Path(sys.argv[1]) / name, IMAGES / name)


if __name__ == "__main__":
    main()
