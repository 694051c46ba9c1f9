"""Turn a photograph of a drawing into an input of a network trained on drawings, such as MNIST's digits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.data.drawings import borders
from gpunn.data.formats.image import decoded_planes, fitted, on_ground, resized
from gpunn.data.formats.ink import Ink, find_ink
from gpunn.data.training_inputs import TrainingInputs
from gpunn.errors import DataError

_FEWEST, _MOST = 320, 800  # pixels of the longer side, in the search for ink
_OLD = "is not prepared: the network does not remember how its training images are drawn, train it again"


def read_photograph(
    path: Path, form: str, size: tuple[int, int], invert: str, note: Callable[[str], None], trained_on: TrainingInputs
) -> NDArray[np.float32] | None:
    """Read the drawing in an image as (height, width, 1), 0 to 1, placed like those of the training images.

    Return None if the image needs no preparation: it is like the training images, or they are no drawings.
    """
    drawings = trained_on.drawings
    if drawings is None or not drawings.are_strokes:
        if drawings is None and trained_on.is_grey and trained_on.is_drawn:
            note(f"{path} {_OLD}")
        return None
    side = _MOST // 4
    planes, whole = decoded_planes(path, form, (side, side, 3))
    pixels = on_ground(planes, None)
    as_it_is = pixels
    if whole != size:
        as_it_is = fitted(pixels, whole, *size, np.median(borders(pixels[None])[0], axis=0))
    grey = as_it_is.mean(axis=2)
    if drawings.are_like(grey) and (whole == size or trained_on.from_files or drawings.have_strokes_of(grey)):
        return None
    is_dark = {"never": drawings.ink < drawings.ground, "always": drawings.ink > drawings.ground}.get(invert)
    found = find_ink(_scaled(pixels), is_dark)
    if found is None:
        mend = "give an image with a drawing, or leave it as it is by --no-prepare"
        raise DataError(f"{path}: nothing is drawn in it: {mend}")
    note(f"{path}: {whole[1]} × {whole[0]} pixels, {_words(found)}, placed in {size[1]} × {size[0]} as in training")
    return drawings.placed(found.amount, found.drawing, *size)[..., None]


def _words(found: Ink) -> str:
    """Describe the drawing that was found, and the parts left out."""
    left_out = ["without the ruled lines"] * found.had_lines
    if found.others:
        left_out.append(f"the largest of {found.others + 1}: give each in a picture of its own")
    without = f" ({'; '.join(left_out)})" if left_out else ""
    return f"{'dark' if found.is_dark else 'light'} drawing found{without}"


def _scaled(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """Resize an image until strokes are some pixels wide and the search is fast."""
    from PIL.Image import Resampling

    longer = max(pixels.shape[:2])
    scale = min(max(longer, _FEWEST), _MOST) / longer
    height, width = (max(1, round(length * scale)) for length in pixels.shape[:2])
    method = Resampling.BOX if scale < 1 else Resampling.BICUBIC
    return resized(pixels, height, width, method)
