"""Define the record of an operation: CUDA source beside a NumPy body.

Both bodies take the same arguments in the same order and write into arrays that the caller owns. This package imports
NumPy only: the backend turns a record into a running CUDA kernel.
"""

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, TypeAlias

Array: TypeAlias = Any  # `numpy.ndarray` or `cupy.ndarray`, which is known only at run time
Host: TypeAlias = Callable[..., None]  # the NumPy body of a record, called with the same arguments as the kernel
registry: dict[str, "Elementwise | Raw"] = {}  # every kernel by name, for the tests and the doctor's self-test


def _register(kernel: "Elementwise | Raw") -> None:
    # Running a notebook cell again defines its kernels again; the names of gpunn's own kernels are reserved.
    first = registry.get(kernel.name)
    if first is not None and (getattr(first.host, "__module__", None) or "").startswith("gpunn."):
        raise ValueError(f"two kernels are called {kernel.name!r}: one is of gpunn, choose another name for yours")
    registry[kernel.name] = kernel


@dataclass(frozen=True, eq=False)
class Elementwise:
    """Element-wise operation on arrays that broadcast together.

    Args:
        name: Name in the registry, and of the CUDA function.
        inputs: Parameters in the notation of `cupy.ElementwiseKernel`; `T` is the dtype of the network,
            `raw` marks an array that is indexed by hand, `i` is the index of the element.
        outputs: Parameters to write. The operation may read them first, and they may share memory with an input.
        operation: CUDA C++ for one element; "" for a kernel of the CPU only.
        host: NumPy body, called with the same arguments.
        preamble: CUDA C++ before the kernel, with the functions that the operation calls.
        prepare: CUDA C++ that each thread runs once before its elements, for numbers that they share.
        may_be_wide: Whether a thread may take several elements of large arrays. It then writes back every output that
            the operation leaves unchanged.
        is_listed: Whether the registry lists the kernel; kernels made from a user's equation are not listed.
    """

    name: str
    inputs: str = ""
    outputs: str = ""
    operation: str = ""
    _: KW_ONLY
    host: Host
    preamble: str = ""
    prepare: str = ""
    may_be_wide: bool = True
    is_listed: bool = True

    def __post_init__(self) -> None:
        if self.is_listed:
            _register(self)


@dataclass(frozen=True)
class Launch:
    """Number of blocks of a raw kernel, threads per block, and arguments of the CUDA function."""

    blocks: int | tuple[int, int, int]
    threads: int
    arguments: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Raw:
    """Operation across elements: a reduction, a gather, a convolution.

    Args:
        name: Name in the registry, and of the `extern "C" __global__` function in `source`.
        source: CUDA C++ in which `T` is the dtype of the network. Python integers arrive as `int`, floats as `T`. A
            kernel of the CPU only has neither `source` nor `launch`.
        launch: Function from the arguments of a call to its grid, block and CUDA arguments.
        host: NumPy body, called with the same arguments as `launch`.
        types: Type names in `source`, each with the index of the argument that has this dtype.
        constants: Function from the arguments of a call to the compile-time constants of `source`, by name.
        preamble: CUDA C++ before the source, with the functions that it calls.
        options: Compiler options.
        is_listed: Whether the registry lists the kernel; kernels made from a user's equation are not listed.
    """

    name: str
    source: str = ""
    _: KW_ONLY
    launch: Callable[..., Launch] = lambda *_: Launch(0, 0, ())
    host: Host
    types: Mapping[str, int] = field(default_factory=lambda: {"T": 0})
    constants: Callable[..., Mapping[str, int]] = lambda *_: {}
    preamble: str = ""
    options: tuple[str, ...] = ()
    is_listed: bool = True

    def __post_init__(self) -> None:
        if self.is_listed:
            _register(self)


def elementwise(
    inputs: str, outputs: str, operation: str, *, name: str = "", **options: Any
) -> Callable[[Host], Elementwise]:
    """Return a decorator that turns a NumPy body into an `Elementwise` record, by default under the body's name."""
    return lambda host: Elementwise(name or host.__name__, inputs, outputs, operation, host=host, **options)


def raw(source: str, launch: Callable[..., Launch], **options: Any) -> Callable[[Host], Raw]:
    """Return a decorator that turns a NumPy body into a `Raw` record under its name, written `NAME` in the source."""
    return lambda host: Raw(host.__name__, source.replace("NAME", host.__name__), launch=launch, host=host, **options)


def per_element(count: int, *arguments: Any, threads: int = 256) -> Launch:
    """Launch at least `count` threads, one for each element."""
    return Launch(-(-count // threads), threads, arguments)
