"""What NVRTC makes of the kernels that are `WATCHED`, in float32, read in the machine code: no GPU is needed.

`compiled_code.json` has a line for each: by architecture, `COLUMNS`. After a change of such a kernel make it again, and
look at what has changed:

    python tests/kernels/test_compiled_code.py
"""

import json
import re
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

from gpunn.kernels import Elementwise, registry
from kernels import compiling
from kernels.compiling import Code, code_of

ARCHITECTURES = (75, 86, 90, 100, 120)
TABLE = Path(__file__).with_name("compiled_code.json")
_PATTERNS = {
    "loads": r"LDG\b",
    "wide loads": r"LDG\S*\.128",
    "stores": r"STG\b",
    "wide stores": r"STG\S*\.128",
    "local memory": r"(LDL|STL)\b",  # where registers are spilled to
    "float64": r"(D(ADD|MUL|FMA|SETP|MNMX)|MUFU\S*64H|F2F\S*F64|I2F\S*F64|F2I\S*F64)",
    "divisions": r"(I2F\S*\.RP|MUFU\.RCP)",  # of integers, and of numbers
}
COLUMNS = ("registers", "instructions", *_PATTERNS)

# Kernels that go over long arrays: so many loads of 128 bits are on their way before the first value is needed, and
# what they write is written so. The last numbers go one by one.
STREAMING = {
    "row_sums": (4, 0),
    "mark_not_finite": (4, 0),
    **{f"{name}_gradient_and_sums": (4, 2) for name in ("relu", "sigmoid", "tanh", "softplus")},
    **{f"bias_{name}_and_moments": (4, 4) for name in ("relu", "sigmoid", "tanh_activation", "softplus")},
    **{f"normalize_{name}_gradient_and_sums": (4, 2) for name in ("relu", "sigmoid", "tanh", "softplus")},
    "moments": (4, 0),
    "normalize": (8, 4),
    "normalize_sums": (8, 0),
    "normalize_gradient": (16, 4),
}
# The wide form of every element-wise kernel: two loads of 128 bits for each array that it goes over.
WIDE = {f"{name}_wide" for name, each in registry.items() if isinstance(each, Elementwise) and each.may_be_wide}
# Totals of a training: the sums of a loss.
TOTALS = {
    f"{weighted}{name}"
    for weighted in ("", "weighted_")
    for name in ("softmax_cross_entropy", "binary_cross_entropy", "mean_squared_error")
}
# Kernels of images, none of whose variants divides: windows, strides and samples are constants. In the table stand
# some, by these constants in the order of the kernel, all of four samples a thread; with how many loads and stores of
# 128 bits there must be. There are no others, but for the choices of a pooling and the weights of filters.
IMAGES = {
    "im2col": {"3_3_1_1_4_3": (1, 9), "3_3_2_2_4_3": (1, 9)},
    "col2im": {"3_3_1_1_4_3": (10, 1), "3_3_2_2_4_3": (10, 1)},
    "max_pool": {"2_2_2_2_4_2_0_1": (4, 1), "3_3_2_2_4_3_0_1": (9, 1)},
    "max_pool_gradient": {"2_2_2_2_4_2_2_2_1": (1, 4), "3_3_2_2_4_3_2_2_1": (3, 4)},
    "average_pool": {"2_2_2_2_4_2_0_1": (4, 1), "3_2_2_2_4_3_1_0": (6, 1)},
    "average_pool_gradient": {"2_2_2_2_4_2_2_2_1": (1, 4), "3_2_2_2_4_3_2_2_0": (2, 4)},
    "mean_of_pixels": {"4": (8, 1)},
    "mean_of_pixels_gradient": {"4": (1, 1)},
    "convolve_groups": {"3_3_1_1_4_3_3_2": (9, 1)},
    "convolve_groups_input_gradient": {"3_3_1_1_4_3_3_2": (9, 1)},
    "convolve_groups_weight_gradient": {"3_3_1_1_4_3_3_2": (2, 0)},
}
WITH_OTHER_LOADS = {each for each in IMAGES if each.startswith(("max_pool", "convolve_groups"))}
WATCHED = {*STREAMING, *WIDE, *TOTALS, *(f"{name} {which}" for name, some in IMAGES.items() for which in some)}


def row(instructions: Sequence[str], registers: int) -> dict[str, int]:
    """The columns of a function."""
    counts = {what: sum(bool(re.match(p, each)) for each in instructions) for what, p in _PATTERNS.items()}
    return {"registers": registers, "instructions": len(instructions), **counts}


@cache
def read(architecture: int) -> dict[str, tuple[Code, dict[str, int]]]:
    """By kernel and constants all that is read in float32."""
    if compiling.nvdisasm() is None:
        pytest.skip("what is compiled is read by nvdisasm: pip install nvidia-cuda-nvdisasm")
    return {
        f"{code.function.kernel.name} {code.function.constants}".rstrip(): (
            code,
            row(code.instructions, code.registers),
        )
        for code in code_of(architecture)
        if code.instructions and code.function.dtype == "float32"
    }


def whole_table() -> dict[str, dict[str, list[int]]]:
    """By kernel and architecture the columns."""
    made = {str(a): read(a) for a in ARCHITECTURES}
    return {name: {a: list(found[name][1].values()) for a, found in made.items()} for name in sorted(WATCHED)}


def version() -> str:
    return ".".join(map(str, compiling.nvrtc.getVersion()))


def written(table: dict[str, dict[str, list[int]]]) -> str:
    lines = ",\n".join(f'  "{name}": {json.dumps(rows)}' for name, rows in table.items())
    return f'{{"nvrtc": "{version()}", "columns": {json.dumps(COLUMNS)}, "kernels": {{\n{lines}\n}}}}\n'


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_watched_kernels_keep_to_their_rules(architecture: int) -> None:
    found = read(architecture)
    assert found.keys() >= WATCHED
    for name, (code, columns) in found.items():
        kernel, _, which = name.partition(" ")
        if kernel not in IMAGES and name not in WATCHED:
            continue
        loads, stores = IMAGES[kernel].get(which, (0, 0)) if kernel in IMAGES else STREAMING.get(kernel, (0, 0))
        assert columns["wide loads"] >= loads, name
        assert columns["wide stores"] >= stores, name
        if which in IMAGES.get(kernel, ()) and kernel not in WITH_OTHER_LOADS:
            assert columns["loads"] == columns["wide loads"], name
            assert columns["stores"] == columns["wide stores"], name
        assert code.registers <= (64 if kernel in STREAMING or kernel in TOTALS else 80), name
        assert columns["local memory"] == 0, name
        assert bool(columns["float64"]) == (kernel in TOTALS), name
        assert columns["divisions"] == 0 or kernel not in IMAGES, name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_wide_forms_load_and_store_128_bits_at_once(architecture: int) -> None:
    """At least twice for each output, in float64 too: a branch may double all. The last elements go singly."""
    read(architecture)
    forms = [code for code in code_of(architecture) if code.function.kernel.name in WIDE]
    assert {code.function.kernel.name for code in forms} == WIDE
    for function, registers, _, instructions in forms:
        assert registers <= 128, f"{function.name} takes {registers} registers"
        columns = row(instructions, registers)
        arrays = function.code.count("store_some(all_")
        assert columns["wide stores"] >= 2 * arrays, f"{function.name}: {columns}"
        assert columns["wide loads"] % 2 == 0, f"{function.name}: {columns}"
        assert columns["wide loads"] >= 2 or not columns["loads"], f"{function.name}: {columns}"


def test_the_table_is_that_of_the_kernels() -> None:
    kept, table = json.loads(TABLE.read_text("utf-8")), whole_table()
    assert set(kept["kernels"]) == WATCHED
    # Another compiler makes other code of the same source, and the rules above hold for it too.
    is_comparable = kept["nvrtc"] == version()
    changed = [name for name, rows in table.items() if is_comparable and kept["kernels"][name] != rows]
    assert not changed, f"python {Path(__file__).name} makes the table again: see what changed by git diff"


def test_what_a_kernel_does_wrong_is_seen() -> None:
    wrong = """
extern "C" __global__ void f(const float* x, float* y, const int* n) {
    float v[64];
    for (int k = 0; k < 64; ++k) v[n[k] & 63] = x[k];
    y[n[3]] = v[n[1] & 63] * (double)x[1] + (float)(n[2] / n[1]);
}"""
    read(90)
    binary, log = compiling.compiled(wrong, 90)
    columns = row(compiling.disassembled(binary)["f"], compiling.used(log)["f"][0])
    assert all(columns[what] for what in COLUMNS if not what.startswith("wide"))
    assert columns["wide loads"] == columns["wide stores"] == 0


if __name__ == "__main__":
    TABLE.write_text(written(whole_table()), "utf-8")
    print(f"{TABLE} by NVRTC {version()}")
