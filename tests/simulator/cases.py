"""What every kernel is called with where it is compiled or run with checks: the calls of `support/kernel_cases.py`."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import support.kernel_cases_images  # noqa: F401 - adds its cases
from support.kernel_cases import CASES

from gpunn.kernels import Raw, registry

SIZES = (1, 33, 128, 257)
"""Batches: of one, about a warp, a block, and what is no multiple of either."""


class Call(NamedTuple):
    """One call of a kernel; an array that stands twice among its arguments is one array."""

    arguments: tuple[Any, ...]
    scale: float | None = None  # the size that rounding is measured by where terms cancel; None for each value itself


def dtypes(name: str) -> tuple[str, ...]:
    """The dtypes of the network that make a difference to a kernel."""
    kernel = registry[name]
    return ("float32",) if isinstance(kernel, Raw) and "T" not in kernel.types else ("float32", "float64")


def calls(name: str, dtype: str, sizes: Iterable[int] = SIZES) -> list[Call]:
    """Every call of a kernel in a dtype."""
    assert name in CASES, f"the kernel {name} has no call: write a case for it in tests/support/kernel_cases.py"
    found = []
    for n in sizes:
        # Cases may share a call, and look at different results of it, each with a scale of its own.
        shared: dict[int, Call] = {}
        for case in CASES[name](dtype, np.random.default_rng(n), n):
            key = id(case.arguments)
            scales = [s for s in (case.scale, shared[key].scale if key in shared else None) if s is not None]
            shared[key] = Call(case.arguments, max(scales, default=None))
        found += shared.values()
    return found
