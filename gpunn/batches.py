"""Batches: samples on the device in their smallest form, gathered and converted one batch at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpunn.augmentation import Augmentation
from gpunn.backend import Backend, Buffer
from gpunn.data import Samples
from gpunn.errors import ShapeError
from gpunn.kernels import batches as kernels
from gpunn.kernels.augmentation import gather_augmented
from gpunn.kernels.kernel import Array
from gpunn.layers.base import Shape, inside


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


def rows_of(inputs: NDArray[np.generic]) -> NDArray[np.generic]:
    """Samples as rows (n, features), images in the order channel, height, width."""
    if inputs.ndim == 4 and inputs.shape[3] > 1:
        inputs = inputs.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(inputs.reshape(len(inputs), -1))


class Batches:
    """Samples that lie on a device as they came, bytes as bytes.

    Args:
        backend: of the device.
        samples: inputs and targets.
        dtype: of the network, for targets that are no labels.
        augmentation: how images are changed when they are taken.
        seed: of the augmentation.

    Raises:
        ShapeError: samples that are no images are to be augmented.
    """

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
        self._run = backend.run
        self.size = len(samples)
        self.scale = samples.scale
        rows = rows_of(np.asarray(samples.inputs))
        if rows.dtype != np.uint8:
            rows = rows.astype(dtype, copy=False)
        self.rows = backend.asarray(rows)
        self.has_labels = samples.targets.ndim == 1
        self.targets = backend.asarray(samples.targets, np.int32 if self.has_labels else dtype)
        shape = () if self.has_labels else (samples.targets.shape[1],)
        self._taken = {"backend": backend, "shape": shape, "dtype": self.targets.dtype}
        self._capacity = 0

    def take(self, order: Array, clock: Array, batch_size: int, n: int, rows: Array) -> Array:
        """Begin a step: gather the n samples that begin at order[step · batch_size].

        Args:
            order: int32 permutation of the samples.
            clock: which step it is; see `gpunn.kernels.batches`.
            batch_size: samples of a full batch.
            n: samples of this one.
            rows: (n, features), where the converted inputs go.

        Returns:
            The targets: int32 labels (n,), or (outputs, n).
        """
        if n > self._capacity:
            self._buffer, self._capacity = (
                Buffer(capacity=max(n, batch_size), **self._taken),
                max(n, batch_size),
            )
        targets = self._buffer[n]
        batch = (self.rows, self.targets, order, clock, batch_size, self.scale)
        if self._augmentation is None:
            self._run(kernels.gather, *batch, rows, targets)
        else:
            drawn = (self._seed, self._augmentation.limits, self._image)
            self._run(gather_augmented, *batch, *drawn, rows, targets)
        return targets
