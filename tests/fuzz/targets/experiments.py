"""Experiment files, and the trainings that they describe."""

from functools import cache
from pathlib import Path

import numpy as np
from support.cli_helpers import TINY

import gpunn as gn
from fuzz.harness import Target
from fuzz.targets.models import limited
from gpunn.experiments.experiment import read_experiment, recipes


@cache
def _data() -> gn.Data:
    return gn.Data.from_arrays(np.zeros((40, 4, 4, 1), np.uint8), np.arange(40) % 2)


def _read(path: Path) -> None:
    experiment = read_experiment(str(path))
    # With data of our own: those that the file names may be any on this machine.
    experiment.with_options(device="cpu").trainer(_data(), progress=False)


def _seeds() -> dict[str, bytes]:
    network = "\n".join(
        f"[[layers]]\n{layer}" for layer in (
            "type = 'Conv2D'\nfilters = 2\nsize = [3, 2]\npadding = 'same'", "type = 'BatchNorm'", "type = 'LeakyReLU'",
            "type = 'MaxPool2D'", "type = 'Flatten'", "type = 'Dropout'\np = 0.2",
            "type = 'Dense'\nunits = 'outputs'\nweights = { type = 'Normal', deviation = 0.1 }",
        )
    )  # fmt: skip
    rest = """
[optimizer]
type = "AdamW"
learning_rate = { type = "Warmup", steps = 9, rate = { type = "OneCycle", peak = 0.1 } }
[regularizer]
type = "L2"
strength = 5.0
[augmentation]
type = "Augmentation"
shift = 1.0
[loss]
type = "SoftmaxCrossEntropy"
[training]
batch_size = 9
seed = 4_000_000_000
patience = 1.5
recompute_statistics = true
"""
    tiny = TINY.replace("batch_size = 700", "batch_size = 7")
    return {"tiny": tiny.encode(), "large": (network + rest).encode(), "lenet": recipes()["lenet-digits"].read_bytes()}


def _convolution(options: str) -> bytes:
    return f"layers = [{{ type = 'Conv2D', {options} }}]\noptimizer = 'SGD'".encode()


_BEGIN = 'layers = ["ReLU"]\noptimizer = "SGD"\n'

TARGET = Target(
    name="experiments",
    read=limited(_read),
    seeds=_seeds,
    hostile={
        "dots in a key": lambda: b"a." * 30_000 + b"a = 1",
        "dots in many keys": lambda: b"\n".join(b"a%d" % n + b".a" * 16 + b" = 1" for n in range(1500)),
        "dots in a table's name": lambda: b"[" + b"a." * 100_000 + b"a]",
        "dots in a table's name and keys": lambda: b"[" + b"b." * 15 + b"b]\n" + b"\n".join(
            b"a%d" % n + b".a" * 16 + b" = 1" for n in range(1500)
        ),
        "a long number": lambda: b"a = " + b"9" * 10_000,
        "a long number of underscores": lambda: b"a = " + b"1_" * 30_000 + b"1",
        "a long hexadecimal number": lambda: (_BEGIN + "[training]\nseed = 0x" + "f" * 60_000).encode(),
        "a long optimizer": lambda: b'layers = ["ReLU"]\noptimizer = 0x' + b"f" * 60_000,
        "brackets": lambda: b"a = " + b"[" * 60_000,
        "braces": lambda: b"a = " + b"{a = " * 10_000,
        "tables": lambda: "".join(f"[a{number}]\n" for number in range(7_000)).encode(),
        "tables of an array": lambda: b"[[a]]\n" * 10_000,
        "layers": lambda: b"layers = [" + b'"ReLU",' * 8_000 + b"]\noptimizer = 'SGD'",
        "a thousand layers": lambda: b"layers = [" + b'"ReLU",' * 1000 + b"]\noptimizer = 'SGD'",
        "a long name": lambda: (_BEGIN + 'name = "' + "a" * 60_000 + '"').encode(),
        "a long key": lambda: b"a" * 60_000 + b" = 1",
        "a long type": lambda: b'layers = ["' + b"a" * 60_000 + b'"]\noptimizer = "SGD"',
        "escapes": lambda: b'a = "' + b"\\n" * 30_000 + b'"',
        "quotes": lambda: b'a = """' + b'"' * 60_000,
        "comments": lambda: b"#\n" * 30_000,
        "words for a terminal": lambda: b'layers = ["\\u001b[31m\\n"]\noptimizer = "SGD"',
        "a date": lambda: (_BEGIN + "name = 1979-05-27T00:32:00.999999-23:59").encode(),
        "not a number": lambda: b"layers = ['ReLU']\noptimizer = { type = 'SGD', learning_rate = nan }",
        "a name that leads out": lambda: (_BEGIN + 'name = "../../out"').encode(),
        "gigabytes": lambda: b"#" * (100 << 20),
        "no text": lambda: b"\xff\xfe\0",
        "a layer of two thousand million units": lambda: TINY.replace('"outputs"', "2147483647").encode(),
        "two thousand million filters": lambda: _convolution("filters = 2147483647, size = 4"),
        "a padding of millions": lambda: _convolution("filters = 1, size = 1, padding = 99999999"),
    },
    words=(b"[[layers]]\n", b"type = ", b"'Dense'", b"units = ", b"= inf", b"= nan", b"0x", b'"""', b"'''", b"[data]\n",
           b"[training]\n", b"learning_rate = ", b"{ type = 'Cosine', rate = 1 }", b"1979-05-27", b"weights = ",
           b"padding = ", b"[checkpoints]\n"),
)  # fmt: skip
