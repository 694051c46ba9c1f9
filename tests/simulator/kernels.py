"""`cupy.RawKernel` and `cupy.ElementwiseKernel` over the simulator, with rules stricter than CuPy's."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from simulator.arrays import DeviceArray
from simulator.compiler import Parameter, Program, elementwise_program, raw_program
from simulator.launching import Argument, KernelError, ScalarArgument, array_argument, launch
from simulator.machine import Machine

_CACHE = 32 * 2**10
"""Bytes of raw arrays that are fetched from memory once however often they are looked up; of more, each look counts."""


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z_]\w*", name):
        raise ValueError(f'Invalid kernel name: "{name}"')


class RawKernel:
    """A CUDA function. What CuPy would pass on unseen is refused: another number or kind of arguments than it has."""

    machine: Machine

    def __init__(self, code: str, name: str, options: tuple[str, ...] = ()) -> None:
        _check_name(name)
        self.name = name
        self.program = raw_program(code, name)

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...]) -> None:
        parameters = self.program.parameters
        if len(args) != len(parameters):
            raise KernelError(f"{self.name} takes {len(parameters)} arguments, got {len(args)}")
        strided = any("stride" in parameter.name for parameter in parameters)
        arguments = [self._argument(p, value, strided) for p, value in zip(parameters, args, strict=True)]
        memory = [value.host for value in args if isinstance(value, DeviceArray)]
        # CuPy starts one block where it is asked for none.
        grid = tuple(max(1, int(blocks)) for blocks in grid)
        machine, program = self.machine, self.program
        machine.submit(
            self.name,
            lambda: launch(program, grid, block, arguments, machine.scheduling),
            memory,
            machine.current_stream(),
        )

    def _argument(self, parameter: Parameter, value: Any, strided: bool) -> Argument:
        wanted = f"{parameter.ctype}{'*' if parameter.is_pointer else ''} {parameter.name}"
        if parameter.is_pointer:
            if not isinstance(value, DeviceArray) or value.dtype != parameter.dtype:
                raise KernelError(f"{self.name} takes `{wanted}`, got {_describe(value)}")
            if not value.flags.c_contiguous and not strided:
                raise KernelError(f"{self.name} is told no strides, and `{parameter.name}` is not contiguous")
            return array_argument(parameter.name, value.host, not parameter.is_const)
        # A Python number would go as 8 bytes, whatever the kernel reads.
        if not isinstance(value, np.generic) or value.dtype != parameter.dtype:
            raise KernelError(f"{self.name} takes `{wanted}`, got {_describe(value)}")
        return ScalarArgument(value)


def _describe(value: Any) -> str:
    return f"an array of {value.dtype}" if isinstance(value, DeviceArray) else f"{value!r} ({type(value).__name__})"


class _Parameter:
    """A parameter in the notation of `cupy.ElementwiseKernel`: `raw T x`."""

    def __init__(self, text: str) -> None:
        *words, kind, self.name = text.split()
        self.is_raw = "raw" in words
        if set(words) - {"raw"}:
            raise ValueError(f'Unknown keyword in "{text}"')
        self.letter = kind if len(kind) == 1 else ""
        self.dtype = None if self.letter else np.dtype(kind)


class ElementwiseKernel:
    """One operation for each element of arrays that broadcast together."""

    machine: Machine

    def __init__(
        self, in_params: str, out_params: str, operation: str, name: str = "kernel", preamble: str = ""
    ) -> None:
        _check_name(name)
        self.inputs = [_Parameter(text) for text in in_params.split(",") if text.strip()]
        self.outputs = [_Parameter(text) for text in out_params.split(",") if text.strip()]
        if any(p.name == "i" for p in [*self.inputs, *self.outputs]):
            raise ValueError("Can not use 'i' as a parameter name")
        self.name, self.operation, self.preamble = name, operation, preamble
        self._programs: dict[tuple[Any, ...], Program] = {}
        # Whether the operation uses what an output held before, for the count of bytes.
        self._reads = {
            p.name for p in self.outputs if re.search(rf"\b{p.name}\b(?!\s*=[^=])", operation)
        } | {p.name for p in self.inputs if re.search(rf"\b{p.name}\b", operation)}  # fmt: skip

    def __call__(self, *args: Any) -> None:
        parameters = [*self.inputs, *self.outputs]
        if len(args) != len(parameters):
            raise TypeError(f"Wrong number of arguments for {self.name!r}: it takes {len(parameters)}, got {len(args)}")
        if not all(isinstance(value, DeviceArray) for value in args[len(self.inputs) :]):
            raise TypeError("Output arguments type must be cupy.ndarray")
        types = self._types(args)
        looped = [v for p, v in zip(parameters, args, strict=True) if isinstance(v, DeviceArray) and not p.is_raw]
        if not looped:
            raise ValueError("Loop size is undecided.")
        shape = np.broadcast_shapes(*(value.shape for value in looped))
        for p, value in zip(self.outputs, args[len(self.inputs) :], strict=True):
            if not p.is_raw and value.shape != shape:
                raise ValueError("Out shape is mismatched")
        size = int(np.prod(shape, dtype=np.int64))
        if size == 0:
            return
        program = self.program(types, tuple(isinstance(value, DeviceArray) for value in args))
        arguments: list[Argument] = []
        read = written = cached = 0
        for number, (p, value) in enumerate(zip(parameters, args, strict=True)):
            is_output = number >= len(self.inputs)
            if not isinstance(value, DeviceArray):
                arguments.append(ScalarArgument(np.asarray(value, self._dtype(p, types))[()]))
                continue
            host = value.host if p.is_raw else np.broadcast_to(value.host, shape)
            arguments.append(array_argument(p.name, host, is_output))
            if p.is_raw:
                cached += value.nbytes
            else:
                read += value.nbytes * (p.name in self._reads)
                written += value.nbytes * is_output
        arguments.append(ScalarArgument(np.int64(size)))
        block = min(128, size)
        machine = self.machine

        def run() -> tuple[int, int]:
            raw_read, raw_written = launch(program, (-(-size // block),), (block,), arguments, machine.scheduling)
            return read + (min(raw_read, cached) if cached <= _CACHE else raw_read), written + raw_written

        memory = [value.host for value in args if isinstance(value, DeviceArray)]
        machine.submit(self.name, run, memory, machine.current_stream())

    def program(self, types: dict[str, np.dtype], are_arrays: Sequence[bool]) -> Program:
        """The loop for these types."""
        key = (tuple(sorted((letter, str(dtype)) for letter, dtype in types.items())), tuple(are_arrays))
        if key not in self._programs:
            described = [
                (p.name, self._dtype(p, types), is_array, p.is_raw, number >= len(self.inputs))
                for number, (p, is_array) in enumerate(zip([*self.inputs, *self.outputs], are_arrays, strict=True))
            ]
            self._programs[key] = elementwise_program(self.name, described, types, self.operation, self.preamble)
        return self._programs[key]

    @staticmethod
    def _dtype(p: _Parameter, types: dict[str, np.dtype]) -> np.dtype:
        return types[p.letter] if p.dtype is None else p.dtype

    def _types(self, args: Sequence[Any]) -> dict[str, np.dtype]:
        """What each type letter stands for: outputs decide, then inputs; numbers take what arrays have decided."""
        types: dict[str, np.dtype] = {}
        ordered = [*zip(self.outputs, args[len(self.inputs) :], strict=True), *zip(self.inputs, args, strict=False)]
        for p, value in ordered:
            if not isinstance(value, DeviceArray):
                continue
            wanted = types.setdefault(p.letter, value.dtype) if p.letter else p.dtype
            if wanted != value.dtype:
                raise TypeError(f"Type is mismatched. {p.name} {value.dtype} {wanted}")
        return types
