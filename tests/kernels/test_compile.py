"""Every kernel and dtype compiled by NVRTC for every GPU that is supported, as CuPy does it; no GPU is needed."""

import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulator.cases import calls, dtypes

from gpunn.backend import wide
from gpunn.backend.compiling import cuda_source, described, variant
from gpunn.kernels import Elementwise, Raw, registry

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # CuPy warns at import of what it does not find
    cupy = pytest.importorskip("cupy", reason="compiling needs CuPy and NVRTC: pip install 'gpunn[cuda13]'")

from cupy._core import _carray, _kernel, _scalar, core
from cupy_backends.cuda.libs import nvrtc

ARCHITECTURES = [75, 80, 86, 90, 100, 120]
REGISTERS_OF_A_BLOCK = 65536
_NDARRAY, _INDEXER, _SCALAR = 1, 2, 3  # CuPy's kinds of arguments


class Function:
    """A kernel in one dtype and layout, with a name of its own among all that are compiled together."""

    def __init__(self, kernel: Elementwise | Raw, dtype: str, variant: str, code: str, threads: int) -> None:
        self.kernel, self.threads = kernel, threads
        self.name = f"{kernel.name}_{dtype}_{variant}"
        renamed, found = re.subn(rf"(__global__\s+void\s+){kernel.name}(\s*\()", rf"\1{self.name}\2", code)
        assert found == 1
        self.code = f'namespace of_{self.name} {{\n#line 1 "{self.name}"\n{renamed}\n}}\n'


def elementwise_code(kernel: Elementwise, arguments: tuple[Any, ...], strided: bool) -> str:
    """What CuPy compiles for a call: for contiguous arrays of less than 2 GiB, or for larger ones with strides."""
    made = cupy.ElementwiseKernel(**described(kernel))
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


def functions(kind: type[Elementwise] | type[Raw], names: Collection[str] = registry) -> Iterator[Function]:
    """Every kernel of a kind, or those of some names, in every dtype that its calls have."""
    for name, kernel in sorted(registry.items()):
        if not isinstance(kernel, kind) or name not in names:
            continue
        for dtype in dtypes(name):
            if isinstance(kernel, Elementwise):
                arguments = calls(name, dtype, [3])[0].arguments
                for strided in (False, True):
                    code = elementwise_code(kernel, arguments, strided)
                    yield Function(kernel, dtype, "strided" if strided else "contiguous", code, 128)
                continue
            variants: dict[str, tuple[str, int]] = {}
            for call in calls(name, dtype, [3, 4]):  # one that vectors do not divide, and one that they do
                types, constants = variant(kernel, call.arguments)
                suffix = "_".join([*map(str, types.values()), *map(str, constants.values())]) or "int"
                threads = max(kernel.launch(*call.arguments).threads, variants.get(suffix, ("", 0))[1])
                variants[suffix] = cuda_source(kernel, types, constants), threads
            for suffix, (source, threads) in variants.items():
                yield Function(kernel, dtype, suffix, source, threads)


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


def disassembled(binary: bytes) -> dict[str, list[str]]:
    """The instructions of every function, by nvdisasm: pip install nvidia-cuda-nvdisasm."""
    folders = [Path(folder, "nvidia") for folder in sys.path]
    found = [path for folder in folders for path in folder.glob("cu*/bin/nvdisasm")]
    if not found:
        pytest.skip("what is compiled is read by nvdisasm: pip install nvidia-cuda-nvdisasm")
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary + b"\0")  # CuPy leaves its last byte out
        file.flush()
        text = subprocess.run([found[0], "-c", file.name], check=True, capture_output=True, text=True).stdout
    instruction = re.compile(r"^\s+/\*[0-9a-f]+\*/\s+(?:@!?\w+\s+)?([A-Z][A-Z0-9_.]*)", re.MULTILINE)
    parts = re.findall(r"^\.text\.(\w+):(.*?)(?=^\.text\.|\Z)", text, re.MULTILINE | re.DOTALL)
    return {name: instruction.findall(code) for name, code in parts}


_USED = re.compile(
    r"Compiling entry function '(?P<name>\w+)'.*?(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads"
    r".*?Used (?P<registers>\d+) registers",
    re.DOTALL,
)


def used(log: str) -> dict[str, tuple[int, int]]:
    """Registers and bytes spilled of every function, as ptxas reports them."""
    return {m["name"]: (int(m["registers"]), int(m["stores"]) + int(m["loads"])) for m in _USED.finditer(log)}


def sources() -> Iterator[tuple[str, tuple[str, ...], list[Function]]]:
    """What is compiled together: element-wise kernels behind CuPy's headers, raw kernels alone, by their options."""
    headers = "".join(f"#include <{header}>\n" for header in core._cupy_header_list)
    together = list(functions(Elementwise))
    yield headers + "".join(f.code for f in together), (), together
    raw = list(functions(Raw))
    for options in sorted({f.kernel.options for f in raw}):
        together = [f for f in raw if f.kernel.options == options]
        yield "".join(f.code for f in together), options, together


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_kernel_compiles_and_spills_no_register(architecture: int, record_property: Any) -> None:
    seen, most = set(), (0, "")
    for source, options, together in sources():
        binary, log = compiled(source, architecture, options)
        assert binary[:4] == b"\x7fELF"
        found = used(log)
        for function in together:
            registers, spilled = found[function.name]
            most = max(most, (registers, function.name))
            record_property(f"{function.name} on sm_{architecture}", f"{registers} registers, {spilled} bytes spilled")
            assert spilled == 0, f"{function.name} spills {spilled} bytes on sm_{architecture}"
            # Registers are handed out to warps in units of 8 a thread.
            assert -(-registers // 8) * 8 * function.threads <= REGISTERS_OF_A_BLOCK, function.name
            seen.add(function.kernel.name)
    assert seen == set(registry)
    print(f"sm_{architecture}: at most {most[0]} registers, by {most[1]}, none spilled")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_wide_forms_compile_and_spill_no_register(architecture: int) -> None:
    together = list(wide_functions())
    _, log = compiled("".join(function.code for function in together), architecture)
    found = used(log)
    for function in together:
        registers, spilled = found[function.name]
        assert spilled == 0, f"{function.name} spills {spilled} bytes on sm_{architecture}"
        assert registers <= 128, f"{function.name} takes {registers} registers on sm_{architecture}"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_wide_forms_load_and_store_128_bits_at_once(architecture: int) -> None:
    """In the compiled code, at least twice for each output: a branch may double all. The last elements go singly."""
    together = list(wide_functions())
    binary, _ = compiled("".join(function.code for function in together), architecture)
    instructions = disassembled(binary)
    for function in together:
        loads, stores = (sum(each.startswith(kind) for each in instructions[function.name]) for kind in ("LDG", "STG"))
        wide_loads, wide_stores = (
            sum(each.startswith(kind) and ".128" in each for each in instructions[function.name])
            for kind in ("LDG", "STG")
        )
        arrays = function.code.count("store_some(all_")
        assert wide_stores >= 2 * arrays, f"{function.name}: {wide_stores} of {stores} stores are wide"
        assert wide_loads % 2 == 0, f"{function.name}: {wide_loads} of {loads} loads are wide"
        assert wide_loads >= 2 or not loads, f"{function.name}: none of {loads} loads is wide"


def test_nvrtc_knows_every_architecture() -> None:
    assert set(ARCHITECTURES) <= set(nvrtc.getSupportedArchs())


def test_a_kernel_that_is_wrong_does_not_compile() -> None:
    with pytest.raises(pytest.fail.Exception, match='identifier "no_such_function" is undefined'):
        compiled('extern "C" __global__ void f(float* x) { x[0] = no_such_function(); }', 90)


def test_what_ptxas_reports_is_read() -> None:
    local = "float v[64]; for (int k = 0; k < 64; ++k) v[k] = x[k]; x[0] = v[(int)x[1] & 63];"
    _, log = compiled(f'extern "C" __global__ void f(float* x) {{ {local} }}', 90)
    registers, spilled = used(log)["f"]
    assert 8 <= registers <= 255
    assert spilled == 0
