"""Kernel records run by the simulator on NumPy arrays, with rules stricter than CuPy's."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpunn.backend import _typed, cuda_source
from gpunn.kernels import Elementwise, Raw
from simulator.compiler import Parameter, Program, elementwise_program, raw_program
from simulator.launching import Argument, KernelError, ScalarArgument, Scheduling, array_argument, launch

_CACHE = 32 * 2**10
"""Bytes of raw arrays that are fetched from memory once however often they are looked up; of more, each look counts."""


def program(kernel: Elementwise | Raw, arguments: Sequence[Any]) -> Program:
    """What is compiled for a call."""
    if isinstance(kernel, Raw):
        types = {letter: arguments[at].dtype for letter, at in kernel.types.items()}
        return raw_program(cuda_source(kernel, types), kernel.name)
    inputs, outputs = _parameters(kernel)
    types = _types([*inputs, *outputs], arguments)
    described = [
        (p.name, p.stands_for(types), isinstance(value, np.ndarray), p.is_raw, number >= len(inputs))
        for number, (p, value) in enumerate(zip([*inputs, *outputs], arguments, strict=True))
    ]
    return elementwise_program(kernel.name, described, types, kernel.operation, kernel.preamble)


def run(kernel: Elementwise | Raw, arguments: Sequence[Any], scheduling: Scheduling) -> tuple[int, int]:
    """Run a kernel as the backend would, on arrays of the host.

    Returns:
        The bytes it has read and written.

    Raises:
        KernelError: it did what a kernel must not, or was given what its function does not take.
    """
    if isinstance(kernel, Elementwise):
        return _run_elementwise(kernel, arguments, scheduling)
    made, how = program(kernel, arguments), kernel.launch(*arguments)
    dtype = arguments[kernel.types["T"]].dtype if "T" in kernel.types else None
    given = [_typed(value, dtype) for value in how.arguments]
    if len(given) != len(made.parameters):
        raise KernelError(f"{kernel.name} takes {len(made.parameters)} arguments, got {len(given)}")
    strided = any("stride" in parameter.name for parameter in made.parameters)
    packed = [_argument(kernel.name, *pair, strided) for pair in zip(made.parameters, given, strict=True)]
    blocks = how.blocks if isinstance(how.blocks, tuple) else (how.blocks,)
    return launch(made, [max(1, int(n)) for n in blocks], (how.threads,), packed, scheduling)


def _argument(kernel: str, parameter: Parameter, value: Any, strided: bool) -> Argument:
    wanted = f"{parameter.ctype}{'*' if parameter.is_pointer else ''} {parameter.name}"
    if parameter.is_pointer:
        if not isinstance(value, np.ndarray) or value.dtype != parameter.dtype:
            raise KernelError(f"{kernel} takes `{wanted}`, got {value!r:.80}")
        if not value.flags.c_contiguous and not strided:
            raise KernelError(f"{kernel} is told no strides, and `{parameter.name}` is not contiguous")
        return array_argument(parameter.name, value, not parameter.is_const)
    # A Python number would go as 8 bytes, whatever the kernel reads.
    if not isinstance(value, np.generic) or value.dtype != parameter.dtype:
        raise KernelError(f"{kernel} takes `{wanted}`, got {value!r:.80} ({type(value).__name__})")
    return ScalarArgument(value)


class _Parameter:
    """A parameter in the notation of `cupy.ElementwiseKernel`: `raw T x`."""

    def __init__(self, text: str) -> None:
        *words, kind, self.name = text.split()
        self.is_raw = "raw" in words
        self.letter = kind if len(kind) == 1 else ""
        self.dtype = None if self.letter else np.dtype(kind)

    def stands_for(self, types: dict[str, np.dtype]) -> np.dtype:
        return types[self.letter] if self.dtype is None else self.dtype


def _parameters(kernel: Elementwise) -> tuple[list[_Parameter], list[_Parameter]]:
    inputs, outputs = (
        [_Parameter(text) for text in side.split(",") if text.strip()] for side in (kernel.inputs, kernel.outputs)
    )
    return inputs, outputs


def _types(parameters: Sequence[_Parameter], arguments: Sequence[Any]) -> dict[str, np.dtype]:
    types: dict[str, np.dtype] = {}
    for p, value in zip(parameters, arguments, strict=True):
        if isinstance(value, np.ndarray):
            wanted = types.setdefault(p.letter, value.dtype) if p.letter else p.dtype
            if wanted != value.dtype:
                raise KernelError(f"{p.name} is of {wanted}, got {value.dtype}")
    return types


def _run_elementwise(kernel: Elementwise, arguments: Sequence[Any], scheduling: Scheduling) -> tuple[int, int]:
    inputs, outputs = _parameters(kernel)
    parameters = [*inputs, *outputs]
    if len(arguments) != len(parameters):
        raise KernelError(f"{kernel.name} takes {len(parameters)} arguments, got {len(arguments)}")
    looped = [v for p, v in zip(parameters, arguments, strict=True) if isinstance(v, np.ndarray) and not p.is_raw]
    shape = np.broadcast_shapes(*(value.shape for value in looped))
    if any(value.shape != shape for p, value in zip(outputs, arguments[len(inputs) :], strict=True) if not p.is_raw):
        raise KernelError(f"{kernel.name} writes {shape}, which is not the shape of what it is to write to")
    size = int(np.prod(shape, dtype=np.int64))
    if size == 0:
        return 0, 0
    # What an output held before counts where the operation uses it.
    uses = {p.name for p in outputs if re.search(rf"\b{p.name}\b(?!\s*=[^=])", kernel.operation)}
    uses |= {p.name for p in inputs if re.search(rf"\b{p.name}\b", kernel.operation)}
    types, packed = _types(parameters, arguments), list[Argument]()
    read = written = looked_up = 0
    for number, (p, value) in enumerate(zip(parameters, arguments, strict=True)):
        is_output = number >= len(inputs)
        if not isinstance(value, np.ndarray):
            packed.append(ScalarArgument(np.asarray(value, p.stands_for(types))[()]))
            continue
        packed.append(array_argument(p.name, value if p.is_raw else np.broadcast_to(value, shape), is_output))
        looked_up += value.nbytes * p.is_raw
        read += value.nbytes * (not p.is_raw and p.name in uses)
        written += value.nbytes * (not p.is_raw and is_output)
    packed.append(ScalarArgument(np.int64(size)))
    block = min(128, size)
    raw = launch(program(kernel, arguments), (-(-size // block),), (block,), packed, scheduling)
    return read + (min(raw[0], looked_up) if looked_up <= _CACHE else raw[0]), written + raw[1]
