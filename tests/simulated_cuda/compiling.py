"""What stands behind the simulated NVRTC: g++, with the arithmetic and the checks that are asked for.

FAKECUDA_NVRTC=path has the real NVRTC of that path, which needs no GPU, compile each source first.
"""

import ctypes
import hashlib
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from simulated_cuda.installing import packages
from simulated_cuda.nvrtc import by_real_nvrtc

HERE = Path(__file__).resolve().parent

# -fexpensive-optimizations contracts products and sums (-ffp-contract=fast alone does not), and costs little.
_FLAGS = (
    "-O1", "-fexpensive-optimizations", "-mfma", "-fPIC", "-w", "-U_FORTIFY_SOURCE", "-fno-stack-protector",
    "-fno-strict-aliasing", "-fno-tree-vectorize", "-fno-threadsafe-statics", "-fno-optimize-sibling-calls",
    "-fvisibility=hidden", f"-I{HERE}", f"-I{HERE / 'shim'}",
)  # fmt: skip
# What all element-wise kernels begin with: compiled once. Raw kernels do without.
_CUPY_HEADERS = "cupy/complex.cuh", "cupy/carray.cuh", "cupy/atomics.cuh", "cupy/math_constants.h"
_HEADERS_OF_CUPY = re.compile(r"^-I.*(?=/cupy/_core/include)")
_PROTOTYPE = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.POINTER(ctypes.c_char_p), ctypes.c_void_p, ctypes.c_void_p,
    ctypes.c_size_t,
)  # fmt: skip
_COMPILATION_FAILED = 6

# With checks g++ calls checks.cpp before each access to memory, and where it finds something itself.
_CHECKS = (
    "-DCHECKED", "-fsanitize=thread", "--param=tsan-instrument-func-entry-exit=0", "-fno-sanitize-recover=all",
    "-fsanitize=bounds,alignment,integer-divide-by-zero,signed-integer-overflow,shift",
)  # fmt: skip

_BOUNDS = r"(?:__launch_bounds__\s*\([^)]*\)\s*)?"
_KERNEL = re.compile(rf"__global__\s+{_BOUNDS}void\s+{_BOUNDS}(\w+)\s*\(([^)]*)\)")
_SHARED = re.compile(r"__shared__\s[^;]+;")


def kernels_in(source: str) -> dict[str, list[tuple[str, str]]]:
    """Type and name of the parameters of each kernel of a source."""
    found = {}
    for name, parameters in _KERNEL.findall(re.sub(r"//[^\n]*", "", source)):
        each = re.findall(r"((?:<[^>]*>|[^,<])+?)\s*(\w+)\s*(?:,|$)", parameters)
        found[name] = [(" ".join(kind.split()), parameter) for kind, parameter in each]
    return found


def _with_shared_arrays_told(source: str) -> str:
    """Call `simulated_shared` behind each declaration of shared memory."""

    def told(declaration: re.Match[str]) -> str:
        names = re.findall(r"(\w+)\s*(?:\[[^\]]*\]\s*)*[,;]", declaration[0])
        return declaration[0] + "".join(f' simulated_shared("{name}", &{name}, sizeof {name});' for name in names)

    return _SHARED.sub(told, source)


# Instructions on float64 that a subnormal number matters to, and calls of the C library's functions of float64.
_ON_FLOAT64 = re.compile(
    r"\s(v?(add|sub|mul|div|sqrt|min|max|u?comi|cmp\w*|fn?m(add|sub)\d*)sd\s"
    r"|call\s+(exp|expm1|exp2|log|log1p|log2|log10|pow|tanh?|sinh?|cosh?|fmin|fmax|fmod|erf|erfc|cbrt)(@PLT)?$)"
)


def float32_alone(assembly: str) -> str:
    """Take float64 out of the flushing of subnormal numbers, which the processor has for both types or none."""
    lines = []
    for line in assembly.splitlines():
        is_apart = _ON_FLOAT64.search(line)
        lines += ["\tldmxcsr\t.Lkeeping(%rip)", line, "\tldmxcsr\t.Lflushing(%rip)"] if is_apart else [line]
    lines += ["\t.section .rodata", "\t.align 4", ".Lkeeping:", "\t.long 0x1f80", ".Lflushing:", "\t.long 0x9fc0", ""]
    return "\n".join(lines)


class Compiler:
    """Compiles for the simulated NVRTC, and keeps what it made in a folder."""

    def __init__(self, folder: Path, core: ctypes.CDLL) -> None:
        self.folder, self.checks = folder, False  # checks of what kernels do to memory: see checks.cpp
        self._callback = _PROTOTYPE(self._compile)
        core.simulated_compiler(self._callback)

    def _compile(
        self, source: bytes, count: int, options: "ctypes._Pointer[ctypes.c_char_p]", path: int, log: int, room: int
    ) -> int:
        given = [(options[i] or b"").decode() for i in range(count)]
        try:
            nvrtc = os.environ.get("FAKECUDA_NVRTC")
            if nvrtc and (problem := by_real_nvrtc(nvrtc, [(source.decode(), given)])[0]):
                raise CompilationError(problem)
            made = os.fsencode(self.library(source.decode(), given))
            ctypes.memmove(path, made + b"\0", len(made) + 1)
        except CompilationError as error:
            text = str(error).encode()[: room - 1] + b"\0"
            ctypes.memmove(log, text, len(text))
            return _COMPILATION_FAILED
        return 0

    def library(self, source: str, options: Sequence[str]) -> Path:
        """The shared library of a source, compiled where it is not kept from before."""
        include = [o for o in options if o.startswith("-I")]
        flags = [o.replace("--std", "-std") for o in options if o.startswith(("-D", "-std", "--std"))]
        contracts = not {"--fmad=false", "-fmad=false"} & set(options)
        flushes = bool({"-ftz=true", "--ftz=true", "--use_fast_math"} & set(options))
        flags += ["-ffp-contract=fast" if contracts else "-ffp-contract=off", *(_CHECKS if self.checks else ())]
        key = hashlib.sha256("\0".join([source, *flags, str(flushes)]).encode()).hexdigest()[:32]
        library = self.folder / f"{key}.so"
        if library.exists():
            return library
        synchronizes = int(bool(re.search(r"__sync|_sync\(", source)))
        entries = ""
        for name, parameters in kernels_in(source).items():
            names = "".join(f', "{parameter.removeprefix("_raw_")}"' for _, parameter in parameters)
            entries += f"KERNEL({name}, {synchronizes}, {int(flushes)}{names or ', nullptr'})\n"
        header = self._header("cupy" if "#include <cupy/" in source else "device", include, flags)
        told = _with_shared_arrays_told(source) if self.checks else source
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            text, assembly, made = (Path(scratch, name) for name in ("kernel.cpp", "kernel.s", "kernel.so"))
            text.write_text(f'#line 1 "kernel.cu"\n{told}\n{entries}', "utf-8")
            _run("g++", *_FLAGS, *include, *flags, "-include", header, "-S", text, "-o", assembly)
            if flushes:
                assembly.write_text(float32_alone(assembly.read_text("utf-8")), "utf-8")
            _run("g++", "-shared", assembly, "-o", made)
            if not self.checks:
                kept = Path(scratch, "kernel.json")
                kept.write_text(json.dumps({"source": source, "options": list(options)}), "utf-8")
                kept.replace(library.with_suffix(".json"))
            made.replace(library)
        return library

    def compiled(self) -> list[tuple[str, list[str]]]:
        """Source and options of all that was ever compiled here, with the headers of the CuPy that is installed.

        The one that a source was compiled with may be gone: several installations of one wheel share this folder.
        """
        kept = [json.loads(path.read_text("utf-8")) for path in sorted(self.folder.glob("*.json"))]
        return [(one["source"], [_HEADERS_OF_CUPY.sub(_own, option) for option in one["options"]]) for one in kept]

    def _header(self, kind: str, include: Sequence[str], flags: Sequence[str]) -> Path:
        """A header that is compiled beforehand for these flags; g++ takes what lies beside it as .gch."""
        key = hashlib.sha256("\0".join(flags).encode()).hexdigest()[:16]
        header = self.folder / f"{kind}-{key}.h"
        if not Path(f"{header}.gch").exists():
            included = ["device.h", *(_CUPY_HEADERS if kind == "cupy" else ())]
            with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
                text, made = (Path(scratch, f"{header.name}{suffix}") for suffix in ("", ".gch"))
                text.write_text("".join(f"#include <{name}>\n" for name in included), "utf-8")
                _run("g++", *_FLAGS, *include, *flags, "-x", "c++-header", text, "-o", made)
                text.replace(header)
                made.replace(f"{header}.gch")
        return header


def _own(_: re.Match[str]) -> str:
    return f"-I{packages()}"


class CompilationError(Exception):
    """What a compiler says of a source that it refuses."""


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CompilationError(done.stderr[:4000])
