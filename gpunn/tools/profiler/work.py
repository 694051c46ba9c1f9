"""What a step has to do at the least, counted from the shapes: FLOPs of its products, and bytes that must be moved.

It is a count of the equations and not of the code: an implementation that moves more bytes than these does them no
faster, and its distance to the limit shows.
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from gpunn.backend.base import Shape
from gpunn.nn.layers import Layer


class Work(NamedTuple):
    """What one part of a step does.

    Attributes:
        flops: multiplications and additions of matrix products; element-wise work is measured by its bytes.
        nbytes: of arrays that must be read or written at least once.
    """

    flops: int
    nbytes: int


def stage_work(
    stage: Layer, seen: Shape, given: Shape, n: int, itemsize: int, *, hands_back: bool, folded: bool
) -> tuple[Work, Work]:
    """The work of a stage on a batch, forward and backward.

    Args:
        stage: of the network; see `Layer.stages`.
        seen: the shape of a sample that goes in.
        given: the shape of a sample that comes out.
        n: samples of the batch.
        itemsize: bytes of a number.
        hands_back: whether it computes ∂C/∂input.
        folded: whether its weights are updated by the very product that would give their gradient (21).
    """
    inputs, outputs = n * prod(seen), n * prod(given)
    weights = stage.w
    if weights is None:
        forward, backward = (inputs * ins + outputs * outs for ins, outs in stage.traffic)
        return Work(0, forward * itemsize), Work(0, backward * itemsize)
    # Each weight is used once for every output place: one for Dense, rows × columns for Conv2D.
    flops = 2 * n * prod(given[:-1]) * weights.size
    # δ and a are read and ∂C/∂w written (13); w is read for wᵀ δ (8), which is written, or to be updated.
    learns = not weights.is_frozen
    backward = outputs + (inputs + weights.size if learns else 0)
    backward += weights.size if hands_back or folded else 0
    backward += inputs if hands_back else 0
    return (
        Work(flops, (inputs + weights.size + outputs) * itemsize),
        Work(flops * (learns + hands_back), backward * itemsize),
    )


def gather_work(n: int, features: int, stored: int, itemsize: int) -> Work:
    """Of taking n samples as they are stored, `stored` bytes a number, and converting them."""
    return Work(0, n * features * (stored + itemsize))


def loss_work(n: int, outputs: int, itemsize: int) -> Work:
    """Of a cost: z is read, ∂C/∂z written."""
    return Work(0, 2 * n * outputs * itemsize)


def update_work(parameters: int, memories: int, itemsize: int) -> Work:
    """Of an update: gradient and value are read, value is written; what is remembered of each is read and written.

    Args:
        parameters: that are updated by it, not by a product before.
        memories: numbers that the optimizer remembers of each: 1 for momentum, 2 for Adam.
        itemsize: bytes of a number.
    """
    return Work(0, (3 + 2 * memories) * parameters * itemsize)
