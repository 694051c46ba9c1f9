"""Keep inputs on a CUDA device, in memory of CuPy or another library."""

from collections.abc import Callable
from math import prod
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpunn.backend.cuda import CupyBackend
from gpunn.backend.devices import backend_of
from gpunn.data.memmap import Rows
from gpunn.kernels.record import Array


class DeviceInputs(Rows):
    """Inputs on a CUDA device; indexing copies the picked rows to the host.

    Args:
        array: CuPy array of the inputs.
        is_checked: Whether shape, type and values were checked.
    """

    in_file = False

    def __init__(self, array: Array, *, is_checked: bool = False) -> None:
        self.array, self.is_checked = array, is_checked
        self.shape, self.dtype = tuple(array.shape), np.dtype(array.dtype)
        self.ndim, self.size = len(self.shape), prod(self.shape)
        self.nbytes = self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, key: Any) -> NDArray[Any]:
        return self._to_host(self.computed(lambda array: array[key]))

    def computed(self, work: Callable[[Array], Any]) -> Any:
        """Return the result of `work` on the array, run while no other thread records a graph on its device."""
        backend = backend_of(self.array)
        if not isinstance(backend, CupyBackend):
            return work(self.array)
        with backend.lock, backend.current:
            return work(self.array)

    def reshape(self, *shape: int) -> Self:
        return type(self)(self.computed(lambda array: array.reshape(shape)), is_checked=self.is_checked)

    def only(self, key: NDArray[Any] | slice) -> Self:
        return type(self)(self.computed(lambda array: array[key]), is_checked=self.is_checked)

    def astype(self, dtype: DTypeLike) -> Self:
        """Return the inputs in another type, on the device too."""
        return type(self)(self.computed(lambda array: array.astype(dtype)))

    def extremes(self) -> NDArray[Any]:
        """Return the least and the largest number, NaN if there is one, on the host."""
        if not self.size:
            return np.empty(0, self.dtype)
        both = self.computed(lambda array: (array.min(), array.max()))
        return np.concatenate([self._to_host(number).ravel() for number in both])

    def _to_host(self, array: Array) -> NDArray[Any]:
        backend = backend_of(array)
        return backend.to_host(backend.asarray(array))  # whose stream first waits for that of the array
