"""The records that every operation is made of: its CUDA source beside its NumPy body.

Both bodies take the same arguments in the same order and write into arrays that the caller owns. This package imports
NumPy only: the backend turns a record into a running CUDA kernel.
"""

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, TypeAlias

Array: TypeAlias = Any  # `numpy.ndarray` or `cupy.ndarray`, which is known only at run time
Host: TypeAlias = Callable[..., None]  # the NumPy body of a record, called with the same arguments as the kernel
registry: dict[str, "Elementwise | Raw"] = {}  # every kernel by name, for the tests and the self-test of the doctor


def _register(kernel: "Elementwise | Raw") -> None:
    # A cell of a notebook that is run again defines its kernels again; those of the library have their names for good.
    first = registry.get(kernel.name)
    if first is not None and (getattr(first.host, "__module__", None) or "").startswith("gpunn."):
        raise ValueError(f"two kernels are called {kernel.name!r}: one is of gpunn, choose another name for yours")
    registry[kernel.name] = kernel


@dataclass(frozen=True, eq=False)
class Elementwise:
    """One operation on each element of arrays that broadcast together.

    Args:
        name: Name in the registry, and of the CUDA function.
        inputs: Parameters in the notation of `cupy.ElementwiseKernel`; `T` is the dtype of the network,
            `raw` marks an array that is indexed by hand, `i` is the element's number.
        outputs: Parameters that are written. They may be read first, and may be the same array as an input.
        operation: CUDA C++ for one element; left out, the kernel is for the CPU only.
        host: NumPy body, called with the same arguments.
        preamble: CUDA C++ before the kernel: functions that the operation calls.
        prepare: CUDA C++ that every thread does once, before its elements: for numbers that all of them share.
        may_be_wide: Whether a thread may have several elements of large arrays, and write every output as it was read
            where the operation leaves it.
        is_listed: Whether it stands in the registry; one that was made of a user's equation does not.
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
    """Blocks of a raw kernel, threads of a block, and arguments of the CUDA function."""

    blocks: int | tuple[int, int, int]
    threads: int
    arguments: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Raw:
    """One operation that needs more than its own element: a reduction, a gather, a convolution.

    Args:
        name: Name in the registry, and of the `extern "C" __global__` function in `source`.
        source: CUDA C++ in which `T` is the dtype of the network. Python integers arrive as `int`, floats as `T`. Left
            out, the kernel is for the CPU only, and `launch` is left out too.
        launch: Function from the arguments of a call to its grid, block and CUDA arguments.
        host: NumPy body, called with the same arguments as `launch`.
        types: Type names of `source`, each with the number of the argument whose dtype it is.
        constants: Function from the arguments of a call to the numbers that `source` is compiled for, by name.
        preamble: CUDA C++ before the source: functions that it calls.
        options: Options of the compiler.
        is_listed: Whether it stands in the registry; one that was made of a user's equation does not.
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
    """Return a decorator that makes the `Elementwise` record of a NumPy body, by default under the body's name."""
    return lambda host: Elementwise(name or host.__name__, inputs, outputs, operation, host=host, **options)


def raw(source: str, launch: Callable[..., Launch], **options: Any) -> Callable[[Host], Raw]:
    """Return a decorator that makes the `Raw` record of a NumPy body, under its name: in the source, `NAME`."""
    return lambda host: Raw(host.__name__, source.replace("NAME", host.__name__), launch=launch, host=host, **options)


def per_element(count: int, *arguments: Any, threads: int = 256) -> Launch:
    """Return a launch of at least `count` threads, one for each element."""
    return Launch(-(-count // threads), threads, arguments)
