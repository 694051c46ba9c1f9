"""What NVRTC makes of every kernel for an architecture, as CuPy asks for it, and its machine code; no GPU is needed."""

import os
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from simulator.cases import calls, dtypes

from gpunn.backend import wide
from gpunn.backend.compiling import cuda_source, elementwise_arguments, variant
from gpunn.kernels import Elementwise, Raw, registry

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # CuPy warns at import of what it does not find
    cupy = pytest.importorskip("cupy", reason="compiling needs CuPy and NVRTC: pip install 'gpunn[cuda13]'")

from cupy._core import _carray, _kernel, _scalar, core
from cupy_backends.cuda.libs import nvrtc

ARCHITECTURES = [75, 80, 86, 90, 100, 120]
_NDARRAY, _INDEXER, _SCALAR = 1, 2, 3  # CuPy's kinds of arguments


class Function:
    """A kernel in one dtype and layout, with a name of its own among all that are compiled together."""

    def __init__(
        self, kernel: Elementwise | Raw, dtype: str, variant: str, code: str, threads: int, constants: str = ""
    ) -> None:
        self.kernel, self.dtype, self.threads, self.constants = kernel, dtype, threads, constants
        self.name = f"{kernel.name}_{dtype}_{variant}"
        renamed, found = re.subn(rf"(__global__\s+void\s+){kernel.name}(\s*\()", rf"\1{self.name}\2", code)
        assert found == 1
        self.code = f'namespace of_{self.name} {{\n#line 1 "{self.name}"\n{renamed}\n}}\n'


def elementwise_code(kernel: Elementwise, arguments: tuple[Any, ...], strided: bool) -> str:
    """What CuPy compiles for a call: for contiguous arrays of less than 2 GiB, or for larger ones with strides."""
    made = cupy.ElementwiseKernel(**elementwise_arguments(kernel))
    types = [a.dtype if isinstance(a, np.ndarray) else None for a in arguments]
    inputs, _, type_map = _kernel._decide_params_type(
        made.in_params, made.out_params, tuple(types[: made.nin]), tuple(types[made.nin :])
    )
    infos = []
    for p, dtype, given in zip(made.params, [*inputs, *types[made.nin :]], types, strict=False):
        if given is None:
            infos.append(_kernel._ArgInfo(_SCALAR, _scalar.CScalar, np.dtype(dtype), 0, True, True))
        else:
            layout = (1, True, True) if p.raw or not strided else (2, False, False)
            infos.append(_kernel._ArgInfo(_NDARRAY, cupy.ndarray, given, *layout))
    ndim = 2 if strided else 1
    infos.append(_kernel._ArgInfo(_INDEXER, _carray.Indexer, None, ndim, True, not strided))
    return _kernel._get_elementwise_kernel_code(
        tuple(infos), type_map, made.params, kernel.operation, kernel.name, kernel.preamble, kernel.prepare
    )


def functions(kind: type[Elementwise] | type[Raw]) -> Iterator[Function]:
    """Every kernel of a kind, in every dtype and with all constants that its calls have."""
    for name, kernel in sorted(registry.items()):
        if not isinstance(kernel, kind):
            continue
        for dtype in dtypes(name):
            if isinstance(kernel, Elementwise):
                arguments = calls(name, dtype, [3])[0].arguments
                for strided in (False, True):
                    code = elementwise_code(kernel, arguments, strided)
                    yield Function(kernel, dtype, "strided" if strided else "contiguous", code, 128)
                continue
            variants: dict[str, tuple[str, int, str]] = {}
            for call in calls(name, dtype, [3, 4]):  # one that vectors do not divide, and one that they do
                types, numbers = variant(kernel, call.arguments)
                constants = "_".join(map(str, numbers.values()))
                suffix = "_".join([*map(str, types.values()), *filter(None, [constants])]) or "int"
                threads = max(kernel.launch(*call.arguments).threads, variants.get(suffix, ("", 0))[1])
                variants[suffix] = cuda_source(kernel, types, numbers), threads, constants
            for suffix, (source, threads, constants) in variants.items():
                yield Function(kernel, dtype, suffix, source, threads, constants)


def wide_functions() -> Iterator[Function]:
    """The wide form of every element-wise kernel that has one."""
    for name, kernel in sorted(registry.items()):
        if not isinstance(kernel, Elementwise) or not kernel.may_be_wide:
            continue
        for dtype in dtypes(name):
            arguments = calls(name, dtype, [3])[0].arguments
            parameters = zip(wide._parameters(kernel), arguments, strict=True)
            made = wide._made(
                kernel, tuple(isinstance(value, np.ndarray) and not raw for (*_, raw), value in parameters)
            )
            types = {letter: arguments[at].dtype for letter, at in made.types.items()}
            yield Function(made, dtype, "", cuda_source(made, types, {}), wide._THREADS)


def compiled(source: str, architecture: int, options: tuple[str, ...] = ()) -> tuple[bytes, str]:
    """The binary and the compiler's log."""
    options = (
        *core.assemble_cupy_compiler_options(options),
        *("-ftz=true", "--device-as-default-execution-space"),
        *(f"-arch=sm_{architecture}", "--ptxas-options=-v"),
    )
    program = nvrtc.createProgram(source, "kernels.cu", (), ())
    try:
        nvrtc.compileProgram(program, options)
    except nvrtc.NVRTCError:
        pytest.fail(f"sm_{architecture}: {nvrtc.getProgramLog(program)}", pytrace=False)
    return nvrtc.getCUBIN(program), nvrtc.getProgramLog(program)


def nvdisasm() -> Path | None:
    """Where nvdisasm is, of the wheel nvidia-cuda-nvdisasm."""
    folders = [Path(folder, "nvidia") for folder in sys.path]
    return next((path for folder in folders for path in folder.glob("cu*/bin/nvdisasm")), None)


_INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]+\*/\s+(?:@!?\w+\s+)?([A-Z][A-Z0-9_.]*)", re.MULTILINE)


def disassembled(binary: bytes) -> dict[str, tuple[str, ...]]:
    """The instructions of every function; none where nvdisasm is not installed."""
    if (found := nvdisasm()) is None:
        return {}
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary + b"\0")  # CuPy leaves its last byte out
        file.flush()
        text = subprocess.run([found, "-c", file.name], check=True, capture_output=True, text=True).stdout
    parts = re.findall(r"^\.text\.(\w+):(.*?)(?=^\.text\.|\Z)", text, re.MULTILINE | re.DOTALL)
    return {name: tuple(_INSTRUCTION.findall(code)) for name, code in parts}


_USED = re.compile(
    r"Compiling entry function '(?P<name>\w+)'.*?(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads"
    r".*?Used (?P<registers>\d+) registers",
    re.DOTALL,
)


def used(log: str) -> dict[str, tuple[int, int]]:
    """Registers and bytes spilled of every function, as ptxas reports them."""
    return {m["name"]: (int(m["registers"]), int(m["stores"]) + int(m["loads"])) for m in _USED.finditer(log)}


class Code(NamedTuple):
    """What became of a function."""

    function: Function
    registers: int
    spilled: int
    instructions: tuple[str, ...]  # of raw kernels in float32 and of wide forms, where there is nvdisasm


class _Piece(NamedTuple):
    """Functions that are compiled together, by their options; element-wise ones behind CuPy's headers."""

    functions: list[Function]
    options: tuple[str, ...] = ()
    headers: str = ""
    is_read: bool = False

    def code(self, architecture: int) -> list[Code]:
        source = self.headers + "".join(each.code for each in self.functions)
        binary, log = compiled(source, architecture, self.options)
        assert binary[:4] == b"\x7fELF"
        found, read = used(log), disassembled(binary) if self.is_read else {}
        return [Code(each, *found[each.name], read.get(each.name, ())) for each in self.functions]


_AT_ONCE = 80  # functions of a piece at most: so many that each processor has pieces, none of them the last for long


@cache
def _pieces() -> list[_Piece]:
    headers = "".join(f"#include <{header}>\n" for header in core._cupy_header_list)
    raw = list(functions(Raw))
    pieces = [_Piece(list(functions(Elementwise)), headers=headers), _Piece(list(wide_functions()), is_read=True)]
    for options, dtype in sorted({(each.kernel.options, each.dtype) for each in raw}):
        alike = [each for each in raw if (each.kernel.options, each.dtype) == (options, dtype)]
        some = [alike[at : at + _AT_ONCE] for at in range(0, len(alike), _AT_ONCE)]
        pieces += [_Piece(each, options, is_read=dtype == "float32") for each in some]
    return sorted(pieces, key=lambda piece: -sum(len(each.code) for each in piece.functions))


@cache
def code_of(architecture: int) -> list[Code]:
    """Every kernel of the registry on an architecture, and every wide form: compiled once, by all processors."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [code for found in pool.map(lambda piece: piece.code(architecture), _pieces()) for code in found]
