"""Arrays of the simulated device: the small part of `cupy.ndarray` that gpunn uses, and nothing that CuPy refuses."""

import math
from typing import Any

import numpy as np

from simulator.machine import Block, Machine


class MemoryPointer:
    """An address in a block of device memory."""

    def __init__(self, block: Block, offset: int) -> None:
        self.mem = block
        self.ptr = block.address + offset

    def copy_from_host_async(self, mem: int, size: int, stream: Any = None) -> None:
        """Copy from pinned memory, when the stream comes to it."""
        machine = self.mem.machine
        machine.upload(self.mem, self.ptr - self.mem.address, mem, size, stream or machine.current_stream())

    def __add__(self, offset: int) -> "MemoryPointer":
        return MemoryPointer(self.mem, self.ptr - self.mem.address + offset)


class _Device:
    def __init__(self, number: int) -> None:
        self.id = number


class _Flags:
    def __init__(self, host: np.ndarray) -> None:
        self.c_contiguous, self.f_contiguous = host.flags.c_contiguous, host.flags.f_contiguous


class DeviceArray:
    """An array of the simulated device.

    Its numbers are in `host`, which only the simulator may look at: whoever wants them on the host must `get` them.
    """

    machine: Machine  # of the class that `install` makes
    __array_ufunc__ = None  # no function of NumPy takes it

    def __init__(
        self, shape: Any, dtype: Any = float, memptr: MemoryPointer | None = None, strides: Any = None
    ) -> None:
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        dtype = np.dtype(dtype)
        nbytes = math.prod(shape) * dtype.itemsize
        if memptr is None:
            memptr = MemoryPointer(self.machine.allocate(nbytes, dtype), 0)
        offset = memptr.ptr - memptr.mem.address
        self._set(memptr.mem, np.ndarray(shape, dtype, memptr.mem.bytes, offset, strides))

    def _set(self, block: Block, host: np.ndarray) -> None:
        self.block, self.host = block, host

    def view_as(self, host: np.ndarray) -> "DeviceArray":
        """Another view of the same memory."""
        view = object.__new__(type(self))
        view._set(self.block, host)
        return view

    # What it is

    shape = property(lambda self: self.host.shape)
    strides = property(lambda self: self.host.strides)
    dtype = property(lambda self: self.host.dtype)
    size = property(lambda self: self.host.size)
    ndim = property(lambda self: self.host.ndim)
    itemsize = property(lambda self: self.host.itemsize)
    nbytes = property(lambda self: self.host.nbytes)
    flags = property(lambda self: _Flags(self.host))
    device = property(lambda self: _Device(0))
    data = property(lambda self: MemoryPointer(self.block, self.host.ctypes.data - self.block.address))

    def __len__(self) -> int:
        return len(self.host)

    # Views

    T = property(lambda self: self.view_as(self.host.T))

    def transpose(self, *axes: Any) -> "DeviceArray":
        return self.view_as(self.host.transpose(*axes))

    def reshape(self, *shape: Any) -> "DeviceArray":
        host = self.host.reshape(*shape)
        if self.size and not np.may_share_memory(host, self.host):
            return ascontiguousarray(self).reshape(*shape)  # a copy, as CuPy makes it
        return self.view_as(host)

    def ravel(self) -> "DeviceArray":
        return self.reshape(-1)

    def view(self, dtype: Any) -> "DeviceArray":
        return self.view_as(self.host.view(dtype))

    def __getitem__(self, key: Any) -> "DeviceArray":
        parts = key if isinstance(key, tuple) else (key,)
        for part in parts:
            if not (part is None or part is Ellipsis or isinstance(part, slice | int | np.integer)):
                raise NotImplementedError(f"the stand-in for CuPy knows no index such as {part!r}")
        # With an Ellipsis NumPy gives a view of one element too, where it else gives the number.
        return self.view_as(self.host[parts if Ellipsis in parts else (*parts, Ellipsis)])

    # Writing

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(value, np.ndarray):
            raise TypeError("the stand-in for CuPy takes no NumPy array here: give it to cupy.asarray first")
        self[key].fill(value)

    def fill(self, value: Any) -> None:
        """Set all elements, from a number or an array that broadcasts."""
        if isinstance(value, DeviceArray):
            source = np.broadcast_to(value.host, self.shape)
            memory = [value.host, self.host]
        else:
            source, memory = np.asarray(value), [self.host]
        target = self.host

        def run() -> tuple[int, int]:
            np.copyto(target, source, casting="unsafe")
            return source.nbytes if len(memory) > 1 else 0, target.nbytes

        self.machine.submit("copy" if len(memory) > 1 else "fill", run, memory, self.machine.current_stream())

    # Arithmetic, as tests use it; what gpunn computes, it computes in kernels.

    def _computed(self, function: Any, other: Any, out: "DeviceArray | None" = None) -> "DeviceArray":
        operand = other.host if isinstance(other, DeviceArray) else other
        if isinstance(operand, np.ndarray) and operand is other:
            raise TypeError(f"Unsupported type {type(other)}")
        source = self.host
        if out is None:
            out = type(self)(np.broadcast_shapes(self.shape, np.shape(operand)), np.result_type(source, operand))
        target = out.host

        def run() -> tuple[int, int]:
            function(source, operand, out=target, casting="same_kind")
            return source.nbytes, target.nbytes

        memory = [a.host for a in (self, other, out) if isinstance(a, DeviceArray)]
        self.machine.submit(function.__name__, run, memory, self.machine.current_stream())
        return out

    def __add__(self, other: Any) -> "DeviceArray":
        return self._computed(np.add, other)

    def __sub__(self, other: Any) -> "DeviceArray":
        return self._computed(np.subtract, other)

    def __mul__(self, other: Any) -> "DeviceArray":
        return self._computed(np.multiply, other)

    __radd__, __rmul__ = __add__, __mul__

    def __iadd__(self, other: Any) -> "DeviceArray":
        return self._computed(np.add, other, self)

    def __isub__(self, other: Any) -> "DeviceArray":
        return self._computed(np.subtract, other, self)

    def __imul__(self, other: Any) -> "DeviceArray":
        return self._computed(np.multiply, other, self)

    # Going to the host

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> np.ndarray:
        machine = self.machine
        machine.synchronize(f"a copy of {self.nbytes} bytes to the host", stream or machine.current_stream())
        machine.counts.copies_to_host += 1
        machine.counts.bytes_to_host += self.nbytes
        host = np.array(self.host, order="C")
        if out is not None:
            out[...] = host
        return host if out is None else out

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    # CuPy allows these, and each makes the host wait for the device: what must not wait is run under `refusing`.

    def __float__(self) -> float:
        return float(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __bool__(self) -> bool:
        return bool(self.get())

    def item(self) -> Any:
        return self.get().item()

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    __hash__ = object.__hash__


def ascontiguousarray(array: DeviceArray, dtype: Any = None) -> DeviceArray:
    """The array itself, or a copy in C order."""
    dtype = array.dtype if dtype is None else np.dtype(dtype)
    if array.flags.c_contiguous and array.dtype == dtype:
        return array
    copy = type(array)(array.shape, dtype)
    copy.fill(array)
    return copy


def asarray(kind: type[DeviceArray], values: Any, dtype: Any = None) -> DeviceArray:
    """An array of the device from anything: its own arrays as they are, others copied from the host."""
    if isinstance(values, DeviceArray):
        if dtype is None or values.dtype == np.dtype(dtype):
            return values
        copy = kind(values.shape, dtype)
        copy.fill(values)
        return copy
    host = np.asarray(values, dtype)
    if host.dtype.kind not in "biuf":
        raise ValueError(f"Unsupported dtype {host.dtype}")
    machine = kind.machine
    machine.refuse(f"a copy of {host.nbytes} bytes from the host")
    order = "F" if host.flags.f_contiguous and not host.flags.c_contiguous else "C"
    array = kind(host.shape, host.dtype)
    if order == "F":  # CuPy keeps the order of a NumPy array
        array = array.reshape(host.shape[::-1]).T
    array.host[...] = host
    machine.counts.copies_to_device += 1
    machine.counts.bytes_to_device += host.nbytes
    return array
