"""What a training that came to its end is worth: whether its network does better than one that looks at no input."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gpunn.data import Data, Samples
from gpunn.nn.losses import Loss
from gpunn.train.record import Record

_NEAR = 0.95
"""Share of the cost of a constant answer: above it a network whose answers are those of chance has learned nothing."""

_ROWS = 1 << 16


def no_better_than_chance(data: Data, loss: Loss, last: Record, learning_rate: float | None, outputs: int = 0) -> str:
    """Why a record shows a network that does no better than a constant answer, and what to do; "" where it does.

    Classes: the accuracy is that of always answering the commonest one, within two standard errors, and the cost near
    that of always answering their shares. Float targets: the cost is that of answering their mean, R² ≤ 0, or above.

    Args:
        data: that were trained on.
        loss: of the training.
        last: of the network as it is to be used.
        learning_rate: as it was set, or None.
        outputs: Number of outputs; one alone is that of class 1 of two.
    """
    if data.validation is None:
        samples, part, cost, accuracy = data.train, "training", last.train_loss, last.train_accuracy
    else:
        samples, part = data.validation, "validation"
        cost, accuracy = last.validation_loss, last.validation_accuracy
    constant = constant_cost(samples, loss, outputs)
    if samples.classes:
        chance = float(samples.class_counts().max()) / len(samples)
        margin = 2 * math.sqrt(chance * (1 - chance) / len(samples))
        if not (accuracy <= chance + margin and cost >= _NEAR * constant):
            return ""
        shown = f"accuracy {accuracy:.2%}, and always answering the commonest class gives {chance:.2%}"
    else:
        if not cost >= constant > 0:
            return ""
        shown = f"cost {cost:.4g}, and always answering the mean of the targets costs {constant:.4g}"
    # Where the training samples are known by heart, the learning rate is not to blame.
    if part == "validation" and last.train_loss < 0.5 * constant_cost(data.train, loss, outputs):
        causes = "targets that do not depend on the inputs or have outliers, or too few training samples"
    else:
        rate = "" if learning_rate is None else f" (try half of {learning_rate:g}: {learning_rate / 2:g})"
        causes = (
            f"a learning rate that is too high{rate}, or inputs that are not scaled or do not belong to their targets"
        )
    return f"no better than chance on the {part} samples: {shown}; the likeliest causes: {causes}"


def constant_cost(samples: Samples, loss: Loss, outputs: int = 0) -> float:
    """The lowest cost of a network that answers the same whatever its input; nan for a loss of somebody's own."""
    means, squares = _moments(samples)
    if samples.classes and outputs == 1:
        means, squares = means[1:], squares[1:]
    return loss.of_constant(means, squares)


def _moments(samples: Samples) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means of the targets and of their squares, for each output; labels count as one-hot."""
    if samples.classes:
        shares = samples.class_counts() / len(samples)
        return shares, shares
    sums, squares = 0.0, 0.0
    for start in range(0, len(samples), _ROWS):
        rows = np.asarray(samples.targets[start : start + _ROWS], np.float64)
        sums, squares = sums + rows.sum(0), squares + (rows**2).sum(0)
    return np.asarray(sums / len(samples)), np.asarray(squares / len(samples))
