"""Folders of images for tests, small enough to be made anew by each."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def picture(number: int, height: int = 12, width: int = 12, channels: int = 3) -> np.ndarray:
    """Random pixels, other ones for each number."""
    pixels = np.random.default_rng(number).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return pixels[..., 0] if channels == 1 else pixels


def put_image(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    """Write pixels into an image file, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def class_folders(folder: Path, classes: tuple[str, ...] = ("cat", "dog"), each: int = 3, **shape: int) -> Path:
    """A folder for each class, with pictures."""
    for place, name in enumerate(classes):
        for number in range(each):
            put_image(folder / name / f"{number}.png", picture(100 * place + number, **shape))
    return folder
