"""One array in a .npy file, as `gpunn predict` takes it."""

import io

import numpy as np

from fuzz.harness import Target, each
from gpunn.data.formats.inputs import read_inputs


def npy_bytes(array: np.ndarray) -> bytes:
    """A .npy file as NumPy writes it."""
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def with_header(text: str, values: bytes = bytes(48)) -> bytes:
    """A .npy file of any header."""
    return b"\x93NUMPY\x01\0" + len(text).to_bytes(2, "little") + text.encode("latin-1") + values


def header(descr: str = "'<f4'", fortran: str = "False", shape: str = "(4, 3)") -> str:
    """The text of a header of these three."""
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}"


def _seeds() -> dict[str, bytes]:
    dtypes = ("uint8", "bool", "<f4", ">f8", "<i8", "<f2")
    arrays = {dtype: np.arange(12).reshape(4, 3).astype(dtype) for dtype in dtypes}
    arrays |= {
        "turned": np.asfortranarray(arrays["<f4"]),
        "one": arrays["<f4"][0],
        "images": np.zeros((2, 1, 3, 1), "<f4"),
    }
    return {name: npy_bytes(array) for name, array in arrays.items()}


HEADERS = {
    "unhashable": "{[]: 1}",
    "parentheses": "(" * 5000,
    "signs": "-" * 9000 + "1",
    "brackets": "[" * 9000 + "]" * 9000,
    "a set": "{1, 2}",
    "a call": "__import__('os').system('true')",
    "a long number": header(shape="(" + "9" * 5000 + ",)"),
    "sizes beyond a word": header(shape="(4611686018427387904, 4611686018427387904)"),
    "nothing of nothing": header(shape="(0, 9223372036854775807)"),
    "below 0": header(shape="(-4, -3)"),
    "true": header(shape="(True, 12)"),
    "a thousand sizes": header(shape="(" + "1, " * 1000 + ")"),
    "objects": header("'|O'"),
    "records": header("[('a', '<f4')]"),
    "records in words": header("'" + "f4," * 3000 + "'"),
    "an array of arrays": header("('<f4', (1000000000, 1000))"),
    "texts of no length": header("'<U0'"),
    "complex": header("'<c8'"),
    "order 7": header(fortran="7"),
    "thrice the same": "{" + "'descr': '<f4', " * 3 + "}",
    "spaces": "{" + " " * 60_000 + "}",
}


def _as_inputs(*shape: int) -> object:
    return lambda path: read_inputs(path, shape)


TARGET = Target(
    name="npy",
    read=lambda path: each(path, _as_inputs(3), _as_inputs(1, 3, 1)),  # type: ignore[arg-type]
    seeds=_seeds,
    hostile={
        **{name: lambda text=text: with_header(text) for name, text in HEADERS.items()},
        "a length beyond the file": lambda: b"\x93NUMPY\x01\0\xff\xff" + b" " * 100,
        "no length": lambda: b"\x93NUMPY\x01\0",
        "version 3": lambda: b"\x93NUMPY\x03\0" + bytes(100),
        "values too few": lambda: with_header(header(), bytes(47)),
        "values too many": lambda: with_header(header(), bytes(49)),
        "NaN": lambda: with_header(header(), b"\xff" * 48),
        "bytes that are no bool": lambda: with_header(header("'|b1'"), b"\xff" * 12),
    },
    words=(b"'descr': ", b"'fortran_order': ", b"'shape': ", b"True", b"'<f8'", b"'|O'", b"'|b1'", b"(4, 3)", b"12L"),
)
