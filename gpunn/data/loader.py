"""Batches: samples in their smallest form, gathered on the device and converted one batch at a time."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpunn.backend.base import Backend, Buffer, Shape, inside
from gpunn.data import Samples
from gpunn.data.augmentation import Augmentation
from gpunn.data.memmap import in_blocks
from gpunn.errors import ShapeError
from gpunn.kernels import gather as kernels
from gpunn.kernels.augmentation import gather_augmented
from gpunn.kernels.record import Array


class InputBuffer:
    """Where the network reads its batch: memory laid out as its first layer likes it.

    For a product that is batch-first, whole rows copied at once, and seen transposed, since it takes either way round;
    for everything else it is samples-last and contiguous, as inside the network.

    Args:
        backend: whose memory.
        shape: of a sample.
        capacity: samples of the largest batch.
        dtype: of the network.
        as_rows: whether the first layer is a product of features.
    """

    def __init__(self, backend: Backend, shape: Shape, capacity: int, dtype: DTypeLike, *, as_rows: bool) -> None:
        self._as_rows = as_rows
        self.shape = inside(shape)
        self._buffer = Buffer(backend, self.shape, capacity, dtype)
        self._views: dict[int, tuple[Array, Array]] = {}

    def views(self, n: int) -> tuple[Array, Array]:
        """The memory for n samples, seen as (n, features) to write and samples-last to read."""
        if n not in self._views:
            memory = self._buffer[n]
            if self._as_rows:
                rows = memory.reshape(n, -1)
                self._views[n] = rows, rows.T
            else:
                self._views[n] = memory.reshape(-1, n).T, memory
        return self._views[n]


def rows_of(inputs: Any) -> Any:
    """Turn samples into rows (n, features), images in the order channel, height, width; not copied where it can be."""
    if inputs.ndim == 4 and inputs.shape[3] > 1:
        inputs = inputs.transpose(0, 3, 1, 2)
    return inputs.reshape(len(inputs), math.prod(inputs.shape[1:]))


def sizes_of(samples: int, batch_size: int) -> set[int]:
    """The sizes of the batches that so many samples are gone through by."""
    return {min(samples, batch_size), samples % batch_size} - {0}


class Batches(ABC):
    """Samples that a network is given batch by batch, in the order of an epoch.

    Args:
        backend: of the device.
        samples: inputs and targets.
        dtype: of the network, for inputs that are no bytes and targets that are no labels.
        augmentation: how images are changed when they are taken.
        seed: of the augmentation.

    Attributes:
        rows: (places, features) on the device, bytes as bytes.
        targets: (places,) or (places, outputs) on the device.
        order: int32 on the device, the place of each sample of the epoch, one after another.
        batch_size: samples of a full batch, as `start` was told.
        samples: that they are of.
        placement: where they lie and why, in words; "" where there is nothing to say.

    Raises:
        ShapeError: samples that are no images are to be augmented.
    """

    rows: Array
    targets: Array
    order: Array
    placement: str = ""

    def __init__(
        self,
        backend: Backend,
        samples: Samples,
        dtype: DTypeLike,
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ) -> None:
        if augmentation is not None and len(samples.shape) != 3:
            raise ShapeError(f"augmentation needs images (height, width, channels), got samples of {samples.shape}")
        self._augmentation, self._seed = augmentation, seed
        self._image = inside(samples.shape)
        self._backend, self.samples = backend, samples
        self.size = len(samples)
        self.scale = samples.scale
        self.has_labels = samples.targets.ndim == 1
        self.row_dtype = np.dtype(np.uint8 if samples.inputs.dtype == np.uint8 else dtype)
        self.target_dtype = np.dtype(np.int32 if self.has_labels else dtype)
        self.batch_size = self._capacity = 0

    @abstractmethod
    def start(self, batch_size: int, order: NDArray[np.integer] | None = None, first: int = 0) -> None:
        """Begin to go through the samples.

        Args:
            batch_size: samples of a full batch.
            order: of the samples; left out, that which they have.
            first: the batch that is taken first.
        """

    def take(self, clock: Array, n: int, rows: Array) -> Array:
        """Begin a step: gather the n samples that begin at order[step · batch_size].

        Args:
            clock: which step it is; see `gpunn.kernels.gather`.
            n: samples of this batch.
            rows: (n, features), where the converted inputs go.

        Returns:
            The targets: int32 labels (n,), or (outputs, n).
        """
        if n > self._capacity:
            self._capacity = max(n, self.batch_size)
            self._taken = Buffer(self._backend, self.samples.targets.shape[1:], self._capacity, self.target_dtype)
        targets = self._taken[n]
        batch = (self.rows, self.targets, self.order, clock, self.batch_size, self.scale)
        if self._augmentation is None:
            self._backend.run(kernels.gather, *batch, rows, targets)
        else:
            drawn = (self._seed, self._augmentation.limits, self._image)
            self._backend.run(gather_augmented, *batch, *drawn, rows, targets)
        return targets

    @property
    def trouble(self) -> str:
        """Why samples come more slowly than they could; empty where they do not."""
        return ""

    @property
    def at_hand(self) -> int:
        """How many samples may be taken before the next call of `given`."""
        return self.size

    def given(self, n: int) -> None:
        """The device has been given the computing of n more samples, which has not to be done yet."""


class DeviceBatches(Batches):
    """Samples that lie on the device, all of them; see `Batches`."""

    def __init__(self, backend: Backend, samples: Samples, dtype: DTypeLike, *augmentation: Any) -> None:
        super().__init__(backend, samples, dtype, *augmentation)
        inputs = samples.inputs
        if backend.device == "cpu" and isinstance(inputs, np.ndarray):
            self.rows = backend.asarray(
                np.ascontiguousarray(rows_of(inputs)), self.row_dtype
            )  # no copy where none is needed
        else:
            self.rows = backend.empty((self.size, int(np.prod(samples.shape))), self.row_dtype)
            for start, part in in_blocks(inputs):
                rows = np.ascontiguousarray(rows_of(part), self.row_dtype)
                backend.assign(self.rows[start : start + len(rows)], rows)
        self.targets = backend.asarray(samples.targets, self.target_dtype)
        self.order = backend.asarray(np.arange(self.size, dtype=np.int32))
        self._is_shuffled = False

    def start(self, batch_size: int, order: NDArray[np.integer] | None = None, first: int = 0) -> None:
        self.batch_size = batch_size
        if order is not None or self._is_shuffled:
            self._backend.assign(self.order, np.arange(self.size, dtype=np.int32) if order is None else order)
            self._is_shuffled = order is not None
