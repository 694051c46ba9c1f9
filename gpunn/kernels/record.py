"""The records that every operation is made of: CUDA source and NumPy twin, side by side.

Both bodies of a record take the same arguments in the same order and write into arrays that the caller owns.
This package imports NumPy only: turning a record into a running CUDA kernel is the backend's work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, TypeAlias

Array: TypeAlias = Any
"""An array of the backend in use: `numpy.ndarray` or `cupy.ndarray`. Which of them is known only at run time."""

registry: dict[str, Elementwise | Raw] = {}
"""Every kernel by name, for the tests, the self-test of `gpunn doctor`, and the compile test."""


def _register(kernel: Elementwise | Raw) -> None:
    # A cell of a notebook that is run again defines its kernels again; those of the library have their names for good.
    first = registry.get(kernel.name)
    if first is not None and (getattr(first.host, "__module__", None) or "").startswith("gpunn."):
        raise ValueError(f"two kernels are called {kernel.name!r}: one is of gpunn, choose another name for yours")
    registry[kernel.name] = kernel


@dataclass(frozen=True, eq=False)
class Elementwise:
    """One operation on each element of arrays that broadcast together.

    Args:
        name: its name in the registry, and of the CUDA function.
        inputs: parameters in the notation of `cupy.ElementwiseKernel`; `T` is the dtype of the network,
            `raw` marks an array that is indexed by hand, `i` is the element's number.
        outputs: parameters that are written. They may be read first, and may be the same array as an input.
        operation: CUDA C++ for one element; left out, the kernel is for the CPU only.
        host: the NumPy twin, called with the same arguments.
        preamble: CUDA C++ that stands before the kernel: functions that the operation calls.
    """

    name: str
    inputs: str = ""
    outputs: str = ""
    operation: str = ""
    _: KW_ONLY
    host: Callable[..., None]
    preamble: str = ""

    def __post_init__(self) -> None:
        _register(self)


@dataclass(frozen=True)
class Launch:
    """How a raw kernel is started: blocks, threads a block, and what its CUDA function is given."""

    blocks: int | tuple[int, int, int]
    threads: int
    arguments: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Raw:
    """One operation that needs more than its own element: a reduction, a gather, a convolution.

    Args:
        name: its name in the registry, and of the `extern "C" __global__` function in `source`.
        source: CUDA C++ in which `T` is the dtype of the network. Python integers arrive as `int`, floats as `T`. Left
            out, the kernel is for the CPU only, and `launch` is left out too.
        launch: from the arguments of a call to its grid, block and CUDA arguments.
        host: the NumPy twin, called with the same arguments as `launch`.
        types: the type names of `source`, each with the number of the argument whose dtype it is.
        preamble: CUDA C++ that stands before the source: functions that it calls.
        options: for the compiler.
    """

    name: str
    source: str = ""
    _: KW_ONLY
    launch: Callable[..., Launch] = lambda *_: Launch(0, 0, ())
    host: Callable[..., None]
    types: Mapping[str, int] = field(default_factory=lambda: {"T": 0})
    preamble: str = ""
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _register(self)


def blocks_for(elements: int, threads: int) -> int:
    """Blocks of `threads` threads that cover `elements` elements, one each."""
    return (elements + threads - 1) // threads
