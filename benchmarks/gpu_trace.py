"""Trace the launches of a training step: kernels and products in order, with grids and bytes of arrays.

Only the step is planned: nothing of it is computed. It needs CuPy, and a GPU or the CUDA of `tests/simulated_cuda`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from workloads import dense, layers_of, recipe, three_by_three

import gpunn as gn
from gpunn.backend import compiling, wide
from gpunn.backend.base import Planned, layout_of
from gpunn.backend.cuda import CupyBackend
from gpunn.kernels import convolution
from gpunn.kernels.bias_normalization import joined
from gpunn.kernels.record import Elementwise, Raw, per_element
from gpunn.train.arguments import TrainOptions
from gpunn.train.trainer import Trainer

Array = Any


@dataclass(frozen=True)
class Node:
    """A kernel or a product of a step.

    Attributes:
        name: of the kernel; "product" of products.
        blocks, threads: of its grid and of a block; 0 where cuBLAS chooses.
        elements: of the largest array.
        needed: bytes that the algorithm reads and writes, the columns of convolutions among them.
        moved: bytes that the kernel reads and writes.
        sizes: m, n, k of a product.
        rows: of a reduction.
        kernel, dtypes, variant: what was compiled.
    """

    name: str
    blocks: int
    threads: int
    elements: int
    needed: int
    moved: int
    sizes: tuple[int, int, int] = (0, 0, 0)
    rows: int = 0
    kernel: Elementwise | Raw | None = field(default=None, compare=False)
    dtypes: Mapping[str, np.dtype[Any]] = field(default_factory=dict, compare=False)
    variant: Mapping[str, int] = field(default_factory=dict, compare=False)


def _bytes_of(array: Array) -> int:
    return int(array.size) * int(array.dtype.itemsize)


Passes = Mapping[str, float]
PASSES: Mapping[str, Passes] = {
    "normalize": {"x": 2},
    "normalize_gradient": {"dy": 2, "x": 2},
    **{each.forward.name: {"x": 2} for each in joined.values()},
}
"""Parameters that a kernel must go over more than once: it needs their sums before it uses them, or changes them."""
CHANGED = ("sgd", "momentum_sgd", "adam", "add_bias", "bias_", "average_weights")
"""Element-wise kernels that read what they write."""


def _pointers(kernel: Raw) -> dict[str, bool]:
    """Return the arrays that a kernel declares, and whether it writes them."""
    declared = re.search(rf"__global__\s+void\s+{kernel.name}\s*\(([^)]*)\)", kernel.source)
    assert declared, kernel.name
    found = {}
    for parameter in declared[1].split(","):
        if "*" in parameter:
            found[parameter.replace("*", " ").split()[-1]] = "const" not in parameter
    return found


def node_of(kernel: Elementwise | Raw, arguments: Sequence[Any]) -> Node:
    """Return what a call gives to a device."""
    return _of_elementwise(kernel, arguments) if isinstance(kernel, Elementwise) else _of_raw(kernel, arguments)


def _of_raw(kernel: Raw, arguments: Sequence[Any]) -> Node:
    blocks, (threads,), values = compiling.launch_arguments(kernel, arguments)
    dtypes, constants = compiling.variant(kernel, arguments)
    pointers = _pointers(kernel)
    arrays = dict(zip(pointers, (v for v in values if hasattr(v, "shape") and v.shape), strict=True))
    passes = PASSES.get(kernel.name, {})
    needed = {name: _bytes_of(array) * float(passes.get(name, 1)) for name, array in arrays.items()}
    moved = dict(needed)
    if (part := _PARTS.get(kernel.name)) is not None:
        part(arguments, needed, moved)
    return Node(
        kernel.name, prod(blocks), threads, max(a.size for a in arrays.values()), int(sum(needed.values())),
        int(sum(moved.values())), rows=min(len(a) for a in arrays.values()), kernel=kernel, dtypes=dtypes,
        variant=constants,
    )  # fmt: skip


Part = Callable[[Sequence[Any], dict[str, float], dict[str, float]], None]


def _im2col(arguments: Sequence[Any], needed: dict[str, float], moved: dict[str, float]) -> None:
    """Count of the image the rows that a block of output rows sees; those that two blocks see are needed once."""
    x, first, width_out, geometry, columns = arguments
    rows = columns.shape[1] // (width_out * x.shape[3])
    top = first * geometry[2] - geometry[4]
    seen = min(x.shape[1], top + (rows - 1) * geometry[2] + geometry[0]) - max(0, top)
    moved["x"] *= seen / x.shape[1]
    needed["x"] *= min(1, rows * geometry[2] / x.shape[1])


def _col2im(arguments: Sequence[Any], needed: dict[str, float], moved: dict[str, float]) -> None:
    """Count of the image the rows that a block sets, and twice those that it adds to."""
    _, _, rows, rows_out, _, _, dx = arguments
    values = convolution.col2im.launch(*arguments).arguments
    begin, given, seen = values[6], values[7], values[12]
    moved["dx"] *= (seen + max(0, given - begin)) / dx.shape[1]
    needed["dx"] *= rows / rows_out


def _gather(arguments: Sequence[Any], needed: dict[str, float], moved: dict[str, float]) -> None:
    """Count of the data set the rows that are taken, and of the order their numbers."""
    data, targets, order = arguments[:3]
    n = arguments[-1].shape[-1]
    for name, array in (("data", data), ("targets", targets), ("order", order)):
        needed[name] = moved[name] = _bytes_of(array) * n / len(array)


_PARTS: Mapping[str, Part] = {"im2col": _im2col, "col2im": _col2im, "gather": _gather, "gather_augmented": _gather}
"""Kernels that go over a part of their arrays."""


def _of_elementwise(kernel: Elementwise, arguments: Sequence[Any]) -> Node:
    names = [*filter(None, kernel.inputs.split(",")), *kernel.outputs.split(",")]
    inputs = len(names) - len(kernel.outputs.split(","))
    reads, writes = dict[int, Array](), dict[int, Array]()
    is_changed = kernel.name.startswith(CHANGED)
    for number, (name, value) in enumerate(zip(names, arguments, strict=True)):
        if not getattr(value, "shape", ()) or "raw" in name.split():
            continue
        if number < inputs or is_changed:
            reads[_address(value)] = value
        if number >= inputs:
            writes[_address(value)] = value
    size = max(value.size for value in [*reads.values(), *writes.values()])
    moved = sum(map(_bytes_of, [*reads.values(), *writes.values()]))
    form = wide.fitting(kernel, tuple(arguments))  # of large arrays, with several elements a thread
    launch = form.launch(*arguments) if isinstance(form, Raw) else per_element(size, threads=128)
    blocks = launch.blocks if isinstance(launch.blocks, int) else prod(launch.blocks)
    return Node(kernel.name, blocks, launch.threads, size, moved, moved, kernel=kernel)


def _address(array: Array) -> int:
    return int(array.data.ptr if hasattr(array.data, "ptr") else array.ctypes.data)


def _of_product(a: Array, b: Array, beta: float, c: Array) -> Node:
    _, _, m, n, k, *_ = layout_of(a, b, c)
    moved = _bytes_of(a) + _bytes_of(b) + _bytes_of(c) * (2 if beta else 1)
    return Node("product", 0, 0, max(a.size, b.size, c.size), moved, moved, sizes=(m, n, k))


class Notes:
    """What CUDA devices are given; `nodes` is None while they do it all the same."""

    nodes: list[Node] | None = None


@contextmanager
def noting() -> Iterator[Notes]:
    """Let notes be made, within, of what CUDA devices are given in place of doing it. Layers keep `run` once built."""
    notes, kept = Notes(), {name: getattr(CupyBackend, name) for name in ("run", "gemm", "planned")}

    def run(backend: CupyBackend, kernel: Elementwise | Raw, *arguments: Any) -> None:
        if notes.nodes is None:
            kept["run"](backend, kernel, *arguments)
        else:
            notes.nodes.append(node_of(kernel, arguments))

    def gemm(backend: CupyBackend, alpha: float, a: Array, b: Array, beta: float, c: Array) -> None:
        planned(backend, a, b, c)(alpha, beta)

    def planned(backend: CupyBackend, a: Array, b: Array, c: Array) -> Planned:
        def product(alpha: float, beta: float) -> None:
            if notes.nodes is None:
                kept["gemm"](backend, alpha, a, b, beta, c)
            else:
                notes.nodes.append(_of_product(a, b, beta, c))

        return product

    for name, function in (("run", run), ("gemm", gemm), ("planned", planned)):
        setattr(CupyBackend, name, function)
    try:
        yield notes
    finally:
        for name, function in kept.items():
            setattr(CupyBackend, name, function)


@dataclass(frozen=True)
class Network:
    """A benchmark's network and what its step does besides."""

    layers: Sequence[dict[str, Any]]
    shape: tuple[int, int, int] = (28, 28, 1)
    batch: int = 128
    momentum: float = 0.0
    decay: float = 0.0
    is_augmented: bool = False


NETWORKS = {
    "784-128-10": Network(dense(128, 10)),
    "784-512-512-10": Network(dense(512, 512, 10)),
    "lenet": Network(recipe("lenet")),
    "lenet-bn": Network(recipe("lenet-bn"), momentum=0.9, decay=2e-4, is_augmented=True),
    "fast99": Network(recipe("fast99"), batch=64, momentum=0.9, decay=1.7e-4),
    "3×3 64-128-256": Network(three_by_three(), shape=(32, 32, 3)),
}


def traced(network: Network, backend: CupyBackend, samples: int = 256) -> list[Node]:
    """Return the nodes of one step of a network."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (samples, *network.shape)).astype(np.uint8)
    data = gn.Data.from_arrays(images, rng.integers(0, 10, samples), validation=0)
    options = TrainOptions(
        batch_size=network.batch, device=backend, progress=False, loss=gn.SoftmaxCrossEntropy(),
        optimizer=gn.SGD(0.1, momentum=network.momentum, nesterov=network.momentum > 0),
        regularizer=gn.L2(network.decay * samples) if network.decay else None,
        augmentation=gn.Augmentation(shift=2, rotation=10, scale=0.1, shear=0.1) if network.is_augmented else None,
    )  # fmt: skip
    model = gn.Sequential(layers_of(network.layers))
    with noting() as notes:
        trainer = Trainer(model, options, data)
        notes.nodes = []
        trainer.step.compute(network.batch)
        return notes.nodes
