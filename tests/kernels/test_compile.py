"""Every kernel and dtype compiled by NVRTC for every GPU that is supported, as CuPy does it; no GPU is needed."""

from typing import Any

import pytest

from gpunn.kernels import registry
from kernels.compiling import ARCHITECTURES, code_of, compiled, nvrtc, used

REGISTERS_OF_A_BLOCK = 65536


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_kernel_compiles_and_spills_no_register(architecture: int, record_property: Any) -> None:
    """The wide forms of element-wise kernels, too."""
    seen, most = set(), (0, "")
    for function, registers, spilled, _ in code_of(architecture):
        most = max(most, (registers, function.name))
        record_property(f"{function.name} on sm_{architecture}", f"{registers} registers, {spilled} bytes spilled")
        assert spilled == 0, f"{function.name} spills {spilled} bytes on sm_{architecture}"
        # Registers are handed out to warps in units of 8 a thread.
        assert -(-registers // 8) * 8 * function.threads <= REGISTERS_OF_A_BLOCK, function.name
        seen.add(function.kernel.name)
    wide = {f"{name}_wide" for name, kernel in registry.items() if getattr(kernel, "may_be_wide", False)}
    assert seen == {*registry, *wide}
    print(f"sm_{architecture}: at most {most[0]} registers, by {most[1]}, none spilled")


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
