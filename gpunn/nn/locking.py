"""Run methods of a network under its lock, and explain a shortage of memory."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from gpunn.nn.footprint import shortage_error

Method = TypeVar("Method", bound=Callable[..., Any])


def locked(method: Method) -> Method:
    """Make a method hold the network's lock, so that threads call it one at a time."""

    @wraps(method)
    def holding(network: Any, *arguments: Any, **options: Any) -> Any:
        with network.lock:
            return method(network, *arguments, **options)

    return cast(Method, holding)


def explains_shortage(method: Method) -> Method:
    """Make a method `locked`, with the bytes needed and a batch size that fits in its error where memory runs out."""

    @locked
    @wraps(method)
    def explaining(network: Any, *arguments: Any, **options: Any) -> Any:
        try:
            return method(network, *arguments, **options)
        except MemoryError as error:
            backend = network._built()
            raise shortage_error(error, network.bytes_for, network.capacity, backend, 0, backend.free_bytes()) from None

    return cast(Method, explaining)
