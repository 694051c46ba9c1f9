"""Puts the simulated CUDA where CuPy and nvmath look for the real one; nothing of theirs is changed but in memory.

CuPy's wheel holds the CUDA runtime as static functions of one of its modules. They are local, but their names are
there: each is overwritten with a jump to ours. All else is loaded by name, and found where that name is loaded already.
"""

import ctypes
import hashlib
import importlib.metadata
import importlib.util
import mmap
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
RUNTIME = "cupy_backends.cuda.api.runtime"

_FLAGS = ("-std=gnu++17", "-O3", "-g1", "-fPIC", "-w", "-U_FORTIFY_SOURCE", "-fno-stack-protector")


class Wheel(NamedTuple):
    """A wheel of CuPy that this is made for; headers and NVRTC by their places among the packages."""

    version: str
    cuda: int
    functions: int  # of the CUDA runtime, linked into it
    headers: str
    nvrtc: str


WHEELS = {
    "cupy-cuda13x": Wheel("14.2.0", 13, 437, "nvidia/cu13/include", "nvidia/cu13/lib/libnvrtc.so.13"),
    "cupy-cuda12x": Wheel("14.2.0", 12, 421, "nvidia/cuda_runtime/include", "nvidia/cuda_nvrtc/lib/libnvrtc.so.12"),
}


class NotSimulatedError(Exception):
    """Why there can be no simulated CUDA here."""


def wheel() -> Wheel:
    """The wheel of CuPy that is installed; another version's functions may be others, so it is refused."""
    spec = importlib.util.find_spec("cupy_backends")
    beside = [] if spec is None or spec.origin is None else [str(Path(spec.origin).parents[1])]
    for name, known in WHEELS.items():
        found = next(iter(importlib.metadata.distributions(name=name, path=beside)), None)
        if found is None:
            continue
        if (version := found.version) != known.version:
            raise NotSimulatedError(
                f"the simulated CUDA is made for {name} {known.version}, and {version} is installed: "
                f"pip install {name}=={known.version}, or look at what is new and change WHEELS in {__file__}"
            )
        return known
    raise NotSimulatedError("CuPy is not installed: pip install '.[cuda13]' brings it, and needs no GPU")


def problem() -> str:
    """Why there can be no simulated CUDA here, in one line, and what mends that; "" if there can."""
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        return "the simulated CUDA is made for Linux on x86-64"
    if shutil.which("g++") is None:
        return "the simulated CUDA needs g++: install it (Debian, Ubuntu: apt install g++)"
    try:
        wheel()
    except NotSimulatedError as error:
        return str(error)
    return ""


def real_nvrtc() -> Path:
    """NVIDIA's own compiler, which needs no GPU."""
    return packages() / wheel().nvrtc


def packages() -> Path:
    """The folder that CuPy is installed in."""
    spec = importlib.util.find_spec("cupy_backends")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parents[1]


def _sonames(cuda: int) -> list[str]:
    nvrtc = "libnvrtc.so.13" if cuda == 13 else "libnvrtc.so.12"
    return [
        "libcuda.so.1",
        "libnccl.so.2",
        nvrtc,
        *(f"lib{name}.so.{cuda}" for name in ("cudart", "cublas", "cublasLt")),
    ]


@cache
def build() -> Path:
    """The folder of the libraries, made where they are not kept from before; kernels are kept there too."""
    sources, installed = sorted(HERE.glob("*.cpp")), wheel()
    compiler = subprocess.run(["g++", "--version"], capture_output=True, check=True).stdout
    content = [path.read_bytes() for path in sorted([*HERE.rglob("*.h"), *sources, HERE / "compiling.py"])]
    key = hashlib.sha256(b"\0".join([repr(installed).encode(), repr(_FLAGS).encode(), compiler, *content])).hexdigest()
    cache_folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache_folder / "gpunn-tests" / f"cuda-{key[:24]}"
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    headers = packages() / installed.headers
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:

        def compiled(source: Path) -> str:
            made = f"{scratch}/{source.stem}.o"
            include = (f"-I{headers}", f"-I{HERE / 'shim'}")
            subprocess.run(["g++", *_FLAGS, *include, "-c", str(source), "-o", made], check=True)
            return made

        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            objects = list(pool.map(compiled, sources))
        # Laid out as an installation of CUDA: CuPy looks for headers beside NVRTC.
        whole = Path(scratch, "made")
        libraries = whole / "lib"
        libraries.mkdir(parents=True)
        (whole / "include").symlink_to(headers)
        core = str(libraries / "libsimulated.so")
        subprocess.run(
            ["g++", "-shared", *objects, "-o", core, "-Wl,-soname,libsimulated.so,-z,defs", "-ldl", "-lpthread"],
            check=True,
        )
        for name in _sonames(installed.cuda):  # each an empty library that needs the one above
            own = (f"-Wl,-soname,{name}", "-Wl,--no-as-needed", core, "-Wl,-rpath,$ORIGIN", "-o", str(libraries / name))
            subprocess.run(["g++", "-shared", "-fPIC", "-x", "c++", "/dev/null", "-x", "none", *own], check=True)
        try:
            whole.rename(folder)
        except OSError:  # another process was faster
            if not folder.exists():
                raise
    return folder


def functions_in(path: Path) -> dict[str, tuple[int, int]]:
    """Address and length of the functions of a library by name, those too that it does not export."""
    listed = subprocess.run(["nm", "--print-size", str(path)], capture_output=True, text=True, check=True).stdout
    rows = (line.split() for line in listed.splitlines())
    return {row[3]: (int(row[0], 16), int(row[1], 16)) for row in rows if len(row) == 4 and row[2] in "tT"}


_kept: list[Any] = []
_JUMP = b"\xff\x25\0\0\0\0"  # to the address in the eight bytes behind it
_LOAD = b"\x48\xbf"  # the eight bytes behind it, as a first argument


def _divert(core: ctypes.CDLL) -> None:
    """Let each function of the runtime in CuPy's module jump to ours, or to one that reports its name."""
    folder, _, stem = RUNTIME.rpartition(".")
    spec = importlib.util.find_spec(folder)
    assert spec is not None
    path = next(Path(next(iter(spec.submodule_search_locations or []))).glob(f"{stem}.*.so"))
    functions = functions_in(path)
    runtime = {n: place for n, place in functions.items() if n.startswith("cuda") and n[4:5].isupper()}
    if len(runtime) != wheel().functions:
        raise NotSimulatedError(
            f"{path.name} holds {len(runtime)} functions of the CUDA runtime, expected {wheel().functions}: "
            "another wheel, or one without names"
        )
    library, entry = ctypes.CDLL(str(path)), f"PyInit_{stem}"
    base = _address(library, entry) - functions[entry][0]
    process = ctypes.CDLL(None, use_errno=True)
    room = mmap.mmap(-1, 32 * len(runtime), prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    room_at, used = ctypes.addressof(ctypes.c_char.from_buffer(room)), 0
    for name, (address, extent) in runtime.items():
        if extent < len(_JUMP) + 8:
            raise NotSimulatedError(f"{name} in {path.name} is too short for a jump: {extent} bytes")
        if hasattr(core, name):
            target = _address(core, name)
        else:
            text = ctypes.create_string_buffer(name.encode())
            _kept.append(text)
            code = _LOAD + struct.pack("<Q", ctypes.addressof(text))
            code += _JUMP + struct.pack("<Q", _address(core, "simulated_missing"))
            room[used : used + len(code)] = code
            target, used = room_at + used, used + len(code)
        place = base + address
        page = place & -mmap.PAGESIZE
        if process.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(place + 14 - page), 7):
            raise OSError(ctypes.get_errno(), "mprotect")
        ctypes.memmove(place, _JUMP + struct.pack("<Q", target), 14)
    _kept.extend((library, room))


def _address(library: ctypes.CDLL, name: str) -> int:
    address = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
    assert address is not None
    return address


def install() -> ctypes.CDLL:
    """Make CUDA ours in this process, which must not have imported CuPy yet; once is enough."""
    if _kept:
        return _kept[0]
    if reason := problem():
        raise NotSimulatedError(reason)
    if RUNTIME in sys.modules:
        raise NotSimulatedError("CuPy is imported already: too late for a simulated CUDA")
    folder = build()
    core = ctypes.CDLL(str(folder / "lib" / "libsimulated.so"), mode=ctypes.RTLD_GLOBAL)
    core.simulated_count.restype = ctypes.c_long
    core.simulated_memory.restype = core.simulated_moved.restype = ctypes.c_size_t
    core.simulated_problem.restype = ctypes.c_char_p
    _kept.append(core)
    names = _sonames(wheel().cuda)
    if os.environ.get("FAKECUDA_NCCL") == "0":  # as without the extra that brings it
        names.remove("libnccl.so.2")
    _kept.extend(ctypes.CDLL(str(folder / "lib" / name), mode=ctypes.RTLD_GLOBAL) for name in names)
    from simulated_cuda.compiling import Compiler

    _kept.append(compiler := Compiler(folder, core))
    core.compiler = compiler  # type: ignore[attr-defined]
    os.environ.setdefault("CUPY_CACHE_DIR", str(folder / "cupy"))
    os.environ.setdefault("CUPY_ACCELERATORS", "")  # those are kernels that nvcc compiled
    _divert(core)
    return core
