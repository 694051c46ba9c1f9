"""NVIDIA's own compiler, in a process of its own, where CUDA is not simulated: `by_real_nvrtc` starts it.

It reads sources and options as JSON, and writes for each what is wrong with it, "" where it compiles.
"""

import ctypes
import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any


def by_real_nvrtc(path: str, sources: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    """What the real NVRTC of a path says against each source, "" for one that it makes code of; no GPU is needed."""
    command = [sys.executable, "-I", __file__, path]
    done = subprocess.run(command, input=json.dumps(list(sources)), capture_output=True, text=True, check=False)
    if done.returncode:
        return [f"NVRTC ended with {done.returncode}: {done.stderr[-500:]}"] * len(sources)
    return list(json.loads(done.stdout))


def _problem(nvrtc: Any, source: str, options: Sequence[str]) -> str:
    program = nvrtc.createProgram(source, "kernel.cu", (), ())
    try:
        nvrtc.compileProgram(program, tuple(options))
    except nvrtc.NVRTCError:
        return nvrtc.getProgramLog(program) or "it does not compile"
    return "" if nvrtc.getCUBIN(program)[:4] == b"\x7fELF" else "it makes no code"


def main() -> None:
    ctypes.CDLL(sys.argv[1])  # CuPy takes the one that is loaded
    from cupy_backends.cuda.libs import nvrtc

    json.dump([_problem(nvrtc, *one) for one in json.load(sys.stdin)], sys.stdout)


if __name__ == "__main__":
    main()
