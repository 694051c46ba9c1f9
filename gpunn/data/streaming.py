"""Samples that stay on the host, or in their file, and follow the computing to the device piece by piece."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpunn.backend.base import Backend
from gpunn.data import Samples
from gpunn.data.loader import Batches, rows_of
from gpunn.data.memmap import Rows

PIECE = 4 << 20
"""Bytes that are copied at once: long enough that what a copy costs beside its bytes is small."""


class StreamedBatches(Batches):
    """Samples that lie on the host: while the device computes with one piece, the next is gathered and copied.

    A piece is some batches in the order of the epoch. The device has room for two. As all that moves through this room
    is in order already, `order` on the device says no more than which place of it a sample has: the kernels are the
    same, one graph serves both halves, and the numbers are those of samples that lie on the device.

    See `Batches` for the arguments.
    """

    def __init__(self, backend: Backend, samples: Samples, dtype: DTypeLike, *augmentation: Any) -> None:
        super().__init__(backend, samples, dtype, *augmentation)
        self._piece = 0

    def start(self, batch_size: int, order: NDArray[np.integer] | None = None, first: int = 0) -> None:
        if batch_size != self.batch_size:
            self._make_room(batch_size)
        self._epoch = np.arange(self.size) if order is None else order
        self._done = first * batch_size
        for half in self._halves:  # an epoch that was broken off has not released what it last read
            half.release()
        self._stage(self._done // self._piece)

    def _make_room(self, batch_size: int) -> None:
        """Make buffers for two pieces, and the order of the places in them."""
        backend, features = self._backend, int(np.prod(self.samples.shape))
        bytes_of_batch = batch_size * features * self.row_dtype.itemsize
        most = min(PIECE, backend.free_bytes() // 4)  # of what is left, half for these two
        batches = min(max(1, most // bytes_of_batch), -(-self.size // batch_size))
        self._piece = size = batches * batch_size
        self.batch_size = batch_size
        self.rows = backend.empty((2 * size, features), self.row_dtype)
        self.targets = backend.empty((2 * size, *self.samples.targets.shape[1:]), self.target_dtype)
        self.order = backend.asarray(np.arange(self.size, dtype=np.int32) % np.int32(2 * size))
        self._halves = [
            backend.staging(self.rows[half], self.targets[half]) for half in (slice(size), slice(size, 2 * size))
        ]

    def _stage(self, number: int) -> None:
        """Gather a piece of the epoch, and begin to copy it."""
        half = self._halves[number % 2]
        half.claim()
        places = self._epoch[number * self._piece :][: self._piece]
        rows, targets = half.host
        self._gather(places, rows[: len(places)])
        targets[: len(places)] = self.samples.targets[places]
        half.upload(len(places))

    def _gather(self, places: NDArray[np.integer], rows: NDArray[Any]) -> None:
        inputs: Any = self.samples.inputs
        if isinstance(inputs, Rows):
            inputs, places = inputs.array, inputs.numbers[places]
        if inputs.dtype == rows.dtype and inputs.flags.aligned and (inputs.ndim != 4 or inputs.shape[3] == 1):
            np.take(inputs.reshape(len(inputs), -1), places, axis=0, out=rows, mode="clip")
        else:  # converted on the way; NumPy's take would copy the whole of an array that is not aligned
            rows[...] = rows_of(inputs[places])

    @property
    def trouble(self) -> str:
        return next((half.trouble for half in self._halves if half.trouble), "")

    @property
    def at_hand(self) -> int:
        return self._piece - self._done % self._piece

    def given(self, n: int) -> None:
        self._done += n
        if self._done % self._piece == 0 and self._done < self.size:
            # The device is busy with this piece while the host gathers the next.
            self._halves[(self._done // self._piece - 1) % 2].release()
            self._stage(self._done // self._piece)
