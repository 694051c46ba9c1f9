"""The page for those who come from PyTorch or Keras: every name of gpunn in it is there, and takes what it is given."""

import re

import numpy as np
import pytest
from support.paths import ROOT

import gpunn as gn

PAGE = (ROOT / "docs" / "coming-from.md").read_text("utf-8")
FIRST = [line.split("|")[1].strip() for line in PAGE.splitlines() if line.startswith("| `")]
PARTS = [code for cell in FIRST for code in re.findall(r"`(gn\.\w+\([^`]*\))`", cell) if "..." not in code]
CALLED = sorted({name for cell in FIRST for name in re.findall(r"model\.(\w+)", cell)})


@pytest.mark.parametrize("code", [code for code in PARTS if "model" not in code])
def test_a_part_is_made_as_the_page_says(code: str) -> None:
    assert len(PARTS) > 25
    assert isinstance(eval(code, {"gn": gn}), object)


def test_every_name_is_there() -> None:
    names = set(re.findall(r"gn\.(\w+)", PAGE))
    assert len(names) > 30
    assert names <= set(gn.__all__)
    model = gn.Sequential([gn.Dense(2)]).build((3,), 4, "cpu")
    assert len(CALLED) > 10
    assert [name for name in CALLED if not hasattr(model, name)] == []
    assert set(re.findall(r"model\.parameters\[.*?\]\.(\w+)", PAGE)) == {"grad"}


def test_the_network_of_the_page_is_built() -> None:
    block = next(each for each in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "build(" in each)
    scope: dict[str, object] = {}
    exec(block.partition("gn.load_state_dict")[0], scope)
    model = scope["model"]
    assert isinstance(model, gn.Sequential)
    found = gn.load_state_dict(model, {f"m.{name}": value for name, value in model.state_dict().items()})
    assert [*found.values()] == ["m.0", "m.1", "m.5"]
    assert model.predict(np.zeros((2, 28, 28, 1))).shape == (2,)
