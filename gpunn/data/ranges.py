"""The range of inputs: whole numbers that are pixels, and what numbers a network trains on."""

import logging

import numpy as np

from gpunn.data.memmap import Inputs, in_blocks, is_mapped

log = logging.getLogger(__name__)

REACH = 20
"""Beyond this, either way, numbers make a network's first sums so large that it does not learn."""

_BITS = (8, 10, 12, 14, 16, 24, 32, 64)


def bit_depth(most: float) -> int:
    """The largest whole number of as many bits as pixels have, 8, 10, 12, 14 or 16, that numbers up to `most` need."""
    return next((2**bits - 1 for bits in _BITS if most <= 2**bits - 1), 2**64 - 1)


def scaled_as_pixels(array: Inputs) -> tuple[Inputs, float]:
    """Inputs whose scale was left open, with what a network multiplies them with.

    Whole numbers of any width from 0 to 255 become bytes and are divided by 255 as bytes are; of images, and of uint16,
    those up to 65,535 by the most of their bits. A line says so. Numbers up to 20 and floats are left alone.
    """
    if (
        array.dtype.kind not in "iu"
        or not array.size
        or not array.ndim
        or (array.dtype == np.uint8 and is_mapped(array))
    ):
        return array, 1 / 255 if array.dtype == np.uint8 else 1.0
    extremes = [(int(rows.min()), int(rows.max())) for _, rows in in_blocks(array)]
    low, high = min(low for low, _ in extremes), max(high for _, high in extremes)
    if array.dtype == np.uint8:
        if high != 1:
            return array, 1 / 255
        log.warning("inputs are bytes from 0 to 1: they are not divided by 255 (scale=1/255 does)")
        return array, 1.0
    if low < 0 or not REACH < high <= 65_535:
        return array, 1.0
    if high <= 255:
        log.warning(
            "inputs are whole numbers from %d to %d: divided by 255, as bytes are (scale=1 keeps them)", low, high
        )
        return np.asarray(array, np.uint8), 1 / 255
    if array.ndim > 2 or array.dtype == np.uint16:
        most = bit_depth(high)
        log.warning("inputs are whole numbers from %d to %d: divided by %d (scale=1 keeps them)", low, high, most)
        return array, 1 / most
    return array, 1.0
