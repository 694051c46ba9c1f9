"""Where samples lie while a network is given them: on the device, or on the host, streamed."""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import DTypeLike

from gpunn.backend.base import Backend
from gpunn.backend.limits import size
from gpunn.data import Samples
from gpunn.data.augmentation import Augmentation
from gpunn.data.loader import Batches, DeviceBatches
from gpunn.data.memmap import is_mapped
from gpunn.data.streaming import StreamedBatches
from gpunn.errors import OptionError

PLACES = ("auto", "device", "host")

SHARE = 0.9
"""Of the free memory of a device that samples may take; what is made later, such as graphs, needs some too."""


def checked_place(data_on: str) -> str:
    """Where data are to lie, if there is such a place; else an OptionError."""
    if not isinstance(data_on, str) or data_on not in PLACES:
        raise OptionError(f"data_on is {', '.join(map(repr, PLACES[:-1]))} or {PLACES[-1]!r}, got {data_on!r}")
    return data_on


def place(
    backend: Backend,
    samples: Samples,
    dtype: DTypeLike,
    augmentation: Augmentation | None = None,
    seed: int = 0,
    data_on: str = "auto",
    later: int = 0,
) -> Batches:
    """Samples for the networks of a device.

    Args:
        backend: of the device.
        samples: inputs and targets.
        dtype: of the network.
        augmentation: how images are changed when they are taken.
        seed: of the augmentation.
        data_on: "device" for all samples on the device; "host" to leave them where they are and copy each piece while
            the one before is computed with; "auto" for the device where they fit, and on the CPU for samples in memory.
        later: bytes of the device that are taken after the samples are placed.

    Returns:
        The samples; their `placement` says where they are and why. The numbers are the same either way.

    Raises:
        OptionError: no such place.
        ShapeError: samples that are no images are to be augmented.
    """
    data_on = checked_place(data_on)
    is_host, needed = backend.device == "cpu", bytes_on_device(samples, dtype)
    if data_on == "auto":
        free = 0 if is_host else max(0, backend.free_bytes() - later)
        fits = not is_mapped(samples.inputs) if is_host else needed <= SHARE * free
    else:
        fits = data_on == "device"
    kind = DeviceBatches if fits else StreamedBatches
    batches = kind(backend, samples, dtype, augmentation, seed)
    source = "their file" if is_mapped(samples.inputs) else "memory"
    if fits:
        batches.placement = "" if is_host else f"{backend.device}: {size(needed)}"
    elif is_host:
        batches.placement = f"the host: {size(needed)}, read from {source} as they are used"
    else:
        reason = f", where {size(free)} are free" if data_on == "auto" else ""
        batches.placement = f"the host: {size(needed)}, streamed from {source} to {backend.device}{reason}"
    return batches


def bytes_on_device(samples: Samples, dtype: DTypeLike) -> int:
    """What samples take on a device: inputs, bytes as bytes, targets, and their order."""
    inputs, targets = samples.inputs, samples.targets
    item = 1 if inputs.dtype == np.uint8 else np.dtype(dtype).itemsize
    target_item = 4 if targets.ndim == 1 else np.dtype(dtype).itemsize
    return prod(inputs.shape) * item + targets.size * target_item + 4 * len(samples)


def is_converted(samples: Samples, dtype: DTypeLike) -> bool:
    """Whether the host makes a copy of samples in memory, since the network takes them in another form."""
    inputs = samples.inputs
    is_kept = inputs.dtype in (np.dtype(np.uint8), np.dtype(dtype)) and (inputs.ndim != 4 or inputs.shape[3] == 1)
    return not is_kept and not is_mapped(inputs)
