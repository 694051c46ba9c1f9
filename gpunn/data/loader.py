"""Gather the batches of an epoch on the device, from samples that lie there or are streamed to it."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpunn.backend.base import Backend, Buffer, Mirror, Shape, channels_first
from gpunn.backend.limits import size
from gpunn.data.augmentation import Augmentation
from gpunn.data.device_inputs import DeviceInputs
from gpunn.data.memmap import Rows, in_blocks, is_mapped
from gpunn.data.samples import Samples
from gpunn.errors import OptionError, ShapeError
from gpunn.kernels import gather as kernels
from gpunn.kernels.augmentation import gather_augmented
from gpunn.kernels.record import Array

PLACES = ("auto", "device", "host")
SHARE = 0.9  # of a device's free memory, for samples; graphs and other later allocations need the rest
PIECE = 4 << 20  # bytes of one streamed copy


class InputBuffer:
    """Hold the batch of a network: as transposed rows if its first layer is a product, else samples last."""

    def __init__(self, backend: Backend, shape: Shape, capacity: int, dtype: DTypeLike, *, as_rows: bool) -> None:
        self._as_rows = as_rows
        self.shape = channels_first(shape)
        self._buffer = Buffer(backend, self.shape, capacity, dtype)
        self._views: dict[int, tuple[Array, Array]] = {}

    def views(self, n: int) -> tuple[Array, Array]:
        """Return two views of the memory for n samples: (n, features) to write, samples last to read."""
        if n not in self._views:
            memory = self._buffer[n]
            rows = memory.reshape(n, -1) if self._as_rows else memory.reshape(-1, n).T
            self._views[n] = rows, rows.T if self._as_rows else memory
        return self._views[n]


def rows_of(inputs: Any) -> Any:
    """Return samples as rows (n, features), images in the order channel, height, width; a view where possible."""
    if inputs.ndim == 4 and inputs.shape[3] > 1:
        inputs = inputs.transpose(0, 3, 1, 2)
    return inputs.reshape(len(inputs), math.prod(inputs.shape[1:]))


def row_dtype(samples: Samples, dtype: DTypeLike) -> np.dtype[Any]:
    """Return the dtype of inputs on a device: bytes stay bytes, tokens are int32, others take the network's."""
    if samples.inputs.dtype == np.uint8:
        return np.dtype(np.uint8)
    return np.dtype(np.int32 if samples.tokens else dtype)


def sizes_of(samples: int, batch_size: int) -> set[int]:
    """Return the sizes of the batches of an epoch."""
    return {min(samples, batch_size), samples % batch_size} - {0}


class DataLoader:
    """Serve samples on the device batch by batch, in the order of an epoch.

    Attributes:
        rows, targets: (places, features), bytes as bytes, and (places,) or (places, outputs), on the device.
        weights: (places,) on the device, divided by their mean so that a step needs no sum of them; or None.
        taken_weights: Weights of the last batch, (batch,); or None.
        size: Number of samples.
        order: Place of each sample of the epoch, int32 on the device.
        count: Number of samples of the epoch: all, or the share of one rank.
        batch_size: Number of samples in a full batch.
        is_streamed: Whether the samples lie on the host, and reach the device piece by piece.
        placement: Line about where the samples lie and why, "" for none.
        trouble: Reason why samples arrive more slowly than they could, "" for none.
    """

    placement = trouble = ""
    is_streamed = False
    weights: Array | None = None
    taken_weights: Array | None = None

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
        self._augmentation, self._seed, self._image = augmentation, seed, channels_first(samples.shape)
        self._backend, self.samples, self.size, self.scale = backend, samples, len(samples), samples.scale
        self.row_dtype = row_dtype(samples, dtype)
        self.target_dtype = np.dtype(np.int32 if samples.targets.ndim == 1 else dtype)
        self.batch_size = self._capacity = 0
        self.count = self.size
        given = samples.weights
        self._weights = None if given is None else (given / given.mean()).astype(dtype)
        self._place()

    def _place(self) -> None:
        backend, inputs = self._backend, self.samples.inputs
        if backend.device == "cpu" and isinstance(inputs, np.ndarray):
            self.rows = backend.asarray(np.ascontiguousarray(rows_of(inputs)), self.row_dtype)
        elif isinstance(inputs, DeviceInputs) and backend.device != "cpu":
            rows = inputs.computed(rows_of)
            self.rows = backend.asarray(rows, self.row_dtype)
            if self.rows is not rows:  # their memory may then be taken for work of another stream
                backend.synchronize()
        else:
            self.rows = backend.empty((self.size, math.prod(self.samples.shape)), self.row_dtype)
            for start, part in in_blocks(inputs):
                rows = np.ascontiguousarray(rows_of(part), self.row_dtype)
                backend.assign(self.rows[start : start + len(rows)], rows)
        self.targets = backend.asarray(self.samples.targets, self.target_dtype)
        if self._weights is not None:
            self.weights = backend.asarray(self._weights)
        self.order = backend.asarray(np.arange(self.size, dtype=np.int32))
        self._sent: Mirror | None = None  # made for the first shuffled order

    def start(self, batch_size: int, order: NDArray[np.integer] | None = None, first: int = 0) -> None:
        """Begin an epoch at batch number `first`, in the order of the samples unless `order` is given."""
        self.batch_size = batch_size
        if order is not None or self._sent is not None:
            self._sent = self._sent or self._backend.mirror(self.order)
            order = np.arange(self.size, dtype=np.int32) if order is None else order
            self.count = len(order)
            self._sent.send(order)

    def take(self, clock: Array, n: int, rows: Array, first: int = 0) -> Array:
        """Begin a step: gather n samples from order[step · batch_size] on into `rows` (n, features); return targets.

        `first` is the number of the first sample in the batch of all ranks; it seeds the augmentation.
        """
        if n > self._capacity:
            self._capacity = max(n, self.batch_size)
            self._taken = Buffer(self._backend, self.samples.targets.shape[1:], self._capacity, self.target_dtype)
            if self.weights is not None:
                self._weights_taken = Buffer(self._backend, (), self._capacity, self.weights.dtype)
        targets = self._taken[n]
        batch = (self.rows, self.targets, self.order, clock, self.batch_size, self.scale)
        if self._augmentation is None:
            self._backend.run(kernels.gather, *batch, rows, targets)
        else:
            drawn = (self._seed, first, self._augmentation.limits, self._image)
            self._backend.run(gather_augmented, *batch, *drawn, rows, targets)
        if self.weights is not None:
            self.taken_weights = self._weights_taken[n]
            self._backend.run(kernels.gather_weights, self.weights, *batch[2:5], self.taken_weights)
        return targets

    @property
    def available(self) -> int:
        """Number of samples that may be taken before the next call of `advance`."""
        return self.count

    def advance(self, n: int) -> None:
        """Record that work on n more samples has been enqueued; it may still be running."""


class StreamingLoader(DataLoader):
    """Stream samples from the host: while the device computes on one piece, gather and copy the next."""

    is_streamed = True

    def _place(self) -> None:
        """Place nothing on the device before the first epoch."""

    def start(self, batch_size: int, order: NDArray[np.integer] | None = None, first: int = 0) -> None:
        if batch_size != self.batch_size:
            self._make_room(batch_size)
        self._epoch, self._done = np.arange(self.size) if order is None else order, first * batch_size
        self.count = len(self._epoch)
        for half in self._halves:  # after an epoch that was broken off
            half.release()
        self._stage(self._done // self._piece)

    def _make_room(self, batch_size: int) -> None:
        """Allocate two pieces on the device, and the order of the places in them."""
        backend, features = self._backend, math.prod(self.samples.shape)
        most = min(PIECE, backend.free_bytes() // 4)  # two pieces take half of what is left
        batches = min(max(1, most // (batch_size * features * self.row_dtype.itemsize)), -(-self.size // batch_size))
        self._piece = size = batches * batch_size
        self.batch_size = batch_size
        self.rows = backend.empty((2 * size, features), self.row_dtype)
        self.targets = backend.empty((2 * size, *self.samples.targets.shape[1:]), self.target_dtype)
        self.order = backend.asarray(np.arange(self.size, dtype=np.int32) % np.int32(2 * size))
        halves = (slice(size), slice(size, 2 * size))
        arrays = [self.rows, self.targets]
        if self._weights is not None:
            self.weights = backend.empty((2 * size,), self._weights.dtype)
            arrays.append(self.weights)
        self._halves = [backend.staging(*(array[half] for array in arrays)) for half in halves]
        self.trouble = next((half.trouble for half in self._halves if half.trouble), "")

    def _stage(self, number: int) -> None:
        """Gather a piece of the epoch, and begin to copy it."""
        half, places = self._halves[number % 2], self._epoch[number * self._piece :][: self._piece]
        half.claim()
        inputs: Any = self.samples.inputs
        rows, targets, *others = (array[: len(places)] for array in half.host)
        targets[...] = self.samples.targets[places]
        if self._weights is not None:
            others[0][...] = self._weights[places]
        if isinstance(inputs, Rows) and inputs.in_file:
            inputs, places = inputs.array, inputs.numbers[places]
        is_plane = inputs.ndim != 4 or inputs.shape[3] == 1
        if isinstance(inputs, np.ndarray) and is_plane and inputs.dtype == rows.dtype and inputs.flags.aligned:
            np.take(inputs.reshape(len(inputs), -1), places, axis=0, out=rows, mode="clip")
        else:  # NumPy's take would copy the whole of an array that is not aligned
            rows[...] = rows_of(inputs[places])
        half.upload(len(places))

    @property
    def available(self) -> int:
        return self._piece - self._done % self._piece

    def advance(self, n: int) -> None:
        self._done += n
        if self._done % self._piece == 0 and self._done < self.count:
            # The device is busy with this piece while the host gathers the next.
            self._halves[(self._done // self._piece - 1) % 2].release()
            self._stage(self._done // self._piece)


def checked_place(data_on: str) -> str:
    """Check the option data_on; raise OptionError for an unknown place."""
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
) -> DataLoader:
    """Place samples on the "device", or stream them from the "host"; "auto" takes the device if they fit."""
    if backend.device == "cpu" and isinstance(samples.inputs, DeviceInputs):
        samples = replace(samples, inputs=samples.inputs[:])
    is_host, is_file, needed = backend.device == "cpu", is_mapped(samples.inputs), bytes_on_device(samples, dtype)
    fits, reason = checked_place(data_on) == "device", ""
    if data_on == "auto":
        free = 0 if is_host else max(0, backend.free_bytes() - later)
        fits = not is_file if is_host else needed <= SHARE * free
        reason = f", where {size(free)} are free"
    loader = (DataLoader if fits else StreamingLoader)(backend, samples, dtype, augmentation, seed)
    source, device = "their file" if is_file else "memory", backend.device
    way = f"read from {source} as they are used" if is_host else f"streamed from {source} to {device}{reason}"
    if not (fits and is_host):
        loader.placement = f"{device}: {size(needed)}" if fits else f"the host: {size(needed)}, {way}"
    return loader


def bytes_on_device(samples: Samples, dtype: DTypeLike) -> int:
    """Return the bytes of inputs, targets, weights and order on a device."""
    inputs, targets, item = samples.inputs, samples.targets, np.dtype(dtype).itemsize
    of_inputs, of_targets = row_dtype(samples, dtype).itemsize, 4 if targets.ndim == 1 else item
    of_sample = 4 + (0 if samples.weights is None else item)
    return math.prod(inputs.shape) * of_inputs + targets.size * of_targets + of_sample * len(samples)


def bytes_on_host(samples: Samples, dtype: DTypeLike) -> int:
    """Return the bytes of the converted copy that a CPU training keeps beside the samples."""
    inputs = samples.inputs
    is_kept = inputs.dtype == row_dtype(samples, dtype) and (inputs.ndim != 4 or inputs.shape[3] == 1)
    if not is_kept and not is_mapped(inputs):
        return bytes_on_device(samples, dtype)
    return 0 if samples.weights is None else len(samples) * np.dtype(dtype).itemsize
