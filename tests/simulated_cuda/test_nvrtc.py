"""Every source that was compiled here, by NVIDIA's own compiler with CuPy's very options, for the first and last GPU.

For those between them tests/kernels/test_compile.py compiles our own kernels. What other tests have run before is kept,
with what CuPy makes itself: so this comes last (.ci/run).
"""

import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from simulator.cases import calls, dtypes
from support.harness import call

from gpunn.backend.devices import select
from gpunn.kernels import registry
from simulated_cuda.compiling import kernels_in
from simulated_cuda.core import core
from simulated_cuda.installing import real_nvrtc
from simulated_cuda.nvrtc import by_real_nvrtc

ARCHITECTURES = (75, 120)


@pytest.fixture(scope="module")
def everything() -> list[tuple[str, list[str]]]:
    """Sources and options of each kernel of the registry, run once in each dtype, and of all that ran before."""
    backend = select("cuda")
    for name in sorted(registry):
        for dtype in dtypes(name):
            for one in calls(name, dtype, [3]):
                call(backend, registry[name], *one.arguments)
    return core().compiler.compiled()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_source_compiles_as_cupy_has_it_compiled(
    everything: list[tuple[str, list[str]]], architecture: int
) -> None:
    assert all("-ftz=true" in options for _, options in everything)
    given = [
        (source, [*(option for option in options if "-arch" not in option), f"-arch=sm_{architecture}"])
        for source, options in everything
    ]
    nvrtc = str(real_nvrtc())
    with ThreadPoolExecutor(2) as pool:
        halves = list(pool.map(lambda half: by_real_nvrtc(nvrtc, half), (given[::2], given[1::2])))
    assert len(halves[0]) + len(halves[1]) == len(everything)
    assert [problem for half in halves for problem in half if problem] == []
    found = {name for source, _ in everything for name in kernels_in(source)}
    ours, cupys = found & set(registry), {name for name in found if name.startswith("cupy_")}
    assert ours == set(registry)
    print(f"sm_{architecture}: {len(everything)} sources, all {len(ours)} kernels, {len(cupys)} of CuPy's own")


def test_cupys_cache_holds_nothing_that_was_not_compiled_here(everything: list[tuple[str, list[str]]]) -> None:
    cached = [path.read_bytes() for path in Path(os.environ["CUPY_CACHE_DIR"]).glob("*.cubin")]
    found = {name for source, _ in everything for name in kernels_in(source)}
    of_cache = {m.decode() for binary in cached for m in re.findall(rb"\0kernel_(\w+)\0", binary)}
    assert len(cached) >= len(registry)
    assert of_cache <= found


def test_a_source_that_is_wrong_is_refused() -> None:
    sources = [f"__global__ void f(float* x) {{ {what}(x); }}" for what in ("no_such_function", "(void)")]
    wrong, right = by_real_nvrtc(str(real_nvrtc()), [(source, ["-arch=sm_90"]) for source in sources])
    assert "no_such_function" in wrong
    assert right == ""
