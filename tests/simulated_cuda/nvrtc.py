"""NVIDIA's own compiler, in a process of its own, where CUDA is not simulated: `by_real_nvrtc` starts it.

It reads sources and options as JSON, and writes for each what is wrong with it, "" where it compiles.
"""

import ctypes
import json
import subprocess
import sys
from collections.abc import Sequence


def by_real_nvrtc(path: str, sources: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    """What the real NVRTC says against sources, "" for one that it makes code of; no GPU is needed.

    Args:
        path: of its library.
        sources: each with its options.
    """
    command = [sys.executable, "-I", __file__, path]
    done = subprocess.run(command, input=json.dumps(list(sources)), capture_output=True, text=True, check=False)
    if done.returncode:
        return [f"NVRTC ended with {done.returncode}: {done.stderr[-500:]}"] * len(sources)
    return list(json.loads(done.stdout))


def _compiled(nvrtc: ctypes.CDLL, source: str, options: Sequence[str]) -> str:
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None)
    try:
        given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        if nvrtc.nvrtcCompileProgram(program, len(options), given):
            nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
            log = ctypes.create_string_buffer(max(1, size.value))
            nvrtc.nvrtcGetProgramLog(program, log)
            return log.value.decode("utf-8", "replace") or "it does not compile"
        nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size))
        code = ctypes.create_string_buffer(max(4, size.value))
        nvrtc.nvrtcGetCUBIN(program, code)
        return "" if code.raw[:4] == b"\x7fELF" else "it makes no code"
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def main() -> None:
    nvrtc = ctypes.CDLL(sys.argv[1])
    json.dump([_compiled(nvrtc, *one) for one in json.load(sys.stdin)], sys.stdout)


if __name__ == "__main__":
    main()
