"""What NVRTC makes of the kernels that are `WATCHED`, in float32, read in the machine code: no GPU is needed.

`compiled_code.json` has a line for each: by architecture, `COLUMNS`. After a change of such a kernel make it again, and
look at what has changed:

    python tests/kernels/test_compiled_code.py
"""

import json
import re
import sys
from pathlib import Path

import pytest

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

from gpunn.kernels import Raw
from kernels import test_compile as compiling

ARCHITECTURES = (75, 86, 90, 100, 120)
TABLE = Path(__file__).with_name("compiled_code.json")
COLUMNS = ("registers", "instructions", "wide loads", "wide stores", "local memory", "float64", "divisions")
_PATTERNS = {
    "wide loads": r"LDG\S*\.128",
    "wide stores": r"STG\S*\.128",
    "local memory": r"(LDL|STL)\b",  # where registers are spilled to
    "float64": r"(D(ADD|MUL|FMA|SETP|MNMX)|MUFU\S*64H|F2F\S*F64|I2F\S*F64|F2I\S*F64)",
    "divisions": r"(I2F\S*\.RP|MUFU\.RCP)",  # of integers, and of numbers
}

# Kernels that go over long arrays: so many loads of 128 bits are on their way before the first value is needed, and
# what they write is written so.
STREAMING = {
    "row_sums": (4, 0),
    "mark_not_finite": (4, 0),
    **{f"{name}_gradient_and_sums": (4, 2) for name in ("relu", "sigmoid", "tanh", "softplus")},
}
# Totals of a training: the sums of a loss.
TOTALS = {
    f"{weighted}{name}"
    for weighted in ("", "weighted_")
    for name in ("softmax_cross_entropy", "binary_cross_entropy", "mean_squared_error")
}
# Kernels of images, whose sizes are constants or come as such.
WITHOUT_DIVISION: set[str] = set()
WATCHED = {*STREAMING, *TOTALS, *WITHOUT_DIVISION}


def row(instructions: list[str], registers: int) -> list[int]:
    """The columns of a function."""
    counts = {what: sum(bool(re.match(p, each)) for each in instructions) for what, p in _PATTERNS.items()}
    return [registers, len(instructions), *counts.values()]


def rows_of(architecture: int) -> dict[str, list[int]]:
    """Each kernel's columns on an architecture."""
    functions = [f for f in compiling.functions(Raw, WATCHED) if f.name == f"{f.kernel.name}_float32_float32"]
    found: dict[str, list[int]] = {}
    for options in {f.kernel.options for f in functions}:
        source = "".join(f.code for f in functions if f.kernel.options == options)
        binary, log = compiling.compiled(source, architecture, options)
        used = compiling.used(log)
        for name, instructions in compiling.disassembled(binary).items():
            found[name.removesuffix("_float32_float32")] = row(instructions, used[name][0])
    return found


def whole_table() -> dict[str, dict[str, list[int]]]:
    """By kernel and architecture the columns."""
    made = {str(a): rows_of(a) for a in ARCHITECTURES}
    return {name: {a: rows[name] for a, rows in made.items()} for name in sorted(WATCHED)}


def version() -> str:
    return ".".join(map(str, compiling.nvrtc.getVersion()))


def written(table: dict[str, dict[str, list[int]]]) -> str:
    lines = ",\n".join(f'  "{name}": {json.dumps(rows)}' for name, rows in table.items())
    return f'{{"nvrtc": "{version()}", "columns": {json.dumps(COLUMNS)}, "kernels": {{\n{lines}\n}}}}\n'


@pytest.fixture(scope="module")
def table() -> dict[str, dict[str, list[int]]]:
    """Made anew."""
    return whole_table()


def test_watched_kernels_keep_to_their_rules(table: dict[str, dict[str, list[int]]]) -> None:
    for name, rows in table.items():
        for architecture, columns in rows.items():
            code, where = dict(zip(COLUMNS, columns, strict=True)), f"{name} on sm_{architecture}"
            loads, stores = STREAMING.get(name, (0, 0))
            assert code["wide loads"] >= loads, where
            assert code["wide stores"] >= stores, where
            assert code["registers"] <= 64, where
            assert code["local memory"] == 0, where
            assert bool(code["float64"]) == (name in TOTALS), where
            assert code["divisions"] == 0 or name not in WITHOUT_DIVISION, where


def test_the_table_is_that_of_the_kernels(table: dict[str, dict[str, list[int]]]) -> None:
    kept = json.loads(TABLE.read_text("utf-8"))
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
    binary, log = compiling.compiled(wrong, 90)
    code = dict(zip(COLUMNS, row(compiling.disassembled(binary)["f"], compiling.used(log)["f"][0]), strict=True))
    assert all(code[what] for what in ("registers", "instructions", "local memory", "float64", "divisions"))
    assert code["wide loads"] == code["wide stores"] == 0


if __name__ == "__main__":
    TABLE.write_text(written(whole_table()), "utf-8")
    print(f"{TABLE} by NVRTC {version()}")
