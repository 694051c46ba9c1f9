"""Tell whether a trained network does better than one that looks at no input."""

import math

import numpy as np

from gpunn.data import Data, Samples
from gpunn.nn.losses import Loss
from gpunn.train.record import Record

_NEAR = 0.95
"""Share of the loss of a constant answer above which answers like those of chance show nothing learned."""
_ROWS = 1 << 16


def no_better_than_chance(data: Data, loss: Loss, last: Record, learning_rate: float | None, outputs: int) -> str:
    """Say why a record shows a network that does no better than a constant answer, and what to do; "" where it does.

    Classes: the accuracy is that of always answering the commonest one, within two standard errors, and the loss near
    that of always answering their shares. Float targets: the loss is that of answering their mean, R² ≤ 0, or above.
    """
    samples, part, accuracy = data.validation, "validation", last.validation_accuracy
    if samples is None:
        samples, part, accuracy = data.train, "training", last.train_accuracy
    reached, constant = last.watched_loss, _constant_loss(samples, loss, outputs)
    if samples.classes:
        chance = float(samples.class_counts().max()) / len(samples)
        margin = 2 * math.sqrt(chance * (1 - chance) / len(samples))
        is_chance = accuracy <= chance + margin and reached >= _NEAR * constant
        shown = f"accuracy {accuracy:.2%}, and always answering the commonest class gives {chance:.2%}"
    else:
        is_chance = reached >= constant > 0
        shown = f"loss {reached:.4g}, and always answering the mean of the targets gives {constant:.4g}"
    if not is_chance:
        return ""
    # Where the training samples are known by heart, the learning rate is not to blame.
    if part == "validation" and last.train_loss < 0.5 * _constant_loss(data.train, loss, outputs):
        causes = "targets that do not depend on the inputs or have outliers, or too few training samples"
    else:
        rate = "" if learning_rate is None else f" (try half of {learning_rate:g}: {learning_rate / 2:g})"
        causes = (
            f"a learning rate that is too high{rate}, or inputs that are not scaled or do not belong to their targets"
        )
    return f"no better than chance on the {part} samples: {shown}; the likeliest causes: {causes}"


def _constant_loss(samples: Samples, loss: Loss, outputs: int) -> float:
    """Return the lowest loss of a network with the same answer to every input; NaN for a loss of the user's own."""
    if samples.classes:  # labels count as one-hot; one output alone is that of class 1 of two
        shares = (samples.class_counts() / len(samples))[1 if outputs == 1 else 0 :]
        return loss.of_constant(shares, shares)
    sums, squares = np.zeros((2, samples.targets.shape[1]))
    for start in range(0, len(samples), _ROWS):
        rows = np.asarray(samples.targets[start : start + _ROWS], np.float64)
        sums, squares = sums + rows.sum(0), squares + (rows**2).sum(0)
    return loss.of_constant(sums / len(samples), squares / len(samples))
