"""Read the machine code of a kernel by NVRTC: instructions, registers, widths of loads and stores; needs no GPU.

It needs CuPy's NVRTC and nvdisasm (pip install nvidia-cuda-nvdisasm).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from machine import ROOT

from gpunn.backend import compiling
from gpunn.kernels.record import Raw

ARCHITECTURE = 90


@dataclass(frozen=True)
class Code:
    """A compiled kernel.

    Attributes:
        instructions: of one pass through it, without those that only fill up.
        registers: of a thread.
        loaded, stored: bytes of global memory that one pass through it reads and writes.
        ahead: bytes of loads that are issued before the first of their values is used, at most.
    """

    instructions: int
    registers: int
    loaded: int
    stored: int
    ahead: int


_INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)\s*([^;]*);", re.MULTILINE)


Source = tuple[str, tuple[str, ...]]
"""CUDA C++ and the compiler's options of its kernel."""


def source_of(kernel: Raw, dtypes: Mapping[str, np.dtype[Any]], constants: Mapping[str, int]) -> Source:
    return compiling.cuda_source(kernel, dtypes, constants), kernel.options


def codes_of(sources: Iterable[Source]) -> dict[Source, Code]:
    """Compile raw kernels as CuPy does, and read what came out; in a process whose CUDA is not simulated."""
    given = list(dict.fromkeys(sources))
    environment = {name: value for name, value in os.environ.items() if name != "GPUNN_SIMULATED_CUDA"}
    folders = environment.get("PYTHONPATH", "").split(os.pathsep)
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *(f for f in folders if "simulated_cuda" not in f)])
    done = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return dict(zip(given, (Code(**fields) for fields in json.loads(done.stdout)), strict=True))


def compiled(source: str, options: Sequence[str]) -> Code:
    from cupy._core import core
    from cupy_backends.cuda.libs import nvrtc

    given = (
        *core.assemble_cupy_compiler_options(tuple(options)), "-ftz=true", "--device-as-default-execution-space",
        f"-arch=sm_{ARCHITECTURE}", "--ptxas-options=-v",
    )  # fmt: skip
    program = nvrtc.createProgram(source, "kernel.cu", (), ())
    nvrtc.compileProgram(program, given)
    registers = re.findall(r"Used (\d+) registers", nvrtc.getProgramLog(program))
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(nvrtc.getCUBIN(program) + b"\0")  # which CuPy drops
        file.flush()
        text = subprocess.run([nvdisasm(), "-c", file.name], capture_output=True, text=True, check=True).stdout
    return read(text, int(registers[-1]))


def nvdisasm() -> str:
    """Return where nvdisasm is, of the wheel or on the PATH."""
    for folder in sys.path:
        for path in sorted(Path(folder).glob("nvidia/*/bin/nvdisasm")):
            return str(path)
    if (found := shutil.which("nvdisasm")) is None:
        raise FileNotFoundError("nvdisasm is not here: pip install nvidia-cuda-nvdisasm")
    return found


def read(text: str, registers: int) -> Code:
    """Return what the assembly of one kernel says."""
    instructions, loaded, stored, ahead, most = 0, 0, 0, 0, 0
    waiting: set[str] = set()  # registers that loads on their way will set
    for name, operands in _INSTRUCTION.findall(text):
        if name == "NOP":
            continue
        instructions += 1
        target, _, others = operands.partition(",")
        if any(register in waiting for register in re.findall(r"\bR\d+\b", others)):
            waiting.clear()
            ahead = 0
        if name.startswith("LDG"):
            width = _width(name)
            loaded += width
            ahead += width
            most = max(most, ahead)
            if found := re.match(r"\s*R(\d+)", target):
                waiting |= {f"R{int(found[1]) + at}" for at in range(max(1, width // 4))}
        elif name.startswith("STG"):
            stored += _width(name)
    return Code(instructions, registers, loaded, stored, most)


def _width(name: str) -> int:
    """Return the bytes of a load or a store."""
    parts = name.split(".")
    for part, width in (("128", 16), ("64", 8), ("U8", 1), ("S8", 1), ("U16", 2), ("S16", 2)):
        if part in parts:
            return width
    return 4


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # CuPy warns of the CUDA that it does not find
    print(json.dumps([asdict(compiled(source, options)) for source, options in json.load(sys.stdin)]))
