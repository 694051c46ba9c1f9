"""Write the prepared input of a picture beside it, enlarged."""

import hashlib
import io
import os
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.data.training_inputs import TrainingInputs
from gpunn.files import open_regular, write_atomically

_START = 200  # bytes that hold the mark
_SIDE = 280  # least pixels of the longer side


def write_input_image(
    path: Path, inputs: NDArray[Any], shape: tuple[int, int, int], trained_on: TrainingInputs | None
) -> Path:
    """Write the prepared input of an image beside it as `name.seen.png`; never replace a file of another origin."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    pixels = _pixels(inputs.reshape(shape), trained_on)
    times = max(1, -(-_SIDE // max(shape[:2])))
    image = Image.fromarray(np.rint(255 * pixels.clip(0, 1)).astype(np.uint8).repeat(times, 0).repeat(times, 1))
    mark, held = PngInfo(), io.BytesIO()
    mark.add_text("Software", _mark_of(path))
    image.save(held, "PNG", pnginfo=mark)
    names = (path.with_name(f"{path.stem}.seen{f'-{number}' * (number > 1)}.png") for number in count(1))
    target = next(name for name in names if not os.path.lexists(name) or _is_ours(name, _mark_of(path)))
    write_atomically(target, held.getvalue())
    return target


def _pixels(inputs: NDArray[Any], trained_on: TrainingInputs | None) -> NDArray[Any]:
    """Return pixels from 0 to 1 of inputs (height, width, channels); (height, width) if there is one channel."""
    if inputs.dtype == np.uint8:
        pixels = inputs / 255
    elif trained_on is None:
        pixels = inputs
    else:
        black, white = trained_on.pixel_range
        given = inputs / (trained_on.scale if trained_on.is_bytes else 1.0)
        pixels = (given - black) / np.where(white > black, white - black, 1)
    return pixels[..., 0] if pixels.shape[2] == 1 else pixels


def _mark_of(path: Path) -> str:
    """Return the mark of an image's picture, by which a later call may replace it."""
    return f"gpunn predict --show {hashlib.sha256(os.fsencode(path.name)).hexdigest()}"


def _is_ours(path: Path, mark: str) -> bool:
    """Return whether an earlier call wrote the file for the same image, by the mark in its first bytes."""
    if path.is_symlink() or not path.is_file():
        return False
    try:
        with open_regular(path) as file:
            return mark.encode() in file.read(_START)
    except OSError:
        return False
