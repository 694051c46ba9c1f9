"""Model files."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import gpunn as gn
from fuzz.harness import Target
from fuzz.targets.csv_tables import COLUMNS
from gpunn.backend import limits
from gpunn.data.training_inputs import TrainingInputs
from gpunn.nn.footprint import UNCOUNTED
from gpunn.saving.model_file import model_bytes

AS_IT_IS, DESCRIPTION, HEADER = b"\0", b"\1", b"\2"

# What a network may take in all. Buffers belong to the network that a file describes, not to the file, and are bound
# by the limit: here to less than the harness lets a file take.
_NETWORK = UNCOUNTED + (24 << 20)


@cache
def a_model() -> gn.Sequential:
    """A network with a layer of most kinds."""
    layers = [
        gn.Conv2D(2, 3, weights=gn.Normal(0.3)), gn.BatchNorm(), gn.ReLU(), gn.MaxPool2D(2), gn.Flatten(),
        gn.Dropout(0.5), gn.Dense(3, bias=False), gn.LeakyReLU(0.1), gn.Dense(2),
    ]  # fmt: skip
    model = gn.Sequential(layers).build((6, 5, 1), 4, "cpu", seed=1)
    model.loss, model.class_names, model.input_scale = gn.SoftmaxCrossEntropy(), ("a", "ç"), 1 / 255
    return model


def parts(content: bytes) -> tuple[bytes, bytes]:
    """Header and values of a safetensors file."""
    length = int.from_bytes(content[:8], "little")
    return content[8 : 8 + length], content[8 + length :]


def joined(header: bytes, values: bytes) -> bytes:
    """A safetensors file of any header, whose length is right."""
    return len(header).to_bytes(8, "little") + header + values


def described(description: bytes) -> bytes:
    """A good file with another description."""
    header, values = parts(model_bytes(a_model()))
    table = json.loads(header)
    table["__metadata__"]["gpunn"] = description.decode("utf-8", "replace")
    return joined(json.dumps(table).encode("utf-8", "replace"), values)


def limited(read: Callable[[Path], object]) -> Callable[[Path], object]:
    """Read where networks of more than `_NETWORK` bytes are refused."""

    def bounded(path: Path) -> object:
        limits.set_memory_limit(limits.resident_bytes() + _NETWORK)
        try:
            return read(path)
        finally:
            limits.set_memory_limit(None)

    return bounded


def _seeds() -> dict[str, bytes]:
    content = model_bytes(a_model())
    header, _ = parts(content)
    small = gn.Sequential([gn.Dense(2), gn.Sigmoid()]).build((3,), 4, "cpu", "float64")
    of_table = gn.Sequential([gn.Dense(1)]).build((3,), 4, "cpu")
    of_table.trained_on = TrainingInputs((3,), False, 1.0, (-1.0,), (2.0,), columns=COLUMNS)
    text = json.loads(header)["__metadata__"]["gpunn"].encode()
    return {
        "convolutional": AS_IT_IS + content,
        "dense": AS_IT_IS + model_bytes(small),
        "of a table": AS_IT_IS + model_bytes(of_table),
        "description": DESCRIPTION + text,
        "header": HEADER + header,
    }


def _with(**changes: Any) -> Callable[[], bytes]:
    """A good file whose description says something else."""

    def made() -> bytes:
        description = json.loads(json.loads(parts(model_bytes(a_model()))[0])["__metadata__"]["gpunn"])
        return described(json.dumps(description | changes).encode())

    return made


def many_names(count: int) -> bytes:
    entry = b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    return joined(b"{" + b",".join(entry % number for number in range(count)) + b"}", b"")


def _places(*places: tuple[int, int]) -> bytes:
    """Arrays of a float each, at any places of eight bytes."""
    table = {f"a{n}": {"dtype": "F32", "shape": [1], "data_offsets": place} for n, place in enumerate(places)}
    return joined(json.dumps(table).encode(), np.zeros(2, np.float32).tobytes())


TARGET = Target(
    name="models",
    read=limited(lambda path: gn.load_model(path, "cpu")),
    seeds=_seeds,
    hostile={
        "a million names": lambda: many_names(1_000_000),
        "twenty thousand names": lambda: many_names(20_000),
        "arrays that overlap": lambda: _places((0, 4), (0, 4)),
        "arrays with a gap": lambda: _places((0, 2), (4, 8)),
        "arrays that end before they begin": lambda: _places((8, 4), (0, 4)),
        "arrays beyond the file": lambda: _places((0, 4), (2**62, 2**62 + 4)),
        "a length beyond the file": lambda: (2**63).to_bytes(8, "little") + b"{}",
        "a header of spaces": lambda: joined(b"{}" + b" " * (20 << 20), b""),
        "a header of brackets": lambda: joined(b"[" * (1 << 20), b""),
        "a header of empty lists": lambda: joined(b"[" + b"[]," * 600_000 + b"[]]", b""),
        "a deep description": lambda: described(b"[" * 100_000),
        "a long description": _with(layers=["x" * 1_500_000]),
        "a long number": lambda: described(b'{"format":' + b"9" * 5000 + b"}"),
        "a hundred thousand layers": _with(layers=["ReLU"] * 100_000),
        "a thousand layers": _with(layers=["ReLU"] * 1000),
        "two hundred convolutions of a megapixel": _with(
            layers=[{"type": "Conv2D", "filters": 1, "size": 1}] * 200, input_shape=[1024, 1024, 1]
        ),
        "sixteen gigabytes of weights": _with(layers=[{"type": "Dense", "units": 65_536}] * 2, input_shape=[65_536]),
        "a network without weights, and gigabytes of buffers": lambda: described_without_arrays(
            layers=["Sigmoid"] * 900, input_shape=[1 << 20]
        ),
        "another library's layer": _with(layers=[{"type": "os.system", "command": "true"}]),
        "names for a terminal": _with(class_names=["\x1b[31m\n", "b"]),
        "a thousand thousand names": _with(class_names=[str(number) for number in range(150_000)]),
    },
    wraps=(bytes, described, lambda header: joined(header, parts(model_bytes(a_model()))[1])),
    words=(b'"type": "', b'"Dense"', b'"Conv2D"', b'"units": ', b'"weights": {"type": "Normal"', b"null", b"NaN",
           b"1e999", b'"input_shape": [', b'"dtype": "float64"', b'"F64"', b'"data_offsets"', b'\\"', b"[[["),
)  # fmt: skip


def described_without_arrays(**changes: Any) -> bytes:
    """A file without arrays, with another description."""
    description = {
        "format": 1, "layers": [], "loss": None, "input_shape": [1], "input_scale": 1.0, "class_names": [],
        "dtype": "float32",
    }  # fmt: skip
    return joined(json.dumps({"__metadata__": {"gpunn": json.dumps(description | changes)}}).encode(), b"")
