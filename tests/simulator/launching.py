"""Launching a compiled kernel on host memory: arguments as the runtime takes them, and what it reports."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simulator.compiler import Program, load, runtime

MAX_THREADS = 1024
MAX_GRID = (2**31 - 1, 65535, 65535)


class KernelError(AssertionError):
    """What a kernel did wrong: a race, a barrier that not all threads reach, an access outside of an array, ..."""


class _Region(ctypes.Structure):
    _fields_ = (
        ("begin", ctypes.c_void_p),
        ("end", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("cells", ctypes.c_void_p),
        ("cells_from", ctypes.c_void_p),
        ("granule", ctypes.c_longlong),
    )


class _Argument(ctypes.Structure):
    _fields_ = (
        ("address", ctypes.c_void_p),
        ("shape_and_strides", ctypes.c_void_p),
        ("region", _Region),
        ("item_size", ctypes.c_longlong),
        ("is_array", ctypes.c_int),
        ("is_written", ctypes.c_int),
    )


@dataclass(frozen=True)
class ArrayArgument:
    """An array as a kernel gets it: its address, the memory that it spans, and how it lies there."""

    name: str
    address: int
    begin: int
    end: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    item_size: int
    is_written: bool


@dataclass(frozen=True)
class ScalarArgument:
    """A number that is given to a kernel by value."""

    value: np.generic


Argument = ArrayArgument | ScalarArgument


@dataclass
class Scheduling:
    """In which order threads run, and whether races are looked for.

    Attributes:
        seed: of the next launch; each takes the next. Seeds 0 to 3 run threads forwards, backwards, mixed, by warps;
            4 to 7 let them hand over at shared memory too; and so on with other random numbers.
        races: whether two threads at one element are an error. It takes several times as long.
        fixed: whether the seed stays.
    """

    seed: int = 0
    races: bool = True
    fixed: bool = False


def extent(array: np.ndarray) -> tuple[int, int]:
    """First and one past the last byte that the elements of an array take."""
    begin = end = array.__array_interface__["data"][0]  # array.ctypes.data, at a fifth of its time
    if array.size == 0:
        return begin, end
    for size, stride in zip(array.shape, array.strides, strict=True):
        begin += min(0, (size - 1) * stride)
        end += max(0, (size - 1) * stride)
    return begin, end + array.itemsize


def array_argument(name: str, array: np.ndarray, is_written: bool) -> ArrayArgument:
    """An array of host memory as an argument."""
    begin, end = extent(array)
    return ArrayArgument(name, array.ctypes.data, begin, end, array.shape, array.strides, array.itemsize, is_written)


def launch(
    program: Program,
    grid: Sequence[int],
    block: Sequence[int],
    arguments: Sequence[Argument],
    scheduling: Scheduling,
) -> tuple[int, int]:
    """Run a kernel to its end.

    Returns:
        The bytes it has read and written in its arrays.

    Raises:
        KernelError: it did what a kernel must not.
    """
    grid, block = (*grid, 1, 1)[:3], (*block, 1, 1)[:3]
    threads = block[0] * block[1] * block[2]
    if not 0 < threads <= MAX_THREADS or any(not 0 < g <= m for g, m in zip(grid, MAX_GRID, strict=True)):
        raise KernelError(f"{program.name}: no device starts {grid} blocks of {block} threads")
    packed = (_Argument * max(1, len(arguments)))()
    keep: list[object] = []
    for slot, argument in zip(packed, arguments, strict=False):
        if isinstance(argument, ScalarArgument):
            value = np.array(argument.value)
            keep.append(value)
            slot.address = value.ctypes.data
            continue
        layout = np.array([len(argument.shape), *argument.shape, *argument.strides], np.int64)
        keep.append(layout)
        slot.address, slot.shape_and_strides = argument.address, layout.ctypes.data
        slot.region.begin, slot.region.end = argument.begin, argument.end
        slot.region.name = argument.name.encode()
        slot.item_size = argument.item_size
        slot.is_array, slot.is_written = 1, argument.is_written
    library = runtime()
    read = ctypes.c_longlong.in_dll(library, "sim_bytes_read")
    written = ctypes.c_longlong.in_dll(library, "sim_bytes_written")
    read.value = written.value = 0
    problem = library.sim_launch(
        load(program),
        packed,
        ctypes.c_int(len(arguments)),
        (ctypes.c_uint * 3)(*grid),
        (ctypes.c_uint * 3)(*block),
        ctypes.c_ulonglong(scheduling.seed),
        ctypes.c_int(program.synchronizes),
        ctypes.c_int(scheduling.races),
    )
    if not scheduling.fixed:
        scheduling.seed += 1
    if problem:
        raise KernelError(f"{program.name}, schedule {scheduling.seed - (not scheduling.fixed)}: {problem.decode()}")
    return read.value, written.value
