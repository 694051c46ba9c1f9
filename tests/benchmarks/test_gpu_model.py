"""The model of a GPU: it reads compiled code, and slows down for what makes a kernel slow."""

from types import ModuleType
from typing import Any

import pytest
from support.paths import ROOT

ASSEMBLY = """
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/                   LDG.E.128 R4, desc[UR4][R2.64] ;
        /*0020*/              @!P0 LDG.E.128.CONSTANT R8, desc[UR4][R2.64+0x10] ;
        /*0030*/                   FADD R4, R4, R8 ;
        /*0040*/                   LDG.E.U8 R12, desc[UR4][R2.64+0x20] ;
        /*0050*/                   STG.E.64 desc[UR4][R2.64], R4 ;
        /*0060*/                   NOP;
"""


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gpu_model

    return gpu_model


def test_the_code_of_a_kernel_is_read(model: ModuleType) -> None:
    import gpu_code

    code = gpu_code.read(ASSEMBLY, registers=20)
    assert code == gpu_code.Code(instructions=6, registers=20, loaded=33, stored=8, ahead=32)


def node(model: ModuleType, **changes: Any) -> Any:
    usual = {"name": "some", "blocks": 4096, "threads": 256, "elements": 2**24, "needed": 2**27, "moved": 2**27}
    return model.Node(**usual | changes)


def test_a_kernel_takes_as_long_as_what_holds_it_up(model: ModuleType) -> None:
    device = model.Device()
    code = model.Code(instructions=60, registers=32, loaded=64, stored=64, ahead=64)
    whole = model.seconds(node(model), code, device)
    assert whole == pytest.approx(device.empty + 2**27 / (device.bandwidth * 1e3))
    few_blocks = model.seconds(node(model, blocks=64), code, device)
    one_load = model.seconds(node(model, blocks=64), model.Code(60, 32, 4, 4, 4), device)
    many_instructions = model.seconds(node(model), model.Code(6000, 32, 64, 64, 64), device)
    assert whole < few_blocks < one_load
    assert whole < many_instructions


def test_a_product_takes_longer_with_more_to_multiply(model: ModuleType) -> None:
    times = [
        model.product_seconds(node(model, name="product", sizes=sizes, moved=1000), model.Device())
        for sizes in ((64, 64, 64), (512, 512, 512), (4096, 4096, 4096))
    ]
    assert times == sorted(times)
    assert times[-1] == pytest.approx(2 * 4096**3 / (132 * 0.30e6), rel=0.05)


def test_the_table_of_the_page_is_the_one_that_was_predicted(model: ModuleType) -> None:
    page = (ROOT / "docs" / "gpu.md").read_text("utf-8")
    assert page == model.with_table(page), "run python benchmarks/gpu_model.py"
