"""CUDA C++ turned into C++ that g++ compiles, each kernel a library of its own, kept from run to run."""

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
_FLAGS = ("-std=gnu++17", "-O1", "-fPIC", "-w", "-U_FORTIFY_SOURCE", "-fno-stack-protector", "-ffp-contract=off")
_KERNEL_FLAGS = (
    *_FLAGS, "-fno-strict-aliasing", "-fno-threadsafe-statics", "-fno-exceptions", "-fno-rtti",
    "-fno-sanitize-recover=all", "-fsanitize=bounds,integer-divide-by-zero,signed-integer-overflow,shift",
)  # fmt: skip

DTYPES = {
    "float": np.dtype(np.float32),
    "double": np.dtype(np.float64),
    "int": np.dtype(np.int32),
    "unsigned": np.dtype(np.uint32),
    "unsigned int": np.dtype(np.uint32),
    "long long": np.dtype(np.int64),
    "unsigned long long": np.dtype(np.uint64),
    "unsigned char": np.dtype(np.uint8),
    "signed char": np.dtype(np.int8),
    "short": np.dtype(np.int16),
    "unsigned short": np.dtype(np.uint16),
    "bool": np.dtype(np.bool_),
}
"""The types that a kernel's parameters have in CUDA C++."""

# What __syncthreads and the like begin with: without them no thread waits for another.
_SYNCHRONIZES = re.compile(r"__(sync|shfl|ballot|any_sync|all_sync)")
_VECTORS = ("uchar4", "uint2", "uint4", "int2", "int4", "float2", "float4", "double2")


class CompilerError(Exception):
    """A kernel that g++ does not compile, or whose source has what the simulator does not know."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a `__global__` function."""

    name: str
    ctype: str
    is_pointer: bool
    is_const: bool

    @property
    def dtype(self) -> np.dtype:
        return DTYPES[self.ctype]


@dataclass(frozen=True)
class Program:
    """A kernel in C++, with an entry that takes its arguments from the runtime.

    Args:
        name: of the kernel, for messages.
        source: what g++ compiles.
        synchronizes: whether its threads wait for each other.
    """

    name: str
    source: str
    parameters: tuple[Parameter, ...] = ()
    synchronizes: bool = False
    key: str = field(init=False, default="")

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", hashlib.sha256(f"{_toolchain()}\0{self.source}".encode()).hexdigest()[:32])


def missing_compiler() -> str:
    """Why kernels cannot be compiled here, or ""."""
    if not sys.platform.startswith("linux"):
        return "the simulator needs Linux"
    return "" if shutil.which("g++") else "the simulator needs g++: install it (Debian, Ubuntu: apt install g++)"


@cache
def _toolchain() -> str:
    """What a compiled kernel depends on besides its source."""
    version = subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True).stdout
    return "\0".join([version, " ".join(_KERNEL_FLAGS), *(p.read_text("utf-8") for p in _sources())])


def _sources() -> list[Path]:
    return [HERE / "cuda.h", HERE / "runtime.cpp"]


@cache
def _folder() -> Path:
    """Where compiled kernels are kept: a folder that only this user can write."""
    folder = Path(tempfile.gettempdir()) / f"gpunn-simulator-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if folder.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o022:
        return Path(tempfile.mkdtemp(prefix="gpunn-simulator-"))
    return folder


# From CUDA to C++


def raw_program(code: str, name: str) -> Program:
    """The program of a raw kernel, as `cupy.RawKernel` is given it.

    Args:
        code: CUDA C++, its types set by typedefs.
        name: of its `extern "C" __global__` function.
    """
    code = re.sub(r"//[^\n]*", "", code)
    code = re.sub(r"/\*.*?\*/", lambda match: "\n" * match[0].count("\n"), code, flags=re.DOTALL)
    if word := re.search(r"\bauto\b|\bextern\s+__shared__|\bvolatile\b|#include", code):
        raise CompilerError(f"{name}: the simulator does not know `{word[0]}`: write it without")
    types = {n: " ".join(t.split()) for t, n in re.findall(r"\btypedef\s+([\w ]+?)\s+(\w+)\s*;", code)}
    code = re.sub(r"\btypedef\s+[\w ]+?\s+\w+\s*;\n?", "", code)
    parameters = tuple(_parameter(text, types) for text in _parameter_list(code, name))
    known = [
        *types,
        "unsigned long long",
        "unsigned char",
        "signed char",
        "unsigned short",
        "unsigned int",
        "long long",
    ]
    known += ["float", "double", "int", "unsigned", "short", "char", "bool", "void", *_VECTORS]
    code = code.replace('extern "C"', "")
    code = _shared_arrays(code, name)
    alternatives = "|".join(known)
    code = re.sub(rf"\b(const\s+)?({alternatives})(\s+const)?\s*\*\s*(?:const\b\s*)?(?:__restrict__\b)?",
                  lambda m: f"Pointer<{'const ' if m[1] or m[3] else ''}{m[2]}> ", code)  # fmt: skip
    code = code.replace("reinterpret_cast<", "pointer_cast<")
    calls = []
    for number, parameter in enumerate(parameters):
        argument = f"arguments[{number}]"
        if parameter.is_pointer:
            const = "const " if parameter.is_const else ""
            calls.append(
                f"Pointer<{const}{parameter.ctype}>(({parameter.ctype}*){argument}.address, &{argument}.region)"
            )
        else:
            calls.append(f"*(const {parameter.ctype}*){argument}.address")
    typedefs = "".join(f"typedef {ctype} {alias};\n" for alias, ctype in types.items())
    call = f"{name}({', '.join(calls)})"
    source = f'#include "cuda.h"\n{typedefs}#line 1 "{name}"\n{code}\n{_entry(call)}'
    return Program(name, source, parameters, bool(_SYNCHRONIZES.search(code)))


def elementwise_program(
    name: str, parameters: Sequence[tuple[str, np.dtype, bool, bool, bool]], types: dict[str, np.dtype],
    operation: str, preamble: str,
) -> Program:  # fmt: skip
    """The program of an element-wise kernel: the loop that `cupy.ElementwiseKernel` puts round its operation.

    Args:
        name: of the kernel.
        parameters: of each its name, dtype, whether it is an array, is `raw`, and is an output.
        types: what the type names of the operation stand for.
        operation: CUDA C++ for element `i`.
        preamble: CUDA C++ that stands before.
    """
    ctypes_of = {dtype: ctype for ctype, dtype in reversed(DTYPES.items())}
    lines, calls, elements = [], [], []
    for number, (parameter, dtype, is_array, is_raw, is_output) in enumerate(parameters):
        ctype, const = ctypes_of[dtype], "" if is_output else "const "
        argument = f"arguments[{number}]"
        if not is_array:
            lines.append(f"const {ctype} {parameter}")
            calls.append(f"*(const {ctype}*){argument}.address")
            continue
        lines.append(f"CArray<{const}{ctype}> {parameter if is_raw else '_raw_' + parameter}")
        calls.append(
            f"CArray<{const}{ctype}>{{Pointer<{const}{ctype}>(({ctype}*){argument}.address, &{argument}.region), "
            f"{argument}.shape_and_strides}}"
        )
        if not is_raw:
            output = "true" if is_output else "false"
            elements.append(f"{const}{ctype}& {parameter} = _raw_{parameter}.element(_i, {output});")
    typedefs = "".join(f"typedef {ctypes_of[dtype]} {letter};\n" for letter, dtype in types.items())
    size = f"*(const long long*)arguments[{len(parameters)}].address"
    source = f"""#include "cuda.h"
{typedefs}{preamble}
static void kernel({", ".join([*lines, "const long long _size"])}) {{
    CUPY_FOR(i, _size) {{
        const ptrdiff_t _i = i;
        {" ".join(elements)}
#line 1 "{name}"
        {operation};
    }}
}}
{_entry(f"kernel({', '.join([*calls, size])})")}"""
    return Program(name, source)


def _entry(call: str) -> str:
    return f"""
extern "C" void sim_entry(const Argument* arguments) {{ {call}; }}
"""


def _parameter_list(code: str, name: str) -> list[str]:
    found = re.search(rf"__global__\s+void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?{name}\s*\(([^)]*)\)", code)
    if not found:
        raise CompilerError(f"{name}: no `__global__ void {name}(...)` in its source")
    return [text for text in found[1].split(",") if text.strip()]


def _parameter(text: str, types: dict[str, str]) -> Parameter:
    words = re.sub(r"__restrict__", " ", text).replace("*", " * ").split()
    name, words = words[-1], words[:-1]
    is_pointer, is_const = "*" in words, "const" in words
    ctype = " ".join(word for word in words if word not in ("*", "const"))
    ctype = types.get(ctype, ctype)
    if ctype not in DTYPES:
        raise CompilerError(f"parameter `{text.strip()}` has a type that the simulator does not know")
    return Parameter(name, "unsigned" if ctype == "unsigned int" else ctype, is_pointer, is_const)


def _shared_arrays(code: str, kernel: str) -> str:
    """`__shared__ T a[4][8], n;` as objects that know their bounds and who touched them."""

    def declare(match: re.Match[str]) -> str:
        out = []
        for declared in match[2].split(","):
            name, *sizes = re.findall(r"\w+(?=\s*(?:\[|$))|(?<=\[)[^\]]+(?=\])", declared.strip())
            kind = f"Shared<{', '.join([match[1], *sizes])}>" if sizes else f"SharedScalar<{match[1]}>"
            out.append(f'static {kind} {name}("{name}");')
        return " ".join(out)

    code = re.sub(r"__shared__\s+((?:unsigned\s+|long\s+)*\w+)\s+([^;]+);", declare, code)
    if "__shared__" in code:
        raise CompilerError(f"{kernel}: a __shared__ declaration that the simulator does not know")
    return code


# Compiling


def _run(command: list[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise CompilerError(f"g++ does not compile {what}:\n{done.stderr[:4000]}")


def _compile(program: Program) -> Path:
    library = _folder() / f"{program.key}.so"
    if library.exists():
        return library
    with tempfile.TemporaryDirectory(dir=_folder()) as scratch:
        source, compiled = Path(scratch, "kernel.cpp"), Path(scratch, "kernel.so")
        source.write_text(program.source, "utf-8")
        # In two steps: linking must not see -fsanitize, whose reports the runtime takes itself.
        _run(["g++", *_KERNEL_FLAGS, f"-I{HERE}", "-c", str(source), "-o", f"{scratch}/kernel.o"], program.name)
        _run(["g++", "-shared", f"{scratch}/kernel.o", "-o", str(compiled)], program.name)
        compiled.replace(library)
    return library


def compile_all(programs: Iterable[Program]) -> None:
    """Compile programs side by side, those that are not there yet."""
    with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        list(pool.map(_compile, programs))


@cache
def runtime() -> ctypes.CDLL:
    """The library that runs the threads; kernels find its functions by name, so it is loaded for all."""
    key = hashlib.sha256(f"{_toolchain()}runtime".encode()).hexdigest()[:32]
    library = _folder() / f"{key}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=_folder()) as scratch:
            compiled = Path(scratch, "runtime.so")
            _run(["g++", *_FLAGS, "-shared", str(HERE / "runtime.cpp"), "-o", str(compiled)], "the runtime")
            compiled.replace(library)
    loaded = ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    loaded.sim_launch.restype = ctypes.c_char_p
    return loaded


@cache
def load(program: Program) -> ctypes.c_void_p:
    """The entry of a program, compiled if need be."""
    runtime()
    library = ctypes.CDLL(str(_compile(program)))
    return ctypes.cast(library.sim_entry, ctypes.c_void_p)
